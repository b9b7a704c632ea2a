"""The demo: everything lies where it says, and the numbers are those of the masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from shipped_quality import DEMO_IOU

from edgetam_label.checkpoints import load_model
from edgetam_label.demo import run_demo
from edgetam_label.demo_clip import demo_frames
from edgetam_label.frames import Frames
from edgetam_label.sessions import FrameMask, SessionStore


def test_the_demo_leaves_what_it_names(tmp_path: Path) -> None:
    model = load_model("tiny", device="cpu")
    told: list[str] = []
    for _ in range(2):  # a second run replaces the first
        report = run_demo(tmp_path, model, num_frames=6, width=128, height=72, tell=told.append)
    assert told[0] == "Rendering 6 frames with known truth"
    assert all(path.exists() for path in report.files.values())
    with Frames.open(report.files["overlay"]) as overlay:
        assert (len(overlay), overlay.width, overlay.height) == (6, 128, 72)
    with SessionStore(report.files["database"]) as store:
        assert [item.id for item in store.summaries()] == [report.session_id]
        masks: list[FrameMask] = list(store.iter_masks(report.session_id))
        prompts = store.get(report.session_id).prompts
    assert len(masks) == 2 * 6
    assert [(p.obj_id, len(p.clicks)) for p in prompts] == [(1, 2), (2, 2)]
    _, truth = demo_frames(width=128, height=72, num_frames=6)
    for obj_id, score in enumerate(report.scores, start=1):
        ious = []
        for mask in masks:
            if mask.obj_id == obj_id and mask.frame_idx > 0:
                found, real = mask.rle.decode(), truth[mask.frame_idx] == obj_id
                if (found | real).any():
                    ious.append((found & real).sum() / (found | real).sum())
        assert score.iou == pytest.approx(np.mean(ious)) and score.worst == min(ious)
    assert report.mean_iou == pytest.approx(np.mean([score.iou for score in report.scores]))
    coco = COCO(next(report.files["coco"].rglob("instances*.json")))
    assert {c["name"] for c in coco.loadCats(coco.getCatIds())} == {"dog", "ball"}
    assert json.loads((report.files["ytvos"] / "manifest.json").read_text())
    assert np.asarray(Image.open(report.files["sheet"])).std() > 10


@pytest.mark.slow
def test_the_shipped_model_follows_the_objects(tmp_path: Path) -> None:
    report = run_demo(tmp_path, load_model("edgetam_nano", device="cpu"))
    scores = {score.label: score.iou for score in report.scores}
    assert scores.keys() == DEMO_IOU.keys()
    assert all(scores[label] >= floor for label, floor in DEMO_IOU.items()), scores
