"""The same network with its arithmetic rearranged for inference; outputs equal up to rounding.

`fuse(model)` returns a copy whose slow blocks are replaced:

* RepViT: BN folded into convolutions; the 3x3, 1x1 and identity branches become one convolution.
* Pyramid: strides 4 and 8 are used only through `conv_s0` and `conv_s1`, so each pair of 1x1
  convolutions becomes one.
* Matrix products go to oneDNN, with GELU or ReLU applied while the result is still in cache.
* Memory attention: values stay in the memory's 64 channels until after the softmax (its rows sum to
  one, so biases pass through), and keys that are not rotated are compared in those 64 channels too.
  The projections move to the side of the queries.
* Memory encoder: ConvNeXt blocks keep channels last, where their norm and products want them.

The readable modules beside this file are the reference; `tests/test_fused.py` compares the two.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.edgetam import EdgeTAM, ImageFeatures
from edgetam_label.modeling.layers import rotate_pairs
from edgetam_label.modeling.memory_attention import Memory, MemoryAttentionLayer, RotaryAttention
from edgetam_label.modeling.memory_encoder import ConvNextBlock
from edgetam_label.modeling.repvit import (
    ChannelMixer,
    ConvNorm,
    Downsample,
    RepViT,
    RepViTBlock,
    SqueezeExcite,
    Stage,
    TokenMixer,
)

# Rows of queries attended at once: scores of this many rows stay within the second-level cache.
QUERY_ROWS = 256

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def fuse(model: EdgeTAM) -> EdgeTAM:
    """An inference copy of `model`, in evaluation mode. The original is left as it is.

    Blocks that are not replaced are shared with it. Later changes of the original's weights do not
    reach the replaced ones. A fused model is returned as it is.
    """
    if model.fused:
        return model
    fused = _shallow(model)
    fused.fused = True
    fused.image_encoder = _FusedEncoder(model)  # type: ignore[assignment]
    fused.sam_mask_decoder = _with_fused_linears(model.sam_mask_decoder)
    fused.spatial_perceiver = _with_fused_linears(model.spatial_perceiver)
    fused.obj_ptr_proj = _with_fused_linears(model.obj_ptr_proj)
    fused.memory_encoder = _shallow(model.memory_encoder)
    fused.memory_encoder.fuser = nn.Sequential(  # type: ignore[assignment]
        *(_FusedConvNext(cast(ConvNextBlock, block)) for block in model.memory_encoder.fuser.layers)
    )
    if model.device.type == "cpu":  # other devices have one kernel that beats a rearrangement
        fused.memory_attention = _shallow(model.memory_attention)
        layers = cast(list[MemoryAttentionLayer], list(model.memory_attention.layers))
        fused.memory_attention.layers = nn.ModuleList(_fuse_layer(layer) for layer in layers)
    fused.encode_image = fused.image_encoder.features  # type: ignore[method-assign, union-attr, operator, assignment]
    return fused.eval()


M = TypeVar("M", bound=nn.Module)


def _shallow(module: M) -> M:
    """A copy with the same children, which may then be replaced one by one."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _with_fused_linears(module: M) -> M:
    """A copy in which every `nn.Linear` is a `FusedLinear`; everything else is shared."""
    twin = _shallow(module)
    for name, child in module._modules.items():
        if isinstance(child, nn.Linear):
            twin._modules[name] = FusedLinear.of(child)
        elif child is not None:
            twin._modules[name] = _with_fused_linears(child)
    return twin


# -- trunk and pyramid ---------------------------------------------------------------------------


def folded(block: ConvNorm) -> nn.Conv2d:
    """Convolution and batch normalisation as one convolution with bias."""
    conv, norm = block.c, block.bn
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    merged = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        cast(tuple[int, int], conv.kernel_size),
        cast(tuple[int, int], conv.stride),
        cast(tuple[int, int], conv.padding),
        groups=conv.groups,
    )
    merged.weight = nn.Parameter(conv.weight.detach() * scale.detach()[:, None, None, None])
    merged.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())
    return merged


def _merged_mixer(mixer: TokenMixer) -> nn.Conv2d:
    """All three branches of a token mixer as one depthwise 3x3 convolution."""
    merged, point = folded(mixer.conv), folded(mixer.conv1)
    assert merged.bias is not None and point.bias is not None
    with torch.no_grad():
        merged.weight[:, :, 1, 1] += point.weight[:, :, 0, 0] + 1.0
        merged.bias += point.bias
    return merged


