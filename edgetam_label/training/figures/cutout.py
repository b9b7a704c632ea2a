"""A figure becomes a picture: seen from somewhere, in one piece, as large as it should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edgetam_label.errors import UsageError
from edgetam_label.mask_files import replace_whole
from edgetam_label.training.figures.arrays import FloatArray, ImageArray
from edgetam_label.training.figures.mesh_pictures import (
    Layer,
    View,
    draw,
    largest_piece,
    without_pinholes,
)

ATTEMPTS = 5
LONGER_SIDE = (300, 421)  # pixels
CROPPED = (0.35, 0.55)  # of the height, of what is left of a figure that is not shown whole


def draw_cutout(
    figure: Callable[[np.random.Generator], list[Layer]],
    view: Callable[[np.random.Generator], View],
    rng: np.random.Generator,
    cropped_share: float = 0.0,
) -> ImageArray:
    """The cut-out (h, w, 4), BGRA with straight alpha, of one connected shape.

    figure, view: a random one at each call. cropped_share: pictures of its upper part only.
    Raises UsageError where ATTEMPTS figures in a row fell into several pieces.
    """
    for _ in range(ATTEMPTS):
        layers = figure(rng)
        cropped = rng.random() < cropped_share
        longer_side = int(rng.integers(*LONGER_SIDE))
        # the half of a picture twice as large is as large as the others
        picture = draw(layers, view(rng), longer_side * (1 + cropped), rng)
        if cropped:
            picture = picture[: int(picture.shape[0] * rng.uniform(*CROPPED))]
        piece = largest_piece(picture)
        if piece is not None:
            return without_pinholes(_at_most(piece, longer_side))
    raise UsageError(
        f"A figure fell into pieces {ATTEMPTS} times in a row; its model has parts that hang loose "
        "in the air. Leave that model out."
    )


def _at_most(image: ImageArray, longer_side: int) -> ImageArray:
    """image (h, w, 4), shrunk where its longer side is longer than longer_side."""
    factor = longer_side / max(image.shape[:2])
    if factor >= 1:
        return image
    alpha = image[:, :, 3:].astype(np.float64)
    mixed = np.concatenate([image[:, :, :3] * alpha / 255.0, alpha], axis=2)
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    resized = cv2.resize(mixed, (width, height), interpolation=cv2.INTER_AREA)
    small: FloatArray = np.asarray(resized, dtype=np.float64)
    small[:, :, :3] *= 255.0 / np.maximum(small[:, :, 3:], 1.0)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def write_png(path: Path, image: ImageArray) -> None:
    """Whole or not at all. Raises OSError where the folder cannot be written to."""
    _, encoded = cv2.imencode(".png", image)
    replace_whole(path, lambda part: part.write_bytes(encoded.tobytes()))
