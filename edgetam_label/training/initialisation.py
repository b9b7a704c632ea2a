"""A fresh network that learns from the first step on.

Everything here is about what a click, a box and a memory mean *before* training: where they are.
Attention that starts out blind to place has to find that out by itself, which takes most of a short
run; attention that starts out looking around the right place has only to refine it. Nothing here
changes the architecture: weights of a long run have forgotten how they began.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgetam_label.config import ModelConfig
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.modeling.mask_decoder import Attention
from edgetam_label.modeling.memory_attention import MemoryAttention

# A click and the pixel under it have the same position code. Equal query and key projections keep
# that likeness, so attention between tokens and image starts out local rather than random.
MATCH_GAIN = 2.0
# And what a pixel hears from the click that it is near should be as loud as what it shows.
MARK_GAIN = 2.5
# For the same reason what an image shows must not drown where it shows it: the random trunk's maps
# (strides 32, 16, 8, 4) have a deviation of about 10, the position code one of 0.7.
LATERAL_SCALES = (0.06, 0.06, 0.25, 0.5)
FUSER_GAMMA = 0.1  # the memory encoder's blocks start at 1e-6 in SAM 2, too slow for a short run

# Position codes, cycles per half side. Waves along one axis make "right of the left edge" and
# "above the lower edge", of which a box consists, a matter of one dot product; waves in random
# directions make them a hard function. The rest is random as in SAM, but longer (1.0 there), so
# that a click is felt beyond its own surroundings.
AXIS_WAVES = (0.125, 3.0)
RANDOM_WAVES = 0.7
AXIS_SHARE = 0.2  # of all waves along x, and as many along y

# The last two heads with which pixels hear tokens start as such comparisons: how loudly a pixel
# hears a corner (or a click) grows with its distance to the right of it, and below it.
SIDE_GAIN = 1.7

# Memory attention, per layer: with equal constants in the rotated pairs of queries and keys, a
# pixel attends to what was remembered at its own place, within about three cells, if nothing else
# distinguishes the memories. Only the quickest pairs get them; slow ones know no place.
NEARNESS = (3.0, 2.0)
NEAR_PAIRS = 6


def new_model(config: ModelConfig) -> EdgeTAM:
    """Random weights with the likenesses described above; the seed is torch's."""
    model = EdgeTAM(config)
    with torch.no_grad():
        for layer in model.memory_encoder.fuser.layers:
            nn.init.constant_(layer.get_parameter("gamma"), FUSER_GAMMA)
        for lateral, scale in zip(model.image_encoder.neck.convs, LATERAL_SCALES, strict=True):
            lateral.get_parameter("conv.weight").mul_(scale)
        waves = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        waves.copy_(position_waves(waves.shape[1]))
        for name, module in model.sam_mask_decoder.named_modules():
            if isinstance(module, Attention) and name.endswith(("image", "image_to_token")):
                _match_places(module)
                if name.endswith("image_to_token"):
                    _speak_up(module)
                    _compare_sides(module, round(waves.shape[1] * AXIS_SHARE))
        _attend_nearby(model.memory_attention)
    return model


def position_waves(count: int) -> Tensor:
    """(2, count) wave vectors x, y: a fifth along each axis, the rest in random directions."""
    along = round(count * AXIS_SHARE)
    lengths = torch.logspace(math.log10(AXIS_WAVES[0]), math.log10(AXIS_WAVES[1]), along)
    zero = torch.zeros(along)
    return torch.cat(
        (
            torch.stack((lengths, zero)),
            torch.stack((zero, lengths)),
            torch.randn(2, count - 2 * along) * RANDOM_WAVES,
        ),
        dim=1,
    )


def _match_places(attention: Attention) -> None:
    attention.q_proj.weight.mul_(MATCH_GAIN)
    attention.k_proj.weight.copy_(attention.q_proj.weight)


def _speak_up(attention: Attention) -> None:
    attention.v_proj.weight.mul_(MARK_GAIN)
    attention.out_proj.weight.mul_(MARK_GAIN)


def _compare_sides(attention: Attention, along: int) -> None:
    """q · k = sum of sin(pixel - token) over the longest waves of one axis, in the last two heads.

    along: waves per axis. Position codes hold the sines of all waves, then the cosines.
    """
    inner, channels = attention.q_proj.weight.shape
    width = inner // attention.heads
    for axis in range(2):
        start = inner - (2 - axis) * width
        q = attention.q_proj.weight[start : start + width]
        k = attention.k_proj.weight[start : start + width]
        q.zero_()
        k.zero_()
        for i in range(min(width // 2, along)):
            sine = axis * along + i
            cosine = sine + channels // 2
            q[2 * i, sine], k[2 * i, cosine] = SIDE_GAIN, SIDE_GAIN
            q[2 * i + 1, cosine], k[2 * i + 1, sine] = SIDE_GAIN, -SIDE_GAIN


def _attend_nearby(attention: MemoryAttention) -> None:
    """Pairs are interleaved; the first half of the channels turns with x, the second with y."""
    for i, layer in enumerate(attention.layers):
        nearness = NEARNESS[min(i, len(NEARNESS) - 1)]
        memory = layer.get_submodule("cross_attn_image")
        for projection in ("q_proj", "k_proj"):
            bias = memory.get_parameter(f"{projection}.bias")
            half = len(bias) // 2
            for start in (0, half):
                bias[slice(start, min(start + 2 * NEAR_PAIRS, start + half), 2)] += nearness
