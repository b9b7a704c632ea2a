"""Outlines: closed curves in object units, where an object spans about -1..1.

A shape is a list of contours (n, 2) float32; where two overlap they cut each other out (even-odd),
which is how rings and handles get their holes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Contour = NDArray[np.float32]
Shape = list[Contour]


def ellipse(
    width: float, height: float, at: tuple[float, float] = (0, 0), count: int = 48
) -> Contour:
    """Ellipse with half axes `width`, `height`."""
    return superellipse(width, height, 2.0, at, count)


def superellipse(
    width: float, height: float, power: float, at: tuple[float, float] = (0, 0), count: int = 64
) -> Contour:
    """|x/w|^p + |y/h|^p = 1: 2 is an ellipse, 4 and more a box with round corners."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    x = width * np.sign(c) * np.abs(c) ** (2 / power) + at[0]
    y = height * np.sign(s) * np.abs(s) ** (2 / power) + at[1]
    return np.stack([x, y], axis=1).astype(np.float32)


def capsule(start: float, end: float, length: float, bend: float = 0.0, count: int = 12) -> Contour:
    """A limb along +x from 0 to `length`; half widths `start`, `end`; `bend` bows it sideways."""
    t = np.linspace(-np.pi / 2, np.pi / 2, count)
    right = np.stack([length + end * np.cos(t), end * np.sin(t)], axis=1)
    left = np.stack([-start * np.cos(t), -start * np.sin(t)], axis=1)
    u = np.linspace(0, 1, 8)[1:-1]
    lower = np.stack([length * (1 - u), end + (start - end) * u], axis=1)
    upper = np.stack([length * u, -(start + (end - start) * u)], axis=1)
    points = np.concatenate([right, lower, left, upper])
    x = np.clip(points[:, 0] / max(length, 1e-6), 0, 1)
    points[:, 1] += bend * length * (4 * x * (1 - x))
    return points.astype(np.float32)


def smooth_blob(rng: Generator, roughness: float = 0.3, count: int = 72) -> Contour:
    """A closed Fourier curve around the origin."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    orders = np.arange(1, 8)
    scale = roughness / orders**1.1
    a, b = rng.normal(size=(2, len(orders))) * scale
    radius = 1 + (
        a[:, None] * np.cos(orders[:, None] * t) + b[:, None] * np.sin(orders[:, None] * t)
    ).sum(0)
    radius = np.clip(radius, 0.25, 2)
    aspect = np.exp(rng.normal(0, 0.35))
    points = np.stack([radius * np.cos(t) * aspect, radius * np.sin(t)], axis=1)
    return turn((points / np.abs(points).max()).astype(np.float32), rng.uniform(0, 6.28))


def polygon(rng: Generator) -> Contour:
    """A random star-shaped polygon with straight edges."""
    count = int(rng.integers(3, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count)) * 0.4 + 0.6 * np.linspace(
        0, 2 * np.pi, count, endpoint=False
    )
    radius = rng.uniform(0.55, 1, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def roughen(rng: Generator, points: Contour, amount: float) -> Contour:
    """A hairy or leafy edge: every outline point is pushed about by up to `amount` units."""
    following = np.roll(points, -1, axis=0)
    dense = np.concatenate([points, (points * 2 + following) / 3, (points + following * 2) / 3], 1)
    dense = dense.reshape(-1, 2)
    return (dense + rng.normal(0, amount, dense.shape)).astype(np.float32)


def turn(
    points: Contour, angle: float, at: tuple[float, float] = (0, 0), scale: float = 1.0
) -> Contour:
    """Rotate by `angle` radians, scale and move."""
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return np.asarray(points @ np.array([[c, s], [-s, c]]) + at, np.float32)


def _blob(rng: Generator) -> Shape:
    return [smooth_blob(rng, rng.uniform(0.1, 0.5))]


def _polygon(rng: Generator) -> Shape:
    return [polygon(rng)]


def _box(rng: Generator) -> Shape:
    return [superellipse(1, rng.uniform(0.3, 1), rng.uniform(3, 12))]


def _round(rng: Generator) -> Shape:
    return [ellipse(1, rng.uniform(0.4, 1))]


def _capsule(rng: Generator) -> Shape:
    width = rng.uniform(0.04, 0.35)
    limb = capsule(width, width * rng.uniform(0.4, 1.3), 1.7, rng.normal(0, 0.3), 16)
    return [limb - np.array([0.85, 0], np.float32)]


def _ring(rng: Generator) -> Shape:
    inner = rng.uniform(0.4, 0.8)
    squash = rng.uniform(0.5, 1)
    return [ellipse(1, squash), ellipse(inner, squash * inner, (rng.normal(0, 0.05), 0))]


def _drop(rng: Generator) -> Shape:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    sharp = rng.uniform(1, 3)
    y = np.sin(t) * np.abs(np.sin(t / 2)) ** sharp * rng.uniform(0.5, 1.1)
    return [np.stack([np.cos(t), y], axis=1).astype(np.float32)]


def _union(rng: Generator) -> Shape:
    """A lump of two overlapping blobs drawn as one outline (concave)."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    lobes = int(rng.integers(2, 6))
    radius = 1 + rng.uniform(0.2, 0.55) * np.cos(lobes * t + rng.uniform(0, 6)) + 0.1 * np.cos(t)
    return [
        (np.stack([radius * np.cos(t), radius * np.sin(t) * rng.uniform(0.5, 1)], 1) / 1.6).astype(
            np.float32
        )
    ]


def _gear(rng: Generator) -> Shape:
    t = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    teeth = int(rng.integers(6, 14))
    radius = 1 - rng.uniform(0.15, 0.3) * (np.sin(teeth * t) > 0)
    hole = rng.uniform(0.15, 0.5)
    outer = np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1).astype(np.float32)
    return [outer, ellipse(hole, hole)]


def _crescent(rng: Generator) -> Shape:
    t = np.linspace(-2.2, 2.2, 40)
    outer = np.stack([np.cos(t), np.sin(t)], axis=1)
    shift = rng.uniform(0.25, 0.5)
    inner = np.stack([np.cos(t[::-1]) * 0.8 - shift, np.sin(t[::-1]) * 0.92], axis=1)
    return [np.concatenate([outer, inner]).astype(np.float32)]


def _cross(rng: Generator) -> Shape:
    a = rng.uniform(0.2, 0.5)
    arms = [
        (a, -1),
        (a, -a),
        (1, -a),
        (1, a),
        (a, a),
        (a, 1),
        (-a, 1),
        (-a, a),
        (-1, a),
        (-1, -a),
        (-a, -a),
        (-a, -1),
    ]
    return [np.array(arms, np.float32)]


TRAIN_SHAPES: dict[str, Callable[[Generator], Shape]] = {
    "blob": _blob, "polygon": _polygon, "box": _box, "round": _round, "capsule": _capsule,
    "ring": _ring, "drop": _drop, "union": _union,
}  # fmt: skip
HELDOUT_SHAPES: dict[str, Callable[[Generator], Shape]] = {
    "gear": _gear, "crescent": _crescent, "cross": _cross
}  # fmt: skip
