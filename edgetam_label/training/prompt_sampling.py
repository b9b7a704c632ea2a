"""Simulated annotators: clicks, boxes and corrective clicks drawn from a true mask.

The first click is the deepest point of the object or a random point well inside it; a corrective
click falls into the largest error (SAM 2, arXiv 2408.00714, sections 4 and E).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.masks import Mask, mask_to_box

# Labels of the prompt encoder: -1 padding, 0 and 1 clicks, 2 and 3 box corners.
PADDING, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class PointPrompt:
    """points: (N, 2) float32 x, y in pixels of the mask that they are on. labels: (N,) int64."""

    points: NDArray[np.float32]
    labels: NDArray[np.int64]

    def add(self, x: float, y: float, label: int) -> PointPrompt:
        """The same prompt with one more point."""
        return PointPrompt(
            np.concatenate([self.points, np.array([[x, y]], np.float32)]),
            np.concatenate([self.labels, np.array([label], np.int64)]),
        )


NO_POINTS = PointPrompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64))


def depth(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel of (H, W) `mask` to the nearest pixel outside mask or image."""
    padded = np.pad(mask.astype(np.uint8), 1)
    distances = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distances[1:-1, 1:-1], dtype=np.float32)


def deepest_point(mask: Mask) -> tuple[int, int]:
    """(x, y) of the pixel farthest from the outline; the first one in reading order if several."""
    y, x = np.unravel_index(int(depth(mask).argmax()), mask.shape)
    return int(x), int(y)


def sample_click(
    mask: Mask, rng: np.random.Generator, centre_share: float = 0.5
) -> tuple[int, int]:
    """A first click (x, y) on a non-empty mask.

    With probability `centre_share` the deepest point; else a random pixel among those at least 30 %
    as deep as the deepest, because people do not click on outlines.
    """
    distances = depth(mask)
    if rng.random() < centre_share:
        y, x = np.unravel_index(int(distances.argmax()), mask.shape)
        return int(x), int(y)
    ys, xs = np.nonzero(distances >= 0.3 * distances.max())
    pick = int(rng.integers(len(ys)))
    return int(xs[pick]), int(ys[pick])


def sample_box(mask: Mask, rng: np.random.Generator, jitter: float = 0.1) -> PointPrompt:
    """The tight box of a non-empty mask as two corner points.

    Each edge moves by a normal deviate of `jitter` x the box's side, at most 20 pixels (SAM,
    arXiv 2304.02643, section A), and stays inside the image.
    """
    box = mask_to_box(mask)
    assert box is not None, "sample_box needs a non-empty mask"
    height, width = mask.shape
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2, dtype=np.float64)
    noise = np.clip(rng.normal(0.0, 1.0, 4) * jitter * sides, -20, 20)
    noise = np.clip(noise, -0.45 * sides, 0.45 * sides)
    x0, y0, x1, y1 = np.clip(np.array(box) + noise, 0, [width, height, width, height])
    return PointPrompt(
        np.array([[x0, y0], [x1, y1]], np.float32), np.array([TOP_LEFT, BOTTOM_RIGHT], np.int64)
    )


def corrective_click(
    predicted: Mask, expected: Mask, rng: np.random.Generator | None = None
) -> tuple[int, int, int] | None:
    """(x, y, label) of the click that an annotator would add, or None if both masks are equal.

    Without `rng`: the deepest point of the error, missed or superfluous, that goes deepest:
    the protocol of SAM 2's evaluation. With `rng`: a random pixel of the error component around it.
    """
    missed, extra = expected & ~predicted, predicted & ~expected
    depth_missed, depth_extra = depth(missed), depth(extra)
    positive = bool(depth_missed.max() >= depth_extra.max())
    region, distances = (missed, depth_missed) if positive else (extra, depth_extra)
    if not region.any():
        return None
    y, x = np.unravel_index(int(distances.argmax()), region.shape)
    if rng is not None:
        _, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
        ys, xs = np.nonzero(labels == labels[y, x])
        pick = int(rng.integers(len(ys)))
        y, x = ys[pick], xs[pick]
    return int(x), int(y), POSITIVE if positive else NEGATIVE


def pad_prompts(prompts: list[PointPrompt]) -> PointPrompt:
    """Stack prompts of different length: points (B, N, 2), labels (B, N) padded with -1."""
    length = max(1, max(len(p.labels) for p in prompts))
    points = np.zeros((len(prompts), length, 2), np.float32)
    labels = np.full((len(prompts), length), PADDING, np.int64)
    for row, prompt in enumerate(prompts):
        points[row, : len(prompt.labels)] = prompt.points
        labels[row, : len(prompt.labels)] = prompt.labels
    return PointPrompt(points, labels)
