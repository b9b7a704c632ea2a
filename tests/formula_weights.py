"""Weights and frames by formula: what the golden values were computed from, without any file.

Element i of the tensor named `key` is offset + scale · u, with u uniform in [−1, 1) from a
splitmix64 hash of (crc32 of the salted key, i). Offsets and scales keep activations in a range
where masks have both signs and objects are present.
"""

from __future__ import annotations

import math
import re
import zlib

import numpy as np
import torch

SALT = "edgetam-golden-4:"
ROOT3 = math.sqrt(3.0)  # a uniform variable on [−1, 1) has deviation 1 / √3

# Gain of weight matrices, first match wins; the deviation is gain / √fan_in.
GAINS = (
    (r"^memory_attention\..*[qk]_proj\.weight$", 1.7),
    (r"^sam_mask_decoder\.transformer\..*[qk]_proj\.weight$", 2.0),
    (r"^spatial_perceiver\..*to_q\.weight$", 2.0),
    (r"^image_encoder\.trunk\.body\.stem\.", 1.6),
    (r"(channel_mixer|ffn)\.conv1\.c\.weight$", 1.4),
    (r"cross_attn_image\.(v_proj|out_proj)\.weight$", 2.0),
    (r"output_hypernetworks_mlps\.\d\.layers\.[01]\.weight$", 1.4),
    (r"output_hypernetworks_mlps\.\d\.layers\.2\.weight$", 1.5),
    (r"(iou_prediction_head|pred_obj_score_head|obj_ptr_proj)\.layers\.[01]\.weight$", 1.4),
    (r"iou_prediction_head\.layers\.2\.weight$", 2.0),
    (r"mask_downsampler\.encoder\.", 1.4),
)
# (offset, scale) of everything else, first match wins.
RULES = (
    (r"num_batches_tracked$", 1.0, 0.0),
    (r"running_var$", 1.0, 0.5),
    (r"running_mean$", 0.0, 0.1),
    (r"(token_mixer\.conv1?|(channel_mixer|ffn)\.conv2)\.bn\.weight$", 0.3, 0.06),
    (r"\.bn\.weight$", 1.0, 0.2),
    (r"\.bn\.bias$", 0.0, 0.1),
    (r"\.gamma$", 0.5, 0.1),
    (r"^sam_mask_decoder\.pred_obj_score_head\.layers\.2\.bias$", 4.0, 0.0),
    (r"\.se\.fc2\.bias$", 0.7, 0.5),
    (r"\.bias$", 0.0, 0.05),
    (r"positional_encoding_gaussian_matrix$", 0.0, ROOT3),
    (r"(point_embeddings\.\d|_embed|_token|mask_tokens)\.weight$", 0.0, ROOT3),
    (r"^(maskmem_tpos_enc|no_mem_embed|no_mem_pos_enc|no_obj_ptr)$", 0.0, 0.5),
    (r"^spatial_perceiver\.latents", 0.0, ROOT3),
)


def uniform(key: str, count: int) -> np.ndarray:
    """`count` values in [−1, 1), float64, exact in 24 bits."""
    seed = np.uint64(zlib.crc32((SALT + key).encode()))
    with np.errstate(over="ignore"):
        z = (seed << np.uint64(32)) + np.arange(1, count + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23) / 2.0**23


def offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for pattern, offset, scale in RULES:
        if re.search(pattern, key):
            return offset, scale
    if len(shape) == 1:
        return 1.0, 0.1
    fan_in = math.prod(shape[1:])
    if re.search(r"output_upscaling\.[03]\.weight$", key):
        fan_in = shape[0]  # transposed convolutions, stride = kernel
    gain = next((g for pattern, g in GAINS if re.search(pattern, key)), 1.0)
    return 0.0, ROOT3 * gain / fan_in**0.5


def formula_state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Every tensor of a model, from its names and shapes alone."""
    state = {}
    for key, shape in shapes.items():
        offset, scale = offset_and_scale(key, shape)
        values = (offset + scale * uniform(key, math.prod(shape))).astype(np.float32)
        tensor = torch.from_numpy(values.reshape(shape))
        state[key] = tensor.long() if key.endswith("num_batches_tracked") else tensor
    return state


def fingerprint(state: dict[str, torch.Tensor]) -> int:
    """crc32 over names and bytes in sorted order."""
    crc = 0
    for key in sorted(state):
        data = np.ascontiguousarray(state[key].numpy()).tobytes()
        crc = zlib.crc32(data, zlib.crc32(key.encode(), crc))
    return crc


def formula_frames() -> np.ndarray:
    """Six frames (6, 270, 480, 3) uint8: a disc and a box that cross over a moving pattern."""
    y, x = np.mgrid[0:270, 0:480].astype(np.int64)
    frames = []
    for t in range(6):
        red, green = (3 * x + 2 * y + 5 * t) % 256, (x * y // 64 + 40) % 256
        blue = ((x // 24 + y // 24) % 2) * 90 + 120 * y // 270
        frame = np.stack([red, green, blue], axis=-1)
        disc = (x - 150 - 22 * t) ** 2 + (y - 120 - 6 * t) ** 2 <= 45**2
        colour = np.stack([220 - (5 * x) % 32, 40 + (3 * y) % 64, np.full_like(x, 30)], axis=-1)
        frame[disc] = colour[disc]
        box = (abs(x - 340 + 14 * t) < 40) & (abs(y - 170) < 30)
        colour = np.stack([30 + (7 * x) % 50, np.full_like(x, 60), 200 + (2 * y) % 55], axis=-1)
        frame[box] = colour[box]
        frames.append(frame.astype(np.uint8))
    return np.stack(frames)
