"""Of a mask asked for by clicks, the parts that were clicked; on images and in tracks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny_video import tiny_frames, tiny_model

from edgetam_label.clicked_parts import STRAY_LOGIT, keep_clicked_parts
from edgetam_label.config import ModelConfig
from edgetam_label.edges import refine_edges
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker

WIDTH, HEIGHT = 320, 160  # the frame; logits are 80 x 80 of it


def logits_with(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """(1, 1, 80, 80): 4 in boxes of cells (x0, y0, x1, y1), -4 elsewhere."""
    logits = torch.full((1, 1, 80, 80), -4.0)
    for x0, y0, x1, y1 in boxes:
        logits[..., y0:y1, x0:x1] = 4.0
    return logits


LEFT, RIGHT = (5, 10, 25, 30), (45, 50, 70, 75)
IN_LEFT, IN_RIGHT = Click(60, 40), Click(232, 120)


def kept_of(
    logits: torch.Tensor, *clicks: Click, previous: torch.Tensor | None = None
) -> torch.Tensor:
    return keep_clicked_parts(logits, logits, clicks, WIDTH, HEIGHT, previous)


def test_only_the_clicked_part_is_kept() -> None:
    both = logits_with(LEFT, RIGHT)
    kept = kept_of(both, IN_LEFT)
    assert torch.equal(kept > 0, logits_with(LEFT) > 0)
    assert kept[0, 0, 60, 60] == STRAY_LOGIT
    assert torch.equal(kept_of(both, IN_RIGHT) > 0, logits_with(RIGHT) > 0)
    assert both[0, 0, 60, 60] == 4  # what was given is as it was


def test_every_clicked_part_is_kept() -> None:
    both = logits_with(LEFT, RIGHT)
    assert kept_of(both, IN_LEFT, IN_RIGHT) is both


def test_a_negative_click_means_no_part() -> None:
    both = logits_with(LEFT, RIGHT)
    kept = kept_of(both, IN_LEFT, replace(IN_RIGHT, positive=False))
    assert torch.equal(kept > 0, logits_with(LEFT) > 0)


def test_nothing_clicked_leaves_all() -> None:
    """The network answered beside the click; half of that answer would be no better."""
    both = logits_with(LEFT, RIGHT)
    assert kept_of(both, Click(160, 2)) is both
    assert kept_of(both, replace(IN_LEFT, positive=False)) is both
    empty = logits_with()
    assert kept_of(empty, IN_LEFT) is empty


def test_parts_of_a_corrected_mask_are_meant() -> None:
    """Both halves of a thing behind a post were tracked: a click on one does not cost the other."""
    third = (60, 5, 75, 15)
    logits = logits_with(LEFT, RIGHT, third)
    kept = kept_of(logits, IN_LEFT, previous=logits_with((50, 55, 60, 60)))
    assert torch.equal(kept > 0, logits_with(LEFT, RIGHT) > 0)


def test_each_candidate_has_parts_of_its_own() -> None:
    logits = torch.cat([logits_with(LEFT, RIGHT), logits_with(RIGHT), logits_with(LEFT)], dim=1)
    kept = kept_of(logits, IN_LEFT)
    assert torch.equal(kept[:, :1] > 0, logits_with(LEFT) > 0)
    assert torch.equal(kept[:, 1:], logits[:, 1:])


@pytest.mark.parametrize("click", [Click(0, 0), Click(319.9, 159.9)])
def test_corners_are_cells(click: Click) -> None:
    """A click on the last pixel is in the last cell, not beside the grid."""
    corners = logits_with((0, 0, 4, 4), (76, 76, 80, 80))
    kept = kept_of(corners, click) > 0
    assert kept.sum() == 16 and kept[0, 0, -1, -1] == (click.x > 0)


def test_parts_are_those_of_the_drawn_mask() -> None:
    """Cells join two things that the picture parts: the edge filter sees the gap, and so do we."""
    logits = logits_with((10, 10, 37, 40), (43, 10, 70, 40))
    logits[..., 24:26, 37:43] = 0.2
    picture = np.full((320, 320, 3), 30, np.uint8)
    cv2.rectangle(picture, (40, 40), (147, 159), (230, 230, 230), -1)
    cv2.rectangle(picture, (172, 40), (279, 159), (230, 230, 230), -1)
    assert kept_of(logits, IN_LEFT) is logits  # one part of cells
    drawn = refine_edges(logits, picture)
    kept = keep_clicked_parts(logits, drawn, (IN_LEFT,), WIDTH, HEIGHT)
    assert (kept[0, 0, 15:35, 15:30] > 0).all()
    assert (kept[0, 0, 15:35, 50:65] < 0).all()


def test_configs_that_ask_for_it() -> None:
    assert ModelConfig.load("edgetam_nano").clicked_parts
    assert not ModelConfig.load("edgetam").clicked_parts  # official masks are official


# With weights by seed, these clicks on the first tiny frame have an answer in many parts.
CLICKS = (Click(30, 10), Click(80, 50, positive=False))


def parts_of(mask: np.ndarray) -> int:
    return int(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0]) - 1


def test_an_image_answers_with_the_clicked_part() -> None:
    frame = tiny_frames(1)[0]
    plain, kept = (
        predictor.predict(predictor.embed(frame), Prompt(1, clicks=CLICKS))
        for predictor in (ImagePredictor(tiny_model(clicked_parts=on)) for on in (False, True))
    )
    assert parts_of(plain.best) > 50 and plain.best[10, 30]
    assert parts_of(kept.best) < 5 and kept.best[10, 30]
    assert not (kept.best & ~plain.best).any()
    assert np.array_equal(plain.iou, kept.iou)
    assert (kept.low_res_logits <= plain.low_res_logits).all()  # the next click builds on it


def test_a_track_begins_with_the_clicked_part() -> None:
    """Shown, remembered and tracked on: the same mask."""
    frames = tiny_frames(2)
    answers = {}
    for name, model, settings in (
        ("plain", tiny_model(), TrackerSettings()),
        ("kept", tiny_model(clicked_parts=True), TrackerSettings()),
        ("off", tiny_model(clicked_parts=True), TrackerSettings(clicked_parts=False)),
        ("on", tiny_model(), TrackerSettings(clicked_parts=True)),
    ):
        tracker = VideoTracker(model, frames, settings)
        answer = tracker.add_prompt(Prompt(1, 0, clicks=CLICKS))
        assert answer is not None
        memory = tracker.memory(1, 0)
        assert memory is not None
        shown = answer.low_res_logits.clamp(-32, 32).half()
        assert torch.equal(memory.low_res_logits, shown)
        answers[name] = answer.mask
    assert np.array_equal(answers["plain"], answers["off"])
    assert np.array_equal(answers["kept"], answers["on"])
    assert answers["kept"].sum() < answers["plain"].sum()
    assert answers["kept"][10, 30]


def test_a_box_keeps_all_parts() -> None:
    frame = tiny_frames(1)[0]
    prompt = Prompt(1, clicks=CLICKS, box=Box(2, 2, 94, 62))
    plain, kept = (
        predictor.predict(predictor.embed(frame), prompt).best
        for predictor in (ImagePredictor(tiny_model(clicked_parts=on)) for on in (False, True))
    )
    assert np.array_equal(plain, kept)
