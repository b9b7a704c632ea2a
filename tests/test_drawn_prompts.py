"""Clicks and boxes in the mask prompt: where they are drawn, and who sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_video import tiny_frames, tiny_model

from edgetam_label.config import ModelConfig
from edgetam_label.modeling import drawn_prompts
from edgetam_label.modeling.drawn_prompts import (
    CELL,
    CLICKED,
    IN_BOX,
    OUTSIDE,
    RADIUS,
    draw_boxes,
    draw_prompts,
)
from edgetam_label.modeling.fused import fuse
from edgetam_label.onnx_check import check_onnx
from edgetam_label.onnx_export import export_onnx
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Click, Prompt
from edgetam_label.tracker import VideoTracker
from edgetam_label.training.still_step import decode_all

SIDE = 40
BASE = torch.full((1, 1, SIDE, SIDE), 0.5)


def drawn(*clicks: tuple[float, float, int]) -> torch.Tensor:
    points = torch.tensor([[click[:2] for click in clicks]])
    return draw_prompts(points, torch.tensor([[click[2] for click in clicks]]), BASE)[0, 0]


def test_a_click_is_a_disc_around_it() -> None:
    x, y = 61.0, 30.0
    logits = drawn((x, y, 1))
    centres = (torch.arange(SIDE) + 0.5) * CELL
    distance = ((centres[:, None] - y - 0.5) ** 2 + (centres[None] - x - 0.5) ** 2).sqrt()
    assert torch.equal(logits == CLICKED, distance <= RADIUS)
    assert (logits[distance > RADIUS] == 0.5).all()
    assert (drawn((x, y, 0)) == -CLICKED).sum() == (logits == CLICKED).sum() > 8


def test_a_click_at_the_border_is_drawn_as_far_as_it_is_there() -> None:
    assert 2 <= (drawn((0.0, 0.0, 1)) == CLICKED).sum() < 8


def test_the_last_click_is_on_top() -> None:
    there = (80.0, 80.0)
    for first, last in ((0, 1), (1, 0)):
        logits = drawn((*there, first), (20.0, 20.0, first), (*there, last))
        assert logits[20, 20] == (CLICKED if last else -CLICKED)
        assert logits[5, 5] == (CLICKED if first else -CLICKED)


def test_padding_and_corners_are_no_clicks() -> None:
    assert torch.equal(drawn((80.0, 80.0, -1), (20.0, 20.0, 2), (90.0, 90.0, 3)), BASE[0, 0])


def test_a_box_is_high_inside_and_low_around() -> None:
    points = torch.tensor([[[8.0, 16.0], [31.0, 47.0]], [[3.0, 3.0], [0.0, 0.0]]])
    logits = draw_boxes(points, torch.tensor([[2, 3], [1, -1]]), BASE)
    expected = torch.full((SIDE, SIDE), OUTSIDE)
    expected[4:12, 2:8] = IN_BOX  # pixels 16 to 47 and 8 to 31, whole cells
    assert torch.equal(logits[0, 0], expected)
    assert torch.equal(logits[1], BASE[0])  # no box there


def test_a_box_smaller_than_a_cell_is_one_cell() -> None:
    points = torch.tensor([[[9.0, 9.0], [10.0, 10.0]]])
    logits = draw_boxes(points, torch.tensor([[2, 3]]), BASE)[0, 0]
    assert (logits == IN_BOX).nonzero().tolist() == [[2, 2]]


def test_only_models_whose_config_says_so_draw_them() -> None:
    assert ModelConfig.load("edgetam_nano").drawn_prompts
    assert not ModelConfig.load("edgetam").drawn_prompts  # official masks are official
    encoder = tiny_model().sam_prompt_encoder
    points, labels = torch.tensor([[[40.0, 40.0]]]), torch.tensor([[1]])
    for mask in (None, torch.randn(1, 1, 32, 32)):
        plain = encoder.embed_mask(mask, 1)
        assert torch.equal(encoder.embed_dense(points, labels, mask), plain)


@torch.no_grad()
def test_what_is_not_near_a_click_is_as_without_a_mask() -> None:
    model = tiny_model(drawn_prompts=True)
    encoder = model.sam_prompt_encoder
    none = encoder.embed_mask(None, 1)
    points = torch.tensor([[[40.0, 40.0]]])
    assert torch.allclose(encoder.embed_dense(points, torch.tensor([[-1]]), None), none, atol=1e-6)
    change = (encoder.embed_dense(points, torch.tensor([[1]]), None) - none).abs().amax(dim=1)[0]
    reached = (change > 1e-5).nonzero()
    assert len(reached) and (reached - 2).abs().max() <= 1  # cells of 16 pixels


@torch.no_grad()
def test_a_correction_is_drawn_over_the_mask() -> None:
    model = tiny_model(drawn_prompts=True)
    encoder, mask = model.sam_prompt_encoder, torch.randn(1, 1, 32, 32)
    points, labels = torch.tensor([[[40.0, 40.0], [90.0, 60.0]]]), torch.tensor([[1, 0]])
    expected = encoder.embed_mask(draw_prompts(points, labels, mask), 1)
    assert torch.equal(encoder.embed_dense(points, labels, mask), expected)
    assert not torch.allclose(expected, encoder.embed_mask(mask, 1))


@torch.no_grad()
def test_rows_of_a_batch_do_not_meet() -> None:
    """Clicks, boxes and padding beside each other, with masks for some rows, as in training."""
    model = tiny_model(drawn_prompts=True)
    features = model.encode_image(torch.randn(1, 3, 128, 128)).top.expand(3, -1, -1, -1)
    high_res = tuple(
        x.expand(3, -1, -1, -1) for x in model.encode_image(torch.randn(1, 3, 128, 128)).high_res
    )
    points = torch.tensor(
        [[[40.0, 40.0], [0.0, 0.0]], [[20.0, 30.0], [90.0, 70.0]], [[64.0, 9.0], [70.0, 80.0]]]
    )
    labels = torch.tensor([[1, -1], [2, 3], [1, 0]])
    masks, masked = torch.randn(3, 1, 32, 32), torch.tensor([False, False, True])
    given = (points, labels, masks, masked)
    whole = decode_all(model, features, high_res, *given)
    for row in range(3):
        one = slice(row, row + 1)
        alone = decode_all(
            model, features[one], (high_res[0][one], high_res[1][one]), *(x[one] for x in given)
        )
        assert torch.allclose(whole.low_res_logits[one], alone.low_res_logits, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mask", [False, True])
def test_fused_is_the_same(mask: bool) -> None:
    model = tiny_model(drawn_prompts=True)
    features = model.encode_image(torch.randn(1, 3, 128, 128))
    points, labels = torch.tensor([[[20.0, 30.0], [90.0, 70.0]]]), torch.tensor([[2, 3]])
    logits = torch.randn(1, 1, 32, 32) if mask else None
    a, b = (
        m.decode_masks(features.top, features.high_res, points, labels, logits, multimask=False)
        for m in (model, fuse(model))
    )
    assert torch.allclose(a.low_res_logits, b.low_res_logits, rtol=1e-3, atol=1e-3)


def test_images_and_tracks_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """One way in: both draw what is clicked, and a second click is drawn over the first answer."""
    bases: list[float] = []
    draw = drawn_prompts.draw_prompts

    def seen(points: torch.Tensor, labels: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        bases.append(float(base.abs().max()))
        return draw(points, labels, base)

    monkeypatch.setattr("edgetam_label.modeling.prompt_encoder.draw_prompts", seen)
    model, frames = tiny_model(drawn_prompts=True), tiny_frames()
    one, two = (Click(20, 30),), (Click(20, 30), Click(60, 40, positive=False))
    predictor = ImagePredictor(model)
    embedding = predictor.embed(frames[0])
    first = predictor.predict(embedding, Prompt(1, clicks=one))
    predictor.predict(
        embedding, Prompt(1, clicks=two), low_res_logits=first.low_res_logits[first.best_index]
    )
    tracker = VideoTracker(model, frames)
    for clicks in (one, two):
        tracker.add_prompt(Prompt(1, 0, clicks=clicks))
    assert bases[0] == bases[2] == 0 and len(bases) == 4
    assert 0 < bases[1] == pytest.approx(bases[3], rel=0.1)


@pytest.mark.slow
def test_an_exported_model_draws_too(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    model = tiny_model(drawn_prompts=True)
    bundle = export_onnx(model, tmp_path / "files")
    check_onnx(model, bundle.folder, width=240, height=136).require()
    other = tiny_model()
    other.load_state_dict(model.state_dict())
    assert not check_onnx(other, bundle.folder, width=240, height=136).passed
