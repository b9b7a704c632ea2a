from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_video import HEIGHT, WIDTH, tiny_frames, tiny_images, tiny_model

from edgetam_label.errors import PromptError
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.memory import FrameMemory, MemoryBank, MemoryFile
from edgetam_label.modeling.fused import fuse
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker

CLICK = Prompt(1, 0, clicks=(Click(20, 32),))
BOX = Prompt(2, 0, box=Box(8, 20, 32, 44))
LATE = Prompt(3, 5, clicks=(Click(40, 30),))


def tracker(count: int = 12, **settings) -> VideoTracker:
    return VideoTracker(tiny_model(), tiny_frames(count), TrackerSettings(**settings))


def run(tracker: VideoTracker, *args, **options) -> dict[tuple[int, int], torch.Tensor]:
    """(object, frame) → low-resolution logits, the strictest thing to compare."""
    passed = tracker.propagate(*args, **options)
    return {(t.obj_id, t.frame_idx): t.low_res_logits for t in passed}


def equal(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def only(obj_id: int, logits: dict) -> dict:
    return {key: value for key, value in logits.items() if key[0] == obj_id}


def test_every_frame_gets_a_mask_of_the_videos_size():
    t = tracker()
    first = t.add_prompt(CLICK)
    assert first.mask.shape == (HEIGHT, WIDTH) and first.mask.dtype == bool and first.prompted
    tracked = list(t.propagate())
    assert [x.frame_idx for x in tracked] == list(range(12))
    assert tracked[0].prompted and not tracked[1].prompted
    assert np.array_equal(tracked[0].mask, first.mask)


def test_objects_do_not_disturb_each_other():
    alone = tracker()
    alone.add_prompt(CLICK)
    single = run(alone)
    both = tracker()
    for prompt in (BOX, CLICK, LATE):
        both.add_prompt(prompt)
    together = run(both)
    assert equal(only(1, together), single)
    assert min(frame for obj, frame in together if obj == 3) == 5


def test_an_object_added_after_tracking_is_tracked_alone():
    t = tracker()
    t.add_prompt(CLICK)
    run(t)
    t.add_prompt(LATE)
    added = run(t)
    assert {obj for obj, _ in added} == {3}
    fresh = tracker()
    fresh.add_prompt(LATE)
    assert equal(added, run(fresh))


def test_a_removed_object_is_gone_and_others_stay():
    t = tracker()
    t.add_prompt(CLICK)
    t.add_prompt(BOX)
    before = only(2, run(t))
    t.remove_object(1)
    assert t.objects == (2,)
    assert equal(run(t), before)
    with pytest.raises(PromptError, match="no object 1; objects so far: 2"):
        t.remove_object(1)


def test_removal_during_a_pass():
    t = tracker()
    t.add_prompt(CLICK)
    t.add_prompt(BOX)
    seen = []
    for tracked in t.propagate():
        seen.append((tracked.obj_id, tracked.frame_idx))
        if tracked.frame_idx == 3 and 1 in t.objects and tracked.obj_id == 2:
            t.remove_object(1)
    assert max(f for o, f in seen if o == 1) == 3
    assert max(f for o, f in seen if o == 2) == 11


def test_a_correction_tracks_only_what_changed():
    t = tracker()
    t.add_prompt(CLICK)
    t.add_prompt(BOX)
    before = run(t)
    corrected = t.add_prompt(Prompt(1, 6, clicks=(Click(70, 10, positive=False),)))
    assert not torch.equal(corrected.low_res_logits, before[1, 6])
    after = run(t, 6)
    assert {obj for obj, _ in after} == {1}
    assert min(frame for _, frame in after) == 6
    assert not torch.equal(after[1, 11], before[1, 11])


def test_a_correction_far_outside_the_window_sees_its_neighbours():
    """Memories older than the window come back from the temporary file, bit for bit."""
    prompt = Prompt(1, 3, clicks=(Click(60, 12, positive=False),))
    long = tracker(40)
    long.add_prompt(CLICK)
    run(long)
    late = long.add_prompt(prompt)
    short = tracker(40)
    short.add_prompt(CLICK)
    run(short, max_frames=4)
    early = short.add_prompt(prompt)
    assert torch.equal(late.low_res_logits, early.low_res_logits)


def test_a_waiting_correction_equals_one_made_after_tracking():
    prompt = Prompt(1, 6, clicks=(Click(70, 10, positive=False),), correction=True)
    live = tracker()
    live.add_prompt(CLICK)
    run(live)
    live.add_prompt(prompt)
    expected = run(live, 6)
    replay = tracker()
    replay.add_prompt(CLICK)
    assert replay.add_prompt(prompt) is None
    replayed = {k: v for k, v in run(replay).items() if k[1] >= 6}
    assert equal(replayed, expected)


def test_extending_a_prompt_refines_and_replacing_it_starts_over():
    t = tracker()
    t.add_prompt(CLICK)
    two = Prompt(1, 0, clicks=(*CLICK.clicks, Click(80, 10, positive=False)))
    refined = t.add_prompt(two)
    at_once = tracker().add_prompt(two)
    assert not torch.equal(refined.low_res_logits, at_once.low_res_logits)
    again = t.add_prompt(CLICK)
    assert torch.equal(again.low_res_logits, tracker().add_prompt(CLICK).low_res_logits)


def test_backward_and_both():
    t = tracker()
    t.add_prompt(Prompt(1, 6, clicks=(Click(40, 30),)))
    back = list(t.propagate(direction="backward"))
    assert [x.frame_idx for x in back] == list(range(6, -1, -1))
    forward = list(t.propagate())
    assert [x.frame_idx for x in forward] == list(range(6, 12))


def test_max_frames_counts_frames():
    t = tracker()
    t.add_prompt(CLICK)
    assert len(list(t.propagate(max_frames=2))) == 2
    assert len(list(t.propagate(4, max_frames=3))) == 3


def test_cancel_keeps_what_is_done():
    t = tracker()
    t.add_prompt(CLICK)
    done = []
    for tracked in t.propagate(cancel=lambda: len(done) == 5):
        done.append(tracked.low_res_logits)
    assert len(done) == 5
    again = run(t)
    assert all(torch.equal(again[1, i], logits) for i, logits in enumerate(done))


def test_progress_reaches_the_end():
    t = tracker()
    t.add_prompt(CLICK)
    calls: list[tuple[int, int]] = []
    list(t.propagate(progress=lambda done, total: calls.append((done, total))))
    assert calls == [(i, 12) for i in range(1, 13)]


def test_an_absent_object_has_an_empty_mask_and_its_score():
    t = tracker()
    t.add_prompt(CLICK)
    seeing = t.model.decode_masks

    def blind(*args, **options):
        output = seeing(*args, **options)
        return replace(output, object_score=output.object_score - 40)

    t.model.decode_masks = blind
    try:
        gone = [x for x in t.propagate(1, max_frames=3)]
    finally:
        t.model.decode_masks = seeing
    assert all(x.absent and not x.mask.any() and x.score < 0 for x in gone)
    back = list(t.propagate(4, max_frames=2))
    assert all(not x.absent and x.score > 0 for x in back)


def test_a_drawn_mask_is_taken_as_it_is():
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[16:48, 24:72] = True
    answer = tracker().add_prompt(Prompt(1, 2, mask=RLE.encode(mask)))
    intersection = (answer.mask & mask).sum() / (answer.mask | mask).sum()
    assert intersection > 0.95  # up to the low resolution's edge


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (Prompt(1, 12, clicks=(Click(1, 1),)), "Frame 12 does not exist.*frames 0 to 11"),
        (Prompt(1, 0, clicks=(Click(97, 1),)), "Click 97,1 .* outside the frame of 96x64"),
        (Prompt(1, 0, box=Box(100, 0, 120, 9)), "Box 100,0,120,9 .* outside the frame"),
        (Prompt(1, 0, mask=RLE.empty(10, 10)), "object 1 is 10x10 pixels, the frame 96x64"),
    ],
)
def test_impossible_prompts_are_refused_and_leave_nothing(prompt, sentence):
    t = tracker()
    with pytest.raises(PromptError, match=sentence):
        t.add_prompt(prompt)
    assert t.objects == ()


