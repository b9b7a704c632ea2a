"""Crops: what moves between a frame and a part of it comes back to the same pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edgetam_label.crops import UNSEEN_LOGIT, Crop, move_logits
from edgetam_label.preprocess import logits_to_mask
from edgetam_label.prompts import Box, Click

WHOLE = Crop.whole(400, 200)
PART = replace(WHOLE, x0=100, y0=50, x1=300, y1=150)


def soft_disc(crop: Crop, x: float, y: float, radius: float, side: int = 80) -> torch.Tensor:
    """(1, 1, side, side): distance to the outline in pixels of the frame, positive inside."""
    xs = crop.x0 + (torch.arange(side) + 0.5) / side * crop.width
    ys = crop.y0 + (torch.arange(side) + 0.5) / side * crop.height
    return (radius - torch.hypot(xs[None] - x, ys[:, None] - y))[None, None]


def test_prompts_are_measured_from_the_corner() -> None:
    inside, outside = Click(110, 60, positive=False), Click(99, 60)
    assert PART.clicks((inside, outside)) == (Click(10, 10, positive=False),)
    assert PART.box(Box(120, 70, 420, 90)) == Box(20, 20, 320, 40)
    edge = Click(400, 200)  # on the last edge of the frame: a whole frame asks nothing
    assert WHOLE.clicks((edge,)) == (edge,) and not WHOLE.holds(edge)
    assert PART.box(None) is None


def test_a_whole_frame_answers_as_ever() -> None:
    logits = torch.randn(1, 1, 20, 20)
    assert np.array_equal(WHOLE.mask(logits), logits_to_mask(logits, 200, 400))
    assert move_logits(logits, WHOLE, WHOLE) is logits


@pytest.mark.parametrize("crop", [PART, replace(PART, x0=100.4, x1=299.7, y0=50.3)])
def test_masks_land_on_their_pixels(crop: Crop) -> None:
    rows, columns = np.mgrid[:200, :400] + 0.5
    truth = np.hypot(columns - 190, rows - 90) < 30
    mask = crop.mask(soft_disc(crop, 190, 90, 30))
    assert mask.shape == (200, 400)
    assert (mask != truth).sum() < 12  # of 188 on the outline
    assert not crop.mask(torch.full((1, 1, 80, 80), -1.0)).any()
    everything = crop.mask(torch.ones(1, 1, 80, 80))
    assert everything[60:140, 110:290].all() and not everything[:50].any()
    assert not everything[:, 300:].any()


def test_logits_move_there_and_back() -> None:
    on_part = soft_disc(PART, 190, 90, 30)
    on_frame = move_logits(on_part, PART, WHOLE)
    expected = soft_disc(WHOLE, 190, 90, 30)
    inside = np.s_[..., 25:55, 25:55]  # cells of the frame within the crop
    assert (on_frame[inside] - expected[inside]).abs().max() < 1.5  # cells of 5 x 2.5 pixels
    assert (on_frame[..., :15] == UNSEEN_LOGIT).all()
    again = move_logits(on_frame, WHOLE, PART)
    assert ((again > 0) != (on_part > 0)).float().mean() < 0.02
    assert (move_logits(on_part, PART, replace(WHOLE, x1=100, y1=50)) < -9).all()


def test_a_smaller_picture_is_cut_in_the_same_place() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 50:150] = 255
    assert (PART.cut(pixels) == 255).all() and PART.cut(pixels).shape == (50, 100, 3)
