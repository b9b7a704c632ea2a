"""Cars and bicycles, with turning wheels."""

from __future__ import annotations

import numpy as np

from edgetam_label.training.synthetic_rig import Layers, Rig
from edgetam_label.training.synthetic_shapes import (
    capsule,
    ellipse,
    superellipse,
    turn,
)
from edgetam_label.training.synthetic_things import Thing, Workshop


def car(shop: Workshop) -> Thing:
    """A car, van or lorry from the side or the back, with turning wheels."""
    rng, rig = shop.rng, Rig(shop)
    paint, glass = (
        shop.material(kind="plain" if rng.random() < 0.7 else None),
        shop.tone(55, 65, 75),
    )
    black, rim = shop.tone(28, 28, 30), shop.tone(150, 150, 152)
    base = rig.bone(-1, (0, 0), 0.0, 0.01)
    if rng.random() < 0.3:  # from the back
        h = rng.uniform(0.6, 0.9)
        layers: Layers = [
            ([superellipse(0.12, 0.2, 5, (x, h * 0.85))], black, 0.5) for x in (-0.62, 0.62)
        ]
        layers += [
            ([superellipse(0.85, h * 0.5, 4, (0, h * 0.4))], paint, 0.6),
            ([superellipse(0.68, h * 0.5, 3.5, (0, -h * 0.3))], paint, 0.5),
        ]
        layers.append(([superellipse(0.56, h * 0.32, 4, (0, -h * 0.32))], glass, 0.1))
        layers += [
            ([superellipse(0.12, 0.08, 4, (x, h * 0.3))], shop.tone(170, 30, 25), 0.3)
            for x in (-0.66, 0.66)
        ]
        layers += [
            ([superellipse(0.2, 0.06, 8, (0, h * 0.5))], shop.tone(220, 215, 190), 0),
            ([superellipse(0.84, 0.07, 6, (0, h * 0.75))], black, 0.4),
        ]
        rig.skin(base, layers, 1)
        return rig.finish("car")
    roof, hood, front, back = (
        rng.uniform(-0.55, -0.3),
        rng.uniform(-0.12, 0.02),
        rng.uniform(0.3, 0.75),
        rng.uniform(-0.9, -0.55),
    )
    van = rng.random() < 0.35
    body = np.array(
        [
            (-0.97, hood),
            (back, hood) if not van else (-0.95, roof),
            (back + 0.2, roof) if not van else (-0.9, roof),
            (front - 0.35, roof),
            (front, hood),
            (0.93, hood + 0.08),
            (0.98, 0.25),
            (-0.98, 0.25),
        ],
        np.float32,
    )
    shell: Layers = [([body], paint, 0.45)]
    start, stop = (back + 0.28 if not van else -0.8), front - 0.38
    panes = int(rng.integers(2, 4))
    for index in range(panes):
        a, b = (
            start + (stop - start) * index / panes,
            start + (stop - start) * (index + 0.92) / panes,
        )
        slant = 0.22 if index == panes - 1 else 0.0
        lead = -0.12 if index == 0 and not van else 0.0
        shell.append(
            (
                [
                    np.array(
                        [
                            (a, roof + 0.06),
                            (b, roof + 0.06),
                            (b + slant, hood - 0.02),
                            (a + lead, hood - 0.02),
                        ],
                        np.float32,
                    )
                ],
                glass,
                0,
            )
        )
    shell.append(([superellipse(0.96, 0.03, 8, (0, 0.2))], black, 0))
    shell += [
        ([ellipse(0.05, 0.035, (0.93, hood + 0.15))], shop.tone(235, 230, 200), 0.4),
        ([superellipse(0.03, 0.06, 4, (-0.95, hood + 0.12))], shop.tone(170, 30, 25), 0.3),
    ]
    rig.skin(base, shell, 1)
    size = rng.uniform(0.15, 0.21)
    for x in (-0.6, 0.62):
        wheel = rig.bone(base, (x, 0.27), 0.0, 0.0, 0.0, 1.0)
        tyre: Layers = [
            ([ellipse(size, size)], black, 0.3),
            ([ellipse(size * 0.62, size * 0.62)], rim, 0.3),
        ]
        tyre += [
            ([turn(superellipse(size * 0.58, 0.018, 6), a)], black, 0) for a in (0.3, 1.35, 2.4)
        ]
        rig.skin(wheel, tyre, 2)
    return rig.finish("car")


def bicycle(shop: Workshop) -> Thing:
    """Two open wheels and a thin frame, sometimes with a rider's saddle bag."""
    rng, rig = shop.rng, Rig(shop)
    paint, black = shop.material(kind="plain"), shop.tone(30, 30, 32)
    base = rig.bone(-1, (0, 0), 0.0, 0.01)
    size = rng.uniform(0.36, 0.42)
    for x in (-0.56, 0.56):
        wheel = rig.bone(base, (x, 0.3), 0.0, 0.0, 0.0, 1.0)
        rig.skin(
            wheel,
            [
                ([ellipse(size, size), ellipse(size * 0.88, size * 0.88)], black, 0.4),
                *[
                    ([turn(superellipse(size * 0.9, 0.012, 6), a)], black, 0.0)
                    for a in (0.0, 1.05, 2.1)
                ],
            ],
            1,
        )
    thick = rng.uniform(0.02, 0.045)
    joints = {
        "back": (-0.56, 0.3),
        "front": (0.56, 0.3),
        "crank": (-0.08, 0.32),
        "seat": (-0.22, -0.3),
        "bar": (0.4, -0.36),
    }
    lines = (
        ("back", "crank"),
        ("crank", "seat"),
        ("seat", "back"),
        ("crank", "bar"),
        ("seat", "bar"),
        ("bar", "front"),
    )
    layers: Layers = []
    for a, b in lines:
        start, end = np.array(joints[a]), np.array(joints[b])
        delta = end - start
        layers.append(
            (
                [
                    turn(
                        capsule(thick, thick, float(np.hypot(*delta))),
                        float(np.arctan2(delta[1], delta[0])),
                        (float(start[0]), float(start[1])),
                    )
                ],
                paint,
                0.6,
            )
        )
    layers += [
        ([superellipse(0.15, 0.04, 3, (-0.24, -0.35))], black, 0.5),
        ([superellipse(0.13, 0.03, 3, (0.42, -0.4))], black, 0.5),
    ]
    rig.skin(base, layers, 2)
    return rig.finish("bicycle")
