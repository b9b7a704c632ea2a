"""Convolutions as inference wants them: weights packed once, activation or sum on the way out.

Maps are (B, H, W, C), which is channels-last memory. In float32 on a CPU oneDNN is called directly;
elsewhere, and in bfloat16, these are `nn.Conv2d` and the matrix products of `fused_linear.py`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from edgetam_label.modeling.fused_linear import (
    ONEDNN,
    FusedLinear,
    ResidualMLP,
    is_plain,
    is_there,
)
from edgetam_label.modeling.repvit import ConvNorm

Window = tuple[Any, Any, Any, int]  # padding, stride, dilation, groups
ONE_BY_ONE: Window = ([0, 0], [1, 1], [1, 1], 1)


class FusedConv(nn.Module):
    """A convolution, then `gelu` or nothing: (B, H, W, C) → (B, H', W', C')."""

    def __init__(self, conv: nn.Conv2d, then: str = "none") -> None:
        super().__init__()
        in_order: Any = {"memory_format": torch.channels_last}  # not in the stubs of `to`
        self.conv = conv.to(**in_order).requires_grad_(False)
        self.then = then
        window = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._direct = _Direct(window, then)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x = planes(x.to(conv.weight.dtype))
        if DIRECT and is_plain(conv.weight):
            return rows_of(self._direct(x, conv.weight, conv.bias))
        y = rows_of(conv(x))
        return cast(Tensor, torch.ops.aten.gelu_(y)) if self.then == "gelu" else y


class MapMLP(ResidualMLP):
    """x + narrow(widen(x)) over the channels of a (B, H, W, C) map, which is used up.

    As two 1x1 convolutions, of which the second adds its result to x where it lies: nothing is
    allocated but a block's hidden values, and where channels are few oneDNN's convolutions are
    faster than its matrix products (96 → 48, 65,536 rows, two cores: 6 against 10 ms).
    """

    def __init__(self, widen: FusedLinear, narrow: FusedLinear) -> None:
        super().__init__(widen, narrow)
        self._widen, self._narrow = _Direct(ONE_BY_ONE, widen.then), _Direct(ONE_BY_ONE)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        widen, narrow = self.widen, self.narrow
        if plus is not None or not (DIRECT and is_plain(widen.weight)):
            return super().forward(x, plus)
        # where a row lies does not matter to a 1x1 convolution
        rows = x.view(1, 1, -1, x.shape[-1])
        for block in rows.chunk(self.blocks(rows.shape[2]), dim=2):
            block = planes(block)
            hidden = self._widen(block, widen.weight[:, :, None, None], widen.bias)
            self._narrow.add(block, hidden, narrow.weight[:, :, None, None], narrow.bias)
        return x


class _Direct:
    """oneDNN's convolution of (B, C, H, W) in channels-last memory, weights packed at first use.

    In which order it reads them depends on the size of the map, so they are kept for each size,
    of which a network has few: one image, its blocks and the last of them.
    """

    def __init__(self, window: Window, then: str = "none") -> None:
        self.window, self.then = window, then
        self._packed: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            x, self._ordered(weight, x.shape), bias, *self.window, self.then, [], "none"
        )

    def add(self, to: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """Add the result to `to`, whose size is the result's."""
        torch.ops.mkldnn._convolution_pointwise_.binary(
            to, x, self._ordered(weight, x.shape), bias, *self.window, "add", 1.0, None, [], None
        )

    def _ordered(self, weight: Tensor, size: torch.Size) -> Tensor:
        if size not in self._packed:
            plain: Any = weight.detach().contiguous()
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            self._packed[size] = pack(plain.to_mkldnn(), *self.window, size)
        return self._packed[size]


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


def planes(x: Tensor) -> Tensor:
    """(B, H, W, C) → (B, C, H, W), a view."""
    return x.permute(0, 3, 1, 2)


def rows_of(x: Tensor) -> Tensor:
    """(B, C, H, W) → contiguous (B, H, W, C); a view where memory is channels-last."""
    return x.permute(0, 2, 3, 1).contiguous()


def _try_direct() -> None:
    x, weight = planes(torch.ones(1, 1, 1, 8)), torch.ones(8, 8, 1, 1)
    _Direct(ONE_BY_ONE).add(_Direct(ONE_BY_ONE, "gelu")(x, weight, None), x, weight, None)


DIRECT = ONEDNN and is_there(_try_direct)
