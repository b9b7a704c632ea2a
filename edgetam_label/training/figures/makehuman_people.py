"""Random clothed people from MakeHuman's assets: body shape, clothes, hair and their colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgetam_label.training.figures.arrays import FloatArray, IntArray
from edgetam_label.training.figures.clothes_colours import (
    cloth_colours,
    hair_colour,
    plain_colour,
    skin_colour,
)
from edgetam_label.training.figures.makehuman_files import (
    AssetError,
    Garment,
    Mesh,
    Rig,
    read_garment,
    read_mesh,
    read_rig,
    read_target,
)
from edgetam_label.training.figures.makehuman_poses import (
    Skeleton,
    move,
    moving_pose,
    vertex_transforms,
)
from edgetam_label.training.figures.mesh_pictures import Layer, subdivided

AGES = ("child", "young", "old")
EYES = ("helper-l-eye", "helper-r-eye")
# How far, in decimetres, the skin steps back in the depth sorting, and hats step forward
SKIN_PUSH, HAT_PUSH = 0.06, -0.6
HALF_LENGTH = 0.16  # of the pictures show the upper body only
FINE_FACES = 6000  # a colour a face: with fewer faces a pattern looks like mosaic
Painter = Callable[[FloatArray, IntArray], FloatArray]


@dataclass(frozen=True)
class Wardrobe:
    """Everything a person is made of; garments and targets are read once, when first needed."""

    base: Mesh
    rig: Rig
    macrodetails: Path
    suits: tuple[Path, ...]
    shoes: tuple[Path, ...]
    hair: tuple[Path, ...]
    hats: tuple[Path, ...]
    eyebrows: tuple[Path, ...]
    _garments: dict[Path, Garment] = field(default_factory=dict)
    _targets: dict[str, tuple[IntArray, FloatArray]] = field(default_factory=dict)

    @classmethod
    def open(cls, makehuman: Path, assets: Path) -> Wardrobe:
        """From the root folders of the repositories makehuman and makehuman-assets.

        Raises AssetError where the body, the rig or any kind of garment is missing.
        """
        data, clothes = makehuman / "makehuman" / "data", assets / "base" / "clothes"
        base = read_mesh(data / "3dobjs" / "base.obj")
        rigs = data / "rigs"
        rig = read_rig(rigs / "default.mhskel", rigs / "default_weights.mhw", len(base.vertices))
        return cls(
            base=base,
            rig=rig,
            macrodetails=data / "targets" / "macrodetails",
            suits=_garments_like(clothes, "*suit*"),
            shoes=_garments_like(clothes, "shoes*"),
            hair=_garments_like(assets / "base" / "hair", "*"),
            hats=_garments_like(clothes, "fedora*"),
            eyebrows=_garments_like(assets / "base" / "eyebrows", "*"),
        )

    def garment(self, path: Path) -> Garment:
        if path not in self._garments:
            self._garments[path] = read_garment(path)
        return self._garments[path]

    def target(self, name: str) -> tuple[IntArray, FloatArray]:
        if name not in self._targets:
            self._targets[name] = read_target(self.macrodetails / f"{name}.target")
        return self._targets[name]


def _garments_like(folder: Path, pattern: str) -> tuple[Path, ...]:
    found = tuple(sorted(folder.glob(f"{pattern}/*.mhclo")))
    if not found:
        raise AssetError(
            f"{folder} holds no {pattern}/*.mhclo: pass the makehuman-assets repository"
        )
    return found


def random_body(wardrobe: Wardrobe, gender: str, rng: np.random.Generator) -> FloatArray:
    """The base mesh's vertices (V, 3) as a body of random age, build, height and descent."""
    vertices = wardrobe.base.vertices.copy()

    def morph(name: str, strength: float) -> None:
        numbers, moves = wardrobe.target(name)
        vertices[numbers] += strength * moves

    age = str(rng.choice(AGES, p=[0.2, 0.6, 0.2]))
    ages = _mixed(age, "young", rng)
    muscles = _mixed(str(rng.choice(["minmuscle", "maxmuscle"])), "averagemuscle", rng)
    weights = _mixed(str(rng.choice(["minweight", "maxweight"])), "averageweight", rng)
    descent = str(rng.choice(["african", "asian", "caucasian"]))
    tall, height = str(rng.choice(["minheight", "maxheight"])), float(rng.uniform(0, 0.7))
    for age, age_part in ages.items():
        morph(f"{descent}-{gender}-{age}", age_part)
        for muscle, muscle_part in muscles.items():
            for weight, weight_part in weights.items():
                part = age_part * muscle_part * weight_part
                build = f"{gender}-{age}-{muscle}-{weight}"
                morph(f"universal-{build}", part)
                morph(f"height/{build}-{tall}", part * height)
    return vertices


