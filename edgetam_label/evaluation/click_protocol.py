"""`clicks`: mIoU after 1 to 5 simulated clicks, and with a box, on single images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetam_label.evaluation.baselines import grabcut_by_box, grabcut_by_click
from edgetam_label.evaluation.datasets import TrueVideo
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.masks import Mask, mask_to_box
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.training.prompt_sampling import POSITIVE, corrective_click, deepest_point

NUM_CLICKS = 5
MIN_AREA = 16  # pixels; smaller objects are no fair target for a click


@dataclass(frozen=True)
class ClickIou:
    """IoU of one object: after 1..n clicks, and with its tight box."""

    by_clicks: tuple[float, ...]
    by_box: float


Measure = Callable[[NDArray[np.uint8], list[Mask]], list[ClickIou]]


def clicks_of_model(model: EdgeTAM) -> Measure:
    """First click at the deepest point, each further one at the deepest point of the error."""
    predictor, closer = ImagePredictor(model), model.config.close_ups

    def measure(image: NDArray[np.uint8], masks: list[Mask]) -> list[ClickIou]:
        embedding = predictor.embed(image)
        results = []
        for truth in masks:
            clicks: tuple[Click, ...] = (Click(*deepest_point(truth)),)
            answer = predictor.predict(embedding, Prompt(1, clicks=clicks))
            ious = [region_similarity(answer.best, truth)]
            while len(ious) < NUM_CLICKS:
                found = corrective_click(answer.best, truth)
                if found is not None:
                    clicks = (*clicks, Click(found[0], found[1], found[2] == POSITIVE))
                    # a model with close-ups goes on from its own last answer
                    earlier = None if closer else answer.low_res_logits[answer.best_index]
                    prompt = Prompt(1, clicks=clicks)
                    answer = predictor.predict(embedding, prompt, low_res_logits=earlier)
                ious.append(region_similarity(answer.best, truth))
            box = predictor.predict(embedding, Prompt(1, box=true_box(truth)))
            results.append(ClickIou(tuple(ious), region_similarity(box.best, truth)))
        return results

    return measure


def clicks_of_grabcut(image: NDArray[np.uint8], masks: list[Mask]) -> list[ClickIou]:
    """GrabCut from one click and from the box; it knows no corrections."""
    results = []
    for truth in masks:
        x, y = deepest_point(truth)
        by_click = grabcut_by_click(image, Click(x, y))
        by_box = grabcut_by_box(image, true_box(truth))
        results.append(
            ClickIou((region_similarity(by_click, truth),), region_similarity(by_box, truth))
        )
    return results


def true_box(truth: Mask) -> Box:
    """Tight box of a non-empty mask."""
    box = mask_to_box(truth)
    assert box is not None, "true_box needs a non-empty mask"
    return Box(*box)


def run_clicks(video: TrueVideo, measure: Measure, stride: int) -> tuple[list[ClickIou], int]:
    """Every object on each `stride`-th annotated frame; their IoUs and the number of images."""
    results: list[ClickIou] = []
    count = 0
    with video.frames() as frames:
        for frame_idx in video.annotated[::stride]:
            masks = [m for m in video.masks(frame_idx).values() if m.sum() >= MIN_AREA]
            if masks:
                results += measure(frames[frame_idx], masks)
                count += 1
    return results, count
