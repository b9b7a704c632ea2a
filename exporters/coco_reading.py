"""COCO files as sessions: videos by `video_id`, every other image on its own."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from edgetam_label.errors import ExportError, PromptError
from edgetam_label.masks import RLE
from edgetam_label.prompts import Box, Prompt
from edgetam_label.session_types import FrameMask, LabelObject

from .importing import FrameFiles, ImportedVideo

Record = dict[str, Any]


def read_videos(path: Path, images_folder: Path) -> Iterator[ImportedVideo]:
    """Sessions of one COCO file. Raises ExportError naming the file and the id of a bad entry."""
    data = load_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise ExportError(f'{path} is not a COCO file: it has no list "images".')
    categories = {c["id"]: str(c["name"]) for c in data.get("categories") or ()}
    by_image: dict[Any, list[Record]] = defaultdict(list)
    for annotation in data.get("annotations") or ():
        by_image[annotation.get("image_id")].append(annotation)
    known = {image["id"] for image in data["images"]}
    stray = sorted((a["id"] for i in by_image if i not in known for a in by_image[i]), key=str)
    if stray:
        raise ExportError(f"{path}: annotation {stray[0]} belongs to an image that is not listed.")
    for video, images in _videos(data):
        yield _Reader(path, images_folder, categories, by_image).read(video, images)


def load_json(path: Path) -> Any:
    """Raises ExportError naming the file and line."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ExportError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}.") from error


def _videos(data: Record) -> Iterator[tuple[Record | None, list[Record]]]:
    """(video, its images in order), then (None, [image]) for each image without a video."""
    videos = {video["id"]: video for video in data.get("videos") or ()}
    grouped: dict[Any, list[Record]] = {key: [] for key in videos}
    stills = []
    for image in data["images"]:
        if image.get("video_id") in grouped:
            grouped[image["video_id"]].append(image)
        else:
            stills.append(image)
    for key, images in grouped.items():
        if images:
            yield (
                videos[key],
                sorted(images, key=lambda i: (i.get("frame_id", 0), str(i["file_name"]))),
            )
    for image in stills:
        yield None, [image]


@dataclass(frozen=True)
class _Reader:
    path: Path
    images_folder: Path
    categories: Mapping[Any, str]
    by_image: Mapping[Any, Sequence[Record]]

    def read(self, video: Record | None, images: list[Record]) -> ImportedVideo:
        names = [PurePosixPath(str(image["file_name"])) for image in images]
        if video is None:
            title, folder = names[0].stem, self.images_folder
            files = tuple(str(name) for name in names)
        else:
            title = str(
                video.get("name") or video.get("file_name") or names[0].parent or video["id"]
            )
            folder = self.images_folder / names[0].parent
            files = tuple(name.name for name in names)
        numbers = tuple(int(image.get("frame_id", i)) for i, image in enumerate(images))
        tracks = _Tracks(self.path, self.categories)
        for frame_idx, image in enumerate(images):
            for annotation in self.by_image.get(image["id"], ()):
                tracks.add(frame_idx, annotation)
        size = (int(images[0]["height"]), int(images[0]["width"]))
        return ImportedVideo(
            name=title,
            objects=tuple(tracks.objects[obj_id] for obj_id in sorted(tracks.objects)),
            masks=tracks.masks(size),
            prompts=tuple(tracks.prompts),
            files=FrameFiles(
                folder=folder,
                names=files,
                width=size[1],
                height=size[0],
                fps=_fps(video),
                numbers=numbers,
                is_still=video is None,
            ),
            warnings=tuple(f"{title}: {text}" for text in tracks.warnings),
        )


class _Tracks:
    """Annotations of one video, sorted into objects."""

    def __init__(self, path: Path, categories: Mapping[Any, str]) -> None:
        self.path, self.categories = path, categories
        self.objects: dict[int, LabelObject] = {}
        self.segments: dict[tuple[int, int], list[Any]] = {}
        self.prompts: list[Prompt] = []
        self.warnings: list[str] = []
        self._free = count(1)

    def add(self, frame_idx: int, annotation: Record) -> None:
        obj_id = self._obj_id(annotation)
        category = annotation.get("category_id")
        if category not in self.categories:
            raise ExportError(
                f"{self.path}: annotation {annotation.get('id')} has category {category!r}, "
                "which is not in the list of categories."
            )
        crowd = {"iscrowd": 1} if annotation.get("iscrowd") else {}
        item = LabelObject(
            obj_id, self.categories[category], attributes={"category_id": category, **crowd}
        )
        known = self.objects.setdefault(obj_id, item)
        if known.label != item.label:
            self._warn(f"object {obj_id} is {known.label!r} first and {item.label!r} later")
        if annotation.get("segmentation"):
            key = (frame_idx, obj_id)
            if key in self.segments:
                self._warn(f"object {obj_id} has several annotations on one frame; united")
            self.segments.setdefault(key, []).append(annotation["segmentation"])
        elif annotation.get("bbox"):
            self._add_box(frame_idx, obj_id, annotation)
        else:
            self._warn(f"annotation {annotation.get('id')} has no segmentation and no bbox")

    def masks(self, size: tuple[int, int]) -> Callable[[], Iterator[FrameMask]]:
        def stream() -> Iterator[FrameMask]:
            for (frame_idx, obj_id), segments in sorted(self.segments.items()):
                rles = [self._rle(segment, size, obj_id, frame_idx) for segment in segments]
                rle = rles[0]
                if len(rles) > 1:
                    rle = RLE.encode(np.logical_or.reduce([part.decode() for part in rles]))
                yield FrameMask(obj_id, frame_idx, rle, status="approved")

        return stream

    def _obj_id(self, annotation: Record) -> int:
        for key in ("track_id", "instance_id"):
            value = annotation.get(key)
            if isinstance(value, int) and value > 0:
                return value
        return next(number for number in self._free if number not in self.objects)

    def _add_box(self, frame_idx: int, obj_id: int, annotation: Record) -> None:
        x, y, width, height = (float(value) for value in annotation["bbox"])
        try:
            self.prompts.append(Prompt(obj_id, frame_idx, box=Box(x, y, x + width, y + height)))
        except PromptError as error:
            raise ExportError(f"{self.path}: annotation {annotation.get('id')}: {error}") from error

    def _rle(self, segment: Any, size: tuple[int, int], obj_id: int, frame_idx: int) -> RLE:
        try:
            if isinstance(segment, dict):
                rle = RLE.from_coco(segment)
            else:
                rings = coco_mask.frPyObjects(segment, *size)
                rle = RLE.from_coco(coco_mask.merge(rings))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ExportError(
                f"{self.path}: the segmentation of object {obj_id} on frame {frame_idx} "
                f"is damaged ({error})."
            ) from error
        if rle.size != size:
            raise ExportError(
                f"{self.path}: the segmentation of object {obj_id} on frame {frame_idx} has size "
                f"{list(rle.size)}, its image {list(size)} (height, width)."
            )
        return rle

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _fps(video: Record | None) -> float:
    value = (video or {}).get("fps")
    return (
        float(value)
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        else 1.0
    )
