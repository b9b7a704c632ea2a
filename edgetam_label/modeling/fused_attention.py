"""Memory attention rearranged for a CPU: everything after the keys goes by blocks of query rows.

* One head of full width lets projections move through the softmax. Values are projected to the
  output before they are averaged, so no projection follows: out(P v(x)) = P (x (Wo Wv)ᵀ) + const.
* Memory values stay in the memory's own 64 channels until after the softmax, whose rows sum to
  one, and so do the keys that are not rotated; the projections move to the side of the queries.
* Scores of a block of rows stay in cache; norms, products and the MLP follow on the same rows.
* Rotation multiplies adjacent channels as one complex number, in place.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from edgetam_label.config import ModelConfig
from edgetam_label.modeling.fused_linear import FusedLinear, ResidualMLP, linear, linear_plus
from edgetam_label.modeling.layers import axial_rotation, sine_position
from edgetam_label.modeling.memory_attention import (
    Memory,
    MemoryAttention,
    MemoryAttentionLayer,
    RotaryAttention,
)

# Rows of queries attended at once: large enough for fast products, and their scores stay in cache.
QUERY_ROWS = 512


class FusedMemoryAttention(nn.Module):
    """`MemoryAttention` with positions and rotations computed once, for the config's sizes."""

    position: Tensor
    query_rotation: Tensor
    key_rotation: Tensor

    def __init__(self, attention: MemoryAttention, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _FusedLayer(cast(MemoryAttentionLayer, layer)) for layer in attention.layers
        )
        self.norm = attention.norm
        side, device = config.image_size // 16, attention.norm.weight.device
        position = sine_position(config.d_model, side, side, device)
        for name, table in (
            ("position", 0.1 * position.flatten(1).t().contiguous()),
            ("query_rotation", _turns(config.d_model, side, device)),
            ("key_rotation", _turns(config.d_model, config.latent_grid, device)),
        ):
            self.register_buffer(name, table, persistent=False)

    def start(self, features: Tensor, position: Tensor | None = None) -> Tensor:
        """As `MemoryAttention.start`; `position` is known already."""
        x = features.flatten(2).transpose(1, 2) + self.position
        return self.layers[0].attend_self(x, self.query_rotation)  # type: ignore[operator, no-any-return]

    def finish(self, started: Tensor, memory: Memory) -> Tensor:
        """As `MemoryAttention.finish`."""
        side = round(started.shape[1] ** 0.5)
        x = started.expand(len(memory.tokens), -1, -1)
        for i, layer in enumerate(self.layers):
            if i > 0:
                x = layer.attend_self(x, self.query_rotation)  # type: ignore[operator]
            x = layer.attend_memory(x, memory, self.query_rotation, self.key_rotation)  # type: ignore[operator]
        return self.norm(x).transpose(1, 2).unflatten(2, (side, side))  # type: ignore[no-any-return]


