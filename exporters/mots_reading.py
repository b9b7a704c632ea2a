"""MOTS sequences as sessions: the txt where there is one, else the PNGs."""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.image_files import list_images
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject

from .id_map import read_id_map
from .importing import FrameFiles, ImportedVideo, ImportOptions

IGNORE_CLASS = 10


@dataclass(frozen=True)
class _Sequence:
    """What seqinfo.ini says, and the masks by (0-based frame, MOTS id)."""

    folder: Path
    length: int
    fps: float
    suffix: str
    size: tuple[int, int]
    masks: Mapping[tuple[int, int], RLE]


def read_videos(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos of every `MOTS-<split>` folder; the txt if there is one, else the PNGs."""
    roots = sorted(path for path in folder.glob(f"MOTS-{options.split or '*'}") if path.is_dir())
    if not roots and options.split is None:
        roots = [folder]
    names = _class_names(folder)
    found = False
    for root in roots:
        for path in sorted(path for path in root.iterdir() if path.is_dir()):
            if (path / "gt" / "gt.txt").is_file() or (path / "instances").is_dir():
                found = True
                yield _read_video(path, names, options)
    if not found:
        raise UsageError(f"{folder} holds no MOTS-<split>/<video>/gt/gt.txt and no instances.")


def _class_names(folder: Path) -> dict[int, str]:
    names = {1: "car", 2: "pedestrian"}
    path = folder / "classes.txt"
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            key, _, name = line.partition(" ")
            if not key.isdecimal() or not name:
                raise ExportError(f"{path}, line {number}: expected `<class> <name>`.")
            names[int(key)] = name
    return names


def _read_video(path: Path, names: Mapping[int, str], options: ImportOptions) -> ImportedVideo:
    txt = path / "gt" / "gt.txt"
    sequence = _read_txt(path, txt) if txt.is_file() else _read_pngs(path)
    values = sorted({value for _, value in sequence.masks})
    kept = [value for value in values if value // 1000 != IGNORE_CLASS]
    obj_ids: dict[int, int] = {}
    for value in kept:
        wanted = value % 1000 or 1
        while wanted in obj_ids.values():
            wanted += 1
        obj_ids[value] = wanted
    objects = tuple(
        LabelObject(
            obj_ids[value],
            names.get(value // 1000, f"class {value // 1000}"),
            attributes={"mots_class": value // 1000},
        )
        for value in kept
    )

    def masks() -> Iterator[FrameMask]:
        empty = RLE.empty(*sequence.size)
        for frame_idx in range(sequence.length):
            for value in kept:
                rle = sequence.masks.get((frame_idx, value), empty)
                yield FrameMask(obj_ids[value], frame_idx, rle, status="approved")

    images = options.images / path.name if options.images else path / "img1"
    files = [file.name for file in list_images(images)] if images.is_dir() else []
    frame_names = files or [f"{n + 1:06d}{sequence.suffix}" for n in range(sequence.length)]
    if len(frame_names) != sequence.length:
        raise ExportError(
            f"{images} holds {len(frame_names)} images, the sequence {sequence.length} frames."
        )
    skipped = f"{path.name}: regions to ignore (class {IGNORE_CLASS}) were skipped"
    return ImportedVideo(
        name=path.name,
        objects=tuple(sorted(objects, key=lambda item: item.obj_id)),
        masks=masks,
        files=FrameFiles(
            images, tuple(frame_names), sequence.size[1], sequence.size[0], sequence.fps
        ),
        warnings=(skipped,) if kept != values else (),
    )


def _read_txt(path: Path, txt: Path) -> _Sequence:
    masks: dict[tuple[int, int], RLE] = {}
    info = _read_seqinfo(path)
    size: tuple[int, int] | None = None
    for number, line in enumerate(txt.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split(" ")
        if not line.strip():
            continue
        try:
            frame, value, _, height, width = (int(field) for field in fields[:5])
            rle = RLE((height, width), fields[5].encode("ascii"))
            rle.decode()
        except (ValueError, IndexError) as error:
            raise ExportError(
                f"{txt}, line {number}: expected `frame id class height width rle` ({error})."
            ) from error
        if frame < 1 or (size is not None and rle.size != size):
            raise ExportError(
                f"{txt}, line {number}: frame {frame} of {width}x{height} does not fit the "
                "sequence; frames start at 1 and have one size."
            )
        size = rle.size
        masks[frame - 1, value] = rle
    length = info.getint("seqLength", max((frame for frame, _ in masks), default=-1) + 1)
    size = size or (info.getint("imHeight", 0), info.getint("imWidth", 0))
    if length < 1 or 0 in size:
        raise ExportError(
            f"{txt} holds no rows and {path / 'seqinfo.ini'} no size; nothing to read."
        )
    last = max((frame for frame, _ in masks), default=0)
    if last >= length:
        raise ExportError(f"{txt} has frame {last + 1}, but seqinfo.ini says seqLength={length}.")
    return _Sequence(
        path, length, info.getfloat("frameRate", 1.0), info.get("imExt", ".jpg"), size, masks
    )


def _read_pngs(path: Path) -> _Sequence:
    info = _read_seqinfo(path)
    masks: dict[tuple[int, int], RLE] = {}
    pngs = sorted((path / "instances").glob("*.png"))
    if not pngs:
        raise ExportError(f"{path / 'instances'} holds no PNG files.")
    size = read_id_map(pngs[0]).shape
    for frame_idx, png in enumerate(pngs):
        ids = read_id_map(png)
        if ids.shape != size:
            raise ExportError(f"{png} is {ids.shape[1]}x{ids.shape[0]}, not {size[1]}x{size[0]}.")
        for value in np.unique(ids[ids > 0]).tolist():
            masks[frame_idx, value] = RLE.encode(ids == value)
    fps, suffix = info.getfloat("frameRate", 1.0), info.get("imExt", ".jpg")
    return _Sequence(path, len(pngs), fps, suffix, (size[0], size[1]), masks)


def _read_seqinfo(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path / "seqinfo.ini", encoding="utf-8")
    except configparser.Error as error:
        raise ExportError(f"{path / 'seqinfo.ini'} is damaged: {error}.") from error
    if not parser.has_section("Sequence"):
        parser.add_section("Sequence")
    return parser["Sequence"]
