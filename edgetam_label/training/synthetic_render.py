"""Puts things into a place, frame by frame, with shadows, blur and exact ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.training.synthetic_motion import BACKGROUND_DEPTH, Camera, Track
from edgetam_label.training.synthetic_things import Thing

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """A thing with its track.

    part_offset: added to its part numbers; ripple: (4, 4, 2) its elastic mode; pace: radians per
    frame at which that mode swings.
    """

    thing: Thing
    track: Track
    part_offset: int
    ripple: NDArray[np.float32]
    pace: float


@dataclass(frozen=True)
class Shadows:
    """strength 0..1; shift: (2,) in fractions of the thing's size; softness likewise."""

    strength: float
    shift: tuple[float, float]
    softness: float


@dataclass(frozen=True)
class Layer:
    """A thing in one frame, cut to where it is.

    x, y: corner in the frame; rgba: (h, w, 4) uint8 premultiplied; parts: (h, w) part numbers.
    """

    x: int
    y: int
    rgba: Image
    parts: Image


def draw_layer(
    placed: Placed, to_frame: Array, frame: int, height: int, width: int
) -> Layer | None:
    """The thing alone, or None when it is out of the picture."""
    thing, track = placed.thing, placed.track
    world = to_frame @ track.matrix(frame)
    beat = float(track.beat[frame])
    poses = thing.skeleton.pose(beat) if thing.skeleton is not None else []
    shown = thing.shown(beat)
    matrices, boxes = [], []
    for sprite, bone in shown:
        matrix = world @ (poses[bone] if bone >= 0 else np.eye(3)) @ sprite.to_object
        h, w = sprite.parts.shape
        corners = matrix[:2, :2] @ np.array([[0, w, 0, w], [0, 0, h, h]]) + matrix[:2, 2:]
        matrices.append(matrix)
        boxes.append((*corners.min(axis=1), *corners.max(axis=1)))
    bounds = np.asarray(boxes)
    margin = 10
    x0, y0 = np.maximum(np.floor(bounds[:, :2].min(axis=0)).astype(int) - margin, -margin)
    x1, y1 = np.minimum(
        np.ceil(bounds[:, 2:].max(axis=0)).astype(int) + margin, (width + margin, height + margin)
    )
    if x1 - x0 <= 2 * margin or y1 - y0 <= 2 * margin:
        return None
    rgba = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
    parts = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for (sprite, _), matrix, box in zip(shown, matrices, boxes, strict=True):
        a, b = max(int(box[0]) - 1, x0), max(int(box[1]) - 1, y0)
        c, d = min(int(box[2]) + 2, x1), min(int(box[3]) + 2, y1)
        if c - a < 1 or d - b < 1:
            continue
        local = matrix[:2].copy()
        local[:, 2] -= (a, b)
        piece = cv2.warpAffine(sprite.rgba, local, (c - a, d - b), flags=cv2.INTER_LINEAR)
        numbers = cv2.warpAffine(sprite.parts, local, (c - a, d - b), flags=cv2.INTER_NEAREST)
        window = np.s_[b - y0 : d - y0, a - x0 : c - x0]
        rgba[window] = _over(piece, rgba[window])
        alpha, there = piece[..., 3], parts[window]
        solid = (alpha > 127) | ((alpha > 0) & (there == 0))
        cv2.copyTo(numbers, solid.view(np.uint8), there)
    layer = Layer(x0, y0, rgba, parts)
    if thing.elastic > 0 and track.scale[frame] > 12:
        layer = _ripple(placed, layer, frame, bounds)
    return layer


def _over(front: Image, back: Image) -> Image:
    """Premultiplied (h, w, 4) over (h, w, 4)."""
    clear = cv2.bitwise_not(front[..., 3])
    return np.asarray(
        cv2.add(front, cv2.multiply(back, cv2.merge([clear] * 4), scale=1 / 255)), np.uint8
    )


