"""Masks that follow the edges of the picture: the guided filter and where it is used."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_video import tiny_frames, tiny_model

from edgetam_label.config import ModelConfig
from edgetam_label.edges import EVENNESS, _Windows, refine_edges
from edgetam_label.masks import RLE
from edgetam_label.predictor import ImagePredictor
from edgetam_label.preprocess import frame_to_input, input_to_picture, logits_to_mask
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker


def disc(size, x, y, radius):
    rows, columns = np.mgrid[:size, :size]
    return np.hypot(columns - x, rows - y) < radius


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def picture_of(mask, grey=False):
    """A blue thing on an orange ground, with noise; or the same in shades of grey."""
    colours = np.where(mask[..., None], (60, 90, 190), (200, 140, 70)).astype(float)
    noisy = colours + np.random.default_rng(0).normal(0, 6, colours.shape)
    noisy = noisy[..., :1].repeat(3, axis=-1) if grey else noisy
    return noisy.clip(0, 255).astype(np.uint8)


def coarse(mask, cells, dx=0):
    """Logits on a grid of `cells`, as a network would answer: soft, and dx pixels off."""
    size = mask.shape[0]
    moved = np.roll(mask, dx, axis=1).astype(np.float32)
    share = moved.reshape(cells, size // cells, cells, size // cells).mean(axis=(1, 3))
    return torch.from_numpy((share - 0.5) * 8)[None, None]


def test_filter_is_the_one_of_the_paper():
    """Pixel by pixel and window by window, as equations 19 to 21 are written."""
    rng = np.random.default_rng(3)
    colours = rng.random((9, 11, 3))
    noise = rng.random((9, 11))
    values = colours @ np.array([0.5, -0.3, 0.6]) + 0.2 * noise
    padded = np.pad(colours, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
    targets = np.pad(values, 4, mode="symmetric")
    lines = np.dstack(_Windows.of(colours, 2).lines(values))
    slopes, offsets = np.zeros((13, 15, 3)), np.zeros((13, 15))
    for y in range(13):
        for x in range(15):
            window = padded[y : y + 5, x : x + 5].reshape(-1, 3)
            aim = targets[y : y + 5, x : x + 5].reshape(-1)
            covariance = np.cov(window.T, bias=True) + EVENNESS * np.eye(3)
            shared = (window * aim[:, None]).mean(0) - window.mean(0) * aim.mean()
            slopes[y, x] = np.linalg.solve(covariance, shared)
            offsets[y, x] = aim.mean() - slopes[y, x] @ window.mean(0)
    for y in range(2, 7):  # where no window of a window reaches over the border
        for x in range(2, 9):
            a = slopes[y : y + 5, x : x + 5].reshape(-1, 3).mean(0)
            expected = a @ colours[y, x] + offsets[y : y + 5, x : x + 5].mean()
            assert (lines[y, x, :3] * colours[y, x]).sum() + lines[y, x, 3] == pytest.approx(
                expected, abs=1e-9
            )


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("dx", [0, 3, -3])
def test_mask_moves_to_the_edge(dx, grey):
    truth = disc(320, 150, 170, 40)
    logits = coarse(truth, 80, dx)
    before = logits_to_mask(logits, 320, 320)
    after = logits_to_mask(refine_edges(logits, picture_of(truth, grey)), 320, 320)
    assert iou(after, truth) > 0.97
    assert iou(after, truth) > iou(before, truth)


def test_no_edge_no_change():
    """On an even ground there is nothing to follow; the mask stays where the network drew it."""
    truth = disc(320, 150, 170, 40)
    logits = coarse(truth, 80)
    even = np.full((320, 320, 3), 128, dtype=np.uint8)
    before, after = (logits_to_mask(x, 320, 320) for x in (logits, refine_edges(logits, even)))
    assert iou(before, after) > 0.99


@pytest.mark.parametrize("radius", [4, 6, 9])
def test_a_small_thing_without_edges_is_not_lost(radius):
    truth = disc(320, 150, 170, radius)
    even = np.full((320, 320, 3), 128, dtype=np.uint8)
    after = logits_to_mask(refine_edges(coarse(truth, 80), even), 320, 320)
    before = logits_to_mask(coarse(truth, 80), 320, 320)
    assert iou(before, after) > 0.8


def test_only_the_part_around_the_mask_is_computed():
    """A small mask in a large picture is the same as with everything else cut away."""
    truth = disc(320, 150, 170, 12)
    picture = picture_of(truth)
    whole = refine_edges(coarse(truth, 80), picture)
    other = picture.copy()
    other[:, 230:] = 0
    other[:90] = 255
    assert torch.equal(whole, refine_edges(coarse(truth, 80), other))


def test_several_masks_are_each_as_if_alone():
    """Three candidates share what is known of the colours and nothing else."""
    discs = [disc(320, 150, 170, 40), disc(320, 160, 170, 15), np.zeros((320, 320), dtype=bool)]
    picture = picture_of(discs[0])
    logits = torch.cat([coarse(one, 80) for one in discs], dim=1)
    together = refine_edges(logits, picture)
    alone = torch.cat([refine_edges(logits[:, i : i + 1], picture) for i in range(3)], dim=1)
    assert together.shape == (1, 3, 320, 320)
    assert torch.equal(together > 0, alone > 0)
    assert (together - alone).abs().max() < 0.02 and not (together[0, 2] > 0).any()


@pytest.mark.parametrize("value", [-30.0, 30.0])
def test_nothing_and_everything(value):
    picture = picture_of(disc(320, 160, 160, 50))
    refined = refine_edges(torch.full((1, 1, 80, 80), value), picture)
    assert bool((refined > 0).all()) == (value > 0)
    assert bool((refined > 0).any()) == (value > 0)


def test_picture_of_the_input():
    frame = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen = frame_to_input(frame, 64, torch.device("cpu"))
    assert np.array_equal(input_to_picture(seen), frame)


def test_config_key():
    assert ModelConfig.load("edgetam_nano").refine_edges
    assert not ModelConfig.load("edgetam").refine_edges
    plain = ModelConfig.load("tiny")
    assert replace(plain, refine_edges=True).sha256 != plain.sha256


def expected_mask(low_res_logits, frame):
    picture = input_to_picture(frame_to_input(frame, 128, torch.device("cpu")))
    return logits_to_mask(refine_edges(low_res_logits, picture), *frame.shape[:2])


@pytest.mark.parametrize("every", [1, 3])
def test_tracked_masks_are_refined(every):
    frames = tiny_frames(8)
    tracker = VideoTracker(tiny_model(refine_edges=True), frames, TrackerSettings(every=every))
    answer = tracker.add_prompt(Prompt(1, 2, box=Box(8, 20, 32, 44)))
    tracked = list(tracker.propagate())
    assert np.array_equal(answer.mask, tracked[0].mask)  # a click shows what is kept
    assert any(not t.absent for t in tracked[1:])
    for t in tracked:
        if not t.absent:
            expected = expected_mask(t.low_res_logits, frames[t.frame_idx])
            assert np.array_equal(t.mask, expected)


def test_what_is_remembered_is_not_refined():
    frames = tiny_frames(6)
    logits = []
    for refines in (False, True):
        tracker = VideoTracker(tiny_model(refine_edges=refines), frames)
        tracker.add_prompt(Prompt(1, 0, box=Box(8, 20, 32, 44)))
        logits.append([t.low_res_logits for t in tracker.propagate()])
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))


def test_settings_overrule_the_config():
    frames = tiny_frames(4)
    masks = []
    for model, settings in (
        (tiny_model(), TrackerSettings()),
        (tiny_model(refine_edges=True), TrackerSettings(refine_edges=False)),
        (tiny_model(), TrackerSettings(refine_edges=True)),
    ):
        tracker = VideoTracker(model, frames, settings)
        tracker.add_prompt(Prompt(1, 0, box=Box(8, 20, 32, 44)))
        masks.append([t.mask for t in tracker.propagate()])
    plain, off, on = (np.stack(m) for m in masks)
    assert np.array_equal(plain, off) and not np.array_equal(plain, on)


def test_a_drawn_mask_is_kept_to_the_pixel():
    frames = tiny_frames(3)
    drawn = np.zeros((frames.height, frames.width), dtype=bool)
    drawn[20:44, 8:32] = True
    prompt = Prompt(1, 0, mask=RLE.encode(drawn))
    plain, refined = (
        VideoTracker(tiny_model(refine_edges=refines), frames).add_prompt(prompt).mask
        for refines in (False, True)
    )
    assert np.array_equal(refined, drawn)
    assert (plain & drawn).sum() / (plain | drawn).sum() > 0.9  # of the grid, as upstream


def test_image_masks_are_refined():
    frame = tiny_frames(1)[0]
    for refines in (False, True):
        predictor = ImagePredictor(tiny_model(refine_edges=refines))
        embedding = predictor.embed(frame)
        answer = predictor.predict(embedding, Prompt(1, clicks=(Click(20, 32),)))
        assert (embedding.picture is not None) == refines
        if refines:
            logits = torch.from_numpy(answer.low_res_logits[:, None, None])
            refined = [refine_edges(x, embedding.picture) for x in logits]
            height, width = frame.shape[:2]
            assert all(
                np.array_equal(m, logits_to_mask(x, height, width))
                for m, x in zip(answer.masks, refined, strict=True)
            )
