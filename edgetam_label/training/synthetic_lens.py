"""What a camera and a codec do to a picture: exposure, focus, vignette, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
_NOISE_SIZE = 768


@lru_cache(maxsize=1)
def _noise_field() -> NDArray[np.int16]:
    """(768, 768, 3) zero-mean noise of unit deviation times 64; frames take random pieces of it."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 64, (_NOISE_SIZE, _NOISE_SIZE, 3)) * 0.6
    noise += rng.normal(0, 64, (_NOISE_SIZE, _NOISE_SIZE, 1)) * 0.8
    return np.asarray(noise, np.int16)


@dataclass(frozen=True)
class Lens:
    """One camera for a clip.

    table: (256, 1, 3) tone curve and white balance; blur: focus, sigma in pixels; vignette: (H, W)
    gain x 255 or None; noise: deviation in levels;
    quality: JPEG 1..100 or 0; flicker: (T,) gain; half: recorded at a lower resolution.
    """

    table: Image
    blur: float
    vignette: Image | None
    noise: float
    quality: int
    flicker: NDArray[np.float64]
    half: bool

    def expose(self, image: Image, frame: int, rng: Generator) -> Image:
        """(H, W, 3) the frame as recorded."""
        height, width = image.shape[:2]
        if self.half:
            small = cv2.resize(
                image, (width * 2 // 3, height * 2 // 3), interpolation=cv2.INTER_AREA
            )
            image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        if self.blur > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.vignette is not None:
            image = cv2.multiply(image, self.vignette, scale=1 / 255)
        table = self.table
        if self.flicker[frame] != 1:
            table = np.clip(table * self.flicker[frame], 0, 255).astype(np.uint8)
        image = cv2.LUT(image, table)
        if self.noise > 0.3 and height < _NOISE_SIZE and width < _NOISE_SIZE:
            y, x = rng.integers(0, _NOISE_SIZE - height), rng.integers(0, _NOISE_SIZE - width)
            grain = _noise_field()[y : y + height, x : x + width]
            image = cv2.addWeighted(image, 1.0, grain, self.noise / 64, 0, dtype=cv2.CV_8U)
        if self.quality:
            done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            if done:
                image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        return np.asarray(image, np.uint8)


def make_lens(rng: Generator, height: int, width: int, num_frames: int) -> Lens:
    """A camera, from clean to poor."""
    levels = np.arange(256) / 255
    gain = rng.uniform(0.8, 1.25) * np.exp(rng.normal(0, 0.06, 3))
    curve = np.clip(levels[:, None] * gain, 0, 1) ** np.exp(rng.normal(-0.12, 0.22))
    contrast = rng.uniform(0, 0.7)
    curve = (1 - contrast) * curve + contrast * curve * curve * (3 - 2 * curve)
    haze = rng.uniform(0, 0.15) if rng.random() < 0.3 else 0.0
    table = np.clip(255 * (haze + (1 - haze) * curve), 0, 255).astype(np.uint8)[:, None, :]
    vignette = None
    if rng.random() < 0.3:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        fall = 1 - rng.uniform(0.1, 0.45) * (x * x + y * y) / 2
        vignette = cv2.merge([(255 * fall).astype(np.uint8)] * 3)
    flicker = 1 + rng.normal(0, 0.02, num_frames) if rng.random() < 0.25 else np.ones(num_frames)
    flicker = (
        flicker * np.linspace(1, 1 + rng.normal(0, 0.15), num_frames)
        if rng.random() < 0.2
        else flicker
    )
    return Lens(
        np.ascontiguousarray(table),
        float(rng.uniform(0.3, 0.9)) if rng.random() < 0.3 else 0.0,
        vignette,
        float(rng.exponential(3.0)) if rng.random() < 0.7 else 0.0,
        int(rng.integers(30, 95)) if rng.random() < 0.5 else 0,
        flicker,
        bool(rng.random() < 0.12),
    )
