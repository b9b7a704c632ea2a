"""Rules of YouTube-VIS ground truth and results, as ytvoseval and TrackEval need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .dataset_findings import (
    WARNING,
    Finding,
    Problem,
    box_problem,
    checked_rle,
    files,
    folders,
    image_size,
    is_id,
    is_number,
)
from .dataset_json import JsonItem, load_json, read_items

RULES = {
    "ytvis.layout": "<split>/instances.json or <split>/results.json is there",
    "ytvis.sections": "ground truth has the lists videos, annotations and categories",
    "ytvis.ids": "ids are whole numbers from 1 and unique",
    "ytvis.video": "a video has width, height, length and as many file_names as length",
    "ytvis.references": "video_id and category_id exist",
    "ytvis.lengths": "segmentations, bboxes and areas have one entry per frame of the video",
    "ytvis.nulls": "a frame without the object is null in all three lists; one frame has it",
    "ytvis.rle": "a mask has the video's size and covers all its pixels",
    "ytvis.uncompressed": "ground truth holds counts as lists (TrackEval fails on strings)",
    "ytvis.compressed": "results hold counts as strings",
    "ytvis.area": "an area is that of its mask",
    "ytvis.bbox": "a bbox is [x, y, width, height] of its mask, width = xmax - xmin + 1",
    "ytvis.iscrowd": "iscrowd is 0 or 1; evaluation ignores objects with 1",
    "ytvis.score": "results have a score; ground truth has none",
    "ytvis.images": "images that are there have the size that the video says",
}


@dataclass
class _Index:
    """What annotations refer to: (height, width, length) by video id."""

    name: str
    videos: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    categories: set[int] = field(default_factory=set)


def check(folder: Path) -> Iterator[Finding]:
    found = [p for split in folders(folder) for p in files(split, ".json")]
    found += [p for p in files(folder, ".json") if p.name != "manifest.json"]
    if not found:
        yield Finding("ytvis.layout", ".", "holds no <split>/instances.json or results.json")
    for path in found:
        name = path.relative_to(folder).as_posix()
        first = next(read_items(path), None)
        if first is not None and first.key == "":
            yield from _check_results(path, name)
        else:
            yield from _check_truth(path, name)


def _check_truth(path: Path, name: str) -> Iterator[Finding]:
    index = _Index(name)
    sections: set[str] = set()
    ids: dict[str, set[int]] = {}
    for item in read_items(path):
        sections.add(item.key)
        if item.key not in ("videos", "annotations", "categories") or item.index == -1:
            continue
        where = _at(name, item)
        if not isinstance(item.value, dict):
            yield Finding("ytvis.sections", where, f"{item.key} must be a list of objects")
            continue
        number = item.value.get("id")
        if not is_id(number) or number in ids.setdefault(item.key, set()):
            yield Finding("ytvis.ids", where, f"has id {number!r}, want a number from 1, once")
            continue
        ids[item.key].add(number)
        if item.key == "categories":
            index.categories.add(number)
        elif item.key == "videos":
            yield from _check_video(path, index, item.value, where)
    for section in ("videos", "annotations", "categories"):
        if section not in sections:
            yield Finding("ytvis.sections", name, f"has no list {section}")
    for item in read_items(path):
        if item.key == "annotations" and isinstance(item.value, dict):
            where = _at(name, item)
            category, video = item.value.get("category_id"), item.value.get("video_id")
            if not is_id(category) or category not in index.categories:
                yield Finding("ytvis.references", where, f"names category_id {category!r}")
            size = index.videos.get(video) if is_id(video) else None
            if size is None:
                yield Finding("ytvis.references", where, f"names video_id {video!r}")
            else:
                yield from _check_annotation(item.value, size, where)


def _check_video(path: Path, index: _Index, video: dict[str, Any], where: str) -> Iterator[Finding]:
    height, width, length = video.get("height"), video.get("width"), video.get("length")
    names = video.get("file_names")
    if not (is_id(height) and is_id(width) and is_id(length)):
        yield Finding(
            "ytvis.video", where, f"has size {width} x {height} and length {length}, want numbers"
        )
        return
    index.videos[video["id"]] = height, width, length
    if not isinstance(names, list) or len(names) != length or len(set(map(str, names))) != length:
        count = len(names) if isinstance(names, list) else "no"
        yield Finding("ytvis.video", where, f"has length {length} but {count} different file_names")
        return
    images = path.parent / "JPEGImages"
    for name in names if images.is_dir() else ():
        file = images / str(name)
        try:
            if image_size(file) != (width, height):
                yield Finding("ytvis.images", where, f"{name} is not {width}x{height}")
        except Problem as problem:
            yield Finding("ytvis.images", where, f"{name} {problem}")


def _check_annotation(
    entry: dict[str, Any], size: tuple[int, int, int], where: str
) -> Iterator[Finding]:
    height, width, length = size
    crowd = entry.get("iscrowd")
    if crowd == 1:
        yield Finding("ytvis.iscrowd", where, "is a crowd: evaluation ignores it", WARNING)
    elif crowd != 0:
        yield Finding("ytvis.iscrowd", where, f"has iscrowd {crowd!r}, want 0 or 1")
    if "score" in entry:
        yield Finding("ytvis.score", where, "has a score, as only results have")
    lists = [entry.get(key) for key in ("segmentations", "bboxes", "areas")]
    if not all(isinstance(v, list) and len(v) == length for v in lists):
        counts = [len(v) if isinstance(v, list) else None for v in lists]
        yield Finding(
            "ytvis.lengths",
            where,
            f"has {counts} segmentations, bboxes and areas; its video has {length} frames",
        )
        return
    if all(segmentation is None for segmentation in entry["segmentations"]):
        yield Finding("ytvis.nulls", where, "is on no frame")
    for i, (segmentation, bbox, area) in enumerate(zip(*(v or () for v in lists), strict=True)):
        at = f"{where}, frame {i}"
        if (segmentation is None) != (bbox is None) or (segmentation is None) != (area is None):
            yield Finding("ytvis.nulls", at, "is null in some of the three lists, not in all")
        if segmentation is None:
            continue
        if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), str):
            yield Finding(
                "ytvis.uncompressed", at, "has counts as a string, want a list of run lengths"
            )
        try:
            rle = checked_rle(segmentation, height, width)
        except Problem as problem:
            yield Finding("ytvis.rle", at, str(problem))
            continue
        if area != rle.area or not rle.area:
            yield Finding("ytvis.area", at, f"has area {area}, its mask {rle.area} pixels")
        text = box_problem(rle, bbox)
        if text:
            yield Finding("ytvis.bbox", at, text)


def _check_results(path: Path, name: str) -> Iterator[Finding]:
    """Results stand alone; videos are checked if the ground truth lies beside them."""
    videos: dict[int, int] = {}
    truth = path.parent / "instances.json"
    if truth.is_file():
        content = load_json(truth)
        found = content.get("videos") if isinstance(content, dict) else None
        for video in found if isinstance(found, list) else ():
            if isinstance(video, dict) and is_id(video.get("id")) and is_id(video.get("length")):
                videos[video["id"]] = video["length"]
    for item in read_items(path):
        if item.index == -1:
            continue
        where = f"{name}, line {item.line}, entry {item.index}"
        entry = item.value
        if not isinstance(entry, dict):
            yield Finding("ytvis.sections", where, "is not an object")
            continue
        score = entry.get("score")
        if not is_number(score) or not 0 <= score <= 1:
            yield Finding("ytvis.score", where, f"has score {score!r}, want a number from 0 to 1")
        for key in ("video_id", "category_id"):
            if not is_id(entry.get(key)):
                yield Finding("ytvis.ids", where, f"has {key} {entry.get(key)!r}, want 1 or more")
        segmentations = entry.get("segmentations")
        if not isinstance(segmentations, list):
            yield Finding("ytvis.lengths", where, "has no list of segmentations")
            continue
        video = entry.get("video_id")
        want = videos.get(video if is_id(video) else 0, len(segmentations))
        if len(segmentations) != want:
            yield Finding(
                "ytvis.lengths", where, f"has {len(segmentations)} segmentations, want {want}"
            )
        yield from _check_result_masks(segmentations, where)


def _check_result_masks(segmentations: list[Any], where: str) -> Iterator[Finding]:
    size: Any = None
    for i, segmentation in enumerate(segmentations):
        if segmentation is None:
            continue
        at = f"{where}, frame {i}"
        if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list):
            yield Finding("ytvis.compressed", at, "has counts as a list, want a string")
        given = segmentation.get("size") if isinstance(segmentation, dict) else None
        size = size or given
        try:
            if not isinstance(size, list) or len(size) != 2 or not all(map(is_id, size)):
                raise Problem(f"has size {size}, want [height, width]")
            checked_rle(segmentation, size[0], size[1])
        except Problem as problem:
            yield Finding("ytvis.rle", at, str(problem))


def _at(name: str, item: JsonItem) -> str:
    number = item.value.get("id") if isinstance(item.value, dict) else None
    return f"{name}, line {item.line}, {item.key} id {number}"
