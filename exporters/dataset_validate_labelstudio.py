"""Rules of Label Studio JSON: tasks whose regions the editor can show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgetam_label.backend.brush import decode_brush
from edgetam_label.errors import UsageError

from .dataset_findings import WARNING, Finding, files, folders, is_id, is_number
from .dataset_json import read_items

RULES = {
    "labelstudio.layout": "a .json file with a list of tasks is there",
    "labelstudio.task": "a task has data, and annotations or predictions as lists of results",
    "labelstudio.region": "a region has id, type, from_name, to_name and value",
    "labelstudio.ids": "region ids are unique in their annotation, but for labels of one region",
    "labelstudio.labels": "a region has a label",
    "labelstudio.video": "a video rectangle has framesCount, duration and a sequence",
    "labelstudio.keyframe": "a keyframe has frame, time, rotation, enabled, x, y, width and height",
    "labelstudio.frames": "frames are from 1 to framesCount, rising",
    "labelstudio.percent": "boxes and points are percent of the frame, 0 to 100",
    "labelstudio.brush": "a brush has rle-pack bytes of original_width x original_height",
    "labelstudio.polygon": "a polygon has three points or more",
}
_KEYFRAME = ("time", "rotation", "x", "y", "width", "height")


def check(folder: Path) -> Iterator[Finding]:
    paths = [path for place in (folder, *folders(folder)) for path in files(place, ".json")]
    tasks = 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name == "manifest.json":
            continue
        for item in read_items(path):
            if item.key or item.index == -1:
                continue
            tasks += 1
            yield from _check_task(f"{name}, line {item.line}, task {item.index}", item.value)
    if not tasks:
        yield Finding("labelstudio.layout", ".", "holds no .json file with a list of tasks")


def _check_task(where: str, task: Any) -> Iterator[Finding]:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict) or not task["data"]:
        yield Finding("labelstudio.task", where, "has no data")
        return
    for kind in ("annotations", "predictions"):
        entries = task.get(kind) or []
        if not isinstance(entries, list):
            yield Finding("labelstudio.task", where, f"has {kind} that are not a list")
            continue
        for number, entry in enumerate(entries):
            at = f"{where}, {kind}[{number}]"
            if not isinstance(entry, dict) or not isinstance(entry.get("result"), list):
                yield Finding("labelstudio.task", at, "has no list of results")
                continue
            yield from _check_results(at, entry["result"])


def _check_results(at: str, results: list[Any]) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for region in results:
        if not isinstance(region, dict):
            yield Finding("labelstudio.region", at, "holds a result that is not an object")
            continue
        where = f"{at}, region {region.get('id')!r}"
        if region.get("type") in ("relation", "choices", "textarea", "rating", "number"):
            continue
        missing = [
            key
            for key, kind in (("id", str), ("type", str), ("from_name", str), ("to_name", str))
            if not isinstance(region.get(key), kind) or not region[key]
        ]
        value = region.get("value")
        if missing or not isinstance(value, dict):
            yield Finding("labelstudio.region", where, f"lacks {', '.join(missing) or 'value'}")
            continue
        key = region["id"], region["type"]
        if key in seen:
            yield Finding("labelstudio.ids", where, "is used by two regions of one type")
        seen.add(key)
        labels = value.get(region["type"]) or value.get("labels")
        if not isinstance(labels, list) or not labels:
            yield Finding("labelstudio.labels", where, "has no label", WARNING)
        if region["type"] == "videorectangle" or "sequence" in value:
            yield from _check_video(where, value)
        elif "rle" in value:
            yield from _check_brush(where, region)
        elif "points" in value:
            yield from _check_polygon(where, value["points"])
        elif "width" in value:
            yield from _check_box(where, value)


def _check_video(where: str, value: dict[str, Any]) -> Iterator[Finding]:
    count, duration, sequence = (value.get(k) for k in ("framesCount", "duration", "sequence"))
    if not is_id(count) or not is_number(duration) or not isinstance(sequence, list):
        yield Finding(
            "labelstudio.video",
            where,
            f"has framesCount {count!r}, duration {duration!r}; want numbers and a sequence",
        )
        return
    if not sequence:
        yield Finding("labelstudio.video", where, "has no keyframe")
    last = 0
    for keyframe in sequence:
        frame = keyframe.get("frame") if isinstance(keyframe, dict) else None
        at = f"{where}, frame {frame}"
        if not is_id(frame) or frame > count:
            yield Finding("labelstudio.frames", at, f"want a frame from 1 to {count}")
            continue
        if frame <= last:
            yield Finding("labelstudio.frames", at, f"comes after frame {last}")
        last = frame
        lacking = [key for key in _KEYFRAME if not is_number(keyframe.get(key))]
        if not isinstance(keyframe.get("enabled"), bool):
            lacking.append("enabled")
        if lacking:
            yield Finding(
                "labelstudio.keyframe",
                at,
                f"lacks {', '.join(lacking)}; Label Studio's own export fails without",
            )
        else:
            yield from _check_box(at, keyframe)


def _check_box(where: str, box: dict[str, Any]) -> Iterator[Finding]:
    values = [box.get(key) for key in ("x", "y", "width", "height")]
    if not all(map(is_number, values)):
        yield Finding("labelstudio.percent", where, f"has a box {values} of no numbers")
        return
    x, y, width, height = (float(v or 0) for v in values)
    # Rounding may carry an edge a hair beyond the frame.
    if width <= 0 or height <= 0 or min(x, y) < -1e-3 or max(x + width, y + height) > 100.001:
        yield Finding("labelstudio.percent", where, f"has a box {values} outside 0 to 100 percent")


def _check_brush(where: str, region: dict[str, Any]) -> Iterator[Finding]:
    width, height = region.get("original_width"), region.get("original_height")
    if region["value"].get("format") != "rle" or not is_id(width) or not is_id(height):
        yield Finding(
            "labelstudio.brush", where, "wants format rle, original_width and original_height"
        )
        return
    try:
        if not decode_brush(region["value"].get("rle"), height, width).any():
            yield Finding("labelstudio.brush", where, "is empty", WARNING)
    except UsageError as error:
        yield Finding("labelstudio.brush", where, str(error))


def _check_polygon(where: str, points: Any) -> Iterator[Finding]:
    if not isinstance(points, list) or len(points) < 3:
        yield Finding("labelstudio.polygon", where, "has fewer than three points")
        return
    for point in points:
        if (
            not isinstance(point, list)
            or len(point) != 2
            or not all(map(is_number, point))
            or not all(-1e-3 <= v <= 100.001 for v in point)
        ):
            yield Finding("labelstudio.percent", where, f"has a point {point} outside 0 to 100")
            return
