"""Grey fields: tileable (256, 256) uint8 noise, cells, stripes, weaves, lettering, by family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
FIELD_SIZE = 256

#: Families that training draws from; `PLAIN` and the photographs come on top in both splits.
TRAIN_FAMILIES = (
    "fractal", "clouds", "cells", "facets", "stripes", "fur", "fabric", "marks", "speckle", "blotch"
)  # fmt: skip
#: Kept out of training, so that a held-out measure tells about unseen textures.
HELDOUT_FAMILIES = ("checks", "marble", "crackle", "scales")


def _spectrum(rng: Generator, weight: NDArray[np.float64]) -> Image:
    """Tileable noise with the given spectral weight, spread evenly over 0..255."""
    noise = np.fft.fft2(rng.normal(size=(FIELD_SIZE, FIELD_SIZE)))
    return _equalise(np.real(np.fft.ifft2(noise * weight)))


def _equalise(values: NDArray[np.float64]) -> Image:
    order = np.argsort(np.argsort(values, axis=None)).reshape(values.shape)
    return (order * (255.0 / (values.size - 1))).astype(np.uint8)


def _frequencies() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    freq = np.fft.fftfreq(FIELD_SIZE) * FIELD_SIZE
    return np.meshgrid(freq, freq)


def grain(rng: Generator) -> Image:
    """Nearly white noise: structure that is strongest at the finest scale."""
    kx, ky = _frequencies()
    return _spectrum(rng, 1 / np.maximum(np.hypot(kx, ky), 1) ** rng.uniform(0.3, 0.95))


def fractal(rng: Generator) -> Image:
    kx, ky = _frequencies()
    return _spectrum(rng, 1 / np.maximum(np.hypot(kx, ky), 1) ** rng.uniform(0.9, 1.6))


def clouds(rng: Generator) -> Image:
    kx, ky = _frequencies()
    return _spectrum(rng, 1 / np.maximum(np.hypot(kx, ky), 1) ** rng.uniform(1.8, 2.6))


def _fur(rng: Generator) -> Image:
    kx, ky = _frequencies()
    along, across = rng.uniform(6, 14), rng.uniform(0.7, 1.6)
    weight = np.exp(-((kx * along / 80) ** 2 + (ky * across / 80) ** 2))
    return _bend(_spectrum(rng, weight), rng, rng.uniform(4, 12))


def folds(rng: Generator) -> Image:
    """Creases as in clothes: long soft ridges that wander."""
    kx, ky = _frequencies()
    radius = rng.uniform(2, 7)
    weight = (
        np.exp(-(((kx - radius) / 2.5) ** 2 + (ky / 1.8) ** 2))
        / np.maximum(np.hypot(kx, ky), 1) ** 0.3
    )
    return _bend(_spectrum(rng, weight), rng, rng.uniform(5, 20))


def relief(field: Image, depth: float) -> Image:
    """A field as brightness: 128 on average, up to `depth` more or less."""
    return np.asarray(128 + depth * (field.astype(np.float32) / 127.5 - 1), np.uint8)


def _blotch(rng: Generator) -> Image:
    kx, ky = _frequencies()
    radius, width = rng.uniform(4, 14), rng.uniform(1, 3)
    return _spectrum(rng, np.exp(-(((np.hypot(kx, ky) - radius) / width) ** 2)))


def _bend(field: Image, rng: Generator, amount: float) -> Image:
    """Distort a field smoothly without breaking its tiling."""
    t = np.arange(FIELD_SIZE) * (2 * np.pi / FIELD_SIZE)
    x, y = np.meshgrid(t, t)
    cycles = rng.integers(1, 4, 4)
    phase = rng.uniform(0, 2 * np.pi, 4)
    dx = np.sin(cycles[0] * y + phase[0]) + 0.5 * np.sin(cycles[1] * x + phase[1])
    dy = np.sin(cycles[2] * x + phase[2]) + 0.5 * np.sin(cycles[3] * y + phase[3])
    columns, rows = np.meshgrid(np.arange(FIELD_SIZE), np.arange(FIELD_SIZE))
    map_x = (columns + amount * dx).astype(np.float32)
    map_y = (rows + amount * dy).astype(np.float32)
    bent = cv2.remap(field, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(bent, np.uint8)


def _nearest_seed(rng: Generator, count: int) -> tuple[Image, Image]:
    """Distance to the nearest of `count` random points and its number, on a torus."""
    points = rng.integers(0, FIELD_SIZE, (count, 2))
    blank = np.full((3 * FIELD_SIZE, 3 * FIELD_SIZE), 255, np.uint8)
    for dy in range(3):
        for dx in range(3):
            blank[points[:, 1] + dy * FIELD_SIZE, points[:, 0] + dx * FIELD_SIZE] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        blank, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    middle = slice(FIELD_SIZE, 2 * FIELD_SIZE)
    return distance[middle, middle], labels[middle, middle]


def _cells(rng: Generator) -> Image:
    distance, _ = _nearest_seed(rng, int(rng.integers(15, 250)))
    return np.asarray(np.clip(distance * (255 / distance.max()), 0, 255), np.uint8)


def _facets(rng: Generator) -> Image:
    _, labels = _nearest_seed(rng, int(rng.integers(12, 160)))
    shade = rng.integers(0, 256, int(labels.max()) + 1)
    return cv2.GaussianBlur(shade[labels].astype(np.uint8), (3, 3), 0.7)


def _stripes(rng: Generator) -> Image:
    cycles = int(rng.integers(4, 26))
    wave = np.sin(np.arange(FIELD_SIZE) * (2 * np.pi * cycles / FIELD_SIZE))
    second = np.sin(np.arange(FIELD_SIZE) * (2 * np.pi * rng.integers(2, 9) / FIELD_SIZE))
    line = wave + rng.uniform(0, 0.8) * second
    sharp = rng.uniform(0.8, 8)
    row = (127.5 + 127.5 * np.tanh(sharp * line)).astype(np.uint8)
    return _bend(np.tile(row, (FIELD_SIZE, 1)), rng, float(rng.choice([0, 2, 10])))


def _fabric(rng: Generator) -> Image:
    t = np.arange(FIELD_SIZE) * (2 * np.pi / FIELD_SIZE)
    x, y = np.meshgrid(t, t)
    n = int(rng.integers(18, 60))
    weave = np.sin(n * x) * np.sin(n * y) + rng.uniform(0, 1) * np.sin(n * (x + y))
    noise = clouds(rng).astype(np.float64) / 255
    weave = weave / 4 + noise * rng.uniform(0.3, 1.5)
    return _equalise(weave)


def _marks(rng: Generator) -> Image:
    """Lettering, lines and small signs on plain ground, as on shirts, boxes and walls."""
    field = np.full((FIELD_SIZE, FIELD_SIZE), 40, np.uint8)
    signs = "ABEHKMNRSTX0123456789&%#?aegkprst"
    for _ in range(int(rng.integers(6, 30))):
        at = tuple(int(v) for v in rng.integers(-20, FIELD_SIZE, 2))
        text = "".join(rng.choice(list(signs), int(rng.integers(1, 7))))
        level = int(rng.integers(120, 256))
        face = int(rng.integers(0, 8))
        size = float(rng.uniform(0.5, 2.4))
        cv2.putText(field, text, at, face, size, level, int(rng.integers(1, 5)), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 5))):
        a, b = rng.integers(0, FIELD_SIZE, (2, 2))
        cv2.line(
            field, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])), 200, int(rng.integers(1, 8))
        )
    return field


def _speckle(rng: Generator) -> Image:
    field = np.full((FIELD_SIZE, FIELD_SIZE), 60, np.uint8)
    for _ in range(int(rng.integers(30, 300))):
        at = tuple(int(v) for v in rng.integers(0, FIELD_SIZE, 2))
        radius = int(rng.integers(1, 9))
        cv2.circle(field, at, radius, int(rng.integers(0, 256)), -1, cv2.LINE_AA)
    return field


def _checks(rng: Generator) -> Image:
    cell = int(rng.choice([8, 16, 32]))
    index = np.arange(FIELD_SIZE) // cell
    board = ((index[:, None] + index[None]) % 2 * 200 + 27).astype(np.uint8)
    return _bend(cv2.GaussianBlur(board, (3, 3), 0.6), rng, float(rng.choice([0, 3, 8])))


def _marble(rng: Generator) -> Image:
    noise = clouds(rng).astype(np.float64) / 255
    t = np.arange(FIELD_SIZE) * (2 * np.pi / FIELD_SIZE)
    veins = np.abs(np.sin(int(rng.integers(1, 5)) * t[None] + noise * rng.uniform(4, 14)))
    return np.asarray(255 * veins, np.uint8)


def _crackle(rng: Generator) -> Image:
    _, labels = _nearest_seed(rng, int(rng.integers(20, 120)))
    edges = cv2.morphologyEx(labels.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    ink = cv2.GaussianBlur(edges.astype(np.uint8) * 255, (0, 0), rng.uniform(0.8, 1.6))
    return np.asarray(255 - ink, np.uint8)


def _scales(rng: Generator) -> Image:
    """Overlapping rounded tiles in staggered rows, as on fish and roofs."""
    step = int(rng.choice([16, 32, 64]))
    rows, columns = np.mgrid[:FIELD_SIZE, :FIELD_SIZE]
    row = rows // step
    x = (columns + (row % 2) * step // 2) % step - step / 2
    y = rows % step
    return np.asarray(np.clip(255 * np.hypot(x, y) / step / 1.1, 0, 255), np.uint8)


#: family -> maker of one field
MAKERS: dict[str, Callable[[Generator], Image]] = {
    "fractal": fractal, "clouds": clouds, "cells": _cells, "facets": _facets,
    "stripes": _stripes, "fur": _fur, "fabric": _fabric, "marks": _marks,
    "speckle": _speckle, "blotch": _blotch, "checks": _checks, "marble": _marble,
    "crackle": _crackle, "scales": _scales,
}  # fmt: skip
