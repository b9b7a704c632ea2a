"""Plain forms: single shapes, lumps of several, balls and rocks."""

from __future__ import annotations

import numpy as np

from edgetam_label.training.synthetic_shapes import Shape, ellipse, smooth_blob, superellipse, turn
from edgetam_label.training.synthetic_sprites import Canvas, sphere_light
from edgetam_label.training.synthetic_things import Skeleton, Thing, Workshop, single


def _moved(shape: Shape, angle: float, at: tuple[float, float], scale: float) -> Shape:
    return [turn(contour, angle, at, scale) for contour in shape]


def simple(shop: Workshop) -> Thing:
    """One shape, sometimes with prints, spots or a band across it."""
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    canvas.paint(shop.shape(), shop.material(), shop.light, part=1, bump=rng.uniform(0, 1))
    parts = 1
    for _ in range(int(rng.choice([0, 0, 1, 2, 4]))):
        parts += 1
        at = (float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6)))
        mark = _moved(shop.shape(), rng.uniform(0, 6.28), at, rng.uniform(0.12, 0.5))
        canvas.paint(
            mark, shop.material(), shop.light, part=parts, bump=rng.uniform(0, 0.5), inside=True
        )
    return single("simple", canvas, parts, elastic=rng.uniform(0, 1))


def lump(shop: Workshop) -> Thing:
    """Two to six pieces of different material that touch."""
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    count = int(rng.integers(2, 7))
    spots = [(float(rng.normal(0, 0.1)), float(rng.normal(0, 0.1)))]
    materials = [shop.material() for _ in range(int(rng.integers(1, 4)))]
    for index in range(count):
        scale = rng.uniform(0.25, 0.6)
        x, y = spots[int(rng.integers(len(spots)))]
        angle = rng.uniform(0, 6.28)
        reach = scale * rng.uniform(0.5, 1.0) if index else 0
        at = (
            float(np.clip(x + reach * np.cos(angle), -0.6, 0.6)),
            float(np.clip(y + reach * np.sin(angle), -0.6, 0.6)),
        )
        spots.append(at)
        material = materials[int(rng.integers(len(materials)))]
        canvas.paint(
            _moved(shop.shape(), angle, at, scale),
            material,
            shop.light,
            part=index + 1,
            bump=rng.uniform(0.2, 1),
        )
    return single("lump", canvas, count, elastic=rng.uniform(0, 1))


def ball(shop: Workshop) -> Thing:
    """A patterned disc that rolls under a light of its own, or keeps its light while it turns."""
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    rolls = rng.random() < 0.6
    disc = [ellipse(0.98, 0.98)]
    canvas.paint(disc, shop.material(), shop.light, part=1, bump=0 if rolls else 1)
    parts = 1
    for _ in range(int(rng.choice([0, 0, 1, 3]))):
        parts += 1
        stripe = rng.random() < 0.5
        mark = superellipse(1.2, 0.16, 6) if stripe else ellipse(0.3, 0.3)
        x, y = (0.0, 0.0) if stripe else (float(v) for v in rng.uniform(-0.7, 0.7, 2))
        shape = [turn(mark, rng.uniform(0, 6), (x, y))]
        canvas.paint(shape, shop.material(), shop.light, part=parts, bump=0, inside=True)
    if not rolls:
        return single("ball", canvas, parts, fast=True)
    return rolling_ball(shop, canvas, parts, float(rng.normal(0, 0.8)))


def rolling_ball(shop: Workshop, canvas: Canvas, parts: int, spin: float) -> Thing:
    """A painted disc of radius 0.98 on a bone that turns by `spin` per beat, lit as a sphere."""
    zero = np.zeros(1)
    axle = Skeleton((-1,), np.zeros((1, 2)), zero, zero, zero, np.array([spin]))
    light = sphere_light(shop.light, shop.pixels_per_unit, 0.98)
    sprites = (canvas.finish(), light)
    return Thing("ball", sprites, (0, -1), axle, parts, stands=True, fast=True)


def rock(shop: Workshop) -> Thing:
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    canvas.paint(
        [smooth_blob(rng, 0.25)], shop.material(), shop.light, part=1, bump=rng.uniform(0.5, 1)
    )
    return single("rock", canvas, 1)
