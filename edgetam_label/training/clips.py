"""What training eats: short clips with the ids of their objects, from any source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """A short video with its truth; a still image is a clip of one frame.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB.
        ids: (T, H, W) uint8 or uint16; which object is visible at each pixel, 0 background.
            Objects are numbered 1..num_objects and each is visible in at least one frame.
        parts: (T, H, W) of the same kind, or None: finer regions inside the objects, numbered
            across the whole scene, 0 background.
        num_objects: how many objects are in the clip.
    """

    frames: NDArray[np.uint8]
    ids: NDArray[np.uint8] | NDArray[np.uint16]
    parts: NDArray[np.uint8] | NDArray[np.uint16] | None
    num_objects: int

    def __len__(self) -> int:
        return len(self.frames)

    def mask(self, object_id: int, frame_idx: int) -> NDArray[np.bool_]:
        """(H, W) visible pixels of one object in one frame."""
        mask: NDArray[np.bool_] = self.ids[frame_idx] == object_id
        return mask

    def areas(self) -> NDArray[np.int64]:
        """(T, num_objects) visible pixels of every object in every frame."""
        counts = [np.bincount(ids.ravel(), minlength=self.num_objects + 1)[1:] for ids in self.ids]
        return np.stack(counts).astype(np.int64)


@runtime_checkable
class ClipSource(Protocol):
    """Anything that yields clips by number: it can sit behind a `DataLoader` as it is.

    `source[i]` must depend on `i` and on how the source was built, and on nothing else, so
    that a training run which stops at step n goes on at step n with the same data.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Clip: ...


@dataclass(frozen=True)
class MixedClips:
    """Several sources in fixed proportions, as one source.

    Attributes:
        sources: where the clips come from.
        weights: one share per source; they need not add up to 1.
        seed: decides which source serves which index.
    """

    sources: tuple[ClipSource, ...]
    weights: tuple[float, ...]
    seed: int = 0

    def __len__(self) -> int:
        return max(len(source) for source in self.sources)

    def __getitem__(self, index: int) -> Clip:
        shares = np.asarray(self.weights, np.float64)
        rng = np.random.default_rng([self.seed, index])
        source = self.sources[int(rng.choice(len(shares), p=shares / shares.sum()))]
        return source[index % len(source)]
