from __future__ import annotations

from typing import Any

import pytest
from backend_bodies import click, keyframe, rectangle, track

from edgetam_label.backend.context import Keyframe, Size, image_instances, track_regions
from edgetam_label.backend.faults import RequestError
from edgetam_label.backend.timeline import Timeline
from edgetam_label.backend.tracks import TrackState, merged_keyframes, own_keyframes, track_prompts
from edgetam_label.prompts import Box, Click

SIZE = Size(320, 240)


def test_points_of_one_label_are_one_object_with_both_signs() -> None:
    (one,) = image_instances([click(25, 50, id="a"), click(75, 50, positive=False, id="b")], SIZE)
    assert one.prompt.clicks == (Click(80, 120, True), Click(240, 120, False))
    assert (one.label, one.to_name) == ("Cat", "picture")


def test_the_region_id_stays_while_the_first_prompt_stays() -> None:
    first = image_instances([click(25, 50, id="a")], SIZE, scope="1/7")
    refined = image_instances([click(25, 50, id="a"), click(30, 50, id="b")], SIZE, scope="1/7")
    other_task = image_instances([click(25, 50, id="a")], SIZE, scope="1/8")
    assert first[0].region_id == refined[0].region_id != other_task[0].region_id


def test_labels_and_boxes_are_objects_of_their_own() -> None:
    found = image_instances(
        [click(10, 10, "Cat"), click(20, 20, "Dog", id="k2"),
         rectangle(50, 50, 10, 10, "Dog"), rectangle(70, 50, 10, 10, "Dog", id="r2")],
        SIZE,
    )  # fmt: skip
    assert [(i.label, i.prompt.box is not None) for i in found] == [
        ("Dog", True), ("Dog", True), ("Cat", False), ("Dog", False)
    ]  # fmt: skip
    assert [i.prompt.obj_id for i in found] == [1, 2, 3, 4]


def test_points_inside_a_box_of_their_label_refine_it() -> None:
    (one,) = image_instances(
        [rectangle(10, 10, 50, 50, "Cat"), click(20, 20, "Cat", positive=False)], SIZE
    )
    assert one.prompt.box == Box(32, 24, 192, 144)
    assert one.prompt.clicks == (Click(64, 48, False),)


def test_a_turned_box_becomes_the_upright_box_around_it() -> None:
    (one,) = image_instances([rectangle(50, 50, 20, 10, rotation=90)], SIZE)
    # 64 x 24 pixels, turned clockwise about (160, 120): it now hangs to the left of that corner
    assert one.prompt.box is not None
    got = (one.prompt.box.x0, one.prompt.box.y0, one.prompt.box.x1, one.prompt.box.y1)
    assert got == pytest.approx((136, 120, 160, 184))


