"""Procedural materials: tileable grey fields, coloured by palettes that look like the world's.

Fields are made once per process; a material is a random piece of one, turned, scaled and sent
through a palette, so that each costs one warp and one table look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgetam_label.training.synthetic_photos import Photographs, load_photographs

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
FIELD_SIZE = 256
FIELDS_PER_FAMILY = 12

#: Families that training draws from; `PLAIN` and the photographs come on top in both splits.
TRAIN_FAMILIES = (
    "fractal", "clouds", "cells", "facets", "stripes", "fur", "fabric", "marks", "speckle", "blotch"
)  # fmt: skip
#: Kept out of training, so that a held-out measure tells about unseen textures.
HELDOUT_FAMILIES = ("checks", "marble", "crackle", "scales")


@dataclass(frozen=True)
class Material:
    """A texture with its colours, ready to be cut to any size.

    field: (256, 256) uint8 tileable, or a photograph (h, w, 3); matrix: (2, 3) output pixel to
    field pixel at unit scale; palette: (256, 1, 3) uint8 RGB by grey level, None for photographs,
    which bring their own colours; relief: a field around 128 that modulates brightness;
    channel_gain: (3,) for photographs; plain: (3,) uint8, the one colour of a surface without
    pattern.
    """

    field: Image
    matrix: NDArray[np.float32]
    palette: Image | None
    relief: Image | None
    channel_gain: NDArray[np.float32]
    plain: Image | None = None

    def render(self, height: int, width: int, *, pixels_per_unit: float = 100.0) -> Image:
        """(height, width, 3) uint8 RGB piece; larger objects show larger texture, as in life."""
        size = (width, height)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        matrix = self.matrix.copy()
        matrix[:, :2] *= 100.0 / max(pixels_per_unit, 8.0)
        if self.plain is not None:
            piece: Image = np.empty((height, width, 3), np.uint8)
            piece[:] = self.plain
        else:
            tileable = self.field.shape == (FIELD_SIZE, FIELD_SIZE)
            border = cv2.BORDER_WRAP if tileable else cv2.BORDER_REFLECT_101
            piece = cv2.warpAffine(self.field, matrix, size, flags=flags, borderMode=border)
            piece = self._colour(piece)
        if self.relief is not None:
            matrix[:, :2] *= 0.6
            relief = cv2.warpAffine(
                self.relief, matrix, size, flags=flags, borderMode=cv2.BORDER_WRAP
            )
            piece = cv2.multiply(piece, cv2.merge([relief, relief, relief]), scale=1 / 128)
        return np.asarray(piece, np.uint8)

    def _colour(self, piece: Image) -> Image:
        if self.palette is not None:
            return np.asarray(cv2.applyColorMap(piece, self.palette), np.uint8)
        gain = np.clip(np.arange(256)[:, None] * self.channel_gain, 0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(piece, gain[:, None, :]), np.uint8)


@dataclass(frozen=True)
class Textures:
    """All fields and photographs of one split."""

    fields: dict[str, tuple[Image, ...]]
    soft: tuple[Image, ...]  # gentle relief around 128
    photographs: Photographs

    def material(
        self, rng: Generator, base: NDArray[np.float32] | None = None, *, kind: str | None = None
    ) -> Material:
        """A random material; `base` (3,) RGB keeps its colours near a given one."""
        kind = kind if kind is not None else self._kind(rng)
        if kind == "photo" and not self.photographs.images:
            kind = "fractal" if "fractal" in self.fields else next(iter(self.fields))
        matrix, ones = _random_matrix(rng), np.ones(3, np.float32)
        relief = self.soft[int(rng.integers(len(self.soft)))] if rng.random() < 0.55 else None
        if kind == "photo":
            images = self.photographs.images
            photo = images[int(rng.integers(len(images)))]
            matrix[:, 2] = rng.uniform(0, 1, 2) * (photo.shape[1], photo.shape[0])
            matrix[:, :2] *= rng.uniform(0.8, 2.0)
            if photo.ndim == 2:
                return Material(photo, matrix, make_palette(rng, base, contrast=0.7), relief, ones)
            return Material(photo, matrix, None, relief, _photo_gain(rng, photo, base))
        if kind == "plain":
            color = base if base is not None else random_color(rng)
            return Material(self.soft[0], matrix, None, relief, ones, color.astype(np.uint8))
        family = self.fields[kind]
        field = family[int(rng.integers(len(family)))]
        return Material(field, matrix, make_palette(rng, base), relief, ones)

    def _kind(self, rng: Generator) -> str:
        """Plain and nearly plain surfaces are the commonest thing in real pictures."""
        draw = rng.random()
        if draw < 0.34:
            return "plain"
        if draw < 0.52:
            return "photo"
        names = tuple(self.fields)
        return names[int(rng.integers(len(names)))]


def random_color(rng: Generator, near: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """(3,) RGB 0..255. Mostly muted; `near` gives a neighbour of that colour (camouflage)."""
    if near is not None:
        shift = rng.normal(0, 10) + rng.normal(0, 5, 3)
        return np.asarray(np.clip(near + shift, 4, 250), np.float32)
    hue = rng.uniform(0, 1) if rng.random() < 0.55 else rng.normal(0.09, 0.05) % 1.0
    saturation = rng.beta(1.1, 4.0) if rng.random() < 0.85 else rng.uniform(0.35, 0.9)
    value = rng.beta(1.5, 1.5) * 0.92 + 0.05
    offsets = np.array([0.0, 2 / 3, 1 / 3])
    ramp = np.clip(np.abs(((hue + offsets) % 1.0) * 6 - 3) - 1, 0, 1)
    color = value * (1 - saturation + saturation * ramp)
    return np.asarray(color * 255, np.float32)


def make_palette(
    rng: Generator, base: NDArray[np.float32] | None = None, *, contrast: float | None = None
) -> Image:
    """(256, 1, 3) uint8 RGB: two to four related colours, blended softly or in steps."""
    first = base if base is not None else random_color(rng)
    spread = contrast if contrast is not None else float(rng.choice([0.15, 0.35, 0.7, 1.2]))
    count = int(rng.integers(2, 5))
    stops: list[NDArray[Any]] = [first]
    for _ in range(count - 1):
        if spread > 0.5 and rng.random() < 0.35:
            stops.append(random_color(rng))
        else:
            luminance = rng.normal(0, 55 * spread + 3)
            stops.append(first * (1 + luminance / 160) + rng.normal(0, 12 * spread + 1, 3))
    stops_array = np.clip(np.stack(stops), 2, 253)
    at = np.sort(rng.uniform(0, 255, count))
    at[0], at[-1] = 0, 255
    levels = np.arange(256.0)
    if rng.random() < 0.3:  # steps with soft edges
        edges = np.sort(rng.uniform(40, 215, count - 1))
        weight = 1 / (1 + np.exp(-(levels[:, None] - edges) / rng.uniform(2, 10)))
        table = stops_array[0] + weight @ np.diff(stops_array, axis=0)
    else:
        table = np.stack([np.interp(levels, at, stops_array[:, c]) for c in range(3)], axis=1)
    table = np.clip(table, 0, 255)
    return np.ascontiguousarray(table.astype(np.uint8)[:, None, :])


def _random_matrix(rng: Generator) -> NDArray[np.float32]:
    scale = float(np.exp(rng.uniform(np.log(0.3), np.log(1.7))))
    angle = rng.uniform(0, 2 * np.pi)
    stretch = float(np.exp(rng.normal(0, 0.15)))
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    shift = rng.uniform(0, FIELD_SIZE, 2)
    matrix = [[cos * stretch, -sin, shift[0]], [sin * stretch, cos, shift[1]]]
    return np.array(matrix, np.float32)


def _photo_gain(
    rng: Generator, photo: Image, base: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    gain = rng.uniform(0.6, 1.25) * np.exp(rng.normal(0, 0.12, 3))
    if base is not None and rng.random() < 0.5:
        gain = np.clip(base / np.maximum(photo[::16, ::16].mean(axis=(0, 1)), 20), 0.3, 1.8)
    return np.asarray(gain, np.float32)


# --- fields -----------------------------------------------------------------------------------


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


def _fractal(rng: Generator) -> Image:
    kx, ky = _frequencies()
    return _spectrum(rng, 1 / np.maximum(np.hypot(kx, ky), 1) ** rng.uniform(0.9, 1.6))


def _clouds(rng: Generator) -> Image:
    kx, ky = _frequencies()
    return _spectrum(rng, 1 / np.maximum(np.hypot(kx, ky), 1) ** rng.uniform(1.8, 2.6))


def _fur(rng: Generator) -> Image:
    kx, ky = _frequencies()
    along, across = rng.uniform(6, 14), rng.uniform(0.7, 1.6)
    weight = np.exp(-((kx * along / 80) ** 2 + (ky * across / 80) ** 2))
    return _bend(_spectrum(rng, weight), rng, rng.uniform(4, 12))


def _folds(rng: Generator) -> Image:
    """Creases as in clothes: long soft ridges that wander."""
    kx, ky = _frequencies()
    radius = rng.uniform(2, 7)
    weight = (
        np.exp(-(((kx - radius) / 2.5) ** 2 + (ky / 1.8) ** 2))
        / np.maximum(np.hypot(kx, ky), 1) ** 0.3
    )
    return _bend(_spectrum(rng, weight), rng, rng.uniform(5, 20))


def _relief(rng: Generator, field: Image) -> Image:
    """A field as brightness around 128, faint or strong."""
    depth = rng.uniform(10, 55)
    return (128 + depth * (field.astype(np.float32) / 127.5 - 1)).astype(np.uint8)


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
    noise = _clouds(rng).astype(np.float64) / 255
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
    noise = _clouds(rng).astype(np.float64) / 255
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


_MAKERS: dict[str, Callable[[Generator], Image]] = {
    "fractal": _fractal, "clouds": _clouds, "cells": _cells, "facets": _facets,
    "stripes": _stripes, "fur": _fur, "fabric": _fabric, "marks": _marks,
    "speckle": _speckle, "blotch": _blotch, "checks": _checks, "marble": _marble,
    "crackle": _crackle, "scales": _scales,
}  # fmt: skip


@lru_cache(maxsize=2)
def load_textures(split: str) -> Textures:
    """Fields and photographs of a split, "train" or "heldout"; made once per process (~1 s)."""
    families = TRAIN_FAMILIES if split == "train" else HELDOUT_FAMILIES
    rng = np.random.default_rng([20240607, len(families)])
    fields = {
        name: tuple(_MAKERS[name](rng) for _ in range(FIELDS_PER_FAMILY)) for name in families
    }
    soft = tuple(_relief(rng, (_clouds, _folds, _fractal)[index % 3](rng)) for index in range(15))
    return Textures(fields, soft, load_photographs(split))
