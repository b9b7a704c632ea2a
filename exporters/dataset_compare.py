"""Two sources side by side: which videos, frames and objects belong together, and how alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from edgetam_label.errors import UsageError
from edgetam_label.evaluation.metrics import contour_accuracy
from edgetam_label.masks import RLE

from .dataset_source import ObjectMasks, Source, SourceVideo

SAME_OBJECT_IOU = 0.5  # two masks of one frame show the same object from here on
_WORST_FRAMES = 5


@dataclass(frozen=True)
class VideoPair:
    """first or second is None where the other source lacks the video."""

    name: str
    first: SourceVideo | None
    second: SourceVideo | None


@dataclass(frozen=True)
class AlignedMasks:
    """The masks of one video from both sources on common frame names, in order."""

    frames: tuple[str, ...]
    first: ObjectMasks
    second: ObjectMasks


@dataclass(frozen=True)
class ObjectScore:
    """Agreement of two masklets over the frames on which at least one has pixels.

    j, f: means over these frames. iou: of both masklets as volumes. worst: (frame, J&F), lowest
    first, only where it is below 1.
    """

    j: float
    f: float
    iou: float
    frames: int
    worst: tuple[tuple[str, float], ...]

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2

    def to_json(self) -> dict[str, Any]:
        return {
            "j": round(self.j, 6),
            "f": round(self.f, 6),
            "j_and_f": round(self.j_and_f, 6),
            "iou": round(self.iou, 6),
            "frames": self.frames,
            "worst_frames": [{"frame": name, "j_and_f": round(v, 6)} for name, v in self.worst],
        }


def pair_videos(first: Source, second: Source) -> list[VideoPair]:
    """Videos by name; two sources of one video each are paired whatever their names.

    Raises UsageError if only one of them has object identities.
    """
    if first.keeps_ids != second.keeps_ids:
        without = second.title if first.keeps_ids else first.title
        raise UsageError(
            f"{without} has labels without object identities (YOLO), the other has objects; "
            "compare it with another YOLO dataset."
        )
    ours, theirs = _by_name(first), _by_name(second)
    if len(ours) == len(theirs) == 1:
        (name,), (other,) = ours, theirs
        return [VideoPair(name, ours[name], theirs[other])]
    return [VideoPair(name, ours.get(name), theirs.get(name)) for name in sorted({*ours, *theirs})]


def align(first: SourceVideo, second: SourceVideo) -> AlignedMasks:
    """Both videos' masks on common frames: by frame name, or by number if no name is shared.

    Frames that only one source has count with no masks in the other. Raises UsageError if the
    frames differ in size: resized masks would be measured, not annotated ones.
    """
    if (first.height, first.width) != (second.height, second.width):
        raise UsageError(
            f"Video {first.name!r} is {first.width}x{first.height} in one and "
            f"{second.width}x{second.height} in the other; compare datasets of equal size."
        )
    if set(first.stems) & set(second.stems):
        ours, theirs = first.stems, second.stems
        order = list(dict.fromkeys([*ours, *theirs]))
    else:
        ours = tuple(f"{number:05d}" for number in first.numbers)
        theirs = tuple(f"{number:05d}" for number in second.numbers)
        order = sorted({*ours, *theirs})
    position = {name: i for i, name in enumerate(order)}
    return AlignedMasks(
        tuple(order),
        _moved(first.masks_by_object(), [position[name] for name in ours]),
        _moved(second.masks_by_object(), [position[name] for name in theirs]),
    )


def score(
    first: Mapping[int, RLE], second: Mapping[int, RLE], frames: tuple[str, ...]
) -> ObjectScore:
    """J and F of two masklets given by frame position (Perazzi et al., CVPR 2016).

    Frames on which neither has pixels are left out: counted as perfect, as the benchmark does,
    they would hide the others where objects are seen seldom.
    """
    values: list[tuple[float, float, int]] = []
    common = total = 0
    for i in sorted({*first, *second}):
        a, b = first.get(i), second.get(i)
        j, f = frame_score(a, b)
        values.append((j, f, i))
        areas = (a.area if a else 0) + (b.area if b else 0)
        overlap = round(j * areas / (1 + j))
        common += overlap
        total += areas - overlap
    if not values:
        return ObjectScore(1.0, 1.0, 1.0, 0, ())
    ranked = sorted(((j + f) / 2, i) for j, f, i in values if j + f < 2)
    return ObjectScore(
        float(np.mean([j for j, _, _ in values])),
        float(np.mean([f for _, f, _ in values])),
        common / total,
        len(values),
        tuple((frames[i], value) for value, i in ranked[:_WORST_FRAMES]),
    )


def frame_score(first: RLE | None, second: RLE | None) -> tuple[float, float]:
    """(J, F) of one frame; None is a mask without pixels."""
    if first is None or second is None:
        present = first or second
        if present is None:
            return 1.0, 1.0
        return 0.0, contour_accuracy(RLE.empty(*present.size).decode(), present.decode())
    if first.counts == second.counts:
        return 1.0, 1.0
    return first.iou(second), contour_accuracy(first.decode(), second.decode())


def volume_ious(first: ObjectMasks, second: ObjectMasks) -> dict[tuple[int, int], float]:
    """IoU of every pair of masklets that overlap somewhere, as volumes over all frames."""
    volume_a = {a: sum(rle.area for rle in masks.values()) for a, masks in first.items()}
    volume_b = {b: sum(rle.area for rle in masks.values()) for b, masks in second.items()}
    common: dict[tuple[int, int], int] = {}
    for frame in sorted({i for masks in first.values() for i in masks}):
        for (a, b), iou in frame_ious(first, second, frame).items():
            areas = first[a][frame].area + second[b][frame].area
            common[a, b] = common.get((a, b), 0) + round(iou * areas / (1 + iou))
    return {(a, b): n / (volume_a[a] + volume_b[b] - n) for (a, b), n in sorted(common.items())}


def frame_ious(first: ObjectMasks, second: ObjectMasks, frame: int) -> dict[tuple[int, int], float]:
    """IoU of every pair of objects that overlap on one frame."""
    ours = [a for a in sorted(first) if frame in first[a]]
    theirs = [b for b in sorted(second) if frame in second[b]]
    if not ours or not theirs:
        return {}
    table = coco_mask.iou(
        [_raw(first[a][frame]) for a in ours],
        [_raw(second[b][frame]) for b in theirs],
        [0] * len(theirs),
    )
    return {
        (a, b): float(table[i][k])
        for i, a in enumerate(ours)
        for k, b in enumerate(theirs)
        if table[i][k] > 0
    }


def match_objects(ious: Mapping[tuple[int, int], float]) -> dict[int, int]:
    """One-to-one pairs, the best first: which object of the second each of the first is."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for (a, b), _ in sorted(ious.items(), key=lambda item: (-item[1], item[0])):
        if a not in pairs and b not in taken:
            pairs[a] = b
            taken.add(b)
    return pairs


def ranges(frames: Iterable[str], order: tuple[str, ...]) -> str:
    """Frame names as ranges in the order of the video: "00003-00007, 00012"."""
    place = {name: i for i, name in enumerate(order)}
    indices = sorted(place[name] for name in frames)
    if not indices:
        return ""
    breaks = [0, *(k + 1 for k, (a, b) in enumerate(pairwise(indices)) if b != a + 1), len(indices)]
    parts = []
    for start, stop in pairwise(breaks):
        low, high = order[indices[start]], order[indices[stop - 1]]
        parts.append(low if low == high else f"{low}-{high}")
    return ", ".join(parts)


def _by_name(source: Source) -> dict[str, SourceVideo]:
    found: dict[str, SourceVideo] = {}
    for video in source.videos():
        name, number = video.name, 1
        while name in found:
            number += 1
            name = f"{video.name} ({number})"
        found[name] = video
    return found


def _moved(masks: ObjectMasks, position: list[int]) -> ObjectMasks:
    return {
        obj_id: {position[i]: rle for i, rle in by_frame.items()}
        for obj_id, by_frame in masks.items()
    }


def _raw(rle: RLE) -> dict[str, Any]:
    return {"size": list(rle.size), "counts": rle.counts}
