"""From labelled clips to training batches: crops, colour changes, object choice, prompts.

A stream is a pure function of (seed, index): sample k is the same in every run and after a resume.
Fresh scenes enter slowly and are each shown a few times, differently cropped, because a scene costs
more to make than to crop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from edgetam_label.crops import Crop
from edgetam_label.errors import UsageError
from edgetam_label.training.clips import Clip, ClipSource
from edgetam_label.training.poor_footage import as_poor_footage
from edgetam_label.training.prompt_sampling import (
    POSITIVE,
    PointPrompt,
    pad_prompts,
    sample_box,
    sample_click,
)
from edgetam_label.training.windows import as_shares, following_windows, random_window

# Targets are kept at half the image's side: four times finer than a quarter-size logit map needs,
# and a quarter of the cost of the full size.
TARGET_STRIDE = 2
MIN_SHARE = 0.002  # of the crop: objects smaller than that are not trained on
# Crops without a usable object before the next scene is tried, and scenes before giving up.
MAX_CROPS, MAX_SCENES = 60, 20


@dataclass(frozen=True)
class SampleSpec:
    """What one training sample looks like.

    size: side in pixels of the square, stretched training image. num_frames: length of the clip.
    num_objects: prompts per image. click_share: first prompts that are clicks; the rest are boxes.
    part_share: samples whose objects are parts of things. closest: smallest side of a crop, as a
    share of the picture's. follow_share: clips looked at through crops that follow an object.
    poor_share: samples that look like poor footage. reuse: how often a scene is shown. window: how
    many scenes are in play at once.
    """

    size: int
    num_frames: int = 1
    num_objects: int = 3
    click_share: float = 0.6
    part_share: float = 0.15
    closest: float = 0.57
    follow_share: float = 0.0
    poor_share: float = 0.0
    reuse: int = 3
    window: int = 192


@dataclass(frozen=True)
class Sample:
    """frames: (T, S, S, 3) uint8. targets: (O, T, S/2, S/2) uint8, 0..255 coverage.

    prompts: O first-frame prompts in pixels of S. windows: (T, 4) float32, where each frame was cut
    from the clip's: x0, y0, x1, y1 as shares of its sides.
    """

    frames: NDArray[np.uint8]
    targets: NDArray[np.uint8]
    windows: NDArray[np.float32]
    prompts: tuple[PointPrompt, ...]


@dataclass(frozen=True)
class Batch:
    """frames: (B, T, 3, S, S) uint8. targets: (B, O, T, S/2, S/2) uint8, 0..255.

    points: (B, O, N, 2) in pixels of S. labels: (B, O, N), -1 padding. windows: (B, T, 4), where
    each frame was cut from the clip's, as shares of its sides.
    """

    frames: Tensor
    targets: Tensor
    windows: Tensor
    points: Tensor
    labels: Tensor

    def first(self, frames: int) -> Batch:
        """Without the frames after that many."""
        return replace(
            self,
            frames=self.frames[:, :frames],
            targets=self.targets[:, :, :frames],
            windows=self.windows[:, :frames],
        )

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.frames.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.windows,
            self.points.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
        )


def jitter_colours(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One brightness, contrast, saturation and channel gain for the whole (T, S, S, 3) clip."""
    x = frames.astype(np.float32)
    if rng.random() < 0.8:
        grey = x.mean(axis=-1, keepdims=True)
        saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.6, 1.4)
        x = grey + (x - grey) * np.float32(saturation)
        x = (x - 128) * np.float32(rng.uniform(0.7, 1.3)) + 128 + np.float32(rng.uniform(-25, 25))
        x = x * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)


def choose_masks(
    ids: NDArray[np.integer], count: int, rng: np.random.Generator, min_share: float = MIN_SHARE
) -> list[NDArray[np.bool_]]:
    """Boolean (T, H, W) masks of `count` objects visible on the first frame, [] if there is none.

    Objects below `min_share` of the frame are left out; where there are too few, some repeat.
    """
    values, areas = np.unique(ids[0], return_counts=True)
    usable = [
        int(v) for v, a in zip(values, areas, strict=True) if v > 0 and a >= min_share * ids[0].size
    ]
    if not usable:
        return []
    order = [usable[i] for i in rng.permutation(len(usable))]
    while len(order) < count:
        order.append(usable[int(rng.integers(len(usable)))])
    return [ids == value for value in order[:count]]


def sample_prompt(
    mask: NDArray[np.bool_], click_share: float, rng: np.random.Generator
) -> PointPrompt:
    """A click or a jittered box on a non-empty (H, W) mask."""
    if rng.random() < click_share:
        x, y = sample_click(mask, rng)
        return PointPrompt(np.array([[x, y]], np.float32), np.array([POSITIVE], np.int64))
    return sample_box(mask, rng)


