"""Outlines of masks along pixel edges, with holes, for Label Studio's polygons.

An outline runs on the corners of pixels, so that the filled polygon covers exactly the mask's
pixels before simplification. Outer rings run clockwise (in image axes), holes the other way.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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

    Parts and holes below `min_area` pixels are left out, but never the largest part.
    """
    rings = [(_signed_area(ring), ring) for ring in _rings(mask)]
    outer = sorted((r for r in rings if r[0] > 0), key=lambda r: -r[0])
    outer = outer[:1] + [r for r in outer[1:] if r[0] >= min_area]
    holes: list[list[Ring]] = [[] for _ in outer]
    for area, ring in rings:
        if area < 0 and -area >= min_area:
            owner = _owner(ring, [r for _, r in outer])
            if owner is not None:
                holes[owner].append(_simplify(ring, tolerance))
    return [
        Outline(_simplify(ring, tolerance), tuple(h for h in holes[i] if len(h) >= 3))
        for i, (_, ring) in enumerate(outer)
    ]


def _rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """Closed paths along the edges between set and clear pixels, foreground on their right."""
    padded = np.pad(mask.astype(bool), 1)
    starts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # rightwards along a pixel's top edge, leftwards along its bottom edge, and so on
    steps = (
        (padded[1:, :] & ~padded[:-1, :], (0, 0), (1, 0)),
        (padded[:-1, :] & ~padded[1:, :], (1, 0), (-1, 0)),
        (padded[:, :-1] & ~padded[:, 1:], (0, 0), (0, 1)),
        (padded[:, 1:] & ~padded[:, :-1], (0, 1), (0, -1)),
    )
    for k, (edges, (dx, dy), step) in enumerate(steps):
        ys, xs = np.nonzero(edges)
        # indices count from the padding; corner (0, 0) is the image's top-left
        xs, ys = (xs - 1 + dx, ys + dy) if k < 2 else (xs + dx, ys - 1 + dy)
        for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
            starts.setdefault((x, y), []).append(step)
    rings: list[Ring] = []
    while starts:
        rings.append(_walk(starts))
    return rings


def _walk(starts: dict[tuple[int, int], list[tuple[int, int]]]) -> Ring:
    """Take one closed path out of `starts`; where two meet, turn right: diagonals stay apart."""
    origin = next(iter(starts))
    here, heading = origin, starts[origin][0]
    corners: list[tuple[int, int]] = []
    last: tuple[int, int] | None = None
    while True:
        choices = starts[here]
        if last is not None and len(choices) > 1:
            right = (-last[1], last[0])
            heading = right if right in choices else choices[0]
        else:
            heading = choices[0]
        choices.remove(heading)
        if not choices:
            del starts[here]
        if heading != last:
            corners.append(here)
        last = heading
        here = (here[0] + heading[0], here[1] + heading[1])
        if here == origin:
            break
    return np.asarray(corners, dtype=np.float64)


def _signed_area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _simplify(ring: Ring, tolerance: float) -> Ring:
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    short = cv2.approxPolyDP(ring.astype(np.float32).reshape(-1, 1, 2), tolerance, True)
    points = np.asarray(short, dtype=np.float64).reshape(-1, 2)
    return points if len(points) >= 3 else ring


def _owner(hole: Ring, outer: list[Ring]) -> int | None:
    """Index of the smallest outer ring that contains a hole (rings come largest first)."""
    # a point just inside the hole: half a pixel to the clear side of its first edge
    edge = hole[1] - hole[0]
    edge = edge / np.abs(edge).max()
    x, y = (hole[0] + edge / 2 + np.array([edge[1], -edge[0]]) / 2).tolist()
    for i in range(len(outer) - 1, -1, -1):
        polygon = outer[i].astype(np.float32).reshape(-1, 1, 2)
        if cv2.pointPolygonTest(polygon, (float(x), float(y)), False) >= 0:
            return i
    return None
