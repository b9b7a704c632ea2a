"""Rules of COCO instances and its video fields, as pycocotools and datumaro need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgetam_label.masks import RLE

from .dataset_findings import (
    WARNING,
    Finding,
    Problem,
    box_problem,
    checked_rle,
    files,
    image_size,
    is_id,
    is_number,
)
from .dataset_json import JsonItem, read_items

RULES = {
    "coco.layout": "annotations/instances_<split>.json is there",
    "coco.ascii": "the JSON is pure ASCII: several readers open it without naming an encoding",
    "coco.sections": "images, annotations and categories are lists of objects",
    "coco.ids": "ids are whole numbers from 1 and unique: 0 reads as unmatched or as no label",
    "coco.references": "image_id, category_id and video_id exist",
    "coco.image": "file_name is unique, width and height are positive",
    "coco.frame_id": "frame_id counts from 0 and is unique in its video",
    "coco.rle": "a run-length mask has the image's size and covers all its pixels",
    "coco.polygon": "a polygon has three or more points inside the image; holes cannot be told",
    "coco.area": "area is that of the mask, and not 0",
    "coco.bbox": "bbox is [x, y, width, height] of the mask, width = xmax - xmin + 1",
    "coco.iscrowd": "iscrowd is 0 or 1; evaluation ignores objects with 1",
    "coco.track": "track_id and instance_id are equal, from 1, once an image, of one category",
    "coco.files": "images that are there have the size that the JSON says",
}


@dataclass
class _Index:
    """What annotations refer to; (height, width) by image id keeps memory small."""

    name: str
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    video_of: dict[int, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    frames: set[tuple[int, int]] = field(default_factory=set)
    categories: set[int] = field(default_factory=set)
    videos: set[int] = field(default_factory=set)
    category_of: dict[tuple[int, int], int] = field(default_factory=dict)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def at(self, item: JsonItem) -> str:
        number = item.value.get("id") if isinstance(item.value, dict) else None
        return f"{self.name}, line {item.line}, {item.key} id {number}"


def check(folder: Path) -> Iterator[Finding]:
    """Findings of every annotation file, each read twice: the index first, the masks after."""
    found = list(files(folder / "annotations", ".json"))
    if not any(path.name.startswith("instances_") for path in found):
        yield Finding("coco.layout", "annotations/", "holds no instances_<split>.json")
    for path in found:
        if path.name.startswith("instances_"):
            yield from _check_file(folder, path)


def _check_file(folder: Path, path: Path) -> Iterator[Finding]:
    name = path.relative_to(folder).as_posix()
    yield from _check_ascii(path, name)
    index = _Index(name)
    sections: set[str] = set()
    ids: dict[str, set[int]] = {}
    for item in read_items(path):
        sections.add(item.key)
        if item.key not in ("images", "annotations", "categories", "videos") or item.index == -1:
            continue
        if item.index is None or not isinstance(item.value, dict):
            where = f"{name}, line {item.line}"
            yield Finding("coco.sections", where, f"{item.key} must be a list of objects")
            continue
        number = item.value.get("id")
        known = ids.setdefault(item.key, set())
        if not is_id(number):
            yield Finding("coco.ids", index.at(item), f"has id {number!r}, want 1 or more")
            continue
        if number in known:
            yield Finding("coco.ids", index.at(item), "repeats an id")
        known.add(number)
        if item.key == "images":
            yield from _check_image(folder, path, index, item)
        elif item.key == "categories":
            index.categories.add(number)
        elif item.key == "videos":
            index.videos.add(number)
    for section in ("images", "annotations", "categories"):
        if section not in sections:
            yield Finding("coco.sections", name, f"has no list {section}")
    yield from _check_videos(index)
    for item in read_items(path):
        if item.key == "annotations" and isinstance(item.value, dict):
            yield from _check_annotation(index, item)


def _check_ascii(path: Path, name: str) -> Iterator[Finding]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isascii():
                yield Finding("coco.ascii", f"{name}, line {number}", "holds bytes beyond ASCII")
                return


def _check_image(folder: Path, path: Path, index: _Index, item: JsonItem) -> Iterator[Finding]:
    image, where = item.value, index.at(item)
    file_name, height, width = image.get("file_name"), image.get("height"), image.get("width")
    if not isinstance(file_name, str) or not file_name or file_name in index.names:
        yield Finding("coco.image", where, f"has file_name {file_name!r}, want a text of its own")
    else:
        index.names.add(file_name)
    if not is_id(height) or not is_id(width):
        yield Finding("coco.image", where, f"has size {width} x {height}, want pixels")
        return
    index.sizes[image["id"]] = height, width
    if "video_id" in image:
        video, frame = image["video_id"], image.get("frame_id")
        if not is_id(video):
            yield Finding("coco.references", where, f"names video_id {video!r}, want a number")
            return
        index.video_of[image["id"]] = video
        if not is_id(frame, 0):
            yield Finding("coco.frame_id", where, f"has frame_id {frame!r}, want 0 or more")
        elif (video, frame) in index.frames:
            yield Finding("coco.frame_id", where, f"repeats frame_id {frame} of video {video}")
        else:
            index.frames.add((video, frame))
    split = path.stem.removeprefix("instances_")
    file = folder / "images" / split / str(file_name)
    if file.is_file():
        try:
            if image_size(file) != (width, height):
                found = "x".join(map(str, image_size(file)))
                yield Finding("coco.files", where, f"says {width}x{height}, its file has {found}")
        except Problem as problem:
            yield Finding("coco.files", where, f"{file_name} {problem}")
    elif (folder / "images" / split).is_dir():
        yield Finding("coco.files", where, f"{file_name} is not in images/{split}")


def _check_videos(index: _Index) -> Iterator[Finding]:
    for image, video in index.video_of.items():
        if video not in index.videos:
            where = f"{index.name}, images id {image}"
            yield Finding("coco.references", where, f"names video_id {video!r}, which is not there")


def _check_annotation(index: _Index, item: JsonItem) -> Iterator[Finding]:
    entry, where = item.value, index.at(item)
    image, category = entry.get("image_id"), entry.get("category_id")
    size = index.sizes.get(image) if is_id(image) else None
    if size is None:
        yield Finding("coco.references", where, f"names image_id {image!r}, which is not there")
        return
    if not is_id(category) or category not in index.categories:
        yield Finding(
            "coco.references", where, f"names category_id {category!r}, which is not there"
        )
    video = index.video_of.get(entry["image_id"])
    if video is not None and entry.get("video_id", video) != video:
        yield Finding(
            "coco.references",
            where,
            f"names video_id {entry['video_id']}, its image belongs to {video}",
        )
    crowd = entry.get("iscrowd")
    if crowd == 1:
        yield Finding("coco.iscrowd", where, "is a crowd: evaluation ignores it", WARNING)
    elif crowd != 0 or isinstance(crowd, bool):
        yield Finding("coco.iscrowd", where, f"has iscrowd {crowd!r}, want 0 or 1")
    if video is not None or "track_id" in entry:
        yield from _check_track(index, entry, video, where)
    if isinstance(entry.get("segmentation"), list):
        yield from _check_polygons(entry, size, where)
        return
    try:
        rle = checked_rle(entry.get("segmentation"), *size)
    except Problem as problem:
        yield Finding("coco.rle", where, str(problem))
        return
    if rle.area == 0 or entry.get("area") != rle.area:
        want = f"{rle.area}" if rle.area else "a mask with pixels"
        yield Finding("coco.area", where, f"has area {entry.get('area')}, want {want}")
    problem_text = box_problem(rle, entry.get("bbox"))
    if problem_text:
        yield Finding("coco.bbox", where, problem_text)


def _check_track(
    index: _Index, entry: dict[str, Any], video: int | None, where: str
) -> Iterator[Finding]:
    track, instance = entry.get("track_id"), entry.get("instance_id")
    if not is_id(track) or track != instance:
        yield Finding(
            "coco.track",
            where,
            f"has track_id {track!r} and instance_id {instance!r}, want both, equal, from 1",
        )
        return
    if (entry["image_id"], track) in index.seen:
        yield Finding(
            "coco.track", where, f"is a second mask of track {track} on image {entry['image_id']}"
        )
    index.seen.add((entry["image_id"], track))
    if video is not None:
        first = index.category_of.setdefault((video, track), entry.get("category_id", 0))
        if first != entry.get("category_id"):
            yield Finding(
                "coco.track",
                where,
                f"gives track {track} of video {video} category {entry.get('category_id')}, "
                f"before it was {first}",
            )


def _check_polygons(entry: dict[str, Any], size: tuple[int, int], where: str) -> Iterator[Finding]:
    height, width = size
    polygons = entry["segmentation"]
    if not polygons:
        yield Finding("coco.polygon", where, "has no polygon")
        return
    for ring in polygons:
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
            yield Finding(
                "coco.polygon", where, "has a ring that is not x1,y1,… of 3 points or more"
            )
            return
        if not all(is_number(v) for v in ring) or not np.isfinite(ring).all():
            yield Finding("coco.polygon", where, "has a coordinate that is not a finite number")
            return
        xs, ys = np.asarray(ring[::2]), np.asarray(ring[1::2])
        if xs.min() < 0 or ys.min() < 0 or xs.max() > width or ys.max() > height:
            yield Finding("coco.polygon", where, f"reaches outside its {width}x{height} image")
            return
    from pycocotools import mask as coco_mask

    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    drawn = RLE((height, width), bytes(merged["counts"]))
    box, bbox = drawn.box, entry.get("bbox")
    if box is None:
        return
    # Points lie on pixel edges or centres depending on the writer: one pixel each way is no error.
    want = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(map(is_number, bbox))
        or any(abs(a - b) > 2 for a, b in zip(bbox, want, strict=True))
    ):
        yield Finding("coco.bbox", where, f"has bbox {bbox}, its polygons cover {want}")
    area = entry.get("area")
    slack = 2 * (want[2] + want[3]) * len(polygons) + 0.1 * drawn.area
    if not is_number(area) or area <= 0 or abs(area - drawn.area) > slack:
        yield Finding("coco.area", where, f"has area {area}, its polygons cover {drawn.area}")
