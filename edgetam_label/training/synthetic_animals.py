"""Four-legged animals from the side, and creatures of any build."""

from __future__ import annotations

import numpy as np

from edgetam_label.training.synthetic_rig import Layers, Rig
from edgetam_label.training.synthetic_shapes import (
    capsule,
    ellipse,
    smooth_blob,
    superellipse,
    turn,
)
from edgetam_label.training.synthetic_things import Thing, Workshop

_COATS = (
    (150, 105, 65), (85, 58, 40), (40, 34, 32), (205, 195, 180), (190, 150, 100), (120, 112, 105)
)  # fmt: skip


def quadruped(shop: Workshop) -> Thing:
    """A dog, horse, cow or deer from the side: one coat over body, neck, head, legs and tail."""
    rng = shop.rng
    shaggy = float(rng.uniform(0.004, 0.02)) if rng.random() < 0.5 else 0.0
    rig = Rig(shop, shaggy=shaggy, round=float(rng.uniform(0.05, 0.65)))
    natural = None
    if rng.random() < 0.7:
        natural = np.asarray(_COATS[int(rng.integers(len(_COATS)))], np.float32)
        natural *= np.float32(rng.uniform(0.7, 1.15))
    fur = "fur" if "fur" in shop.textures.fields and rng.random() < 0.4 else None
    coat = shop.material(natural, kind=fur)
    second = shop.material(base=None) if rng.random() < 0.4 else coat
    length, girth = rng.uniform(0.7, 1.0), rng.uniform(0.15, 0.28)
    leg_length, neck_length = rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.5)
    stride, beat = rng.choice([0.06, 0.35, 0.6]), rng.uniform(0, 6.28)
    body = rig.bone(-1, (-length / 2, -0.1), rng.normal(0, 0.06), 0.04, beat)
    trunk = capsule(girth, girth * rng.uniform(0.75, 1.15), length, rng.normal(0, 0.04), 16)
    layers: Layers = [([trunk], coat, 0.9)]
    for _ in range(int(rng.choice([0, 0, 1, 3]))):
        spot = turn(
            smooth_blob(rng),
            0,
            (rng.uniform(0.1, 0.9) * length, rng.uniform(-0.4, 0.4) * girth),
            rng.uniform(0.4, 0.8) * girth,
        )
        layers.append(([spot], second, 0.2))
    rig.skin(body, layers, 5)
    neck = rig.bone(body, (length, -girth * 0.4), -rng.uniform(0.3, 1.2), 0.12, beat)
    rig.skin(neck, [([capsule(girth * 0.75, girth * 0.45, neck_length)], coat, 0.8)], 6)
    head = rig.bone(neck, (neck_length, 0), rng.uniform(0.4, 1.3), 0.15, beat + 1)
    skull, snout = girth * rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.35)
    ear = turn(
        capsule(0.06, 0.02, rng.uniform(0.1, 0.24), 0.2, 8),
        rng.choice([-1.9, 2.2]),
        (-skull * 0.3, -skull * 0.7),
    )
    face: Layers = [
        ([turn(ear, 0, (0.05, 0))], second, 0.5),
        ([capsule(skull * 0.9, skull * 0.5, snout)], coat, 0.9),
        ([ellipse(skull, skull * 0.95)], coat, 0.9),
        ([ellipse(0.03, 0.035, (snout + skull * 0.4, -skull * 0.1))], shop.tone(25, 22, 22), 0.5),
        ([ellipse(0.022, 0.022, (skull * 0.35, -skull * 0.35))], shop.tone(15, 12, 10), 0.4),
        ([ear], second, 0.5),
    ]
    rig.skin(head, face, 7)
    if rng.random() < 0.3:  # collar, saddle or harness
        rig.skin(
            neck,
            [
                (
                    [superellipse(0.035, girth * 0.62, 6, (neck_length * 0.4, 0))],
                    shop.material(),
                    0.4,
                )
            ],
            7,
        )
    tail = rig.bone(body, (0, -girth * 0.5), np.pi + rng.uniform(-0.8, 0.9), 0.5, rng.uniform(0, 6))
    rig.skin(
        tail,
        [
            (
                [
                    capsule(
                        0.055, rng.uniform(0.02, 0.07), rng.uniform(0.15, 0.5), rng.normal(0, 0.3)
                    )
                ],
                second,
                0.7,
            )
        ],
        4,
    )
    thick = girth * rng.uniform(0.28, 0.5)
    sock = second if rng.random() < 0.5 else coat
    for index, (x, front, near) in enumerate(
        ((0.92, 1, 0), (0.06, 0, 0), (0.98, 1, 1), (0.0, 0, 1))
    ):
        phase = beat + index * rng.choice([1.57, 3.14])
        upper = rig.bone(
            body, (x * length, girth * 0.45), np.pi / 2 + rng.normal(0, 0.1), stride, phase
        )
        rig.skin(
            upper,
            [
                (
                    [capsule(thick * (1.15 if front else 1.5), thick * 0.7, leg_length * 0.55)],
                    coat,
                    0.8,
                )
            ],
            6 if near else 2,
        )
        lower = rig.bone(
            upper, (leg_length * 0.55, 0), 0.1 if front else -0.25, stride * 0.8, phase - 1
        )
        shin: Layers = [([capsule(thick * 0.7, thick * 0.45, leg_length * 0.5)], sock, 0.8)]
        shin.append(
            (
                [
                    turn(
                        superellipse(thick * 0.8, thick * 0.5, 3),
                        -1.3,
                        (leg_length * 0.53, -thick * 0.3),
                    )
                ],
                sock,
                0.5,
            )
        )
        rig.skin(lower, shin, 6 if near else 1)
    return rig.finish("quadruped")


