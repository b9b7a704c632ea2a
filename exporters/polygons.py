"""Masks as rings of points, for the two ways that readers draw them.

COCO readers (pycocotools) fill along pixel edges, so `coco_polygons` walks the edges between
pixels. YOLO readers fill with OpenCV through pixel centres and draw the outline too, so
`center_ring` walks the centres of border pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.masks import Mask

Point = tuple[int, int]


def coco_polygons(mask: Mask) -> list[list[float]]:
    """One ring [x0, y0, x1, y1, …] per 4-connected part of a (H, W) mask, on pixel corners.

    A hole is joined to its surrounding ring by a slit of no width, because COCO has no holes:
    readers that fill by the even-odd rule, as pycocotools does, get the exact mask back. A ring
    of corners is exact in itself: a 1 x 1 pixel is the square (x, y) … (x + 1, y + 1).
    """
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    polygons = []
    for number in range(1, count):
        part = parts == number
        rows, cols = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        top, left = int(rows[0]), int(cols[0])
        rings = _edge_rings(part[top : rows[-1] + 1, left : cols[-1] + 1])
        ring = _merge_holes(rings)
        polygons.append([float(v) for x, y in ring for v in (x + left, y + top)])
    return polygons


def _edge_rings(part: Mask) -> list[list[Point]]:
    """The outer ring (first) and the holes of one part, as corners where the direction turns."""
    padded = np.pad(part, 1).astype(np.int8)
    follow: dict[Point, list[Point]] = {}
    # Directed so that the mask lies to the right: east along top edges, south along right ones.
    across = np.diff(padded[:, 1:-1], axis=0)  # (H + 1, W): +1 where a row of mask begins
    for y, x in np.argwhere(across == 1).tolist():
        follow.setdefault((x, y), []).append((x + 1, y))
    for y, x in np.argwhere(across == -1).tolist():
        follow.setdefault((x + 1, y), []).append((x, y))
    along = np.diff(padded[1:-1], axis=1)  # (H, W + 1)
    for y, x in np.argwhere(along == -1).tolist():
        follow.setdefault((x, y), []).append((x, y + 1))
    for y, x in np.argwhere(along == 1).tolist():
        follow.setdefault((x, y + 1), []).append((x, y))
    rings = []
    while follow:
        # The first corner in reading order lies on the outer ring, or later on a hole's top.
        start = min(follow, key=lambda corner: (corner[1], corner[0]))
        rings.append(_walk(follow, start))
    return rings


def _walk(follow: dict[Point, list[Point]], start: Point) -> list[Point]:
    """Follow the edges from `start` until it closes, removing them; corners of turns only."""
    here, came = start, (0, 0)
    ring: list[Point] = []
    while True:
        options = follow[here]
        # Where two edges leave one corner, two pixels touch diagonally: turn right, so that the
        # ring stays on its own pixel and never crosses itself.
        there = min(options, key=lambda p: _turn(came, (p[0] - here[0], p[1] - here[1])))
        options.remove(there)
        if not options:
            del follow[here]
        heading = (there[0] - here[0], there[1] - here[1])
        if heading != came:
            ring.append(here)
        here, came = there, heading
        if here == start:
            return ring


def _turn(came: Point, heading: Point) -> int:
    """-1 for a right turn on a screen (y down), 0 straight on, 1 left."""
    return came[1] * heading[0] - came[0] * heading[1]


def _merge_holes(rings: list[list[Point]]) -> list[Point]:
    """One ring: each hole is entered and left along a horizontal slit to the ring on its left."""
    outer, *holes = rings
    merged = outer
    for hole in sorted(holes, key=lambda ring: min(ring)):
        entry = min(hole)  # its leftmost corner, so nothing but the merged ring lies to the left
        at = hole.index(entry)
        index, landing = _edge_left_of(merged, entry)
        loop = [*hole[at:], *hole[: at + 1]]
        merged = [*merged[: index + 1], landing, *loop, landing, *merged[index + 1 :]]
    return merged


def _edge_left_of(ring: list[Point], point: Point) -> tuple[int, Point]:
    """The vertical edge of `ring` that a ray from `point` to the left meets first: the index of
    its first corner, and where it is met."""
    x, y = point
    best: tuple[int, int] | None = None
    for i, (x0, y0) in enumerate(ring):
        x1, y1 = ring[(i + 1) % len(ring)]
        if x0 == x1 and x0 <= x and min(y0, y1) <= y <= max(y0, y1) and y0 != y1:
            if best is None or x0 > best[0]:
                best = (x0, i)
    assert best is not None, "a hole has a ring around it"
    return best[1], (best[0], y)


def center_ring(mask: Mask) -> NDArray[np.int32]:
    """One ring (N, 2) of pixel centres that OpenCV's fillPoly turns back into the (H, W) mask.

    Parts and holes are joined by bridges of two coinciding lines. fillPoly paints lines: a bridge
    across the object costs nothing, one across the background paints a line one pixel wide.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [contour[:, 0, :].astype(np.int32) for contour in contours]
    # The largest first: all others are attached to what is already there, nearest pair first.
    rings.sort(key=lambda ring: (-len(ring), ring.min(axis=0).tolist()))
    merged = rings[0]
    for ring in rings[1:]:
        merged = _bridge(merged, ring)
    return merged


def _bridge(merged: NDArray[np.int32], ring: NDArray[np.int32]) -> NDArray[np.int32]:
    deltas = merged[:, None, :].astype(np.int64) - ring[None, :, :]
    nearest = int(np.argmin((deltas**2).sum(axis=2)))
    i, j = divmod(nearest, len(ring))
    loop = np.concatenate([ring[j:], ring[: j + 1]])
    return np.concatenate([merged[: i + 1], loop, merged[i:]])


def draw_center_ring(ring: NDArray[np.int32], height: int, width: int) -> Mask:
    """What a reader that uses OpenCV makes of a ring, (H, W) bool."""
    canvas = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(canvas, [ring], color=(1,))
    return canvas.astype(bool)
