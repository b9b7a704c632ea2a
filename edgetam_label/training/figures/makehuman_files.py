"""Read MakeHuman's own file formats: meshes, targets, garments and the rig with its weights.

All lengths are MakeHuman's unit, the decimetre; x points to the person's left, y up, z forward.
Every reader raises AssetError, naming the file, where one is missing or cannot be understood.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetam_label.errors import UsageError
from edgetam_label.training.figures.arrays import FloatArray, IntArray


class AssetError(UsageError):
    """An asset is missing or malformed; the message names the file and says what to do."""


@dataclass(frozen=True)
class Mesh:
    """vertices (V, 3); faces (F, 4) vertex numbers, a triangle's last one twice; group (F,)."""

    vertices: FloatArray
    faces: IntArray
    groups: tuple[str, ...]
    face_group: IntArray

    def faces_of(self, *names: str) -> IntArray:
        """The faces (n, 4) of the groups called names; none where no group is called so."""
        numbers = [number for number, name in enumerate(self.groups) if name in names]
        return self.faces[np.isin(self.face_group, numbers)]


@dataclass(frozen=True)
class Garment:
    """Clothes, shoes, hair or a hat, tied to the base mesh.

    Vertex n lies at sum_k weights[n, k] * base[anchors[n, k]] + offsets[n] * scale, where scale,
    an axis each, is the distance of the pair scale_vertices[axis] along it over scale_lengths.
    hidden holds the base vertices which this garment covers.
    """

    name: str
    faces: IntArray
    anchors: IntArray
    weights: FloatArray
    offsets: FloatArray
    scale_vertices: IntArray
    scale_lengths: FloatArray
    hidden: IntArray


