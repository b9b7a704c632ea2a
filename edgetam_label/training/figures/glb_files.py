"""Read glTF binary files (.glb): meshes, colours, skins and animations.

Only what a still picture needs: of a vertex's bones the first four, no morph targets, no cameras.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgetam_label.errors import UsageError
from edgetam_label.training.figures.arrays import FloatArray, IntArray
from edgetam_label.training.figures.glb_models import Animation, Channel, Model, Nodes

MAGIC, JSON_CHUNK, BINARY_CHUNK = b"glTF", 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
TRIANGLES = 4
# these change how a surface is lit, which is not drawn anyway
HARMLESS = ("KHR_materials_", "KHR_lights_", "KHR_texture_transform")


class GlbError(UsageError):
    """A model is missing, malformed or compressed; the message names the file and a remedy."""


def read_glb(path: Path) -> Model:
    """Raises GlbError, naming path, where it is missing, malformed, compressed or has no mesh."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GlbError(f"{path} cannot be read: {error.strerror}; pass a .glb file") from error
    try:
        return _Reader(*_chunks(data)).model(path.stem)
    except GlbError as error:
        raise GlbError(f"{path}: {error}") from error
    except (ValueError, KeyError, IndexError, TypeError, struct.error, RecursionError) as error:
        raise GlbError(f"{path} is no valid glTF 2.0 model: {error!r}; export it anew") from error


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    if data[:4] != MAGIC or struct.unpack_from("<I", data, 4)[0] != 2:
        raise GlbError("not a binary glTF 2.0 file; export the model as .glb")
    description: dict[str, Any] = {}
    binary = b""
    start = 12
    while start + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, start)
        chunk = data[start + 8 : start + 8 + length]
        if len(chunk) < length:
            raise GlbError("the file ends in the middle of a chunk; download it again")
        if kind == JSON_CHUNK:
            description = json.loads(chunk)
        elif kind == BINARY_CHUNK:
            binary = chunk
        start += 8 + length
    return description, binary


@dataclass(frozen=True)
class _Part:
    """One primitive's share of a Model, numbered from its own first vertex and slot."""

    vertices: FloatArray
    triangles: IntArray
    colours: FloatArray
    joints: IntArray
    weights: FloatArray