def _ripple(placed: Placed, layer: Layer, frame: int, bounds: Array) -> Layer:
    """Bend the layer by a smooth field that swells and ebbs over time."""
    amount = 0.05 * placed.thing.elastic * placed.track.scale[frame]
    grid = placed.ripple * np.float32(amount * np.sin(placed.pace * frame + 1.0))
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    h, w = layer.parts.shape
    step = np.array(
        [
            (grid.shape[1] - 1) / max(high[0] - low[0], 1),
            (grid.shape[0] - 1) / max(high[1] - low[1], 1),
        ]
    )
    # sample the coarse field at the layer's pixels: field = grid(step * (pixel + corner - low))
    matrix = np.array(
        [[step[0], 0, (layer.x - low[0]) * step[0]], [0, step[1], (layer.y - low[1]) * step[1]]]
    )
    field = cv2.warpAffine(
        grid,
        matrix,
        (w, h),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    columns, rows = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)
    map_x = field[..., 0] + columns[None]
    map_y = field[..., 1] + rows[:, None]
    rgba = cv2.remap(layer.rgba, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    parts = cv2.remap(layer.parts, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return Layer(layer.x, layer.y, rgba, parts)


def cast_shadow(image: Image, layer: Layer, placed: Placed, frame: int, shadows: Shadows) -> None:
    """Darken what lies behind the thing: its displaced, softened outline, and where it stands."""
    size = float(placed.track.scale[frame])
    if shadows.strength <= 0 or size < 5:
        return
    height, width = image.shape[:2]
    quarter = 4
    shape = ((width + quarter - 1) // quarter, (height + quarter - 1) // quarter)
    small = np.zeros((shape[1], shape[0]), np.uint8)
    if placed.thing.stands:
        solid = np.flatnonzero((layer.rgba[..., 3] > 127).any(axis=1))
        if len(solid):
            feet = (
                layer.rgba[max(solid[-1] - int(size * 0.3), 0) : solid[-1] + 1, :, 3].max(axis=0)
                > 127
            )
            at = np.flatnonzero(feet)
            x = (at[0] + at[-1]) / 2 + layer.x
            centre = (
                int(x / quarter + shadows.shift[0] * size / quarter),
                int((layer.y + solid[-1]) / quarter),
            )
            axes = (int(max(at[-1] - at[0], 4) * 0.6 / quarter) + 1, int(size * 0.14 / quarter) + 1)
            cv2.ellipse(small, centre, axes, 0, 0, 360, 255, -1)
        blur = size * 0.06
    else:
        dx, dy = shadows.shift[0] * size, shadows.shift[1] * size
        matrix = np.array(
            [[1 / quarter, 0, (layer.x + dx) / quarter], [0, 1 / quarter, (layer.y + dy) / quarter]]
        )
        small = cv2.warpAffine(layer.rgba[..., 3], matrix, shape, flags=cv2.INTER_AREA)
        blur = size * shadows.softness
    small = cv2.GaussianBlur(small, (0, 0), max(blur / quarter, 0.6))
    gain = (255 - shadows.strength * small).astype(np.uint8)
    full = cv2.resize(gain, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(image, cv2.merge([full, full, full]), dst=image, scale=1 / 255)


def smear(layer: Layer, velocity: Array) -> Image:
    """The layer's rgba blurred along (2,) pixels of movement during the exposure."""
    length = float(np.hypot(*velocity))
    if length < 1.5:
        return layer.rgba
    half = int(min(np.ceil(length / 2), 7))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    step = velocity / length * half
    start, stop = (half - step) * 16, (half + step) * 16
    cv2.line(
        kernel, tuple(int(v) for v in start), tuple(int(v) for v in stop), 1.0, 1, cv2.LINE_AA, 4
    )
    return np.asarray(
        cv2.filter2D(
            layer.rgba, -1, kernel / max(float(kernel.sum()), 1e-6), borderType=cv2.BORDER_CONSTANT
        ),
        np.uint8,
    )


def blend(
    image: Image,
    ids: Image,
    parts: Image,
    layer: Layer,
    rgba: Image,
    *,
    number: int,
    part_offset: int,
) -> None:
    """Lay `rgba` (the layer, perhaps smeared) over the frame.

    Pixels that the sharp layer covers by more than half take its number and its part numbers.
    """
    height, width = ids.shape
    h, w = layer.parts.shape
    x0, y0, x1, y1 = (
        max(layer.x, 0),
        max(layer.y, 0),
        min(layer.x + w, width),
        min(layer.y + h, height),
    )
    if x1 <= x0 or y1 <= y0:
        return
    cut = np.s_[y0 - layer.y : y1 - layer.y, x0 - layer.x : x1 - layer.x]
    window = np.s_[y0:y1, x0:x1]
    front = rgba[cut]
    clear = cv2.bitwise_not(front[..., 3])
    behind = cv2.multiply(image[window], cv2.merge([clear] * 3), scale=1 / 255)
    image[window] = cv2.add(behind, np.ascontiguousarray(front[..., :3]))
    solid = (layer.rgba[cut][..., 3] > 127).view(np.uint8)
    cv2.copyTo(np.full_like(solid, number), solid, ids[window])
    # Two faint rims can add up to a solid pixel that neither part owns: it goes to the first.
    own = np.maximum(layer.parts[cut], 1) + np.uint8(part_offset)
    cv2.copyTo(own, solid, parts[window])


def background_frame(
    background: Image, camera: Camera, frame: int, height: int, width: int
) -> Image:
    """The part of a larger background that the camera sees."""
    rows, columns = background.shape[:2]
    if (rows, columns) == (height, width):
        return background.copy()
    centre = np.array([[1, 0, -(columns - width) / 2], [0, 1, -(rows - height) / 2], [0, 0, 1]])
    matrix = camera.matrix(frame, BACKGROUND_DEPTH) @ centre
    return np.asarray(
        cv2.warpAffine(
            background,
            matrix[:2],
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )
