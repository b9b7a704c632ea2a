"""Synthetic clips with exact truth: `synthetic_clip` makes one, `SyntheticClips` is a source.

Everything follows from the seed. The "heldout" family uses textures, photographs and shapes that
"train" never shows, so that a measure on it tells about things unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgetam_label.training.clips import Clip
from edgetam_label.training.synthetic_pictures import Pictures
from edgetam_label.training.synthetic_places import Places
from edgetam_label.training.synthetic_render import (
    background_frame,
    blend,
    cast_shadow,
    draw_layer,
    smear,
)
from edgetam_label.training.synthetic_scene import Scene, Split, make_scene

# What never shows more than this is a sliver nobody would label, not an object:
_MIN_PIXELS = 16
_MIN_SHARE = 1000  # of the frame: one thousandth
_TRIES = 20


def synthetic_clip(
    seed: int,
    *,
    size: int | tuple[int, int] = 256,
    num_frames: int = 1,
    texture_family: Split | None = "train",
    max_objects: int = 7,
    pictures: Pictures | None = None,
    places: Places | None = None,
) -> Clip:
    """Render one clip.

    Args:
        seed: decides everything; the same seed, size and num_frames give the same bytes.
        size: side of the square frame, or (height, width), in pixels.
        num_frames: 1 makes a still, at a fraction of the cost.
        texture_family: "train" or "heldout"; None means "train".
        max_objects: most objects in a scene.
        pictures: for things made after them, or None.
        places: for backgrounds and surfaces, or None.

    Returns:
        The clip, with at least one object visible in its first frame.
    """
    height, width = (size, size) if isinstance(size, int) else size
    split: Split = texture_family or "train"
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, attempt, split == "heldout"])
        scene = make_scene(rng, height, width, num_frames, split, max_objects, pictures, places)
        clip = _render(scene, rng, height, width, num_frames)
        if clip is not None:
            return clip
    raise AssertionError(f"no visible object in {_TRIES} scenes of seed {seed}, {width}x{height}")


@dataclass(frozen=True)
class SyntheticClips:
    """An endless-looking source of synthetic clips; safe in `DataLoader` workers.

    Attributes:
        seed: sources with different seeds share no clip.
        size: frame side, or (height, width).
        num_frames: frames per clip; 1 for stills.
        texture_family: "train" or "heldout".
        length: what `len` says.
        pictures: for things made after them, or None.
        places: for backgrounds and surfaces, or None.
    """

    seed: int = 0
    size: int | tuple[int, int] = 256
    num_frames: int = 1
    texture_family: Split = "train"
    length: int = 1_000_000
    pictures: Pictures | None = None
    places: Places | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        if not 0 <= index < self.length:
            raise IndexError(index)
        cv2.setNumThreads(0)  # the loader's workers are the parallelism
        seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1, np.uint64)[0])
        return synthetic_clip(
            seed, size=self.size, num_frames=self.num_frames, texture_family=self.texture_family,
            pictures=self.pictures, places=self.places,
        )  # fmt: skip


def _render(scene: Scene, rng: Generator, height: int, width: int, num_frames: int) -> Clip | None:
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    ids = np.zeros((num_frames, height, width), np.uint8)
    parts = np.zeros((num_frames, height, width), np.uint8)
    for t in range(num_frames):
        image = background_frame(scene.background, scene.camera, t, height, width)
        for number, placed in enumerate(scene.placed, start=1):
            view = scene.camera.matrix(t, placed.track.depth)
            layer = draw_layer(placed, view, t, height, width)
            if layer is None:
                continue
            cast_shadow(image, layer, placed, t, scene.shadows)
            rgba = layer.rgba
            if scene.shutter and num_frames > 1:
                near = placed.track.centre[max(t - 1, 0) : t + 2]
                rgba = smear(layer, (near[-1] - near[0]) / max(len(near) - 1, 1) * scene.shutter)
            offset = placed.part_offset
            blend(image, ids[t], parts[t], layer, rgba, number=number, part_offset=offset)
        frames[t] = scene.lens.expose(image, t, rng)
    return _number(frames, ids, parts, len(scene.placed))


def _number(
    frames: NDArray[Any], ids: NDArray[Any], parts: NDArray[Any], count: int
) -> Clip | None:
    """Number the visible objects 1..n without gaps; None when frame 0 shows none worth a click."""
    flat = ids.reshape(len(ids), -1)
    areas = np.stack([cv2.calcHist([row], [0], None, [256], [0, 256]).ravel() for row in flat])
    least = max(_MIN_PIXELS, ids[0].size // _MIN_SHARE)
    kept = [k for k in range(1, count + 1) if areas[:, k].max() >= least]
    first = max((int(areas[0, k]) for k in kept), default=0)
    if first < max(least, ids[0].size // 400):
        return None
    table = np.zeros((1, 256), np.uint8)
    table[0, kept] = np.arange(1, len(kept) + 1)
    renumbered = np.asarray(cv2.LUT(flat, table), np.uint8).reshape(ids.shape)
    used = parts.reshape(len(parts), -1)
    if len(kept) < count:  # parts of things too small to count go with them
        used = cv2.copyTo(used, renumbered.reshape(used.shape))
    numbers = np.flatnonzero(cv2.calcHist([used], [0], None, [256], [0, 256]).ravel()[1:]) + 1
    table = np.zeros((1, 256), np.uint8)
    table[0, numbers] = np.arange(1, len(numbers) + 1)
    return Clip(
        frames,
        renumbered,
        np.asarray(cv2.LUT(used, table), np.uint8).reshape(parts.shape),
        len(kept),
    )
