"""`run_evaluation`: a protocol, a model or a baseline, a dataset, one result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgetam_label.errors import UsageError
from edgetam_label.evaluation.baselines import carry_by_flow
from edgetam_label.evaluation.click_protocol import (
    ClickIou,
    clicks_of_grabcut,
    clicks_of_model,
    run_clicks,
)
from edgetam_label.evaluation.datasets import TrueVideo, open_dataset
from edgetam_label.evaluation.scoring import EvaluationResult, SequenceScore
from edgetam_label.evaluation.video_protocols import carry_by_model, run_pvs, run_vos
from edgetam_label.modeling.edgetam import EdgeTAM

PROTOCOLS = ("vos", "pvs", "clicks")
BASELINES = {"flow": "vos", "grabcut": "clicks"}

Progress = Callable[[int, int], None]


def run_evaluation(
    dataset: str | Path | Sequence[TrueVideo],
    protocol: str,
    *,
    model: EdgeTAM | None = None,
    baseline: str | None = None,
    split: str | None = None,
    out: Path | None = None,
    stride: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Measure `model` or `baseline` (one of them) on a dataset.

    protocol: "vos" (J, F, J&F of first masks carried on), "pvs" (J&F against clicked frames),
        "clicks" (mIoU of 1 to 5 clicks and of a box).
    out: folder for the predictions of `vos`. stride: `clicks` measures every stride-th annotated
    frame; by default the first one of each video. limit: only so many videos.
    progress: called with (videos done, videos in all).
    Raises UsageError for an impossible combination or an unknown dataset layout.
    """
    check_subject(protocol, baseline)
    if (model is None) == (baseline is None):
        raise UsageError("Evaluate either a model or a baseline, one of them.")
    videos = (
        open_dataset(dataset, split=split, limit=limit)
        if isinstance(dataset, (str, Path))
        else list(dataset)[:limit]
    )
    subject = baseline or (model.config.name if model is not None else "")
    started = time.monotonic()

    def count(done: int) -> None:
        if progress is not None:
            progress(done, len(videos))

    if protocol == "vos":
        result = _vos(videos, subject, model, out, count)
    elif protocol == "pvs":
        assert model is not None
        result = _pvs(videos, subject, model, count)
    else:
        result = _clicks(videos, subject, model, stride, count)
    return EvaluationResult(**{**vars(result), "seconds": time.monotonic() - started})


def check_subject(protocol: str, baseline: str | None) -> None:
    """Raise UsageError for an unknown protocol, or a baseline that does not go with it."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"Protocol {protocol!r} is unknown; use {', '.join(PROTOCOLS)}.")
    if baseline is not None and BASELINES.get(baseline) != protocol:
        known = ", ".join(f"{name} with --protocol {p}" for name, p in BASELINES.items())
        raise UsageError(
            f"Baseline {baseline!r} does not go with protocol {protocol}; there is {known}."
        )


def _vos(
    videos: Sequence[TrueVideo],
    subject: str,
    model: EdgeTAM | None,
    out: Path | None,
    count: Callable[[int], None],
) -> EvaluationResult:
    carry = carry_by_flow if model is None else carry_by_model(model)
    sequences: list[SequenceScore] = []
    frames = 0
    for done, video in enumerate(videos, start=1):
        score, tracked = run_vos(video, carry, out)
        if score.objects:
            sequences.append(score)
        frames += tracked
        count(done)
    if not sequences:
        raise UsageError("No object of this dataset has a frame to measure after its first one.")
    objects = sum(len(s.objects) for s in sequences)
    return EvaluationResult("vos", subject, tuple(sequences), num_objects=objects, frames=frames)


def _pvs(
    videos: Sequence[TrueVideo], subject: str, model: EdgeTAM, count: Callable[[int], None]
) -> EvaluationResult:
    curves: dict[str, list[list[float]]] = {"offline": [], "online": []}
    sequences: list[SequenceScore] = []
    frames = 0
    for done, video in enumerate(videos, start=1):
        for name, rows in curves.items():
            score, more, tracked = run_pvs(video, model, online=name == "online")
            rows += more
            frames += tracked
            if name == "offline":
                sequences.append(score)
        count(done)
    means = {k: tuple(float(v) for v in np.mean(rows, axis=0)) for k, rows in curves.items()}
    objects = len(curves["offline"])
    return EvaluationResult("pvs", subject, tuple(sequences), means, {}, objects, frames)


def _clicks(
    videos: Sequence[TrueVideo],
    subject: str,
    model: EdgeTAM | None,
    stride: int | None,
    count: Callable[[int], None],
) -> EvaluationResult:
    measure = clicks_of_grabcut if model is None else clicks_of_model(model)
    results: list[ClickIou] = []
    frames = 0
    for done, video in enumerate(videos, start=1):
        step = stride or max(1, len(video.annotated))
        found, images = run_clicks(video, measure, step)
        results, frames = results + found, frames + images
        count(done)
    if not results:
        raise UsageError("This dataset has no object large enough to click on.")
    by_clicks = np.mean([r.by_clicks for r in results], axis=0)
    mean_iou = {
        f"{i} click{'s' if i > 1 else ''}": float(v) for i, v in enumerate(by_clicks, start=1)
    }
    mean_iou["box"] = float(np.mean([r.by_box for r in results]))
    return EvaluationResult(
        "clicks", subject, mean_iou=mean_iou, num_objects=len(results), frames=frames
    )
