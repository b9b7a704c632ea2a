"""The review queue: frames most likely wrong first, each with its reasons.

Every signal is a severity from 0 to 1 and compares a mask with its neighbours in time, never with
a fixed idea of how objects look. Approved and prompted masks are a person's word: they are no
suspects, but they are what the neighbours are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelSession

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

Floats = NDArray[np.float64]
TRUSTED = ("approved", "prompted")
_WINDOW = 15  # frames to either side that "usual" is taken from
_PART_GRID = 160
_PART_SHARE = 0.01  # smaller parts of a mask are specks, not fragments
_LEAST = 0.15  # weaker suspicions are noise


@dataclass(frozen=True)
class Reason:
    """kind: "low score", "area jump", "fragments", "motion", "flicker" or "disagreement"."""

    kind: str
    severity: float
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "severity": round(self.severity, 4), "detail": self.detail}


@dataclass(frozen=True)
class ReviewItem:
    """A frame to look at. first, last: the run of suspect frames that it is the worst of.

    severity: 1 - product of (1 - severity) over its reasons, which are sorted, worst first.
    """

    session_id: str
    obj_id: int
    label: str
    frame_idx: int
    time: float
    first: int
    last: int
    severity: float
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "session": self.session_id,
            "obj_id": self.obj_id,
            "label": self.label,
            "frame_idx": self.frame_idx,
            "time": round(self.time, 6),
            "first": self.first,
            "last": self.last,
            "severity": round(self.severity, 4),
            "reasons": [reason.to_json() for reason in self.reasons],
        }


@dataclass(frozen=True)
class _Track:
    """One object's masks as numbers, by ascending frame; arrays of length n.

    score: nan where not known. area: 0 where the object is not seen. boxes: (n, 4), nan there.
    parts: separate parts of a mask. agreement: IoU with the other direction, nan without one.
    """

    frames: NDArray[np.int64]
    score: Floats
    area: Floats
    boxes: Floats
    parts: Floats
    agreement: Floats
    trusted: NDArray[np.bool_]


def review(
    store: SessionStore, session: LabelSession, *, against: LabelSession | None = None
) -> list[ReviewItem]:
    """Suspect frames of a session, worst first.

    against: a session on the same media with the same object ids, tracked the other way round;
    where both have a mask they are compared. Streams the masks of one object at a time.
    """
    items: list[ReviewItem] = []
    labels = {entry.obj_id: entry.label for entry in session.objects}
    masks = store.iter_masks(session.id, order="object")
    for obj_id, group in groupby(masks, key=lambda mask: mask.obj_id):
        if obj_id in labels:
            track = _measure(group, _others(store, against, obj_id))
            items += _suspects(session, obj_id, labels[obj_id], track)
    return sorted(items, key=lambda item: (-item.severity, item.frame_idx, item.obj_id))


def _others(store: SessionStore, against: LabelSession | None, obj_id: int) -> Iterator[FrameMask]:
    if against is None:
        return iter(())
    return store.iter_masks(against.id, obj_id=obj_id)


def _measure(masks: Iterable[FrameMask], others: Iterator[FrameMask]) -> _Track:
    rows: list[tuple[float, ...]] = []
    trusted: list[bool] = []
    other = next(others, None)
    for mask in masks:
        while other is not None and other.frame_idx < mask.frame_idx:
            other = next(others, None)
        agreement = math.nan
        if other is not None and other.frame_idx == mask.frame_idx:
            agreement = mask.rle.iou(other.rle) if mask.rle.size == other.rle.size else 0.0
        seen = mask.status != "absent"
        box = mask.rle.box if seen else None
        rows.append(
            (
                mask.frame_idx,
                mask.score,
                mask.rle.area if box else 0,
                *(box or (math.nan,) * 4),
                _parts(mask.rle, box) if box else 0,
                agreement,
            )
        )
        trusted.append(mask.status in TRUSTED)
    table = np.asarray(rows, dtype=np.float64)
    return _Track(
        frames=table[:, 0].astype(np.int64),
        score=table[:, 1],
        area=table[:, 2],
        boxes=table[:, 3:7],
        parts=table[:, 7],
        agreement=table[:, 8],
        trusted=np.asarray(trusted, dtype=bool),
    )


def _parts(rle: RLE, box: tuple[int, int, int, int]) -> int:
    """8-connected parts of at least a hundredth of the mask's area.

    Counted on a reduced mask: parts nearer than a 160th of the box are one, which also keeps
    hairline cracks from counting as fragments.
    """
    x0, y0, x1, y1 = box
    crop = np.ascontiguousarray(rle.decode()[y0:y1, x0:x1]).view(np.uint8) * np.uint8(255)
    scale = _PART_GRID / max(crop.shape)
    if scale < 1:
        size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(crop, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int((areas >= _PART_SHARE * areas.sum()).sum())


def _suspects(
    session: LabelSession, obj_id: int, label: str, track: _Track
) -> Iterator[ReviewItem]:
    reasons: dict[int, list[Reason]] = {}
    for signal in SIGNALS.values():
        for i, reason in signal(track):
            if not track.trusted[i] and reason.severity >= _LEAST:
                reasons.setdefault(i, []).append(reason)
    severity = {
        i: 1 - math.prod(1 - reason.severity for reason in found) for i, found in reasons.items()
    }
    for run in _runs(sorted(severity), track.frames):
        worst = max(run, key=lambda i: (severity[i], -i))
        frame = int(track.frames[worst])
        ordered = sorted(reasons[worst], key=lambda reason: (-reason.severity, reason.kind))
        yield ReviewItem(
            session.id,
            obj_id,
            label,
            frame,
            session.media.time_of(frame),
            int(track.frames[run[0]]),
            int(track.frames[run[-1]]),
            severity[worst],
            tuple(ordered),
        )


def _runs(indices: list[int], frames: NDArray[np.int64]) -> Iterator[list[int]]:
    """Suspect frames at most two apart belong together: one look judges them all."""
    run: list[int] = []
    for i in indices:
        if run and frames[i] - frames[run[-1]] > 2:
            yield run
            run = []
        run.append(i)
    if run:
        yield run


def _low_score(track: _Track) -> Iterator[tuple[int, Reason]]:
    """The model doubts the object itself (score near or below 0), or more than it usually does."""
    usual = _usual(track.score)
    for i in np.flatnonzero(~np.isnan(track.score) & (track.area > 0)).tolist():
        score = track.score[i]
        doubt = 1 / (1 + math.exp(min(60.0, max(-60.0, score))))  # 1 - sigmoid
        dip = max(0.0, usual[i] - score - 1) if not math.isnan(usual[i]) else 0.0
        severity = max(doubt, 1 - math.exp(-dip / 5))
        yield i, Reason("low score", severity, f"score {score:.1f}, usually {usual[i]:.1f}")


def _area_jump(track: _Track) -> Iterator[tuple[int, Reason]]:
    """The area changes far more from one frame to the next than it does around here."""
    steps = _pairs(track)
    change = np.full(len(track.frames), math.nan)
    change[steps] = np.abs(np.log(track.area[steps] / track.area[steps - 1]))
    usual = _usual(change)
    for i in steps.tolist():
        excess = change[i] - 3 * usual[i] - math.log(1.25)
        if excess > 0:
            factor = track.area[i] / track.area[i - 1]
            detail = f"area x{factor:.2f} since the frame before"
            yield _blamed(track, i), Reason("area jump", 1 - math.exp(-excess / 0.5), detail)


def _motion(track: _Track) -> Iterator[tuple[int, Reason]]:
    """The box leaps: its centre leaves the path of the frames around, in units of its own size."""
    steps = _pairs(track)
    centre = (track.boxes[:, :2] + track.boxes[:, 2:]) / 2
    size = np.sqrt((track.boxes[:, 2:] - track.boxes[:, :2]).prod(axis=1))
    move = np.full((len(track.frames), 2), math.nan)
    move[steps] = centre[steps] - centre[steps - 1]
    usual = np.stack([_usual(move[:, 0]), _usual(move[:, 1])], axis=1)
    leap = np.hypot(*(move - usual).T) / np.maximum(size, 8)
    for i in steps.tolist():
        excess = leap[i] - 0.35
        if excess > 0:
            pixels = math.hypot(*move[i])
            detail = f"moves {pixels:.0f} px, {leap[i]:.1f} of its size off its path"
            yield _blamed(track, i), Reason("motion", 1 - math.exp(-excess / 0.5), detail)


def _fragments(track: _Track) -> Iterator[tuple[int, Reason]]:
    """More parts than usual: pieces of something else, or the object cut in two."""
    usual = _usual(np.where(track.area > 0, track.parts, math.nan))
    for i in np.flatnonzero(track.area > 0).tolist():
        extra = track.parts[i] - max(1.0, usual[i])
        if extra > 0:
            detail = f"{track.parts[i]:.0f} parts, usually {usual[i]:.0f}"
            yield i, Reason("fragments", 1 - math.exp(-extra / 1.5), detail)


def _flicker(track: _Track) -> Iterator[tuple[int, Reason]]:
    """Seen for a moment, or gone for a moment: three frames or fewer."""
    seen = track.area > 0
    edges = np.flatnonzero(np.diff(seen.astype(np.int8))) + 1
    for start, stop in zip(edges, edges[1:], strict=False):
        length = int(track.frames[stop - 1] - track.frames[start]) + 1
        if length <= 3:
            state = "seen" if seen[start] else "gone"
            detail = f"{state} for {length} frame{'s' if length > 1 else ''} only"
            for i in range(int(start), int(stop)):
                yield i, Reason("flicker", 0.8 - 0.15 * length, detail)


def _disagreement(track: _Track) -> Iterator[tuple[int, Reason]]:
    """Tracked from the other side, the mask is another one."""
    for i in np.flatnonzero(~np.isnan(track.agreement)).tolist():
        severity = 1 - float(track.agreement[i])
        detail = f"IoU {track.agreement[i]:.2f} with the other direction"
        yield i, Reason("disagreement", severity, detail)


SIGNALS: Mapping[str, Callable[[_Track], Iterator[tuple[int, Reason]]]] = {
    "low score": _low_score,
    "area jump": _area_jump,
    "motion": _motion,
    "fragments": _fragments,
    "flicker": _flicker,
    "disagreement": _disagreement,
}


def _pairs(track: _Track) -> NDArray[np.int64]:
    """Indices i whose frame i - 1 is the frame before, the object seen on both."""
    seen = track.area > 0
    return np.flatnonzero(seen[1:] & seen[:-1] & (np.diff(track.frames) == 1)) + 1


def _blamed(track: _Track, i: int) -> int:
    """Which frame of the step i - 1 → i to look at: the one that no person has vouched for."""
    return i - 1 if track.trusted[i] else i


def _usual(values: Floats) -> Floats:
    """Median over a window around each place, nan ignored; nan where there is nothing."""
    padded = np.pad(values, _WINDOW, constant_values=math.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _WINDOW + 1)
    filled = np.where(np.isnan(windows), np.inf, windows)
    ordered = np.sort(filled, axis=1)
    count = np.isfinite(ordered).sum(axis=1)
    middle = np.maximum(count - 1, 0) // 2
    rows = np.arange(len(values))
    low, high = ordered[rows, middle], ordered[rows, np.maximum(count, 1) // 2]
    high = np.where(np.isfinite(high), high, low)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, (low + high) / 2, math.nan)
