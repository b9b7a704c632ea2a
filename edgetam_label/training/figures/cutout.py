"""A figure becomes a picture, or some of it moving: from somewhere, in one piece, large enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from edgetam_label.errors import UsageError
from edgetam_label.mask_files import replace_whole
from edgetam_label.training.figures.arrays import FloatArray, ImageArray
from edgetam_label.training.figures.mesh_pictures import (
    Layer,
    View,
    draw_moments,
    largest_piece,
    trimmed,
    without_pinholes,
)

ATTEMPTS = 5
LONGER_SIDE = (300, 421)  # pixels
FRAME_MS = 60  # for how long a viewer shows each frame of a moving figure
CROPPED = (0.35, 0.55)  # of the height, of what is left of a figure that is not shown whole
TURNED, NODDED = 30.0, 6.0  # degrees, standard deviations, while it is filmed

#: a random figure at a moment of its movement, from 0 to 1; all else follows from the generator
Figure = Callable[[np.random.Generator, float], list[Layer]]


def draw_cutouts(
    figure: Figure,
    view: Callable[[np.random.Generator], View],
    rng: np.random.Generator,
    cropped_share: float = 0.0,
    frames: int = 1,
) -> list[ImageArray]:
    """Cut-outs (h, w, 4), BGRA with straight alpha, of one figure that moves and turns.

    figure, view: a random one at each call. cropped_share: figures of which only the upper part is
    seen. frames: how many pictures, all of one size, each of one connected shape.
    Raises UsageError where ATTEMPTS figures in a row fell into several pieces.
    """
    moments = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    for _ in range(ATTEMPTS):
        before = deepcopy(rng)
        poses = [figure(rng, 0.0), *(figure(deepcopy(before), moment) for moment in moments[1:])]
        cropped = rng.random() < cropped_share
        longer_side = int(rng.integers(*LONGER_SIDE))
        first = view(rng)
        views = [_turned(first, deepcopy(rng), moment) for moment in moments]
        # the half of a picture twice as large is as large as the others
        side = longer_side * (1 + cropped)
        pictures = draw_moments(list(zip(poses, views, strict=True)), side, rng)
        if cropped:
            rows = int(pictures[0].shape[0] * rng.uniform(*CROPPED))
            pictures = [picture[:rows] for picture in pictures]
        pieces = [piece for piece in map(largest_piece, pictures) if piece is not None]
        if len(pieces) == len(pictures):
            return [without_pinholes(_at_most(piece, longer_side)) for piece in trimmed(pieces)]
    raise UsageError(
        f"A figure fell into pieces {ATTEMPTS} times in a row; its model has parts that hang loose "
        "in the air. Leave that model out."
    )


def _turned(view: View, rng: np.random.Generator, moment: float) -> View:
    """Where the view is at a moment: figures turn while they move, and cameras go round them."""
    yaw, pitch = rng.normal(0, [TURNED, NODDED])
    return replace(view, yaw=view.yaw + moment * yaw, pitch=view.pitch + moment * pitch)


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


def write_png(path: Path, images: Sequence[ImageArray]) -> None:
    """One picture, or several as an animated PNG; whole or not at all.

    Raises OSError where the folder cannot be written to.
    """
    first, *others = (Image.fromarray(image[..., [2, 1, 0, 3]]) for image in images)
    replace_whole(
        path,
        lambda part: first.save(
            part, format="PNG", save_all=bool(others), append_images=others, duration=FRAME_MS
        ),
    )
