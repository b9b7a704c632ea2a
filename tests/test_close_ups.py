"""Close-ups: small things are answered from a crop around them; on images and in tracks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from tiny_video import tiny_frames, tiny_model

from edgetam_label import load_model
from edgetam_label.close_ups import SeenCloser
from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.frames import Frames
from edgetam_label.masks import Mask
from edgetam_label.modeling import EdgeTAM
from edgetam_label.predictor import ImageEmbedding, ImagePredictor
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker

WIDTH, HEIGHT = 960, 540
FRAME = Crop.whole(WIDTH, HEIGHT)


def picture(x: int, y: int, size: int) -> tuple[np.ndarray, Mask]:
    """A plus sign of `size` pixels on a lawn, and where it is."""
    rng = np.random.default_rng(3)
    lawn = cv2.GaussianBlur(rng.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8), (0, 0), 2)
    image = np.stack([lawn // 3, lawn // 2 + 60, lawn // 4], axis=-1)
    shape = np.zeros((HEIGHT, WIDTH), np.uint8)
    arm = size // 6
    cv2.rectangle(shape, (x - size // 2, y - arm), (x + size // 2, y + arm), 1, -1)
    cv2.rectangle(shape, (x - arm, y - size // 2), (x + arm, y + size // 2), 1, -1)
    image[shape > 0] = (214, 66, 40)
    return image, shape > 0


@cache
def shipped(close_ups: bool, flip_test: bool = True) -> EdgeTAM:
    model = load_model("edgetam_nano", device="cpu")
    model.config = replace(model.config, close_ups=close_ups, flip_test=flip_test)
    return model


def emptied(embedding: ImageEmbedding) -> ImageEmbedding:
    """The same image, nothing looked at yet."""
    assert embedding.closer is not None
    return replace(embedding, closer=SeenCloser(embedding.closer.pixels))


def test_configs_that_ask_for_it() -> None:
    assert ModelConfig.load("edgetam_nano").close_ups
    assert not ModelConfig.load("edgetam").close_ups  # official masks are official


@pytest.mark.parametrize("by", ["click", "box"])
def test_something_small_is_seen_better(by: str) -> None:
    image, truth = picture(700, 120, 44)
    prompt = (
        Prompt(1, clicks=(Click(700, 120),))
        if by == "click"
        else Prompt(1, box=Box(678, 98, 723, 143))
    )
    without, closer = (
        region_similarity(predictor.predict(predictor.embed(image), prompt).best, truth)
        for predictor in (ImagePredictor(shipped(False)), ImagePredictor(shipped(True)))
    )
    assert closer > 0.85 and closer > without


def test_something_large_is_answered_as_ever() -> None:
    image, truth = picture(480, 270, 500)
    click = Prompt(1, clicks=(Click(480, 270),))
    answers = [
        predictor.predict(predictor.embed(image), click)
        for predictor in (ImagePredictor(shipped(False)), ImagePredictor(shipped(True, False)))
    ]
    assert region_similarity(answers[0].best, truth) > 0.8
    assert np.array_equal(answers[0].masks, answers[1].masks)


def test_clicks_mean_the_same_at_once_and_one_by_one() -> None:
    image, _ = picture(300, 300, 60)
    predictor = ImagePredictor(shipped(True))
    clicks = (Click(300, 300), Click(322, 300), Click(350, 340, positive=False), Click(700, 100))
    embedding = predictor.embed(image)
    one_by_one = [
        predictor.predict(embedding, Prompt(1, clicks=clicks[: i + 1])) for i in range(len(clicks))
    ]
    for count, answer in enumerate(one_by_one, start=1):
        at_once = predictor.predict(emptied(embedding), Prompt(1, clicks=clicks[:count]))
        assert np.array_equal(answer.masks, at_once.masks)
        assert np.array_equal(answer.low_res_logits, at_once.low_res_logits)
    assert one_by_one[0].masks.shape[0] == 3 and one_by_one[1].masks.shape[0] == 1
    # a click taken back is answered from before it
    back = predictor.predict(embedding, Prompt(1, clicks=clicks[:1]))
    assert np.array_equal(back.masks, one_by_one[0].masks)


def test_earlier_logits_are_refined_in_a_close_up() -> None:
    image, truth = picture(300, 300, 60)
    predictor = ImagePredictor(shipped(True))
    embedding = predictor.embed(image)
    first = predictor.predict(embedding, Prompt(1, clicks=(Click(300, 300),)))
    side = shipped(True).config.low_res_size
    assert first.low_res_logits.shape == (3, side, side)  # of the whole frame
    more = Prompt(1, clicks=(Click(300, 300), Click(322, 300)))
    logits = first.low_res_logits[first.best_index]
    again = predictor.predict(embedding, more, low_res_logits=logits)
    assert region_similarity(again.best, truth) > 0.85


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(1, clicks=(Click(5, 5, positive=False),)),
        Prompt(1, clicks=(Click(WIDTH, HEIGHT),)),
        Prompt(1, box=Box(-50, -50, 20, 20)),
        Prompt(1, clicks=(Click(300, 300), Click(301, 300)), box=Box(290, 290, 1200, 310)),
    ],
)
def test_odd_prompts_have_answers(prompt: Prompt) -> None:
    image, _ = picture(300, 300, 60)
    predictor = ImagePredictor(shipped(True))
    answer = predictor.predict(predictor.embed(image), prompt)
    assert answer.masks.shape[1:] == (HEIGHT, WIDTH)


def test_what_is_kept_for_an_image_stays_small() -> None:
    image, _ = picture(300, 300, 60)
    predictor = ImagePredictor(shipped(True))
    embedding = predictor.embed(image)
    promised = embedding.num_bytes
    for i in range(12):
        predictor.predict(embedding, Prompt(1, clicks=(Click(60 + 70 * i, 270),)))
    closer = embedding.closer
    assert closer is not None and embedding.num_bytes == promised
    kept = closer.views.num_bytes + closer.looks.num_bytes
    assert kept <= closer.views.max_bytes + closer.looks.max_bytes


def test_a_track_begins_with_the_close_up() -> None:
    image, truth = picture(700, 120, 44)
    frames = Frames.open([image, image])
    click = Prompt(1, 0, clicks=(Click(700, 120),))
    quality = {}
    for closer in (False, True):
        tracker = VideoTracker(shipped(True), frames, TrackerSettings(close_ups=closer))
        answer = tracker.add_prompt(click)
        assert answer is not None
        quality[closer] = region_similarity(answer.mask, truth)
        tracked = list(tracker.propagate())
        assert np.array_equal(tracked[0].mask, answer.mask)  # the person's answer stays
        memory = tracker.memory(1, 0)
        assert memory is not None and memory.low_res_logits.shape == answer.low_res_logits.shape
        assert region_similarity(tracked[1].mask, truth) > 0.5
        tracker.close()
    assert quality[True] > 0.85 and quality[True] > quality[False]


def test_a_correction_in_a_track_is_made_in_a_close_up() -> None:
    image, truth = picture(300, 300, 80)
    frames = Frames.open([image, image, image])
    tracker = VideoTracker(shipped(True), frames)
    tracker.add_prompt(Prompt(1, 0, box=Box(258, 258, 343, 343)))
    list(tracker.propagate())
    fixed = tracker.add_prompt(Prompt(1, 2, clicks=(Click(330, 300),), correction=True))
    assert fixed is not None and region_similarity(fixed.mask, truth) > 0.8
    more = (Click(330, 300), Click(300, 330))
    again = tracker.add_prompt(Prompt(1, 2, clicks=more, correction=True))
    assert again is not None and region_similarity(again.mask, truth) > 0.8
    tracker.close()


def test_a_model_that_does_not_ask_for_it_keeps_no_pixels() -> None:
    predictor = ImagePredictor(tiny_model())
    assert predictor.embed(tiny_frames(1)[0]).closer is None
