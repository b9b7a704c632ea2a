"""Outlines of masks along pixel edges, with holes, for Label Studio's polygons.

An outline runs on the corners of pixels, so that the filled polygon covers exactly the mask's
pixels before simplification.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.masks import mask_to_box

Ring = NDArray[np.float64]  # (N, 2) x, y in pixels, not repeating the first point


@dataclass(frozen=True)
class Outline:
    """One connected part of a mask: its outer ring and the rings of its holes."""

    outer: Ring
    holes: tuple[Ring, ...]

    def bridged(self) -> Ring:
        """One ring that goes round the part and, over bridges of no width, round each hole."""
        ring = self.outer
        for hole in self.holes:
            distance = ((ring[:, None, :] - hole[None, :, :]) ** 2).sum(axis=2)
            i, j = (int(v) for v in np.unravel_index(int(distance.argmin()), distance.shape))
            around = np.concatenate([hole[j:], hole[: j + 1]])
            ring = np.concatenate([ring[: i + 1], around, ring[i:]])
        return ring


def outlines(mask: NDArray[np.bool_], tolerance: float, min_area: float = 0.0) -> list[Outline]:
    """Parts of a (H, W) mask, the largest first, simplified by at most `tolerance` pixels.

    Parts (connected over corners too) and holes below `min_area` pixels are left out, but never
    the largest part.
    """
    box = mask_to_box(mask)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    parts: list[tuple[float, Outline]] = []
    for outer, holes in _rings(mask[y0:y1, x0:x1]):
        kept = [h for h in holes if _area(h) >= min_area]
        outline = Outline(
            _simplify(outer, tolerance) + (x0, y0),
            tuple(_simplify(h, tolerance) + (x0, y0) for h in kept),
        )
        parts.append((_area(outer), outline))
    parts.sort(key=lambda part: -part[0])
    return [outline for i, (area, outline) in enumerate(parts) if i == 0 or area >= min_area]


def _rings(mask: NDArray[np.bool_]) -> list[tuple[Ring, list[Ring]]]:
    """(outer ring, rings of its holes) of each part, on the corners of pixels.

    OpenCV follows the centres of border pixels. On the mask doubled in size these are quarters of
    pixels, and the corner nearest to a quarter is the corner of the outline that it lies at.
    """
    doubled = cv2.copyMakeBorder(
        np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1), 2, 2, 2, 2, 0
    )
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    found: dict[int, tuple[Ring, list[Ring]]] = {}
    holes: list[tuple[int, Ring]] = []
    for i, contour in enumerate(contours):
        ring = _corners(np.asarray(contour, dtype=np.int32).reshape(-1, 2) - 2)
        parent = int(hierarchy[0, i, 3])
        if parent < 0:
            found[i] = (ring, [])
        else:
            holes.append((parent, ring))
    for parent, ring in holes:
        found[parent][1].append(ring)
    return list(found.values())


def _corners(quarters: NDArray[np.int32]) -> Ring:
    """Snap to pixel corners; drop repeats and points in the middle of straight lines."""
    points = (quarters + 1) // 2
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    bends = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0  # a hair that goes out and returns
    return np.asarray(points[bends | back], dtype=np.float64)


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2))


def _simplify(ring: Ring, tolerance: float) -> Ring:
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    short = cv2.approxPolyDP(ring.astype(np.float32).reshape(-1, 1, 2), tolerance, True)
    points = np.asarray(short, dtype=np.float64).reshape(-1, 2)
    return points if len(points) >= 3 else ring
