"""The memory encoder and the perceiver rearranged for a CPU.

* Channels-last wherever channels are many: 1x1 convolutions are matrix products, norms run over
  contiguous memory. The first maps have few channels and many pixels, and stay planes.
* There the mean that a norm subtracts, which is linear, is taken out of the convolution's weights
  beforehand; only the variance is left to compute.
* ConvNeXt's gamma is in its last weights.
* Both halves of the perceiver project the same map, so it is normed and projected once.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.config import ModelConfig
from edgetam_label.modeling.fused_convolution import FusedConv, planes, pointwise, rows_of
from edgetam_label.modeling.fused_linear import FusedLinear, ResidualMLP
from edgetam_label.modeling.layers import LayerNorm2d, sine_position
from edgetam_label.modeling.memory_encoder import ConvNextBlock, MaskDownsampler, MemoryEncoder
from edgetam_label.modeling.perceiver import PerceiverLayer, SelfAttention, SpatialPerceiver

# Norms over fewer channels than this run faster on planes than over the last dimension.
FEW_CHANNELS = 32


class FusedMemoryEncoder(nn.Module):
    """`MemoryEncoder` on channels-last memory."""

    def __init__(self, encoder: MemoryEncoder) -> None:
        super().__init__()
        self.downsample = _FusedDownsampler(encoder.mask_downsampler)
        self.pix_feat_proj = pointwise(encoder.pix_feat_proj)
        self.fuser = nn.Sequential(
            *(_FusedConvNext(cast(ConvNextBlock, block)) for block in encoder.fuser.layers)
        )
        self.out_proj = pointwise(encoder.out_proj)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """As `MemoryEncoder.forward`; memory of the result is channels-last."""
        known = self.pix_feat_proj(rows_of(features))
        fused = self.downsample(mask.to(known.dtype), known)
        return planes(self.out_proj(self.fuser(fused))).float()


class _FusedDownsampler(nn.Module):
    def __init__(self, downsampler: MaskDownsampler) -> None:
        super().__init__()
        *layers, last = downsampler.encoder
        self.steps = nn.Sequential(
            *(
                _norm_step(cast(nn.Conv2d, conv), cast(LayerNorm2d, norm))
                for conv, norm in zip(layers[0::3], layers[1::3], strict=True)
            )
        )
        self.last = pointwise(cast(nn.Conv2d, last))

    def forward(self, mask: Tensor, plus: Tensor) -> Tensor:
        """mask (B, 1, S, S), plus (B, h, w, C) → (B, h, w, C)."""
        return self.last(rows_of(self.steps(mask)), plus)  # type: ignore[no-any-return]


def _norm_step(conv: nn.Conv2d, norm: LayerNorm2d) -> nn.Module:
    return (_PlanesStep if conv.out_channels < FEW_CHANNELS else _RowsStep)(conv, norm)


class _PlanesStep(nn.Module):
    """Convolution whose channels have no mean, division by their deviation, GELU."""

    def __init__(self, conv: nn.Conv2d, norm: LayerNorm2d) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv)
        assert self.conv.bias is not None
        with torch.no_grad():
            self.conv.weight -= self.conv.weight.mean(0, keepdim=True)
            self.conv.bias -= self.conv.bias.mean()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        scale = y.square().mean(1, keepdim=True).add_(self.norm.eps).rsqrt_()
        weight, bias = (p[:, None, None] for p in (self.norm.weight, self.norm.bias))
        y = y.mul_(scale)
        return torch.ops.aten.gelu_(torch.addcmul(bias, y, weight, out=y))  # type: ignore[no-any-return]


class _RowsStep(nn.Module):
    """Convolution, norm over the last dimension, GELU; the result is channels-last."""

    def __init__(self, conv: nn.Conv2d, norm: LayerNorm2d) -> None:
        super().__init__()
        self.conv = FusedConv(copy.deepcopy(conv))
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(rows_of(x))
        y = F.layer_norm(y, y.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps)
        return planes(torch.ops.aten.gelu_(y))


class _FusedConvNext(nn.Module):
    """Depthwise convolution, norm and MLP on a (B, H, W, C) map."""

    def __init__(self, block: ConvNextBlock) -> None:
        super().__init__()
        self.dwconv = FusedConv(copy.deepcopy(block.dwconv))
        self.norm = block.norm
        gamma, narrow = block.gamma, block.pwconv2
        self.mlp = ResidualMLP(
            FusedLinear.of(block.pwconv1, then="gelu"),
            FusedLinear(gamma[:, None] * narrow.weight, gamma * narrow.bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        y = F.layer_norm(y, y.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps)
        return self.mlp(y, x)  # type: ignore[no-any-return]


class FusedPerceiver(nn.Module):
    """`SpatialPerceiver` that projects the map once for both kinds of latents."""

    position: Tensor

    def __init__(self, perceiver: SpatialPerceiver, config: ModelConfig) -> None:
        super().__init__()
        self.latents, self.latents_2d = perceiver.latents, perceiver.latents_2d
        self.layers = nn.ModuleList(
            _FusedPerceiverLayer(cast(PerceiverLayer, layer)) for layer in perceiver.layers
        )
        self.norm, self.grid = perceiver.norm, perceiver.grid
        side = config.image_size // 16
        position = sine_position(config.memory_dim, side, side, perceiver.latents.device)
        position = position.flatten(1).t()
        self.register_buffer("position", torch.cat((position, position), 1), persistent=False)

    def forward(self, memory: Tensor) -> Tensor:
        """As `SpatialPerceiver.forward`."""
        cells = rows_of(memory)  # (B, h, w, D)
        batch, height, width, dim = cells.shape
        whole = self.latents.expand(batch, -1, -1)
        windowed = self.latents_2d.repeat(batch, 1)[:, None]  # (B · windows, 1, D)
        rows, cols = height // self.grid, width // self.grid
        for layer in self.layers:
            kv = cast(_FusedPerceiverLayer, layer).project(cells)  # (B, h, w, 2 D)
            windows = kv.view(batch, self.grid, rows, self.grid, cols, 2 * dim)
            windows = windows.transpose(2, 3).reshape(-1, rows * cols, 2 * dim)
            windowed = layer(windowed, windows)
            whole = layer(whole, kv.flatten(1, 2).add_(self.position))
        return self.norm(torch.cat((whole, windowed.view(batch, -1, dim)), dim=1))  # type: ignore[no-any-return]


class _FusedPerceiverLayer(nn.Module):
    def __init__(self, layer: PerceiverLayer) -> None:
        super().__init__()
        cross = layer.attn
        self.norm_x, self.norm_latents = cross.norm_x, cross.norm_latents
        self.to_q, self.to_kv, self.to_out = (
            FusedLinear.of(p) for p in (cross.to_q, cross.to_kv, cross.to_out)
        )
        self.self_attn = _FusedSelfAttention(layer.self_attn)
        self.mlp, self.self_mlp = (_mlp(part) for part in (layer.ff, layer.self_ff))

    def project(self, cells: Tensor) -> Tensor:
        """Keys and values of the map, side by side, without position."""
        return self.to_kv(self.norm_x(cells))  # type: ignore[no-any-return]

    def forward(self, latents: Tensor, kv: Tensor) -> Tensor:
        """latents (B, n, D), kv (B, m, 2 D) → latents."""
        q = self.to_q(self.norm_latents(latents))
        latents = self.to_out(_attend(q, kv), latents)
        return self.self_mlp(self.self_attn(self.mlp(latents)))  # type: ignore[no-any-return]


class _FusedSelfAttention(nn.Module):
    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.norm = attention.norm
        self.to_q, self.to_kv, self.to_out = (
            FusedLinear.of(p) for p in (attention.to_q, attention.to_kv, attention.to_out)
        )

    def forward(self, latents: Tensor) -> Tensor:
        normed = self.norm(latents)
        if latents.shape[1] == 1:  # a lone latent sees only itself
            return self.to_out(self.to_kv(normed).chunk(2, dim=-1)[1], latents)  # type: ignore[no-any-return]
        return self.to_out(_attend(self.to_q(normed), self.to_kv(normed)), latents)  # type: ignore[no-any-return]


def _mlp(part: nn.Sequential) -> ResidualMLP:
    norm, widen, _, narrow = part
    return ResidualMLP(
        FusedLinear.of(widen, then="gelu"), FusedLinear.of(narrow), cast(nn.LayerNorm, norm)
    )


def _attend(q: Tensor, kv: Tensor) -> Tensor:
    k, v = kv.chunk(2, dim=-1)
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
