"""What a thing is: sprites on a skeleton, and the workshop in which makers build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgetam_label.training.synthetic_shapes import Shape
from edgetam_label.training.synthetic_sprites import Canvas, Light, Sprite
from edgetam_label.training.synthetic_textures import Material, Textures, random_color

FILM_PACE = 2.0  # frames of a film for each radian of the beat


@dataclass(frozen=True)
class Skeleton:
    """Bones as rows; a bone's local x axis runs along it.

    parent: index or -1; attach: (n, 2) where it starts, in the parent's local frame; rest, swing,
    phase: (n,) radians; the angle to the parent is rest + swing * sin(beat + phase); spin: (n,)
    steady turns (wheels).
    """

    parent: tuple[int, ...]
    attach: NDArray[np.float64]
    rest: NDArray[np.float64]
    swing: NDArray[np.float64]
    phase: NDArray[np.float64]
    spin: NDArray[np.float64]

    def pose(self, beat: float) -> list[NDArray[np.float64]]:
        """(3, 3) bone -> object for every bone."""
        poses: list[NDArray[np.float64]] = []
        angles = self.rest + self.swing * np.sin(beat + self.phase) + self.spin * beat
        for bone, parent in enumerate(self.parent):
            c, s = np.cos(angles[bone]), np.sin(angles[bone])
            x, y = self.attach[bone]
            local = np.array([[c, -s, x], [s, c, y], [0, 0, 1]])
            poses.append(local if parent < 0 else poses[parent] @ local)
        return poses


@dataclass(frozen=True)
class Thing:
    """An object to be placed in a scene.

    sprites: back to front; bones: which bone carries each sprite (-1: none); num_parts: parts are
    numbered 1..num_parts in the sprites; stands: has feet or wheels, so it keeps upright and casts
    a contact shadow; fast: likes to move quickly (balls); elastic: how much it may deform; film:
    the sprites are what it looks like at moments of its movement, of which one is shown.
    """

    kind: str
    sprites: tuple[Sprite, ...]
    bones: tuple[int, ...]
    skeleton: Skeleton | None
    num_parts: int
    stands: bool = False
    fast: bool = False
    elastic: float = 0.0
    film: bool = False

    def shown(self, beat: float) -> tuple[tuple[Sprite, int], ...]:
        """What is painted at a beat, back to front: sprites, and the bones that carry them."""
        every = tuple(zip(self.sprites, self.bones, strict=True))
        if not self.film:
            return every
        last = len(every) - 1  # there and back again
        at = last - abs((beat * FILM_PACE) % (2 * last) - last)
        return (every[round(at)],)


@dataclass(frozen=True)
class Workshop:
    """What makers need: randomness, materials, light, resolution and the colour to hide in."""

    rng: Generator
    textures: Textures
    light: Light
    shapes: dict[str, Callable[[Generator], Shape]]
    pixels_per_unit: float
    hide: NDArray[np.float32] | None  # colour of the surroundings, for camouflage

    def material(
        self, base: NDArray[np.float32] | None = None, kind: str | None = None
    ) -> Material:
        near = base if base is not None else self.hide
        color = random_color(self.rng, near) if near is not None else None
        return self.textures.material(self.rng, color, kind=kind)

    def tone(self, *color: float) -> Material:
        """A plain material near a given colour."""
        base = np.asarray(color, np.float32) * float(self.rng.uniform(0.75, 1.2))
        return self.textures.material(self.rng, np.clip(base, 3, 250), kind="plain")

    def canvas(self, x0: float, y0: float, x1: float, y1: float) -> Canvas:
        return Canvas((x0, y0, x1, y1), self.pixels_per_unit)

    def shape(self) -> Shape:
        names = tuple(self.shapes)
        return self.shapes[names[int(self.rng.integers(len(names)))]](self.rng)


def single(
    kind: str,
    canvas: Canvas,
    parts: int,
    *,
    stands: bool = False,
    fast: bool = False,
    elastic: float = 0.0,
) -> Thing:
    """A thing without joints: one painting."""
    return Thing(kind, (canvas.finish(),), (-1,), None, parts, stands, fast, elastic)
