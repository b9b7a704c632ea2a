"""How a tracked mask and the one before are fused: pixel by pixel, as learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_video import tiny_frames, tiny_images, tiny_model

from edgetam_label import load_model
from edgetam_label.config import ModelConfig
from edgetam_label.errors import CheckpointError, ConfigError, UsageError
from edgetam_label.evaluation.datasets import synthetic_videos
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.evaluation.video_protocols import carry_by_model
from edgetam_label.finding import Fusion
from edgetam_label.learned_fusion import Sight, fuse_as_learned
from edgetam_label.masks import RLE
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.mask_fuser import STRIDE, MaskFuser
from edgetam_label.prompts import Prompt
from edgetam_label.state_dicts import load_weights, read_weights, save_weights
from edgetam_label.tracker import TrackedFrame, TrackerSettings, VideoTracker
from edgetam_label.training import fusing
from edgetam_label.training.clips import Clip
from edgetam_label.training.commands import train
from edgetam_label.training.commands import train_fuser as train_fuser_command
from edgetam_label.training.fusing import Sample, measured, samples_of_clip, taught, train_fuser

SIDE = 64
FUSED = {"flow_prompt": True, "refine_edges": True, "fuse_flow": True}


def sight(answer: np.ndarray, moved: np.ndarray, picture: np.ndarray | None = None) -> Sight:
    """Masks bool (SIDE, SIDE), as sure of themselves as can be; logits to match."""

    def logits(mask: np.ndarray) -> np.ndarray:
        return np.where(mask[::4, ::4], 4, -4).astype(np.float32)

    return Sight(
        np.zeros((SIDE, SIDE, 3), np.uint8) if picture is None else picture,
        answer.astype(np.uint8) * 255,
        moved.astype(np.uint8) * 255,
        np.ones((SIDE, SIDE), np.float32),
        logits(answer),
        logits(moved),
        np.zeros((SIDE // 4, SIDE // 4), np.float32),
        0.7,
        0.7,
        5.0,
        0.5,
    )


def box(x0: int, y0: int, x1: int, y1: int, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def tracked_by(model: EdgeTAM, settings: TrackerSettings | None = None) -> list[TrackedFrame]:
    mask = np.zeros((64, 96), bool)
    mask[20:44, 8:32] = True
    tracker = VideoTracker(model, tiny_frames(6), settings)
    tracker.add_prompt(Prompt(1, 0, mask=RLE.encode(mask)))
    return list(tracker.propagate())


def test_a_fuser_that_was_never_taught_follows_the_rule() -> None:
    model = tiny_model(**FUSED, learned_fusion=True)
    assert model.mask_fuser is not None and not model.mask_fuser.is_taught
    untaught = tracked_by(model)
    by_rule = tracked_by(model, TrackerSettings(learned_fusion=False))
    for one, other in zip(untaught, by_rule, strict=True):
        assert (one.mask != other.mask).mean() < 0.002
        assert abs(one.score - other.score) < 0.05


def test_what_it_says_is_done_to_the_shares_and_then_to_the_mask() -> None:
    class Said(MaskFuser):
        def forward(
            self, fine: torch.Tensor, coarse: torch.Tensor, whole: torch.Tensor
        ) -> torch.Tensor:
            changes = torch.zeros(1, 2, *fine.shape[-2:])
            changes[:, 0] = 20  # the moved mask is right
            changes[:, 1, :, :24] = -20  # but not there
            return changes

    left, right = box(4, 8, 40, 48), box(12, 8, 60, 48)
    half = np.full((SIDE, SIDE), 0.5, np.float32)
    fused = fuse_as_learned(Said().eval(), sight(left, right), half)
    expected = right.copy()
    expected[:, :24] = False
    assert np.array_equal(fused.drawn > 127, expected)
    assert (fused.share > 0.99).all() and (fused.correction[:, 30:] == 0).all()
    assert (half == 0.5).all()  # the caller's own array is left alone


@pytest.mark.parametrize(
    ("answer", "moved"),
    [
        (box(30, 30, 34, 34), box(0, 0, 0, 0)),
        (box(0, 0, 3, 3), box(40, 20, 50, 30)),
        (box(0, 0, SIDE, SIDE), box(10, 10, 20, 20)),
    ],
)
def test_the_window_holds_both_masks(answer: np.ndarray, moved: np.ndarray) -> None:
    window = sight(answer, moved).window()
    assert window is not None
    for span in window:
        assert span.start % STRIDE == span.stop % STRIDE == 0
        assert 0 <= span.start < span.stop <= SIDE
    inside = np.zeros((SIDE, SIDE), bool)
    inside[window] = True
    assert inside[answer | moved].all()
    fine, coarse, whole = sight(answer, moved).inputs(*window)
    assert fine.shape[-1] == 4 * coarse.shape[-1] and fine.abs().max() <= 1
    assert MaskFuser()(fine, coarse, whole).shape[-2:] == fine.shape[-2:]


def test_nothing_is_looked_at_where_there_is_no_mask() -> None:
    nothing = sight(box(0, 0, 0, 0), box(0, 0, 0, 0))
    assert nothing.window() is None
    fused = fuse_as_learned(MaskFuser(), nothing, np.full((SIDE, SIDE), 0.5, np.float32))
    assert not fused.drawn.any() and not fused.correction.any()


def made_up(count: int, side: int = SIDE) -> list[bytes]:
    """Two boxes, of which the one on red is right."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(count):
        (x, y), (u, v) = rng.integers(0, side - 30, (2, 2))
        answer, moved = box(x, y, x + 24, y + 20, side), box(u, v, u + 20, v + 24, side)
        truth = (answer, moved)[number % 2]
        picture = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
        picture[truth, 0] = 200
        half = np.full((side, side), 0.5, np.float32)
        seen = sight(answer, moved, picture)
        samples.append(Sample(seen, half, truth.astype(np.uint8) * 255).packed())
    return samples


