from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edgetam_label.preprocess import MEAN, STD, frame_to_input, logits_to_mask, logits_to_size


def blobs(side: int, seed: int, offset: float) -> torch.Tensor:
    """Smooth random logits (1, 1, side, side), positive in patches."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, 6, 6, generator=generator) * 8 + offset
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")


@pytest.mark.parametrize("side", [32, 64, 256])
@pytest.mark.parametrize("size", [(64, 96), (97, 211), (360, 640), (1080, 1920), (128, 128)])
@pytest.mark.parametrize("offset", [-9.0, 0.0, 30.0, -60.0])
def test_a_mask_is_where_interpolated_logits_are_positive(side, size, offset):
    logits = blobs(side, side + size[0], offset)
    full = logits_to_size(logits, *size)[0, 0].numpy()
    mask = logits_to_mask(logits, *size)
    assert mask.dtype == bool and mask.shape == size
    clear = np.abs(full) > 1e-3  # closer to zero the order of additions decides
    assert np.array_equal(mask[clear], full[clear] > 0)
    assert (mask != (full > 0)).mean() < 1e-5


def test_a_drawn_mask_comes_back_to_the_pixel():
    torch.manual_seed(2)
    logits = torch.where(torch.rand(1, 1, 16, 16) > 0.5, 10.0, -10.0)
    expected = (logits_to_size(logits, 120, 176)[0, 0] > 0).numpy()
    assert (logits_to_mask(logits, 120, 176, exactly=True) == expected).all()


def test_single_positive_logits_at_the_border():
    for place in ((0, 0), (0, 63), (63, 0), (63, 63), (0, 30), (30, 63)):
        logits = torch.full((1, 1, 64, 64), -4.0)
        logits[0, 0][place] = 4.3  # an interpolated value of exactly 0 is nobody's
        full = logits_to_size(logits, 270, 480)[0, 0].numpy()
        assert np.array_equal(logits_to_mask(logits, 270, 480), full > 0)


def test_a_frame_is_resized_by_pillow_and_normalised():
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(frame).resize((128, 128), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    ours = frame_to_input(frame, 128, torch.device("cpu"))
    assert torch.equal(ours, (pixels - mean) / std)
    assert ours.shape == (1, 3, 128, 128) and ours.dtype == torch.float32
