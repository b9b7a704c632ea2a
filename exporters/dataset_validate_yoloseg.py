"""Rules of YOLO segmentation labels, as ultralytics and supervision need them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from .dataset_findings import WARNING, Finding, files

RULES = {
    "yoloseg.layout": "labels/ and data.yaml are there",
    "yoloseg.yaml": "data.yaml has train, val and names counted from 0",
    "yoloseg.row": "a row is a class and x y pairs of numbers",
    "yoloseg.class": "a class is one of names, counted from 0",
    "yoloseg.points": "a ring has three points or more",
    "yoloseg.range": "coordinates are from 0 to 1",
    "yoloseg.area": "a ring encloses something, unless it is a single pixel or line",
    "yoloseg.images": "images/ mirrors labels/: each label file has its image and back",
}
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def check(folder: Path) -> Iterator[Finding]:
    names: dict[int, str] = {}
    if (folder / "data.yaml").is_file():
        text = (folder / "data.yaml").read_text(encoding="utf-8")
        yield from _check_yaml(text, names)
    else:
        yield Finding("yoloseg.layout", "data.yaml", "is missing")
    labels = folder / "labels"
    if not labels.is_dir():
        yield Finding("yoloseg.layout", "labels/", "is missing")
        return
    mirrored = (folder / "images").is_dir()
    for path in sorted(labels.rglob("*.txt")):
        yield from _check_labels(folder, path, names)
        stem = folder / "images" / path.relative_to(labels)
        if mirrored and not any(stem.with_suffix(suffix).is_file() for suffix in IMAGES):
            where = path.relative_to(folder).as_posix()
            yield Finding("yoloseg.images", where, "has no image at the same path in images/")
    if mirrored:
        for parent in sorted({p.parent for p in (folder / "images").rglob("*") if p.is_file()}):
            for image in files(parent, *IMAGES):
                label = labels / image.relative_to(folder / "images").with_suffix(".txt")
                if not label.is_file():
                    where = image.relative_to(folder).as_posix()
                    yield Finding("yoloseg.images", where, "has no label file: a negative", WARNING)


def class_names(folder: Path) -> dict[int, str]:
    """Names by class number of `data.yaml`, none if it is not there."""
    names: dict[int, str] = {}
    path = folder / "data.yaml"
    if path.is_file():
        for _ in _check_yaml(path.read_text(encoding="utf-8"), names):
            pass
    return names


def _check_yaml(text: str, names: dict[int, str]) -> Iterator[Finding]:
    """The plain subset of YAML that data.yaml is written in: scalars, a list or a map of names."""
    keys: set[str] = set()
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"data.yaml, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        top = re.match(r"([A-Za-z_]+):\s*(.*)$", line)
        if top:
            keys.add(top[1])
            inside = top[1] == "names"
            if inside and top[2].startswith("["):
                listed = [part.strip(" '\"") for part in top[2].strip("[] ").split(",")]
                names.update(enumerate(listed))
        elif inside and (entry := re.match(r"\s+(\d+):\s*(.+)$", line)):
            names[int(entry[1])] = _scalar(entry[2])
        elif inside and (item := re.match(r"\s*-\s*(.+)$", line)):
            names[len(names)] = _scalar(item[1])
        elif inside:
            yield Finding("yoloseg.yaml", where, "is not `number: name`")
    for key in ("train", "val", "names"):
        if key not in keys:
            yield Finding("yoloseg.yaml", "data.yaml", f"has no {key}")
    if names and sorted(names) != list(range(len(names))):
        yield Finding(
            "yoloseg.yaml", "data.yaml", f"numbers its names {sorted(names)}, want 0, 1, …"
        )


def _scalar(text: str) -> str:
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        return text.strip("'\"")


def _check_labels(folder: Path, path: Path, names: dict[int, str]) -> Iterator[Finding]:
    name = path.relative_to(folder).as_posix()
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            where, fields = f"{name}, line {number}", line.split()
            if not fields:
                yield Finding("yoloseg.row", where, "is empty", WARNING)
                continue
            try:
                values = [float(field) for field in fields[1:]]
            except ValueError:
                yield Finding("yoloseg.row", where, "holds something that is not a number")
                continue
            if not fields[0].isdecimal() or (names and int(fields[0]) not in names):
                yield Finding(
                    "yoloseg.class", where, f"has class {fields[0]}, data.yaml names {len(names)}"
                )
            if len(values) < 6 or len(values) % 2:
                yield Finding(
                    "yoloseg.points", where, f"has {len(values)} coordinates, want 3 or more pairs"
                )
                continue
            if not all(math.isfinite(v) and 0 <= v <= 1 for v in values):
                bad = next(v for v in values if not (math.isfinite(v) and 0 <= v <= 1))
                yield Finding("yoloseg.range", where, f"has a coordinate {bad:g}, want 0 to 1")
            elif _area(values) == 0:
                yield Finding("yoloseg.area", where, "encloses nothing: a point or a line", WARNING)


def _area(values: list[float]) -> float:
    """Twice the enclosed area (shoelace), rounded so that a line is exactly 0."""
    xs, ys = values[::2], values[1::2]
    total = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return round(abs(total), 12)
