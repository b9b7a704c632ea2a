"""Animals and things from .glb models, in random poses, sizes and colours."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetam_label.training.figures.arrays import FloatArray
from edgetam_label.training.figures.glb_colours import (
    animal_colours,
    is_detail,
    thing_colours,
    waves,
)
from edgetam_label.training.figures.glb_files import GlbError, read_glb
from edgetam_label.training.figures.glb_models import Model
from edgetam_label.training.figures.glb_surfaces import (
    Surface,
    cut_small,
    rounded,
    vertex_normals,
    welded,
)
from edgetam_label.training.figures.mesh_pictures import Layer, View, random_light

FINE_ENOUGH = 6000  # triangles from which on a mesh is split once instead of twice
DETAIL_LIFT = 0.012  # in sizes: eyes lie just under the rounded skin otherwise
LARGER_PARTS = ("head", "neck", "leg", "tail", "ear", "torso")
SECONDS = (0.2, 0.8)  # of an animation that are filmed
BENDING = 0.05  # of the vertices follow several bones in whatever is not made of stiff parts


@dataclass(frozen=True)
class Folder:
    """The models of one folder and the share of the pictures that it gets."""

    name: str
    models: tuple[Model, ...]
    share: float


def read_folder(path: Path, share: float) -> Folder:
    """Raises GlbError where path has no .glb files or one of them cannot be used."""
    files = sorted(path.glob("*.glb"))
    if not files:
        raise GlbError(f"{path} has no .glb files; pass a folder which has some")
    return Folder(path.name, tuple(read_glb(file) for file in files), share)


def choose_folder(folders: Sequence[Folder], rng: np.random.Generator) -> Folder:
    """One of the folders, by their shares."""
    shares = np.array([folder.share for folder in folders])
    return folders[int(rng.choice(len(folders), p=shares / shares.sum()))]


def random_figure(folder: Folder, rng: np.random.Generator, moment: float = 0.0) -> list[Layer]:
    """Any of a folder's models, posed and coloured, at a moment (0 to 1) of its movement."""
    return dressed(folder.models[int(rng.integers(len(folder.models)))], rng, moment)


def is_animal(model: Model) -> bool:
    """Whether the model bends between its bones; stiff parts make a machine or furniture."""
    return model.skinned and float((model.weights.max(axis=1) < 0.95).mean()) > BENDING


def view_from_above(rng: np.random.Generator) -> View:
    """As people see what stands on the ground."""
    light = random_light(rng)
    return View(
        yaw=float(rng.uniform(-180, 180)),
        pitch=float(rng.uniform(-10, 35)),
        roll=float(rng.normal(0, 4)),
        distance=float(rng.uniform(2.0, 5.0)),
        light=light,
        ambient=float(rng.uniform(0.45, 0.75)),
    )


def random_pose(model: Model, rng: np.random.Generator, moment: float = 0.0) -> FloatArray:
    """The vertices (V, 3) at a random time of a random animation, some bones larger or smaller.

    moment: 0 to 1, up to SECONDS later.
    """
    bone_scales: dict[int, float] = {}
    if is_animal(model):
        # left and right, and the parts of one limb, change alike
        factors = {part: float(rng.uniform(0.85, 1.2)) for part in LARGER_PARTS}
        for number, (name, parent) in enumerate(
            zip(model.nodes.names, model.nodes.parents, strict=True)
        ):
            part = next((part for part in LARGER_PARTS if part in name.lower()), None)
            above = model.nodes.names[parent].lower() if parent >= 0 else ""
            # only the first bone of a limb: its size is handed down to the others
            if part is not None and part not in above:
                bone_scales[number] = factors[part]
    animation, time = None, 0.0
    if model.animations:
        animation = model.animations[int(rng.integers(len(model.animations)))]
        time = float(rng.uniform(0, animation.length))
        if moment > 0 and animation.length > 0:
            later = moment * float(deepcopy(rng).uniform(*SECONDS))
            time = (time + later) % animation.length
    return model.posed(animation, time, bone_scales) * rng.uniform(0.87, 1.17, 3)


def dressed(model: Model, rng: np.random.Generator, moment: float = 0.0) -> list[Layer]:
    """The model in a random pose and colours, with details such as eyes as a layer of their own.

    moment: of its movement, from 0 to 1.
    """
    points, rest = random_pose(model, rng, moment), model.posed()
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() <= 0:
        raise GlbError(f"{model.name} has no size in one of its poses; leave it out")
    points = points / np.ptp(points, axis=0).max()
    rest = (rest - rest.min(axis=0)) / np.ptp(rest, axis=0).max()
    animal = is_animal(model)
    if animal:
        surface = welded(points, rest, model.triangles)
        surface = rounded(surface, 2 if len(surface.triangles) < FINE_ENOUGH else 1)
    else:
        everything = np.arange(len(model.triangles))
        surface = cut_small(Surface(points, rest, model.triangles, everything))
    material = model.material[surface.source]
    own = model.colours[surface.source]
    places = surface.rest[surface.triangles].mean(axis=1)
    if animal:
        upward = vertex_normals(surface.rest, surface.triangles)[surface.triangles, 1].mean(axis=1)
        colours = animal_colours(own, material, model.material_names, places, upward, rng)
        # coarse shades of the coat, and fine hair
        colours = colours * (1 + 0.04 * waves(places, 5.0, rng))[:, None]
        hair = rng.normal(0, 0.06, len(surface.points))[surface.triangles].mean(axis=1)
        colours = colours * np.clip(1 + hair, 0.9, 1.1)[:, None]
    else:
        colours = thing_colours(own, material, model.material_names, rng)
    detail = np.array([is_detail(name) for name in model.material_names])[material]
    faces = np.concatenate([surface.triangles, surface.triangles[:, 2:]], axis=1)
    return [
        Layer(surface.points, faces[chosen], colours[chosen], True, -lift)
        for chosen, lift in ((~detail, 0.0), (detail, DETAIL_LIFT))
        if chosen.any()
    ]