def test_nothing_prompted_and_unknown_names():
    t = tracker()
    with pytest.raises(PromptError, match="add a click"):
        t.propagate()
    t.add_prompt(CLICK)
    with pytest.raises(PromptError, match="no object 9"):
        t.propagate(objects=[9])
    with pytest.raises(PromptError, match="'sideways' is unknown"):
        t.propagate(direction="sideways")
    with pytest.raises(PromptError, match="Frame -1 does not exist"):
        t.propagate(-1)


def test_taking_back_the_last_prompt_removes_the_object():
    t = tracker()
    t.add_prompt(CLICK)
    with pytest.raises(PromptError, match="no prompt on frame 3"):
        t.remove_prompt(1, 3)
    t.remove_prompt(1, 0)
    assert t.objects == ()


def frame_memory(frame_idx: int) -> FrameMemory:
    generator = torch.Generator().manual_seed(frame_idx)
    return FrameMemory(
        frame_idx,
        torch.randn(1, 32, 16, generator=generator).bfloat16(),
        torch.randn(1, 32, generator=generator),
        torch.randn(1, 1, 32, 32, generator=generator).half(),
        torch.rand(1, 1, generator=generator),
        torch.randn(1, 1, generator=generator),
        torch.tensor([[0.0, 0.0, 96.0, 64.0, 96.0, 64.0]], dtype=torch.float64),
    )