def creature(shop: Workshop) -> Thing:
    """A body of no known kind: limbs on limbs, so that "what moves together" is the only rule."""
    rng = shop.rng
    shaggy = float(rng.uniform(0.004, 0.02)) if rng.random() < 0.25 else 0.0
    rig = Rig(shop, shaggy=shaggy, round=float(rng.uniform(0.1, 0.9)))
    coats = [shop.material() for _ in range(int(rng.choice([1, 1, 2, 3])))]
    girth = rng.uniform(0.12, 0.4)
    length = rng.uniform(0.2, 0.8)
    body = rig.bone(-1, (-length / 2, 0.0), rng.normal(0, 0.5), 0.06, rng.uniform(0, 6))
    trunk = capsule(girth, girth * rng.uniform(0.5, 1.3), length, rng.normal(0, 0.15), 16)
    rig.skin(body, [([trunk], coats[0], 0.9)], 5)
    swing = float(rng.choice([0.05, 0.25, 0.5]))
    pairs = rng.random() < 0.6  # limbs come in pairs, near and far
    for _ in range(int(rng.integers(1, 4) if pairs else rng.integers(2, 7))):
        at, angle = rng.uniform(-0.1, 1.1) * length, rng.uniform(0, 2 * np.pi)
        limb = rng.uniform(0.2, 0.6)
        thick = girth * rng.uniform(0.15, 0.55)
        taper = rng.uniform(0.4, 1.2)
        coat = coats[int(rng.integers(len(coats)))]
        joints, bend = int(rng.integers(1, 4)), rng.normal(0, 0.5)
        tip = rng.random() < 0.5
        for near in (0, 1) if pairs else (1,):
            parent, start = body, (at, rng.normal(0, 0.3) * girth)
            phase = rng.uniform(0, 6)
            turned = angle + (rng.normal(0, 0.25) if pairs else 0.0)
            depth = 6 if near else 1
            for joint in range(joints):
                reach, wide = limb / joints, thick * taper**joint
                bone = rig.bone(parent, start, turned if joint == 0 else bend, swing, phase - joint)
                layers: Layers = [([capsule(wide, wide * taper, reach, 0.0, 10)], coat, 0.8)]
                if tip and joint == joints - 1:
                    end = ellipse(wide * 1.5, wide * 1.2, (reach, 0.0))
                    layers.append(([end], coats[-1], 0.8))
                rig.skin(bone, layers, depth)
                parent, start = bone, (reach, 0.0)
    if rng.random() < 0.6:  # something like a head
        neck = rig.bone(body, (length, 0.0), rng.normal(0, 0.7), swing * 0.5, rng.uniform(0, 6))
        size = girth * rng.uniform(0.4, 1.0)
        head: Layers = [
            ([ellipse(size, size * rng.uniform(0.6, 1), (size * 0.9, 0))], coats[-1], 0.9)
        ]
        if rng.random() < 0.6:
            head.append(
                (
                    [ellipse(size * 0.15, size * 0.15, (size, -size * 0.3))],
                    shop.tone(20, 18, 18),
                    0.3,
                )
            )
        rig.skin(neck, head, 7)
    return rig.finish("creature", elastic=float(rng.uniform(0, 0.4)))
