"""How things and the camera move: smooth paths, bounces, exits and returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]  # float64


BACKGROUND_DEPTH = 0.8  # parallax factor of everything painted into the background


@dataclass(frozen=True)
class Track:
    """One thing through the clip; all in frame pixels and radians, one entry per frame.

    centre: (T, 2); scale: (T,) pixels per object unit; angle: (T,); beat: (T,) phase of its limbs;
    squeeze: (T,) width against height, as of a thing that turns about its upright axis;
    mirror: -1 flips left and right; depth: parallax factor, above 1 is nearer than the scene.
    """

    centre: Array
    scale: Array
    angle: Array
    beat: Array
    squeeze: Array
    mirror: float
    depth: float

    def matrix(self, frame: int) -> Array:
        """(3, 3) object -> world."""
        c = np.cos(self.angle[frame]) * self.scale[frame]
        s = np.sin(self.angle[frame]) * self.scale[frame]
        x, y = self.centre[frame]
        flat = self.mirror * self.squeeze[frame]
        return np.array([[c * flat, -s, x], [s * flat, c, y], [0, 0, 1]])


@dataclass(frozen=True)
class Camera:
    """offset: (T, 2) pixels; zoom: (T,); roll: (T,) radians, all about the frame's centre."""

    offset: Array
    zoom: Array
    roll: Array
    middle: Array

    def matrix(self, frame: int, depth: float) -> Array:
        """(3, 3) world -> frame for things at a parallax depth."""
        zoom = 1 + (self.zoom[frame] - 1) * depth
        c, s = np.cos(self.roll[frame]) * zoom, np.sin(self.roll[frame]) * zoom
        linear = np.array([[c, -s], [s, c]])
        shift = self.middle - linear @ self.middle + self.offset[frame] * depth
        return np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1]])


def make_camera(rng: Generator, height: int, width: int, num_frames: int, pace: float) -> Camera:
    """A tripod, a slow pan, or a hand that shakes; the first frame is always unmoved."""
    t: Array = np.arange(num_frames) * pace
    size = min(height, width)
    pan = rng.normal(0, rng.choice([0.0, 0.004, 0.015]), 2) * size
    offset = t[:, None] * pan
    roll, zoom = t * rng.normal(0, 0.004), 1 + t * rng.normal(0, 0.006)
    if rng.random() < 0.4:
        offset = offset + np.cumsum(_wobble(rng, num_frames, 2), axis=0) * size * rng.uniform(
            0.001, 0.006
        )
    if rng.random() < 0.2:
        roll, zoom = roll * 0, zoom * 0 + 1
    limit = 0.22 * size
    offset = limit * np.tanh((offset - offset[0]) / limit)
    return Camera(
        offset, np.clip(zoom, 0.8, 1.3), np.clip(roll, -0.3, 0.3), np.array([width, height]) / 2
    )


def _wobble(rng: Generator, count: int, columns: int) -> Array:
    noise = rng.normal(size=(count, columns))
    return 0.5 * noise + 0.5 * np.roll(noise, 1, axis=0)


def make_track(
    rng: Generator,
    height: int,
    width: int,
    num_frames: int,
    *,
    centre: tuple[float, float],
    radius: float,
    stands: bool,
    fast: bool,
    pace: float,
    leaves: bool,
) -> Track:
    """A path from `centre` with `radius` pixels per unit; `leaves` makes it go and return."""
    t: Array = np.arange(num_frames) * pace
    size = min(height, width)
    speed = float(np.exp(rng.normal(np.log(0.012), 0.8))) * size * (2.5 if fast else 1)
    speed = min(speed, 0.12 * size)
    heading = (
        rng.normal(0, 0.3) + (np.pi if rng.random() < 0.5 else 0)
        if stands
        else rng.uniform(0, 2 * np.pi)
    )
    direction = np.array([np.cos(heading), np.sin(heading)])
    path = _path(rng, t, speed, direction, size)
    if leaves:
        side = -1.0 if centre[0] < width / 2 else 1.0
        reach = (centre[0] if side < 0 else width - centre[0]) + radius * 1.3
        away = np.sin(np.pi * np.linspace(0, 1, num_frames)) ** 2
        path = path * 0.3 + np.stack([side * reach * away, 0 * t], axis=1)
    start = int(rng.integers(num_frames)) if rng.random() < 0.3 and not leaves else 0
    path = path - path[start]
    growth = np.exp(t * rng.normal(0, rng.choice([0.003, 0.015]))) * (
        1 + 0.03 * np.sin(t * rng.uniform(0.1, 0.8)) * rng.random()
    )
    spin = rng.normal(0, 0.01) if stands else rng.normal(0, rng.choice([0.0, 0.03, 0.12]))
    tilt = rng.normal(0, 0.1) if stands else rng.uniform(0, 2 * np.pi) * (rng.random() < 0.6)
    rocking = rng.normal(0, 0.05) * np.sin(t * rng.uniform(0.2, 0.9))
    beat = t * rng.uniform(0.2, 0.9) + rng.uniform(0, 2 * np.pi)
    flat = rng.uniform(0, 0.55) if rng.random() < 0.4 else 0.0
    squeeze = 1 - flat * np.sin(t * rng.uniform(0.03, 0.3) + rng.uniform(0, np.pi)) ** 2
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    depth = float(rng.uniform(0.8, 1.25))
    return Track(
        np.asarray(centre) + path,
        radius * growth / growth[0],
        tilt + spin * t + rocking,
        beat,
        squeeze,
        mirror,
        depth,
    )


