"""The weights that ship segment and follow rendered objects, on media with known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rendered_scenes import Mask, picture, truth, write_movie
from shipped_quality import RENDERED_BOX_IOU, RENDERED_CLICK_IOU, RENDERED_TRACK_IOU

from edgetam_label.checkpoints import load_model
from edgetam_label.frames import Frames
from edgetam_label.masks import mask_to_box
from edgetam_label.modeling import EdgeTAM
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import VideoTracker

FRAMES = 20


@pytest.fixture(scope="module")
def model() -> EdgeTAM:
    return load_model("edgetam_nano", device="cpu")


def iou(found: Mask, real: Mask) -> float:
    return float((found & real).sum() / (found | real).sum())


def around(mask: Mask) -> Box:
    box = mask_to_box(mask)
    assert box is not None
    return Box(*box)


def centre(mask: Mask) -> Click:
    rows, cols = np.nonzero(mask)
    return Click(float(cols.mean()), float(rows.mean()))


@pytest.mark.parametrize("name", ["disc", "block"])
def test_a_click_and_a_box_find_the_object(model: EdgeTAM, name: str) -> None:
    predictor, real = ImagePredictor(model), truth(0)[name]
    embedding = predictor.embed(picture(0))
    clicked = predictor.predict(embedding, Prompt(1, 0, clicks=(centre(real),)))
    boxed = predictor.predict(embedding, Prompt(1, 0, box=around(real)))
    assert iou(clicked.masks[clicked.iou.argmax()], real) >= RENDERED_CLICK_IOU
    assert iou(boxed.masks[boxed.iou.argmax()], real) >= RENDERED_BOX_IOU


def test_a_track_stays_on_the_disc(model: EdgeTAM, tmp_path: Path) -> None:
    movie = tmp_path / "movie.mp4"
    write_movie(movie, FRAMES)
    with Frames.open(movie) as frames:
        tracker = VideoTracker(model, frames)
        tracker.add_prompt(Prompt(1, 0, box=around(truth(0)["disc"])))
        scores = [iou(t.mask, truth(t.frame_idx)["disc"]) for t in tracker.propagate(start=0)]
    assert len(scores) == FRAMES
    assert np.mean(scores) >= RENDERED_TRACK_IOU["disc"], scores
