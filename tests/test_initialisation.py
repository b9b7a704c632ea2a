"""A fresh network already knows where a click, a box and a memory are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgetam_label.config import ModelConfig
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.modeling.layers import axial_rotation, rotate_pairs
from edgetam_label.modeling.mask_decoder import Attention
from edgetam_label.training.initialisation import AXIS_WAVES, new_model, position_waves


@pytest.fixture(scope="module")
def model() -> EdgeTAM:
    torch.manual_seed(3)
    return new_model(replace(ModelConfig.load("edgetam_nano"), name="nano")).eval()


def test_waves_run_along_both_axes_and_anywhere() -> None:
    waves = position_waves(64)
    assert waves.shape == (2, 64)
    assert (waves[1, :13] == 0).all() and (waves[0, 13:26] == 0).all()
    assert waves[0, :13].tolist() == waves[1, 13:26].tolist()
    assert (waves[0, 0].item(), waves[0, 12].item()) == pytest.approx(AXIS_WAVES)
    assert (waves[:, 26:] != 0).all()


@pytest.mark.parametrize(("axis", "xy"), [(0, (0.7, 0.3)), (1, (0.3, 0.7))])
def test_pixels_hear_a_corner_on_one_side_of_it(
    model: EdgeTAM, axis: int, xy: tuple[float, float]
) -> None:
    pe = model.sam_prompt_encoder.pe_layer
    block = model.sam_mask_decoder.transformer.layers[0]
    attention = block.get_submodule("cross_attn_image_to_token")
    assert isinstance(attention, Attention)
    width = attention.q_proj.out_features // attention.heads
    rows = slice(-2 * width, -width) if axis == 0 else slice(-width, None)
    grid = pe.grid(16)[0].flatten(1).t()  # (256, C)
    q = grid @ attention.q_proj.weight[rows].t()
    k = attention.k_proj.weight[rows] @ pe(torch.tensor([0.5, 0.5]))
    heard = (q @ k).unflatten(0, (16, 16))  # (y, x)
    beyond = heard[:, 8:] if axis == 0 else heard[8:]
    before = heard[:, :8] if axis == 0 else heard[:8]
    assert (beyond > 0).all() and (before < 0).all()
    x, y = (round(v * 15) for v in xy)
    assert heard[y, x] > 0


def test_memory_is_read_at_its_own_place(model: EdgeTAM) -> None:
    side = round(model.config.num_latents_2d**0.5)
    rotation = axial_rotation(model.config.d_model, side, torch.device("cpu"))
    for layer in model.memory_attention.layers:
        memory = layer.get_submodule("cross_attn_image")
        tokens = side * side
        q = rotate_pairs(memory.get_parameter("q_proj.bias").expand(tokens, -1), rotation)
        k = rotate_pairs(memory.get_parameter("k_proj.bias").expand(tokens, -1), rotation)
        likeness = q @ k.t()
        assert (likeness.argmax(dim=1) == torch.arange(tokens)).float().mean() > 0.9
        near, far = likeness[0, 1], likeness[0, 6]
        assert likeness[0, 0] > near > far
