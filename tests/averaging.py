"""Work for two training processes; a module of its own, since they find it by name."""

from __future__ import annotations

from pathlib import Path

import torch

from edgetam_label.errors import CheckpointError
from edgetam_label.training.muon import Muon
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


SHAPES = ((16, 24), (24, 16), (16, 24), (32, 32), (16, 24))


def moved_weights(ranks: Ranks) -> list[torch.Tensor]:
    """Weights after three steps of Muon whose gradients are the same in every process."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = Muon([{"params": weights, "weight_decay": 0.1}], lr=0.01, ranks=ranks)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(weight.shape)
        optimizer.step()
    return [weight.detach() for weight in weights]


class SharedMuon:
    """What each process does in tests/test_muon.py; picklable."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __call__(self, ranks: Ranks) -> None:
        torch.save(moved_weights(ranks), self.out / f"{ranks.rank}.pt")
        ranks.wait()
