"""Tracked masks are the network's answer and the mask before, moved along the flow, together."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from rendered_scenes import iou
from tiny_video import HEIGHT, WIDTH, in_pieces, same_tracks, start_anew, tiny_frames, tiny_model

from edgetam_label import flow
from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop, Located
from edgetam_label.flow import FlowCarrier
from edgetam_label.fusion import KEPT, drawn_logits, drawn_mask, filled, fuse_with_flow
from edgetam_label.masks import RLE, Mask
from edgetam_label.modeling import ObjectMask
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker

SIDE = 64
OBJECTS = (Prompt(1, 0, clicks=(Click(20, 32),)), Prompt(2, 0, box=Box(8, 20, 32, 44)))


def tracker(fuse: bool | None = True, **settings: int) -> VideoTracker:
    chosen = TrackerSettings(fuse_flow=fuse, **settings)  # type: ignore[arg-type]
    found = VideoTracker(tiny_model(), tiny_frames(12), chosen)
    for prompt in OBJECTS:
        found.add_prompt(prompt)
    return found


def square(t: int) -> Mask:
    """Where the square of `tiny_images` is on frame t."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:44, 8 + 3 * t : 32 + 3 * t] = True
    return mask


def located(drawn: np.ndarray, iou: float, score: float = 5.0) -> Located:
    side = drawn.shape[0] // 4
    logits = torch.from_numpy((drawn[::4, ::4].astype(np.float32) / 255 - 0.5) * 16).reshape(
        1, 1, side, side
    )
    mask = ObjectMask(logits, torch.tensor([[iou]]), torch.tensor([[score]]), torch.zeros(1, 8))
    return Located(mask, Crop.whole(WIDTH, HEIGHT), drawn)


