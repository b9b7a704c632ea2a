"""Rules of YouTube-VOS, as its loaders and the Cutie reader need them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .dataset_findings import WARNING, Finding, Problem, files, folders, image_size, png_values
from .dataset_json import load_json

RULES = {
    "ytvos.layout": "<split>/meta.json and <split>/Annotations/<video>/ are there",
    "ytvos.meta": "meta.json is {videos: {name: {objects: {id: {category, frames}}}}}",
    "ytvos.ids": "object keys are texts of the numbers 1 to 255",
    "ytvos.frames": "frames are the stems of PNGs that are there, each once",
    "ytvos.png": "annotations are palette PNGs (mode P) of one size in a video",
    "ytvos.pixels": "an object has pixels on the frames that it lists, and on no other",
    "ytvos.videos": "meta.json and Annotations/ name the same videos",
    "ytvos.images": "JPEGImages/, if there, holds a JPEG of the same size for each PNG",
}


def check(folder: Path) -> Iterator[Finding]:
    splits = [path for path in folders(folder) if (path / "Annotations").is_dir()]
    splits += [p for p in folders(folder) if (p / "meta.json").is_file() and p not in splits]
    if not splits:
        yield Finding("ytvos.layout", ".", "has no <split>/Annotations/ and no <split>/meta.json")
    for split in sorted(splits):
        yield from _check_split(folder, split)


def _check_split(folder: Path, split: Path) -> Iterator[Finding]:
    meta = f"{split.name}/meta.json"
    if not (split / "meta.json").is_file():
        yield Finding("ytvos.layout", meta, "is missing")
        return
    content = load_json(split / "meta.json")
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        yield Finding("ytvos.meta", meta, "has no object videos")
        return
    on_disk = {path.name for path in folders(split / "Annotations")}
    for name in sorted(set(videos) ^ on_disk):
        where, other = (meta, "Annotations/") if name in videos else ("Annotations/", meta)
        yield Finding("ytvos.videos", where, f"names video {name!r}, {other} does not")
    for name in sorted(set(videos) & on_disk):
        where = f"{meta}, video {name!r}"
        objects = videos[name].get("objects") if isinstance(videos[name], dict) else None
        if not isinstance(objects, dict):
            yield Finding("ytvos.meta", where, "has no object objects")
            continue
        listed: dict[int, set[str]] = {}
        for key, entry in objects.items():
            yield from _check_object(where, key, entry, listed)
        yield from _check_frames(folder, split, name, where, listed)


def _check_object(
    where: str, key: str, entry: Any, listed: dict[int, set[str]]
) -> Iterator[Finding]:
    if not key.isdecimal() or not 1 <= int(key) <= 255 or key != str(int(key)):
        yield Finding("ytvos.ids", where, f"has object key {key!r}, want a number from 1 to 255")
        return
    frames = entry.get("frames") if isinstance(entry, dict) else None
    if not isinstance(frames, list) or not isinstance(entry.get("category"), str):
        yield Finding("ytvos.meta", where, f"object {key} needs a category text and a frames list")
        return
    if not frames or not all(isinstance(frame, str) for frame in frames):
        yield Finding("ytvos.frames", where, f"object {key} lists no frames, or not as texts")
    elif len(set(frames)) != len(frames) or frames != sorted(frames):
        yield Finding("ytvos.frames", where, f"object {key} lists frames twice or out of order")
    listed[int(key)] = {frame for frame in frames if isinstance(frame, str)}


def _check_frames(
    folder: Path, split: Path, name: str, where: str, listed: dict[int, set[str]]
) -> Iterator[Finding]:
    images = split / "JPEGImages" / name
    found: dict[int, set[str]] = {obj_id: set() for obj_id in listed}
    stems: set[str] = set()
    size: tuple[int, ...] | None = None
    for path in files(split / "Annotations" / name, ".png"):
        at = path.relative_to(folder).as_posix()
        stems.add(path.stem)
        try:
            ids = png_values(path, ("P",))
        except Problem as problem:
            yield Finding("ytvos.png", at, str(problem))
            continue
        size = size or ids.shape
        if ids.shape != size:
            yield Finding(
                "ytvos.png", at, f"is {_wxh(ids.shape)}, the first of its video is {_wxh(size)}"
            )
        for obj_id in np.unique(ids[ids > 0]).tolist():
            if obj_id not in listed:
                yield Finding("ytvos.pixels", at, f"holds id {obj_id}, which meta.json lacks")
            else:
                found[obj_id].add(path.stem)
        yield from _check_image(images, path.stem, at, ids.shape)
    for obj_id, frames in sorted(listed.items()):
        for stem in sorted(frames - stems):
            yield Finding(
                "ytvos.frames", where, f"object {obj_id} lists {stem!r}, which has no PNG"
            )
        for stem in sorted((frames & stems) - found[obj_id]):
            yield Finding(
                "ytvos.pixels",
                where,
                f"object {obj_id} lists frame {stem!r} but has no pixel there",
            )
        for stem in sorted(found[obj_id] - frames):
            yield Finding(
                "ytvos.pixels", where, f"object {obj_id} has pixels on frame {stem!r}, not listed"
            )
    if any(not stem.isdecimal() for stem in stems):
        yield Finding(
            "ytvos.frames",
            where,
            "has frame names that are not numbers; some readers sort by number",
            WARNING,
        )


def _check_image(images: Path, stem: str, at: str, shape: tuple[int, ...]) -> Iterator[Finding]:
    if not images.parent.is_dir():
        return
    path = next(
        (p for s in (".jpg", ".jpeg", ".png") if (p := images / f"{stem}{s}").is_file()), None
    )
    if path is None:
        yield Finding("ytvos.images", at, f"has no image {stem}.jpg in JPEGImages/{images.name}")
        return
    if path.suffix == ".png":
        yield Finding("ytvos.images", at, "has a PNG image; most readers want .jpg", WARNING)
    try:
        if image_size(path) != (shape[1], shape[0]):
            yield Finding(
                "ytvos.images",
                at,
                f"is {_wxh(shape)}, its image {'x'.join(map(str, image_size(path)))}",
            )
    except Problem as problem:
        yield Finding("ytvos.images", at, f"its image {problem}")


def _wxh(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
