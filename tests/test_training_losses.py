"""Losses, simulated clicks, sampling: what the trainer is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgetam_label.errors import UsageError
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.training.clips import Clip
from edgetam_label.training.ema import Ema
from edgetam_label.training.losses import LossWeights, dice_loss, focal_loss, mask_loss, true_iou
from edgetam_label.training.plan import Stage, parse_stage, standard_stages
from edgetam_label.training.prompt_sampling import (
    BOTTOM_RIGHT,
    NEGATIVE,
    POSITIVE,
    TOP_LEFT,
    corrective_click,
    deepest_point,
    sample_box,
    sample_click,
)
from edgetam_label.training.samples import (
    ConsecutiveBatches,
    SampleSpec,
    SampleStream,
    collate,
    make_sample,
)


def square(x0: int, y0: int, x1: int, y1: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def output(logits: torch.Tensor, iou: list[list[float]]) -> DecoderOutput:
    n, m = logits.shape[:2]
    return DecoderOutput(logits, torch.tensor(iou), torch.zeros(n, m, 8), torch.full((n, 1), 4.0))


def as_logits(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask).float() * 20 - 10


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_much() -> None:
    mask = square(4, 4, 20, 20)
    target = torch.from_numpy(mask).float()
    assert focal_loss(as_logits(mask), target) < 1e-6
    assert dice_loss(as_logits(mask), target) < 1e-3
    assert dice_loss(as_logits(~mask), target) > 0.99
    assert true_iou(as_logits(mask), target) == 1


def test_focal_loss_equals_its_formula() -> None:
    logit, target = torch.tensor([[0.7]]), torch.tensor([[1.0]])
    p = torch.sigmoid(logit)
    assert focal_loss(logit, target) == pytest.approx(float(-0.25 * (1 - p) ** 2 * p.log()))


def test_only_the_best_of_three_masks_counts() -> None:
    mask = square(4, 4, 20, 20)
    target = torch.from_numpy(mask).float()[None]
    eligible = torch.tensor([[False, True, True, True]])
    weights = LossWeights(iou=0.0, presence=0.0, all_masks=0.0)
    right = torch.stack([as_logits(~mask), as_logits(~mask), as_logits(mask), as_logits(~mask)])
    loss = mask_loss(output(right[None], [[0.9, 0.8, 0.1, 0.2]]), eligible, target, weights)
    assert loss.total < 1e-3
    assert loss.best_iou.tolist() == [1.0]
    assert loss.chosen_iou.tolist() == [0.0]  # a person gets the mask of the highest predicted IoU


def test_an_absent_object_teaches_presence_only() -> None:
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    score = torch.full((1, 1), 3.0, requires_grad=True)
    given = DecoderOutput(logits, torch.rand(1, 4), torch.zeros(1, 4, 8), score)
    eligible = torch.tensor([[True, False, False, False]])
    loss = mask_loss(given, eligible, torch.zeros(1, 16, 16), LossWeights())
    loss.total.backward()
    assert loss.total.item() == pytest.approx(np.log(1 + np.exp(3.0)), rel=1e-4)
    assert logits.grad is not None and not logits.grad.any()
    assert not loss.present.any()


def test_clicks_lie_inside() -> None:
    rng = np.random.default_rng(0)
    mask = square(3, 5, 9, 30) | square(20, 20, 30, 22)
    assert mask[deepest_point(mask)[::-1]]
    for _ in range(50):
        x, y = sample_click(mask, rng)
        assert mask[y, x]


def test_the_deepest_point_respects_the_image_edge() -> None:
    assert deepest_point(square(0, 0, 9, 9)) == (4, 4)


def test_a_corrective_click_goes_to_the_larger_error() -> None:
    truth = square(4, 4, 28, 28)
    missing = truth & ~square(20, 4, 28, 28)
    extra = truth | square(0, 0, 2, 2)
    x, y, label = corrective_click(missing, truth)  # type: ignore[misc]
    assert label == POSITIVE and truth[y, x] and not missing[y, x]
    x, y, label = corrective_click(extra, truth)  # type: ignore[misc]
    assert label == NEGATIVE and extra[y, x] and not truth[y, x]
    assert corrective_click(truth, truth) is None


def test_boxes_are_jittered_but_stay_boxes() -> None:
    rng = np.random.default_rng(1)
    boxes = [sample_box(square(8, 10, 24, 20), rng) for _ in range(50)]
    assert all(b.labels.tolist() == [TOP_LEFT, BOTTOM_RIGHT] for b in boxes)
    corners = np.stack([b.points for b in boxes])
    assert (corners[:, 0] < corners[:, 1]).all()
    assert corners.min() >= 0 and corners.max() <= 32
    assert corners[:, 0, 0].std() > 0.5
    assert abs(corners[:, 0, 0].mean() - 8) < 1


class TwoSquares:
    """A source of clips in which two squares move."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Clip:
        frames = np.random.default_rng(index).integers(0, 255, (6, 64, 96, 3)).astype(np.uint8)
        ids = np.zeros((6, 64, 96), np.uint8)
        for t in range(6):
            ids[t, 8:40, 8 + 2 * t : 40 + 2 * t] = 1
            ids[t, 30:60, 50:80] = 2
        return Clip(frames, ids, None, 2)