def _pick_frames(length: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """`wanted` frame indices in order or reversed, with a random stride; the last may repeat."""
    stride = int(rng.integers(1, max(1, (length - 1) // max(1, wanted - 1)) + 1))
    span = (wanted - 1) * stride + 1
    start = int(rng.integers(0, max(1, length - span + 1)))
    picked = [min(start + i * stride, length - 1) for i in range(wanted)]
    return picked[::-1] if rng.random() < 0.5 else picked


def make_sample(clip: Clip, spec: SampleSpec, rng: np.random.Generator) -> Sample | None:
    """Crop, stretch, flip, recolour and prompt a clip; None if the crop shows no usable object."""
    picked = _pick_frames(len(clip.frames), spec.num_frames, rng)
    part = clip.parts is not None and rng.random() < spec.part_share
    label_maps = clip.parts if part and clip.parts is not None else clip.ids
    frames, ids = clip.frames[picked], label_maps[picked]
    if rng.random() < 0.5:
        frames, ids = frames[:, :, ::-1], ids[:, :, ::-1]
    windows = _choose_windows(frames, ids, spec, rng)
    size = (spec.size, spec.size)
    resized = np.stack(
        [
            cv2.resize(window.cut(frame), size, interpolation=cv2.INTER_AREA)
            for window, frame in zip(windows, frames, strict=True)
        ]
    ).astype(np.uint8, copy=False)
    resized_ids = np.stack(
        [
            cv2.resize(window.cut(i.astype(np.uint16)), size, interpolation=cv2.INTER_NEAREST)
            for window, i in zip(windows, ids, strict=True)
        ]
    ).astype(np.uint16, copy=False)
    masks = choose_masks(resized_ids, spec.num_objects, rng)
    if not masks:
        return None
    half = (spec.size // TARGET_STRIDE, spec.size // TARGET_STRIDE)
    targets = np.stack(
        [
            [cv2.resize(m.astype(np.uint8) * 255, half, interpolation=cv2.INTER_AREA) for m in mask]
            for mask in masks
        ]
    )
    prompts = tuple(sample_prompt(mask[0], spec.click_share, rng) for mask in masks)
    shown = jitter_colours(resized, rng)
    if rng.random() < spec.poor_share:
        shown = as_poor_footage(shown, rng)
    return Sample(shown, targets, as_shares(windows), prompts)


def _choose_windows(
    frames: NDArray[np.uint8],
    ids: NDArray[np.integer],
    spec: SampleSpec,
    rng: np.random.Generator,
) -> list[Crop]:
    """One crop for every frame of a clip: the same for all, or one that follows an object."""
    if len(ids) > 1 and rng.random() < spec.follow_share:
        followed = choose_masks(ids, 1, rng, MIN_SHARE / 4)
        if followed:
            return following_windows(followed[0], frames, rng)
    return [random_window(ids.shape[2], ids.shape[1], spec.closest, rng)] * len(ids)


class SampleStream(Dataset[Sample]):
    """Sample k for every k >= 0, a pure function of (seed, k).

    source: the scenes; after the last one it starts over.
    """

    def __init__(
        self, source: ClipSource, spec: SampleSpec, seed: int, length: int = 1 << 40
    ) -> None:
        self.source, self.spec, self.seed, self.length = source, spec, seed, length
        self._cache: OrderedDict[int, Clip] = OrderedDict()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        for attempt in range(MAX_CROPS * MAX_SCENES):
            moved_on = attempt // MAX_CROPS * self.spec.reuse
            sample = make_sample(self._scene(index + moved_on, rng), self.spec, rng)
            if sample is not None:
                return sample
        raise UsageError(
            f"No usable object in {MAX_SCENES} scenes of the training data, {MAX_CROPS} crops "
            f"each; objects must cover {MIN_SHARE:.1%} of a crop on its first frame."
        )

    def _scene(self, index: int, rng: np.random.Generator) -> Clip:
        newest = index // self.spec.reuse
        number = newest - int(rng.integers(0, min(self.spec.window, newest + 1)))
        clip = self._cache.pop(number, None)
        self._cache[number] = clip = (
            self.source[number % len(self.source)] if clip is None else clip
        )
        while len(self._cache) > 2 * self.spec.window:
            self._cache.popitem(last=False)
        return clip


class ConsecutiveBatches(Sampler[list[int]]):
    """Sampler of the index batches from step `start` on; each of `size` processes has its share."""

    def __init__(self, start: int, batch_size: int, rank: int = 0, size: int = 1) -> None:
        self.start, self.batch_size, self.rank, self.size = start, batch_size, rank, size

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start * self.size + self.rank
        while True:
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))
            step += self.size


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one spec."""
    prompts = pad_prompts([p for s in samples for p in s.prompts])
    objects = len(samples[0].prompts)
    frames = np.stack([s.frames for s in samples]).transpose(0, 1, 4, 2, 3)
    return Batch(
        torch.from_numpy(np.ascontiguousarray(frames)),
        torch.from_numpy(np.stack([s.targets for s in samples])),
        torch.from_numpy(np.stack([s.windows for s in samples])),
        torch.from_numpy(prompts.points).unflatten(0, (len(samples), objects)),
        torch.from_numpy(prompts.labels).unflatten(0, (len(samples), objects)),
    )
