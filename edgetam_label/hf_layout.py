"""The Hugging Face layout of EdgeTAM's weights, read into the official key names.

transformers' `EdgeTamVideoModel` stores the same tensors under other names; three groups also
differ in shape: the four point embeddings are stacked, the perceiver's key and value projections
are two tensors in place of one, and the Fourier matrix of the prompt encoder is stored twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgetam_label.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_FOURIER = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_FOURIER_COPIES = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)
_POINT_EMBEDDINGS = "prompt_encoder.point_embed.weight"
_KEY_OR_VALUE = re.compile(r"(spatial_perceiver\..*)\.([kv])_proj\.weight$")

_DOWNSAMPLER = re.compile(r"^mask_downsampler\.layers\.(\d)\.(conv|layer_norm)\.")

_TOP_LEVEL = {
    "memory_temporal_positional_encoding": "maskmem_tpos_enc",
    "no_memory_embedding": "no_mem_embed",
    "no_memory_positional_encoding": "no_mem_pos_enc",
    "no_object_pointer": "no_obj_ptr",
    "spatial_perceiver.latents_1d": "spatial_perceiver.latents",
}
# A three-layer head: first, middle, last.
_HEAD = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}

# Each part of the network: (prefix there, prefix here, [(pattern, replacement), ...]).
_PARTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("vision_encoder.backbone.timm_model.", "image_encoder.trunk.body.", ()),
    ("vision_encoder.neck.", "image_encoder.neck.", ((r"^convs\.(\d+)\.", r"convs.\1.conv."),)),
    (
        "prompt_encoder.",
        "sam_prompt_encoder.",
        (
            (r"^mask_embed\.conv1\.", "mask_downscaling.0."),
            (r"^mask_embed\.layer_norm1\.", "mask_downscaling.1."),
            (r"^mask_embed\.conv2\.", "mask_downscaling.3."),
            (r"^mask_embed\.layer_norm2\.", "mask_downscaling.4."),
            (r"^mask_embed\.conv3\.", "mask_downscaling.6."),
        ),
    ),
    (
        "mask_decoder.",
        "sam_mask_decoder.",
        (
            (r"^upscale_conv1\.", "output_upscaling.0."),
            (r"^upscale_layer_norm\.", "output_upscaling.1."),
            (r"^upscale_conv2\.", "output_upscaling.3."),
            (r"\.o_proj\.", ".out_proj."),
            (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
            (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
            (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
        ),
    ),
    (
        "memory_attention.",
        "memory_attention.",
        (
            (r"\.o_proj\.", ".out_proj."),
            (r"\.mlp\.up_proj\.", ".linear1."),
            (r"\.mlp\.down_proj\.", ".linear2."),
            (r"(^|\.)layer_norm(\d?)\.", r"\1norm\2."),
        ),
    ),
    (
        "memory_encoder.",
        "memory_encoder.",
        (
            (r"^projection\.", "out_proj."),
            (r"^feature_projection\.", "pix_feat_proj."),
            (r"^memory_fuser\.", "fuser."),
            (r"\.depthwise_conv\.", ".dwconv."),
            (r"\.pointwise_conv(\d)\.", r".pwconv\1."),
            (r"\.scale$", ".gamma"),
            (r"^(fuser\..*)\.layer_norm\.", r"\1.norm."),
            (r"^mask_downsampler\.final_conv\.", "mask_downsampler.encoder.12."),
        ),
    ),
    (
        "spatial_perceiver.",
        "spatial_perceiver.",
        (
            (r"\.layer_norm_input\.", ".attn.norm_x."),
            (r"\.layer_norm_latents\.", ".attn.norm_latents."),
            (r"\.layer_norm_self\.", ".self_attn.norm."),
            (r"\.cross_attention\.", ".attn."),
            (r"\.self_attention\.", ".self_attn."),
            (r"\.q_proj\.", ".to_q."),
            (r"\.o_proj\.", ".to_out."),
            (r"\.mlp\.", ".ff."),
            (r"\.self_mlp\.", ".self_ff."),
            (r"ff\.layer_norm\.", "ff.0."),
            (r"ff\.up_proj\.", "ff.1."),
            (r"ff\.down_proj\.", "ff.3."),
            (r"^layer_norm\.", "norm."),
        ),
    ),
    ("object_pointer_proj.", "obj_ptr_proj.", ()),
    ("mask_downsample.", "mask_downsample.", ()),
)


def is_hugging_face(keys: Mapping[str, object]) -> bool:
    """True if the keys are those of transformers' EdgeTAM video model."""
    return any(key.startswith("vision_encoder.") for key in keys)


def official_key(key: str) -> str | None:
    """The official name of one Hugging Face key; None if the layout does not know it.

    Keys whose tensors are reshaped (stacked, split, stored twice) are not handled here.
    """
    if key in _TOP_LEVEL:
        return _TOP_LEVEL[key]
    for theirs, ours, rules in _PARTS:
        if not key.startswith(theirs):
            continue
        rest = key.removeprefix(theirs)
        if theirs in ("mask_decoder.", "object_pointer_proj."):
            rest = _head(rest)
        if theirs == "memory_encoder.":
            rest = re.sub(
                r"^mask_downsampler\.layers\.(\d)\.(conv|layer_norm)\.", _downsampler, rest
            )
        for pattern, replacement in rules:
            rest = re.sub(pattern, replacement, rest)
        return ours + rest
    return None


def _head(rest: str) -> str:
    pattern = r"^((?:output_hypernetworks_mlps\.\d\.|iou_prediction_head\.|pred_obj_score_head\.)?)"
    pattern += r"(proj_in|layers\.0|proj_out)\.(weight|bias)$"
    return re.sub(pattern, lambda m: f"{m[1]}{_HEAD[m[2]]}.{m[3]}", rest)


def _downsampler(match: re.Match[str]) -> str:
    # The official Sequential repeats (conv, norm, GELU); theirs numbers the triples.
    index = 3 * int(match[1]) + (match[2] == "layer_norm")
    return f"mask_downsampler.encoder.{index}."


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict in the Hugging Face layout -> the same tensors in the official layout.

    Unknown keys are passed on under their own names, so that the strict load names them. Raises
    CheckpointError when the two copies of the Fourier matrix differ or a projection lacks its half.
    """
    import torch

    official: dict[str, Tensor] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        split = _KEY_OR_VALUE.match(key)
        if key in _FOURIER_COPIES:
            if _FOURIER in official and not torch.equal(official[_FOURIER], tensor):
                raise CheckpointError(
                    f"{_FOURIER_COPIES[0]} and {_FOURIER_COPIES[1]} differ; EdgeTAM has one matrix."
                )
            official[_FOURIER] = tensor
        elif key == _POINT_EMBEDDINGS:
            for index, row in enumerate(tensor):
                name = f"sam_prompt_encoder.point_embeddings.{index}.weight"
                official[name] = row.unsqueeze(0)
        elif split:
            halves.setdefault(official_key(split[1] + ".to_kv.weight") or "", {})[split[2]] = tensor
        else:
            official[official_key(key) or key] = tensor
    for key, pair in halves.items():
        if set(pair) != {"k", "v"}:
            raise CheckpointError(f"{key}: only the {'/'.join(pair)} projection is in the file.")
        official[key] = torch.cat((pair["k"], pair["v"]))
    return official
