"""Matrix products as inference wants them: activation and residual applied on the way out.

Weights may be float32 or bfloat16. What they multiply is rounded to the same; sums are float32
inside, and a result is what the weights are unless something of higher precision is added to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def is_there(use: Callable[[], object]) -> bool:
    """Whether this PyTorch takes a call to oneDNN.

    They are none of its documented ones: another release may lack them, or want other arguments.
    Then documented ones do the same, more slowly.
    """
    try:
        use()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def _packed(weight: Tensor) -> Tensor:
    """A (out, in) weight in the order that oneDNN reads it; opaque. Each product does it otherwise.

    It serves any number of rows; from 8 on oneDNN chooses the same order.
    """
    return torch.ops.mkldnn._reorder_linear_weight(weight, 512)  # type: ignore[no-any-return]


ONEDNN_PACKS = ONEDNN and is_there(lambda: linear(torch.ones(1, 8), _packed(torch.ones(8, 8))))


def is_plain(weight: Tensor) -> bool:
    """Whether weights are float32 on a CPU with oneDNN. Packing bfloat16 was not measured."""
    return weight.dtype == torch.float32 and _onednn_takes(weight)


class FusedLinear(nn.Module):
    """`linear` with weights of its own, packed at first use; `plus` gives `linear_plus`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, then: str = "none") -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.bias = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
        self.then = then
        self._packed: Tensor | None = None

    @classmethod
    def of(cls, linear: nn.Linear | nn.Module, then: str = "none") -> FusedLinear:
        return cls(cast(Tensor, linear.weight), cast("Tensor | None", linear.bias), then)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        weight: Tensor = self.weight
        if ONEDNN_PACKS and is_plain(weight):
            if self._packed is None:
                self._packed = _packed(weight)
            weight = self._packed
        if plus is None:
            return linear(x, weight, self.bias, self.then)
        return linear_plus(x, plus, weight, self.bias)


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
        blocks = self.blocks(len(rows))
        if blocks <= 1 or x.device.type != "cpu":
            return self._rows(rows, added).view_as(x)
        out = torch.empty_like(added)
        for block, *inputs in zip(*(t.chunk(blocks) for t in (out, rows, added)), strict=True):
            block.copy_(self._rows(*inputs))
        return out.view_as(x)

    def blocks(self, rows: int) -> int:
        """How many blocks so many rows make whose hidden values take `HIDDEN_BYTES` at most."""
        weight = self.widen.weight
        return -(-rows * weight.element_size() * len(weight) // HIDDEN_BYTES)

    def _rows(self, x: Tensor, plus: Tensor) -> Tensor:
        y = x if self.norm is None else self.norm(x)
        return self.narrow(self.widen(y), plus)  # type: ignore[no-any-return]
