"""What one gets without a model: optical flow for video, GrabCut for clicks and boxes."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.evaluation.datasets import Masks, TrueVideo
from edgetam_label.masks import Mask
from edgetam_label.prompts import Box, Click

GRABCUT_ROUNDS = 5
CLICK_RADIUS = 0.02  # of the image diagonal: pixels that a click declares as object
REACH = 0.25  # of the image diagonal: how far from the click GrabCut may look for the object


def carry_by_flow(video: TrueVideo, starts: dict[int, int]) -> Iterator[tuple[int, Masks]]:
    """Carry each object's first mask on by DIS optical flow (OpenCV), frame after frame.

    starts: object id -> frame whose true mask is given. Yields (frame_idx, masks) for all frames.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before: NDArray[np.uint8] | None = None
    masks: dict[int, NDArray[np.float32]] = {}
    with video.frames() as frames:
        for frame_idx, image in frames.iter(0, len(frames)):
            grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
            if before is not None and masks:
                # from now to before: every pixel asks where it was
                # None, that is no first guess, which the stub of OpenCV forgets
                backward = flow.calc(grey, before, None)  # type: ignore[call-overload]
                masks = {k: _pull(m, backward) for k, m in masks.items()}
            given = [k for k, start in starts.items() if start == frame_idx]
            if given:
                truth = video.masks(frame_idx)
                masks.update({k: truth[k].astype(np.float32) for k in given})
            before = grey
            yield frame_idx, {k: np.asarray(m > 0.5) for k, m in masks.items()}


def _pull(mask: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    pulled = cv2.remap(mask, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    return np.asarray(pulled, dtype=np.float32)


def grabcut_by_click(image: NDArray[np.uint8], click: Click) -> Mask:
    """GrabCut (Rother et al. 2004) seeded by a small disk; far pixels are background."""
    height, width = image.shape[:2]
    diagonal = float(np.hypot(height, width))
    seeds = np.full((height, width), cv2.GC_BGD, np.uint8)
    centre = (round(click.x), round(click.y))
    cv2.circle(seeds, centre, max(2, round(REACH * diagonal)), cv2.GC_PR_BGD, -1)
    cv2.circle(seeds, centre, max(2, round(2 * CLICK_RADIUS * diagonal)), cv2.GC_PR_FGD, -1)
    cv2.circle(seeds, centre, max(1, round(CLICK_RADIUS * diagonal)), cv2.GC_FGD, -1)
    return _grabcut(image, seeds, None)


def grabcut_by_box(image: NDArray[np.uint8], box: Box) -> Mask:
    """GrabCut inside a box; everything outside is background."""
    height, width = image.shape[:2]
    x0, y0 = max(0, int(box.x0)), max(0, int(box.y0))
    x1, y1 = min(width, round(box.x1)), min(height, round(box.y1))
    if (x1 - x0) >= width and (y1 - y0) >= height:
        return np.ones((height, width), dtype=bool)  # no background left to learn from
    seeds = np.zeros((height, width), np.uint8)
    return _grabcut(image, seeds, (x0, y0, max(1, x1 - x0), max(1, y1 - y0)))


def _grabcut(
    image: NDArray[np.uint8], seeds: NDArray[np.uint8], box: tuple[int, int, int, int] | None
) -> Mask:
    cv2.setRNGSeed(0)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    mode = cv2.GC_INIT_WITH_MASK if box is None else cv2.GC_INIT_WITH_RECT
    bgr = np.ascontiguousarray(image[..., ::-1])
    try:
        cv2.grabCut(bgr, seeds, box or (0, 0, 1, 1), background, foreground, GRABCUT_ROUNDS, mode)
    except cv2.error:
        # too few pixels of one kind to fit its colours: only the seeds are known
        return np.asarray(seeds == cv2.GC_FGD)
    return np.asarray((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD))
