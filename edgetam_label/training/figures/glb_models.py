"""Models as glTF describes them, posed by their bones at any time of their animations.

Lengths are the model's own unit; y points up. Matrices act on columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgetam_label.training.figures.arrays import FloatArray, IntArray

Motion = Literal["translation", "rotation", "scale"]


@dataclass(frozen=True)
class Channel:
    """How one node moves: values (K, 3), or (K, 4) as x, y, z, w, at times (K,) in seconds."""

    node: int
    motion: Motion
    times: FloatArray
    values: FloatArray
    stepped: bool

    def at(self, time: float) -> FloatArray:
        """The value (3,) or (4,) at time, held before the first key and after the last."""
        after = int(np.searchsorted(self.times, time, side="right"))
        first, second = max(after - 1, 0), min(after, len(self.times) - 1)
        gap = float(self.times[second] - self.times[first])
        if self.stepped or gap <= 0:
            return np.asarray(self.values[first])
        share = (time - float(self.times[first])) / gap
        start, end = self.values[first], self.values[second]
        if self.motion == "rotation" and float(start @ end) < 0:
            end = -end  # the same rotation, reached by the shorter way
        return np.asarray(start + share * (end - start))


@dataclass(frozen=True)
class Animation:
    name: str
    channels: tuple[Channel, ...]

    @property
    def length(self) -> float:
        """Seconds until the last key."""
        return max((float(channel.times[-1]) for channel in self.channels), default=0.0)


@dataclass(frozen=True)
class Nodes:
    """The N nodes: parents (-1: none), places (N, 3), rotations (N, 4), scales (N, 3).

    matrices holds the local transforms (4, 4) of the nodes which are given as matrices instead.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    places: FloatArray
    rotations: FloatArray
    scales: FloatArray
    matrices: dict[int, FloatArray]


@dataclass(frozen=True)
class Model:
    """vertices (V, 3) and triangles (F, 3) of all meshes; material (F,); colours (F, 3) as BGR.

    Vertex v moves with the slots joints[v] (4,) by the shares weights[v] (4,). Slot s is the node
    slot_nodes[s] after inverse_bind[s] (4, 4). A mesh without a skin has a slot: its own node.
    """

    name: str
    vertices: FloatArray
    triangles: IntArray
    material: IntArray
    material_names: tuple[str, ...]
    colours: FloatArray
    joints: IntArray
    weights: FloatArray
    slot_nodes: IntArray
    inverse_bind: FloatArray
    nodes: Nodes
    animations: tuple[Animation, ...]
    skinned: bool

    def posed(
        self,
        animation: Animation | None = None,
        time: float = 0.0,
        bone_scales: dict[int, float] | None = None,
    ) -> FloatArray:
        """vertices (V, 3) at time (seconds) of animation; None leaves the nodes as stored.

        bone_scales multiplies the size of nodes, and with them of all that hangs on them.
        """
        world = world_transforms(self.nodes, animation, time, bone_scales or {})
        slots = world[self.slot_nodes] @ self.inverse_bind
        whole = np.concatenate([self.vertices, np.ones((len(self.vertices), 1))], axis=1)
        moved = np.zeros((len(whole), 4))
        for column in range(self.joints.shape[1]):
            turned = np.einsum("vij,vj->vi", slots[self.joints[:, column]], whole)
            moved += turned * self.weights[:, column, None]
        return moved[:, :3]


def world_transforms(
    nodes: Nodes, animation: Animation | None, time: float, bone_scales: dict[int, float]
) -> FloatArray:
    """(N, 4, 4): from each node's space to the model's, at time (seconds) of animation."""
    places, rotations, scales = nodes.places.copy(), nodes.rotations.copy(), nodes.scales.copy()
    targets = {"translation": places, "rotation": rotations, "scale": scales}
    for channel in animation.channels if animation else ():
        targets[channel.motion][channel.node] = channel.at(time)
    for node, factor in bone_scales.items():
        scales[node] *= factor
    local = np.tile(np.eye(4), (len(places), 1, 1))
    local[:, :3, :3] = _rotation_matrices(rotations) * scales[:, None, :]
    local[:, :3, 3] = places
    for node, matrix in nodes.matrices.items():
        local[node] = matrix
    world: dict[int, FloatArray] = {}

    def transform(node: int) -> FloatArray:
        if node not in world:
            parent = nodes.parents[node]
            world[node] = local[node] if parent < 0 else transform(parent) @ local[node]
        return world[node]

    return np.stack([transform(node) for node in range(len(local))])


def _rotation_matrices(quaternions: FloatArray) -> FloatArray:
    """(N, 3, 3) of quaternions (N, 4) as x, y, z, w of any length."""
    lengths = np.linalg.norm(quaternions, axis=1, keepdims=True)
    x, y, z, w = (quaternions / np.maximum(lengths, 1e-12)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)
