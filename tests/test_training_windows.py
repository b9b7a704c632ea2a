"""Training windows: crops that follow an object, and what is seen of one crop from another."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop, seen_from
from edgetam_label.training.clip_step import ClipWalk, clip_loss
from edgetam_label.training.clips import Clip
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.losses import LossWeights
from edgetam_label.training.samples import SampleSpec, SampleStream, collate
from edgetam_label.training.windows import (
    as_shares,
    following_windows,
    from_shares,
    random_window,
)

HEIGHT, WIDTH = 120, 200


class Drifting:
    """A bright square that drifts to the right over a pattern."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Clip:
        rng = np.random.default_rng(0)
        ground = rng.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        frames = np.repeat(ground[None], 8, axis=0)
        ids = np.zeros((8, HEIGHT, WIDTH), np.uint8)
        for t in range(8):
            left = 20 + 6 * t
            frames[t, 50:70, left : left + 20] = (250, 200, 120)
            ids[t, 50:70, left : left + 20] = 1
        return Clip(frames, ids, None, 1)


def test_random_windows_lie_inside_and_are_no_closer_than_told() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        crop = random_window(WIDTH, HEIGHT, 0.5, rng)
        assert 0 <= crop.x0 < crop.x1 <= WIDTH and 0 <= crop.y0 < crop.y1 <= HEIGHT
        assert crop.width >= 0.5 * WIDTH - 1 and crop.height >= 0.5 * HEIGHT - 1


def test_windows_follow_the_object() -> None:
    clip = Drifting()[0]
    masks = clip.ids == 1
    held, closer = [], []
    for seed in range(20):
        crops = following_windows(masks, clip.frames, np.random.default_rng(seed))
        assert len(crops) == len(masks)
        for crop, mask in zip(crops, masks, strict=True):
            held.append(crop.cut(mask).sum() / mask.sum())
            closer.append(not crop.is_whole)
    assert np.mean(held) > 0.95  # boxes are wrong at times, so not always all of it
    assert np.mean(closer) > 0.5


def test_windows_of_what_disappears_grow() -> None:
    clip = Drifting()[0]
    masks = clip.ids == 1
    masks[3:] = False
    crops = following_windows(masks, clip.frames, np.random.default_rng(0))
    widths = [crop.width for crop in crops[3:]]
    assert widths == sorted(widths) and widths[-1] > widths[0]


def test_shares_say_the_same_of_a_frame_of_any_size() -> None:
    crop = Crop(20, 30, 120, 90, WIDTH, HEIGHT)
    x0, y0, x1, y1 = as_shares([crop])[0].tolist()
    assert (x0, y0, x1, y1) == pytest.approx((0.1, 0.25, 0.6, 0.75))
    again = from_shares((x0, y0, x1, y1))
    assert again.width == pytest.approx(0.5) and not again.is_whole


def test_one_crop_seen_from_another() -> None:
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))
    whole, part = Crop.whole(WIDTH, HEIGHT), Crop(50, 30, 150, 90, WIDTH, HEIGHT)
    closer = seen_from(ramp, whole, part, (WIDTH, HEIGHT))
    assert closer.shape == ramp.shape
    assert closer[60, 0] == pytest.approx(50, abs=1) and closer[60, -1] == pytest.approx(150, abs=1)
    back = seen_from(closer, part, whole, (WIDTH, HEIGHT))
    assert np.abs(back[40:80, 60:140].astype(int) - ramp[40:80, 60:140]).max() <= 1
    assert back[60, 0] == pytest.approx(50, abs=1)  # outside of what was seen: its edge


def test_samples_say_where_their_frames_were_cut() -> None:
    still = SampleStream(Drifting(), SampleSpec(64, 4, 1, part_share=0.0), seed=0)[0]
    assert still.windows.shape == (4, 4) and (still.windows == still.windows[0]).all()
    spec = SampleSpec(64, 4, 1, part_share=0.0, follow_share=1.0)
    stream = SampleStream(Drifting(), spec, seed=0)
    following = [stream[i] for i in range(8)]
    assert any((sample.windows != sample.windows[0]).any() for sample in following)
    for sample in following:  # the object is found where the window says
        assert sample.targets[0, 0].any()
    batch = collate(following[:2])
    assert batch.windows.shape == (2, 4, 4)


def test_a_mask_is_carried_between_different_crops() -> None:
    clip = Drifting()[0]
    config = replace(ModelConfig.load("tiny"), flow_prompt=True)
    model = new_model(config)
    size = config.image_size
    spec = SampleSpec(size, 2, 1, part_share=0.0)
    batch = collate([SampleStream(Drifting(), spec, seed=0)[0]])
    whole, part = Crop.whole(WIDTH, HEIGHT), Crop(0, 30, 100, 90, WIDTH, HEIGHT)
    pictures = [
        cv2.resize(crop.cut(clip.frames[0]), (size, size), interpolation=cv2.INTER_AREA)
        for crop in (part, whole)
    ]
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[None]
    batch = replace(batch, frames=frames, windows=torch.from_numpy(as_shares([part, whole]))[None])
    walk = ClipWalk(model, batch, np.random.default_rng(0))
    logits = torch.full((1, 1, size // 4, size // 4), -8.0)
    # the square takes the middle fifth to two fifths of the part's width, a third of its height
    mask = cv2.resize(part.cut((clip.ids[0] == 1).astype(np.uint8)), (size // 4, size // 4))
    logits[0, 0][torch.from_numpy(mask > 0)] = 8.0
    walk.newest = logits
    carried = walk._carried(1)[0][0, 0] > 0
    expected = cv2.resize((clip.ids[0] == 1).astype(np.float32), (size // 4, size // 4),
                          interpolation=cv2.INTER_AREA) > 0.5  # fmt: skip
    overlap = (carried.numpy() & expected).sum() / (carried.numpy() | expected).sum()
    assert overlap > 0.4  # a handful of cells


def test_a_step_on_following_windows_has_gradients() -> None:
    config = replace(ModelConfig.load("tiny"), flow_prompt=True)
    model = new_model(config)
    spec = SampleSpec(config.image_size, 3, 1, part_share=0.0, follow_share=1.0)
    stream = SampleStream(Drifting(), spec, seed=3)
    batch = collate([stream[0], stream[1]])
    result = clip_loss(model, batch, np.random.default_rng(0), LossWeights())
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(result.loss)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool(g.abs().sum() > 0) for g in gradients)
