"""What a training run does, as values: stages, batch sizes, rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import cos, pi
from typing import Any

from edgetam_label.errors import UsageError
from edgetam_label.training.losses import LossWeights


@dataclass(frozen=True)
class Stage:
    """One stage of a run: `stills` teaches prompts, `clips` teaches memory as well.

    Its length is `steps`, or `minutes` of training time where the hardware's speed is unknown
    (a run by minutes cannot be repeated bit by bit; a run by steps can).
    rate: peak learning rate. trunk: the trunk's rate as a multiple of it. The trunk, whose
    convolutions are followed by batch norm, bears a high rate; at that rate the attention layers
    forget the prompt and answer every click with all that stands out. final: the share of the
    rate that is left at the end of the cosine.
    frames: clip length at the start and at the end of the stage. still_share: steps that train on
    stills in between, so that prompting is not forgotten. lead: clips are longer by so many frames
    at most, which come first and without gradients: a cheap look at what becomes of masks after
    a while. shrink: side of the training images
    as a share of the model's own (stills only); smaller ones teach faster at first.
    part_share: stills whose objects are parts of things (a sleeve, not the person).
    """

    kind: str
    steps: int = 0
    minutes: float = 0.0
    batch: int = 8
    objects: int = 3
    rate: float = 4e-4
    trunk: float = 3.0
    final: float = 0.02
    warmup: int = 100
    frames: tuple[int, int] = (1, 1)
    still_share: float = 0.0
    shrink: float = 1.0
    part_share: float = 0.15
    lead: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("stills", "clips"):
            raise UsageError(f"Unknown training stage {self.kind!r}; use 'stills' or 'clips'.")
        if self.batch < 1 or self.objects < 1 or not 1 <= self.frames[0] <= self.frames[1]:
            raise UsageError(
                f"A training stage needs a batch, objects and frames of at least 1, frames "
                f"ascending; got batch {self.batch}, objects {self.objects}, frames "
                f"{self.frames[0]}-{self.frames[1]}."
            )
        if self.lead < 0 or (self.lead and self.kind != "clips"):
            raise UsageError(
                f"A stage of {self.kind} cannot have a lead of {self.lead} frames; only clips have "
                "one, of 0 frames or more."
            )
        if (self.steps > 0) == (self.minutes > 0):
            raise UsageError(
                f"A training stage needs a length in steps or in minutes, one of them; got "
                f"{self.steps} steps and {self.minutes:g} minutes."
            )
        if not (0 <= self.part_share <= 1 and 0 <= self.still_share <= 1):
            raise UsageError(
                f"Shares of a training stage lie between 0 and 1; got still_share "
                f"{self.still_share:g}, part_share {self.part_share:g}."
            )
        if self.shrink != 1 and (self.kind != "stills" or not 0 < self.shrink < 1):
            raise UsageError(
                f"A stage of {self.kind} shrunk to {self.shrink:g} is not possible; only stills "
                "can be smaller than the model's own size, by a factor below 1."
            )

    def image_size(self, full: int) -> int:
        """Side of the training images: `full` shrunk, to a multiple of 32."""
        return max(32, round(full * self.shrink / 32) * 32)

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

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError(
                "There is nothing to train: all stages have a length of 0; give minutes or steps."
            )


def standard_stages(
    *,
    minutes: tuple[float, float],
    steps: tuple[int | None, int | None] = (None, None),
    rate: float = 4e-4,
    batch: int = 4,
    clips: int = 1,
) -> tuple[Stage, ...]:
    """Stills at half size, three quarters and full size, then clips that grow from 4 to 8 frames.

    minutes: of stills and of clips. steps: the same in steps, where given; a length of 0 leaves the
    stage out.
    """
    stages: list[Stage] = []
    for share, shrink, low, high in (
        (0.2, 0.5, 0.9, 1),
        (0.44, 0.75, 0.6, 0.9),
        (0.36, 1, 0.4, 0.6),
    ):
        length = _length(minutes[0] * share, None if steps[0] is None else int(steps[0] * share))
        if length is not None:
            stages.append(
                replace(length, batch=batch, rate=rate * high, final=low / high, shrink=shrink)
            )
    length = _length(minutes[1], steps[1])
    if length is not None:
        stages.append(
            replace(
                length,
                kind="clips",
                batch=clips,
                trunk=0.3,
                rate=rate,
                frames=(4, 8),
                still_share=0.3,
            )
        )
    return tuple(stages)


def _frames(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


STAGE_OPTIONS: dict[str, Callable[[str], Any]] = {
    "steps": int, "minutes": float, "batch": int, "objects": int, "rate": float, "trunk": float,
    "final": float, "warmup": int, "frames": _frames, "still_share": float, "shrink": float,
    "part_share": float, "lead": int,
}  # fmt: skip


def parse_stage(text: str) -> Stage:
    """A stage from "kind,name=value,...", for example "clips,minutes=30,batch=1,frames=4-8".

    Raises UsageError for an unknown name or a value that cannot be.
    """
    kind, *pairs = (part.strip() for part in text.split(","))
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in STAGE_OPTIONS:
            raise UsageError(
                f"Stage {text!r} has no option {name!r}; there are {', '.join(STAGE_OPTIONS)}, as "
                "in 'stills,minutes=10,batch=6'."
            )
        try:
            values[name] = STAGE_OPTIONS[name](value)
        except ValueError as error:
            raise UsageError(
                f"Stage {text!r}: {value!r} is no value for {name}; write a number, or 4-8 for "
                "frames."
            ) from error
    return Stage(kind, **values)


def _length(minutes: float, steps: int | None) -> Stage | None:
    """A stage of that length, or None if it has none."""
    if steps is None:
        return Stage("stills", minutes=minutes) if minutes > 0 else None
    return Stage("stills", steps=steps) if steps > 0 else None
