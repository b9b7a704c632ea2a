"""Things with limbs and wheels: people, four-legged animals, faces, cars, bicycles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgetam_label.training.synthetic_objects import Skeleton, Thing, Workshop
from edgetam_label.training.synthetic_shapes import (
    Contour,
    Shape,
    capsule,
    ellipse,
    roughen,
    smooth_blob,
    superellipse,
    turn,
)
from edgetam_label.training.synthetic_sprites import Sprite
from edgetam_label.training.synthetic_textures import Material

_SKIN = ((236, 188, 160), (205, 150, 118), (160, 105, 75), (105, 68, 48), (70, 45, 34))
_COATS = (
    (150, 105, 65), (85, 58, 40), (40, 34, 32), (205, 195, 180), (190, 150, 100), (120, 112, 105)
)  # fmt: skip
_HAIR = ((30, 22, 18), (75, 48, 28), (150, 110, 60), (120, 118, 115), (210, 180, 120))


Layers = list[tuple[Shape, Material, float]]  # outline, material, bump; bottom first


@dataclass
class Rig:
    """Bones and sprites while a body is being put together."""

    shop: Workshop
    parent: list[int] = field(default_factory=list)
    rows: list[tuple[float, float, float, float, float, float]] = field(default_factory=list)
    sprites: list[Sprite] = field(default_factory=list)
    bones: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    parts: int = 0
    shaggy: float = 0.0  # how far outlines fray, in object units
    round: float = 1.0  # how strongly each limb is modelled by light

    def bone(
        self,
        parent: int,
        at: tuple[float, float],
        rest: float,
        swing: float = 0.0,
        phase: float = 0.0,
        spin: float = 0.0,
    ) -> int:
        self.parent.append(parent)
        self.rows.append((at[0], at[1], rest, swing, phase, spin))
        return len(self.parent) - 1

    def skin(
        self,
        bone: int,
        layers: Layers,
        depth: int,
        *,
        own: bool = True,
    ) -> None:
        """Cover a bone with painted layers; `depth` orders sprites back (low) to front."""
        points = np.concatenate(
            [c for shape, _, _ in layers[:1] for c in shape] + [c for s, _, _ in layers for c in s]
        )
        low, high = points.min(axis=0), points.max(axis=0)
        canvas = self.shop.canvas(low[0], low[1], high[0], high[1])
        for index, (shape, material, bump) in enumerate(layers):
            if own or index:
                self.parts += 1
            if self.shaggy > 0:
                shape = [roughen(self.shop.rng, contour, self.shaggy) for contour in shape]
            part = max(self.parts, 1)
            canvas.paint(shape, material, self.shop.light, part=part, bump=bump * self.round)
        self.sprites.append(canvas.finish())
        self.bones.append(bone)
        self.depth.append(depth)

    def finish(self, kind: str, *, elastic: float = 0.0) -> Thing:
        order = np.argsort(np.asarray(self.depth), kind="stable")
        rows = np.asarray(self.rows, np.float64)
        skeleton = Skeleton(
            tuple(self.parent), rows[:, :2], rows[:, 2], rows[:, 3], rows[:, 4], rows[:, 5]
        )
        sprites = tuple(self.sprites[i] for i in order)
        bones = tuple(self.bones[i] for i in order)
        return Thing(kind, sprites, bones, skeleton, self.parts, stands=True, elastic=elastic)


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


def face(shop: Workshop) -> Thing:
    """An animal or a person from the front: head on a body, eyes, nose, ears."""
    rng, rig = shop.rng, Rig(shop)
    human = rng.random() < 0.5
    coat = shop.tone(*_SKIN[int(rng.integers(len(_SKIN)))]) if human else shop.material()
    second = shop.material()
    body = rig.bone(-1, (0, 1.0), -np.pi / 2, 0.05)
    wide = rng.uniform(0.4, 0.75)
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