def test_a_fuser_learns_which_mask_is_right_from_the_picture() -> None:
    samples = made_up(200)
    seen, unseen = samples[:160], samples[160:]
    fuser = taught(MaskFuser(), seen, seed=1, steps=60)
    assert fuser.is_taught
    before, after = measured(MaskFuser(), unseen), measured(fuser, unseen)
    assert before["answer"] == after["answer"] and before["moved"] == after["moved"]
    assert after["fused"] > 0.8 > before["fused"] + 0.1
    again = taught(MaskFuser(), seen, seed=1, steps=2)
    same = taught(MaskFuser(), seen, seed=1, steps=2)
    for one, other in zip(again.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_samples_come_out_as_they_went_in() -> None:
    seen = sight(box(3, 4, 30, 40), box(5, 4, 33, 40))
    seen = replace(seen, trust=np.full((SIDE, SIDE), 0.4, np.float32), predicted_iou=0.81)
    share = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    sample = Sample(seen, share, box(0, 0, 9, 9).astype(np.uint8) * 255)
    back = Sample.unpacked(sample.packed())
    assert np.array_equal(back.truth, sample.truth)
    assert np.abs(back.share - share).max() < 1e-4
    for name, value in vars(seen).items():
        assert np.allclose(getattr(back.sight, name), value, atol=2e-3), name


def test_every_object_is_followed_from_where_it_is_first_seen() -> None:
    frames = np.stack(tiny_images(8))
    ids = np.zeros(frames.shape[:3], np.uint8)
    for t in range(8):
        ids[t, 20:44, 8 + 3 * t : 32 + 3 * t] = 4
        ids[t, 50:60, 60:80] = 7 if t > 2 else 0
    clip = Clip(frames, ids, np.zeros_like(ids), 7)
    told: list[Fusion] = []
    model = tiny_model(**FUSED, learned_fusion=True)
    samples = samples_of_clip(model, clip, np.random.default_rng(0))
    tracker = VideoTracker(model, tiny_frames(8), on_fusion=told.append)
    tracker.add_prompt(Prompt(4, 0, mask=RLE.encode(ids[0] == 4)))
    assert len(list(tracker.propagate())) == 8
    assert {one.obj_id for one in told} == {4}
    assert [one.frame_idx for one in told] == list(range(1, len(told) + 1))
    assert 0 < len(samples) < len(told) + 5
    truths = [Sample.unpacked(sample).truth for sample in samples]
    assert all(truth.any() for truth in truths)


def test_a_video_without_anything_to_follow_gives_no_samples() -> None:
    frames = np.stack(tiny_images(3))
    nothing = np.zeros(frames.shape[:3], np.uint8)
    model = tiny_model(**FUSED, learned_fusion=True)
    clip = Clip(frames, nothing, nothing, 0)
    assert samples_of_clip(model, clip, np.random.default_rng(0)) == []
    assert measured(MaskFuser(), []) == {"fused": 0, "answer": 0, "moved": 0}


def test_configs_that_ask_for_it() -> None:
    assert ModelConfig.load("edgetam_nano").learned_fusion
    assert not ModelConfig.load("edgetam").learned_fusion  # official tracks are official
    with pytest.raises(ConfigError, match="learned_fusion"):
        replace(ModelConfig.load("tiny"), learned_fusion=True)


def test_checkpoints_without_a_fuser_still_load(tmp_path: Path) -> None:
    """Those that were fine-tuned before there was one; a part of one is a damaged file."""
    without, with_fuser = tiny_model(**FUSED), tiny_model(**FUSED, learned_fusion=True)
    save_weights(tmp_path / "old.pt", without, with_fuser.config)
    model = load_model(tmp_path / "old.pt", device="cpu")
    assert model.mask_fuser is not None and not model.mask_fuser.is_taught
    weights = read_weights(tmp_path / "old.pt")
    part = {**weights.state, "mask_fuser.head.bias": torch.zeros(8)}
    with pytest.raises(CheckpointError, match="mask_fuser"):
        load_weights(EdgeTAM(with_fuser.config), replace(weights, state=part))


@pytest.mark.slow
def test_the_shipped_fuser_tracks_better_than_the_rule_on_held_out_clips() -> None:
    model = load_model("edgetam_nano", device="cpu")
    assert model.mask_fuser is not None and model.mask_fuser.is_taught
    ious: dict[bool, list[float]] = {True: [], False: []}
    for learned in ious:
        if not learned:
            model.mask_fuser = None
        for video in synthetic_videos(4, num_frames=12, seed=77_003):
            for frame_idx, masks in carry_by_model(model)(video, video.first_seen):
                truth = video.masks(frame_idx)
                ious[learned] += [
                    region_similarity(masks[k], truth[k]) for k in truth if k in masks
                ]
    assert len(ious[True]) == len(ious[False]) > 60
    assert np.mean(ious[True]) > np.mean(ious[False]) + 0.005


@pytest.fixture
def small_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent asks its processes for."""
    monkeypatch.setattr(fusing, "FRAMES", 5)
    monkeypatch.setattr(fusing, "SIZE", (96, 160))
    monkeypatch.setattr(fusing, "LARGER", (128, 192))


def test_train_fuser_teaches_the_fuser_and_nothing_else(tmp_path: Path, small_clips: None) -> None:
    base = tmp_path / "base.pt"
    old = tiny_model(**FUSED, learned_fusion=True)
    save_weights(base, old, old.config)
    files = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        result = train_fuser(
            str(base), out, scenes=2, held_out=2, steps=3, seed=5, processes=processes
        )
        assert result.checkpoint == out and result.samples > 4
        assert 0 <= min(result.before, result.after, result.answer, result.moved)
        files.append(read_weights(out).state)
    for key, value in old.state_dict().items():
        same = torch.equal(value.half(), files[0][key].half())
        assert same != key.startswith("mask_fuser."), key
    for key, value in files[0].items():
        assert torch.allclose(value.float(), files[1][key].float(), atol=1e-2), key


def test_the_command_prints_what_it_gained_and_goes_on_from_a_taught_fuser(
    tmp_path: Path, small_clips: None
) -> None:
    base, out, further = (tmp_path / name for name in ("base.pt", "out.pt", "further.pt"))
    old = tiny_model(**FUSED, learned_fusion=True)
    save_weights(base, old, old.config)
    arguments = ["--processes", "1", "--scenes", "4", "--held-out", "4", "--steps", "2"]
    for one, other in ((base, out), (out, further)):
        given = ["--base", str(one), "--out", str(other), *arguments]
        done = CliRunner().invoke(train_fuser_command, given)
        assert done.exit_code == 0, done.output
        assert "fused as learned" in done.output and f"Wrote {other}" in done.output
    states = [read_weights(path).state["mask_fuser.stem.weight"].float() for path in (out, further)]
    assert 0 < (states[0] - states[1]).abs().max() < 0.05


@pytest.mark.slow
def test_training_leaves_the_fuser_as_it_is(tmp_path: Path) -> None:
    """No loss reaches it, so neither gradients nor weight decay may."""
    old = load_model("edgetam_nano", device="cpu")
    save_weights(tmp_path / "base.pt", old, old.config)
    stage = "clips,steps=2,batch=1,objects=1,frames=2-2,warmup=0"
    arguments = ["--out", str(tmp_path / "run"), "--init", str(tmp_path / "base.pt")]
    alone = ["--device", "cpu", "--workers", "0", "--processes", "1", "--held-out", "0"]
    done = CliRunner().invoke(train, [*arguments, *alone, "--stage", stage])
    assert done.exit_code == 0, done.output
    trained = read_weights(tmp_path / "run" / "model.pt").state
    keys = [key for key in trained if key.startswith("mask_fuser.")]
    assert len(keys) > 20
    for key in keys:
        assert torch.equal(trained[key].half(), old.state_dict()[key].half()), key


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "tiny.pt"
    save_weights(base, tiny_model(), tiny_model().config)
    with pytest.raises(UsageError, match="learned_fusion = true"):
        train_fuser(str(base), tmp_path / "out.pt", scenes=8, held_out=8)
    assert not (tmp_path / "out.pt").exists()
    with pytest.raises(UsageError, match="base itself"):
        train_fuser(str(base), base, scenes=8, held_out=8)
