"""Photographs free of rights (public domain or CC0) that Python packages carry.

Only pictures inside the installed scikit-image wheel whose documentation says CC0 or public
domain; nothing is downloaded. Without scikit-image the generator works on procedural textures
alone.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

#: file name -> who says that it is free (scikit-image, `skimage/data/_fetchers.py`)
TRAIN_PHOTOGRAPHS = {
    "astronaut.png": "NASA, public domain",
    "chelsea.png": "Stefan van der Walt, CC0",
    "coffee.png": "Rachel Michetti, CC0",
    "brick.png": "CC0Textures, CC0",
    "grass.png": "CC0",
    "camera.png": "Lav Varshney, CC0",
    "clock_motion.png": "Stefan van der Walt, public domain",
}
HELDOUT_PHOTOGRAPHS = {
    "gravel.png": "CC0Textures, CC0",
    "rocket.jpg": "SpaceX, public domain",
}
LONGEST_SIDE = 512


@dataclass(frozen=True)
class Photographs:
    """names: file names; images: uint8, (H, W, 3) RGB or (H, W) grey, longest side at most 512."""

    names: tuple[str, ...]
    images: tuple[NDArray[Any], ...]


def load_photographs(split: str) -> Photographs:
    """Photographs of a split, "train" or "heldout"; empty when scikit-image is not installed."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return Photographs((), ())
    folder = Path(spec.origin).parent / "data"
    names, images = [], []
    for name in TRAIN_PHOTOGRAPHS if split == "train" else HELDOUT_PHOTOGRAPHS:
        image = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if image is None:  # a wheel that no longer carries this picture
            continue
        scale = min(1.0, LONGEST_SIDE / max(image.shape[:2]))
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        names.append(name)
        grey = bool((np.ptp(image.astype(np.int16), axis=2) < 4).all())
        images.append(np.ascontiguousarray(image[..., 0] if grey else image[..., ::-1]))
    return Photographs(tuple(names), tuple(images))
