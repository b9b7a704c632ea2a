"""Rules of DAVIS 2017, as davis2017-evaluation and TrackEval need them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .dataset_findings import WARNING, Finding, Problem, files, folders, image_size, png_values

RULES = {
    "davis.layout": "Annotations/480p/<sequence>/ and ImageSets/2017/<split>.txt are there",
    "davis.list": "each line of a list names a sequence that is there, once",
    "davis.png": "annotations are palette PNGs (mode P) of one size in a sequence",
    "davis.first": "the first frame shows every object: the evaluator counts them there",
    "davis.ids": "ids are 1, 2, … without a gap, which is scored as a perfect object; 255 is void",
    "davis.names": "frame names are numbers, in the order of the video",
    "davis.images": "JPEGImages/480p/, if there, holds an image of the same size for each PNG",
}
VOID = 255


def check(folder: Path) -> Iterator[Finding]:
    root = folder / "Annotations" / "480p"
    if not root.is_dir():
        yield Finding("davis.layout", "Annotations/480p", "is missing")
        return
    sequences = {path.name for path in folders(root)}
    listed: set[str] = set()
    lists = list(files(folder / "ImageSets" / "2017", ".txt"))
    if not lists:
        yield Finding("davis.layout", "ImageSets/2017", "holds no <split>.txt")
    for path in lists:
        seen: set[str] = set()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            where, name = f"ImageSets/2017/{path.name}, line {number}", line.strip()
            if not name:
                yield Finding("davis.list", where, "is empty")
            elif name in seen:
                yield Finding("davis.list", where, f"names {name!r} twice")
            elif name not in sequences:
                yield Finding("davis.list", where, f"names {name!r}, which has no annotations")
            seen.add(name)
        listed |= seen
    for name in sorted(sequences):
        if lists and name not in listed:
            yield Finding("davis.list", name, "is in no list of ImageSets/2017", WARNING)
        yield from _check_sequence(folder, root / name)


def _check_sequence(folder: Path, path: Path) -> Iterator[Finding]:
    images = folder / "JPEGImages" / "480p" / path.name
    size: tuple[int, ...] | None = None
    first: set[int] | None = None
    name = path.relative_to(folder).as_posix()
    pngs = list(files(path, ".png"))
    if not pngs:
        yield Finding("davis.layout", name, "holds no PNG")
    for png in pngs:
        at = png.relative_to(folder).as_posix()
        try:
            ids = png_values(png, ("P",))
        except Problem as problem:
            yield Finding("davis.png", at, str(problem))
            continue
        size = size or ids.shape
        if ids.shape != size:
            yield Finding(
                "davis.png",
                at,
                f"is {ids.shape[1]}x{ids.shape[0]}, the sequence {size[1]}x{size[0]}",
            )
        present = set(np.unique(ids).tolist()) - {0, VOID}
        if first is None:
            first = present
            yield from _check_first(at, present)
        elif present - first:
            late = ", ".join(map(str, sorted(present - first)))
            yield Finding(
                "davis.first", at, f"shows object {late}, which the first frame does not show"
            )
        yield from _check_image(images, png.stem, at, ids.shape)
    stems = [png.stem for png in pngs]
    if not all(stem.isdecimal() for stem in stems):
        odd = next(stem for stem in stems if not stem.isdecimal())
        yield Finding("davis.names", name, f"has a frame called {odd!r}, want a number", WARNING)
    elif [int(stem) for stem in stems] != sorted({int(stem) for stem in stems}):
        yield Finding("davis.names", name, "has frames whose names do not sort as their numbers")


def _check_first(at: str, present: set[int]) -> Iterator[Finding]:
    if not present:
        yield Finding("davis.first", at, "shows no object; the evaluator would find none")
        return
    missing = sorted(set(range(1, max(present) + 1)) - present)
    if missing:
        gaps = ", ".join(map(str, missing))
        yield Finding(
            "davis.ids", at, f"has ids up to {max(present)} but not {gaps}: counted as perfect"
        )


def _check_image(images: Path, stem: str, at: str, shape: tuple[int, ...]) -> Iterator[Finding]:
    if not images.parent.is_dir():
        return
    image = images / f"{stem}.jpg"
    if not image.is_file():
        image = images / f"{stem}.png"
    if not image.is_file():
        yield Finding("davis.images", at, f"has no image {images.name}/{stem}.jpg")
        return
    try:
        if image_size(image) != (shape[1], shape[0]):
            yield Finding("davis.images", at, "has an image of another size")
    except Problem as problem:
        yield Finding("davis.images", at, f"its image {problem}")
