"""A clicked pixel is on its side of the mask, on images and in tracks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_video import tiny_frames, tiny_model

from edgetam_label import load_model
from edgetam_label.config import ModelConfig
from edgetam_label.evaluation.click_protocol import clicks_of_model
from edgetam_label.evaluation.datasets import synthetic_videos
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.honoured_clicks import honour_clicks
from edgetam_label.masks import Mask
from edgetam_label.modeling import EdgeTAM
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker
from edgetam_label.training.prompt_sampling import POSITIVE, corrective_click, deepest_point

WIDTH, HEIGHT = 640, 320  # the frame; logits are 80 x 80 of it, masks are drawn at 320 x 320


def shown(drawn: torch.Tensor) -> Mask:
    """The mask as it reaches the frame."""
    large = cv2.resize(drawn[0, 0].numpy(), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0, dtype=bool)


def left_half() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and a drawn mask of all that is left of x = 320."""
    logits = torch.full((1, 1, 80, 80), -5.0)
    logits[..., :40] = 5.0
    drawn = torch.full((1, 1, 320, 320), -0.5)
    drawn[..., :160] = 0.5
    return logits, drawn


def striped(colour: tuple[int, int, int] = (200, 40, 40)) -> np.ndarray:
    """Red up to x = 360 of 640 and grey beyond: the mask of `left_half` is 40 pixels short."""
    picture = np.full((320, 320, 3), 120, np.uint8)
    picture[:, :180] = colour
    return picture


def test_a_click_beside_the_mask_takes_what_looks_like_it() -> None:
    logits, drawn = left_half()
    click = Click(340, 100)
    new, now = honour_clicks(logits, drawn, [click], WIDTH, HEIGHT, striped())
    mask = shown(now)
    assert mask[100, 340] and mask[100, 356] and mask[80, 345]
    assert not mask[:, 364:].any()  # grey
    assert not mask[250, 340]  # red, and out of reach
    assert mask[:, :318].all()
    assert new[0, 0, 25, 42] > 0 and new[0, 0, 25, 46] < 0  # what the next click builds on
    assert logits[0, 0, 25, 42] == -5 and drawn[0, 0, 100, 170] == -0.5  # as they were


def test_a_negative_click_takes_it_away() -> None:
    logits, drawn = left_half()
    picture = striped((120, 120, 120))
    picture[:, 140:160] = (20, 20, 200)  # a blue strip, x = 280 to 320, that is not the object
    click = Click(300, 100, positive=False)
    _, now = honour_clicks(logits, drawn, [click], WIDTH, HEIGHT, picture)
    mask = shown(now)
    assert not mask[100, 300] and not mask[100, 285] and mask[100, 270] and mask[250, 300]


def test_honoured_clicks_change_nothing() -> None:
    logits, drawn = left_half()
    clicks = [Click(100, 100), Click(500, 100, positive=False)]
    new, now = honour_clicks(logits, drawn, clicks, WIDTH, HEIGHT, striped())
    assert new is logits and now is drawn


def test_far_from_the_mask_the_reach_is_bounded() -> None:
    """A click on empty ground of one colour does not paint all of it."""
    logits, drawn = torch.full((1, 1, 80, 80), -5.0), torch.full((1, 1, 320, 320), -0.5)
    ground = striped((120, 120, 120))
    _, now = honour_clicks(logits, drawn, [Click(320, 160)], WIDTH, HEIGHT, ground)
    assert now[0, 0, 160, 160] > 0
    assert (now > 0).float().mean() < 0.06


def test_other_clicks_keep_their_side() -> None:
    logits, drawn = left_half()
    clicks = [Click(352, 100, positive=False), Click(340, 100)]
    _, now = honour_clicks(logits, drawn, clicks, WIDTH, HEIGHT, striped())
    mask = shown(now)
    assert mask[100, 340] and not mask[100, 352]


def test_of_two_clicks_on_one_pixel_the_later_counts() -> None:
    logits, drawn = left_half()
    for last in (True, False):
        clicks = [Click(340, 100, positive=not last), Click(340, 100, positive=last)]
        _, now = honour_clicks(logits, drawn, clicks, WIDTH, HEIGHT, striped())
        assert bool(shown(now)[100, 340]) == last


