"""The picture of the demo clip: a lawn, a dog that trots and a ball that rolls past it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.training.synthetic_forms import rolling_ball
from edgetam_label.training.synthetic_motion import Track
from edgetam_label.training.synthetic_photos import Photographs
from edgetam_label.training.synthetic_render import (
    Placed,
    Shadows,
    blend,
    cast_shadow,
    draw_layer,
)
from edgetam_label.training.synthetic_rig import Layers, Rig
from edgetam_label.training.synthetic_shapes import capsule, ellipse, superellipse, turn
from edgetam_label.training.synthetic_sprites import Canvas, Light
from edgetam_label.training.synthetic_textures import Material, Textures
from edgetam_label.training.synthetic_things import Thing, Workshop

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
_Color = tuple[float, float, float]
_SUPERSAMPLING = 2
DOG, BALL = 1, 2


def demo_frames(
    *, width: int = 640, height: int = 360, num_frames: int = 48
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(T, H, W, 3) uint8 RGB frames and (T, H, W) uint8 truth ids (1 dog, 2 ball)."""
    big_w, big_h = width * _SUPERSAMPLING, height * _SUPERSAMPLING
    shop = _workshop(big_h)
    lawn = _lawn(shop, big_h, int(big_w * 1.12))
    cast = _cast(shop, big_h, big_w, num_frames)
    shadows = Shadows(0.5, (0.18, 0.22), 0.1)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    ids = np.empty((num_frames, height, width), np.uint8)
    grain = np.random.default_rng(11).normal(0, 2.0, (height, width, 3))
    for t in range(num_frames):
        pan = 0.12 * big_w * t / max(num_frames - 1, 1)
        window = np.array([[1, 0, -pan], [0, 1, 0]], np.float64)
        image: Image = cv2.warpAffine(lawn, window, (big_w, big_h), flags=cv2.INTER_LINEAR)
        truth = np.zeros((big_h, big_w), np.uint8)
        unused = np.zeros_like(truth)
        for number, placed in cast:
            shift = np.array([[1, 0, -pan], [0, 1, 0], [0, 0, 1]], np.float64)
            view = shift if number == 0 else np.eye(3)
            layer = draw_layer(placed, view, t, big_h, big_w)
            if layer is None:
                continue
            cast_shadow(image, layer, placed, t, shadows)
            blend(image, truth, unused, layer, layer.rgba, number=number, part_offset=0)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        frames[t] = np.clip(small + np.roll(grain, (7 * t, 13 * t), (0, 1)), 0, 255)
        ids[t] = _shrink(truth, height, width)
    return frames, ids


