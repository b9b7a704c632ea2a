"""The trainer: it learns, it resumes to the same weights, it stops when told."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from averaging import Averaging

from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop, Located
from edgetam_label.errors import CheckpointError, UsageError
from edgetam_label.fusion import KEPT, drawn_logits, fuse_with_flow
from edgetam_label.modeling import EdgeTAM, ObjectMask
from edgetam_label.training import trainer as trainer_module
from edgetam_label.training.clip_step import ClipWalk, clip_loss
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.losses import LossWeights
from edgetam_label.training.parallel import run_ranks
from edgetam_label.training.plan import Stage, TrainingPlan
from edgetam_label.training.samples import Batch, SampleSpec, SampleStream, collate
from edgetam_label.training.start import TrainingRun, load_weights, write_checkpoint
from edgetam_label.training.still_step import StepResult, still_loss
from edgetam_label.training.synthetic import SyntheticClips
from edgetam_label.training.trainer import RESUME_FILE, Trainer, TrainingData
from edgetam_label.training.validation import Validator

CONFIG = ModelConfig.load("tiny")
PLAN = TrainingPlan(
    (
        Stage("stills", steps=3, batch=2, objects=2, warmup=1, shrink=0.5),
        Stage("clips", steps=3, batch=1, objects=2, warmup=1, frames=(3, 3), still_share=0.34),
    )
)


def data() -> TrainingData:
    return TrainingData(SyntheticClips(1, 96), SyntheticClips(2, 96, 5))


def trainer(out: Path, **options: object) -> Trainer:
    torch.manual_seed(0)
    return Trainer(new_model(CONFIG), PLAN, data(), out, workers=0, show_progress=False, **options)  # type: ignore[arg-type]


def batch(frames: int) -> object:
    source = SyntheticClips(3, 128, max(1, frames))
    spec = SampleSpec(CONFIG.image_size, num_frames=frames, num_objects=2)
    stream = SampleStream(source, spec, seed=0)
    return collate([stream[0], stream[1]])


@pytest.mark.slow
def test_stills_can_be_learned_by_heart() -> None:
    torch.manual_seed(0)
    model, one = new_model(CONFIG).train(), batch(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        result = still_loss(model, one, np.random.default_rng(5), LossWeights())  # type: ignore[arg-type]
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_gradients_of_clips_reach_the_memory() -> None:
    torch.manual_seed(0)
    model = new_model(CONFIG).train()
    with torch.no_grad():  # the object counts as present, so that its own pointer is used
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    result = clip_loss(model, batch(3), np.random.default_rng(1), LossWeights())  # type: ignore[arg-type]
    result.loss.backward()
    for name in ("memory_attention", "memory_encoder", "spatial_perceiver", "obj_ptr_proj"):
        gradients = [p.grad for p in model.get_submodule(name).parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), name
    assert 0 <= result.metrics["presence"] <= 1


def test_clips_show_the_moved_mask_where_the_config_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    carried = ClipWalk._carried
    monkeypatch.setattr(ClipWalk, "_carried", lambda walk, t: asked.append(t) or carried(walk, t))
    for flow_prompt in (False, True):
        torch.manual_seed(0)
        model = new_model(replace(CONFIG, flow_prompt=flow_prompt)).train()
        result = clip_loss(model, batch(4), np.random.default_rng(1), LossWeights())  # type: ignore[arg-type]
        result.loss.backward()
        assert bool(asked) == flow_prompt


def test_a_mask_moves_with_the_picture() -> None:
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8), (128, 128))
    frames = np.stack([ground, np.roll(ground, 8, axis=1)]).transpose(0, 3, 1, 2)[None]
    batch = Batch(
        torch.from_numpy(frames),
        torch.zeros(1, 1, 2, 64, 64, dtype=torch.uint8),
        torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 2]),
        torch.zeros(1, 1, 1, 2),
        torch.ones(1, 1, 1, dtype=torch.long),
    )
    walk = ClipWalk(new_model(CONFIG), batch, rng)
    walk.newest = torch.full((1, 1, 32, 32), -8.0)
    walk.newest[:, :, 10:20, 10:20] = 8
    moved = walk._carried(1)[0][0, 0] > 0
    assert moved[11:19, 13:21].all() and moved.sum() < 130


def test_frames_of_a_lead_are_walked_but_not_compared() -> None:
    """What is true of them counts for nothing; what the model remembers of them does."""
    torch.manual_seed(0)
    model = new_model(CONFIG).train()
    one = batch(6)
    assert isinstance(one, Batch)
    blank = replace(one, targets=one.targets.clone())
    blank.targets[:, :, :3] = 0
    unlike = replace(one, frames=one.frames.clone())
    unlike.frames[:, :3] = 128

    def loss(given: Batch, lead: int) -> float:
        # this seed prompts by clicks and corrects no frame, both of which would look at the targets
        result = clip_loss(model, given, np.random.default_rng(0), LossWeights(), lead)
        model.zero_grad(set_to_none=True)
        result.loss.backward()
        gradients = [p.grad for p in model.image_encoder.parameters()]
        assert any(g is not None and bool(g.abs().sum() > 0) for g in gradients)
        return result.loss.item()

    assert loss(one, 3) == loss(blank, 3)
    assert loss(one, 0) != loss(blank, 0)
    assert loss(one, 3) != loss(unlike, 3)


def test_training_weighs_the_moved_mask_as_tracking_does() -> None:
    config = replace(CONFIG, fuse_flow=True)
    rng = np.random.default_rng(0)
    one = batch(2)
    assert isinstance(one, Batch)
    walk = ClipWalk(new_model(config), one, rng)
    rows, side = 3, config.image_size // 4
    logits = torch.from_numpy(rng.normal(0, 4, (rows, 1, side, side))).float()
    moved = torch.from_numpy(rng.normal(0, 4, (rows, 1, side, side))).float()
    trust = torch.from_numpy(rng.uniform(0, 1, (rows, 1, side, side))).float()
    iou, score = torch.tensor([[0.9], [0.3], [0.9]]), torch.tensor([[3.0], [2.0], [-1.0]])
    walk.expected = torch.tensor([0.8, 0.95, 0.9])
    answer = ObjectMask(logits, iou, score, torch.zeros(rows, 8))
    fused = walk._fused(answer, moved, trust)
    crop = Crop.whole(side, side)
    for row in (0, 1):
        mine = ObjectMask(logits[row : row + 1], iou[row : row + 1], score[row : row + 1], None)
        expected = walk.expected[row].reshape(1, 1) * KEPT
        there = replace(mine, low_res_logits=moved[row : row + 1], iou=expected)
        wanted = fuse_with_flow(
            Located(mine, crop, drawn_logits(mine.low_res_logits, side)),
            Located(there, crop, drawn_logits(there.low_res_logits, side)),
            trust[row, 0].numpy(),
        ).mask
        # masks are kept in bytes there, which a logarithm enlarges far from the edge
        assert torch.allclose(fused.iou[row], wanted.iou[0], atol=2e-3)
        clear = moved[row].abs() < 3
        assert torch.allclose(
            fused.low_res_logits[row][clear], wanted.low_res_logits[0][clear], atol=0.1
        )
    assert torch.equal(fused.low_res_logits[2], logits[2])  # absent: nothing to keep


@pytest.mark.slow
def test_a_run_with_a_lead(tmp_path: Path) -> None:
    stage = Stage("clips", steps=3, batch=1, objects=2, warmup=1, frames=(3, 3), lead=2)
    asked: list[tuple[int, int]] = []
    run = Trainer(
        new_model(CONFIG), TrainingPlan((stage,)), TrainingData(*[SyntheticClips(2, 96, 7)] * 2),
        tmp_path, workers=0, show_progress=False,
    )  # fmt: skip
    loss = trainer_module.clip_loss

    def noted(model: EdgeTAM, given: Batch, *rest: object) -> StepResult:
        asked.append((given.frames.shape[1], rest[-1]))  # type: ignore[arg-type]
        return loss(model, given, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "clip_loss", noted)
        assert run.run()
    assert len(asked) == 3 and all(frames == 3 + lead for frames, lead in asked)
    assert {lead for _, lead in asked} <= {0, 1, 2} and any(lead for _, lead in asked)


def test_only_clips_have_a_lead() -> None:
    with pytest.raises(UsageError, match="lead of 4 frames; only clips"):
        Stage("stills", steps=1, lead=4)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    assert whole.run()
    first = trainer(tmp_path / "parts")
    step = first._step

    def step_then_stop(*args: object) -> object:
        done = step(*args)  # type: ignore[arg-type]
        if first.place.total_steps == 3:  # in the middle of the second stage
            signal.raise_signal(signal.SIGTERM)
        return done

    first._step = step_then_stop  # type: ignore[assignment, method-assign]
    assert not first.run()
    second = trainer(tmp_path / "parts")
    second.resume(tmp_path / "parts" / RESUME_FILE)
    assert 3 < second.place.total_steps < 6
    assert second.run()
    for ours, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert second.ema.updates == whole.ema.updates == 6


def test_batch_statistics_follow_the_stills_and_rest_on_clips(tmp_path: Path) -> None:
    """Statistics that never follow let the deep layers fade in a long run."""
    run = trainer(tmp_path)
    norms = [m for m in run.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    step, moved = run._step, []

    def watched(batch: Batch, *rest: object) -> object:
        before = [norm.running_var.clone() for norm in norms]
        done = step(batch, *rest)  # type: ignore[arg-type]
        changed = [not torch.equal(a, n.running_var) for a, n in zip(before, norms, strict=True)]
        moved.append((batch.frames.shape[1] == 1, all(changed), any(changed)))
        return done

    run._step = watched  # type: ignore[assignment, method-assign]
    run.run()
    assert {still for still, _, _ in moved[3:]} == {True, False}  # the second stage mixes both
    assert all(every == some == still for still, every, some in moved)


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    trainer(tmp_path).run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / RESUME_FILE).exists()


def test_a_resume_file_of_another_config_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    path = tmp_path / "other.pt"
    torch.save({"model": {}, "ema": {}, "optimizer": {}}, path)
    with pytest.raises(CheckpointError, match="other.pt"):
        run.resume(path)
    whole = run.save().read_bytes()
    for broken in (b"", b"not a run", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match="Cannot resume from .*other.pt"):
            run.resume(path)
        with pytest.raises(CheckpointError, match="Cannot start from .*other.pt"):
            load_weights(new_model(CONFIG), path)


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / RESUME_FILE).write_bytes(b"x")
    with pytest.raises(UsageError, match="--resume"):
        TrainingRun("tiny", PLAN, tmp_path, workers=0).start()


def test_checkpoints_keep_their_weights_to_half_precision(tmp_path: Path) -> None:
    model = new_model(CONFIG).eval()
    write_checkpoint(model, tmp_path / "model.pt", steps=3)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert state["config"] == "tiny" and state["meta"] == {"steps": 3}
    other = EdgeTAM(CONFIG)
    load_weights(other, tmp_path / "model.pt")
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=2e-3)
    with pytest.raises(CheckpointError, match="edgetam_nano"):
        load_weights(EdgeTAM(ModelConfig.load("edgetam_nano")), tmp_path / "model.pt")


def test_the_validator_measures_and_draws(tmp_path: Path) -> None:
    held_out = SyntheticClips(9, 96, texture_family="heldout")
    clips = SyntheticClips(9, 96, 8, texture_family="heldout")
    validator = Validator(held_out, clips, CONFIG.image_size, tmp_path, 8, 1)
    numbers = validator(new_model(CONFIG), 5)
    assert set(numbers) == {"click", "best", "box", "clicks", "clip_iou"}
    assert all(0 <= v <= 1 for v in numbers.values())
    assert numbers["best"] >= numbers["click"]
    assert (tmp_path / "predictions_000005.png").stat().st_size > 10_000


@pytest.mark.slow
def test_two_processes_average_gradients_and_pass_errors_on(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^The file gone.pt is not there.$"):
        run_ranks(2, Averaging(tmp_path))
    for rank in range(2):
        weight, bias, extra = torch.load(tmp_path / f"{rank}.pt")
        assert weight.tolist() == [[0.5, 0.5]]
        assert bias.tolist() == [0.5]
        assert extra.tolist() == [2.0]