def crossing(rng: Generator, track: Track, other: Track) -> Track:
    """`track`, but past `other`: from one side of it to the other side, wherever that goes."""
    frames = len(track.centre)
    reach = (track.scale[0] + other.scale[0]) * rng.uniform(0.8, 1.6)
    heading = rng.normal(0, 0.35) + (np.pi if rng.random() < 0.5 else 0)
    ahead = np.array([np.cos(heading), np.sin(heading)])
    aside = np.array([-ahead[1], ahead[0]]) * rng.normal(0, 0.3) * other.scale[0]
    middle, length = rng.uniform(0.25, 0.75), rng.uniform(0.35, 1.2)
    along = (np.linspace(0, 1, frames) - middle) * 2 / length
    way = reach * np.clip(along, -1, 1)
    return replace(track, centre=other.centre + aside + way[:, None] * ahead, depth=other.depth)


def carried(rng: Generator, track: Track, bearer: Track) -> Track:
    """`track`, but held by `bearer` or riding on it: moves, turns and grows with it."""
    frames = len(track.centre)
    turn, growth = bearer.angle - bearer.angle[0], bearer.scale / bearer.scale[0]
    around, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * bearer.scale[0]
    x, y = np.cos(around) * far * bearer.squeeze, np.sin(around) * far
    if rng.random() < 0.5:  # it dangles
        t = np.arange(frames) * rng.uniform(0.2, 1.2) + rng.uniform(0, 2 * np.pi)
        x = x + np.sin(t) * rng.uniform(0.02, 0.12) * bearer.scale[0]
    across, down = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    place = np.stack([across, down], axis=1) * growth[:, None]
    return replace(
        track,
        centre=bearer.centre + place,
        scale=track.scale[0] * growth,
        angle=track.angle[0] + turn,
        squeeze=bearer.squeeze,
        depth=bearer.depth,
    )


def _path(rng: Generator, t: Array, speed: float, direction: Array, size: float) -> Array:
    """(T, 2) displacement; straight, accelerating, swinging, bouncing, wandering or at rest."""
    kind = str(
        rng.choice(
            ["rest", "line", "push", "swing", "bounce", "wander"],
            p=[0.12, 0.3, 0.13, 0.17, 0.12, 0.16],
        )
    )
    if kind == "rest":
        return np.outer(t * 0, direction)
    if kind == "line":
        return np.outer(t * speed, direction)
    if kind == "push":
        return np.outer(speed * (0.3 * t + 0.7 * t**2 / max(len(t), 1)), direction)
    if kind == "swing":
        pace = rng.uniform(0.15, 0.7)
        return np.outer(np.sin(t * pace) * speed / pace * 1.5, direction)
    if kind == "bounce":
        period = rng.uniform(4, 14)
        phase = (t / period + rng.uniform()) % 1
        hop = -4 * phase * (1 - phase) * speed * period * 0.6
        return np.stack([t * speed * np.sign(direction[0]), hop], axis=1)
    steps = np.cumsum(rng.normal(size=(len(t), 2)), axis=0) * 0.25
    walk = np.cumsum(direction + steps, axis=0) * speed * 0.6
    return np.asarray(np.clip(walk, -size, size), np.float64)
