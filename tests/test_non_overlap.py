"""Objects of one pass do not share pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_video import (
    HEIGHT,
    WIDTH,
    in_pieces,
    same_tracks,
    start_anew,
    tiny_frames,
    tiny_model,
)

from edgetam_label.config import ModelConfig
from edgetam_label.crops import ABSENT_SCORE, Crop, Located
from edgetam_label.masks import RLE
from edgetam_label.modeling import ObjectMask
from edgetam_label.non_overlap import SEEN, settle
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker

SIDE, CELLS = 64, 16
FRAME = Crop.whole(64, 64)
LEFT = Crop(0, 0, 32, 32, 64, 64)
OBJECTS = (Prompt(1, 0, clicks=(Click(20, 32),)), Prompt(2, 0, box=Box(8, 20, 32, 44)))


def located(
    rows: slice, columns: slice, sure: float, crop: Crop = FRAME, score: float = 3.0
) -> Located:
    """A rectangle of a crop, `sure` in 0..1, as the tracker keeps it."""
    drawn = np.full((SIDE, SIDE), 2, np.uint8)
    drawn[rows, columns] = round(255 * sure)
    shares = torch.from_numpy(drawn.reshape(CELLS, 4, CELLS, 4).mean((1, 3)) / 255).float()
    mask = ObjectMask(
        torch.logit(shares.clamp(0.001, 0.999))[None, None],
        torch.full((1, 1), 0.8),
        torch.full((1, 1), score),
        torch.zeros(1, 8),
    )
    return Located(mask, crop, drawn)


def shown(of: Located) -> NDArray[np.bool_]:
    assert of.drawn is not None
    return of.drawn > 127


WIDE = (slice(16, 48), slice(0, 40))  # these two share the columns 24 to 39
NARROW = (slice(16, 48), slice(24, 64))


def test_the_surer_one_has_what_both_claim() -> None:
    found = {1: located(*WIDE, 0.7), 2: located(*NARROW, 0.95)}
    settled = settle(found, {}, (), SIDE)
    assert not (shown(settled[1]) & shown(settled[2])).any()
    assert np.array_equal(shown(settled[2]), shown(found[2]))
    assert np.array_equal(shown(settled[1]), shown(found[1]) & ~shown(found[2]))
    memories = {o: s.mask.low_res_logits[0, 0] > 0 for o, s in settled.items()}
    assert not (memories[1] & memories[2]).any()  # what is remembered is what is shown
    assert memories[1][4:12, :6].all() and memories[2][4:12, 6:].all()


@pytest.mark.parametrize("sure", [0.6, 0.9, 1.0])
def test_of_equal_claims_the_first_has_it(sure: float) -> None:
    settled = settle({7: located(*WIDE, sure), 3: located(*NARROW, sure)}, {}, (), SIDE)
    assert shown(settled[7]).sum() > shown(settled[3]).sum() > 0
    assert not (shown(settled[7]) & shown(settled[3])).any()


def test_three_objects_share_nothing() -> None:
    every = (slice(8, 56), slice(8, 56))
    found = {1: located(*WIDE, 0.8), 2: located(*NARROW, 0.8), 3: located(*every, 0.7)}
    settled = settle(found, {}, (), SIDE)
    assert np.sum([shown(s) for s in settled.values()], axis=0).max() == 1


def test_apart_nothing_changes() -> None:
    found = {
        1: located(slice(0, 16), slice(0, 16), 0.9),
        2: located(slice(32, 64), slice(32, 64), 0.9),
        3: located(*WIDE, 0.9, score=-1.0),  # absent, so it claims nothing
    }
    settled = settle(found, {}, (), SIDE)
    for obj_id, before in found.items():
        assert torch.equal(settled[obj_id].mask.low_res_logits, before.mask.low_res_logits)
        assert np.array_equal(settled[obj_id].drawn, before.drawn)
        assert settled[obj_id].absent == before.absent


def test_a_mask_that_a_person_gave_yields_nothing() -> None:
    found = {1: located(*WIDE, 0.99), 2: located(*NARROW, 0.6)}
    settled = settle(found, {}, (2,), SIDE)
    assert settled[2] is found[2]
    assert not (shown(settled[1]) & shown(found[2])).any()


def test_what_was_an_objects_stays_its_own() -> None:
    """A mask that spills over its neighbour is not believed where the neighbour just was."""
    spilled, right = located(slice(16, 48), slice(0, 64), 0.9), located(*NARROW, 0.8)
    before = {1: located(slice(16, 48), slice(0, 24), 0.9), 2: right}
    settled = settle({1: spilled, 2: right}, before, (), SIDE)
    assert np.array_equal(shown(settled[2]), shown(right))
    assert np.array_equal(shown(settled[1]), shown(before[1]))


def test_a_small_thing_is_not_swallowed_by_the_large_one_that_carries_it() -> None:
    bag, person = located(slice(20, 32), slice(20, 32), 0.8), located(*WIDE, 0.9)
    settled = settle({1: person, 2: bag}, {}, (), SIDE)
    assert np.array_equal(shown(settled[2]), shown(bag))
    assert np.array_equal(shown(settled[1]), shown(person) & ~shown(bag))


@pytest.mark.parametrize("kept", [SEEN + 0.1, SEEN - 0.1])
def test_what_keeps_next_to_nothing_is_hidden(kept: float) -> None:
    """It followed what passed before it; it is not there, and must be sure to come back."""
    covered = slice(round(64 * kept), 64)
    found = {1: located(slice(0, 64), slice(0, 64), 0.7), 2: located(slice(0, 64), covered, 0.95)}
    settled = settle(found, {}, (), SIDE)
    assert settled[1].absent == (kept < SEEN)
    if settled[1].absent:
        assert float(settled[1].mask.object_score) == ABSENT_SCORE
    assert not settled[2].absent


def test_claims_meet_on_the_frame_whatever_crops_they_were_seen_through() -> None:
    """The left upper quarter of the frame, seen closely, beside the whole frame."""
    close = located(slice(0, 64), slice(32, 64), 0.95, LEFT)  # x 16..32, y 0..32 of the frame
    far = located(slice(0, 48), slice(0, 48), 0.7)
    settled = settle({1: close, 2: far}, {}, (), SIDE)
    assert np.array_equal(shown(settled[1]), shown(close))
    expected = shown(far)
    expected[0:32, 16:32] = False  # and not beyond the crop, whose edge it touches
    assert np.array_equal(shown(settled[2]), expected)


def tracker(non_overlap: bool | None = None, objects: tuple[Prompt, ...] = OBJECTS) -> VideoTracker:
    model = tiny_model(flow_prompt=True, fuse_flow=True)
    found = VideoTracker(model, tiny_frames(12), TrackerSettings(non_overlap=non_overlap))
    for prompt in objects:
        found.add_prompt(prompt)
    return found


def test_the_config_decides_unless_the_settings_do() -> None:
    assert not ModelConfig.load("edgetam").non_overlap  # official tracks are official
    assert ModelConfig.load("edgetam_nano").non_overlap
    apart, together = list(tracker(False).propagate()), list(tracker(True).propagate())
    assert not same_tracks(apart, together)
    assert same_tracks(apart, list(tracker().propagate()))
    model = tiny_model(flow_prompt=True, fuse_flow=True, non_overlap=True)
    asked = VideoTracker(model, tiny_frames(12))
    for prompt in OBJECTS:
        asked.add_prompt(prompt)
    assert same_tracks(together, list(asked.propagate()))


def test_tracked_masks_do_not_overlap() -> None:
    def overlaps(found: VideoTracker) -> int:
        masks: dict[int, list[NDArray[np.bool_]]] = {}
        for tracked in found.propagate(1):
            masks.setdefault(tracked.frame_idx, []).append(tracked.mask)
        return sum(int(np.logical_and.reduce(both).sum()) for both in masks.values())

    free, settled = overlaps(tracker(False)), overlaps(tracker(True))
    assert settled == 0 < free


def test_one_object_is_tracked_as_before() -> None:
    alone = (OBJECTS[0],)
    assert same_tracks(
        list(tracker(False, alone).propagate()), list(tracker(True, alone).propagate())
    )


def test_a_correction_tracks_its_object_alone() -> None:
    """What others have already is theirs: their masks are not made again."""
    found = tracker(True)
    list(found.propagate())
    found.add_prompt(Prompt(1, 6, clicks=(Click(70, 10, positive=False),)))
    assert {t.obj_id for t in found.propagate(6)} == {1}


def test_what_is_beside_the_pass_keeps_what_it_has() -> None:
    """Another object, tracked at another time, has the right half of the picture."""
    half = np.zeros((HEIGHT, WIDTH), bool)
    half[:, WIDTH // 2 :] = True
    alone, asked = (OBJECTS[0],), []

    def beside(frame_idx: int) -> dict[int, RLE]:
        asked.append(frame_idx)
        return {2: RLE.encode(half), 3: RLE.empty(HEIGHT, WIDTH)}

    def outside(found: VideoTracker) -> int:
        tracked = list(found.propagate(6, beside=beside))
        return sum(int((t.mask & half).sum()) for t in tracked)

    assert outside(tracker(False, alone)) > 0 and not asked  # nobody asks where nobody yields
    assert outside(tracker(True, alone)) == 0
    assert asked == list(range(6, 12))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_pass_begun_anew_on_the_way_ends_the_same(direction: str) -> None:
    whole = start_anew(tracker(True), OBJECTS, direction)
    parts = start_anew(tracker(True), OBJECTS, direction)
    assert same_tracks(list(whole.propagate(direction=direction)), in_pieces(parts, direction))


def test_an_object_removed_while_a_frame_is_given_out_is_not_remembered() -> None:
    found = tracker(True)
    for tracked in found.propagate():
        if tracked.frame_idx == 3 and tracked.obj_id == 1:
            found.remove_object(2)
    assert found.objects == (1,)
    again = replace(OBJECTS[1], frame_idx=4)
    assert found.add_prompt(again) is not None
    assert found.memory(2, 3) is None