class _Reader:
    def __init__(self, description: dict[str, Any], binary: bytes) -> None:
        for name in description.get("extensionsRequired", []):
            if not name.startswith(HARMLESS):
                raise GlbError(f"needs the extension {name}; export it without compression")
        self.file = description
        self.binary = binary
        self.textures: dict[int, FloatArray] = {}

    def model(self, name: str) -> Model:
        parts: list[_Part] = []
        materials: list[int] = []
        slot_nodes: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        inverse_bind: list[FloatArray] = [np.zeros((0, 4, 4))]
        first_slots: list[int] = []
        for number, node in enumerate(self.file.get("nodes", [])):
            if "mesh" not in node:
                continue
            first_slot = sum(map(len, slot_nodes))
            nodes, inverse = self._slots(number, node)
            slot_nodes.append(nodes)
            inverse_bind.append(inverse)
            for primitive in self.file["meshes"][node["mesh"]]["primitives"]:
                if primitive.get("mode", TRIANGLES) == TRIANGLES:
                    parts.append(self._part(primitive, len(nodes)))
                    materials.append(primitive.get("material", -1))
                    first_slots.append(first_slot)
        if not sum(len(part.triangles) for part in parts):
            raise GlbError("has no triangles to draw; leave it out")
        first = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
        listed = self.file.get("materials", [])
        return Model(
            name=name,
            vertices=np.concatenate([part.vertices for part in parts]),
            triangles=np.concatenate(
                [part.triangles + start for part, start in zip(parts, first, strict=True)]
            ),
            # the last name is for what has no material
            material=np.repeat(materials, [len(part.triangles) for part in parts])
            % (len(listed) + 1),
            material_names=(*(str(one.get("name", "")) for one in listed), ""),
            colours=np.concatenate([part.colours for part in parts]),
            joints=np.concatenate(
                [part.joints + slot for part, slot in zip(parts, first_slots, strict=True)]
            ),
            weights=np.concatenate([part.weights for part in parts]),
            slot_nodes=np.concatenate(slot_nodes),
            inverse_bind=np.concatenate(inverse_bind),
            nodes=self._nodes(),
            animations=tuple(self._animation(one) for one in self.file.get("animations", [])),
            skinned=bool(self.file.get("skins")),
        )

    def _accessor(self, number: int) -> FloatArray:
        """The values (count, width), normalised ones in 0..1 or -1..1."""
        accessor = self.file["accessors"][number]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise GlbError(f"accessor {number} is sparse or empty; export it without sparse data")
        view = self.file["bufferViews"][accessor["bufferView"]]
        kind = np.dtype(COMPONENTS[accessor["componentType"]])
        width, count = WIDTHS[accessor["type"]], int(accessor["count"])
        table = np.ndarray(
            (count, width),
            kind,
            self.binary,
            view.get("byteOffset", 0) + accessor.get("byteOffset", 0),
            (view.get("byteStride", kind.itemsize * width), kind.itemsize),
        ).astype(np.float64)
        if accessor.get("normalized"):
            table = np.maximum(table / np.iinfo(kind).max, -1.0)
        return table

    def _slots(self, number: int, node: dict[str, Any]) -> tuple[IntArray, FloatArray]:
        if "skin" not in node:
            return np.array([number]), np.eye(4)[None]
        skin = self.file["skins"][node["skin"]]
        joints = np.array(skin["joints"], dtype=np.int64)
        if "inverseBindMatrices" not in skin:
            return joints, np.tile(np.eye(4), (len(joints), 1, 1))
        # stored column after column
        columns = self._accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4)
        return joints, columns.transpose(0, 2, 1)

    def _part(self, primitive: dict[str, Any], slots: int) -> _Part:
        attributes = primitive["attributes"]
        vertices = self._accessor(attributes["POSITION"])
        count = len(vertices)
        if "indices" in primitive:
            triangles = self._accessor(primitive["indices"]).astype(np.int64).reshape(-1, 3)
        else:
            triangles = np.arange(count).reshape(-1, 3)
        joints, weights = np.zeros((count, 4), dtype=np.int64), np.eye(4)[np.zeros(count, int)]
        if "JOINTS_0" in attributes:
            joints = self._accessor(attributes["JOINTS_0"]).astype(np.int64)
            weights = self._accessor(attributes["WEIGHTS_0"])
            weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
        if triangles.max(initial=-1) >= count or joints.max(initial=0) >= slots:
            raise GlbError("a mesh names vertices or joints that it does not have; export it anew")
        return _Part(vertices, triangles, self._colours(primitive, triangles), joints, weights)

    def _colours(self, primitive: dict[str, Any], triangles: IntArray) -> FloatArray:
        """BGR (F, 3) in 0..255: the material's, times its texture's and the vertices' own."""
        attributes = primitive["attributes"]
        number = primitive.get("material", -1)
        material = self.file["materials"][number] if number >= 0 else {}
        surface = material.get("pbrMetallicRoughness", {})
        linear = np.tile(surface.get("baseColorFactor", [0.8, 0.8, 0.8])[:3], (len(triangles), 1))
        if "COLOR_0" in attributes:
            own = self._accessor(attributes["COLOR_0"])[:, :3]
            linear = linear * own[triangles].mean(axis=1)
        colours = 255.0 * np.clip(linear[:, ::-1], 0.0, 1.0) ** (1 / 2.2)
        if "baseColorTexture" in surface and "TEXCOORD_0" in attributes:
            texture = self._texture(int(surface["baseColorTexture"]["index"]))
            centres = self._accessor(attributes["TEXCOORD_0"])[triangles].mean(axis=1) % 1.0
            height, width = texture.shape[:2]
            across, down = (centres * [width, height]).astype(np.int64).T
            picked = texture[np.minimum(down, height - 1), np.minimum(across, width - 1)]
            colours = colours * picked / 255.0
        return np.asarray(colours)

    def _texture(self, number: int) -> FloatArray:
        """The picture (h, w, 3), BGR in 0..255."""
        if number not in self.textures:
            image = self.file["images"][self.file["textures"][number]["source"]]
            view = self.file["bufferViews"][image["bufferView"]]
            start = view.get("byteOffset", 0)
            packed = np.frombuffer(self.binary, np.uint8, view["byteLength"], start)
            picture = cv2.imdecode(packed, cv2.IMREAD_COLOR)
            if picture is None:
                raise GlbError(f"texture {number} is no PNG or JPEG picture; export it as one")
            self.textures[number] = picture.astype(np.float64)
        return self.textures[number]

    def _nodes(self) -> Nodes:
        nodes = self.file.get("nodes", [])
        parents = [-1] * len(nodes)
        for number, node in enumerate(nodes):
            for child in node.get("children", []):
                parents[child] = number
        matrices = {
            number: np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
            for number, node in enumerate(nodes)
            if "matrix" in node
        }
        return Nodes(
            names=tuple(str(node.get("name", "")) for node in nodes),
            parents=tuple(parents),
            places=np.array([node.get("translation", [0, 0, 0]) for node in nodes], float),
            rotations=np.array([node.get("rotation", [0, 0, 0, 1]) for node in nodes], float),
            scales=np.array([node.get("scale", [1, 1, 1]) for node in nodes], float),
            matrices=matrices,
        )

    def _animation(self, animation: dict[str, Any]) -> Animation:
        channels: list[Channel] = []
        for channel in animation["channels"]:
            target, sampler = channel["target"], animation["samplers"][channel["sampler"]]
            if target["path"] not in ("translation", "rotation", "scale") or "node" not in target:
                continue
            way = sampler.get("interpolation", "LINEAR")
            values = self._accessor(sampler["output"])
            if way == "CUBICSPLINE":
                values = values[1::3]  # between its tangents; straight lines are close enough
            times = self._accessor(sampler["input"])[:, 0]
            if not len(times) or len(times) != len(values):
                raise GlbError("an animation has not one value for each time; export it anew")
            channels.append(Channel(target["node"], target["path"], times, values, way == "STEP"))
        return Animation(str(animation.get("name", "")), tuple(channels))
