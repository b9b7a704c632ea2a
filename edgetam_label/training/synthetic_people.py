"""People: whole bodies that walk, stand and sit, and faces from the front (animals' too)."""

from __future__ import annotations

import numpy as np

from edgetam_label.training.synthetic_rig import Layers, Rig
from edgetam_label.training.synthetic_shapes import (
    Contour,
    capsule,
    ellipse,
    superellipse,
    turn,
)
from edgetam_label.training.synthetic_things import Thing, Workshop

_SKIN = ((236, 188, 160), (205, 150, 118), (160, 105, 75), (105, 68, 48), (70, 45, 34))
_HAIR = ((30, 22, 18), (75, 48, 28), (150, 110, 60), (120, 118, 115), (210, 180, 120))


def person(shop: Workshop) -> Thing:
    """Head, torso, arms and legs in clothes; walking, standing, sitting or reaching."""
    rng = shop.rng
    rig = Rig(shop, round=float(rng.uniform(0.2, 0.9)))
    skin = shop.tone(*_SKIN[int(rng.integers(len(_SKIN)))])
    hair = shop.tone(*_HAIR[int(rng.integers(len(_HAIR)))])
    shirt, trousers = shop.material(), shop.material()
    if rng.random() < 0.2:
        trousers = shirt
    shoe = shop.tone(*rng.choice([[30, 28, 28], [220, 220, 215], [110, 70, 40]]))
    stout, profile = rng.uniform(0.85, 1.75), rng.random() < 0.5
    stride = rng.choice([0.08, 0.35, 0.6])
    lean = rng.normal(0, 0.15) + (0.15 if stride > 0.5 else 0)
    half = (0.13 if profile else 0.2) * stout
    long_sleeve, short_legs = rng.random() < 0.55, rng.random() < 0.3
    sitting = rng.random() < 0.12

    root = rig.bone(-1, (0, 0.1), -np.pi / 2 + lean, 0.03)
    torso: Contour = capsule(half * rng.uniform(0.8, 1), half * 0.85, 0.48, 0, 16)
    torso[:, 1] *= 1 + 0.12 * np.sin(np.clip(torso[:, 0] / 0.5, 0, 1) * np.pi)
    layers: Layers = [([torso], shirt, 0.8)]
    if rng.random() < 0.25:  # a print or an open jacket
        layers.append(([superellipse(0.12, half * 0.5, 4, (0.3, 0))], shop.material(), 0.1))
    rig.skin(root, layers, 5)
    hips = rig.bone(-1, (0, 0.1), -np.pi / 2 + lean * 0.3)
    rig.skin(hips, [([ellipse(0.13, half * 1.02, (0.0, 0))], trousers, 0.7)], 4)
    if rng.random() < 0.2:  # skirt or long coat
        length = rng.uniform(0.3, 0.7)
        rig.skin(
            hips,
            [
                (
                    [
                        np.array(
                            [
                                (0.1, -half),
                                (0.1, half),
                                (-length, half * 1.7),
                                (-length, -half * 1.7),
                            ],
                            np.float32,
                        )
                    ],
                    trousers,
                    0.8,
                )
            ],
            6,
        )

    neck = rig.bone(root, (0.53, 0), rng.normal(0, 0.15) - lean * 0.5, 0.08, rng.uniform(0, 6))
    size = rng.uniform(0.1, 0.135)
    head: Layers = [
        ([capsule(0.055, 0.05, 0.15)], skin, 0.6),
        ([ellipse(size * 1.25, size, (0.2, 0))], skin, 0.9),
    ]
    cover = rng.uniform(0.4, 1.1)
    head.append(
        (
            [
                ellipse(
                    size * rng.uniform(0.6, 0.9),
                    size * 1.08,
                    (0.2 + size * (1.25 - 0.5 * cover), (0.35 * size) if profile else 0),
                )
            ],
            hair,
            0.6,
        )
    )
    if rng.random() < 0.3:
        head.insert(
            0, ([superellipse(0.17, size * 1.3, 3, (0.13, 0.04 if profile else 0))], hair, 0.6)
        )
    if not profile and rng.random() < 0.6:
        head += [
            ([ellipse(0.012, 0.016, (0.2, y))], shop.tone(30, 22, 20), 0)
            for y in (-0.4 * size, 0.4 * size)
        ]
        head.append(([ellipse(0.01, 0.03, (0.2 - size * 0.6, 0))], shop.tone(150, 70, 65), 0))
    rig.skin(neck, head, 6)

    beat = rng.uniform(0, 6.28)
    thick = 0.06 * stout
    for side, name in ((-1, "far"), (1, "near")):
        shoulder = (0.44, side * (half * 0.85 if not profile else 0.02))
        opposite = beat + (np.pi if side > 0 else 0)
        lift = rng.normal(0.1, 0.35) if rng.random() < 0.7 else rng.uniform(0.8, 2.8)
        upper = rig.bone(
            root,
            shoulder,
            np.pi - side * (lift if not profile else lift * side),
            stride,
            opposite + np.pi,
        )
        rig.skin(
            upper,
            [([capsule(thick * 1.1, thick * 0.85, 0.27)], shirt, 0.8)],
            8 if name == "near" else 1,
        )
        fore = rig.bone(
            upper,
            (0.27, 0),
            -abs(rng.normal(0.3, 0.5)) * (1 if profile else side),
            stride * 0.4,
            opposite,
        )
        cloth = shirt if long_sleeve else skin
        hand: Layers = [
            ([capsule(thick * 0.8, thick * 0.6, 0.24)], cloth, 0.8),
            ([ellipse(0.055, 0.042, (0.28, 0))], skin, 0.8),
        ]
        rig.skin(fore, hand, 9 if name == "near" else 2)
        hip = (-0.03, side * (half * 0.5 if not profile else 0.01))
        forward = rng.uniform(1.0, 1.5) if sitting else rng.normal(0.0, 0.08)
        thigh = rig.bone(
            hips,
            hip,
            np.pi - (forward if profile else side * forward * 0.3),
            stride * (1 if profile else 0.25),
            opposite,
        )
        rig.skin(thigh, [([capsule(thick * 1.55, thick * 1.1, 0.4)], trousers, 0.8)], 3)
        knee = 1.3 if sitting else abs(rng.normal(0.1, 0.15))
        shin = rig.bone(
            thigh,
            (0.4, 0),
            knee if profile else 0.0,
            stride * (0.7 if profile else 0.1),
            opposite - 1,
        )
        leg: Layers = [
            ([capsule(thick * 1.05, thick * 0.7, 0.38)], skin if short_legs else trousers, 0.8)
        ]
        leg.append(
            (
                [
                    turn(
                        superellipse(0.11 if profile else 0.07, 0.05, 3),
                        np.pi / 2,
                        (0.42, -0.06 if profile else 0),
                    )
                ],
                shoe,
                0.6,
            )
        )
        rig.skin(shin, leg, 3)
    return rig.finish("person")


