"""Region similarity J and contour accuracy F of the DAVIS benchmark (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, hypot

import cv2
import numpy as np

from edgetam_label.errors import UsageError
from edgetam_label.masks import Mask

# Tolerance of the contour match as a share of the image diagonal, as the benchmark sets it.
BOUNDARY_TOLERANCE = 0.008


@dataclass(frozen=True)
class Score:
    """J, F in [0, 1], means over frames; frames: how many were measured."""

    j: float
    f: float
    frames: int

    @property
    def j_and_f(self) -> float:
        return (self.j + self.f) / 2


def region_similarity(predicted: Mask, expected: Mask) -> float:
    """J: intersection over union of two (H, W) masks; 1.0 if both are empty."""
    _check_shapes(predicted, expected)
    union = np.count_nonzero(predicted | expected)
    return 1.0 if union == 0 else float(np.count_nonzero(predicted & expected) / union)


def contour(mask: Mask) -> Mask:
    """(H, W) one-pixel contour: pixels unlike the next one right, below or diagonally below.

    Beyond the last row and column the mask counts as continued, so the image edge is no contour.
    """
    grown = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = grown[:-1, 1:], grown[1:, :-1], grown[1:, 1:]
    return np.asarray((mask != right) | (mask != below) | (mask != diagonal))


def contour_accuracy(
    predicted: Mask, expected: Mask, tolerance: float = BOUNDARY_TOLERANCE
) -> float:
    """F: harmonic mean of contour precision and recall of two (H, W) masks.

    A contour pixel counts as found if the other contour passes within a disk whose radius is
    `tolerance` x the image diagonal, rounded up. Two empty contours give 1.0.
    """
    _check_shapes(predicted, expected)
    ours, theirs = contour(predicted), contour(expected)
    count_ours, count_theirs = np.count_nonzero(ours), np.count_nonzero(theirs)
    if count_ours == 0 or count_theirs == 0:
        return 1.0 if count_ours == count_theirs else 0.0
    radius = ceil(tolerance * hypot(*predicted.shape))
    precision = np.count_nonzero(ours & _within(theirs, radius)) / count_ours
    recall = np.count_nonzero(theirs & _within(ours, radius)) / count_theirs
    total = precision + recall
    return 0.0 if total == 0 else float(2 * precision * recall / total)


def mean_score(predicted: list[Mask], expected: list[Mask]) -> Score:
    """Score of one object over the given frames. Raises UsageError if there are none."""
    if not expected or len(predicted) != len(expected):
        raise UsageError(
            f"J and F need as many predicted as true masks and at least one; got "
            f"{len(predicted)} and {len(expected)}."
        )
    pairs = list(zip(predicted, expected, strict=True))
    return Score(
        float(np.mean([region_similarity(p, e) for p, e in pairs])),
        float(np.mean([contour_accuracy(p, e) for p, e in pairs])),
        len(pairs),
    )


def _within(pixels: Mask, radius: int) -> Mask:
    """Pixels at most `radius` away from the given ones: a dilation by a disk, at constant cost."""
    distances = cv2.distanceTransform(
        (~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return np.asarray(np.asarray(distances) <= radius + 1e-3)


def _check_shapes(predicted: Mask, expected: Mask) -> None:
    if predicted.shape != expected.shape:
        raise UsageError(
            f"Masks of different sizes cannot be compared: predicted {predicted.shape}, true "
            f"{expected.shape}; write predictions at the size of the true masks."
        )
