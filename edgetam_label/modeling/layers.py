"""Small blocks shared by several modules: normalisation over channels, MLP, positions, RoPE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) map, eps 1e-6."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        centred = x - mean
        variance = centred.square().mean(1, keepdim=True)
        normed = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normed + self.bias[:, None, None]


class MLP(nn.Module):
    """Linear layers with ReLU between them: (…, dims[0]) → (…, dims[-1])."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(dims[:-1], dims[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def sine_position(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """2D sine position encoding, (channels, height, width): y in the first half, x in the second.

    Positions run 1..N, scaled to 2π; sine and cosine interleave (DETR, normalised form).
    """
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=device)
    period = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)

    def axis(n: int) -> Tensor:  # (n, half)
        steps = torch.arange(1, n + 1, dtype=torch.float32, device=device)
        angle = (steps / (n + 1e-6) * (2 * math.pi))[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = axis(height)[:, None, :].expand(height, width, half)
    x = axis(width)[None, :, :].expand(height, width, half)
    return torch.cat((y, x), dim=2).permute(2, 0, 1).contiguous()


def axial_rotation(dim: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (side², dim / 2), of rotary positions on a side x side grid.

    The first half of the channel pairs turns with x, the second with y (SAM 2, memory attention).
    """
    frequency = 1.0 / 10000 ** (
        torch.arange(0, dim, 4, dtype=torch.float32, device=device)[: dim // 4] / dim
    )
    token = torch.arange(side * side, dtype=torch.float32, device=device)
    x, y = token % side, torch.div(token, side, rounding_mode="floor")
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=-1)
    return angle.cos(), angle.sin()


def rotate_pairs(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn adjacent channel pairs of (…, N, C) by per-token angles, (N, C / 2) cos and sin."""
    cos, sin = rotation
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
