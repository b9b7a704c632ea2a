"""Exponential moving average of a model's weights: the weights that are evaluated and shipped."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """A shadow copy that follows a model.

    Early on it follows faster, min(decay, (1 + n) / (10 + n)) after n updates, so that the random
    start is forgotten.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards `model`, batch statistics included; other buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        shadow: list[Tensor] = list(self.model.parameters())
        latest: list[Tensor] = list(model.parameters())
        torch._foreach_mul_(shadow, decay)
        torch._foreach_add_(shadow, latest, alpha=1 - decay)
        for ours, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - decay)
            else:
                ours.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"updates": self.updates, **self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        rest = dict(state)
        updates = rest.pop("updates")
        assert isinstance(updates, int)
        self.updates = updates
        self.model.load_state_dict(rest)
