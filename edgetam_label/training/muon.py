"""Muon for the matrices of a network, AdamW for everything else.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a
weight matrix by the nearest orthogonal matrix, so that rare directions move as far as common ones.
The updates are scaled to the size of AdamW's (Liu et al., arXiv 2502.16982), which lets both share
one learning rate. torch.optim.Muon refuses convolutions, which are most of the trunk's matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from edgetam_label.training.mixed_precision import product_dtype
from edgetam_label.training.parallel import Ranks

MOMENTUM = 0.95
ITERATIONS = 5
# Matrices with a side below this are left to AdamW: there is nothing to orthogonalise.
MIN_SIDE = 16
# Root mean square of an update of AdamW, for which the learning rates of the field are made.
RMS = 0.2


def orthogonalise(matrices: Tensor) -> Tensor:
    """Every (m, n) matrix of (B, m, n) with its singular values moved to about 1.

    Five steps of a quintic Newton-Schulz iteration whose coefficients make small values grow fast;
    they end between 0.7 and 1.2, which is all that Muon needs.
    """
    x = matrices.to(product_dtype(matrices.device))
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x if wide else x.mT).to(matrices.dtype)


def is_matrix(module: nn.Module, name: str, parameter: Tensor) -> bool:
    """Whether Muon moves `module.name`: weights of linear layers and dense convolutions."""
    if name != "weight" or not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        return False
    if not isinstance(module, nn.Linear) and module.groups > 1:
        return False
    return min(parameter.flatten(1).shape) >= MIN_SIDE


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions; further dimensions count as columns."""

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float = 1e-3, ranks: Ranks | None = None
    ) -> None:
        """ranks: processes with equal gradients, each of which orthogonalises a share of them."""
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self.ranks = ranks or Ranks()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                ahead = parameter.grad.lerp(momentum, MOMENTUM).flatten(1)
                by_shape[tuple(ahead.shape)].append((parameter, ahead))
            stacks = [torch.stack([ahead for _, ahead in pairs]) for pairs in by_shape.values()]
            updates = self._orthogonalised(stacks)
            for (shape, pairs), stack in zip(by_shape.items(), updates, strict=True):
                scale = -group["lr"] * RMS * max(shape) ** 0.5
                for (parameter, _), update in zip(pairs, stack, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=scale)

    def _orthogonalised(self, stacks: list[Tensor]) -> list[Tensor]:
        """Each process does every so-manieth matrix of every stack; a sum brings them together."""
        rank, size = self.ranks.rank, self.ranks.size
        if size == 1 or not stacks:
            return [orthogonalise(stack) for stack in stacks]
        mine = [torch.zeros_like(stack) for stack in stacks]
        for i, (stack, out) in enumerate(zip(stacks, mine, strict=True)):
            own = (rank + i) % size  # so that what does not divide evenly is not always the first's
            if own < len(stack):
                out[own::size] = orthogonalise(stack[own::size])
        flat = self.ranks.total(torch.cat([out.flatten() for out in mine]))
        parts = flat.split([stack.numel() for stack in stacks])
        return [part.view_as(stack) for part, stack in zip(parts, stacks, strict=True)]


class MuonAndAdamW:
    """Two optimizers that are used like one."""

    def __init__(self, muon: Muon, adamw: torch.optim.AdamW) -> None:
        self.muon, self.adamw = muon, adamw

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.muon.param_groups + self.adamw.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def step(self) -> None:
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError or ValueError if `state` is not of the same parameters."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
