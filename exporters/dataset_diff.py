"""`dataset diff A B`: what changed between two versions of a dataset, object by object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgetam_label.errors import UsageError

from .dataset_compare import (
    SAME_OBJECT_IOU,
    AlignedMasks,
    ObjectScore,
    VideoPair,
    align,
    frame_ious,
    pair_videos,
    ranges,
    score,
)
from .dataset_source import Source


@dataclass(frozen=True)
class Swap:
    """On these frames the object of A is the one that B calls `other_id`."""

    other_id: int
    frames: str
    count: int


@dataclass(frozen=True)
class ObjectDiff:
    """One object id. labels: in A and B, None where the id is absent. score: None if so."""

    obj_id: int
    labels: tuple[str | None, str | None]
    score: ObjectScore | None
    swaps: tuple[Swap, ...] = ()

    @property
    def state(self) -> str:
        """lost, new, swapped, relabelled, changed or same: the gravest that holds."""
        if self.labels[1] is None:
            return "lost"
        if self.labels[0] is None:
            return "new"
        if self.swaps:
            return "swapped"
        if self.labels[0] != self.labels[1]:
            return "relabelled"
        assert self.score is not None
        return "same" if self.score.iou == 1 else "changed"

    def differs(self, tolerance: float) -> bool:
        if self.state == "changed":
            assert self.score is not None
            return 1 - self.score.j_and_f > tolerance
        return self.state != "same"

    def to_json(self) -> dict[str, Any]:
        return {
            "obj_id": self.obj_id,
            "state": self.state,
            "labels": list(self.labels),
            "score": self.score.to_json() if self.score else None,
            "swaps": [vars(swap) for swap in self.swaps],
        }


@dataclass(frozen=True)
class VideoDiff:
    """state: both, lost (only in A), new (only in B) or resized (frames of another size)."""

    name: str
    state: str
    note: str = ""
    objects: tuple[ObjectDiff, ...] = ()

    def differs(self, tolerance: float) -> bool:
        return self.state != "both" or any(entry.differs(tolerance) for entry in self.objects)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "note": self.note,
            "objects": [entry.to_json() for entry in self.objects],
        }


@dataclass(frozen=True)
class DatasetDiff:
    """tolerance: an object may lose this much J&F and still count as unchanged."""

    first: str
    second: str
    tolerance: float
    videos: tuple[VideoDiff, ...]

    @property
    def differs(self) -> bool:
        return any(video.differs(self.tolerance) for video in self.videos)

    def counts(self) -> dict[str, int]:
        """Objects by state, over all videos."""
        total: dict[str, int] = {}
        for video in self.videos:
            for entry in video.objects:
                total[entry.state] = total.get(entry.state, 0) + 1
        return dict(sorted(total.items()))

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "second": self.second,
            "tolerance": self.tolerance,
            "differs": self.differs,
            "objects": self.counts(),
            "videos": [video.to_json() for video in self.videos],
        }


def diff(first: Source, second: Source, *, tolerance: float = 0.0) -> DatasetDiff:
    """Compare two sources video by video; memory holds the run lengths of one video at a time."""
    if not 0 <= tolerance <= 1:
        raise UsageError(f"--tolerance is a loss of J&F from 0 to 1, got {tolerance:g}.")
    videos = tuple(_diff_video(pair) for pair in pair_videos(first, second))
    return DatasetDiff(first.title, second.title, tolerance, videos)


def _diff_video(pair: VideoPair) -> VideoDiff:
    if pair.first is None:
        return VideoDiff(pair.name, "new", "only in the second")
    if pair.second is None:
        return VideoDiff(pair.name, "lost", "only in the first")
    try:
        aligned = align(pair.first, pair.second)
    except UsageError as error:
        return VideoDiff(pair.name, "resized", str(error))
    labels = pair.first.labels(), pair.second.labels()
    swaps = _swaps(aligned)
    objects = []
    for obj_id in sorted({*aligned.first, *aligned.second}):
        ours, theirs = aligned.first.get(obj_id, {}), aligned.second.get(obj_id, {})
        if not ours and not theirs:
            continue  # declared, but without a pixel in both
        objects.append(
            ObjectDiff(
                obj_id,
                (
                    labels[0].get(obj_id, "?") if ours else None,
                    labels[1].get(obj_id, "?") if theirs else None,
                ),
                score(ours, theirs, aligned.frames) if ours and theirs else None,
                swaps.get(obj_id, ()),
            )
        )
    return VideoDiff(pair.name, "both", "", tuple(objects))


def _swaps(aligned: AlignedMasks) -> dict[int, tuple[Swap, ...]]:
    """Frames on which an object of A is found in B under another id and not under its own."""
    found: dict[tuple[int, int], list[str]] = {}
    for frame in sorted({i for masks in aligned.first.values() for i in masks}):
        ious = frame_ious(aligned.first, aligned.second, frame)
        for (a, b), iou in ious.items():
            if a != b and iou >= SAME_OBJECT_IOU and ious.get((a, a), 0) < SAME_OBJECT_IOU:
                found.setdefault((a, b), []).append(aligned.frames[frame])
    swaps: dict[int, tuple[Swap, ...]] = {}
    for (a, b), names in sorted(found.items()):
        swap = Swap(b, ranges(names, aligned.frames), len(names))
        swaps[a] = (*swaps.get(a, ()), swap)
    return swaps
