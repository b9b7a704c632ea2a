"""Framing: which crop of a frame is looked at, around a prompt or after something that moves."""

from __future__ import annotations

import numpy as np
import pytest

from edgetam_label.crops import Bounds, Crop
from edgetam_label.framing import (
    GROWS,
    MOVES,
    PROMPTED,
    SHRINKS,
    TRACKED,
    Framing,
    enough_pixels,
    plenty_of_pixels,
)

WIDTH, HEIGHT = 960, 540
FRAME = Crop.whole(WIDTH, HEIGHT)
PIXELS = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def test_crops_hold_what_is_meant_and_stay_inside() -> None:
    small = PROMPTED.around((10, 500, 40, 530), FRAME, PIXELS)  # in a corner
    assert (small.x0, small.y1) == (0, HEIGHT)
    assert small.width == PROMPTED.closest * WIDTH and small.height == PROMPTED.closest * HEIGHT
    wide = PROMPTED.around((100, 200, 500, 230), FRAME, PIXELS)
    assert wide.width == 800 and wide.height == PROMPTED.closest * HEIGHT
    assert PROMPTED.around((100, 50, 800, 500), FRAME, PIXELS).is_whole
    beyond = PROMPTED.around((900, -40, 1200, 30), FRAME, PIXELS)  # a box that leaves the frame
    assert beyond.x1 == WIDTH and beyond.y0 == 0


def test_crops_lie_on_the_grid_of_the_picture() -> None:
    pixels = np.zeros((101, 203, 3), np.uint8)  # a frame shrunk to an odd size
    crop = TRACKED.around((300, 200, 420, 300), FRAME, pixels)
    for edge, side, count in (
        (crop.x0, WIDTH, 203), (crop.x1, WIDTH, 203), (crop.y0, HEIGHT, 101),
        (crop.y1, HEIGHT, 101),
    ):  # fmt: skip
        assert edge * count / side == pytest.approx(round(edge * count / side))


def test_no_more_pixels_are_kept_than_a_crop_needs() -> None:
    large = np.zeros((2160, 3840, 3), np.uint8)
    assert enough_pixels(large, 320).shape == (800, 800, 3)
    small = np.zeros((300, 900, 3), np.uint8)
    assert enough_pixels(small, 320).shape == (300, 800, 3)
    fitting = np.zeros((300, 400, 3), np.uint8)
    assert enough_pixels(fitting, 320) is fitting


@pytest.mark.parametrize(
    ("height", "width", "kept"),
    [
        (1080, 1920, (1080, 1920)),
        (2160, 3840, (1080, 1920)),
        (3840, 2161, (1920, 1080)),
        (799, 9000, (799, 9000)),
    ],
)
def test_frames_of_a_pass_are_made_smaller_by_whole_factors(
    height: int, width: int, kept: tuple[int, int]
) -> None:
    frame = np.zeros((height, width, 3), np.uint8)
    smaller = plenty_of_pixels(frame, 320)
    assert smaller.shape == (*kept, 3)
    assert smaller is frame or smaller.shape != frame.shape


def square(x: float, y: float, side: float) -> Bounds:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def test_a_crop_keeps_up_with_what_moves() -> None:
    crop = TRACKED.around(square(120, 300, 60), FRAME, PIXELS)
    for x in range(120, 840, 30):  # a twelfth of the crop a frame, more than it would move
        bounds = square(x, 300, 60)
        assert crop.x0 <= bounds[0] and bounds[2] <= crop.x1
        crop = TRACKED.follow(crop, bounds, PIXELS)
    assert crop.x0 > 400


def test_a_mask_that_leaks_or_shrinks_takes_its_crop_along_but_slowly() -> None:
    crop = Framing(2.5, 0.2).around(square(480, 270, 80), FRAME, PIXELS)
    framing = Framing(2.5, 0.2)
    shrunk = framing.follow(crop, square(480, 270, 8), PIXELS)
    assert crop.width * (1 - SHRINKS) - 1 <= shrunk.width < crop.width
    leaked = framing.follow(crop, square(480, 270, 160), PIXELS)
    assert crop.width < leaked.width <= crop.width * (1 + GROWS) + 1
    shifted = framing.follow(crop, square(510, 270, 80), PIXELS)
    assert shifted.x0 - crop.x0 == pytest.approx(MOVES * crop.width, abs=1.5)


def test_what_is_larger_than_its_crop_is_seen_whole_at_once() -> None:
    crop = TRACKED.around(square(480, 270, 40), FRAME, PIXELS)
    bounds = (60.0, 200.0, 700.0, 340.0)
    followed = TRACKED.follow(crop, bounds, PIXELS)
    assert followed.x0 <= 60 and followed.x1 >= 700


def test_a_lost_object_is_looked_for_further_and_further() -> None:
    crop = TRACKED.around(square(480, 270, 40), FRAME, PIXELS)
    widths = []
    while not crop.is_whole:
        widths.append(crop.width)
        crop = TRACKED.follow(crop, None, PIXELS)
    assert len(widths) > 5 and widths == sorted(widths)
    assert TRACKED.follow(FRAME, None, PIXELS) == FRAME
    found = square(800, 100, 40)
    assert TRACKED.follow(FRAME, found, PIXELS) == TRACKED.around(found, FRAME, PIXELS)
