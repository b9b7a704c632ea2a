"""Rigid things made of parts: balls, mugs, phones, boxes, furniture, plants, lumps, signs."""

from __future__ import annotations

import numpy as np

from edgetam_label.training.synthetic_shapes import (
    Contour,
    capsule,
    ellipse,
    polygon,
    superellipse,
    turn,
)
from edgetam_label.training.synthetic_textures import random_color
from edgetam_label.training.synthetic_things import Thing, Workshop, single


def mug(shop: Workshop) -> Thing:
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    body, height = shop.material(), rng.uniform(0.55, 0.95)
    outer, inner = (
        superellipse(0.32, 0.42 * height, 2.4, (0.62, 0.05)),
        superellipse(0.2, 0.28 * height, 2.4, (0.6, 0.05)),
    )
    canvas.paint([outer, inner], body, shop.light, part=2, bump=0.7)
    canvas.paint([superellipse(0.62, height, 5, (-0.1, 0))], body, shop.light, part=1, bump=0.9)
    lip = rng.uniform(0.08, 0.22)
    canvas.paint(
        [ellipse(0.6, lip, (-0.1, -height + lip))],
        shop.tone(200, 195, 190),
        shop.light,
        part=3,
        bump=0.2,
    )
    canvas.paint(
        [ellipse(0.54, lip * 0.75, (-0.1, -height + lip * 1.1))],
        shop.tone(60, 40, 25),
        shop.light,
        part=4,
        bump=0,
        inside=True,
    )
    return single("mug", canvas, 4, stands=True)


def bottle(shop: Workshop) -> Thing:
    rng, canvas = shop.rng, shop.canvas(-0.5, -1, 0.5, 1)
    width, neck, shoulder = rng.uniform(0.2, 0.4), rng.uniform(0.07, 0.13), rng.uniform(-0.5, -0.1)
    half = np.array(
        [
            (neck, -0.85),
            (neck, shoulder - 0.15),
            (width, shoulder + 0.12),
            (width, 0.93),
            (width * 0.9, 0.98),
        ]
    )
    outline = np.concatenate([half, half[::-1] * (-1, 1)]).astype(np.float32)
    canvas.paint([outline], shop.material(), shop.light, part=1, bump=0.9)
    canvas.paint(
        [superellipse(neck * 1.15, 0.07, 6, (0, -0.9))],
        shop.material(),
        shop.light,
        part=2,
        bump=0.5,
    )
    canvas.paint(
        [superellipse(width * 1.1, rng.uniform(0.15, 0.3), 10, (0, 0.4))],
        shop.material(),
        shop.light,
        part=3,
        bump=0.4,
        inside=True,
    )
    return single("bottle", canvas, 3, stands=True)


def phone(shop: Workshop) -> Thing:
    """A slab with a screen: phones, tablets, televisions, picture frames, books."""
    rng, aspect = shop.rng, shop.rng.uniform(0.45, 0.8)
    canvas = shop.canvas(-aspect, -1, aspect, 1)
    canvas.paint(
        [superellipse(aspect, 1, rng.uniform(6, 20))],
        shop.tone(*rng.choice([[25, 25, 28], [200, 200, 200], [90, 60, 50]])),
        shop.light,
        part=1,
        bump=0.15,
    )
    border = rng.uniform(0.04, 0.14)
    screen = superellipse(aspect - border, 1 - border * rng.uniform(1, 1.8), 20)
    kind = "photo" if rng.random() < 0.4 else None
    canvas.paint([screen], shop.material(kind=kind), shop.light, part=2, bump=0)
    if rng.random() < 0.5:
        canvas.paint(
            [ellipse(0.06, 0.06, (0, 0.95 - border / 2))],
            shop.tone(120, 120, 120),
            shop.light,
            part=3,
            bump=0.3,
        )
    return single("phone", canvas, 3)


def carton(shop: Workshop) -> Thing:
    """A cuboid seen from a corner: three faces of one material, lit differently."""
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    w, h, d = rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.9), rng.uniform(0.15, 0.5)
    split, rise = rng.uniform(-0.4, 0.4), rng.uniform(0.05, 0.35)
    top = np.array(
        [(-w, -h), (split, -h + rise), (w, -h + d * 0.3), (split * 0.6, -h - rise * 0.8)],
        np.float32,
    )
    left = np.array([(-w, -h), (split, -h + rise), (split, h), (-w, h - rise)], np.float32)
    right = np.array(
        [(split, -h + rise), (w, -h + d * 0.3), (w, h - rise * 1.2), (split, h)], np.float32
    )
    base = random_color(rng, shop.hide)
    kind = None if rng.random() < 0.6 else "marks"
    kind = kind if kind in shop.textures.fields else None
    for part, (face, gain) in enumerate(((left, 0.85), (right, 0.55), (top, 1.15)), start=1):
        canvas.paint(
            [face * 0.85],
            shop.textures.material(rng, np.clip(base * gain, 3, 250), kind=kind),
            shop.light,
            part=part,
            bump=0,
        )
    return single("carton", canvas, 3, stands=True)


