"""Framing: which crop of a frame to look at, so that something small is seen with enough pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.crops import Bounds, Crop

Pixels = NDArray[np.uint8]

# A crop follows slowly, so that a mask which leaks or shrinks does not take it along: by these
# shares of its side a frame it moves, grows and shrinks. What it follows stays inside at this
# share of the side from its edges, however fast it is.
MOVES, GROWS, SHRINKS = 0.05, 0.05, 0.02
INSIDE = 0.08
# An absent object may come back elsewhere: by how much its crop grows with every frame.
SEARCH = 1.1


@dataclass(frozen=True)
class Framing:
    """How closely to look.

    margin: a crop is so many times as long as what is in it. closest: and at least this share of
    the frame's side. farthest: a crop of this share of both sides shows nothing better than the
    frame, so the frame is taken. alike: a crop has the frame's shape, so that things keep theirs.
    """

    margin: float
    closest: float
    farthest: float = 0.8
    alike: bool = False

    def around(self, bounds: Bounds, frame: Crop, pixels: Pixels) -> Crop:
        """Where to look at what lies within `bounds` of a whole `frame`, on the grid of `pixels`.

        pixels: (h, w, 3) uint8, the frame at any size.
        """
        rows, columns = pixels.shape[:2]
        low_x, high_x = bounds[0] / frame.width, bounds[2] / frame.width
        low_y, high_y = bounds[1] / frame.height, bounds[3] / frame.height
        across = max(self.closest, self.margin * (high_x - low_x))
        down = max(self.closest, self.margin * (high_y - low_y))
        if self.alike:
            across = down = max(across, down)
        x0, x1 = _span((low_x + high_x) / 2, across, columns)
        y0, y1 = _span((low_y + high_y) / 2, down, rows)
        if x1 - x0 >= self.farthest * columns and y1 - y0 >= self.farthest * rows:
            return frame
        wide, high = frame.width / columns, frame.height / rows
        return replace(frame, x0=x0 * wide, y0=y0 * high, x1=x1 * wide, y1=y1 * high)

    def follow(self, before: Crop, bounds: Bounds | None, pixels: Pixels) -> Crop:
        """The next frame's crop.

        before, bounds: where the object was looked at on the last frame, and where it was; None if
        it was absent: then the crop widens, little by little, until it is the whole frame.
        """
        frame = before.frame
        if before.is_whole:
            return frame if bounds is None else self.around(bounds, frame, pixels)
        if bounds is None:
            x, y = (before.x0 + before.x1) / 2, (before.y0 + before.y1) / 2
            w, h = before.width * SEARCH / 2, before.height * SEARCH / 2
            wider = (x - w, y - h, x + w, y + h)
            return replace(self, margin=1).around(wider, frame, pixels)
        x0, x1 = self._followed(before.x0, before.x1, bounds[0], bounds[2], frame.width)
        y0, y1 = self._followed(before.y0, before.y1, bounds[1], bounds[3], frame.height)
        return replace(self, margin=1).around((x0, y0, x1, y1), frame, pixels)

    def _followed(
        self, low: float, high: float, first: float, last: float, side: float
    ) -> tuple[float, float]:
        """One side of a crop low..high after a frame on which its object was at first..last."""
        length = max(self.closest * side, self.margin * (last - first))
        length = min(max(length, (high - low) * (1 - SHRINKS)), (high - low) * (1 + GROWS))
        length = max(length, (last - first) / (1 - 2 * INSIDE))
        middle, most = (low + high) / 2, MOVES * (high - low)
        middle += min(max((first + last) / 2 - middle, -most), most)
        reach = length * (0.5 - INSIDE)
        middle = min(max(middle, last - reach), first + reach)
        return middle - length / 2, middle + length / 2


def _span(middle: float, length: float, count: int) -> tuple[int, int]:
    """Pixels of `count` around `middle`, `length` long; both are shares of the side."""
    taken = min(count, max(1, round(count * length)))
    first = min(max(round(middle * count - taken / 2), 0), count - taken)
    return first, first + taken


# Chosen by measurement, docs/training.md.
PROMPTED = Framing(margin=2.0, closest=0.4)
TRACKED = Framing(margin=2.5, closest=0.4, alike=True)


def enough_pixels(image: Pixels, size: int) -> Pixels:
    """A picture no larger than the closest crops of a network of `size` pixels need."""
    height, width = image.shape[:2]
    limit = _enough(size)
    small = (min(width, limit), min(height, limit))
    if small == (width, height):
        return image
    return np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def plenty_of_pixels(image: Pixels, size: int) -> Pixels:
    """A frame of a pass, made smaller by a whole number if more than `enough_pixels` is left.

    Every frame of a pass goes through this: a whole factor costs a tenth of any other, and up to
    twice too large, a few crops cost less than making the whole frame smaller.
    """
    height, width = image.shape[:2]
    factor = min(height, width) // _enough(size)
    if factor < 2:
        return image
    small = (width // factor, height // factor)
    return np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _enough(size: int) -> int:
    """A side of the frame from which the closest crops fill a network of `size` pixels."""
    return round(size / min(PROMPTED.closest, TRACKED.closest))
