"""Bend MakeHuman's default rig: random everyday poses, and how they move each base vertex."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import cv2
import numpy as np

from edgetam_label.training.figures.arrays import FloatArray
from edgetam_label.training.figures.makehuman_files import Rig

SIDES = {"L": 1.0, "R": -1.0}  # the person's left is +x
SPINE = ("spine05", "spine04", "spine03", "spine02", "spine01")
NECK = ("neck01", "neck02", "neck03", "head")
NEXT_STEP = 0.65  # of movements change the leg in front; the others are to do something else


@dataclass(frozen=True)
class Skeleton:
    """A rig in one body: heads and tails of its bones, (B, 3)."""

    rig: Rig
    heads: FloatArray
    tails: FloatArray

    @classmethod
    def in_body(cls, rig: Rig, vertices: FloatArray) -> Skeleton:
        heads = np.array([vertices[joint].mean(axis=0) for joint in rig.head_vertices])
        tails = np.array([vertices[joint].mean(axis=0) for joint in rig.tail_vertices])
        return cls(rig, heads, tails)

    def direction(self, first: str, last: str) -> FloatArray:
        """Unit vector from the head of bone first to the tail of bone last, unposed."""
        names = self.rig.names
        return unit(self.tails[names.index(last)] - self.heads[names.index(first)])


def unit(vector: FloatArray) -> FloatArray:
    length: float = float(np.linalg.norm(vector))
    return vector / max(length, 1e-9)


def turn(axis: FloatArray, degrees: float) -> FloatArray:
    """The rotation matrix (3, 3) about axis."""
    return np.asarray(cv2.Rodrigues(unit(axis) * np.radians(degrees))[0], dtype=np.float64)


def turn_between(start: FloatArray, end: FloatArray) -> FloatArray:
    """The smallest rotation (3, 3) which takes the direction start to the direction end."""
    axis = np.cross(unit(start), unit(end))
    cosine = float(np.clip(unit(start) @ unit(end), -1.0, 1.0))
    if np.linalg.norm(axis) < 1e-6:
        # opposite directions: any axis square to them will do
        axis = np.cross(start, [0.0, 0.0, 1.0]) + 1e-6
    return turn(axis, float(np.degrees(np.arccos(cosine))))


def vertex_transforms(skeleton: Skeleton, turns: Mapping[str, FloatArray]) -> FloatArray:
    """Linear blend skinning: the affine matrix (V, 3, 4) which poses each base vertex.

    turns holds rotations (3, 3) of bones about their heads, in the axes of the unposed body and
    before whatever the bone's parents do. Bones not named stay as they are.
    """
    rig = skeleton.rig
    bones = np.zeros((len(rig.names), 3, 4))
    for index, (name, parent) in enumerate(zip(rig.names, rig.parents, strict=True)):
        head = skeleton.heads[index]
        rotation = turns.get(name, np.eye(3))
        shift = head - rotation @ head
        if parent >= 0:
            above = bones[parent]
            shift = above[:, :3] @ shift + above[:, 3]
            rotation = above[:, :3] @ rotation
        bones[index, :, :3], bones[index, :, 3] = rotation, shift
    return (rig.weights @ bones.reshape(-1, 12)).reshape(-1, 3, 4)


def move(transforms: FloatArray, vertices: FloatArray) -> FloatArray:
    """vertices (N, 3), each through its own matrix of transforms (N, 3, 4)."""
    moved: FloatArray = np.einsum("nij,nj->ni", transforms[:, :, :3], vertices)
    return moved + transforms[:, :, 3]


def moving_pose(
    skeleton: Skeleton, rng: np.random.Generator, moment: float
) -> dict[str, FloatArray]:
    """Rotations of bones on the way from a random pose to another, at moment from 0 to 1.

    The other follows from the first: mostly it is the next step.
    """
    action, ahead = _random_action(rng)
    start = _pose(skeleton, action, ahead, rng)
    if moment == 0:
        return start
    later = deepcopy(rng)  # so that what is drawn next does not depend on the moment
    if later.random() < NEXT_STEP:
        ahead = -ahead
    else:
        action, ahead = _random_action(later)
    end = _pose(skeleton, action, ahead, later)
    return {bone: _between(start[bone], end[bone], moment) for bone in start}


def _between(start: FloatArray, end: FloatArray, share: float) -> FloatArray:
    """The rotation (3, 3) at share of the shortest way from one to another."""
    way = np.asarray(cv2.Rodrigues(start.T @ end)[0])
    return np.asarray(start @ cv2.Rodrigues(way * share)[0])


def _random_action(rng: np.random.Generator) -> tuple[str, float]:
    """What a person does, and which leg is in front: 1 or -1."""
    action = str(
        rng.choice(
            ["stand", "walk", "run", "sit", "kick", "squat", "leap"],
            p=[0.3, 0.22, 0.16, 0.12, 0.08, 0.06, 0.06],
        )
    )
    return action, float(rng.choice([-1.0, 1.0]))


def _pose(
    skeleton: Skeleton, action: str, ahead: float, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Rotations of bones for a person who stands, walks, runs, sits, kicks, squats or leaps."""
    turns: dict[str, FloatArray] = {}
    for side, sign in SIDES.items():
        hip, spread, knee = _leg_angles(action, sign * ahead > 0, rng)
        _bend_leg(turns, skeleton, side, (hip, spread, knee), rng)
        _bend_arm(turns, skeleton, side, _arm_direction(action, sign, -sign * ahead, rng), rng)
        _curl_fingers(turns, skeleton, side, float(rng.uniform(0, 45)), rng)
    lean = {"run": 12.0, "squat": 25.0, "sit": 5.0}.get(action, 3.0)
    _share(turns, SPINE, [rng.normal(lean, 9), rng.normal(0, 14), rng.normal(0, 8)])
    _share(turns, NECK, [rng.normal(0, 12), rng.normal(0, 25), rng.normal(0, 7)])
    return turns


