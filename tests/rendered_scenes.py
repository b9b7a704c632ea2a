"""Rendered media with known truth: plain bodies over a mottled ground, so that a small model can
tell them apart, and exact masks for every frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT, FPS = 480, 320, 25
DISC_COLOR, BLOCK_COLOR = (235, 90, 40), (60, 190, 235)
Mask = NDArray[np.bool_]


def _ground() -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    coarse = rng.integers(60, 110, (20, 30, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)


def _disc(x: float, y: float, radius: float) -> Mask:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((cols + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2)


def _block(x: float, y: float, w: float, h: float) -> Mask:
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((abs(cols + 0.5 - x) < w / 2) & (abs(rows + 0.5 - y) < h / 2))


def truth(index: int) -> dict[str, Mask]:
    """A disc that goes to the right and a block that goes up, apart from each other."""
    return {
        "disc": _disc(90 + 3 * index, 110, 45),
        "block": _block(360, 250 - 1.2 * index, 80, 60),
    }


def picture(index: int) -> NDArray[np.uint8]:
    image = _ground()
    masks = truth(index)
    image[masks["disc"]] = DISC_COLOR
    image[masks["block"]] = BLOCK_COLOR
    return image


def write_image(path: Path) -> Path:
    Image.fromarray(picture(0)).save(path)
    return path


def write_movie(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "16", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def percent_box(mask: Mask) -> dict[str, float]:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, x1, y0, y1 = cols[0], cols[-1] + 1, rows[0], rows[-1] + 1
    return {
        "x": float(x0 * 100 / WIDTH), "y": float(y0 * 100 / HEIGHT),
        "width": float((x1 - x0) * 100 / WIDTH), "height": float((y1 - y0) * 100 / HEIGHT),
    }  # fmt: skip


def iou(a: Mask, b: Mask) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