def _mixed(name: str, other: str, rng: np.random.Generator) -> dict[str, float]:
    """Shares of name and other which sum to 1."""
    if name == other:
        return {name: 1.0}
    share = float(rng.uniform(0, 1))
    return {name: share, other: 1.0 - share}


def fit(garment: Garment, base: FloatArray) -> FloatArray:
    """The garment's vertices (N, 3) on a body whose base mesh has the vertices base."""
    first, second = (base[garment.scale_vertices[:, end], np.arange(3)] for end in (0, 1))
    scale = np.abs(first - second) / garment.scale_lengths
    tied: FloatArray = np.einsum("nk,nkc->nc", garment.weights, base[garment.anchors])
    return tied + garment.offsets * scale


def garment_transforms(garment: Garment, base_transforms: FloatArray) -> FloatArray:
    """The matrices (N, 3, 4) which pose a garment with the base vertices it is tied to."""
    # weights outside 0..1 place a vertex well, but would throw its matrix far off
    shares = np.clip(garment.weights, 1e-6, None)
    shares = shares / shares.sum(axis=1, keepdims=True)
    blended: FloatArray = np.einsum("nk,nkij->nij", shares, base_transforms[garment.anchors])
    return blended


def random_person(wardrobe: Wardrobe, rng: np.random.Generator, moment: float = 0.0) -> list[Layer]:
    """The meshes of one person in clothes and in a pose, feet down, unposed facing +z.

    moment: of the person's movement, from 0 to 1.
    """
    gender = str(rng.choice(["female", "male"]))
    body = random_body(wardrobe, gender, rng)
    skeleton = Skeleton.in_body(wardrobe.rig, body)
    transforms = vertex_transforms(skeleton, moving_pose(skeleton, rng, moment))
    hair_paint = hair_colour(rng)
    hidden: set[int] = set()
    layers: list[Layer] = []

    def wear(path: Path, colour: Painter, push: float, fine: bool = True) -> None:
        garment = wardrobe.garment(path)
        unposed = fit(garment, body)
        hidden.update(garment.hidden.tolist())
        posed = move(garment_transforms(garment, transforms), unposed)
        both, faces = np.concatenate([unposed, posed], axis=1), garment.faces
        while fine and len(faces) < FINE_FACES:
            both, faces = subdivided(both, faces)
        paint = colour(both[:, :3], faces)
        layers.append(Layer(both[:, 3:], faces, paint, two_sided=True, push_back=push))

    def choose(paths: tuple[Path, ...]) -> Path:
        return paths[int(rng.integers(len(paths)))]

    suits = tuple(path for path in wardrobe.suits if path.stem.startswith(gender))
    waist = float(skeleton.heads[wardrobe.rig.names.index("spine05"), 1])
    wear(choose(suits or wardrobe.suits), lambda v, f: cloth_colours(v, f, waist, rng), 0.0)
    wear(choose(wardrobe.shoes), lambda v, f: cloth_colours(v, f, -np.inf, rng), -0.02)
    wear(choose(wardrobe.eyebrows), lambda v, f: _plain(hair_paint * 0.8, f), -0.05, False)
    if rng.random() < 0.94:
        wear(choose(wardrobe.hair), lambda v, f: _streaks(hair_paint, f, rng), -0.03)
    if rng.random() < 0.12:
        hat = plain_colour(rng)
        wear(choose(wardrobe.hats), lambda v, f: _plain(hat, f), HAT_PUSH)
    posed = move(transforms, body)
    skin = wardrobe.base.faces_of("body")
    skin = skin[~np.isin(skin, list(hidden)).all(axis=1)]
    layers.append(Layer(posed, skin, _plain(skin_colour(rng), skin), push_back=SKIN_PUSH))
    for eye in EYES:
        faces = wardrobe.base.faces_of(eye)
        layers.append(Layer(posed, faces, _eye_colours(body, faces, rng), push_back=SKIN_PUSH))
    return [layer for layer in layers if len(layer.faces)]


def _plain(colour: FloatArray, faces: IntArray) -> FloatArray:
    return np.tile(colour, (len(faces), 1))


def _streaks(colour: FloatArray, faces: IntArray, rng: np.random.Generator) -> FloatArray:
    return colour * rng.normal(1.0, 0.06, (len(faces), 1))


def _eye_colours(body: FloatArray, faces: IntArray, rng: np.random.Generator) -> FloatArray:
    """White with a dark iris: the frontmost part of the eyeball."""
    colours = np.full((len(faces), 3), 225.0)
    if len(faces):
        forward = body[faces][:, :, 2].mean(axis=1)
        iris = forward > forward.max() - 0.2 * float(np.ptp(forward))
        colours[iris] = rng.uniform(20, 90, 3)
    return colours
