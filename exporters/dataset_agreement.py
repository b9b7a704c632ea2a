"""`dataset agreement`: how far annotators of the same media agree, as J&F."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from edgetam_label.errors import UsageError

from .dataset_compare import ObjectScore, VideoPair, align, match_objects, pair_videos, score
from .dataset_compare import volume_ious as overlaps
from .dataset_source import Source


@dataclass(frozen=True)
class ObjectAgreement:
    """One object as two annotators have it. ids, labels: None for who has no such object.

    score: None if only one has it; it counts as J&F 0.
    """

    video: str
    ids: tuple[int | None, int | None]
    labels: tuple[str | None, str | None]
    score: ObjectScore | None

    @property
    def j_and_f(self) -> float:
        return self.score.j_and_f if self.score else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "ids": list(self.ids),
            "labels": list(self.labels),
            "score": self.score.to_json() if self.score else None,
        }


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators. videos_missing: videos that only one of them has; not in the scores."""

    first: str
    second: str
    objects: tuple[ObjectAgreement, ...]
    videos_missing: tuple[str, ...] = ()

    @property
    def j_and_f(self) -> float:
        """Mean over all objects of both; two annotators without any object agree."""
        return fmean(o.j_and_f for o in self.objects) if self.objects else 1.0

    @property
    def j(self) -> float:
        return fmean(o.score.j if o.score else 0.0 for o in self.objects) if self.objects else 1.0

    @property
    def f(self) -> float:
        return fmean(o.score.f if o.score else 0.0 for o in self.objects) if self.objects else 1.0

    @property
    def labels(self) -> float | None:
        """Share of the shared objects with the same label, None if none is shared."""
        shared = [o for o in self.objects if o.score]
        return fmean(o.labels[0] == o.labels[1] for o in shared) if shared else None

    def to_json(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "second": self.second,
            "j": round(self.j, 6),
            "f": round(self.f, 6),
            "j_and_f": round(self.j_and_f, 6),
            "labels": self.labels,
            "videos_missing": list(self.videos_missing),
            "objects": [entry.to_json() for entry in self.objects],
        }


@dataclass(frozen=True)
class Agreement:
    """Every pair of annotators."""

    pairs: tuple[PairAgreement, ...]

    @property
    def j_and_f(self) -> float:
        return fmean(pair.j_and_f for pair in self.pairs)

    def by_label(self) -> dict[str, float]:
        """Mean J&F of the objects of each label, whoever gave it."""
        values: dict[str, list[float]] = {}
        for pair in self.pairs:
            for entry in pair.objects:
                for label in {label for label in entry.labels if label is not None}:
                    values.setdefault(label, []).append(entry.j_and_f)
        return {label: fmean(found) for label, found in sorted(values.items())}

    def to_json(self) -> dict[str, Any]:
        return {
            "j_and_f": round(self.j_and_f, 6),
            "labels": {label: round(value, 6) for label, value in self.by_label().items()},
            "pairs": [pair.to_json() for pair in self.pairs],
        }


def agreement(sources: Sequence[Source], *, by_id: bool = False) -> Agreement:
    """Compare every two of the sources.

    Annotators number objects as they please, so objects are matched by the overlap of their
    masklets, best first; by_id: by their ids instead. Raises UsageError for fewer than two.
    """
    if len(sources) < 2:
        raise UsageError(
            f"Agreement needs at least two annotators, got {len(sources)}; "
            "name two sessions or dataset folders of the same media."
        )
    return Agreement(tuple(_pair(a, b, by_id) for a, b in combinations(sources, 2)))


def _pair(first: Source, second: Source, by_id: bool) -> PairAgreement:
    objects: list[ObjectAgreement] = []
    missing: list[str] = []
    for pair in pair_videos(first, second):
        if pair.first is None or pair.second is None:
            missing.append(pair.name)
        else:
            objects += _video(pair, by_id)
    if not objects and missing:
        raise UsageError(
            f"{first.title} and {second.title} share no video (only one has {missing[0]!r}); "
            "give annotations of the same media."
        )
    return PairAgreement(first.title, second.title, tuple(objects), tuple(missing))


def _video(pair: VideoPair, by_id: bool) -> list[ObjectAgreement]:
    assert pair.first is not None and pair.second is not None
    aligned = align(pair.first, pair.second)
    ours = {obj_id: masks for obj_id, masks in aligned.first.items() if masks}
    theirs = {obj_id: masks for obj_id, masks in aligned.second.items() if masks}
    labels = pair.first.labels(), pair.second.labels()
    if by_id:
        matched = {obj_id: obj_id for obj_id in ours if obj_id in theirs}
    else:
        matched = match_objects(overlaps(ours, theirs))
    found = [
        ObjectAgreement(
            pair.name,
            (a, matched.get(a)),
            (labels[0].get(a, "?"), labels[1].get(matched[a], "?") if a in matched else None),
            score(ours[a], theirs[matched[a]], aligned.frames) if a in matched else None,
        )
        for a in sorted(ours)
    ]
    return found + [
        ObjectAgreement(pair.name, (None, b), (None, labels[1].get(b, "?")), None)
        for b in sorted(set(theirs) - set(matched.values()))
    ]
