"""What an object looks like is learned while it is tracked, and shown with the moved mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rendered_scenes import iou
from tiny_video import in_pieces, same_tracks, start_anew, tiny_frames, tiny_model
from torch import Tensor

from edgetam_label.config import ModelConfig
from edgetam_label.errors import ConfigError
from edgetam_label.modeling import ImageFeatures, ObjectMask
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.target_model import (
    CLEAREST,
    PROMPTED,
    RIDGE,
    Appearance,
    colours_of,
    known_so_far,
    likeness,
    observe,
)
from edgetam_label.tracker import TrackedFrame, TrackerSettings, VideoTracker
from edgetam_label.training import clip_step
from edgetam_label.training.clip_step import ClipWalk, _Looks
from edgetam_label.training.samples import SampleSpec, SampleStream, collate
from edgetam_label.training.still_step import normalise
from edgetam_label.training.synthetic import SyntheticClips

OBJECTS = (Prompt(1, 0, clicks=(Click(20, 32),)), Prompt(2, 0, box=Box(8, 20, 32, 44)))
SIDE = 32  # of the logits


def tracker(target_model: bool | None = True, **settings: int) -> VideoTracker:
    chosen = TrackerSettings(target_model=target_model, **settings)  # type: ignore[arg-type]
    found = VideoTracker(tiny_model(flow_prompt=True), tiny_frames(12), chosen)
    for prompt in OBJECTS:
        found.add_prompt(prompt)
    return found


def features(seed: int, rows: int = 1) -> ImageFeatures:
    """Noise at strides 4, 8 and 16 of 128 pixels, a little of it constant."""
    make = torch.Generator().manual_seed(seed)

    def level(channels: int, side: int) -> Tensor:
        return torch.randn(rows, channels, side, side, generator=make)

    return ImageFeatures(level(6, 8), (level(2, 32), level(4, 16)))


def scene(column: int, hue: tuple[float, float, float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Colours and logits: noisy grey with an 8 x 8 square of another colour."""
    make = torch.Generator().manual_seed(seed)
    colours = torch.randn(1, 3, SIDE, SIDE, generator=make) * 0.2
    logits = torch.full((1, 1, SIDE, SIDE), -10.0)
    logits[:, :, 8:16, column : column + 8] = 10
    colours[:, :, 8:16, column : column + 8] += torch.tensor(hue)[:, None, None]
    return colours, logits


RED, BLUE = (1.0, -0.5, -0.5), (-0.5, -0.5, 1.0)


def test_the_config_decides_unless_the_settings_do() -> None:
    assert not ModelConfig.load("edgetam").target_model  # official tracks are official
    assert ModelConfig.load("edgetam_nano").target_model
    without, learning = list(tracker(False).propagate()), list(tracker().propagate())
    assert not same_tracks(without, learning)
    assert same_tracks(without, list(tracker(None).propagate()))
    asked = VideoTracker(tiny_model(flow_prompt=True, target_model=True), tiny_frames(12))
    for prompt in OBJECTS:
        asked.add_prompt(prompt)
    assert same_tracks(learning, list(asked.propagate()))


def test_a_config_that_shows_no_mask_cannot_ask_for_it() -> None:
    with pytest.raises(ConfigError, match="target_model = True must be false where flow_prompt"):
        replace(ModelConfig.load("tiny"), target_model=True)


def test_nothing_is_learned_where_no_mask_is_shown() -> None:
    found = tracker(flow_prompt=False)
    list(found.propagate())
    memory = found.memory(1, 3)
    assert memory is not None and memory.appearance is None


def test_an_object_is_found_elsewhere_by_its_looks() -> None:
    colours, logits = scene(2, RED)
    known = observe(features(0), colours, logits)
    later, there = scene(20, RED, seed=1)
    found = likeness(known, features(1), later)[0, 0]
    assert iou((found > 0).numpy(), (there[0, 0] > 0).numpy()) > 0.7
    assert found.abs().max() <= np.log(CLEAREST / (1 - CLEAREST)) + 1e-4