def _shrink(truth: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Each pixel belongs to the object that covers at least half of it."""
    small = np.zeros((height, width), np.uint8)
    for number in (DOG, BALL):
        cover = (truth == number).astype(np.uint8) * 255
        half = cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA)
        small[half > 127] = number
    return small


def _workshop(height: int) -> Workshop:
    direction = np.array([-0.45, -0.6, 0.66], np.float32)
    light = Light(direction / np.float32(np.linalg.norm(direction)), 0.5, 0.25)
    textures = Textures({}, (), (), Photographs((), ()))
    return Workshop(np.random.default_rng(5), textures, light, {}, height * 0.4, None)


def _plain(color: _Color, relief: Image | None = None) -> Material:
    matrix = np.array([[1, 0, 31], [0, 1, 17]], np.float32)
    blank = np.full((256, 256), 128, np.uint8)
    paint = np.asarray(color, np.uint8)
    return Material(blank, matrix, None, relief, np.ones(3, np.float32), paint)


def _noise(seed: int, grain: tuple[float, float], depth: float) -> Image:
    """(256, 256) tileable relief around 128; `grain`: blur in x and y."""
    noise = np.random.default_rng(seed).normal(size=(256, 256))
    tiled = cv2.GaussianBlur(np.tile(noise, (3, 3)), (0, 0), sigmaX=grain[0], sigmaY=grain[1])
    middle = tiled[256:512, 256:512]
    return np.asarray(np.clip(128 + depth * middle / middle.std(), 0, 255), np.uint8)


def _lawn(shop: Workshop, height: int, width: int) -> Image:
    """Sky, two rows of trees, a fence and a lawn with a path."""
    horizon = int(height * 0.42)
    ramp = np.linspace(0, 1, horizon)[:, None, None]
    image: Image = np.zeros((height, width, 3), np.uint8)
    image[:horizon] = np.array([128, 170, 214]) * (1 - ramp) + np.array([222, 230, 232]) * ramp
    rng = np.random.default_rng(3)
    scale = height / 100
    leaves = _noise(2, (3.0, 3.0), 22)
    for color, base, count in (((104, 132, 112), 0.40, 26), ((66, 98, 62), 0.43, 20)):
        canvas = Canvas((0, 0, width / scale, horizon / scale + 4), scale)
        for index in range(count):
            x = width / scale * (index + rng.uniform(0, 1)) / count
            size = rng.uniform(5, 12)
            crown = ellipse(size, size * rng.uniform(0.7, 1.3), (x, base * 100 - size * 0.5), 40)
            crown += rng.normal(0, 0.25, crown.shape).astype(np.float32)
            tint = tuple(float(v) * rng.uniform(0.85, 1.15) for v in color)
            canvas.paint([crown], _plain((tint[0], tint[1], tint[2]), leaves), shop.light, part=1)
        rgba = canvas.finish().rgba[2:, 2:][:height, :width]
        rows, columns = rgba.shape[:2]
        clear = cv2.merge([cv2.bitwise_not(np.ascontiguousarray(rgba[..., 3]))] * 3)
        behind = cv2.multiply(image[:rows, :columns], clear, scale=1 / 255)
        image[:rows, :columns] = cv2.add(behind, np.ascontiguousarray(rgba[..., :3]))
    image = cv2.GaussianBlur(image, (0, 0), height / 300)
    grass = _plain((112, 142, 70), _noise(4, (1.0, 3.0), 16))
    ground = grass.render(height, width, pixels_per_unit=150)
    depth = np.linspace(0, 1, height - horizon)[:, None, None]
    light = 0.8 + 0.3 * depth
    image[horizon:] = np.clip(ground[: height - horizon] * light + 26 * (1 - depth), 0, 255)
    _path_and_fence(image, horizon)
    return image


def _path_and_fence(image: Image, horizon: int) -> None:
    height, width = image.shape[:2]
    path = np.array([(0.0, 0.62), (1.0, 0.52), (1.0, 0.58), (0.0, 0.72)]) * (width, height)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [path.astype(np.int32)], 255, cv2.LINE_AA)
    soft = cv2.GaussianBlur(mask, (0, 0), height / 240)[..., None] / 255
    sand = np.clip(image * 0.25 + np.array([150, 134, 108]), 0, 255)
    image[:] = image * (1 - soft) + sand * soft
    wood = (142, 120, 94)
    for x in np.arange(0, width, width / 13):
        a = (int(x), int(horizon - height * 0.075))
        cv2.rectangle(image, a, (int(x + width / 130), int(horizon + height * 0.03)), wood, -1)
    for y in (-0.05, -0.01):
        row = int(horizon + height * y)
        cv2.rectangle(image, (0, row), (width, row + int(height * 0.012)), wood, -1)


def _cast(shop: Workshop, height: int, width: int, num_frames: int) -> list[tuple[int, Placed]]:
    """The actors, back to front, with their truth numbers (0: not an object)."""
    t = np.linspace(0, 1, num_frames)
    unit = height * 0.31
    dog_x = width * (0.24 + 0.52 * t)
    dog_y = height * (0.6 + 0.006 * np.sin(t * 26))
    dog = _track(dog_x, dog_y, unit, 0 * t + 0.0, 21 * t)
    radius = height * 0.115
    roll = width * (0.93 - 0.86 * t)
    hop = np.abs(np.sin(t * np.pi * 3.5)) * height * 0.08 * (1 - 0.6 * t)
    ball = _track(roll, height * 0.8 - hop, radius, 0 * t, (roll - roll[0]) / radius)
    rest = _track(0 * t + width * 0.83, 0 * t + height * 0.56, height * 0.06, 0 * t, 0 * t + 0.7)
    calm = np.zeros((4, 4, 2), np.float32)
    red, blue = (196, 62, 48), (62, 104, 168)
    return [
        (0, Placed(_ball(shop, blue), rest, 0, calm, 0.0)),
        (DOG, Placed(_dog(shop), dog, 0, calm, 0.0)),
        (BALL, Placed(_ball(shop, red), ball, 0, calm, 0.0)),
    ]


def _track(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    unit: float,
    angle: NDArray[np.float64],
    beat: NDArray[np.float64],
) -> Track:
    return Track(
        np.stack([x, y], axis=1), np.full(len(x), unit), angle, beat, np.ones(len(x)), 1.0, 1.0
    )


def _ball(shop: Workshop, color: _Color) -> Thing:
    """A beach ball; it turns by one radian per beat."""
    canvas = shop.canvas(-1, -1, 1, 1)
    white = _plain((240, 234, 222))
    canvas.paint([ellipse(0.98, 0.98, count=96)], white, shop.light, part=1, bump=0)
    for angle in (0.0, 2.094, 4.189):
        wedge = turn(np.array([(0, 0), (1.4, -0.62), (1.4, 0.62)], np.float32), angle)
        canvas.paint([wedge], _plain(color), shop.light, part=1, bump=0, inside=True)
    canvas.paint([ellipse(0.2, 0.2)], white, shop.light, part=1, bump=0)
    return rolling_ball(shop, canvas, 1, 1.0)


def _dog(shop: Workshop) -> Thing:
    """A brown dog with a white chest and a blue collar, from the side, facing right."""
    rig = Rig(shop, round=0.42)
    fur = _noise(9, (5.0, 1.2), 9)
    coat, pale, dark = _plain((158, 108, 66), fur), _plain((226, 212, 190), fur), (44, 34, 30)
    ear_coat = _plain((112, 72, 42), fur)
    body = rig.bone(-1, (-0.45, -0.12), -0.03, 0.02, 0.4)
    trunk = capsule(0.21, 0.235, 0.86, -0.03, 24)
    belly = turn(superellipse(0.3, 0.1, 2.2), 0.05, (0.78, 0.12))
    layers: Layers = [([trunk], coat, 1.0), ([belly], pale, 0.3)]
    rig.skin(body, layers, 5)
    neck = rig.bone(body, (0.9, -0.08), -0.75, 0.05, 0.0)
    rig.skin(neck, [([capsule(0.19, 0.125, 0.3, 0.02, 20)], coat, 0.9)], 6)
    rig.skin(neck, [([superellipse(0.032, 0.15, 4, (0.2, 0.0))], _plain((48, 92, 160)), 0.5)], 7)
    head = rig.bone(neck, (0.33, 0.0), 0.72, 0.06, 1.0)
    ear = turn(capsule(0.07, 0.055, 0.2, 0.15, 14), 1.9, (-0.03, -0.1))
    face: Layers = [
        ([capsule(0.125, 0.075, 0.26, 0.0, 20)], coat, 0.9),
        ([ellipse(0.165, 0.155)], coat, 0.9),
        ([turn(capsule(0.05, 0.05, 0.12), 0.1, (0.16, 0.045))], pale, 0.5),
        ([ellipse(0.038, 0.034, (0.325, -0.035))], _plain(dark), 0.6),
        ([ellipse(0.024, 0.026, (0.09, -0.06))], _plain(dark), 0.4),
        ([ellipse(0.008, 0.008, (0.097, -0.068))], _plain((245, 245, 245)), 0),
        ([ear], ear_coat, 0.7),
    ]
    rig.skin(head, face, 8)
    tail = rig.bone(body, (-0.1, -0.12), np.pi + 0.75, 0.35, 0.0)
    rig.skin(tail, [([capsule(0.06, 0.035, 0.36, 0.18, 14)], coat, 0.8)], 4)
    for x, front, near in ((0.84, 1, 0), (0.06, 0, 0), (0.9, 1, 1), (0.0, 0, 1)):
        phase = 1.6 + np.pi * (front ^ near)
        shade = coat if near else ear_coat
        thigh = rig.bone(body, (x, 0.1), np.pi / 2 + (0.05 if front else -0.1), 0.36, phase)
        width = 0.1 if front else 0.135
        rig.skin(thigh, [([capsule(width, 0.07, 0.3, 0, 14)], shade, 0.8)], 6 if near else 2)
        shin = rig.bone(thigh, (0.3, 0), 0.12 if front else 0.3, 0.3, phase - 1.2)
        lower: Layers = [
            ([capsule(0.065, 0.045, 0.27, 0, 12)], shade, 0.8),
            ([turn(superellipse(0.08, 0.045, 2.6), -1.5, (0.285, -0.03))], pale, 0.5),
        ]
        rig.skin(shin, lower, 6 if near else 1)
    return rig.finish("dog")
