"""What a training run does, as values: stages, batch sizes, rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, pi

from edgetam_label.errors import UsageError
from edgetam_label.training.losses import LossWeights


@dataclass(frozen=True)
class Stage:
    """One stage of a run: `stills` teaches prompts, `clips` teaches memory as well.

    Its length is `steps`, or `minutes` of training time where the hardware's speed is unknown
    (a run by minutes cannot be repeated bit by bit; a run by steps can).
    rate: peak learning rate. final: the share of it that is left at the end of the cosine.
    frames: clip length at the start and at the end of the stage. still_share: steps that train on
    stills in between, so that prompting is not forgotten. size: side of the training images of a
    stills stage where it is not the model's own; smaller ones teach faster at first.
    """

    kind: str
    steps: int = 0
    minutes: float = 0.0
    batch: int = 8
    objects: int = 3
    rate: float = 1e-3
    final: float = 0.02
    warmup: int = 100
    frames: tuple[int, int] = (1, 1)
    still_share: float = 0.0
    size: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("stills", "clips"):
            raise UsageError(f"Unknown training stage {self.kind!r}; use 'stills' or 'clips'.")
        if (self.steps > 0) == (self.minutes > 0):
            raise UsageError(
                f"A training stage needs a length in steps or in minutes, one of them; got {self.steps} "
                f"steps and {self.minutes:g} minutes."
            )

        if self.size is not None and (self.size % 32 or self.kind != "stills"):
            raise UsageError(
                f"A stage of {self.kind} at {self.size} pixels is not possible; only stills can have a "
                "size of their own, a multiple of 32."
            )

    def progress(self, steps: int, seconds: float) -> float:
        """Share of the stage that is done, 0 to 1."""
        return min(1.0, steps / self.steps if self.steps else seconds / (60 * self.minutes))

    def learning_rate(self, steps: int, seconds: float) -> float:
        """Linear warm-up, then a cosine from `rate` to `rate * final`."""
        decay = self.final + (1 - self.final) * (1 + cos(pi * self.progress(steps, seconds))) / 2
        return self.rate * min(1.0, (steps + 1) / max(1, self.warmup)) * decay

    def clip_length(self, steps: int, seconds: float) -> int:
        """Frames per clip, growing over the first two thirds of the stage."""
        low, high = self.frames
        return low + int((high - low + 0.999) * min(1.0, 1.5 * self.progress(steps, seconds)))


@dataclass(frozen=True)
class TrainingPlan:
    """Everything but the data and the weights to start from."""

    stages: tuple[Stage, ...]
    seed: int = 0
    weight_decay: float = 0.02
    clip_gradient: float = 1.0
    ema_decay: float = 0.998
    weights: LossWeights = field(default_factory=LossWeights)
    save_every_s: float = 120.0
    validate_every_s: float = 600.0
    picture_every_s: float = 600.0
