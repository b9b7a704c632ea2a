"""Matrix products as inference wants them: activation and residual applied on the way out.

Weights may be float32 or bfloat16. What they multiply is rounded to the same; sums are float32
inside, and a result is what the weights are unless something of higher precision is added to it.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.repvit import ConvNorm

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
ONEDNN_BFLOAT16 = ONEDNN and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

# An MLP's hidden rows are made and used up in equal blocks of at most this many bytes: they stay in
# cache, and no block is so large that the allocator fetches fresh pages from the system for it.
HIDDEN_BYTES = 8 * 2**20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """x Wᵀ + b, then `gelu` or `relu`; weight (out, in) may itself be computed, as keys are.

    On a CPU oneDNN does it in one pass over memory, 1.2 to 1.5 times as fast as `F.linear`.
    """
    x = x.to(weight.dtype)
    if _onednn_takes(x):
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            x, weight, bias, then, [], "none"
        )
    y = F.linear(x, weight, bias)
    return F.gelu(y) if then == "gelu" else F.relu(y) if then == "relu" else y


def linear_plus(x: Tensor, plus: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b + plus, where `plus` has the shape of the result."""
    if plus.dtype != weight.dtype:
        return linear(x, weight, bias) + plus
    x = x.to(weight.dtype)
    if _onednn_takes(x):
        return torch.ops.mkldnn._linear_pointwise.binary(  # type: ignore[no-any-return]
            x, plus, weight, bias, "add"
        )
    return F.linear(x, weight, bias).add_(plus)


def _onednn_takes(x: Tensor) -> bool:
    if not ONEDNN or x.device.type != "cpu":
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and ONEDNN_BFLOAT16)


class FusedLinear(nn.Module):
    """`linear` with weights of its own; further arguments give `linear_plus`."""

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

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        if plus is None:
            return linear(x, self.weight, self.bias, self.then)
        return linear_plus(x, plus, self.weight, self.bias)


class ResidualMLP(nn.Module):
    """x + narrow(widen(norm(x))) over the channels of (…, C), a block of rows at a time.

    Given `plus`, that is added instead of x.
    """

    def __init__(
        self, widen: FusedLinear, narrow: FusedLinear, norm: nn.LayerNorm | None = None
    ) -> None:
        super().__init__()
        self.widen, self.narrow, self.norm = widen, narrow, norm

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        added = rows if plus is None else plus.reshape(rows.shape)
        weight = self.widen.weight
        blocks = -(-rows.shape[0] * weight.element_size() * len(weight) // HIDDEN_BYTES)
        if blocks <= 1 or x.device.type != "cpu":
            return self._rows(rows, added).view_as(x)
        out = torch.empty_like(added)
        for block, *inputs in zip(*(t.chunk(blocks) for t in (out, rows, added)), strict=True):
            block.copy_(self._rows(*inputs))
        return out.view_as(x)

    def _rows(self, x: Tensor, plus: Tensor) -> Tensor:
        y = x if self.norm is None else self.norm(x)
        return self.narrow(self.widen(y), plus)  # type: ignore[no-any-return]


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


def pointwise(conv: nn.Conv2d, then: str = "none") -> FusedLinear:
    """A 1x1 convolution as a matrix product over the channels of a (B, H, W, C) map."""
    assert conv.bias is not None
    return FusedLinear(conv.weight[:, :, 0, 0], conv.bias, then)


def spatial(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with weights in the order of channels-last memory."""
    return conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution on a (B, H, W, C) map; no copy, since that is channels-last memory."""
    return rows_of(conv(planes(x)))


def planes(x: Tensor) -> Tensor:
    """(B, H, W, C) → (B, C, H, W), a view."""
    return x.permute(0, 3, 1, 2)


def rows_of(x: Tensor) -> Tensor:
    """(B, C, H, W) → contiguous (B, H, W, C); a view where memory is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()
