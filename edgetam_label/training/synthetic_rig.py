"""A rig: bones and the painted sprites on them, while a body is being put together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgetam_label.training.synthetic_shapes import Shape, roughen
from edgetam_label.training.synthetic_sprites import Sprite
from edgetam_label.training.synthetic_textures import Material
from edgetam_label.training.synthetic_things import Skeleton, Thing, Workshop

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