class FusedLinear(nn.Module):
    """x Wᵀ + b, then GELU or ReLU, for inference.

    On a CPU oneDNN does it in one pass over memory, 1.2 to 1.5 times as fast as `nn.Linear`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, then: str = "none") -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.bias = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
        self.then = then

    @classmethod
    def of(cls, linear: nn.Linear | nn.Module, then: str = "none") -> FusedLinear:
        return cls(cast(Tensor, linear.weight), cast("Tensor | None", linear.bias), then)

    def forward(self, x: Tensor) -> Tensor:
        if ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
            return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
                x, self.weight, self.bias, self.then, [], "none"
            )
        y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if self.then == "gelu" else F.relu(y) if self.then == "relu" else y


def _pointwise(conv: nn.Conv2d, then: str = "none") -> FusedLinear:
    """A 1x1 convolution as a matrix product over the channels of a (B, H, W, C) map."""
    assert conv.bias is not None
    return FusedLinear(conv.weight[:, :, 0, 0], conv.bias, then)


def _then(first: nn.Conv2d, second: nn.Conv2d) -> FusedLinear:
    """Two 1x1 convolutions as one matrix product."""
    a, b = _pointwise(first), _pointwise(second)
    assert a.bias is not None and b.bias is not None
    return FusedLinear(b.weight @ a.weight, b.weight @ a.bias + b.bias)


def _spatial(conv: nn.Conv2d) -> nn.Conv2d:
    return conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution on a (B, H, W, C) map; no copy, since that is channels-last memory."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


class _FusedMixer(nn.Module):
    def __init__(self, mixer: ChannelMixer) -> None:
        super().__init__()
        self.widen = _pointwise(folded(mixer.conv1), then="gelu")
        self.narrow = _pointwise(folded(mixer.conv2))

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.widen(x)).add_(x)


class _FusedBlock(nn.Module):
    def __init__(self, block: RepViTBlock) -> None:
        super().__init__()
        self.token_mixer = _spatial(_merged_mixer(block.token_mixer))
        self.gate: nn.Module | None = None
        if isinstance(block.se, SqueezeExcite):
            self.gate = nn.Sequential(
                _pointwise(block.se.fc1), nn.ReLU(), _pointwise(block.se.fc2), nn.Sigmoid()
            )
        self.channel_mixer = _FusedMixer(block.channel_mixer)

    def forward(self, x: Tensor) -> Tensor:
        x = _convolve(self.token_mixer, x)
        if self.gate is not None:
            x.mul_(self.gate(x.mean((1, 2), keepdim=True)))
        return self.channel_mixer(x)


class _FusedDownsample(nn.Module):
    def __init__(self, down: Downsample) -> None:
        super().__init__()
        self.pre_block = _FusedBlock(down.pre_block)
        self.spatial = _spatial(folded(down.spatial_downsample))
        self.channel = _pointwise(folded(down.channel_downsample))
        self.ffn = _FusedMixer(down.ffn)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.channel(_convolve(self.spatial, self.pre_block(x))))


def _fused_stage(stage: Stage) -> nn.Sequential:
    parts: list[nn.Module] = []
    if isinstance(stage.downsample, Downsample):
        parts.append(_FusedDownsample(stage.downsample))
    parts += [_FusedBlock(cast(RepViTBlock, block)) for block in stage.blocks]
    return nn.Sequential(*parts)


class _FusedEncoder(nn.Module):
    """Image → features, with the decoder's high-resolution convolutions merged in.

    Maps travel as (B, H, W, C), so that 1x1 convolutions are matrix products.
    """

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        body: RepViT = model.image_encoder.trunk.body
        stem = body.stem
        self.stem1, self.stem2 = _spatial(folded(stem.conv1)), _spatial(folded(stem.conv2))
        self.stages = nn.ModuleList(
            _fused_stage(cast(Stage, body.get_submodule(f"stages_{i}"))) for i in range(4)
        )
        coarse, top, middle, fine = (neck.conv for neck in model.image_encoder.neck.convs)  # type: ignore[union-attr]
        decoder = model.sam_mask_decoder
        self.coarse, self.top = (
            _pointwise(cast(nn.Conv2d, coarse)),
            _pointwise(cast(nn.Conv2d, top)),
        )
        self.s0 = _then(cast(nn.Conv2d, fine), decoder.conv_s0)
        self.s1 = _then(cast(nn.Conv2d, middle), decoder.conv_s1)

    def features(self, images: Tensor) -> ImageFeatures:
        x = self.stem1(images.contiguous(memory_format=torch.channels_last))
        x = self.stem2(torch.ops.aten.gelu_(x)).permute(0, 2, 3, 1)
        fine = self.stages[0](x)
        middle = self.stages[1](fine)
        top = self.stages[2](middle)
        coarse = self.coarse(self.stages[3](top)).permute(0, 3, 1, 2)
        doubled = F.interpolate(coarse, scale_factor=2.0)
        return ImageFeatures(
            (_planes(self.top(top)) + doubled).contiguous(),
            (_planes(self.s0(fine)).contiguous(), _planes(self.s1(middle)).contiguous()),
        )


def _planes(x: Tensor) -> Tensor:
    """(B, H, W, C) → (B, C, H, W), a view."""
    return x.permute(0, 3, 1, 2)


# -- memory attention ----------------------------------------------------------------------------


class _FusedConvNext(nn.Module):
    """Depthwise convolution, norm and MLP on channels-last memory; gamma is in the last weights."""

    def __init__(self, block: ConvNextBlock) -> None:
        super().__init__()
        self.dwconv = _spatial(copy.deepcopy(block.dwconv))
        self.norm = block.norm
        self.widen = FusedLinear.of(block.pwconv1, then="gelu")
        gamma, narrow = block.gamma, block.pwconv2
        self.narrow = FusedLinear(gamma[:, None] * narrow.weight, gamma * narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = F.layer_norm(y, y.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps)
        return x + _planes(self.narrow(self.widen(y)))


def _fuse_layer(layer: MemoryAttentionLayer) -> MemoryAttentionLayer:
    fused = _shallow(layer)
    fused.self_attn = _FusedSelfAttention(layer.self_attn)
    fused.cross_attn_image = _FusedMemoryAttention(layer.cross_attn_image)
    fused.linear1 = FusedLinear.of(layer.linear1)  # type: ignore[assignment]
    fused.linear2 = FusedLinear.of(layer.linear2)  # type: ignore[assignment]
    return fused


class _FusedSelfAttention(RotaryAttention):
    """Query, key and value by one matrix product."""

    def __init__(self, attention: RotaryAttention) -> None:
        nn.Module.__init__(self)
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([p.weight for p in parts])
        bias = torch.cat([p.bias for p in parts])
        self.channels = attention.q_proj.out_features
        self.qkv = FusedLinear(weight, bias)
        self.out_proj = FusedLinear.of(attention.out_proj)  # type: ignore[assignment]

    def to_self(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = self.qkv(x).split(self.channels, dim=-1)
        return self._attend(rotate_pairs(q, rotation), rotate_pairs(k, rotation), v)


class _FusedMemoryAttention(RotaryAttention):
    """Attention to memory in the memory's own channels, wherever no rotation forbids it."""

    def __init__(self, attention: RotaryAttention) -> None:
        nn.Module.__init__(self)
        q, k, v, out = (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.out_proj,
        )
        scale = 1 / math.sqrt(q.out_features)
        self.q_proj = FusedLinear(q.weight * scale, q.bias * scale)  # type: ignore[assignment]
        self.k_proj = FusedLinear.of(k)  # type: ignore[assignment]
        # out(softmax · v(m)) = softmax · m projected once: the rows of a softmax sum to one
        self.out_proj = FusedLinear(  # type: ignore[assignment]
            out.weight @ v.weight, out.weight @ v.bias + out.bias
        )

    def to_memory(
        self,
        x: Tensor,
        memory: Memory,
        query_rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        q = rotate_pairs(self.q_proj(x), query_rotation)
        keys = memory.tokens + memory.positions
        frames, each, gridded = memory.num_frames, memory.tokens_per_frame, memory.grid**2
        end, plain = frames * each, each - gridded
        rows = []
        for one, key, value in zip(q, keys, memory.tokens, strict=True):
            by_frame = key[:end].unflatten(0, (frames, each))
            turned = rotate_pairs(self.k_proj(by_frame[:, plain:]), key_rotation).flatten(0, 1)
            still = torch.cat((by_frame[:, :plain].flatten(0, 1), key[end:]))
            values = value[:end].unflatten(0, (frames, each))
            values = torch.cat(
                (values[:, plain:].flatten(0, 1), values[:, :plain].flatten(0, 1), value[end:])
            )
            rows.append(self._attend_rows(one, turned, still, values))
        return self.out_proj(torch.stack(rows))

    def _attend_rows(self, q: Tensor, turned: Tensor, still: Tensor, values: Tensor) -> Tensor:
        """q (N, C); turned keys (R, C); other keys (U, D) in memory channels; values (R + U, D)."""
        weight, bias = self.k_proj.weight, self.k_proj.bias
        q_still, q_bias = q @ weight, q @ bias
        out = q.new_empty(len(q), values.shape[1])
        scores = q.new_empty(min(QUERY_ROWS, len(q)), len(values))
        turned_t, still_t, count = turned.t(), still.t(), len(turned)
        for start in range(0, len(q), QUERY_ROWS):
            rows = slice(start, start + QUERY_ROWS)
            block = scores[: len(q[rows])]
            torch.matmul(q[rows], turned_t, out=block[:, :count])
            torch.addmm(q_bias[rows, None], q_still[rows], still_t, out=block[:, count:])
            torch.matmul(torch.softmax(block, dim=-1), values, out=out[rows])
        return out
