"""A model trained with it is shown the mask of the frame before, moved along the optical flow."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rendered_scenes import iou, picture, truth
from tiny_video import in_pieces, same_tracks, start_anew, tiny_frames, tiny_model

from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.flow import FlowBetween, carry, grey_picture
from edgetam_label.masks import Mask
from edgetam_label.modeling.fused import fuse
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker
from edgetam_label.training.synthetic import SyntheticClips

OBJECTS = (Prompt(1, 0, clicks=(Click(20, 32),)), Prompt(2, 0, box=Box(8, 20, 32, 44)))


def tracker(flow_prompt: bool | None = True, **settings: int) -> VideoTracker:
    chosen = TrackerSettings(flow_prompt=flow_prompt, **settings)  # type: ignore[arg-type]
    found = VideoTracker(tiny_model(), tiny_frames(12), chosen)
    for prompt in OBJECTS:
        found.add_prompt(prompt)
    return found


def test_the_config_decides_unless_the_settings_do() -> None:
    plain = list(tracker(False).propagate())
    guided = list(tracker(True).propagate())
    assert not same_tracks(plain, guided)
    assert same_tracks(plain, list(tracker(None).propagate()))
    asked = VideoTracker(tiny_model(flow_prompt=True), tiny_frames(12))
    for prompt in OBJECTS:
        asked.add_prompt(prompt)
    assert same_tracks(guided, list(asked.propagate()))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_pass_in_pieces_equals_a_whole_one(direction: str) -> None:
    whole, pieces = (start_anew(tracker(), OBJECTS, direction) for _ in range(2))
    expected = list(whole.propagate(direction=direction))
    assert same_tracks(in_pieces(pieces, direction), expected)


def test_it_goes_with_skipped_frames() -> None:
    tracked = list(tracker(every=3).propagate())
    assert len(tracked) == 24


def test_an_absent_object_is_looked_for_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tracker()
    model = found.model
    decode, given = model.decode_masks, []

    def gone(*args: object, **options: object) -> object:
        given.append((options.get("mask_logits") is not None, options["multimask"]))
        output = decode(*args, **options)  # type: ignore[arg-type]
        return replace(output, object_score=torch.full_like(output.object_score, -1.0))

    monkeypatch.setattr(model, "decode_masks", gone)
    tracked = list(found.propagate(objects=[1], max_frames=4))
    assert [t.absent for t in tracked] == [False, True, True, True]
    assert given == [(True, False), (False, True), (False, True)]


def test_the_moved_mask_is_where_the_object_went() -> None:
    flow = FlowBetween()(grey_picture(picture(5)), grey_picture(picture(0)))
    stayed, expected = (cv2.resize(np.float32(truth(t)["disc"]), (80, 80)) for t in (0, 5))
    moved = carry(torch.from_numpy(20 * stayed - 10)[None, None], flow)[0, 0].numpy()
    assert iou(moved > 0, expected > 0.5) > 0.9
    assert iou(stayed > 0.5, expected > 0.5) < 0.75


def test_the_fused_model_agrees_with_the_readable_one() -> None:
    model = tiny_model()
    features = model.encode_image(torch.randn(1, 3, 128, 128))
    mask = torch.randn(1, 1, 32, 32) * 5
    ours, theirs = (
        m.decode_masks(features.top, features.high_res, mask_logits=mask, multimask=False)
        for m in (model, fuse(model))
    )
    assert torch.allclose(ours.low_res_logits, theirs.low_res_logits, atol=1e-4)


def test_masks_arrive_better_than_by_the_preset_flow() -> None:
    """True masks of small and large things, moved over one frame."""
    preset = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    between = FlowBetween()
    ours, theirs = [], []
    for index in range(6):
        clip = SyntheticClips(11, (216, 384), 6, "heldout")[index]
        size = clip.ids.shape[2], clip.ids.shape[1]
        for t in range(1, len(clip.frames)):
            now, before = (grey_picture(clip.frames[i]) for i in (t, t - 1))
            coarse = [
                cv2.resize(g, (320, 320), interpolation=cv2.INTER_AREA) for g in (now, before)
            ]
            flows = between(now, before), preset.calc(*coarse, None)  # type: ignore[call-overload]
            for number in range(1, clip.num_objects + 1):
                was, is_now = clip.mask(number, t - 1), clip.mask(number, t)
                if min(was.sum(), is_now.sum()) < 40:
                    continue
                for flow, found in zip(flows, (ours, theirs), strict=True):
                    found.append(region_similarity(pulled(was, flow, size), is_now))
    assert len(ours) > 60
    assert np.mean(ours) > np.mean(theirs) + 0.01


def pulled(mask: NDArray[np.bool_], flow: NDArray[np.float32], size: tuple[int, int]) -> Mask:
    """A mask moved along a flow of any size."""
    scale = np.array(size, np.float32) / np.array(flow.shape[1::-1], np.float32)
    steps = cv2.resize(flow, size) * scale
    x, y = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in size])
    moved = cv2.remap(
        mask.astype(np.float32), x + steps[..., 0], y + steps[..., 1], cv2.INTER_LINEAR
    )
    return np.asarray(moved > 0.5)
