"""`dataset stats`: how many objects, frames and masks, how large, with which gaps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgetam_label.session_types import FrameMask

from .dataset_source import Source, SourceVideo

_GRID = 32  # cells per side of the map of object centres


@dataclass
class Spread:
    """Count, mean, least and largest of a stream of numbers, and a histogram by powers of two."""

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    largest: float = -math.inf
    by_power: dict[int, int] = field(default_factory=dict)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least, self.largest = min(self.least, value), max(self.largest, value)
        power = int(value).bit_length()
        self.by_power[power] = self.by_power.get(power, 0) + 1

    def to_json(self) -> dict[str, Any]:
        if not self.count:
            return {"count": 0}
        return {
            "count": self.count,
            "mean": round(self.total / self.count, 3),
            "min": self.least,
            "max": self.largest,
        }


@dataclass
class ObjectStats:
    """One object. first, last: positions of its first and last mask. gaps: absent spans between."""

    video: str
    obj_id: int
    label: str
    masks: int = 0
    first: int | None = None
    last: int | None = None
    gaps: tuple[int, ...] = ()
    area: Spread = field(default_factory=Spread)

    def to_json(self) -> dict[str, Any]:
        return {
            "video": self.video,
            "obj_id": self.obj_id,
            "label": self.label,
            "masks": self.masks,
            "first": self.first,
            "last": self.last,
            "gaps": list(self.gaps),
            "area": self.area.to_json(),
        }


@dataclass
class DatasetStats:
    """Everything that is counted; memory grows with objects, not with masks."""

    title: str
    videos: int = 0
    frames: int = 0
    frames_with_masks: int = 0
    masks: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    objects: list[ObjectStats] = field(default_factory=list)
    relative_area: Spread = field(default_factory=Spread)
    objects_per_frame: dict[int, int] = field(default_factory=dict)
    centres: list[list[int]] = field(default_factory=lambda: [[0] * _GRID for _ in range(_GRID)])

    def by_category(self) -> dict[str, dict[str, Any]]:
        """{label: counts} by label."""
        table: dict[str, dict[str, Any]] = {}
        areas: dict[str, Spread] = {}
        for entry in self.objects:
            row = table.setdefault(
                entry.label, {"objects": 0, "masks": 0, "gaps": 0, "gap_frames": 0}
            )
            row["objects"] += 1
            row["masks"] += entry.masks
            row["gaps"] += len(entry.gaps)
            row["gap_frames"] += sum(entry.gaps)
            area = areas.setdefault(entry.label, Spread())
            area.count += entry.area.count
            area.total += entry.area.total
            area.least = min(area.least, entry.area.least)
            area.largest = max(area.largest, entry.area.largest)
        for label, row in table.items():
            row["area"] = areas[label].to_json()
        return dict(sorted(table.items()))

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.title,
            "videos": self.videos,
            "frames": self.frames,
            "frames_with_masks": self.frames_with_masks,
            "masks": self.masks,
            "sizes": dict(sorted(self.sizes.items())),
            "objects_per_frame": {str(k): v for k, v in sorted(self.objects_per_frame.items())},
            "categories": self.by_category(),
            "objects": [entry.to_json() for entry in self.objects],
        }


def dataset_stats(source: Source) -> DatasetStats:
    """Count a whole source in one pass."""
    stats = DatasetStats(source.title)
    for video in source.videos():
        _add_video(stats, video, source.keeps_ids)
    return stats


def _add_video(stats: DatasetStats, video: SourceVideo, keeps_ids: bool) -> None:
    stats.videos += 1
    stats.frames += video.num_frames
    size = f"{video.width}x{video.height}"
    stats.sizes[size] = stats.sizes.get(size, 0) + 1
    entries = {
        item.obj_id: ObjectStats(video.name, item.obj_id, item.label) for item in video.objects
    }
    seen: dict[int, list[int]] = {}
    on_frame: dict[int, int] = {}
    for mask in video.masks():
        if mask.status == "absent" or not mask.rle.area:
            continue
        entry = entries.setdefault(mask.obj_id, ObjectStats(video.name, mask.obj_id, "?"))
        seen.setdefault(mask.obj_id, []).append(mask.frame_idx)
        on_frame[mask.frame_idx] = on_frame.get(mask.frame_idx, 0) + 1
        entry.area.add(mask.rle.area)
        stats.masks += 1
        # A thousandth of the frame is 1 here, so that the powers of two spread over small shares.
        stats.relative_area.add(mask.rle.area / (video.width * video.height) * 1000)
        _add_centre(stats.centres, mask, video)
    stats.frames_with_masks += len(on_frame)
    for count in on_frame.values():
        stats.objects_per_frame[count] = stats.objects_per_frame.get(count, 0) + 1
    empty = video.num_frames - len(on_frame)
    if empty:
        stats.objects_per_frame[0] = stats.objects_per_frame.get(0, 0) + empty
    for obj_id, entry in sorted(entries.items()):
        frames = sorted(seen.get(obj_id, ()))
        entry.masks = len(frames)
        if frames:
            entry.first, entry.last, entry.gaps = frames[0], frames[-1], gaps_of(frames)
        if frames or keeps_ids:  # a class that a video does not show is no object of it
            stats.objects.append(entry)


def gaps_of(frames: Iterable[int]) -> tuple[int, ...]:
    """Lengths of the holes in ascending frame indices: 3 4 7 → (2,)."""
    ordered = list(frames)
    return tuple(b - a - 1 for a, b in zip(ordered, ordered[1:], strict=False) if b - a > 1)


def _add_centre(centres: list[list[int]], mask: FrameMask, video: SourceVideo) -> None:
    box = mask.rle.box
    if box is not None:
        column = int((box[0] + box[2]) / 2 / video.width * _GRID)
        row = int((box[1] + box[3]) / 2 / video.height * _GRID)
        centres[min(row, _GRID - 1)][min(column, _GRID - 1)] += 1
