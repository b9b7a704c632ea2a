"""Flip test: prompts of the small model are answered on the mirror image too."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from edgetam_label import load_model
from edgetam_label.config import ModelConfig
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.flipping import merged, points_both_ways
from edgetam_label.frames import Frames
from edgetam_label.masks import Mask
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.modeling.point_labels import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    POSITIVE,
)
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker

WIDTH, HEIGHT = 640, 480


def shipped(flip_test: bool) -> EdgeTAM:
    model = load_model("edgetam_nano", device="cpu")
    model.config = replace(model.config, flip_test=flip_test)
    return model


def scene(size: int) -> tuple[np.ndarray, Mask]:
    """A kite of two colours in front of a textured wall, and where it is."""
    rng = np.random.default_rng(11)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = 380, 200
    outline = np.array([[x, y - size], [x + size // 2, y], [x, y + size], [x - size // 2, y]])
    cv2.fillPoly(shape, [outline], 1)
    image = wall // 2 + 60
    image[shape > 0] = (190, 60, 50)
    left = (shape > 0) & (np.arange(WIDTH)[None] < x)
    image[left] = (230, 120, 60)
    return image, shape > 0


def test_configs_that_ask_for_it() -> None:
    assert ModelConfig.load("edgetam_nano").flip_test
    assert not ModelConfig.load("edgetam").flip_test  # official masks are official


def test_a_box_and_clicks_in_the_mirror() -> None:
    points = torch.tensor([[[10.0, 20.0], [50.0, 90.0], [12.0, 30.0], [319.0, 0.0]]])
    labels = torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, POSITIVE, NEGATIVE]])
    both, marked = points_both_ways(points, labels, 320)
    assert torch.equal(both[:1], points) and torch.equal(marked[0], marked[1])
    # the corners are the upper left and the lower right one again
    mirrored = [[269.0, 20.0], [309.0, 90.0], [307.0, 30.0], [0.0, 0.0]]
    assert both[1].tolist() == mirrored


def test_the_best_mask_is_the_mean_of_the_best_masks() -> None:
    logits = torch.zeros(2, 3, 2, 4)
    logits[0, 1, 0, 0], logits[1, 2, 0, 3] = 4.0, 2.0  # one place, seen both ways
    logits[0, 0, 1, 1], logits[1, 0, 1, 1] = 6.0, 6.0  # second best, two places
    iou = torch.tensor([[0.5, 0.8, 0.1], [0.7, 0.2, 0.9]])
    tokens = torch.arange(6.0).reshape(2, 3, 1)
    answer = merged(DecoderOutput(logits, iou, tokens, torch.tensor([[3.0], [1.0]])))
    assert answer.low_res_logits[0, 0].tolist() == [[3.0, 0, 0, 0], [0, 0, 0, 0]]
    assert answer.low_res_logits[0, 1].tolist() == [[0, 0, 0, 0], [0, 3.0, 3.0, 0]]
    assert answer.iou.tolist() == [pytest.approx([0.85, 0.6, 0.15])]
    assert answer.tokens[0, :, 0].tolist() == [1.0, 0.0, 2.0]
    assert answer.object_score.tolist() == [[2.0]]
    assert answer.best().low_res_logits.shape == (1, 1, 2, 4)


@pytest.mark.parametrize("size", [50, 200])  # seen through a crop, and in the whole picture
@pytest.mark.parametrize("by", ["click", "box", "three clicks"])
def test_the_mirror_image_has_the_mirrored_answer(size: int, by: str) -> None:
    image, truth = scene(size)
    x, y = 372, 200
    clicks = (Click(x, y), Click(x + 20, y + 5), Click(x - size, y - 20, positive=False))
    prompts = {
        "click": Prompt(1, clicks=clicks[:1]),
        "three clicks": Prompt(1, clicks=clicks),
        "box": Prompt(1, box=Box(380 - size / 2, 200 - size, 380 + size / 2, 200 + size)),
    }
    prompt = prompts[by]

    def mirrored(prompt: Prompt) -> Prompt:
        box = prompt.box
        flipped = None if box is None else Box(WIDTH - box.x1, box.y0, WIDTH - box.x0, box.y1)
        clicks = tuple(replace(c, x=WIDTH - 2 - c.x) for c in prompt.clicks)
        return replace(prompt, box=flipped, clicks=clicks)

    alike = {}
    for flip_test in (False, True):
        predictor = ImagePredictor(shipped(flip_test))
        here = predictor.predict(predictor.embed(image), prompt)
        there = predictor.predict(
            predictor.embed(np.ascontiguousarray(image[:, ::-1])), mirrored(prompt)
        )
        alike[flip_test] = region_similarity(here.best, there.best[:, ::-1])
        assert here.masks.shape == ((3 if by == "click" else 1), HEIGHT, WIDTH)
        assert region_similarity(here.best, truth) > 0.5
    assert alike[True] > 0.97 and alike[True] >= alike[False]


def test_a_track_begins_as_the_picture_is_answered() -> None:
    image, truth = scene(50)
    frames = Frames.open([image, image])
    prompt = Prompt(1, 0, clicks=(Click(372, 200), Click(392, 205)))
    answers = {}
    for flip_test in (False, True):
        tracker = VideoTracker(shipped(False), frames, TrackerSettings(flip_test=flip_test))
        answer = tracker.add_prompt(prompt)
        tracker.close()
        assert answer is not None
        answers[flip_test] = answer
    predictor = ImagePredictor(shipped(True))
    seen = predictor.predict(predictor.embed(image), prompt).best
    assert region_similarity(answers[True].mask, seen) > 0.95
    assert region_similarity(answers[True].mask, truth) > 0.8
    assert not torch.equal(answers[True].low_res_logits, answers[False].low_res_logits)
