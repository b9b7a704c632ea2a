"""Backgrounds: places, rooms, landscapes, patchworks, clutter; nothing there has an id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.training.synthetic_cutouts import NESTING, OUTLINES
from edgetam_label.training.synthetic_shapes import polygon, smooth_blob, superellipse, turn
from edgetam_label.training.synthetic_textures import Material, make_palette
from edgetam_label.training.synthetic_things import Workshop

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
_KINDS = ("scene", "photo", "room", "outdoor", "patchwork", "clutter", "plain")
_SHARES = (0.08, 0.12, 0.22, 0.26, 0.1, 0.17, 0.05)
_PLACED = 0.5  # share of the scenes that play in a place of the user's, where there are some


@dataclass(frozen=True)
class Background:
    """image: (h, w, 3) uint8 RGB; outlines: (n, 2) pixel outlines of real objects seen in it."""

    image: Image
    outlines: tuple[NDArray[np.float64], ...] = ()


def paint_background(shop: Workshop, height: int, width: int) -> Background:
    """A place of height x width pixels; only whole photographs have objects of their own."""
    rng, places = shop.rng, shop.textures.places
    if places is not None and rng.random() < _PLACED:
        image = places.look(rng, height, width)
        return Background(_grit(shop, image) if rng.random() < 0.3 else image)
    kind = str(rng.choice(_KINDS, p=_SHARES))
    if kind in ("photo", "scene") and not shop.textures.photographs.images:
        kind = "clutter"
    outlines: tuple[NDArray[np.float64], ...] = ()
    if kind in ("photo", "scene"):
        image, outlines = _photograph(shop, height, width, whole=kind == "scene")
    elif kind == "room":
        image = _room(shop, height, width)
    elif kind == "outdoor":
        image = _outdoor(shop, height, width)
    else:
        image = shop.material().render(height, width, pixels_per_unit=_coarse(shop, width))
        if kind != "plain":
            _patches(shop, image, int(rng.integers(2, 6)), 0.35, 0.9)
        if kind == "clutter":
            _patches(shop, image, int(rng.integers(15, 45)), 0.03, 0.22)
    if kind != "scene":
        if rng.random() < 0.7:
            image = _uneven_light(shop, image)
        if rng.random() < 0.6:
            image = _grit(shop, image)
    return Background(image, outlines)


def _grit(shop: Workshop, image: Image) -> Image:
    """Fine structure at the scale of pixels, which nearly all real surfaces have."""
    rng = shop.rng
    grits = shop.textures.grit
    gain = grits[int(rng.integers(len(grits)))]
    y, x = rng.integers(0, gain.shape[0], 2)
    rows = np.arange(y, y + image.shape[0]) % gain.shape[0]
    columns = np.arange(x, x + image.shape[1]) % gain.shape[1]
    tiled = gain[rows][:, columns]
    return np.asarray(cv2.multiply(image, cv2.merge([tiled] * 3), scale=1 / 128), np.uint8)


def _coarse(shop: Workshop, width: int) -> float:
    return float(width * shop.rng.uniform(0.2, 0.7))


def _photograph(
    shop: Workshop, height: int, width: int, *, whole: bool
) -> tuple[Image, tuple[NDArray[np.float64], ...]]:
    """A piece of a photograph, turned, mirrored and recoloured, with the outlines known in it."""
    rng = shop.rng
    photographs = shop.textures.photographs
    names = photographs.names
    if whole:
        names = tuple(n for n in names if any(file == n for file, _, _ in OUTLINES.values()))
        names = names or photographs.names
    name = names[int(rng.integers(len(names)))]
    photo = photographs.images[photographs.names.index(name)]
    rows, columns = photo.shape[:2]
    part = rng.uniform(0.6, 1.0) if whole else rng.uniform(0.22, 0.7)
    scale = part * min(columns / width, rows / height)
    angle = rng.normal(0, 0.12)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    room = (1 - part) / 2
    at = rng.uniform(0.5 - room, 0.5 + room, 2)
    linear = np.array([[mirror * c, -s], [mirror * s, c]])
    shift = at * (columns, rows) - linear @ np.array([width / 2, height / 2])
    matrix = np.column_stack([linear, shift]).astype(np.float32)
    gain, palette = np.ones(3, np.float32), None
    if photo.ndim == 2:
        palette = make_palette(rng, contrast=0.7)
        if whole:
            palette = np.repeat(np.arange(256)[:, None, None], 3, axis=2).astype(np.uint8)
    else:
        gain = np.asarray(rng.uniform(0.6, 1.25) * np.exp(rng.normal(0, 0.12, 3)), np.float32)
    image = Material(photo, matrix, palette, None, gain).render(height, width)
    if not whole:
        return image, ()
    chosen = [points * (columns / span) for span, points in _outlines_of(shop, name)]
    back = np.linalg.inv(linear)
    return image, tuple((points - shift) @ back.T for points in chosen)


def _outlines_of(shop: Workshop, name: str) -> list[tuple[int, NDArray[np.float64]]]:
    """Width of the drawing and outline of each object, of nested ones only one."""
    rng = shop.rng
    inner = rng.random() < 0.5
    return [
        (size[0], np.asarray(points, np.float64))
        for key, (file, size, points) in OUTLINES.items()
        if file == name and not (key == "cup" and inner) and not (key in NESTING and not inner)
    ]


def _ground(shop: Workshop, height: int, width: int, material: Material) -> Image:
    """A plane that recedes towards its upper edge."""
    flat = material.render(height, width, pixels_per_unit=_coarse(shop, width))
    squeeze = shop.rng.uniform(0.0, 0.35) * width
    corners = np.array(
        [[squeeze, 0], [width - squeeze, 0], [width, height], [0, height]], np.float32
    )
    target = np.array(
        [[0, 0], [width, 0], [width * 1.6, height], [-width * 0.6, height]], np.float32
    )
    matrix = cv2.getPerspectiveTransform(corners, target)
    return np.asarray(
        cv2.warpPerspective(flat, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def _room(shop: Workshop, height: int, width: int) -> Image:
    rng = shop.rng
    image = shop.material(kind="plain" if rng.random() < 0.6 else None).render(
        height, width, pixels_per_unit=_coarse(shop, width)
    )
    edge = int(height * rng.uniform(0.45, 0.85))
    if rng.random() < 0.5:  # a second wall, lit differently
        corner = int(width * rng.uniform(0.15, 0.85))
        image[:, corner:] = cv2.convertScaleAbs(
            image[:, corner:], alpha=float(rng.uniform(0.6, 1.25))
        )
    for _ in range(int(rng.integers(0, 7))):  # doors, windows, pictures, cupboards
        w, h = width * rng.uniform(0.05, 0.25), height * rng.uniform(0.05, 0.35)
        x = rng.uniform(0, width)
        y = rng.uniform(0, edge) if rng.random() < 0.5 else edge - h
        _panel(shop, image, x, y, w, h)
    floor = _ground(shop, height - edge, width, shop.material())
    image[edge:] = floor
    if rng.random() < 0.5:
        cv2.rectangle(
            image,
            (0, edge - int(height * 0.02)),
            (width, edge),
            tuple(int(v) for v in floor[0, 0]),
            -1,
        )
    for _ in range(int(rng.integers(0, 4))):  # furniture cut by the picture's border
        w, h = width * rng.uniform(0.08, 0.3), height * rng.uniform(0.1, 0.4)
        _panel(shop, image, rng.uniform(0, width), edge + rng.uniform(-0.3, 0.4) * h, w, h)
    return image


def _panel(shop: Workshop, image: Image, x: float, y: float, w: float, h: float) -> None:
    x0, y0 = max(int(x - w), 0), max(int(y - h), 0)
    x1, y1 = min(int(x + w), image.shape[1]), min(int(y + h), image.shape[0])
    if x1 - x0 < 4 or y1 - y0 < 4:
        return
    image[y0:y1, x0:x1] = shop.material().render(y1 - y0, x1 - x0, pixels_per_unit=60)
    if shop.rng.random() < 0.5:
        frame = tuple(int(v) for v in shop.rng.integers(20, 220) + shop.rng.integers(-15, 15, 3))
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), frame, int(shop.rng.integers(1, 5)))


def _outdoor(shop: Workshop, height: int, width: int) -> Image:
    rng = shop.rng
    horizon = int(height * rng.uniform(0.1, 0.65))
    top = np.array([110, 150, 205]) * rng.uniform(0.5, 1.2) + rng.normal(0, 15, 3)
    low = np.array([205, 210, 212]) * rng.uniform(0.6, 1.2) + rng.normal(0, 15, 3)
    ramp = np.linspace(0, 1, height)[:, None]
    sky = np.clip(top * (1 - ramp) + low * ramp, 0, 255)
    image = np.repeat(sky[:, None].astype(np.uint8), width, axis=1)
    columns = np.arange(width)
    for _ in range(int(rng.integers(1, 4))):  # hills, woods, houses
        phases = rng.uniform(0, 6.28, 5)
        waves = sum(
            np.sin(columns * f / width + p) / f
            for f, p in zip((3.0, 7.0, 17.0, 41.0, 90.0), phases, strict=True)
        )
        line = horizon - height * rng.uniform(0, 0.3) * (0.5 + 0.8 * np.asarray(waves))
        line = line.astype(int)
        earthy = rng.choice(
            [[60, 80, 45], [90, 85, 70], [45, 60, 50], [120, 115, 110]]
        ) * rng.uniform(0.6, 1.4)
        material = shop.textures.material(rng, np.clip(earthy, 3, 250).astype(np.float32))
        band = material.render(height, width, pixels_per_unit=_coarse(shop, width) * 0.6)
        below = np.arange(height)[:, None] > line[None]
        cv2.copyTo(band, below.astype(np.uint8), image)
    for _ in range(int(rng.integers(0, 5))):  # trunks, posts, walls
        x, w = rng.uniform(0, width), width * rng.uniform(0.005, 0.08)
        _panel(shop, image, x, horizon - height * 0.1, w, height * rng.uniform(0.1, 0.4))
    earthy = rng.choice(
        [[85, 110, 55], [130, 120, 105], [110, 110, 112], [165, 150, 120], [90, 125, 140]]
    )
    ground = shop.textures.material(
        rng, np.clip(earthy * rng.uniform(0.6, 1.3), 3, 250).astype(np.float32)
    )
    image[horizon:] = _ground(shop, height - horizon, width, ground)
    if rng.random() < 0.4:
        _patches(shop, image, int(rng.integers(1, 8)), 0.03, 0.25)
    return image


def _patches(shop: Workshop, image: Image, count: int, least: float, most: float) -> None:
    """Scatter flat pieces of material over a picture, as a crowded place has them."""
    rng = shop.rng
    height, width = image.shape[:2]
    materials = [shop.material() for _ in range(min(count, 8))]
    for index in range(count):
        scale = float(np.exp(rng.uniform(np.log(least), np.log(most)))) * min(height, width)
        draw = rng.random()
        outline = (
            superellipse(1, rng.uniform(0.2, 1), 10)
            if draw < 0.4
            else polygon(rng)
            if draw < 0.6
            else smooth_blob(rng)
        )
        points = turn(
            outline,
            rng.uniform(0, 6.28) if draw > 0.2 else 0.0,
            (rng.uniform(0, width), rng.uniform(0, height)),
            scale,
        )
        low = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, (width, height))
        if (high - low).min() < 2:
            continue
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [np.round(points - low).astype(np.int32)], 1)
        piece = materials[index % len(materials)].render(
            *mask.shape, pixels_per_unit=max(scale, 25)
        )
        cv2.copyTo(piece, mask, image[low[1] : high[1], low[0] : high[0]])


def _uneven_light(shop: Workshop, image: Image) -> Image:
    """Pools of light and shade that follow nothing in the scene."""
    rng = shop.rng
    coarse = np.clip(rng.normal(128, 128 * rng.uniform(0.05, 0.35), (4, 4)), 40, 220).astype(
        np.uint8
    )
    height, width = image.shape[:2]
    light = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(
        cv2.multiply(image, cv2.merge([light, light, light]), scale=1 / 128), np.uint8
    )
