"""Training data from dataset folders: DAVIS, YouTube-VOS, COCO, this tool's own exports.

Videos give clips of their annotated frames; single images become clips by slow random warps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.errors import UsageError
from edgetam_label.evaluation.datasets import Masks, TrueVideo, open_dataset
from edgetam_label.training.clips import Clip

CLIP_FRAMES = 10
MAX_WARP = 0.06  # shift, zoom and shear per frame at most, as a share of the frame
MAX_TURN = 0.06  # radians per frame
CACHED_FRAMES = 64


@dataclass(frozen=True)
class FolderData:
    """Stills and clips of some videos, both `ClipSource`s.

    size: frames are shrunk to about 1.5 x this, since training never looks closer.
    """

    videos: tuple[TrueVideo, ...]
    size: int

    @property
    def stills(self) -> FolderStills:
        return FolderStills(self.videos, self.size)

    @property
    def clips(self) -> FolderClips:
        return FolderClips(self.videos, self.size)


def open_folder(path: Path, size: int, *, split: str | None = None) -> FolderData:
    """Read a dataset folder for training. Raises UsageError for an unknown layout."""
    return FolderData(tuple(open_dataset(path, split=split)), size)


class FolderStills:
    """Every annotated frame that shows an object, as a clip of one frame."""

    def __init__(self, videos: Sequence[TrueVideo], size: int) -> None:
        self.videos, self.size = videos, size
        self.places = [(v, t) for v, video in enumerate(videos) for t in video.annotated]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Clip:
        for step in range(len(self.places)):  # a frame without an object passes on to the next
            video, t = self.places[(index + step) % len(self.places)]
            frame, ids = _load(self.videos[video], t, self.size)
            if ids.any():
                return _clip([frame], [ids])
        raise UsageError(
            f"None of the {len(self.places)} annotated frames shows an object, the first one is of "
            f"{self.videos[0].name}; training needs masks."
        )


class FolderClips:
    """CLIP_FRAMES annotated frames of a video in a row, or one image set in motion."""

    def __init__(self, videos: Sequence[TrueVideo], size: int) -> None:
        self.videos, self.size = videos, size
        self.places = [
            (v, start)
            for v, video in enumerate(videos)
            for start in range(max(1, len(video.annotated) - CLIP_FRAMES + 1))
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Clip:
        number, start = self.places[index % len(self.places)]
        video = self.videos[number]
        picked = video.annotated[start : start + CLIP_FRAMES]
        loaded = [_load(video, t, self.size) for t in picked]
        if len(loaded) == 1:
            return warp_still(*loaded[0], np.random.default_rng([index, 3]))
        while len(loaded) < CLIP_FRAMES:  # there and back again
            loaded += loaded[-2::-1][: CLIP_FRAMES - len(loaded)]
        return _clip([f for f, _ in loaded], [i for _, i in loaded])


def warp_still(frame: NDArray[np.uint8], ids: NDArray[np.uint16], rng: np.random.Generator) -> Clip:
    """A clip from one (H, W, 3) image and its ids: a constant affine drift, mirrored at edges."""
    height, width = ids.shape
    centre = np.array([width, height]) / 2
    shift = rng.uniform(-MAX_WARP, MAX_WARP, 2) * [width, height]
    zoom, shear = rng.uniform(-MAX_WARP, MAX_WARP, 2) / 2
    turn = rng.uniform(-MAX_TURN, MAX_TURN)
    frames, maps = [], []
    for t in range(CLIP_FRAMES):
        cos, sin = np.cos(turn * t), np.sin(turn * t)
        linear = np.array([[cos, -sin], [sin, cos]]) @ [[1, shear * t], [0, 1]] * (1 + zoom * t)
        matrix = np.column_stack([linear, centre + shift * t - linear @ centre])
        moved = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        moved_ids = cv2.warpAffine(
            ids, matrix, (width, height),
            flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        frames.append(np.asarray(moved, dtype=np.uint8))
        maps.append(np.asarray(moved_ids, dtype=np.uint16))
    return _clip(frames, maps)


def _clip(frames: Sequence[NDArray[np.uint8]], maps: Sequence[NDArray[np.uint16]]) -> Clip:
    """Number the objects 1..n in the order of their ids."""
    values, places = np.unique(np.stack(maps), return_inverse=True)
    ids = places.reshape(len(maps), *maps[0].shape).astype(np.uint16)
    if values[0] != 0:
        ids += np.uint16(1)
    return Clip(np.stack(frames), ids, None, int((values > 0).sum()))


@lru_cache(maxsize=CACHED_FRAMES)
def _load(
    video: TrueVideo, frame_idx: int, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    with video.frames() as frames:
        image = frames[frame_idx]
    ids = flatten_masks(video.masks(frame_idx), (image.shape[0], image.shape[1]))
    scale = 1.5 * size / min(ids.shape)
    if scale < 1:
        new = (round(ids.shape[1] * scale), round(ids.shape[0] * scale))
        image = np.asarray(cv2.resize(image, new, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        ids = np.asarray(cv2.resize(ids, new, interpolation=cv2.INTER_NEAREST), dtype=np.uint16)
    return image, ids


def flatten_masks(masks: Masks, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Masks as one (H, W) map of ids; where they overlap the smaller object is on top."""
    ids: NDArray[np.uint16] = np.zeros(shape, np.uint16)
    for obj_id, mask in sorted(masks.items(), key=lambda item: -int(item[1].sum())):
        ids[mask] = obj_id
    return ids
