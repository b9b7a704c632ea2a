"""Procedural materials: tileable grey fields, coloured by palettes that look like the world's.

Fields are made once per process; a material is a random piece of one, turned, scaled and sent
through a palette, so that each costs one warp and one table look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgetam_label.training.synthetic_fields import (
    FIELD_SIZE,
    HELDOUT_FAMILIES,
    MAKERS,
    TRAIN_FAMILIES,
    clouds,
    folds,
    fractal,
    grain,
    relief,
)
from edgetam_label.training.synthetic_photos import Photographs, load_photographs
from edgetam_label.training.synthetic_places import Places

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
FIELDS_PER_FAMILY = 12
_PHOTO, _PHOTO_WITH_PLACES = 0.18, 0.28  # shares of the materials
_OF_PLACES = 0.7  # share of those, where there are places, that are pieces of places


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
    """All fields and photographs of one split; places: more photographs, of the user's."""

    fields: dict[str, tuple[Image, ...]]
    soft: tuple[Image, ...]  # brightness around 128: light, creases; the same in both splits
    grit: tuple[Image, ...]  # brightness around 128 with structure down to the pixel
    photographs: Photographs
    places: Places | None = None

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
            if self.places is not None and rng.random() < _OF_PLACES:
                photo = self.places.look(rng, FIELD_SIZE, FIELD_SIZE)
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
        if draw < 0.34 + (_PHOTO if self.places is None else _PHOTO_WITH_PLACES):
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


@lru_cache(maxsize=2)
def load_textures(split: str) -> Textures:
    """Fields and photographs of a split, "train" or "heldout"; made once per process (~1 s)."""
    families = TRAIN_FAMILIES if split == "train" else HELDOUT_FAMILIES
    rng = np.random.default_rng([20240607, len(families)])
    fields = {name: tuple(MAKERS[name](rng) for _ in range(FIELDS_PER_FAMILY)) for name in families}
    soft = tuple(
        relief((clouds, folds, fractal)[index % 3](rng), rng.uniform(10, 55)) for index in range(15)
    )
    grit = tuple(relief(grain(rng), rng.uniform(5, 40)) for _ in range(6))
    return Textures(fields, soft, grit, load_photographs(split))
