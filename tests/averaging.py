"""Work for two training processes; a module of its own, since they find it by name."""

from __future__ import annotations

from pathlib import Path

import torch

from edgetam_label.errors import CheckpointError
from edgetam_label.training.parallel import Ranks


class Averaging:
    """What each process does in tests/test_training.py; picklable."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, ranks: Ranks) -> None:
        model = torch.nn.Linear(2, 1, bias=False)
        unused = torch.nn.Linear(1, 1)
        both = torch.nn.ModuleList([model, unused])
        model.weight.grad = torch.full((1, 2), float(ranks.rank))
        if ranks.rank == 0:
            unused.bias.grad = torch.ones(1)
        extra = ranks.average_gradients(both, torch.tensor([ranks.rank * 4.0]))
        torch.save([model.weight.grad, unused.bias.grad, extra], self.out / f"{ranks.rank}.pt")
        ranks.wait()
        if ranks.rank == 1:
            raise CheckpointError("The file gone.pt is not there.")
