"""2D spatial perceiver: a memory map becomes few tokens (EdgeTAM, arXiv 2501.07256, section 3.2).

Half of the latents look at the whole map; the other half, on a grid, each at their own window, so
that positions survive the compression. Both halves pass through the same layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.layers import sine_position


class CrossAttention(nn.Module):
    """Latents attend to the map; positions are added to keys and to values."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_x = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        q = self.to_q(self.norm_latents(latents))
        k, v = self.to_kv(self.norm_x(x)).chunk(2, dim=-1)
        if position is not None:
            k, v = k + position, v + position
        return self.to_out(_attend(q, k, v))


class SelfAttention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, latents: Tensor) -> Tensor:
        normed = self.norm(latents)
        k, v = self.to_kv(normed).chunk(2, dim=-1)
        return self.to_out(_attend(self.to_q(normed), k, v))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # one head; the kernels want a head dimension
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def _feed_forward(dim: int, ratio: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, ratio * dim, bias=False),
        nn.GELU(),
        nn.Linear(ratio * dim, dim, bias=False),
    )


class PerceiverLayer(nn.Module):
    """Cross-attention, MLP, self-attention, MLP; all pre-norm and residual."""

    def __init__(self, dim: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attn = CrossAttention(dim)
        self.ff = _feed_forward(dim, mlp_ratio)
        self.self_attn = SelfAttention(dim)
        self.self_ff = _feed_forward(dim, mlp_ratio)

    def forward(self, latents: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        latents = latents + self.attn(latents, x, position)
        latents = latents + self.ff(latents)
        latents = latents + self.self_attn(latents)
        return latents + self.self_ff(latents)


class SpatialPerceiver(nn.Module):
    """(B, D, h, w) memory map → (B, num_latents + num_latents_2d, D) tokens, global ones first."""

    def __init__(
        self, dim: int, depth: int, mlp_ratio: int, num_latents: int, num_latents_2d: int
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.latents_2d = nn.Parameter(torch.randn(num_latents_2d, dim))
        self.layers = nn.ModuleList(PerceiverLayer(dim, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.grid = round(num_latents_2d**0.5)

    def forward(self, memory: Tensor) -> Tensor:
        return torch.cat((self._global(memory), self._windowed(memory)), dim=1)

    def _global(self, memory: Tensor) -> Tensor:
        batch, dim, height, width = memory.shape
        position = sine_position(dim, height, width, memory.device).flatten(1).t()[None]
        return self._resample(
            self.latents.expand(batch, -1, -1), memory.flatten(2).transpose(1, 2), position
        )

    def _windowed(self, memory: Tensor) -> Tensor:
        batch, dim, height, width = memory.shape
        rows, cols = height // self.grid, width // self.grid
        windows = memory.reshape(batch, dim, self.grid, rows, self.grid, cols)
        windows = windows.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * cols, dim)
        latents = self.latents_2d.repeat(batch, 1)[:, None]  # (B · windows, 1, D)
        return self._resample(latents, windows, None).reshape(batch, -1, dim)

    def _resample(self, latents: Tensor, x: Tensor, position: Tensor | None) -> Tensor:
        for layer in self.layers:
            latents = layer(latents, x, position)
        return self.norm(latents)