def half(left: bool) -> np.ndarray:
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    drawn[:, : SIDE // 2] = 255
    return drawn if left else drawn[:, ::-1].copy()


def test_the_config_decides_unless_the_settings_do() -> None:
    assert not ModelConfig.load("edgetam").fuse_flow  # official tracks are official
    assert ModelConfig.load("edgetam_nano").fuse_flow
    alone, fused = list(tracker(False).propagate()), list(tracker(True).propagate())
    assert not same_tracks(alone, fused)
    assert same_tracks(alone, list(tracker(None).propagate()))
    asked = VideoTracker(tiny_model(fuse_flow=True), tiny_frames(12))
    for prompt in OBJECTS:
        asked.add_prompt(prompt)
    assert same_tracks(fused, list(asked.propagate()))


def test_the_surer_one_decides() -> None:
    left, right = half(True), half(False)
    for seen, expected, winner in ((0.9, 0.5, left), (0.5, 0.9, right), (0.2, 0.6, right)):
        fused = fuse_with_flow(located(left, seen), located(right, expected))
        assert fused.drawn is not None
        assert np.array_equal(fused.drawn > 127, winner > 127)
        assert np.array_equal((fused.mask.low_res_logits[0, 0] > 0).numpy(), winner[::4, ::4] > 127)
        assert min(seen, expected) < float(fused.mask.iou) < max(seen, expected)
    assert np.array_equal(fuse_with_flow(located(left, 0.7), located(left, 0.7)).drawn, left)


def test_nobody_decides_alone_however_sure() -> None:
    fused = fuse_with_flow(located(half(True), 0.9), located(half(False), 1.0))
    assert fused.drawn is not None and 0 < fused.drawn[0, 0] < 127


def test_two_unsure_masks_may_agree_where_neither_is_whole() -> None:
    """A pixel is in when the weighted mean says so."""
    faint = np.full((SIDE, SIDE), 140, np.uint8)
    fused = fuse_with_flow(located(faint, 0.5), located(np.full_like(faint, 100), 0.5))
    assert fused.drawn is not None and int(fused.drawn[3, 3]) == 120


def test_where_the_flow_is_not_trusted_the_network_decides() -> None:
    trust = np.ones((SIDE, SIDE), np.float32)
    trust[: SIDE // 2] = 0
    answer, moved = located(half(True), 0.5), located(half(False), 0.9)
    fused = fuse_with_flow(answer, moved, trust)
    assert fused.drawn is not None
    assert np.array_equal(fused.drawn[: SIDE // 2], half(True)[: SIDE // 2])
    assert np.array_equal(fused.drawn[SIDE // 2 :] > 127, half(False)[SIDE // 2 :] > 127)
    assert 0.5 < float(fused.mask.iou) < float(fuse_with_flow(answer, moved).mask.iou)


def test_something_new_in_the_picture_is_not_explained_by_the_flow() -> None:
    rng = np.random.default_rng(0)
    before = np.kron(rng.integers(0, 255, (40, 40)), np.ones((8, 8))).astype(np.uint8)
    now = before.copy()
    now[100:160, 100:160] = rng.integers(0, 255, (60, 60))
    before, now = (cv2.resize(grey, (flow.SIDE, flow.SIDE)) for grey in (before, now))
    carrier, whole = FlowCarrier(), Crop.whole(320, 320)
    carrier.arrive(before)
    carrier.show(1, replace(located(half(True), 1.0), crop=whole))
    carrier.arrive(now)
    assert (carrier.trust(whole, 320) == 1).all()  # nobody has asked for the flow
    assert carrier.carried(1, whole) is not None
    trust = carrier.trust(whole, 320)
    assert trust[110:150, 110:150].mean() < 0.3 < 0.9 < trust[200:].mean()
    part = carrier.trust(Crop(100, 100, 160, 160, 320, 320), 60)
    assert part[10:50, 10:50].mean() < 0.3


def test_a_moved_mask_is_trusted_less_with_every_frame() -> None:
    carrier = FlowCarrier()
    grey = np.zeros((flow.SIDE, flow.SIDE), np.uint8)
    carrier.arrive(grey)
    carrier.show(1, located(half(True), 1.0))
    for frame in range(1, 4):
        carrier.arrive(grey)
        moved = carrier.carried(1, Crop.whole(WIDTH, HEIGHT))
        assert moved is not None and moved.drawn is not None
        assert float(moved.mask.iou) == pytest.approx(KEPT**frame)
        assert np.array_equal(moved.drawn > 127, half(True) > 127)
        carrier.show(1, moved)


def test_a_thing_of_few_cells_is_carried_as_finely_as_it_was_drawn() -> None:
    """Two pixels wide, and less than a cell of the logits' grid."""
    thin = np.zeros((HEIGHT, WIDTH), dtype=bool)
    thin[20:44, 18:20] = True
    found = VideoTracker(tiny_model(), tiny_frames(3), TrackerSettings(fuse_flow=True))
    found.add_prompt(Prompt(1, 0, mask=RLE.encode(thin)))
    memory = found.memory(1, 0)
    assert memory is not None
    crop = memory.located().crop
    drawn = drawn_mask(thin, crop, tiny_model().config.image_size)
    again = crop.mask(torch.from_numpy(drawn.astype(np.float32) - 127.5)[None, None])
    assert iou(again, thin) > 0.9


def test_drawn_masks_are_of_their_crop() -> None:
    crop = Crop(8, 20, 32, 44, WIDTH, HEIGHT)
    inside = drawn_mask(square(0), crop, 48)
    assert (inside > 127).all() and (inside[1:-1, 1:-1] == 255).all()
    assert drawn_mask(square(0), Crop(32, 20, 56, 44, WIDTH, HEIGHT), 48)[:, 1:].max() < 5
    whole = drawn_mask(square(0), Crop.whole(WIDTH, HEIGHT), 16)  # smaller than the frame
    share = 24 * 24 / (HEIGHT * WIDTH)
    assert whole.mean() / 255 == pytest.approx(share, rel=0.05)


def test_holes_are_filled_up_to_their_area() -> None:
    drawn = np.full((SIDE, SIDE), 255, np.uint8)
    drawn[10:13, 10:13] = 0
    drawn[30:40, 30:40] = 0
    mended = filled(drawn, 9)
    assert (mended[10:13, 10:13] > 127).all() and (mended[30:40, 30:40] == 0).all()
    assert filled(drawn, 0) is drawn


def test_logits_become_probabilities() -> None:
    assert (drawn_logits(torch.full((1, 1, 4, 4), 20.0), 16) == 255).all()
    assert (drawn_logits(torch.zeros(1, 1, 4, 4), 16) == 128).all()


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_pass_in_pieces_equals_a_whole_one(direction: str) -> None:
    whole, pieces = (start_anew(tracker(), OBJECTS, direction) for _ in range(2))
    expected = list(whole.propagate(direction=direction))
    assert same_tracks(in_pieces(pieces, direction), expected)


def test_a_correction_is_carried_on_as_the_person_drew_it() -> None:
    """What follows a drawn mask is near it, whatever the network had said before."""
    found = tracker()
    list(found.propagate())
    found.add_prompt(Prompt(1, 5, mask=RLE.encode(square(5))))
    after = {t.frame_idx: t.mask for t in found.propagate(6, objects=[1])}
    assert iou(after[6], square(6)) > 0.85


def test_masks_and_logits_say_the_same() -> None:
    for tracked in tracker().propagate():
        assert (tracked.drawn is None) == (tracked.prompted or tracked.absent)
        if tracked.drawn is not None:
            assert iou(tracked.logits() > 0, tracked.mask) > 0.97


def test_it_goes_with_skipped_frames() -> None:
    assert len(list(tracker(every=3).propagate())) == 24