@dataclass(frozen=True)
class Rig:
    """Bones, parents first (parent -1: none), heads and tails as base vertices to average.

    weights (V, B): a vertex's share of each bone; rows sum to 1.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    head_vertices: tuple[IntArray, ...]
    tail_vertices: tuple[IntArray, ...]
    weights: FloatArray


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise AssetError(
            f"{path} is missing: pass the repositories makehuman and makehuman-assets"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"{path} cannot be read: {error}") from error


def read_mesh(path: Path) -> Mesh:
    """A Wavefront .obj file of triangles and quads; texture coordinates are ignored."""
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    face_group: list[int] = []
    groups: dict[str, int] = {}
    group = groups.setdefault("", 0)
    try:
        for line in read_text(path).splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(number) for number in rest.split()[:3]])
            elif kind == "g":
                group = groups.setdefault(rest.strip(), len(groups))
            elif kind == "f":
                corners = [int(corner.split("/")[0]) - 1 for corner in rest.split()]
                if len(corners) not in (3, 4):
                    raise ValueError(f"a face of {len(corners)} corners; 3 or 4 expected")
                faces.append((corners + corners[-1:])[:4])
                face_group.append(group)
    except ValueError as error:
        raise AssetError(f"{path} is no .obj file: {error}") from error
    if not faces or np.min(faces) < 0 or np.max(faces) >= len(vertices):
        raise AssetError(f"{path} has no faces, or faces of vertices which it does not have")
    return Mesh(np.array(vertices), np.array(faces), tuple(groups), np.array(face_group))


def read_target(path: Path) -> tuple[IntArray, FloatArray]:
    """A morph: base vertex numbers (n,) and how far each moves (n, 3) at strength 1."""
    lines = [line for line in read_text(path).splitlines() if line and not line.startswith("#")]
    try:
        table = np.array([line.split() for line in lines], dtype=np.float64).reshape(-1, 4)
    except ValueError as error:
        raise AssetError(f"{path} is no target of `vertex dx dy dz` lines: {error}") from error
    return table[:, 0].astype(np.int64), table[:, 1:]


def read_garment(path: Path) -> Garment:
    """A .mhclo file and the .obj mesh beside it which it names."""
    mesh_name = ""
    scales: dict[str, tuple[int, int, float]] = {}
    ties: list[tuple[float, ...]] = []
    hidden: list[int] = []
    section = ""
    try:
        for line in read_text(path).splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0][0].isalpha():
                # some files have other keys between `verts` and its numbers
                if words[0] in ("verts", "delete_verts"):
                    section = words[0]
                elif words[0] == "obj_file":
                    mesh_name = words[1]
                elif words[0] in ("x_scale", "y_scale", "z_scale"):
                    scales[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
            elif section == "verts":
                ties.append(_tie(words))
            elif section == "delete_verts":
                hidden.extend(_ranges(words))
        table = np.array(ties).reshape(-1, 9)
        pairs = [scales[axis] for axis in "xyz"]
    except (ValueError, IndexError) as error:
        raise AssetError(f"{path} is no garment: {error}") from error
    except KeyError as error:
        raise AssetError(f"{path} is no garment: it has no {error.args[0]}_scale line") from error
    mesh = read_mesh(path.with_name(mesh_name))
    if len(mesh.vertices) != len(table):
        raise AssetError(
            f"{path} ties {len(table)} vertices, but {mesh_name} has {len(mesh.vertices)}"
        )
    return Garment(
        name=path.stem,
        faces=mesh.faces,
        anchors=table[:, :3].astype(np.int64),
        weights=table[:, 3:6],
        offsets=table[:, 6:],
        scale_vertices=np.array([pair[:2] for pair in pairs], dtype=np.int64),
        scale_lengths=np.array([pair[2] for pair in pairs]),
        hidden=np.array(hidden, dtype=np.int64),
    )


def _tie(words: list[str]) -> tuple[float, ...]:
    if len(words) == 1:
        anchor = float(words[0])
        return (anchor, anchor, anchor, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if len(words) == 6:
        return (*map(float, words), 0.0, 0.0, 0.0)
    if len(words) == 9:
        return tuple(map(float, words))
    raise ValueError(f"a vertex line of {len(words)} words; 1, 6 or 9 expected")


def _ranges(words: list[str]) -> list[int]:
    """The numbers of a list like `4 7 - 9`: 4, 7, 8, 9."""
    numbers: list[int] = []
    to_here = False
    for word in words:
        if word == "-":
            to_here = True
            continue
        start = numbers[-1] + 1 if to_here else int(word)
        numbers.extend(range(start, int(word) + 1))
        to_here = False
    return numbers


def read_rig(skeleton: Path, weights: Path, vertex_count: int) -> Rig:
    """A .mhskel skeleton with its .mhw weights, for a base mesh of vertex_count vertices."""
    try:
        description = json.loads(read_text(skeleton))
        bones, joints = description["bones"], description["joints"]
        shares = json.loads(read_text(weights))["weights"]
        names = _parents_first({name: bone["parent"] for name, bone in bones.items()})
        number = {name: index for index, name in enumerate(names)}
        table = np.zeros((vertex_count, len(names)))
        for name, pairs in shares.items():
            if pairs:
                vertices, parts = np.array(pairs).T
                table[vertices.astype(np.int64), number[name]] = parts
        # a vertex which no bone claims moves with the root
        table[table.sum(axis=1) < 1e-6, 0] = 1.0
        return Rig(
            names=names,
            parents=tuple(number.get(bones[name]["parent"] or "", -1) for name in names),
            head_vertices=tuple(np.array(joints[bones[name]["head"]]) for name in names),
            tail_vertices=tuple(np.array(joints[bones[name]["tail"]]) for name in names),
            weights=table / table.sum(axis=1, keepdims=True),
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise AssetError(f"{skeleton} and {weights} are no rig: {error!r}") from error


def _parents_first(parents: dict[str, str | None]) -> tuple[str, ...]:
    ordered: list[str] = []
    waiting = list(parents)
    while waiting:
        ready = [name for name in waiting if parents[name] is None or parents[name] in ordered]
        if not ready:
            raise ValueError(f"bones without a way to the root: {', '.join(waiting)}")
        ordered.extend(ready)
        waiting = [name for name in waiting if name not in ready]
    return tuple(ordered)
