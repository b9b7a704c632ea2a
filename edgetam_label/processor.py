"""What the processor can do, where that decides which way is the faster one."""

from __future__ import annotations

import platform
from functools import cache


@cache
def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; torch computes it on any, four times slower."""
    import torch

    if platform.machine().lower() in ("x86_64", "amd64"):
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in tests)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