def test_the_bank_keeps_a_bounded_window_and_finds_the_rest_on_disk():
    bank = MemoryBank(tiny_model().config, spill_bytes=2**20)
    bank.add(frame_memory(0), conditioning=True)
    for t in range(1, 100):
        bank.add(frame_memory(t), conditioning=False)
    assert len(bank._recent) == 16
    for t in (0, 1, 50, 99):
        memory, expected = bank.get(t), frame_memory(t)
        assert torch.equal(memory.tokens, expected.tokens)
        assert torch.equal(memory.pointer, expected.pointer)
        assert torch.equal(memory.low_res_logits, expected.low_res_logits)
    maps, pointers = bank.select(50, 100, reverse=False)
    assert [index for _, index in maps] == [6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(maps[1][0], frame_memory(44).tokens)
    assert len(pointers) == 16
    assert torch.equal(pointers[1], frame_memory(49).pointer)
    maps, pointers = bank.select(50, 100, reverse=True)
    assert torch.equal(maps[-1][0], frame_memory(51).tokens)
    assert len(pointers) == 15  # the conditioning frame lies in the past
    bank.close()


def test_a_full_memory_file_warns_once_and_tracking_goes_on(caplog):
    file = MemoryFile(max_bytes=8000)
    for t in range(6):
        file.put(frame_memory(t))
    assert file.get(0) is not None and file.get(5) is None
    assert len([r for r in caplog.records if "no longer kept" in r.message]) == 1
    file.forget(0)
    file.put(frame_memory(7))
    assert torch.equal(file.get(7).tokens, frame_memory(7).tokens)
    file.close()


def test_features_are_shared_and_bounded():
    model, calls = fuse(tiny_model()), []
    original = model.encode_image
    model.encode_image = lambda images: calls.append(1) or original(images)
    try:
        t = VideoTracker(model, Frames.open(tiny_images(6)))
        t.add_prompt(CLICK)
        t.add_prompt(BOX)
        list(t.propagate())
        assert len(calls) == 6
        settings = TrackerSettings(feature_cache_bytes=1)
        small = VideoTracker(model, Frames.open(tiny_images(6)), settings)
        small.add_prompt(CLICK)
        list(small.propagate())
        assert len(small._features) == 1
    finally:
        model.encode_image = original
