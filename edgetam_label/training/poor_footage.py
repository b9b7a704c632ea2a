"""Footage as it often comes: recorded small, noisy, compressed, and enlarged again."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

POOR_SHARE = 0.33  # of what is trained on
SMALLEST = 0.3  # of the sides as they are shown
NOISE = 4.0  # levels, the mean deviation
COMPRESSED, QUALITY = 0.85, (12, 70)  # share of the footage, and the range of its JPEG quality
# A video codec repeats what hardly changes: blocks whose pixels differ by fewer levels on average.
REPEATING, BLOCK, UNCHANGED = 0.5, 8, (1.0, 6.0)


def as_poor_footage(frames: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """(T, H, W, 3) frames of the same size, as seen by one poor camera and one codec."""
    height, width = frames.shape[1:3]
    scale = float(np.exp(rng.uniform(np.log(SMALLEST), 0)))
    small = (max(BLOCK, round(width * scale)), max(BLOCK, round(height * scale)))
    noise = float(rng.exponential(NOISE))
    quality = int(rng.integers(*QUALITY)) if rng.random() < COMPRESSED else 0
    unchanged = float(rng.uniform(*UNCHANGED)) if rng.random() < REPEATING else 0.0
    enlarging = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    shown: list[NDArray[np.uint8]] = []
    before: NDArray[np.uint8] | None = None
    for frame in frames:
        taken = cv2.resize(frame, small, interpolation=cv2.INTER_AREA).astype(np.float32)
        taken += rng.standard_normal(taken.shape, np.float32) * np.float32(noise)
        recorded = np.asarray(np.clip(np.rint(taken), 0, 255), np.uint8)
        if quality:
            done, packed = cv2.imencode(".jpg", recorded, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if done:
                recorded = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
        if before is not None and unchanged:
            recorded = np.where(_alike(before, recorded, unchanged)[..., None], before, recorded)
        before = recorded
        enlarged = cv2.resize(recorded, (width, height), interpolation=enlarging)
        shown.append(np.asarray(enlarged, np.uint8))
    return np.stack(shown)


def _alike(
    before: NDArray[np.uint8], now: NDArray[np.uint8], difference: float
) -> NDArray[np.bool_]:
    """(h, w): the blocks that differ by less."""
    height, width = now.shape[:2]
    blocks = (-(-width // BLOCK), -(-height // BLOCK))
    grey = cv2.absdiff(before, now).astype(np.float32).mean(axis=-1)
    mean = cv2.resize(grey, blocks, interpolation=cv2.INTER_AREA)
    alike = (mean < difference).astype(np.uint8)
    return np.asarray(
        cv2.resize(alike, (width, height), interpolation=cv2.INTER_NEAREST), dtype=bool
    )