def furniture(shop: Workshop) -> Thing:
    """A chair or table: a slab on thin legs, sometimes with a back."""
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    wood, width, seat = shop.material(), rng.uniform(0.5, 0.95), rng.uniform(-0.3, 0.2)
    leg = rng.uniform(0.03, 0.08)
    for x in (-0.95, -0.6, 0.6, 0.95):
        bottom = 0.95 if abs(x) > 0.8 else 0.8
        canvas.paint(
            [turn(capsule(leg, leg * 0.8, bottom - seat), np.pi / 2, (x * width, seat))],
            wood,
            shop.light,
            part=2,
            bump=0.6,
        )
    if rng.random() < 0.6:
        canvas.paint(
            [superellipse(width * 0.95, 0.42, 8, (0, seat - 0.42))],
            shop.material(),
            shop.light,
            part=3,
            bump=0.4,
        )
    thick = rng.uniform(0.05, 0.16)
    canvas.paint(
        [superellipse(width, thick, 8, (0, seat))],
        wood if rng.random() < 0.5 else shop.material(),
        shop.light,
        part=1,
        bump=0.5,
    )
    return single("furniture", canvas, 3, stands=True)


def plant(shop: Workshop) -> Thing:
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    green = (
        [shop.tone(50, 95, 35), shop.tone(85, 120, 55)] if rng.random() < 0.7 else [shop.material()]
    )
    for index in range(int(rng.integers(5, 14))):
        leaf = capsule(0.03, 0.02, rng.uniform(0.5, 1.1), rng.normal(0, 0.2), 10)
        leaf[:, 1] *= 1 + rng.uniform(1, 6) * np.sin(np.pi * np.clip(leaf[:, 0], 0, 1))
        angle = -np.pi / 2 + rng.normal(0, 0.7)
        canvas.paint(
            [turn(leaf, angle, (rng.normal(0, 0.05), 0.2), 0.95)],
            green[index % len(green)],
            shop.light,
            part=1,
            bump=0.5,
        )
    if rng.random() < 0.7:
        pot = np.array([(-0.35, 0.15), (0.35, 0.15), (0.25, 0.95), (-0.25, 0.95)], np.float32)
        canvas.paint([pot], shop.material(), shop.light, part=2, bump=0.8)
    return single("plant", canvas, 2, stands=True, elastic=0.5)


def sign(shop: Workshop) -> Thing:
    """A post, alone or with a plate: thin, upright, often in front of things."""
    rng, canvas = shop.rng, shop.canvas(-0.5, -1, 0.5, 1)
    post = rng.uniform(0.02, 0.12)
    canvas.paint([superellipse(post, 0.99, 12)], shop.material(), shop.light, part=1, bump=0.9)
    if rng.random() < 0.6:
        plate: Contour = (
            polygon(rng) if rng.random() < 0.3 else superellipse(1, rng.uniform(0.5, 1), 6)
        )
        canvas.paint(
            [turn(plate, 0, (0, -0.6), 0.38)], shop.material(), shop.light, part=2, bump=0.1
        )
    return single("sign", canvas, 2, stands=True)


def cloth(shop: Workshop) -> Thing:
    """A soft, waving piece: flags, towels, bags."""
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    base = superellipse(0.95, rng.uniform(0.5, 0.9), 8, count=96)
    base[:, 1] += 0.1 * np.sin(base[:, 0] * rng.uniform(2, 6) + rng.uniform(0, 6)).astype(
        np.float32
    )
    canvas.paint([base * 0.95], shop.material(), shop.light, part=1, bump=0.3)
    return single("cloth", canvas, 1, elastic=2.0)


def lamp(shop: Workshop) -> Thing:
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    canvas.paint([ellipse(0.4, 0.1, (0, 0.88))], shop.material(), shop.light, part=3, bump=0.5)
    canvas.paint(
        [superellipse(0.05, 0.7, 8, (0, 0.2))], shop.material(), shop.light, part=2, bump=0.9
    )
    top = rng.uniform(0.2, 0.5)
    shade_ = np.array([(-top, -0.95), (top, -0.95), (0.75, -0.2), (-0.75, -0.2)], np.float32)
    canvas.paint([shade_], shop.material(), shop.light, part=1, bump=0.8)
    return single("lamp", canvas, 3, stands=True)


def fish(shop: Workshop) -> Thing:
    rng, canvas = shop.rng, shop.canvas(-1, -1, 1, 1)
    coat, tall = shop.material(), rng.uniform(0.25, 0.5)
    canvas.paint(
        [np.array([(0.4, 0), (0.95, -0.45), (0.8, 0), (0.95, 0.45)], np.float32)],
        shop.material(),
        shop.light,
        part=2,
        bump=0.3,
    )
    canvas.paint(
        [np.array([(-0.2, -tall * 0.6), (0.3, -tall - 0.25), (0.4, -tall * 0.4)], np.float32)],
        coat,
        shop.light,
        part=3,
        bump=0.3,
    )
    canvas.paint([ellipse(0.68, tall, (-0.2, 0))], coat, shop.light, part=1, bump=1)
    canvas.paint(
        [ellipse(0.06, 0.06, (-0.65, -0.08))],
        shop.tone(15, 15, 15),
        shop.light,
        part=4,
        bump=0.5,
        inside=True,
    )
    return single("fish", canvas, 4, elastic=1.5)
