from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_video import tiny_frames, tiny_images, tiny_model

from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop, Located
from edgetam_label.errors import ConfigError, UsageError
from edgetam_label.flow import FlowCarrier, grey_picture
from edgetam_label.frames import Frames
from edgetam_label.labeler import Labeler
from edgetam_label.modeling import ObjectMask
from edgetam_label.modeling.fused import fuse
from edgetam_label.preprocess import logits_to_mask
from edgetam_label.prompts import Click, Prompt
from edgetam_label.sessions import ModelIdentity, SessionStore
from edgetam_label.track_mode import TrackMode
from edgetam_label.tracker import TrackerSettings, VideoTracker

CLICK = Prompt(1, 4, clicks=(Click(30, 30),))
LATE = Prompt(2, 7, clicks=(Click(40, 30),))
IDENTITY = ModelIdentity("edgetam", "a" * 64, "c" * 64)


@pytest.mark.parametrize(
    "mode",
    [
        TrackMode(),
        TrackMode(3),
        TrackMode(1, 512),
        TrackMode(4, 768),
        TrackMode(1, None, "bfloat16"),
        TrackMode(2, 512, "bfloat16"),
    ],
)
def test_a_mark_can_be_read(mode):
    marked = mode.mark(IDENTITY)
    assert TrackMode.of(marked) == ("edgetam", mode)
    assert (marked == IDENTITY) == (mode == TrackMode())


def test_the_network_sees_every_third_frame_and_the_prompted_ones():
    model, seen = fuse(tiny_model()), []
    original = model.encode_image
    model.encode_image = lambda images: seen.append(1) or original(images)
    try:
        tracker = VideoTracker(model, tiny_frames(20), TrackerSettings(every=3))
        tracker.add_prompt(CLICK)
        tracked = list(tracker.propagate())
    finally:
        model.encode_image = original
    assert [t.frame_idx for t in tracked] == list(range(4, 20))
    assert len(seen) == 1 + len([t for t in range(5, 20) if t % 3 == 0])
    remembered = [t for t in range(20) if tracker.memory(1, t) is not None]
    assert remembered == [4, 6, 9, 12, 15, 18]


def test_every_frame_is_what_it_always_was():
    def run(settings):
        tracker = VideoTracker(tiny_model(), tiny_frames(10), settings)
        tracker.add_prompt(CLICK)
        return [t.low_res_logits for t in tracker.propagate()]

    for one, other in zip(run(None), run(TrackerSettings(every=1)), strict=True):
        assert torch.equal(one, other)


def test_flow_moves_a_mask_with_its_object():
    """A textured square that moves 4 pixels a frame: carried for three frames, it is found."""
    rng = np.random.default_rng(0)
    ground = np.array(
        Image.fromarray(rng.integers(0, 90, (30, 40, 3), dtype=np.uint8)).resize((320, 240))
    )
    square = np.array(
        Image.fromarray(rng.integers(120, 255, (12, 12, 3), dtype=np.uint8)).resize((80, 80))
    )
    carrier, truth = FlowCarrier(), np.zeros((240, 320), dtype=bool)
    truth[80:160, 60:140] = True
    score = torch.full((1, 1), 5.0)
    logits = torch.nn.functional.interpolate(
        torch.from_numpy(truth)[None, None].float(), (64, 64), mode="bilinear", antialias=True
    )
    whole = Crop.whole(320, 240)
    start = Located(ObjectMask(logits * 20 - 10, score, score, torch.zeros(1, 8)), whole)
    for t in range(4):
        image = ground.copy()
        image[80:160, 60 + 4 * t : 140 + 4 * t] = square
        carrier.arrive(grey_picture(image))
        result = start if t == 0 else carrier.carried(1, whole)
        assert carrier.carried(2, whole) is None
        carrier.show(1, result)
    mask = logits_to_mask(result.mask.low_res_logits, 240, 320)
    moved = np.roll(truth, 12, axis=1)
    assert (mask & moved).sum() / (mask | moved).sum() > 0.93
    assert (truth & moved).sum() / (truth | moved).sum() < 0.76


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(tiny_images(24)):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    with Frames.open(folder) as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    with SessionStore(tmp_path / "sessions.db") as opened:
        yield opened


def labeler(store: SessionStore, every: int) -> Labeler:
    made = Labeler(tiny_model(), store, settings=TrackerSettings(every=every))
    made.identity = TrackMode(every).mark(IDENTITY)
    return made


def test_interrupted_and_corrected_it_ends_the_same(store, frames):
    """What lies between the network's frames too follows from the prompts alone."""
    ours = labeler(store, 3)

    def begin(*prompts):
        session = ours.create_session(frames)
        for prompt in prompts:
            ours.add_prompt(session.id, prompt)
        return session.id

    whole = begin(CLICK, LATE)
    ours.track(whole, frames, directions=("forward", "backward"))
    broken = begin(CLICK, LATE)
    seen: list[int] = []
    ours.track(
        broken,
        frames,
        directions=("forward", "backward"),
        on_frame=lambda t: seen.append(t.frame_idx),
        cancel=lambda: len(seen) >= 15,
    )
    assert ours.resume(broken, frames).finished
    assert list(store.iter_masks(broken)) == list(store.iter_masks(whole))
    before = list(store.iter_masks(whole))
    ours.add_prompt(whole, Prompt(1, 11, clicks=(Click(80, 8, positive=False),)))
    ours.resume(whole, frames)
    changed = [
        (new.obj_id, new.frame_idx)
        for old, new in zip(before, store.iter_masks(whole), strict=True)
        if old != new
    ]
    assert changed and {obj for obj, _ in changed} == {1} and min(f for _, f in changed) == 11


def test_a_session_keeps_to_its_mode(store, frames):
    ours = labeler(store, 3)
    session = ours.create_session(frames)
    ours.add_prompt(session.id, CLICK)
    ours.track(session.id, frames, max_frames=3)
    assert {m.name for m in store.mask_models(session.id)} == {"edgetam+every=3"}
    with pytest.raises(UsageError, match="tracked with --every 3, now it is --every 1"):
        labeler(store, 1).track(session.id, frames)
    assert labeler(store, 3).track(session.id, frames).finished


def test_sizes_that_a_model_can_take():
    config = ModelConfig.load("edgetam")
    assert config.at_size(512).feature_size == 32
    assert config.at_size(512).sha256 != config.sha256
    with pytest.raises(
        ConfigError, match="500 does not suit .* multiples of 256; the nearest is 512"
    ):
        config.at_size(500)
    with pytest.raises(UsageError, match="every = 0"):
        TrackerSettings(every=0)
