"""The trainable edge filter does what the one does that masks are shown through."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgetam_label.config import ModelConfig
from edgetam_label.edges import refine_edges
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.losses import LossWeights, mask_loss
from edgetam_label.training.soft_edges import DrawnWindows, soft_edges, window_mean
from edgetam_label.training.still_step import windows_of

SIDE = 192


def pictures(count: int, *, grey: bool = False) -> torch.Tensor:
    """(count, SIDE, SIDE, 3) uint8, smooth."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)
    large = np.stack([cv2.resize(s, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for s in small])
    return torch.from_numpy(large[..., :1].repeat(3, -1) if grey else large)


def logits(count: int) -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.randn(1, count, 9, 9) * 6
    return F.interpolate(coarse, (SIDE // 4, SIDE // 4), mode="bicubic")


def windows(shown: torch.Tensor) -> DrawnWindows:
    return DrawnWindows.of(F.avg_pool2d(shown.permute(0, 3, 1, 2).float(), 2), SIDE // 4)


def test_means_are_those_of_a_box_filter() -> None:
    planes = torch.rand(2, 3, 20, 30)
    means = window_mean(planes, 3)
    theirs = cv2.boxFilter(planes[1, 2].numpy(), -1, (7, 7))
    assert np.allclose(means[1, 2, 3:-3, 3:-3].numpy(), theirs[3:-3, 3:-3], atol=1e-6)
    pooled = F.avg_pool2d(planes, 7, 1, 3, count_include_pad=False)  # what a GPU does
    assert torch.allclose(means, pooled, atol=1e-6)
    few = torch.rand(1, 1, 5, 4)  # windows larger than the picture
    pooled = F.avg_pool2d(F.pad(few, (3, 3, 3, 3)), 7, 1) * 49 / 20
    assert torch.allclose(window_mean(few, 3)[..., 2, 2], pooled[..., 2, 2], atol=1e-5)


def test_gradients_of_means() -> None:
    planes = torch.rand(2, 9, 11, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: window_mean(p, 3), (planes,))


@pytest.mark.parametrize("grey", [False, True])
def test_masks_are_those_that_are_shown(grey: bool) -> None:
    shown, masks = pictures(1, grey=grey), logits(3)
    expected = refine_edges(masks, shown[0].numpy())
    large = F.interpolate(masks.clamp(-16, 16), (SIDE // 2,) * 2, mode="bilinear")
    ours = soft_edges(large, windows(shown).fine) > 0
    theirs = F.avg_pool2d(expected, 2) > 0
    wrong = (ours != theirs).float().mean()
    assert wrong < 0.01 and wrong < ((large > 0) != theirs).float().mean() / 3


def test_a_mask_learns_through_the_filter() -> None:
    shown, masks = pictures(2), torch.zeros(2, 1, SIDE // 2, SIDE // 2, requires_grad=True)
    soft_edges(masks, windows(shown).fine).sum().backward()
    assert masks.grad is not None and torch.isfinite(masks.grad).all()
    assert (masks.grad != 0).float().mean() > 0.9


def test_quality_is_that_of_the_drawn_mask() -> None:
    shown, masks = pictures(1), logits(4)
    seen = windows(shown)
    coarse = (soft_edges(masks[:, 1:2], seen.coarse) > 0).float()
    truth = F.interpolate(coarse, scale_factor=2, mode="nearest")[:, 0]
    answer = DecoderOutput(
        masks, torch.tensor([[0.1, 0.9, 0.2, 0.3]]), torch.zeros(1, 4, 8), torch.ones(1, 1)
    )
    eligible = torch.tensor([[False, True, True, True]])
    assert mask_loss(answer, eligible, truth, LossWeights(), seen).chosen_iou == 1
    assert mask_loss(answer, eligible, truth, LossWeights()).chosen_iou < 1


def test_only_models_that_draw_to_edges_are_trained_so() -> None:
    tiny = ModelConfig.load("tiny")
    frames = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    assert windows_of(new_model(replace(tiny, refine_edges=False)), frames) is None
    assert windows_of(new_model(replace(tiny, refine_edges=True)), frames) is not None
