"""What a validator reports, and the checks that several formats share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.masks import RLE

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """rule: key of the format's `RULES`. where: file, with line or id. message: one sentence."""

    rule: str
    where: str
    message: str
    severity: str = ERROR

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "rule": self.rule,
            "where": self.where,
            "message": self.message,
        }


class Problem(Exception):
    """Why a value breaks a rule; turned into a finding by the one who knows where it stands."""


def run_lengths(counts: Any) -> NDArray[np.int64]:
    """The run lengths behind COCO `counts`: a list, or pycocotools' compressed string.

    Decoded here and not by pycocotools, which trusts its input. Raises Problem.
    """
    if isinstance(counts, list):
        if not all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
            raise Problem("has counts that are not whole numbers")
        return np.asarray(counts, dtype=np.int64)
    if not isinstance(counts, str) or not counts.isascii():
        raise Problem(f"has counts of type {type(counts).__name__}, want a list or an ASCII text")
    digits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if ((digits < 0) | (digits > 63)).any():
        raise Problem("has counts with a character that no run length is written with")
    last = digits & 32 == 0
    if len(digits) and not last[-1]:
        raise Problem("has counts that end inside a number")
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(digits) else digits
    group = np.cumsum(np.concatenate([[0], last[:-1]]))[: len(digits)]
    place = np.arange(len(digits)) - starts[group]
    if (place > 6).any():
        raise Problem("has counts with a number too large for any image")
    runs = np.add.reduceat((digits & 31) << (5 * place), starts) if len(digits) else digits
    runs = runs - np.where(digits[last] & 16 > 0, np.int64(1) << (5 * (place[last] + 1)), 0)
    # From the fourth on, each number is the difference to the one two before.
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return np.asarray(runs)


def checked_rle(segmentation: Any, height: int, width: int) -> RLE:
    """A COCO RLE dict as an RLE, its size and run lengths found sound. Raises Problem."""
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise Problem("is not a run-length mask with size and counts")
    if segmentation.get("size") != [height, width]:
        raise Problem(
            f"has size {segmentation.get('size')}, want [height, width] = [{height}, {width}]"
        )
    runs = run_lengths(segmentation["counts"])
    if (runs < 0).any():
        raise Problem("has a negative run length")
    if int(runs.sum()) != height * width:
        raise Problem(
            f"has run lengths that add up to {int(runs.sum())}, want {height} x {width} = "
            f"{height * width}"
        )
    return RLE.from_coco(segmentation)


def box_problem(rle: RLE, bbox: Any) -> str | None:
    """Why `bbox` is not [x, y, w, h] of the mask, with w = xmax - xmin + 1."""
    box = rle.box
    if box is None:
        return None
    want = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_number, bbox)):
        return f"has bbox {bbox}, want {want}"
    if all(abs(a - b) < 1e-6 for a, b in zip(bbox, want, strict=True)):
        return None
    height, width = rle.size
    turned = RLE.encode(rle.decode().T.reshape(height, width)).box if rle.area else None
    if turned is not None and list(bbox) == [
        turned[0],
        turned[1],
        turned[2] - turned[0],
        turned[3] - turned[1],
    ]:
        return f"has bbox {bbox} but a mask of {want}: its run lengths seem to be row by row"
    return f"has bbox {bbox}, but its mask covers {want} (x, y, width, height)"


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_id(value: Any, least: int = 1) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header of an image file. Raises Problem."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError) as error:
        raise Problem(f"cannot be read as an image: {error}") from error


def png_values(path: Path, modes: tuple[str, ...]) -> NDArray[np.int64]:
    """Pixel values (H, W) of an indexed or grey PNG in one of the modes. Raises Problem."""
    try:
        with Image.open(path) as image:
            if image.format != "PNG":
                raise Problem(f"is a {image.format}, want a PNG")
            if image.mode not in modes:
                raise Problem(f"has mode {image.mode}, want {' or '.join(modes)}")
            return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError) as error:
        raise Problem(f"cannot be read as a PNG: {error}") from error


def folders(path: Path) -> list[Path]:
    """Sub-folders by name; hidden ones are not part of a dataset."""
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def files(path: Path, *suffixes: str) -> Iterator[Path]:
    """Files with one of the suffixes by name, hidden ones left out."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.is_file() and file.suffix.lower() in suffixes and file.name[0] != ".":
                yield file
