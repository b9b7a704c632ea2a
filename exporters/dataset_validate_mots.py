"""Rules of MOTS (RWTH Aachen), txt and PNG, as TrackEval needs them."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetam_label.masks import RLE

from .dataset_findings import Finding, Problem, checked_rle, files, folders, image_size, png_values

RULES = {
    "mots.layout": "<split>/<sequence>/gt/gt.txt or instances/ is there",
    "mots.seqinfo": "seqinfo.ini has [Sequence] with seqLength, imWidth and imHeight",
    "mots.seqmap": "a seqmap's first line is the header `name`, the others are sequences",
    "mots.row": "a row is `frame id class height width rle`",
    "mots.id": "id = class * 1000 + instance",
    "mots.frame": "frames count from 1 to seqLength",
    "mots.rle": "a mask has the size of the sequence, covers all its pixels and is not empty",
    "mots.overlap": "masks of a frame do not overlap, and an id comes once",
    "mots.class": "a class is from 1 to 65; 10 means ignore",
    "mots.png": "instance PNGs are 16-bit grey of the sequence's size, one per frame",
    "mots.agree": "the PNGs and the txt hold the same masks",
    "mots.images": "img1/, if there, has one image of the sequence's size per frame",
}


@dataclass
class _Sequence:
    path: Path
    name: str
    length: int = 0
    size: tuple[int, int] = (0, 0)  # height, width


def check(folder: Path) -> Iterator[Finding]:
    roots = [p for p in folders(folder) if p.name.startswith("MOTS-")] or [folder]
    sequences = [
        path
        for root in roots
        for path in folders(root)
        if (path / "gt" / "gt.txt").is_file() or (path / "instances").is_dir()
    ]
    if not sequences:
        yield Finding("mots.layout", ".", "holds no sequence with gt/gt.txt or instances/")
    for path in sequences:
        sequence = _Sequence(path, path.relative_to(folder).as_posix())
        yield from _check_seqinfo(sequence)
        if sequence.length:
            yield from _check_txt(sequence)
            yield from _check_images(sequence)
    yield from _check_seqmaps(folder)


def _check_seqinfo(sequence: _Sequence) -> Iterator[Finding]:
    where = f"{sequence.name}/seqinfo.ini"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(sequence.path / "seqinfo.ini", encoding="utf-8")
        info = parser["Sequence"]
        sequence.length = int(info["seqLength"])
        sequence.size = int(info["imHeight"]), int(info["imWidth"])
    except (configparser.Error, KeyError, ValueError, UnicodeDecodeError) as error:
        yield Finding("mots.seqinfo", where, f"is missing or incomplete: {error}")
        return
    if sequence.length < 1 or min(sequence.size) < 1:
        yield Finding("mots.seqinfo", where, f"has seqLength {sequence.length}, want 1 or more")
        sequence.length = 0


def _check_txt(sequence: _Sequence) -> Iterator[Finding]:
    """Rows are grouped by frame as they come; PNGs are compared when a frame is complete."""
    txt = sequence.path / "gt" / "gt.txt"
    frames: dict[int, dict[int, RLE]] = {}
    if txt.is_file():
        with txt.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{sequence.name}/gt/gt.txt, line {number}"
                    yield from _check_row(sequence, where, line.rstrip("\r\n"), frames)
    for frame, masks in sorted(frames.items()):
        yield from _check_overlap(sequence, frame, masks)
    if (sequence.path / "instances").is_dir():
        yield from _check_pngs(sequence, frames if txt.is_file() else None)


def _check_row(
    sequence: _Sequence, where: str, line: str, frames: dict[int, dict[int, RLE]]
) -> Iterator[Finding]:
    fields = line.split(" ")
    if len(fields) != 6 or not all(text.isascii() and text.isdecimal() for text in fields[:5]):
        yield Finding("mots.row", where, "is not `frame id class height width rle`")
        return
    frame, value, kind, height, width = map(int, fields[:5])
    if value // 1000 != kind:
        yield Finding("mots.id", where, f"has id {value} and class {kind}, want id // 1000 = class")
    if not 1 <= kind <= 65:
        yield Finding("mots.class", where, f"has class {kind}, want 1 to 65")
    if not 1 <= frame <= sequence.length:
        yield Finding(
            "mots.frame", where, f"is of frame {frame}, the sequence has 1 to {sequence.length}"
        )
    if (height, width) != sequence.size:
        want = f"{sequence.size[1]}x{sequence.size[0]}"
        yield Finding("mots.rle", where, f"is {width}x{height}, seqinfo.ini says {want}")
        return
    try:
        rle = checked_rle({"size": [height, width], "counts": fields[5]}, height, width)
    except Problem as problem:
        yield Finding("mots.rle", where, str(problem))
        return
    if not rle.area:
        yield Finding("mots.rle", where, "is an empty mask; leave the row out")
    if value in frames.setdefault(frame, {}):
        yield Finding("mots.overlap", where, f"is a second mask of {value} on frame {frame}")
    frames[frame][value] = rle


def _check_overlap(sequence: _Sequence, frame: int, masks: dict[int, RLE]) -> Iterator[Finding]:
    from pycocotools import mask as coco_mask

    raw = [{"size": list(rle.size), "counts": rle.counts} for rle in masks.values()]
    union = int(coco_mask.area(coco_mask.merge(raw)))
    total = sum(rle.area for rle in masks.values())
    if union != total:
        yield Finding(
            "mots.overlap",
            f"{sequence.name}/gt/gt.txt, frame {frame}",
            f"has {total - union} pixels in more than one of the masks {sorted(masks)}",
        )


def _check_pngs(sequence: _Sequence, frames: dict[int, dict[int, RLE]] | None) -> Iterator[Finding]:
    found: set[int] = set()
    for path in files(sequence.path / "instances", ".png"):
        where = f"{sequence.name}/instances/{path.name}"
        if not path.stem.isdecimal():
            yield Finding("mots.png", where, "is not named by its frame number")
            continue
        frame = int(path.stem)
        found.add(frame)
        try:
            ids = png_values(path, ("I;16", "I"))
        except Problem as problem:
            yield Finding("mots.png", where, str(problem))
            continue
        if ids.shape != sequence.size:
            yield Finding("mots.png", where, f"is {ids.shape[1]}x{ids.shape[0]}")
            continue
        if frames is not None:
            yield from _compare(where, ids, frames.get(frame, {}))
    missing = sorted(set(range(1, sequence.length + 1)) - found)
    if missing:
        yield Finding(
            "mots.png",
            f"{sequence.name}/instances",
            f"lacks {len(missing)} frames from {missing[0]}",
        )


def _compare(where: str, ids: NDArray[np.int64], masks: dict[int, RLE]) -> Iterator[Finding]:
    values = set(np.unique(ids).tolist()) - {0}
    for value in sorted(values ^ set(masks)):
        place = "the txt" if value in masks else "the PNG"
        yield Finding("mots.agree", where, f"object {value} is only in {place}")
    for value in sorted(values & set(masks)):
        if RLE.encode(ids == value).counts != masks[value].counts:
            yield Finding("mots.agree", where, f"object {value} differs from its mask in gt.txt")


def _check_images(sequence: _Sequence) -> Iterator[Finding]:
    images = list(files(sequence.path / "img1", ".jpg", ".jpeg", ".png"))
    if not images:
        return
    where = f"{sequence.name}/img1"
    if len(images) != sequence.length:
        yield Finding(
            "mots.images", where, f"has {len(images)} images, seqLength is {sequence.length}"
        )
    for path in images:
        try:
            if image_size(path) != (sequence.size[1], sequence.size[0]):
                yield Finding("mots.images", f"{where}/{path.name}", "has another size")
        except Problem as problem:
            yield Finding("mots.images", f"{where}/{path.name}", str(problem))


def _check_seqmaps(folder: Path) -> Iterator[Finding]:
    for path in files(folder / "seqmaps", ".txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        where = f"seqmaps/{path.name}"
        if not lines or lines[0] != "name":
            first = repr(lines[0]) if lines else "nothing"
            yield Finding("mots.seqmap", f"{where}, line 1", f"is {first}, want the header `name`")
        for number, name in enumerate(lines[1:], start=2):
            if not (folder / path.stem / name).is_dir() and not (folder / name).is_dir():
                yield Finding("mots.seqmap", f"{where}, line {number}", f"{name!r} is not there")
