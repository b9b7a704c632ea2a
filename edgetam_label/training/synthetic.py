"""Synthetic clips with exact truth: `synthetic_clip` makes one, `SyntheticClips` is a source.

Everything follows from the seed. The "heldout" family uses textures, photographs and shapes that
"train" never shows, so that a measure on it tells about things unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgetam_label.training import synthetic_bodies as bodies
from edgetam_label.training import synthetic_objects as objects
from edgetam_label.training.clips import Clip
from edgetam_label.training.synthetic_backgrounds import paint_background
from edgetam_label.training.synthetic_lens import Lens, make_lens
from edgetam_label.training.synthetic_motion import Camera, make_camera, make_track
from edgetam_label.training.synthetic_objects import Thing, Workshop
from edgetam_label.training.synthetic_render import (
    Placed,
    Shadows,
    background_frame,
    blend,
    cast_shadow,
    draw_layer,
    smear,
)
from edgetam_label.training.synthetic_shapes import HELDOUT_SHAPES, TRAIN_SHAPES
from edgetam_label.training.synthetic_sprites import Light
from edgetam_label.training.synthetic_textures import load_textures

Split = Literal["train", "heldout"]
Maker = Callable[[Workshop], Thing]

#: maker -> share among the objects of a training scene
TRAIN_MAKERS: dict[str, tuple[Maker, float]] = {
    "person": (bodies.person, 5.0), "quadruped": (bodies.quadruped, 4.0), "face": (bodies.face, 1.5),
    "car": (bodies.car, 2.0), "bicycle": (bodies.bicycle, 0.6), "simple": (objects.simple, 4.0),
    "lump": (objects.lump, 3.0), "ball": (objects.ball, 1.5), "mug": (objects.mug, 0.7),
    "bottle": (objects.bottle, 0.7), "phone": (objects.phone, 1.2), "carton": (objects.carton, 0.8),
    "furniture": (objects.furniture, 0.8), "plant": (objects.plant, 0.8), "sign": (objects.sign, 0.8),
    "rock": (objects.rock, 0.5),
}  # fmt: skip
#: `cloth`, `lamp` and `fish` are never in training
HELDOUT_MAKERS: dict[str, tuple[Maker, float]] = {
    "person": (bodies.person, 2.0), "quadruped": (bodies.quadruped, 2.0), "car": (bodies.car, 1.0),
    "simple": (objects.simple, 3.0), "lump": (objects.lump, 2.0), "ball": (objects.ball, 1.0),
    "cloth": (objects.cloth, 1.5), "lamp": (objects.lamp, 1.5), "fish": (objects.fish, 1.5),
}  # fmt: skip
_MAX_PARTS = 240  # part numbers fit a byte
_MIN_PIXELS = 16  # an object that never shows more than this is no object
_TRIES = 20


@dataclass(frozen=True)
class _Scene:
    background: NDArray[np.uint8]
    placed: tuple[Placed, ...]  # back to front
    camera: Camera
    shadows: Shadows
    lens: Lens
    shutter: float


def synthetic_clip(
    seed: int,
    *,
    size: int | tuple[int, int] = 256,
    num_frames: int = 1,
    texture_family: Split | None = "train",
    max_objects: int = 7,
) -> Clip:
    """Render one clip.

    Args:
        seed: decides everything; the same seed, size and num_frames give the same bytes.
        size: side of the square frame, or (height, width), in pixels.
        num_frames: 1 makes a still, at a fraction of the cost.
        texture_family: "train" or "heldout"; None means "train".
        max_objects: most objects in a scene.

    Returns:
        The clip, with at least one object visible in its first frame.
    """
    height, width = (size, size) if isinstance(size, int) else size
    split: Split = texture_family or "train"
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, attempt, split == "heldout"])
        scene = _make_scene(rng, height, width, num_frames, split, max_objects)
        clip = _render(scene, rng, height, width, num_frames)
        if clip is not None:
            return clip
    raise AssertionError(f"no visible object in {_TRIES} scenes of seed {seed}, {width}x{height}")


@dataclass(frozen=True)
class SyntheticClips:
    """An endless-looking source of synthetic clips; safe in `DataLoader` workers.

    Attributes:
        seed: sources with different seeds share no clip.
        size: frame side, or (height, width).
        num_frames: frames per clip; 1 for stills.
        texture_family: "train" or "heldout".
        length: what `len` says.
    """

    seed: int = 0
    size: int | tuple[int, int] = 256
    num_frames: int = 1
    texture_family: Split = "train"
    length: int = 1_000_000

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.length:
            raise IndexError(index)
        cv2.setNumThreads(0)  # the loader's workers are the parallelism
        seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0])
        return synthetic_clip(
            seed, size=self.size, num_frames=self.num_frames, texture_family=self.texture_family
        )


def _make_scene(
    rng: Generator, height: int, width: int, num_frames: int, split: Split, max_objects: int
) -> _Scene:
    size = min(height, width)
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
    direction = np.array(
        [np.cos(angle) * np.cos(tilt), -abs(np.sin(angle)) * np.cos(tilt), np.sin(tilt)], np.float32
    )
    light = Light(
        direction,
        float(rng.uniform(0.3, 0.75)),
        float(rng.uniform(0, 0.7)) if rng.random() < 0.4 else 0.0,
    )
    textures = load_textures(split)
    shapes = TRAIN_SHAPES if split == "train" else HELDOUT_SHAPES
    shop = Workshop(rng, textures, light, shapes, size * 0.25, None)
    margin = 1.0 if num_frames == 1 else 1.45
    background = paint_background(shop, int(height * margin), int(width * margin))
    if rng.random() < 0.4:
        background = cv2.GaussianBlur(background, (0, 0), float(rng.uniform(0.006, 0.02)) * size)

    dominant = rng.random() < 0.6
    count = (
        1 + int(rng.choice([0, 0, 1, 1, 2, 3, 4]))
        if dominant
        else int(rng.integers(2, max_objects + 1))
    )
    makers = TRAIN_MAKERS if split == "train" else HELDOUT_MAKERS
    names = tuple(makers)
    shares = np.array([makers[name][1] for name in names])
    placed: list[Placed] = []
    things: list[tuple[Thing, float]] = []
    offset = 0
    for index in range(min(count, max_objects)):
        main = index == 0
        radius = (
            rng.uniform(0.2, 0.52)
            if main and dominant
            else np.exp(rng.uniform(np.log(0.05), np.log(0.26)))
        )
        centre = _centre(rng, height, width, main)
        twin = not main and rng.random() < 0.25
        if twin:
            thing, old = things[int(rng.integers(len(things)))]
            radius = old * float(np.exp(rng.normal(0, 0.2)))
        else:
            hide = None
            if rng.random() < 0.3:
                row = int(np.clip(centre[1], 0, height - 1) * margin)
                column = int(np.clip(centre[0], 0, width - 1) * margin)
                hide = background[row, column].astype(np.float32)
            local = Workshop(rng, textures, light, shapes, max(radius * size * 1.05, 6.0), hide)
            maker = makers[names[int(rng.choice(len(names), p=shares / shares.sum()))]][0]
            thing = maker(local)
        if offset + thing.num_parts > _MAX_PARTS:
            break
        things.append((thing, float(radius)))
        leaves = num_frames > 3 and rng.random() < (0.08 if main else 0.2)
        track = make_track(
            rng, height, width, num_frames, centre=centre, radius=float(radius) * size,
            stands=thing.stands, fast=thing.fast, leaves=leaves,
        )  # fmt: skip
        ripple = rng.normal(0, 1, (4, 4, 2)).astype(np.float32)
        placed.append(Placed(thing, track, offset, ripple, float(rng.uniform(0.2, 0.9))))
        offset += thing.num_parts
    order = rng.permutation(len(placed))
    if dominant and rng.random() < 0.6:  # the main thing in front
        order = np.array([*[i for i in order if i != 0], 0])
    strength = float(rng.uniform(0.15, 0.65)) if rng.random() < 0.75 else 0.0
    shift = rng.uniform(0.03, 0.35)
    shadows = Shadows(
        strength,
        (float(-direction[0] * shift), float(-direction[1] * shift)),
        float(rng.uniform(0.03, 0.2)),
    )
    return _Scene(
        background, tuple(placed[i] for i in order), make_camera(rng, height, width, num_frames), shadows,
        make_lens(rng, height, width, num_frames), float(rng.uniform(0.2, 0.8)) if rng.random() < 0.5 else 0.0,
    )  # fmt: skip


def _centre(rng: Generator, height: int, width: int, main: bool) -> tuple[float, float]:
    if main:
        x, y = np.clip(rng.normal(0.5, 0.15, 2), 0.15, 0.85)
    else:
        x, y = rng.uniform(0.02, 0.98, 2)
    return float(x * width), float(y * height)


def _render(scene: _Scene, rng: Generator, height: int, width: int, num_frames: int) -> Clip | None:
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    ids = np.zeros((num_frames, height, width), np.uint8)
    parts = np.zeros((num_frames, height, width), np.uint8)
    for t in range(num_frames):
        image = background_frame(scene.background, scene.camera, t, height, width)
        for number, placed in enumerate(scene.placed, start=1):
            view = scene.camera.matrix(t, placed.track.depth)
            layer = draw_layer(placed, view, t, height, width)
            if layer is None:
                continue
            cast_shadow(image, layer, placed, t, scene.shadows)
            rgba = layer.rgba
            if scene.shutter and num_frames > 1:
                near = placed.track.centre[max(t - 1, 0) : t + 2]
                rgba = smear(layer, (near[-1] - near[0]) / max(len(near) - 1, 1) * scene.shutter)
            offset = placed.part_offset
            blend(image, ids[t], parts[t], layer, rgba, number=number, part_offset=offset)
        frames[t] = scene.lens.expose(image, t, rng)
    return _number(frames, ids, parts, len(scene.placed))


def _number(
    frames: NDArray[np.uint8], ids: NDArray[np.uint8], parts: NDArray[np.uint8], count: int
) -> Clip | None:
    """Number the visible objects 1..n without gaps; None when frame 0 shows none worth a click."""
    flat = ids.reshape(len(ids), -1)
    areas = np.stack([cv2.calcHist([row], [0], None, [256], [0, 256]).ravel() for row in flat])
    kept = [k for k in range(1, count + 1) if areas[:, k].max() >= _MIN_PIXELS]
    first = max((int(areas[0, k]) for k in kept), default=0)
    if first < max(_MIN_PIXELS, ids[0].size // 400):
        return None
    table = np.zeros((1, 256), np.uint8)
    table[0, kept] = np.arange(1, len(kept) + 1)
    renumbered = cv2.LUT(flat, table).reshape(ids.shape)
    used = parts.reshape(len(parts), -1)
    if len(kept) < count:  # parts of things too small to count go with them
        used = cv2.copyTo(used, renumbered.reshape(used.shape))
    numbers = np.flatnonzero(cv2.calcHist([used], [0], None, [256], [0, 256]).ravel()[1:]) + 1
    table = np.zeros((1, 256), np.uint8)
    table[0, numbers] = np.arange(1, len(numbers) + 1)
    return Clip(frames, renumbered, cv2.LUT(used, table).reshape(parts.shape), len(kept))
