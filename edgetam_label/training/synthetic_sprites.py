"""Sprites: painted pieces of objects with soft edges, their parts and a rounded, lit surface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.training.synthetic_shapes import Shape
from edgetam_label.training.synthetic_textures import Material

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
_SHIFT = 4  # sub-pixel bits of OpenCV polygon drawing


@dataclass(frozen=True)
class Light:
    """One light for the whole scene.

    direction: (3,) unit vector towards the light, z out of the picture; ambient 0..1;
    specular 0..1: how shiny things are.
    """

    direction: NDArray[np.float32]
    ambient: float
    specular: float


@dataclass(frozen=True)
class Sprite:
    """A painted piece.

    rgba: (h, w, 4) uint8 premultiplied; parts: (h, w) uint8; to_object: (3, 3) pixel -> object.
    """

    rgba: Image
    parts: Image
    to_object: NDArray[np.float64]


class Canvas:
    """Where an object or a limb is painted, part after part.

    Args:
        box: x0, y0, x1, y1 of the drawing in object units.
        pixels_per_unit: resolution.
    """

    def __init__(self, box: tuple[float, float, float, float], pixels_per_unit: float) -> None:
        pad = 2.0 / pixels_per_unit
        self._origin = np.array([box[0] - pad, box[1] - pad])
        self._scale = pixels_per_unit
        size = np.array([box[2] - box[0], box[3] - box[1]]) + 2 * pad
        width, height = np.maximum(np.ceil(size * pixels_per_unit), 4).astype(int)
        self._rgb = np.zeros((height, width, 3), np.uint8)
        self._alpha = np.zeros((height, width), np.uint8)
        self._parts = np.zeros((height, width), np.uint8)

    def paint(
        self,
        shape: Shape,
        material: Material,
        light: Light,
        *,
        part: int,
        bump: float = 1.0,
        inside: bool = False,
    ) -> None:
        """Paint one part over what is there.

        Args:
            part: its number in the part map.
            bump: 0 flat (a print or a pane) to 1 (a round body).
            inside: clip to what was painted before (windows, spots, prints).
        """
        contours = [(c - self._origin) * self._scale for c in shape]
        low = np.floor(np.min([c.min(axis=0) for c in contours], axis=0)).astype(int) - 2
        high = np.ceil(np.max([c.max(axis=0) for c in contours], axis=0)).astype(int) + 3
        height, width = self._alpha.shape
        x0, y0 = np.maximum(low, 0)
        x1, y1 = np.minimum(high, (width, height))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        fixed = [np.round((c - (x0, y0)) * (1 << _SHIFT)).astype(np.int32) for c in contours]
        alpha = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(alpha, fixed, 255, cv2.LINE_AA, _SHIFT)
        window = np.s_[y0:y1, x0:x1]
        rgb = material.render(y1 - y0, x1 - x0, pixels_per_unit=self._scale)
        rgb = shade(rgb, alpha, light, bump)
        old_alpha = self._alpha[window]
        if inside:
            alpha = np.minimum(alpha, old_alpha)
        over = cv2.merge([alpha, alpha, alpha])
        under = cv2.bitwise_not(over)
        blended = cv2.add(
            cv2.multiply(rgb, over, scale=1 / 255),
            cv2.multiply(self._rgb[window], under, scale=1 / 255),
        )
        self._rgb[window] = blended
        self._alpha[window] = np.maximum(old_alpha, alpha)
        # Numbers reach a little further than the half-covered rim, so that warping leaves no gap.
        numbers = self._parts[window]
        covered = (alpha > 127) | ((alpha > 0) & (numbers == 0))
        cv2.copyTo(np.full_like(alpha, part), covered.view(np.uint8), numbers)

    def finish(self) -> Sprite:
        """The painting as a sprite. The colours are premultiplied already: they started at 0."""
        to_object = np.array(
            [
                [1 / self._scale, 0, self._origin[0]],
                [0, 1 / self._scale, self._origin[1]],
                [0, 0, 1],
            ]
        )
        return Sprite(np.dstack([self._rgb, self._alpha]), self._parts, to_object)


def shade(rgb: Image, alpha: Image, light: Light, bump: float) -> Image:
    """Light a surface that swells from its outline: Lambert, ambient and a soft highlight.

    The height is a quarter circle of the distance to the outline, up to a rim width, computed at
    reduced size since shading is smooth.
    """
    height, width = alpha.shape
    if bump <= 0 or max(height, width) < 9:
        return rgb
    factor = max(1.0, max(height, width) / 56)
    small = cv2.resize(
        alpha,
        (max(int(width / factor), 4), max(int(height / factor), 4)),
        interpolation=cv2.INTER_AREA,
    )
    padded = cv2.copyMakeBorder((small > 100).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    rim = max(float(distance.max()) * (0.35 + 0.65 * bump), 1.0)
    inward = np.clip(1 - distance / rim, 0, 1)
    surface = cv2.GaussianBlur(np.sqrt(1 - inward * inward) * rim, (0, 0), 1.2)
    gx, gy = (
        cv2.Sobel(surface, cv2.CV_32F, 1, 0, scale=0.125),
        cv2.Sobel(surface, cv2.CV_32F, 0, 1, scale=0.125),
    )
    norm = 1 / np.sqrt(gx * gx + gy * gy + 1)
    x, y, z = light.direction
    facing = np.maximum((-gx * x - gy * y + z) * norm, 0)
    gain = (light.ambient + (1 - light.ambient) * facing / max(float(z), 0.5)) * (
        0.75 + 0.25 * bump
    ) + 0.25 * (1 - bump)
    if light.specular > 0:
        half = np.array([x, y, z + 1]) / np.sqrt(2 + 2 * z)
        glint = np.maximum((-gx * half[0] - gy * half[1] + half[2]) * norm, 0) ** 24
        gain = gain + light.specular * glint
    gain8 = np.clip(gain * 128, 0, 255).astype(np.uint8)
    full = cv2.resize(gain8, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(rgb, cv2.merge([full, full, full]), scale=1 / 128), np.uint8)


def sphere_light(light: Light, pixels_per_unit: float, radius: float) -> Sprite:
    """Shade and highlight of a sphere at the origin, to lay over a flat disc.

    Apart from the disc, so that a rolling ball turns under a light that stays.
    """
    half = int(np.ceil(radius * pixels_per_unit)) + 1
    ramp = (np.arange(2 * half + 1) - half) / (radius * pixels_per_unit)
    x, y = np.meshgrid(ramp, ramp)
    distance = np.hypot(x, y)
    z = np.sqrt(np.clip(1 - distance**2, 0, 1))
    lx, ly, lz = (float(v) for v in light.direction)
    facing = np.clip(x * lx + y * ly + z * lz, 0, 1)
    dark = 1 - np.clip(light.ambient + (1 - light.ambient) * facing * 1.2, 0.1, 1)
    bisector = np.array([lx, ly, lz + 1]) / np.sqrt(2 + 2 * lz)
    glint = np.clip(x * bisector[0] + y * bisector[1] + z * bisector[2], 0, 1) ** 30
    shine = 0.8 * light.specular * glint
    inside = np.clip((1 - distance) * radius * pixels_per_unit + 0.5, 0, 1)
    alpha = (1 - (1 - dark) * (1 - shine)) * inside
    rgba = np.repeat((255 * shine * inside)[..., None], 4, axis=2)
    rgba[..., 3] = 255 * alpha
    unit = 1 / pixels_per_unit
    to_object = np.array([[unit, 0, -half * unit], [0, unit, -half * unit], [0, 0, 1]])
    none = np.zeros(alpha.shape, np.uint8)
    return Sprite(np.asarray(rgba, np.uint8), none, to_object)
