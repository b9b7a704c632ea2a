"""Which candidate of a click is best: rated by how they look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_video import tiny_model

from edgetam_label import load_model
from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop
from edgetam_label.errors import CheckpointError, UsageError
from edgetam_label.evaluation.datasets import synthetic_videos
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.mask_rating import describe, rated
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.modeling.mask_rater import FEATURES, MaskRater
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompt_decoding import Look
from edgetam_label.prompts import Click, Prompt
from edgetam_label.state_dicts import load_weights, read_weights, save_weights
from edgetam_label.tracker import VideoTracker
from edgetam_label.training.commands import train
from edgetam_label.training.commands import train_rater as train_rater_command
from edgetam_label.training.prompt_sampling import deepest_point
from edgetam_label.training.rating import Answers, answers_on, joined, taught, train_rater

WIDTH, HEIGHT = 640, 320
WHOLE = Crop.whole(WIDTH, HEIGHT)


def look_with(crop: Crop, *boxes: tuple[int, int, int, int], iou: tuple[float, ...]) -> Look:
    """Candidates that are 4 in boxes of cells (x0, y0, x1, y1) of 80 x 80, -4 elsewhere."""
    logits = torch.full((1, len(boxes), 80, 80), -4.0)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        logits[0, number, y0:y1, x0:x1] = 4.0
    output = DecoderOutput(
        logits, torch.tensor([iou]), torch.zeros(1, len(boxes), 1), torch.tensor([[3.0]])
    )
    return Look(crop, output, logits)


def test_features_say_what_their_names_say() -> None:
    look = look_with(WHOLE, (20, 20, 60, 60), (20, 20, 40, 60), (0, 0, 8, 8), iou=(0.5, 0.7, 0.2))
    look.output.low_res_logits[0, 0, 20:30, 20:60] = 0.5  # a part that it is not sure of
    first = look_with(WHOLE, (20, 20, 40, 60), (0, 0, 80, 80), iou=(0.6, 0.9))
    rows = describe(look, first, Click(240, 160))  # cell (30, 40)
    found = [dict(zip(FEATURES, row.tolist(), strict=True)) for row in rows]
    assert [one["iou"] for one in found] == pytest.approx([0.5, 0.7, 0.2])
    assert {one["object_score"] for one in found} == {3.0}
    assert found[0]["stability_1"] == pytest.approx(0.75) and found[1]["stability_1"] == 1
    assert found[0]["stability_3"] == pytest.approx(0.75)
    assert found[1]["certainty"] == pytest.approx(1 / (1 + np.exp(-4)))
    assert found[0]["certainty"] < found[1]["certainty"]
    assert found[1]["log_area"] == pytest.approx(np.log(800 / 6400 + 1e-4), abs=1e-4)
    assert found[1]["depth"] == pytest.approx(10 / 80, abs=0.01)
    assert found[1]["click_depth_share"] == pytest.approx(1, abs=0.11)
    assert found[2]["click_depth"] == 0 and found[2]["click_depth_share"] == 0
    assert found[1]["click_off_centre"] < 0.02 < found[0]["click_off_centre"]
    assert found[0]["first_agrees"] == pytest.approx(0.25)  # with all of the frame, rated 0.9
    assert found[1]["any_first_agrees"] == 1 and found[1]["first_agrees"] == pytest.approx(0.125)
    assert found[0]["first_iou"] == pytest.approx(0.9) and found[0]["crop_width"] == 1
    assert found[0]["most_alike"] == pytest.approx(0.5) and found[0]["least_alike"] == 0


def test_the_first_look_is_compared_on_the_crop() -> None:
    crop = Crop(160, 80, 480, 240, WIDTH, HEIGHT)
    closer = look_with(crop, (20, 20, 60, 60), iou=(0.5,))
    first = look_with(WHOLE, (30, 30, 50, 50), iou=(0.6,))  # the same place in the frame
    (row,) = describe(closer, first, Click(320, 160))
    found = dict(zip(FEATURES, row.tolist(), strict=True))
    assert found["first_agrees"] > 0.9 and found["crop_width"] == 0.5
    assert found["click_off_centre"] < 0.02


def test_empty_and_full_candidates_are_rated_too() -> None:
    look = look_with(WHOLE, (0, 0, 0, 0), (5, 5, 9, 9), (0, 0, 80, 80), iou=(0.4, 0.3, 0.2))
    rows = describe(look, look, Click(0, 0))
    assert np.abs(rows).max() < 20


def test_a_rater_that_was_never_taught_says_what_the_decoder_says() -> None:
    look = look_with(WHOLE, (20, 20, 60, 60), (20, 20, 40, 60), iou=(0.5, 0.7))
    answer = rated(MaskRater().eval(), look, look, Click(240, 160))
    assert torch.allclose(answer.output.iou, look.output.iou)
    assert answer.output.low_res_logits is look.output.low_res_logits


@pytest.mark.parametrize(("rating", "chosen"), [(0.64, 0), (0.66, 1), (0.5, 0)])
def test_the_choice_of_the_decoder_stands_in_near_ties(rating: float, chosen: int) -> None:
    class Said(MaskRater):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.6, rating, 0.1])

    look = look_with(WHOLE, (20, 20, 60, 60), (20, 20, 40, 60), (0, 0, 9, 9), iou=(0.7, 0.3, 0.6))
    answer = rated(Said(), look, look, Click(240, 160))
    assert answer.best_index == chosen
    assert answer.output.iou[0, 0] == pytest.approx(0.6)
    assert answer.output.iou.max() == pytest.approx(max(0.6, rating) if chosen else 0.6)


def made_up(count: int) -> Answers:
    """Candidates whose IoU is how certain they are, whatever the decoder says."""
    rng = np.random.default_rng(0)
    features = rng.random((count, 3, len(FEATURES)), dtype=np.float32)
    return Answers(features, features[..., FEATURES.index("certainty")], np.ones(count, bool))


def test_a_rater_learns_what_good_masks_look_like() -> None:
    answers = made_up(400)
    rater = taught(answers, seed=1)
    best = float(answers.ious.max(axis=1).mean())
    assert answers.chosen(MaskRater()).mean() < best - 0.15
    assert answers.chosen(rater).mean() > best - 0.02
    again = taught(answers, seed=1)
    for one, other in zip(rater.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_configs_that_ask_for_it() -> None:
    assert ModelConfig.load("edgetam_nano").mask_rating
    assert not ModelConfig.load("edgetam").mask_rating  # official masks are official
    assert tiny_model().mask_rater is None


def test_checkpoints_without_a_rater_still_load(tmp_path: Path) -> None:
    """Those that were fine-tuned before there was one; a part of one is a damaged file."""
    with_rater = tiny_model(mask_rating=True)
    assert with_rater.mask_rater is not None
    save_weights(tmp_path / "old.pt", tiny_model(), with_rater.config)
    model = load_model(tmp_path / "old.pt", device="cpu")
    assert model.mask_rater is not None
    assert not model.mask_rater.layers[-1].weight.any()

    weights = read_weights(tmp_path / "old.pt")
    part = {**weights.state, "mask_rater.mean": torch.zeros(len(FEATURES))}
    with pytest.raises(CheckpointError, match="mask_rater"):
        load_weights(EdgeTAM(with_rater.config), replace(weights, state=part))
    save_weights(tmp_path / "new.pt", with_rater, with_rater.config)
    with pytest.raises(CheckpointError, match="unexpected"):
        load_weights(EdgeTAM(tiny_model().config), read_weights(tmp_path / "new.pt"))


def shipped(mask_rating: bool) -> EdgeTAM:
    model = load_model("edgetam_nano", device="cpu")
    if not mask_rating:
        model.mask_rater = None
    return model


def test_a_click_is_answered_with_what_is_rated_best_on_images_and_in_tracks() -> None:
    video = synthetic_videos(1, num_frames=1)[0]
    frames = video.frames()
    click = Click(*deepest_point(next(iter(video.masks(0).values()))))
    model = shipped(True)
    predictor = ImagePredictor(model)
    embedding = predictor.embed(frames[0])
    prompt = Prompt(1, 0, clicks=(click,))
    first, closer = predictor.looks(embedding, prompt)
    assert model.mask_rater is not None
    expected = rated(model.mask_rater, closer, first, click)
    prediction = predictor.predict(embedding, prompt)
    assert prediction.iou == pytest.approx(expected.output.iou[0].numpy(), abs=1e-5)
    assert np.array_equal(prediction.best, expected.masks()[expected.best_index])
    assert prediction.iou != pytest.approx(closer.output.iou[0].numpy(), abs=1e-3)
    tracker = VideoTracker(model, frames)
    tracked = tracker.add_prompt(prompt)
    assert tracked is not None
    assert region_similarity(tracked.mask, prediction.best) > 0.95


def test_a_negative_click_alone_is_left_as_the_decoder_rates_it() -> None:
    image = synthetic_videos(1, num_frames=1)[0].frames()[0]
    prompt = Prompt(1, clicks=(Click(3, 3, positive=False),))
    answers = []
    for mask_rating in (False, True):
        predictor = ImagePredictor(shipped(mask_rating))
        answers.append(predictor.predict(predictor.embed(image), prompt).iou)
    assert np.array_equal(*answers)


def test_the_shipped_rater_chooses_better_than_the_decoder() -> None:
    """On scenes that nothing was taught or chosen by; clicks in the middle and anywhere."""
    model = shipped(True)
    predictor, rng = ImagePredictor(model), np.random.default_rng(0)
    parts = []
    for video in synthetic_videos(30, num_frames=1, seed=77_001):
        masks = list(video.masks(0).values())
        parts.append(answers_on(predictor, video.frames()[0], masks, rng))
    answers = joined(parts)
    assert model.mask_rater is not None
    assert len(answers.ious) > 60
    assert answers.chosen(model.mask_rater).mean() > answers.chosen(MaskRater()).mean()


def test_train_rater_teaches_the_rater_and_nothing_else(tmp_path: Path) -> None:
    base = tmp_path / "base.pt"
    old = shipped(True)
    save_weights(base, old, old.config)
    files = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        result = train_rater(str(base), out, scenes=16, held_out=8, seed=5, processes=processes)
        assert result.checkpoint == out and result.clicks > 16
        assert set(result.before) == set(result.after) == {"middle", "anywhere"}
        assert all(result.best[k] >= result.after[k] for k in result.best)
        files.append(read_weights(out).state)
    taught_weights = load_model(tmp_path / "1.pt", device="cpu").state_dict()
    for key, value in old.state_dict().items():
        same = torch.equal(value.half(), taught_weights[key].half())
        assert same != key.startswith("mask_rater."), key
    for key, value in files[0].items():
        assert torch.allclose(value.float(), files[1][key].float(), atol=1e-3), key


def test_the_command_prints_what_it_gained(tmp_path: Path) -> None:
    out = tmp_path / "nano.pt"
    arguments = ["--base", "edgetam_nano", "--out", str(out), "--processes", "1"]
    done = CliRunner().invoke(train_rater_command, [*arguments, "--scenes", "8", "--held-out", "8"])
    assert done.exit_code == 0, done.output
    assert "in the middle of a thing" in done.output and f"Wrote {out}" in done.output
    load_model(out, device="cpu")


@pytest.mark.slow
def test_training_leaves_the_rater_as_it_is(tmp_path: Path) -> None:
    """No loss reaches it, so neither gradients nor weight decay may."""
    old = shipped(True)
    save_weights(tmp_path / "base.pt", old, old.config)
    stage = "stills,steps=2,batch=1,shrink=0.5,warmup=0"
    arguments = ["--out", str(tmp_path / "run"), "--init", str(tmp_path / "base.pt")]
    alone = ["--device", "cpu", "--workers", "0", "--processes", "1", "--held-out", "0"]
    done = CliRunner().invoke(train, [*arguments, *alone, "--stage", stage])
    assert done.exit_code == 0, done.output
    trained = read_weights(tmp_path / "run" / "model.pt").state
    for key, value in old.state_dict().items():
        if key.startswith("mask_rater."):
            assert torch.equal(trained[key].half(), value.half()), key
    key = "sam_mask_decoder.iou_prediction_head.layers.0.weight"
    assert not torch.equal(trained[key].float(), old.state_dict()[key])


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "tiny.pt"
    save_weights(base, tiny_model(), tiny_model().config)
    with pytest.raises(UsageError, match="mask_rating"):
        train_rater(str(base), tmp_path / "out.pt", scenes=8, held_out=8)
    assert not (tmp_path / "out.pt").exists()
    nano = tmp_path / "nano.pt"
    model = shipped(True)
    save_weights(nano, model, model.config)
    before = nano.read_bytes()
    with pytest.raises(UsageError, match="base itself"):
        train_rater(str(nano), nano, scenes=8, held_out=8)
    with pytest.raises(UsageError, match=r"a file, .* Give another --out\."):
        train_rater(str(nano), base, scenes=8, held_out=8)
    assert nano.read_bytes() == before