def test_its_surroundings_say_what_it_is_not() -> None:
    """A like thing that was there all along is no part of it where the two differ at all."""
    colours, logits = scene(2, RED)
    colours[:, :, 8:16, 20:28] += torch.tensor((1.0, 0.2, -0.5))[:, None, None]
    found = likeness(observe(features(0), colours, logits), features(0), colours)[0, 0]
    assert found[8:16, 2:10].mean() > 1 > -1 > found[8:16, 20:28].mean()


def test_it_is_the_ridge_regression_that_it_says() -> None:
    """Against the normal equations, solved place by place with numpy at one resolution."""
    seen, (colours, logits) = features(3), scene(2, RED)

    def rows(at: int) -> np.ndarray:
        red, green, blue = colours[0]
        every = [torch.ones_like(red), *colours[0], *(colours[0] ** 2)]
        every += [red * green, green * blue, blue * red]
        levels = [torch.stack(every)[None], *seen.high_res, seen.top]
        resized = [
            torch.nn.functional.avg_pool2d(level, level.shape[-1] // at)
            if level.shape[-1] > at
            else torch.nn.functional.interpolate(level, (at, at), mode="bilinear")
            for level in levels
        ]
        return torch.cat(resized, 1)[0].flatten(1).numpy().astype(np.float64)

    x, inside = rows(16), (logits[0, 0, ::2, ::2] > 0).numpy().ravel()
    weight = np.where(inside, 0.5 / inside.sum(), 0.5 / (~inside).sum())
    products = (x * weight) @ x.T
    sums = (x * weight) @ np.where(inside, 1.0, -1.0)
    solved = np.linalg.solve(products + RIDGE * np.diag(np.diag(products)), sums)
    expected = np.clip((solved @ rows(32) + 1) / 2, 1 - CLEAREST, CLEAREST).reshape(32, 32)
    found = torch.sigmoid(likeness(observe(seen, colours, logits), seen, colours))[0, 0]
    assert np.abs(found.numpy() - expected).max() < 1e-3


def test_objects_do_not_touch_each_other() -> None:
    seen, (colours, left), right = features(0), scene(2, RED), scene(20, RED)[1]
    both = observe(seen, colours, torch.cat([left, right]))
    together = likeness(both, seen, colours)
    for row, logits in enumerate((left, right)):
        alone = likeness(observe(seen, colours, logits), seen, colours)
        assert torch.allclose(together[row], alone[0], atol=1e-3)


def test_an_object_that_was_never_seen_looks_like_nothing() -> None:
    colours, logits = scene(2, RED)
    nothing = observe(features(0), colours, torch.full_like(logits, -10))
    assert not nothing.products.any() and not nothing.sums.any()
    assert not likeness(nothing, features(0), colours).any()


def test_tracking_teaches_what_prompts_did_not_show() -> None:
    colours, logits = scene(2, RED)
    first = observe(features(0), colours, logits)
    later, there = scene(2, BLUE)
    turned = observe(features(0), later, there)
    known, learned = known_so_far([first], None)
    assert known is learned and torch.equal(known.sums, first.sums)
    for _ in range(12):
        learned = learned.towards(turned, 0.1)
    known, again = known_so_far([first], learned)
    assert again is learned
    assert torch.allclose(known.sums, PROMPTED * first.sums + (1 - PROMPTED) * learned.sums)
    inside = there[0, 0] > 0
    before = likeness(first, features(0), later)[0, 0][inside].mean()
    assert likeness(known, features(0), later)[0, 0][inside].mean() > max(1.0, float(before))


def test_prompts_on_several_frames_count_alike() -> None:
    one = Appearance(torch.ones(1, 2, 2), torch.zeros(1, 2))
    other = Appearance(torch.zeros(1, 2, 2), torch.ones(1, 2))
    known, _ = known_so_far([one, other], None)
    assert torch.equal(known.products, torch.full((1, 2, 2), 0.5))
    assert torch.equal(known.sums, torch.full((1, 2), 0.5))


def test_a_mask_that_is_not_sure_teaches_nothing() -> None:
    found = tracker()
    seen: list[TrackedFrame] = list(found.propagate(objects=[1]))
    assert not any(t.absent for t in seen)
    first, known = found.memory(1, 0), [found.memory(1, t) for t in range(1, 12)]
    assert first is not None and first.appearance is not None
    before = first.appearance
    moved = 0
    for memory in known:
        assert memory is not None and memory.appearance is not None
        sure = float(memory.iou.max()) > 0.5
        same = torch.equal(memory.appearance.sums, before.sums)
        assert same == (not sure)
        moved += sure
        before = memory.appearance
    assert 0 < moved


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_pass_in_pieces_equals_a_whole_one(direction: str) -> None:
    whole, pieces = (start_anew(tracker(), OBJECTS, direction) for _ in range(2))
    expected = list(whole.propagate(direction=direction))
    assert same_tracks(in_pieces(pieces, direction), expected)


def test_adding_an_object_changes_no_other() -> None:
    alone, both = tracker(), tracker()
    alone.remove_object(2)
    expected = list(alone.propagate())
    assert same_tracks([t for t in both.propagate() if t.obj_id == 1], expected)


def test_it_goes_with_skipped_frames() -> None:
    found = tracker(every=3)
    assert len(list(found.propagate())) == 24
    memory = found.memory(1, 9)
    assert memory is not None and memory.appearance is not None


def test_training_learns_looks_as_tracking_does() -> None:
    """A clip of three rows, one of which is never sure, one absent."""
    looks = _Looks()
    seen, (colours, logits) = features(0), scene(2, RED)
    rows = logits.repeat(3, 1, 1, 1)
    iou, score = torch.tensor([[0.9], [0.3], [0.9]]), torch.tensor([[2.0], [2.0], [-1.0]])
    answer = ObjectMask(rows, iou, score, torch.zeros(3, 4))
    looks.learn(seen, colours, answer, prompted=True)
    first = looks.known()
    later, there = scene(6, BLUE)
    looks.learn(seen, later, replace(answer, low_res_logits=there.repeat(3, 1, 1, 1)), False)
    learned = first.towards(observe(seen, later, there), 0.1)
    expected = known_so_far([first], learned)[0]
    for row, wanted in enumerate((expected, first, first)):
        sums = wanted.sums[row % len(wanted.sums)]
        assert torch.allclose(looks.known().sums[row], sums, atol=1e-5)


def test_training_answers_with_the_likeness_as_tracking_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(flow_prompt=True, target_model=True)
    size = model.config.image_size
    spec = SampleSpec(size, 2, 2, part_share=0.0)
    batch = collate([SampleStream(SyntheticClips(3, size, 4), spec, 0)[0]])

    def first_tracked(share: float) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(clip_step, "ANSWER_SHARE", share)
        walk = ClipWalk(model, batch, np.random.default_rng(0), flow_share=1.0)
        encoded = model.encode_image(normalise(batch.frames.flatten(0, 1)))
        rows = torch.tensor([0, 0])
        walk.prompt(encoded[0:1], rows, batch, by_mask=True)
        assert walk.looks is not None
        alike = likeness(walk.looks.known(), encoded[1:2][rows], walk._colours(1))
        walk.track(1, encoded[1:2], rows, correct=False)
        return walk.outputs[-1][0].low_res_logits, alike

    with torch.no_grad():
        alone, alike = first_tracked(0.0)
        answer, _ = first_tracked(0.8)
    assert float(alike.abs().max()) > 0.1
    assert torch.allclose(answer, alone + 0.8 * alike, atol=1e-4)


def test_a_training_step_neither_rounds_it_nor_follows_it() -> None:
    colours, logits = scene(2, RED)
    seen = features(0)
    expected = likeness(observe(seen, colours, logits), seen, colours)
    asked = logits.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = likeness(observe(seen, colours, asked), seen, colours)
    assert torch.equal(found, expected) and not found.requires_grad


def test_colours_are_on_the_grid_of_the_logits() -> None:
    image = torch.arange(8 * 8 * 3, dtype=torch.float32).reshape(1, 3, 8, 8)
    colours = colours_of(image)
    assert colours.shape == (1, 3, 2, 2)
    assert float(colours[0, 0, 0, 0]) == pytest.approx(float(image[0, 0, :4, :4].mean()))
