"""Crops of a frame, and what changes places between them: prompts, logits, masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, arange, stack

from edgetam_label.masks import Mask, mask_to_box
from edgetam_label.modeling import ObjectMask
from edgetam_label.preprocess import logits_to_mask
from edgetam_label.prompts import Box, Click

P = TypeVar("P", bound=np.generic)
V = TypeVar("V", np.uint8, np.float32)
Bounds = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the frame
Drawn = NDArray[np.uint8]  # (S, S) of a crop: how much of each pixel is the object's, of 255

ABSENT_SCORE = -1.0  # the object score of one that is taken to be absent
UNSEEN_LOGIT = -10.0  # outside of what was looked at: background beyond doubt


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame of `frame_width` x `frame_height` pixels, in those pixels.

    Edges may lie between pixels: crops follow the grid of the picture that they are cut from,
    which can be smaller than the frame.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    frame_width: int
    frame_height: int

    @classmethod
    def whole(cls, width: int, height: int) -> Crop:
        """All of a frame."""
        return cls(0, 0, width, height, width, height)

    @property
    def frame(self) -> Crop:
        """All of the frame that this is a crop of."""
        return Crop.whole(self.frame_width, self.frame_height)

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def is_whole(self) -> bool:
        return self == self.frame

    def holds(self, click: Click) -> bool:
        return self.x0 <= click.x < self.x1 and self.y0 <= click.y < self.y1

    def clicks(self, clicks: Sequence[Click]) -> tuple[Click, ...]:
        """Those inside, measured from the crop's corner; all of them on a whole frame."""
        inside = clicks if self.is_whole else [c for c in clicks if self.holds(c)]
        return tuple(Click(c.x - self.x0, c.y - self.y0, c.positive) for c in inside)

    def box(self, box: Box | None) -> Box | None:
        """A box measured from the crop's corner."""
        if box is None:
            return None
        return Box(box.x0 - self.x0, box.y0 - self.y0, box.x1 - self.x0, box.y1 - self.y0)

    def cut(self, pixels: NDArray[P]) -> NDArray[P]:
        """The crop of a picture or mask of the whole frame, whatever its size: (h, w, …)."""
        rows, columns = pixels.shape[:2]
        across, down = columns / self.frame_width, rows / self.frame_height
        x0, x1 = round(self.x0 * across), round(self.x1 * across)
        y0, y1 = round(self.y0 * down), round(self.y1 * down)
        return np.ascontiguousarray(pixels[y0:y1, x0:x1])

    def mask(self, logits: Tensor) -> Mask:
        """Logits (1, 1, h, w) of the crop → (frame_height, frame_width) bool, where they are > 0.

        A pixel takes the bilinear value at its middle.
        """
        if self.is_whole:
            return logits_to_mask(logits, self.frame_height, self.frame_width)
        part, rows, columns = self._enlarged(logits)
        mask: Mask = np.zeros((self.frame_height, self.frame_width), dtype=bool)
        np.greater(part, 0, out=mask[rows, columns])
        return mask

    def logits(self, logits: Tensor) -> NDArray[np.float32]:
        """Logits (1, 1, h, w) of the crop → (frame_height, frame_width) float32, as in `mask`."""
        part, rows, columns = self._enlarged(logits)
        whole = np.full((self.frame_height, self.frame_width), UNSEEN_LOGIT, dtype=np.float32)
        whole[rows, columns] = part
        return whole

    def _enlarged(self, logits: Tensor) -> tuple[NDArray[np.float32], slice, slice]:
        """The values of the frame's pixels that the crop touches, and their rows and columns."""
        values = logits[0, 0].float().cpu().numpy()
        x0, y0 = int(np.floor(self.x0)), int(np.floor(self.y0))
        x1 = min(self.frame_width, int(np.ceil(self.x1)))
        y1 = min(self.frame_height, int(np.ceil(self.y1)))
        touched = replace(self, x0=x0, y0=y0, x1=x1, y1=y1)
        part = seen_from(values, self, touched, (x1 - x0, y1 - y0))
        return part, slice(y0, y1), slice(x0, x1)


def seen_from(picture: NDArray[V], source: Crop, target: Crop, size: tuple[int, int]) -> NDArray[V]:
    """A picture (h, w) of one crop as another crop of the same frame shows it, bilinear.

    size: width and height of the result. What lies outside of the source continues its edges.
    """
    rows, columns = picture.shape
    across, down = columns / source.width, rows / source.height
    wide, high = target.width / size[0], target.height / size[1]  # a pixel of the result
    to_source = np.array(
        [
            [across * wide, 0, (target.x0 + 0.5 * wide - source.x0) * across - 0.5],
            [0, down * high, (target.y0 + 0.5 * high - source.y0) * down - 0.5],
        ]
    )
    moved = cv2.warpAffine(
        picture,
        to_source,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, dtype=picture.dtype)


def bounds_of(shown: Mask, crop: Crop) -> Bounds | None:
    """Box of a mask (h, w) of a crop, in pixels of the frame; None if it is empty."""
    box = mask_to_box(shown)
    if box is None:
        return None
    rows, columns = shown.shape
    across, down = crop.width / columns, crop.height / rows
    return (
        crop.x0 + box[0] * across,
        crop.y0 + box[1] * down,
        crop.x0 + box[2] * across,
        crop.y0 + box[3] * down,
    )


@dataclass(frozen=True)
class Located:
    """An object's mask, and the crop of the frame that its logits lie on.

    drawn: the mask of that crop as it is shown, where a tracker keeps it (`fuse_flow`).
    """

    mask: ObjectMask
    crop: Crop
    drawn: Drawn | None = None

    @property
    def absent(self) -> bool:
        return float(self.mask.object_score) <= 0

    def logits_on(self, crop: Crop) -> Tensor:
        """Logits (1, 1, S/4, S/4) of another crop."""
        return move_logits(self.mask.low_res_logits, self.crop, crop)

    def bounds(self) -> Bounds | None:
        """Where the object is, None if it is absent."""
        if self.absent:
            return None
        return bounds_of((self.mask.low_res_logits[0, 0] > 0).cpu().numpy(), self.crop)


def move_logits(logits: Tensor, source: Crop, target: Crop) -> Tensor:
    """Logits (B, M, h, w) on one crop → (B, M, h, w) on another, where they overlap.

    The rest is background. Averaged where the target's cells are the larger ones.
    """
    if source == target:
        return logits
    rows, columns = logits.shape[-2:]
    finer = max(1, round(target.width / source.width), round(target.height / source.height))
    x = (arange(columns * finer) + 0.5) / (columns * finer) * target.width + target.x0
    y = (arange(rows * finer) + 0.5) / (rows * finer) * target.height + target.y0
    x = (x - source.x0) / source.width * 2 - 1
    y = (y - source.y0) / source.height * 2 - 1
    grid = stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
    grid = grid[None].expand(len(logits), -1, -1, -1).to(logits)
    moved = F.grid_sample(logits - UNSEEN_LOGIT, grid, mode="bilinear", align_corners=False)
    return F.avg_pool2d(moved, finer) + UNSEEN_LOGIT
