"""Masks of the two formats that are no sessions: plain PNGs, and YOLO labels without identities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetam_label.errors import ExportError
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject

from .dataset_findings import Problem, files, folders, image_size, png_values
from .dataset_json import load_json
from .dataset_source import SourceVideo
from .polygons import draw_center_ring

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_masks(folder: Path, split: str | None = None) -> Iterator[SourceVideo]:
    """The videos of `<split>/masks/`; frames are those with an image, else those with a mask."""
    for root in folders(folder):
        if (root / "masks").is_dir() and split in (None, root.name):
            labels = load_json(root / "objects.json")
            for video in folders(root / "masks"):
                yield _masks_video(root, video, labels.get(video.name, {}))


def _masks_video(root: Path, video: Path, labels: dict[str, Any]) -> SourceVideo:
    paths = [(path, png) for path in folders(video) for png in files(path, ".png")]
    images = {path.stem: path for path in files(root / "images" / video.name, *IMAGES)}
    stems = tuple(sorted(images or {png.stem for _, png in paths}))
    position = {stem: i for i, stem in enumerate(stems)}
    if not paths:
        raise ExportError(f"{video} holds no mask; remove the folder.")
    width, height = _size(paths[0][1])

    def masks() -> Iterator[FrameMask]:
        for path, png in paths:
            if png.stem not in position:
                raise ExportError(f"{png} has no image in {root / 'images' / video.name}.")
            try:
                inside = png_values(png, ("L", "1")) > 0
            except Problem as problem:
                raise ExportError(f"{png} {problem}.") from problem
            yield FrameMask(_number(path), position[png.stem], RLE.encode(inside))

    return SourceVideo(
        name=video.name,
        height=height,
        width=width,
        stems=stems,
        numbers=tuple(int(s) if s.isdecimal() else i for i, s in enumerate(stems)),
        objects=tuple(_object(path, labels) for path in folders(video)),
        masks=masks,
        images=tuple(images[stem] for stem in stems) if images else (),
    )


def _number(path: Path) -> int:
    if not path.name.isdecimal() or int(path.name) < 1:
        raise ExportError(f"{path} should be named by an object id, a number from 1.")
    return int(path.name)


def _object(path: Path, labels: dict[str, Any]) -> LabelObject:
    entry = labels.get(path.name, {})
    return LabelObject(_number(path), entry.get("label", "?"), entry.get("color", ""))


def read_yoloseg(folder: Path, split: str | None = None) -> Iterator[SourceVideo]:
    """The folders of `labels/<split>/`, one object per class: YOLO keeps no identities.

    Raises ExportError for labels without their images: only these know the size in pixels.
    """
    from .dataset_validate_yoloseg import class_names

    names = class_names(folder)
    for root in folders(folder / "labels"):
        if split in (None, root.name):
            for video in sorted({path.parent for path in root.rglob("*.txt")}):
                yield _yolo_video(folder, root, video, names)


def _yolo_video(folder: Path, root: Path, video: Path, names: dict[int, str]) -> SourceVideo:
    labels = list(files(video, ".txt"))
    place = folder / "images" / video.relative_to(folder / "labels")
    found = {path.stem: path for path in files(place, *IMAGES)}
    lacking = next((path for path in labels if path.stem not in found), None)
    if lacking is not None:
        raise ExportError(
            f"{lacking} has no image in {place}, so its size in pixels is not known; "
            "export with --images."
        )
    width, height = _size(found[labels[0].stem])

    def masks() -> Iterator[FrameMask]:
        for frame_idx, path in enumerate(labels):
            by_class: dict[int, NDArray[np.bool_]] = {}
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                kind, drawn = _drawn(path, number, line, height, width)
                by_class[kind] = by_class.get(kind, np.zeros_like(drawn)) | drawn
            for kind, inside in sorted(by_class.items()):
                yield FrameMask(kind + 1, frame_idx, RLE.encode(inside))

    stems = tuple(path.stem for path in labels)
    return SourceVideo(
        name=video.relative_to(root).as_posix() if video != root else root.name,
        height=height,
        width=width,
        stems=stems,
        numbers=tuple(int(s) if s.isdecimal() else i for i, s in enumerate(stems)),
        objects=tuple(LabelObject(kind + 1, name) for kind, name in sorted(names.items())),
        masks=masks,
        images=tuple(found[stem] for stem in stems),
    )


def _drawn(
    path: Path, number: int, line: str, height: int, width: int
) -> tuple[int, NDArray[np.bool_]]:
    fields = line.split()
    try:
        points = np.asarray(fields[1:], dtype=np.float64).reshape(-1, 2)
        kind = int(fields[0])
    except (ValueError, IndexError) as error:
        raise ExportError(f"{path}, line {number}: not `class x y x y …` ({error}).") from error
    ring = np.floor(points * (width, height)).astype(np.int32)
    return kind, np.asarray(draw_center_ring(ring, height, width), dtype=bool)


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except Problem as problem:
        raise ExportError(f"{path} {problem}.") from problem


READERS: dict[str, Callable[[Path, str | None], Iterator[SourceVideo]]] = {
    "masks": read_masks,
    "yoloseg": read_yoloseg,
}
