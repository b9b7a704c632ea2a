"""Memory attention: the current frame's features attend to the memories of an object (SAM 2).

EdgeTAM rotates only the gridded half of each memory's tokens; global tokens and object pointers
have no place to rotate to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.layers import axial_rotation, rotate_pairs


@dataclass(frozen=True)
class Memory:
    """What one step attends to: F frame memories of L tokens each, then P pointer tokens.

    tokens: (B, F · L + P, D). positions: the same shape or broadcastable, added to the keys.
    num_frames: F. tokens_per_frame: L. grid: side of the square grid of the last tokens of each.
    """

    tokens: Tensor
    positions: Tensor
    num_frames: int
    tokens_per_frame: int
    grid: int


class RotaryAttention(nn.Module):
    """One head of width d_model; queries rotate on their own grid."""

    def __init__(self, d_model: int, kv_dim: int | None = None) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(kv_dim or d_model, d_model)
        self.v_proj = nn.Linear(kv_dim or d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def to_self(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, N, C) attends to itself."""
        q = rotate_pairs(self.q_proj(x), rotation)
        k = rotate_pairs(self.k_proj(x), rotation)
        return self._attend(q, k, self.v_proj(x))

    def to_memory(
        self,
        x: Tensor,
        memory: Memory,
        query_rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        """x (B, N, C) attends to memory tokens (B, M, D)."""
        q = rotate_pairs(self.q_proj(x), query_rotation)
        k = self.k_proj(memory.tokens + memory.positions)
        k = _rotate_gridded(k, memory, key_rotation)
        return self._attend(q, k, self.v_proj(memory.tokens))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.out_proj(out)


def _rotate_gridded(k: Tensor, memory: Memory, rotation: tuple[Tensor, Tensor]) -> Tensor:
    end = memory.num_frames * memory.tokens_per_frame
    frames = k[:, :end].unflatten(1, (memory.num_frames, memory.tokens_per_frame))
    start = memory.tokens_per_frame - memory.grid**2
    gridded = rotate_pairs(frames[:, :, start:], rotation)
    frames = torch.cat((frames[:, :, :start], gridded), dim=2).flatten(1, 2)
    return torch.cat((frames, k[:, end:]), dim=1)


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to memory, MLP; pre-norm."""

    def __init__(self, d_model: int, memory_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(d_model)
        self.cross_attn_image = RotaryAttention(d_model, kv_dim=memory_dim)
        self.linear1 = nn.Linear(d_model, mlp_dim)
        self.linear2 = nn.Linear(mlp_dim, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)

    def attend_self(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        return x + self.self_attn.to_self(self.norm1(x), rotation)

    def attend_memory(
        self,
        x: Tensor,
        memory: Memory,
        query_rotation: tuple[Tensor, Tensor],
        key_rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        x = x + self.cross_attn_image.to_memory(self.norm2(x), memory, query_rotation, key_rotation)
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class MemoryAttention(nn.Module):
    """Features (B, C, h, w) → features that know the object, same shape."""

    def __init__(self, d_model: int, memory_dim: int, mlp_dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MemoryAttentionLayer(d_model, memory_dim, mlp_dim) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(d_model)

    def start(self, features: Tensor, position: Tensor) -> Tensor:
        """The first self-attention, which no memory reaches: (B, C, h, w) → (B, N, C).

        It is the same for every object of a frame, so callers may compute it once.
        """
        x = (features + 0.1 * position).flatten(2).transpose(1, 2)
        rotation = axial_rotation(x.shape[-1], features.shape[-1], x.device)
        first: MemoryAttentionLayer = self.layers[0]  # type: ignore[assignment]
        return first.attend_self(x, rotation)

    def finish(self, started: Tensor, memory: Memory) -> Tensor:
        """The rest, from `start`'s (B or 1, N, C) and an object's memory → (B, C, h, w)."""
        side = math.isqrt(started.shape[1])
        channels, device = started.shape[-1], started.device
        query_rotation = axial_rotation(channels, side, device)
        key_rotation = axial_rotation(channels, memory.grid, device)
        x = started.expand(memory.tokens.shape[0], -1, -1)
        for i, layer in enumerate(self.layers):
            if i > 0:
                x = layer.attend_self(x, query_rotation)  # type: ignore[operator]
            x = layer.attend_memory(x, memory, query_rotation, key_rotation)  # type: ignore[operator]
        return self.norm(x).transpose(1, 2).unflatten(2, (side, side))
