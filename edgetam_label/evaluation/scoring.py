"""Scores of objects, sequences and whole datasets, and the JSON that is printed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgetam_label.errors import UsageError
from edgetam_label.evaluation.datasets import Masks, TrueVideo, read_id_map
from edgetam_label.evaluation.metrics import Score, mean_score


@dataclass(frozen=True)
class SequenceScore:
    """objects: score by object id, over the frames that count."""

    name: str
    objects: dict[int, Score]

    @property
    def j(self) -> float:
        return float(np.mean([s.j for s in self.objects.values()]))

    @property
    def f(self) -> float:
        return float(np.mean([s.f for s in self.objects.values()]))


@dataclass(frozen=True)
class EvaluationResult:
    """What a protocol measured.

    subject: model or baseline. sequences: J and F per sequence (`vos`; `pvs`: after all rounds).
    curves: named series, for example J&F after 1..8 clicked frames (`pvs`), in 0..1.
    mean_iou: named mIoU (`clicks`), in 0..1. seconds: spent, frames: how many were segmented.
    """

    protocol: str
    subject: str
    sequences: tuple[SequenceScore, ...] = ()
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)
    mean_iou: dict[str, float] = field(default_factory=dict)
    num_objects: int = 0
    frames: int = 0
    seconds: float = 0.0

    @property
    def j(self) -> float:
        """Mean over all objects of all sequences, as DAVIS-2017 averages."""
        return float(np.mean([s.j for q in self.sequences for s in q.objects.values()]))

    @property
    def f(self) -> float:
        return float(np.mean([s.f for q in self.sequences for s in q.objects.values()]))

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2

    def to_json(self) -> dict[str, Any]:
        """Percentages, rounded to 4 digits; `J`, `F`, `J&F` wherever sequences were scored."""
        document: dict[str, Any] = {"protocol": self.protocol, "subject": self.subject}
        if self.sequences:
            document.update(_percentages(self.j, self.f))
        if self.mean_iou:
            document["mIoU"] = {k: _percent(v) for k, v in self.mean_iou.items()}
        if self.curves:
            document["curves"] = {k: [_percent(v) for v in c] for k, c in self.curves.items()}
        document["objects"] = self.num_objects
        document["frames"] = self.frames
        document["seconds"] = round(self.seconds, 2)
        if self.sequences:
            document["sequences"] = {
                q.name: {
                    **_percentages(q.j, q.f),
                    "objects": {str(k): _percentages(s.j, s.f) for k, s in q.objects.items()},
                }
                for q in self.sequences
            }
        return document


def scored_frames(video: TrueVideo) -> tuple[int, ...]:
    """Annotated frames that count: all but the first and the last, as DAVIS-2017 does.

    With only two annotated frames, the second one. Raises UsageError if there is but one.
    """
    if len(video.annotated) < 2:
        raise UsageError(
            f"{video.name} has true masks on {len(video.annotated)} frame only; J and F need a "
            "first frame to start from and at least one more to measure."
        )
    return video.annotated[1:-1] or video.annotated[1:]


def score_sequence(
    video: TrueVideo, predicted: Callable[[int], Masks], *, every_frame: bool = False
) -> SequenceScore:
    """J and F of each object, from its first true mask on.

    predicted: frame index -> masks by object id; a missing object counts as empty.
    every_frame: also the first and the last frame (for prompts other than masks).
    """
    frames = video.annotated if every_frame else scored_frames(video)
    ours: dict[int, list[Any]] = {}
    truth: dict[int, list[Any]] = {}
    for frame_idx in frames:
        expected, found = video.masks(frame_idx), predicted(frame_idx)
        shape = next(iter({**expected, **found}.values())).shape if expected or found else None
        for obj_id, first in video.first_seen.items():
            if first > frame_idx or shape is None:
                continue
            empty = np.zeros(shape, dtype=bool)
            truth.setdefault(obj_id, []).append(expected.get(obj_id, empty))
            ours.setdefault(obj_id, []).append(found.get(obj_id, empty))
    return SequenceScore(video.name, {k: mean_score(ours[k], truth[k]) for k in truth})


def score_folder(videos: Sequence[TrueVideo], folder: Path, subject: str) -> EvaluationResult:
    """J and F of predictions lying as indexed PNGs in folder/<video>/<frame>.png."""
    sequences = []
    for video in videos:

        def predicted(frame_idx: int, video: TrueVideo = video) -> Masks:
            path = folder / video.name / f"{video.frame_name(frame_idx)}.png"
            if not path.is_file():
                raise UsageError(
                    f"Prediction {path} is missing; write one PNG per annotated frame."
                )
            ids = read_id_map(path)
            return {k: ids == k for k in video.first_seen}

        score = score_sequence(video, predicted)
        if score.objects:
            sequences.append(score)
    if not sequences:
        raise UsageError("No object of this dataset has a frame to measure after its first one.")
    return EvaluationResult(
        "vos", subject, tuple(sequences), num_objects=sum(len(s.objects) for s in sequences)
    )


def _percent(value: float) -> float:
    return round(100 * value, 4)


def _percentages(j: float, f: float) -> dict[str, Any]:
    return {"J": _percent(j), "F": _percent(f), "J&F": _percent((j + f) / 2)}
