"""Refine the coarse meshes of models: round ones by Phong tessellation, angular ones as they are.

The pictures sort whole faces by depth, so faces must be small in either case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetam_label.training.figures.arrays import FloatArray, IntArray

ROUNDNESS = 0.5  # 1 would puff the faces up, 0 leaves them flat
SHARPEST = 0.2  # cosine between two normals from which on an edge between them is meant
LONGEST = 0.05  # edge of an angular mesh, in sizes of the whole
MOST_ROUNDS = 6  # of splitting: an edge of 64 times LONGEST would be longer than the whole


@dataclass(frozen=True)
class Surface:
    """points (V, 3) as posed, rest (V, 3) as before posing, triangles (F, 3), source (F,).

    source numbers the triangles of the model from which the fine ones came.
    """

    points: FloatArray
    rest: FloatArray
    triangles: IntArray
    source: IntArray


def welded(points: FloatArray, rest: FloatArray, triangles: IntArray) -> Surface:
    """A Surface whose vertices in one place are one; triangles without an area are left out."""
    step = max(float(np.ptp(points, axis=0).max()), 1e-12) * 1e-5
    _, first, number = np.unique(
        np.rint(points / step).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    joined = number.reshape(-1)[triangles]
    after = np.roll(joined, -1, axis=1)
    kept = np.flatnonzero((joined != after).all(axis=1))
    return Surface(points[first], rest[first], joined[kept], kept)


def vertex_normals(points: FloatArray, triangles: IntArray) -> FloatArray:
    """Unit normals (V, 3), averaged over the triangles around by their areas; 0 where none is."""
    first, second, third = (points[triangles[:, corner]] for corner in range(3))
    flat = np.cross(second - first, third - first)
    corners = triangles.ravel()
    total = np.stack(
        [np.bincount(corners, np.repeat(flat[:, axis], 3), len(points)) for axis in range(3)],
        axis=1,
    )
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))


def rounded(surface: Surface, rounds: int) -> Surface:
    """Each triangle split into four, rounds times, the new points moved out to a round surface."""
    for _ in range(rounds):
        points, count = surface.points, len(surface.points)
        normals = vertex_normals(points, surface.triangles)
        after = np.roll(surface.triangles, -1, axis=1)
        keys = np.minimum(surface.triangles, after) * count + np.maximum(surface.triangles, after)
        edges, edge_of = np.unique(keys, return_inverse=True)
        start, end = edges // count, edges % count
        middle = (points[start] + points[end]) / 2
        lifts = [
            np.einsum("ei,ei->e", points[side] - middle, normals[side])[:, None] * normals[side]
            for side in (start, end)
        ]
        smooth = np.einsum("ei,ei->e", normals[start], normals[end]) > SHARPEST
        # each end's tangent plane lies this far from the middle; the mean is Phong tessellation
        middle += ROUNDNESS * np.where(smooth[:, None], (lifts[0] + lifts[1]) / 2, 0.0)
        edge = count + edge_of.reshape(-1, 3)
        surface = Surface(
            np.concatenate([points, middle]),
            np.concatenate([surface.rest, (surface.rest[start] + surface.rest[end]) / 2]),
            _quarters(surface.triangles, edge),
            np.repeat(surface.source, 4),
        )
    return surface


def _quarters(triangles: IntArray, edge: IntArray) -> IntArray:
    """(4 F, 3): edge[f, c] is the vertex between the corners c and c + 1 of triangle f."""
    first, second, third = triangles.T
    one, two, three = edge.T
    quarters = [[first, one, three], [one, second, two], [three, two, third], [one, two, three]]
    return np.array(quarters).transpose(2, 0, 1).reshape(-1, 3)


def cut_small(surface: Surface) -> Surface:
    """The same flat faces in pieces: triangles with an edge over LONGEST sizes are split in four.

    Vertices are not shared between a split triangle and its neighbours, which leaves no gaps as
    nothing moves, and keeps edges sharp.
    """
    limit = LONGEST * float(np.ptp(surface.points, axis=0).max())
    for _ in range(MOST_ROUNDS):
        corners = surface.points[surface.triangles]
        long = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2).max(axis=1) > limit
        if not long.any():
            break
        split = surface.triangles[long]
        start, end = split.ravel(), np.roll(split, -1, axis=1).ravel()
        edge = len(surface.points) + np.arange(len(start)).reshape(-1, 3)
        surface = Surface(
            np.concatenate([surface.points, (surface.points[start] + surface.points[end]) / 2]),
            np.concatenate([surface.rest, (surface.rest[start] + surface.rest[end]) / 2]),
            np.concatenate([surface.triangles[~long], _quarters(split, edge)]),
            np.concatenate([surface.source[~long], np.repeat(surface.source[long], 4)]),
        )
    return surface
