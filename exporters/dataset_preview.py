"""`dataset preview`: contact sheets of every n-th frame with the masks drawn on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.errors import ExportError, MediaError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.overlay import MaskLayer, OverlayPainter

from .dataset_source import Source, SourceVideo

RGB = NDArray[np.uint8]
_GAP = 6
_BACKGROUND = 24
_MOST_TILES = 200


@dataclass(frozen=True)
class SheetOptions:
    """every: show each n-th frame; None picks about `tiles` frames of each video.

    columns: tiles in a row. tile_width: pixels. tiles: wanted number when `every` is None.
    """

    every: int | None = None
    columns: int = 5
    tile_width: int = 320
    tiles: int = 20

    def __post_init__(self) -> None:
        for name, value in (("--every", self.every), ("--columns", self.columns)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}.")
        if not 32 <= self.tile_width <= 4096:
            raise UsageError(f"--width must be from 32 to 4096 pixels, got {self.tile_width}.")

    def frames(self, num_frames: int) -> tuple[int, ...]:
        """Indices of the frames shown. Raises UsageError for a sheet of unusable size."""
        every = self.every or max(1, math.ceil(num_frames / self.tiles))
        chosen = tuple(range(0, num_frames, every))
        if len(chosen) > _MOST_TILES:
            raise UsageError(
                f"--every {every} shows {len(chosen)} of {num_frames} frames, more than a sheet of "
                f"{_MOST_TILES} can hold; try --every {math.ceil(num_frames / _MOST_TILES)}."
            )
        return chosen


@dataclass(frozen=True)
class Sheet:
    """A sheet that was written. without_images: the frames were not found, so masks lie on grey."""

    path: Path
    video: str
    tiles: int
    without_images: bool


def write_previews(source: Source, out: Path, options: SheetOptions) -> list[Sheet]:
    """One PNG per video in the folder `out`, or `out` itself if it ends in .png (one video only).

    One sheet is in memory at a time. Raises UsageError for several videos and a single file.
    """
    sheets: list[Sheet] = []
    single = out.suffix.lower() == ".png"
    if not single and out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give a folder, or a name that ends in .png.")
    taken: set[str] = set()
    for number, video in enumerate(source.videos(), start=1):
        if single and number > 1:
            raise UsageError(
                f"{source.title} has several videos, but {out} is one file; give a folder."
            )
        path = out if single else out / f"{_file_stem(video.name, taken)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheets.append(_write_sheet(video, path, options))
    return sheets


def _write_sheet(video: SourceVideo, path: Path, options: SheetOptions) -> Sheet:
    chosen = options.frames(video.num_frames)
    shown: dict[int, dict[int, RLE]] = {index: {} for index in chosen}
    for mask in video.masks():
        if mask.frame_idx in shown and mask.status != "absent" and mask.rle.area:
            shown[mask.frame_idx][mask.obj_id] = mask.rle
    width = options.tile_width
    height = max(1, round(width * video.height / video.width))
    columns = min(options.columns, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    canvas = np.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3),
        _BACKGROUND,
        dtype=np.uint8,
    )
    painter = OverlayPainter(height)
    entries = {entry.obj_id: entry for entry in video.objects}
    missing = False
    for place, (index, image) in enumerate(_images(video, chosen)):
        missing |= image is None
        tile = _resized(image, width, height)
        layers = []
        for obj_id, rle in sorted(shown[index].items()):
            entry = entries[obj_id]
            small = cv2.resize(
                rle.decode().astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
            )
            # An object smaller than a pixel of the tile must still be seen.
            inside = small >= min(0.5, float(small.max()))
            layers.append(MaskLayer(inside, entry.color, f"{obj_id} {entry.label}"))
        tile = painter.draw(tile, layers, caption=video.stems[index])
        top = _GAP + place // columns * (height + _GAP)
        left = _GAP + place % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = tile
    _save(canvas, path)
    return Sheet(path, video.name, len(chosen), missing)


def _images(video: SourceVideo, chosen: Sequence[int]) -> Iterator[tuple[int, RGB | None]]:
    """Each chosen frame in order, None where it cannot be found."""
    if video.images:
        for index in chosen:
            yield index, _read(video.images[index])
        return
    try:
        frames = Frames.open(video.media) if video.media else None
    except MediaError:
        frames = None
    if frames is None:
        yield from ((index, None) for index in chosen)
        return
    with frames:
        same = len(frames) == video.num_frames and frames.width == video.width
        for index in chosen:
            yield index, frames[index] if same else None


def _read(path: Path) -> RGB | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError):
        return None


def _resized(image: RGB | None, width: int, height: int) -> RGB:
    if image is None:
        return np.full((height, width, 3), 96, dtype=np.uint8)
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


def _file_stem(name: str, taken: set[str]) -> str:
    """A file name of a video's name that no other video of the source has."""
    stem = base = name.replace("/", "_").replace("\\", "_").strip(". ") or "video"
    number = 1
    while stem in taken:
        number += 1
        stem = f"{base} ({number})"
    taken.add(stem)
    return stem


def _save(canvas: RGB, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        Image.fromarray(canvas).save(temporary, format="PNG")
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