def _turns(dim: int, side: int, device: torch.device) -> Tensor:
    """Rotations of a side x side grid as complex numbers, (side², dim / 2)."""
    return torch.complex(*axial_rotation(dim, side, device))


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the pairs of (…, N, C), in place where they are float32, which the result is."""
    x = x.float()
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(turns)
    return x


class _FusedLayer(nn.Module):
    def __init__(self, layer: MemoryAttentionLayer) -> None:
        super().__init__()
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.self_attn = _FusedSelfAttention(layer.self_attn)
        self.cross_attn_image = _FusedCrossAttention(layer.cross_attn_image)
        self.mlp = ResidualMLP(
            FusedLinear.of(layer.linear1, then="relu"), FusedLinear.of(layer.linear2), layer.norm3
        )

    def attend_self(self, x: Tensor, turns: Tensor) -> Tensor:
        normed = self.norm1(x)
        return torch.stack([self.self_attn(*one, turns) for one in zip(normed, x, strict=True)])

    def attend_memory(
        self, x: Tensor, memory: Memory, query_turns: Tensor, key_turns: Tensor
    ) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for i, one in enumerate(x):
            kept = self.cross_attn_image.remember(memory, i, key_turns)
            for rows in _blocks(len(one)):
                attended = self.cross_attn_image(
                    self.norm2(one[rows]), one[rows], kept, query_turns[rows]
                )
                out[i, rows] = self.mlp(attended)
        return out


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + QUERY_ROWS) for start in range(0, count, QUERY_ROWS)]


class _FusedRotaryAttention(nn.Module):
    """Queries are scaled beforehand; values go straight to the output."""

    def __init__(self, attention: RotaryAttention) -> None:
        super().__init__()
        q, v, out = attention.q_proj, attention.v_proj, attention.out_proj
        scale = 1 / math.sqrt(q.out_features)
        self.q_proj = FusedLinear(q.weight * scale, q.bias * scale)
        self.k_proj = FusedLinear.of(attention.k_proj)
        self.v_out = FusedLinear(out.weight @ v.weight, out.weight @ v.bias + out.bias)


class _FusedSelfAttention(_FusedRotaryAttention):
    def forward(self, x: Tensor, plus: Tensor, turns: Tensor) -> Tensor:
        """x (N, C) attends to itself; the result is added to `plus`."""
        dtype = self.v_out.weight.dtype
        k = _turn(self.k_proj(x), turns).to(dtype)
        values = linear(self.v_out.weight, x.to(dtype))  # (C, N), projected to the output
        out = torch.empty_like(x)
        for rows in _blocks(len(x)):
            scores = linear(_turn(self.q_proj(x[rows]), turns[rows]), k)
            torch.softmax(scores, dim=-1, out=scores)
            out[rows] = linear_plus(scores, plus[rows], values, self.v_out.bias)
        return out


class _FusedCrossAttention(_FusedRotaryAttention):
    def __init__(self, attention: RotaryAttention) -> None:
        super().__init__(attention)
        k = attention.k_proj
        # q · (W m + b) = (q W, q · b) · (m, 1): the bias of the keys is one more channel
        self.q_still = FusedLinear(torch.cat((k.weight, k.bias[:, None]), dim=1).t(), None)

    def remember(self, memory: Memory, row: int, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated keys (R, C), other keys with their one (U, D + 1), values (D, R + U)."""
        tokens = memory.tokens[row]
        keys = tokens + memory.positions[min(row, len(memory.positions) - 1)]
        frames, each = memory.num_frames, memory.tokens_per_frame
        end, plain = frames * each, each - memory.grid**2
        by_frame = keys[:end].unflatten(0, (frames, each))
        turned = _turn(self.k_proj(by_frame[:, plain:]), turns).flatten(0, 1)
        still = torch.cat((by_frame[:, :plain].flatten(0, 1), keys[end:]))
        still = torch.cat((still, still.new_ones(len(still), 1)), dim=1)
        values = tokens[:end].unflatten(0, (frames, each))
        values = torch.cat(
            (values[:, plain:].flatten(0, 1), values[:, :plain].flatten(0, 1), tokens[end:])
        )
        dtype = self.v_out.weight.dtype
        return turned.to(dtype), still.to(dtype), values.t().to(dtype).contiguous()

    def forward(
        self, x: Tensor, plus: Tensor, kept: tuple[Tensor, Tensor, Tensor], turns: Tensor
    ) -> Tensor:
        """Rows x (N, C) attend to what `remember` gave; the result is added to `plus`."""
        turned, still, values = kept
        q = _turn(self.q_proj(x), turns).to(turned.dtype)
        scores = q.new_empty(len(q), values.shape[1])
        torch.matmul(q, turned.t(), out=scores[:, : len(turned)])
        torch.matmul(self.q_still(q), still.t(), out=scores[:, len(turned) :])
        torch.softmax(scores, dim=-1, out=scores)
        return self.v_out(linear(scores, values), plus)  # type: ignore[no-any-return]
