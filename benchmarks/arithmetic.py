"""Multiply-adds of a piece of the network, counted while it runs: what it asks of the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operator name without overload → positions of its two factors among the arguments.
PRODUCTS = {
    "aten.matmul": (0, 1),
    "aten.mm": (0, 1),
    "aten.bmm": (0, 1),
    "aten.addmm": (1, 2),
    "aten.baddbmm": (1, 2),
}

CONVOLUTIONS = {
    "aten.conv2d",
    "aten.convolution",
    "mkldnn._convolution_pointwise",
    "mkldnn._convolution_pointwise_",
}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.macs += _macs(str(func), args, result)
        return result


def _macs(name: str, args: tuple[Any, ...], result: Any) -> int:
    operator = name.rpartition(".")[0]
    if operator in PRODUCTS:
        left, right = (args[i] for i in PRODUCTS[operator])
        return int(left.numel() * right.shape[-1])
    if operator == "aten.linear":
        return int(args[0].numel() * args[1].shape[0])
    if operator == "mkldnn._linear_pointwise":
        weight = args[2] if name.endswith("binary") else args[1]
        return int(args[0].numel() * weight.shape[0])
    if operator in CONVOLUTIONS:
        weight = args[2] if name.endswith("binary") else args[1]  # opaque where it is packed
        return int(result.numel() * weight.numel() // weight.shape[0])
    if operator == "aten.scaled_dot_product_attention":
        q, k, v = args[:3]
        return int(q.numel() // q.shape[-1] * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    return 0


def count_macs(work: Callable[[], Any]) -> int:
    """Multiply-adds of products, convolutions and attention in `work`, run once."""
    with torch.inference_mode(), _Counter() as counter:
        work()
    return counter.macs
