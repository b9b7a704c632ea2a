"""Where training looks: crops of a picture, and crops that follow an object through a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetam_label.crops import Bounds, Crop
from edgetam_label.framing import Framing
from edgetam_label.masks import mask_to_box

# Where an object was is never known quite: how often a box is wrong, and by which factor.
WRONG_SHARE, WRONG = 0.15, (0.6, 1.5)
# How often an object is taken to be absent, which makes its crop wider.
LOST_SHARE = 0.06


def random_window(width: int, height: int, closest: float, rng: np.random.Generator) -> Crop:
    """A crop whose sides are `closest` to 1 of the picture's, more often large.

    Its aspect is stretched to a square later. Stretching matters: the model sees a 16:9 video
    squeezed to a square.
    """
    w, h = (int(side * rng.uniform(closest**1.4, 1.0) ** (1 / 1.4)) for side in (width, height))
    x0, y0 = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return Crop(x0, y0, x0 + w, y0 + h, width, height)


def following_windows(
    masks: NDArray[np.bool_], frames: NDArray[np.uint8], rng: np.random.Generator
) -> list[Crop]:
    """One crop a frame, as a tracker would choose them that sees more or less what is there.

    masks: (T, H, W), where the object is; it is visible on the first frame. frames: (T, H, W, 3).
    """
    margin, closest = rng.uniform(1.8, 3.5), rng.uniform(0.3, 0.5)
    framing = Framing(margin, closest, alike=True)
    height, width = masks.shape[1:]
    frame = Crop.whole(width, height)
    crops = [framing.around(_roughly(masks[0], rng) or (0, 0, width, height), frame, frames[0])]
    for mask, pixels in zip(masks, frames[1:], strict=False):
        bounds = None if rng.random() < LOST_SHARE else _roughly(mask, rng)
        crops.append(framing.follow(crops[-1], bounds, pixels))
    return crops


def _roughly(mask: NDArray[np.bool_], rng: np.random.Generator) -> Bounds | None:
    """The box of a mask, at times a wrong one; None where there is nothing."""
    box = mask_to_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    low, high = WRONG if rng.random() < WRONG_SHARE else (0.95, 1.05)
    w, h = (x1 - x0) * rng.uniform(low, high) / 2, (y1 - y0) * rng.uniform(low, high) / 2
    x = (x0 + x1) / 2 + (x1 - x0) * rng.uniform(low - 1, 1 - low) / 4
    y = (y0 + y1) / 2 + (y1 - y0) * rng.uniform(low - 1, 1 - low) / 4
    return x - w, y - h, x + w, y + h


def as_shares(crops: Sequence[Crop]) -> NDArray[np.float32]:
    """(T, 4): x0, y0, x1, y1 as shares of the frame's sides."""
    return np.array(
        [
            (
                c.x0 / c.frame_width,
                c.y0 / c.frame_height,
                c.x1 / c.frame_width,
                c.y1 / c.frame_height,
            )
            for c in crops
        ],
        np.float32,
    )


def from_shares(shares: Sequence[float]) -> Crop:
    """A crop of a frame whose sides are 1."""
    x0, y0, x1, y1 = shares
    return Crop(x0, y0, x1, y1, 1, 1)