@pytest.mark.parametrize("x", [0, 1, 319, 320, 638, 639])
@pytest.mark.parametrize("y", [0, 161, 319])
def test_every_pixel_can_be_clicked(x: int, y: int) -> None:
    """Also on the frame's rim, and where the mask is coarser than the frame."""
    for positive in (True, False):
        logits, drawn = left_half()
        _, now = honour_clicks(logits, drawn, [Click(x, y, positive)], WIDTH, HEIGHT, striped())
        assert bool(shown(now)[y, x]) == positive
        only, same = honour_clicks(logits, logits, [Click(x, y, positive)], WIDTH, HEIGHT, None)
        assert only is same and bool(shown(only)[y, x]) == positive


def test_each_candidate_is_corrected() -> None:
    logits, drawn = left_half()
    pair, drawn_pair = torch.cat([logits, -logits], 1), torch.cat([drawn, -drawn], 1)
    new, now = honour_clicks(pair, drawn_pair, [Click(340, 100)], WIDTH, HEIGHT, striped())
    assert now[0, 0, 100, 170] > 0
    assert torch.equal(now[0, 1], drawn_pair[0, 1]) and torch.equal(new[0, 1], pair[0, 1])


def test_configs_that_ask_for_it() -> None:
    assert ModelConfig.load("edgetam_nano").honour_clicks
    assert not ModelConfig.load("edgetam").honour_clicks  # official masks are official


def shipped(honour_clicks: bool) -> EdgeTAM:
    model = load_model("edgetam_nano", device="cpu")
    model.config = replace(model.config, honour_clicks=honour_clicks)
    return model


def corrected(model: EdgeTAM) -> tuple[int, int, float]:
    """Of five clicks each on some objects: how many, how many are honoured, mIoU at the end."""
    predictor, ious, total, right = ImagePredictor(model), [], 0, 0
    for video in synthetic_videos(6, num_frames=1):
        image = video.frames()[0]
        embedding = predictor.embed(image)
        for truth in video.masks(0).values():
            clicks: tuple[Click, ...] = (Click(*deepest_point(truth)),)
            for _ in range(5):
                mask = predictor.predict(embedding, Prompt(1, clicks=clicks)).best
                found = corrective_click(mask, truth)
                if found is None:
                    break
                if len(clicks) < 5:
                    clicks = (*clicks, Click(found[0], found[1], found[2] == POSITIVE))
            total += len(clicks)
            right += sum(bool(mask[int(c.y), int(c.x)]) == c.positive for c in clicks)
            ious.append(region_similarity(mask, truth))
    return total, right, float(np.mean(ious))


def test_the_shipped_model_honours_all_clicks_and_is_better_for_it() -> None:
    """Without it many of the clicks that correct something have no effect where they are."""
    total, right, before = corrected(shipped(False))
    assert right < 0.9 * total
    total, right, after = corrected(shipped(True))
    assert right == total
    assert after > before


def test_a_track_honours_clicks_and_corrections() -> None:
    """Also where a hole that is clicked would be filled."""
    frames = tiny_frames(3)
    clicks = (Click(30, 10), Click(80, 50, positive=False), Click(31, 14, positive=False))
    for honours in (False, True):
        model = tiny_model(honour_clicks=honours, refine_edges=True)
        tracker = VideoTracker(model, frames, TrackerSettings(fill_hole_area=400))
        first = tracker.add_prompt(Prompt(1, 0, clicks=clicks))
        tracked = {t.frame_idx: t for t in tracker.propagate(start=0)}
        later = tracked[2].mask
        wrong = Click(50, 30, positive=not later[30, 50])
        second = tracker.add_prompt(Prompt(1, 2, clicks=(wrong,)))
        assert first is not None and second is not None
        right = [bool(first.mask[int(c.y), int(c.x)]) == c.positive for c in clicks]
        right.append(bool(second.mask[30, 50]) == wrong.positive)
        assert all(right) == honours


def test_the_click_protocol_runs_without_it_too() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[20:40, 30:60] = 200
    truth = np.zeros((64, 96), bool)
    truth[20:40, 30:60] = True
    for honours in (False, True):
        result = clicks_of_model(shipped(honours))(image, [truth])
        assert len(result) == 1 and len(result[0].by_clicks) == 5
