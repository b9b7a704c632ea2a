"""Invented colours and patterns for the parts of a garment, for skin and for hair (all BGR)."""

from __future__ import annotations

import cv2
import numpy as np

from edgetam_label.training.figures.arrays import BoolArray, FloatArray, IntArray

SKIN = np.array(
    [[198, 220, 245], [165, 192, 232], [140, 172, 220], [105, 142, 195], [75, 108, 160],
     [55, 82, 125], [42, 60, 92], [32, 44, 68]], dtype=np.float64
)  # fmt: skip
HAIR = np.array(
    [[28, 26, 26], [34, 44, 62], [40, 62, 98], [70, 112, 158], [120, 180, 222], [40, 70, 150],
     [150, 152, 155], [215, 215, 218]], dtype=np.float64
)  # fmt: skip
WARDROBE_HUES = (0.3, 0.22, 0.16, 0.32)
SMALL_PART = 0.04  # of a garment's faces: below it a part is a button, a belt or a collar


def plain_colour(rng: np.random.Generator) -> FloatArray:
    """A colour (3,) that cloth comes in: strong, muted, dark or nearly white."""
    kind = str(rng.choice(["strong", "muted", "dark", "light"], p=[0.4, 0.28, 0.18, 0.14]))
    saturation, value = {
        "strong": (rng.uniform(140, 245), rng.uniform(120, 245)),
        "muted": (rng.uniform(30, 130), rng.uniform(80, 210)),
        "dark": (rng.uniform(0, 130), rng.uniform(28, 75)),
        "light": (rng.uniform(0, 35), rng.uniform(205, 250)),
    }[kind]
    # clothes are blue, red or earthen more often than green or turquoise
    middle, spread = ((108, 10), (176, 9), (18, 8), (90, 90))[int(rng.choice(4, p=WARDROBE_HUES))]
    hue = (middle + spread * rng.uniform(-1, 1)) % 180
    pixel = np.array([[[hue, saturation, value]]]).astype(np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0], dtype=np.float64)


def skin_colour(rng: np.random.Generator) -> FloatArray:
    return _between(SKIN, rng)


def hair_colour(rng: np.random.Generator) -> FloatArray:
    """Mostly a natural colour, one time in fourteen a dyed one."""
    if rng.random() < 0.07:
        return plain_colour(rng)
    return np.asarray(HAIR[int(rng.integers(len(HAIR)))] * rng.uniform(0.85, 1.12, 3))


def _between(colours: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A colour on the way through colours, a little off it."""
    place = float(rng.uniform(0, len(colours) - 1))
    first = min(int(place), len(colours) - 2)
    mixed = colours[first] + (place - first) * (colours[first + 1] - colours[first])
    return np.asarray(mixed * rng.uniform(0.94, 1.06, 3))


def parts(vertices: FloatArray, faces: IntArray) -> IntArray:
    """The number (F,) of the connected part to which each face belongs, from 0.

    Vertices in the same place count as one. Mirror images, such as two sleeves, share a number.
    """
    _, place = np.unique(np.rint(vertices * 1e3).astype(np.int64), axis=0, return_inverse=True)
    corners = place.reshape(-1)[faces]
    label = np.arange(corners.max() + 1)
    while True:
        lowest = label[corners].min(axis=1)
        spread = label.copy()
        np.minimum.at(spread, corners.ravel(), np.repeat(lowest, corners.shape[1]))
        # jumping on to the label's own label halves the remaining way
        spread = spread[spread]
        if np.array_equal(spread, label):
            break
        label = spread
    _, part = np.unique(label[corners[:, 0]], return_inverse=True)
    part = part.reshape(-1)
    centres = vertices[faces].mean(axis=1)
    middles = np.stack(
        [np.bincount(part, centres[:, axis]) / np.bincount(part) for axis in range(3)], axis=1
    )
    middles[:, 0] = np.abs(middles[:, 0])
    _, twin = np.unique(np.rint(middles * 5).astype(np.int64), axis=0, return_inverse=True)
    return np.asarray(twin.reshape(-1)[part], dtype=np.int64)


def cloth_colours(
    vertices: FloatArray, faces: IntArray, waist: float, rng: np.random.Generator
) -> FloatArray:
    """BGR (F, 3): each part of the garment plain or patterned in colours of its own.

    A part which holds most of the garment and reaches well above and below the height waist is
    coloured as two, a top and a bottom. vertices are the unposed ones, so patterns follow poses.
    """
    part = parts(vertices, faces)
    centres = vertices[faces].mean(axis=1)
    below = centres[:, 1] < waist
    for number in np.flatnonzero(np.bincount(part) > 0.6 * len(part)):
        inside = part == number
        if 0.15 < below[inside].mean() < 0.85:
            part[inside & below] = part.max() + 1
    accents = (plain_colour(rng), plain_colour(rng))
    colours = np.empty((len(faces), 3))
    for number in np.unique(part):
        inside = part == number
        if inside.mean() < SMALL_PART:
            colours[inside] = accents[int(number) % 2]
        else:
            colours[inside] = _pattern(centres[inside], rng)
    return colours


def _pattern(places: FloatArray, rng: np.random.Generator) -> FloatArray:
    """BGR (n, 3) of cloth at places (n, 3): plain, or two colours striped, checked, dotted..."""
    ground, figure = plain_colour(rng), plain_colour(rng)
    kind = str(
        rng.choice(
            ["plain", "hoops", "stripes", "checks", "dots", "blotches", "print"],
            p=[0.5, 0.12, 0.07, 0.08, 0.06, 0.08, 0.09],
        )
    )
    period = float(rng.uniform(0.7, 2.2))
    x, y, z = (places + rng.uniform(0, period, 3)).T / period
    drawn: BoolArray
    if kind == "plain":
        drawn = np.zeros(len(places), dtype=np.bool_)
    elif kind == "hoops":
        drawn = y % 1 < 0.5
    elif kind == "stripes":
        drawn = x % 1 < 0.4
    elif kind == "checks":
        drawn = (x % 1 < 0.5) != (y % 1 < 0.5)
    elif kind == "dots":
        drawn = (x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.07
    elif kind == "print":
        # a picture on the breast, or a badge on the thigh
        side, up = places[:, 0], places[:, 1] - np.quantile(places[:, 1], 0.7)
        drawn = (side**2 + up**2 < period**2 / 2) & (places[:, 2] > np.median(places[:, 2]))
    else:
        waves = np.sin(4 * x + 2 * z) + np.sin(3 * y + x) + np.sin(5 * z - 2 * y)
        drawn = waves > 0.4
    return np.where(drawn[:, None], figure, ground)
