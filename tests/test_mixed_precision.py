"""Training rounds to bfloat16 where that is faster, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from edgetam_label.training import mixed_precision


@pytest.mark.parametrize("has", [True, False])
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(mixed_precision, "has_bfloat16", lambda: has)
    cpu, expected = torch.device("cpu"), torch.bfloat16 if has else torch.float32
    assert mixed_precision.product_dtype(cpu) == expected
    assert mixed_precision.product_dtype(torch.device("cuda")) == torch.bfloat16
    with mixed_precision.autocast(cpu):
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == expected