def face(shop: Workshop) -> Thing:
    """An animal or a person from the front: head on a body, eyes, nose, ears."""
    rng, rig = shop.rng, Rig(shop)
    human = rng.random() < 0.5
    coat = shop.tone(*_SKIN[int(rng.integers(len(_SKIN)))]) if human else shop.material()
    second = shop.material()
    body = rig.bone(-1, (0, 1.0), -np.pi / 2, 0.05)
    wide = rng.uniform(0.55, 0.95) if human else rng.uniform(0.4, 0.75)
    shoulders = superellipse(0.62, wide, rng.uniform(2.2, 4), (0.1, 0))
    cover = second if human or rng.random() < 0.3 else coat
    rig.skin(
        body,
        [
            ([shoulders], cover, 0.8),
            ([ellipse(0.3, wide * 0.4, (0.2, 0))], second if not human else shop.material(), 0.3),
        ],
        1,
    )
    neck = rig.bone(body, (0.6, 0), rng.normal(0, 0.12), 0.12, rng.uniform(0, 6))
    size = rng.uniform(0.32, 0.45)
    tall = size * (1.3 if human else rng.uniform(0.85, 1.1))
    hair = shop.tone(*_HAIR[int(rng.integers(len(_HAIR)))]) if human else coat
    layers: Layers = [([capsule(0.2, 0.16, 0.3)], coat, 0.7)]
    for y in (-0.75 * size, 0.75 * size):
        if not human:
            ear = turn(
                capsule(0.14, rng.uniform(0.02, 0.12), rng.uniform(0.2, 0.4)),
                np.sign(y) * rng.uniform(0.2, 1.6),
                (0.3 + tall * 0.7, y),
            )
            layers.append(([ear], hair, 0.7))
    if human:
        layers.append(
            ([superellipse(tall * rng.uniform(0.9, 1.2), size * 1.15, 2.5, (0.33, 0))], hair, 0.6)
        )
    layers.append(([ellipse(tall, size, (0.3, 0))], coat, 0.9))
    if human:
        layers.append(([ellipse(tall * 0.4, size * 0.95, (0.3 + tall * 0.72, 0))], hair, 0.5))
    for y in (-0.4 * size, 0.4 * size):
        layers.append(
            (
                [ellipse(0.035, 0.05, (0.36, y))],
                shop.tone(235, 232, 228) if human else shop.tone(190, 150, 40),
                0.3,
            )
        )
        layers.append(([ellipse(0.03, 0.026, (0.36, y))], shop.tone(20, 18, 18), 0.3))
    layers.append(
        (
            [ellipse(0.05 if human else 0.06, 0.04 if human else 0.08, (0.2, 0))],
            coat if human else shop.tone(40, 30, 30),
            0.8,
        )
    )
    layers.append(([ellipse(0.02, 0.12, (0.06, 0))], shop.tone(150, 75, 70), 0.2))
    rig.skin(neck, layers, 2)
    return rig.finish("face", elastic=0.2)
