"""Masks as values: COCO run lengths, boxes of masks, clean-up of holes and specks.

The core speaks masks (H, W) bool and COCO RLE (column-major, background run first). Label
Studio's row-major RLE never reaches this module; `backend/brush.py` converts at the border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from edgetam_label.errors import UsageError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RLE:
    """A binary mask as a COCO run-length string.

    size: (height, width) in pixels.
    counts: pycocotools' compressed run lengths, ASCII bytes.
    """

    size: tuple[int, int]
    counts: bytes

    @classmethod
    def encode(cls, mask: Mask) -> RLE:
        """mask: (H, W), bool or 0/1. Raises UsageError on any other shape."""
        if mask.ndim != 2:
            raise UsageError(f"A mask must have shape (H, W), got {mask.shape}.")
        height, width = (int(v) for v in mask.shape)
        # an uncompressed list and the library's own compression: the same string as its encoder,
        # which looks at every pixel of the frame
        raw = coco_mask.frPyObjects(
            {"size": [height, width], "counts": _run_lengths(mask)}, height, width
        )
        return cls((height, width), bytes(raw["counts"]))

    @classmethod
    def empty(cls, height: int, width: int) -> RLE:
        return cls.encode(np.zeros((height, width), dtype=bool))

    @classmethod
    def from_coco(cls, segmentation: dict[str, Any]) -> RLE:
        """Read a COCO `segmentation` dict whose counts are a string, bytes, or a list of runs."""
        height, width = (int(v) for v in segmentation["size"])
        counts = segmentation["counts"]
        if isinstance(counts, str):
            return cls((height, width), counts.encode("ascii"))
        if isinstance(counts, bytes):
            return cls((height, width), counts)
        raw = coco_mask.frPyObjects(
            {"size": [height, width], "counts": list(counts)}, height, width
        )
        return cls((height, width), bytes(raw["counts"]))

    def to_coco(self) -> dict[str, Any]:
        """{"size": [h, w], "counts": str}, as a COCO file holds it."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}

    def decode(self) -> Mask:
        """(H, W) bool."""
        return np.asarray(coco_mask.decode(self._raw()), dtype=bool)

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        return int(coco_mask.area(self._raw()))

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Tight box (x0, y0, x1, y1), x1 and y1 exclusive; None for an empty mask."""
        if self.area == 0:
            return None
        x, y, w, h = (int(v) for v in coco_mask.toBbox(self._raw()))
        return x, y, x + w, y + h

    def iou(self, other: RLE) -> float:
        """Intersection over union; two empty masks agree fully (1.0)."""
        if self.size != other.size:
            raise UsageError(
                f"Masks of different sizes cannot be compared: {self.size}, {other.size}."
            )
        if self.area == 0 and other.area == 0:
            return 1.0
        return float(coco_mask.iou([self._raw()], [other._raw()], [0])[0, 0])

    def _raw(self) -> dict[str, Any]:
        return {"size": list(self.size), "counts": self.counts}


def _run_lengths(mask: Mask) -> list[int]:
    """Column-major run lengths, background first, looking only inside the mask's box."""
    height = mask.shape[0]
    box = mask_to_box(mask)
    if box is None:
        return [mask.size]
    x0, y0, x1, y1 = box
    # columns as rows, each between two background pixels: then every run begins and ends in it
    framed = np.zeros((x1 - x0, y1 - y0 + 2), dtype=bool)
    framed[:, 1:-1] = mask[y0:y1, x0:x1].T
    flat = framed.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), framed.shape[1])
    edges = (column + x0) * height + row + y0
    # a run over the lower end of a column goes on at the top of the next one
    ends, starts = edges[1:-1:2], edges[2::2]
    joined = 2 * np.flatnonzero(ends == starts)
    edges = np.delete(edges, np.concatenate([joined + 1, joined + 2]))
    runs: list[int] = np.diff(edges, prepend=0, append=mask.size).tolist()
    return runs if runs[-1] else runs[:-1]


def mask_to_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """Tight box (x0, y0, x1, y1) of a (H, W) mask, x1 and y1 exclusive; None if it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    cols = np.flatnonzero(mask[y0:y1].any(axis=0))
    return int(cols[0]), y0, int(cols[-1]) + 1, y1


def small_components(mask: Mask, max_area: int) -> Mask:
    """Pixels of `mask` in 8-connected components of at most `max_area` pixels, (H, W) bool."""
    if max_area <= 0 or not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    small = stats[:, cv2.CC_STAT_AREA] <= max_area
    small[0] = False
    return np.asarray(small[labels], dtype=bool)


def clean_mask(mask: Mask, max_hole_area: int = 0, max_speck_area: int = 0) -> Mask:
    """Fill background holes, then drop foreground specks, of at most the given areas in pixels.

    A mask whose only component is a speck is returned unchanged: removing it would lose the object.
    """
    filled = mask | small_components(~mask, max_hole_area)
    specks = small_components(filled, max_speck_area)
    return filled if (specks == filled).all() else filled & ~specks
