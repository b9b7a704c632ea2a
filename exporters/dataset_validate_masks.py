"""Rules of the plain PNG masks: one black-and-white file per object and frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .dataset_findings import Finding, Problem, files, folders, png_values
from .dataset_json import load_json

RULES = {
    "masks.layout": "<split>/masks/<video>/<object>/<frame>.png and <split>/objects.json are there",
    "masks.objects": "objects.json has a label for every object folder of every video",
    "masks.png": "a mask is an 8-bit grey PNG of one size in its video",
    "masks.values": "pixels are 0 or 255, and some are 255",
    "masks.images": "images/, if there, has an image for each frame with a mask",
}


def check(folder: Path) -> Iterator[Finding]:
    splits = [path for path in folders(folder) if (path / "masks").is_dir()]
    if not splits:
        yield Finding("masks.layout", ".", "has no <split>/masks/")
    for split in splits:
        where = f"{split.name}/objects.json"
        if not (split / "objects.json").is_file():
            yield Finding("masks.layout", where, "is missing")
            continue
        content = load_json(split / "objects.json")
        videos = content if isinstance(content, dict) else {}
        for video in folders(split / "masks"):
            objects = videos.get(video.name)
            if not isinstance(objects, dict):
                yield Finding("masks.objects", where, f"lacks video {video.name!r}")
                objects = {}
            yield from _check_video(folder, split, video, objects, where)


def _check_video(
    folder: Path, split: Path, video: Path, objects: dict[str, object], where: str
) -> Iterator[Finding]:
    size: tuple[int, ...] | None = None
    images = split / "images" / video.name
    stems = {path.stem for path in images.iterdir()} if images.is_dir() else None
    for path in folders(video):
        entry = objects.get(path.name)
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            yield Finding("masks.objects", where, f"{video.name!r} has no label for {path.name}")
        for png in files(path, ".png"):
            at = png.relative_to(folder).as_posix()
            try:
                values = png_values(png, ("L", "1"))
            except Problem as problem:
                yield Finding("masks.png", at, str(problem))
                continue
            size = size or values.shape
            if values.shape != size:
                want = f"{size[1]}x{size[0]}"
                yield Finding(
                    "masks.png", at, f"is {values.shape[1]}x{values.shape[0]}, its video {want}"
                )
            found = set(np.unique(values).tolist())
            if found - {0, 255} or 255 not in found:
                yield Finding("masks.values", at, f"has values {sorted(found)[:5]}, want 0 and 255")
            if stems is not None and png.stem not in stems:
                yield Finding("masks.images", at, f"has no image in images/{video.name}")