def test_sample_k_is_the_same_in_every_run() -> None:
    spec = SampleSpec(32, num_frames=4, num_objects=2)
    first, second = (SampleStream(TwoSquares(), spec, seed=3) for _ in range(2))
    first[0], first[7]  # what was drawn before must not matter
    a, b = first[11], second[11]
    assert (a.frames == b.frames).all() and (a.targets == b.targets).all()
    assert all((p.points == q.points).all() for p, q in zip(a.prompts, b.prompts, strict=True))
    assert (a.frames != SampleStream(TwoSquares(), spec, seed=4)[11].frames).any()


def test_a_sample_prompts_what_it_shows() -> None:
    spec = SampleSpec(32, num_objects=2, click_share=1.0)
    for k in range(10):
        sample = make_sample(TwoSquares()[0], spec, np.random.default_rng(k))
        assert sample is not None
        for prompt, target in zip(sample.prompts, sample.targets, strict=True):
            x, y = (prompt.points[0] / 2).astype(int)
            assert target[0, y, x] > 0


class NothingFirst:
    """Scenes without an object, save every fourth one."""

    def __init__(self, every: int) -> None:
        self.every = every

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Clip:
        clip = TwoSquares()[index]
        shown = index % self.every == self.every - 1
        return clip if shown else Clip(clip.frames, clip.ids * 0, None, 0)


def test_scenes_without_an_object_are_passed_over_but_not_for_ever() -> None:
    spec = SampleSpec(32, reuse=1, window=1)
    assert SampleStream(NothingFirst(4), spec, seed=0)[0].targets.any()
    with pytest.raises(UsageError, match="No usable object in 20 scenes"):
        SampleStream(NothingFirst(100), spec, seed=0)[0]


def test_batches_have_the_announced_shapes() -> None:
    stream = SampleStream(TwoSquares(), SampleSpec(32, num_frames=3, num_objects=2), seed=0)
    batch = collate([stream[0], stream[1]])
    assert batch.frames.shape == (2, 3, 3, 32, 32)
    assert batch.targets.shape == (2, 2, 3, 16, 16)
    assert batch.points.shape[:2] == batch.labels.shape[:2] == (2, 2)


def test_processes_share_the_samples_without_overlap() -> None:
    parts = [ConsecutiveBatches(3, 4, rank, 2) for rank in range(2)]
    drawn = [next(iter(p)) for p in parts]
    assert drawn == [[24, 25, 26, 27], [28, 29, 30, 31]]


def test_the_schedule_warms_up_and_decays() -> None:
    stage = Stage("stills", steps=100, rate=1.0, final=0.1, warmup=10)
    rates = [stage.learning_rate(i, 0.0) for i in range(101)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.03) and rates.index(max(rates)) <= 10
    assert rates[-1] == pytest.approx(0.1)


def test_clips_grow() -> None:
    stage = Stage("clips", minutes=10, frames=(4, 8))
    assert stage.clip_length(0, 0.0) == 4
    assert stage.clip_length(99, 599.0) == 8


def test_a_stage_needs_one_length() -> None:
    with pytest.raises(UsageError, match="5 steps and 3 minutes"):
        Stage("stills", steps=5, minutes=3)
    with pytest.raises(UsageError, match="'movies'"):
        Stage("movies", steps=5)


def test_standard_stages_can_be_left_out() -> None:
    kinds = [s.kind for s in standard_stages(minutes=(10, 5))]
    assert kinds == ["stills", "stills", "stills", "clips"]
    assert [s.kind for s in standard_stages(minutes=(0, 0), steps=(None, 7))] == ["clips"]


def test_a_stage_can_be_written_in_one_line() -> None:
    written = parse_stage("clips, minutes=30,batch=1,rate=3e-4,trunk=0.3,frames=4-8,still_share=.3")
    made = Stage(
        "clips", minutes=30.0, batch=1, rate=3e-4, trunk=0.3, frames=(4, 8), still_share=0.3
    )
    assert written == made
    assert parse_stage("clips,steps=4,frames=3").frames == (3, 3)


def test_the_average_follows_the_model() -> None:
    model = torch.nn.BatchNorm2d(2)
    ema = Ema(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(7.0)  # type: ignore[union-attr]
    ema.update(model)
    decay = min(0.5, 2 / 11)
    assert torch.allclose(ema.model.weight, torch.tensor(decay * 1.0 + (1 - decay) * 3.0))
    assert torch.allclose(ema.model.running_mean, torch.tensor((1 - decay) * 7.0))
    assert ema.model.num_batches_tracked == model.num_batches_tracked
    copy = Ema(torch.nn.BatchNorm2d(2), 0.5)
    copy.load_state_dict(ema.state_dict())
    assert copy.updates == 1 and torch.equal(copy.model.weight, ema.model.weight)