@pytest.mark.parametrize(
    ("turn", "expected"), [(0, (80, 60)), (90, (80, 180)), (180, (240, 180)), (270, (240, 60))]
)
def test_clicks_on_a_turned_image_land_on_the_stored_one(
    turn: int, expected: tuple[int, int]
) -> None:
    (one,) = image_instances([click(25, 25, image_rotation=turn)], SIZE)
    assert (one.prompt.clicks[0].x, one.prompt.clicks[0].y) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        ({**click(1, 1), "value": None}, "no 'value'"),
        (click(200, 1), "outside the image"),
        (click(float("nan"), 1), "'x' must be a finite number, got nan"),
        (click(10**400, 1), "'x' must be a finite number"),
        ({**click(1, 1), "value": {"y": 3}}, "'x' must be a finite number, got None"),
        (click(True, 1), "got True"),
        (rectangle(10, 10, 0, 5), "less than one pixel"),
        (rectangle(10, 10, 5, 5, image_rotation=45), "'image_rotation' must be"),
    ],
)
def test_malformed_prompts_are_told(region: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        image_instances([region], SIZE)


def test_unknown_regions_are_left_alone() -> None:
    assert image_instances([{"type": "choices", "value": {}}, {"type": ["x"]}, {}], SIZE) == []


def test_track_regions_and_blanked_labels() -> None:
    (one,) = track_regions([track([keyframe(3, 1, 2, 3, 4)], None, id="q")], {"q": "Dog"})
    assert (one.label, one.frames_count, one.keyframes) == ("Dog", 20, (Keyframe(3, 1, 2, 3, 4),))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [({}, "'sequence'"), ({"sequence": [1]}, "keyframe must be an object"),
     ({"sequence": [{**keyframe(1, 1, 1, 1, 1), "frame": 0}]}, "counts from 1"),
     ({"sequence": [{**keyframe(1, 1, 1, 1, 1), "frame": 1.5}]}, "counts from 1"),
     ({"sequence": [{"frame": 1}]}, "'x' must be")],
)  # fmt: skip
def test_malformed_tracks_are_told(value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        track_regions([{"type": "videorectangle", "id": "a", "value": value}])


# -- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [25.0, 24.0, 30.0, 12.5, 59.94])
def test_frames_and_pictures_are_inverse_whatever_the_rate(rate: float) -> None:
    for pts in (range(50), [0, 1, 2, 9, 10, 11, 30, 31, 49]):
        line = Timeline.of(tuple(pts), (1, 25), rate)
        shown: dict[int, list[int]] = {}
        for frame in range(1, line.frames_count + 1):
            shown.setdefault(line.index_of(frame), []).append(frame)
        for index in range(len(line.times)):
            assert list(line.frames_of(index)) == shown.get(index, [])


def test_the_measured_frame_16_shows_picture_15() -> None:
    assert Timeline.of(tuple(range(50)), (1, 25), 25.0, 50).index_of(16) == 15


def test_a_wrong_rate_is_mapped_through_time() -> None:
    # frame 25 of a 24-per-second count is at exactly one second, whatever the file's rate
    line = Timeline.of(tuple(range(100)), (1, 50), 24.0)
    assert line.index_of(25) == 50
    assert line.frames_count == 48


# -- whose keyframe is it --------------------------------------------------------------------


def _state(own: list[Keyframe], sent: list[Keyframe]) -> TrackState:
    return TrackState("t1", "Cat", "track", "clip", 25.0, 20, tuple(own), tuple(sent))


def _region(*keyframes: Keyframe) -> Any:
    raw = [k.to_json(25.0) for k in keyframes]
    return track_regions([track(raw)])[0]


A, B, C = (Keyframe(n, n, 10, 5, 5) for n in (1, 9, 17))


def test_our_own_keyframes_are_not_mistaken_for_the_annotators() -> None:
    state = _state([A], [A, B, C])
    assert own_keyframes(_region(A, B, C), state) == (A,)


def test_a_moved_or_added_keyframe_is_the_annotators() -> None:
    moved = Keyframe(9, 50, 50, 10, 10)
    added = Keyframe(12, 1, 1, 1, 1)
    assert own_keyframes(_region(A, moved, added, C), _state([A], [A, B, C])) == (A, moved, added)


def test_a_removed_keyframe_is_gone_and_a_switched_one_is_new() -> None:
    assert own_keyframes(_region(B, C), _state([A, B], [A, B, C])) == (B,)
    off = Keyframe(9, 9, 10, 5, 5, enabled=False)
    assert own_keyframes(_region(A, off), _state([A], [A, B, C])) == (A, off)


def test_a_keyframe_that_we_switched_off_stays_as_it_was_drawn() -> None:
    off = Keyframe(1, 1, 10, 5, 5, enabled=False)
    assert own_keyframes(_region(off), _state([A], [off])) == (A,)


def test_state_survives_json() -> None:
    state = _state([A], [A, B])
    assert TrackState.from_attributes(state.to_attributes()) == state
    assert TrackState.from_attributes({}) is None


def test_prompts_are_made_on_the_picture_that_was_seen() -> None:
    line = Timeline.of(tuple(range(20)), (1, 25), 25.0, 20)
    (prompt,) = track_prompts([Keyframe(6, 25, 50, 50, 25)], line, SIZE, 3)
    assert (prompt.obj_id, prompt.frame_idx, prompt.box) == (3, 5, Box(80, 120, 240, 180))


def test_merged_keyframes_are_sparse_and_end_switched_off() -> None:
    line = Timeline.of(tuple(range(20)), (1, 25), 25.0, 20)
    boxes = {i: (10.0 + 8 * i, 20.0, 60.0 + 8 * i, 80.0) for i in range(15)}
    own = [Keyframe(1, *(10 / 3.2, 20 / 2.4, 50 / 3.2, 60 / 2.4))]
    merged = merged_keyframes(own, boxes, line, SIZE, 0.9)
    assert [(k.frame, k.enabled) for k in merged] == [(1, True), (15, False)]
    assert merged[0].x == own[0].x


def test_the_annotators_end_is_respected() -> None:
    line = Timeline.of(tuple(range(20)), (1, 25), 25.0, 20)
    boxes = dict.fromkeys(range(20), (10.0, 20.0, 60.0, 80.0))
    first, end = Keyframe(1, 3, 8, 15, 25), Keyframe(8, 3, 8, 15, 25, enabled=False)
    merged = merged_keyframes([first, end], boxes, line, SIZE, 0.9)
    assert merged[-1].frame == 8 and not merged[-1].enabled


def test_a_track_to_the_last_frame_stays_enabled() -> None:
    line = Timeline.of(tuple(range(20)), (1, 25), 25.0, 20)
    boxes = dict.fromkeys(range(20), (10.0, 20.0, 60.0, 80.0))
    merged = merged_keyframes([Keyframe(1, 3.125, 8.4, 15.6, 25)], boxes, line, SIZE, 0.9)
    assert merged[-1].enabled
