"""What is in a synthetic scene: which things, where, how they move, the light and the camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgetam_label.training import synthetic_forms as forms
from edgetam_label.training import synthetic_objects as objects
from edgetam_label.training.synthetic_animals import creature, quadruped
from edgetam_label.training.synthetic_backgrounds import paint_background
from edgetam_label.training.synthetic_cutouts import cutout, scene_things
from edgetam_label.training.synthetic_lens import Lens, make_lens
from edgetam_label.training.synthetic_motion import (
    BACKGROUND_DEPTH,
    Camera,
    Track,
    carried,
    crossing,
    make_camera,
    make_track,
)
from edgetam_label.training.synthetic_people import face, person
from edgetam_label.training.synthetic_pictures import Pictures, picture_thing
from edgetam_label.training.synthetic_places import Places
from edgetam_label.training.synthetic_render import Placed, Shadows
from edgetam_label.training.synthetic_shapes import HELDOUT_SHAPES, TRAIN_SHAPES
from edgetam_label.training.synthetic_sprites import Light
from edgetam_label.training.synthetic_textures import Textures, load_textures
from edgetam_label.training.synthetic_things import Thing, Workshop
from edgetam_label.training.synthetic_vehicles import bicycle, car

Split = Literal["train", "heldout"]
Maker = Callable[[Workshop], Thing | None]

#: maker -> share among the objects of a training scene
TRAIN_MAKERS: dict[str, tuple[Maker, float]] = {
    "person": (person, 5.0),
    "quadruped": (quadruped, 4.0),
    "creature": (creature, 3.0),
    "face": (face, 1.5),
    "car": (car, 2.0),
    "bicycle": (bicycle, 0.5),
    "simple": (forms.simple, 4.0),
    "lump": (forms.lump, 3.0),
    "ball": (forms.ball, 1.7),
    "mug": (objects.mug, 0.7),
    "bottle": (objects.bottle, 0.7),
    "phone": (objects.phone, 1.3),
    "carton": (objects.carton, 0.9),
    "furniture": (objects.furniture, 0.8),
    "plant": (objects.plant, 0.8),
    "sign": (objects.sign, 0.7),
    "rock": (forms.rock, 0.5),
    "cutout": (cutout, 3.0),
}
#: `cloth`, `lamp` and `fish` are never in training; neither are the held-out outlines and photos
HELDOUT_MAKERS: dict[str, tuple[Maker, float]] = {
    "person": (person, 2.0),
    "quadruped": (quadruped, 2.0),
    "car": (car, 1.0),
    "simple": (forms.simple, 3.0),
    "lump": (forms.lump, 2.0),
    "ball": (forms.ball, 1.0),
    "cloth": (objects.cloth, 1.5),
    "lamp": (objects.lamp, 1.5),
    "fish": (objects.fish, 1.5),
    "cutout": (cutout, 0.5),
}
_CARRIED = 0.25  # share of further things that are held, worn or ridden by one that is there
_HELD_BEFORE = 0.8  # share of those that are in front of it
_CROSSING = 0.3  # share of further things that pass before or behind one that is there, in clips
_PICTURED = 0.7  # share of things that are made after a picture, where there are any
_MAX_PARTS = 240  # part numbers fit a byte
_PAN_ROOM = 1.45  # how much larger than the frame the background of a moving clip is


@dataclass(frozen=True)
class Scene:
    """background: (h, w, 3), no smaller than the frame; placed: back to front; shutter: 0..1."""

    background: NDArray[Any]
    placed: tuple[Placed, ...]
    camera: Camera
    shadows: Shadows
    lens: Lens
    shutter: float


@dataclass(frozen=True)
class _Set:
    """What the placing of things needs to know."""

    rng: Generator
    height: int
    width: int
    num_frames: int
    split: Split
    light: Light
    background: NDArray[Any]
    pace: float  # how much happens between two frames: clips are fast or slow as a whole
    pictures: Pictures | None
    textures: Textures

    @property
    def size(self) -> int:
        return min(self.height, self.width)


def make_scene(
    rng: Generator,
    height: int,
    width: int,
    num_frames: int,
    split: Split,
    max_objects: int,
    pictures: Pictures | None = None,
    places: Places | None = None,
) -> Scene:
    """A random scene for frames of height x width pixels.

    pictures: for things made after them; places: for backgrounds and surfaces; or None.
    """
    size = min(height, width)
    light = _make_light(rng)
    shapes = TRAIN_SHAPES if split == "train" else HELDOUT_SHAPES
    textures = replace(load_textures(split), places=places)
    shop = Workshop(rng, textures, light, shapes, size * 0.25, None)
    margin = 1.0 if num_frames == 1 else _PAN_ROOM
    place = paint_background(shop, int(height * margin), int(width * margin))
    background = place.image
    if rng.random() < 0.3 and not place.outlines:  # out of focus
        background = cv2.GaussianBlur(background, (0, 0), float(rng.uniform(0.004, 0.018)) * size)
    pace = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
    stage = _Set(rng, height, width, num_frames, split, light, background, pace, pictures, textures)
    placed = _place_scene(stage, place.outlines)
    placed += _place_things(stage, placed, max_objects)
    strength = float(rng.uniform(0.15, 0.65)) if rng.random() < 0.75 else 0.0
    reach = float(rng.uniform(0.03, 0.35))
    shift = (float(-light.direction[0]) * reach, float(-light.direction[1]) * reach)
    shadows = Shadows(strength, shift, float(rng.uniform(0.03, 0.2)))
    camera = make_camera(rng, height, width, num_frames, stage.pace)
    lens = make_lens(rng, height, width, num_frames)
    shutter = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.5 else 0.0
    return Scene(background, placed, camera, shadows, lens, shutter)


def _make_light(rng: Generator) -> Light:
    angle, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
    across = np.cos(tilt)
    direction = [np.cos(angle) * across, -abs(np.sin(angle)) * across, np.sin(tilt)]
    specular = float(rng.uniform(0, 0.7)) if rng.random() < 0.4 else 0.0
    return Light(np.array(direction, np.float32), float(rng.uniform(0.3, 0.75)), specular)


def _place_scene(stage: _Set, outlines: tuple[NDArray[np.float64], ...]) -> tuple[Placed, ...]:
    """The real objects of a photographed scene; they stay where the photograph has them."""
    things = scene_things(stage.background, outlines)
    rows, columns = stage.background.shape[:2]
    still = np.zeros(stage.num_frames)
    corner = np.array([-(columns - stage.width) / 2, -(rows - stage.height) / 2])
    track = Track(
        still[:, None] + corner, still + 1, still, still, still + 1, 1.0, BACKGROUND_DEPTH
    )
    calm = np.zeros((4, 4, 2), np.float32)
    return tuple(Placed(thing, track, index, calm, 0.0) for index, thing in enumerate(things))


def _place_things(stage: _Set, before: tuple[Placed, ...], max_objects: int) -> tuple[Placed, ...]:
    """One large thing with company, or several small ones; sometimes twins of each other."""
    rng = stage.rng
    if before and rng.random() < 0.5:
        return ()
    dominant = rng.random() < 0.68 and not before
    count = int(rng.choice([1, 1, 2, 2, 3, 4, 5])) if dominant else int(rng.integers(2, 8))
    placed: list[Placed] = []
    things: list[tuple[Thing, float]] = []
    held: list[tuple[int, int]] = []  # and by which
    offset = len(before)
    for index in range(min(count, max_objects - len(before))):
        main = index == 0
        radius = float(np.exp(rng.uniform(np.log(0.06), np.log(0.28))))
        if main and dominant:
            radius = float(rng.uniform(0.2, 0.55))
        centre = _centre(stage, main)
        # neither this nor crossings are in held-out scenes, which stay what they were
        bearer: int | None = None
        company = bool(placed) and stage.split == "train"
        if company and rng.random() < _CARRIED:
            bearer = int(rng.integers(len(placed)))
            radius = things[bearer][1] * float(np.exp(rng.uniform(np.log(0.25), np.log(0.9))))
        if not main and rng.random() < 0.25:
            thing, other = things[int(rng.integers(len(things)))]
            radius = other * float(np.exp(rng.normal(0, 0.2)))
        else:
            thing = _make_thing(stage, centre, radius)
        if offset + thing.num_parts > _MAX_PARTS:
            break
        things.append((thing, radius))
        moving = _set_going(stage, thing, centre, radius, offset, main)
        if bearer is not None:
            moving = replace(moving, track=carried(rng, moving.track, placed[bearer].track))
            held.append((index, bearer))
        elif company and stage.num_frames > 3 and rng.random() < _CROSSING:
            passed = placed[int(rng.integers(len(placed)))]
            moving = replace(moving, track=crossing(rng, moving.track, passed.track))
        placed.append(moving)
        offset += thing.num_parts
    return _stack(rng, placed, dominant, held)


def _centre(stage: _Set, main: bool) -> tuple[float, float]:
    if main:
        x, y = np.clip(stage.rng.normal(0.5, 0.15, 2), 0.15, 0.85)
    else:
        x, y = stage.rng.uniform(0.02, 0.98, 2)
    return float(x * stage.width), float(y * stage.height)


def _make_thing(stage: _Set, centre: tuple[float, float], radius: float) -> Thing:
    rng = stage.rng
    hide = None
    if rng.random() < 0.3:
        rows, columns = stage.background.shape[:2]
        row = int(np.clip(centre[1] / stage.height, 0, 0.99) * rows)
        column = int(np.clip(centre[0] / stage.width, 0, 0.99) * columns)
        hide = stage.background[row, column].astype(np.float32)
    train = stage.split == "train"
    makers = TRAIN_MAKERS if train else HELDOUT_MAKERS
    shapes = TRAIN_SHAPES if train else HELDOUT_SHAPES
    names = tuple(makers)
    shares = np.array([makers[name][1] for name in names])
    maker = makers[names[int(rng.choice(len(names), p=shares / shares.sum()))]][0]
    resolution = max(radius * stage.size * 1.05, 6.0)
    shop = Workshop(rng, stage.textures, stage.light, shapes, resolution, hide)
    if stage.pictures is not None and rng.random() < _PICTURED:
        maker = partial(picture_thing, pictures=stage.pictures, moving=stage.num_frames > 1)
    return maker(shop) or forms.simple(shop)


def _set_going(
    stage: _Set,
    thing: Thing,
    centre: tuple[float, float],
    radius: float,
    part_offset: int,
    main: bool,
) -> Placed:
    rng = stage.rng
    track = make_track(
        rng,
        stage.height,
        stage.width,
        stage.num_frames,
        centre=centre,
        radius=radius * stage.size,
        stands=thing.stands,
        fast=thing.fast,
        pace=stage.pace,
        leaves=stage.num_frames > 3 and rng.random() < (0.08 if main else 0.2),
    )
    ripple = rng.normal(0, 1, (4, 4, 2)).astype(np.float32)
    return Placed(thing, track, part_offset, ripple, float(rng.uniform(0.2, 0.9)))


def _stack(
    rng: Generator, placed: list[Placed], dominant: bool, held: list[tuple[int, int]]
) -> tuple[Placed, ...]:
    """Back to front: by how low things stand, as on a floor, or anyhow.

    held: pairs of a thing and its bearer, between which nothing else can be.
    """
    order = list(rng.permutation(len(placed)))
    if rng.random() < 0.5:
        feet = [float(p.track.centre[0, 1] + p.track.scale[0] * p.thing.stands) for p in placed]
        order.sort(key=lambda index: feet[index])
    if dominant and rng.random() < 0.55:  # the main thing in front
        order.remove(0)
        order.append(0)
    for index, bearer in held:
        order.remove(index)
        order.insert(order.index(bearer) + (rng.random() < _HELD_BEFORE), index)
    return tuple(placed[index] for index in order)
