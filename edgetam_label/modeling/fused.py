"""The same network with its arithmetic rearranged for inference; outputs equal up to rounding.

`fuse(model)` returns a copy whose slow blocks are replaced by those of `fused_*.py`; each file says
what it rearranges. The readable modules beside them are the reference; `tests/test_fused.py`
compares the two. Away from the CPU only the image encoder is replaced: there, one large kernel
beats several small ones.

A config whose precision is bfloat16 has the products of the image encoder, memory attention and
the memory encoder done in it; prompts and masks, which take a thirtieth of the time, stay float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.modeling.fused_attention import FusedMemoryAttention
from edgetam_label.modeling.fused_decoder import FixedPromptEncoder, FusedMaskDecoder, fused_mlp
from edgetam_label.modeling.fused_encoder import FusedEncoder
from edgetam_label.modeling.fused_linear import FusedLinear
from edgetam_label.modeling.fused_memory import FusedMemoryEncoder, FusedPerceiver


def fuse(model: EdgeTAM) -> EdgeTAM:
    """An inference copy of `model`, in evaluation mode. The original is left as it is.

    Parts that are not replaced are shared with it. Later changes of the original's weights do not
    reach the replaced ones. A fused model is returned as it is.
    """
    if model.fused:
        return model
    fused = copy.copy(model)
    fused._modules = dict(model._modules)  # the children may now be replaced one by one
    fused._buffers = dict(model._buffers)
    fused.fused = True
    parts: dict[str, nn.Module] = {"image_encoder": FusedEncoder(model)}
    if model.device.type == "cpu":
        parts |= {
            "sam_prompt_encoder": FixedPromptEncoder(model.sam_prompt_encoder),
            "sam_mask_decoder": FusedMaskDecoder(model.sam_mask_decoder),
            "memory_attention": FusedMemoryAttention(model.memory_attention, model.config),
            "memory_encoder": FusedMemoryEncoder(model.memory_encoder),
            "spatial_perceiver": FusedPerceiver(model.spatial_perceiver, model.config),
            "obj_ptr_proj": fused_mlp(model.obj_ptr_proj),
        }
        fused.start_attention = parts["memory_attention"].start  # type: ignore[method-assign, assignment]
        fused.register_buffer(
            "_latent_positions", model.latent_positions().detach(), persistent=False
        )
        fused.latent_positions = lambda: fused._latent_positions  # type: ignore[method-assign, assignment, return-value]
    if model.config.precision == "bfloat16":
        parts["image_encoder"].bfloat16()
        if model.device.type == "cpu":
            _round_weights(parts["memory_attention"])
            # a copy: its norms are the original's
            parts["memory_encoder"] = copy.deepcopy(parts["memory_encoder"]).bfloat16()
        else:
            for name in ("start_attention", "attend_memory", "encode_memory"):
                setattr(fused, name, _autocast(getattr(fused, name), model.device.type))
    fused._modules.update(parts)
    fused.encode_image = parts["image_encoder"].features  # type: ignore[method-assign, assignment]
    return fused.eval()


def _round_weights(part: nn.Module) -> None:
    """Those of its products to bfloat16; norms, positions and the stream between stay float32."""
    for module in part.modules():
        if isinstance(module, FusedLinear):
            module.bfloat16()


def _autocast(method: Callable[..., Tensor], device_type: str) -> Callable[..., Tensor]:
    def run(*args: object, **options: object) -> Tensor:
        with torch.autocast(device_type, torch.bfloat16):
            return method(*args, **options).float()

    return run