def _share(turns: dict[str, FloatArray], bones: tuple[str, ...], degrees: list[float]) -> None:
    """Nod, turn and tilt by degrees in all, an equal part in each bone."""
    rotation = np.eye(3)
    for axis, angle in zip(np.eye(3), degrees, strict=True):
        rotation = rotation @ turn(axis, float(np.clip(angle, -60, 60)) / len(bones))
    for bone in bones:
        turns[bone] = rotation


def _leg_angles(
    action: str, in_front: bool, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Degrees: thigh forward, thigh to the side, shin back from the thigh."""
    front = {
        "stand": (4, 5, 6),
        "walk": (24, 3, 10),
        "run": (52, 3, 75),
        "sit": (85, 9, 85),
        "kick": (65, 10, 15),
        "squat": (95, 18, 110),
        "leap": (55, 15, 45),
    }[action]
    rear = {
        "stand": (-2, 6, 6),
        "walk": (-18, 3, 22),
        "run": (-20, 3, 60),
        "sit": (80, 9, 80),
        "kick": (-8, 5, 14),
        "squat": (90, 18, 105),
        "leap": (-25, 15, 60),
    }[action]
    hip, spread, knee = front if in_front else rear
    return (
        float(np.clip(rng.normal(hip, 9), -40, 115)),
        float(np.clip(rng.normal(spread, 6), 0, 40)),
        float(np.clip(rng.normal(knee, 12), 0, 130)),
    )


def _bend_leg(
    turns: dict[str, FloatArray],
    skeleton: Skeleton,
    side: str,
    degrees: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    sign = SIDES[side]
    hip, spread, knee = np.radians(degrees)

    def direction(forward: float) -> FloatArray:
        return np.array(
            [
                sign * np.sin(spread),
                -np.cos(spread) * np.cos(forward),
                np.cos(spread) * np.sin(forward),
            ]
        )

    _aim(
        turns,
        skeleton,
        (f"upperleg01.{side}", f"upperleg02.{side}", direction(hip)),
        (f"lowerleg01.{side}", f"lowerleg02.{side}", direction(hip - knee)),
    )
    turns[f"foot.{side}"] = turn(np.array([1.0, 0.0, 0.0]), float(rng.normal(8, 10)))


def _arm_direction(
    action: str, sign: float, swing: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Unit directions (3,) of upper arm and forearm in the axes of the unposed torso."""
    manner = str(
        rng.choice(
            ["natural", "raised", "out", "forward", "akimbo"], p=[0.46, 0.18, 0.13, 0.13, 0.1]
        )
    )
    bend = float(rng.uniform(5, 80))
    if manner == "akimbo":
        upper = np.array([sign * 0.65, -0.8, -0.3])
        return unit(upper), unit(np.array([-sign * 0.6, -0.5, rng.uniform(0.2, 0.6)]))
    if manner == "raised":
        upper = np.array([sign * rng.uniform(0.3, 1), rng.uniform(0.1, 1), rng.uniform(0, 0.6)])
    elif manner == "out":
        upper = np.array([sign, rng.uniform(-0.5, 0.2), rng.uniform(-0.3, 0.5)])
    elif manner == "forward":
        upper = np.array([sign * rng.uniform(0, 0.4), rng.uniform(-0.6, 0.3), 1.0])
    else:
        reach = {"walk": 0.4, "run": 0.8, "leap": 0.5, "kick": 0.4}.get(action, 0.05) * swing
        upper = np.array([sign * rng.uniform(0.12, 0.4), -1.0, reach + rng.normal(0, 0.12)])
        bend = float(rng.uniform(60, 110) if action == "run" else rng.uniform(5, 45))
    upper = unit(upper)
    # an elbow brings the hand forward, up and in, never back
    toward = np.array([-sign * rng.uniform(0, 0.6), rng.uniform(0, 0.7), 0.8])
    toward = unit(toward - (toward @ upper) * upper)
    return upper, np.cos(np.radians(bend)) * upper + np.sin(np.radians(bend)) * toward


def _bend_arm(
    turns: dict[str, FloatArray],
    skeleton: Skeleton,
    side: str,
    directions: tuple[FloatArray, FloatArray],
    rng: np.random.Generator,
) -> None:
    upper, lower = directions
    # the shoulder rises with the arm, which spares the skin of the armpit
    lift = 22.0 * max(0.0, float(upper[1]) + 0.2)
    turns[f"clavicle.{side}"] = turn(np.array([0.0, 0.0, SIDES[side]]), lift)
    _aim(
        turns,
        skeleton,
        (f"upperarm01.{side}", f"upperarm02.{side}", upper),
        (f"lowerarm01.{side}", f"lowerarm02.{side}", lower),
    )
    turns[f"wrist.{side}"] = turn(rng.normal(size=3), float(rng.normal(0, 15)))


def _aim(
    turns: dict[str, FloatArray],
    skeleton: Skeleton,
    upper: tuple[str, str, FloatArray],
    lower: tuple[str, str, FloatArray],
) -> None:
    """Point a limb's two parts, each (first bone, last bone, direction in the torso's axes)."""
    first = turn_between(skeleton.direction(upper[0], upper[1]), upper[2])
    turns[upper[0]] = first
    turns[lower[0]] = turn_between(skeleton.direction(lower[0], lower[1]), first.T @ lower[2])


def _curl_fingers(
    turns: dict[str, FloatArray],
    skeleton: Skeleton,
    side: str,
    degrees: float,
    rng: np.random.Generator,
) -> None:
    names = skeleton.rig.names
    across = (
        skeleton.heads[names.index(f"finger5-1.{side}")]
        - skeleton.heads[names.index(f"finger2-1.{side}")]
    )
    along = skeleton.direction(f"finger3-1.{side}", f"finger3-3.{side}")
    # unposed palms look down: the curl which lowers the finger tips is the natural one
    if np.cross(across, along)[1] > 0:
        across = -across
    for finger in range(2, 6):
        for joint in range(1, 4):
            angle = degrees * float(rng.uniform(0.7, 1.1))
            turns[f"finger{finger}-{joint}.{side}"] = turn(across, angle)
