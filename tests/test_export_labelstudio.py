"""Label Studio's frame counting and keyframes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetam_label.exporters.labelstudio_sequence import (
    Keyframe,
    from_ls_frame,
    keyframes_of_boxes,
    to_ls_frame,
)
from edgetam_label.media_identity import MediaIdentity


def media(pts: list[int], time_base: tuple[int, int]) -> MediaIdentity:
    return MediaIdentity("x", "video", 1, "", 9, 9, len(pts), tuple(pts), time_base)


@pytest.mark.parametrize("fps", [(24, 1), (25, 1), (30000, 1001), (60, 1)])
def test_constant_frame_rate_is_index_plus_one(fps: tuple[int, int]) -> None:
    video = media(list(range(5000)), (fps[1], fps[0]))
    rate = round(fps[0] / fps[1], 6)
    for frame_idx in (0, 1, 15, 299, 4999):
        assert to_ls_frame(video, frame_idx, rate) == frame_idx + 1
        assert from_ls_frame(video, frame_idx + 1, rate) == frame_idx


def test_an_editor_at_the_wrong_rate_meets_in_time() -> None:
    video = media(list(range(100)), (1, 25))
    assert from_ls_frame(video, 25, 24.0) == 25  # 1.0 s
    assert to_ls_frame(video, 25, 24.0) == 25


def test_a_frame_that_the_editor_skips_has_no_number() -> None:
    video = media([0, 400, 401, 800], (1, 1000))  # the second is on screen for 1 ms
    assert [to_ls_frame(video, i, 2.5) for i in range(4)] == [1, None, 2, 3]


BOXES = st.dictionaries(
    st.integers(0, 20),
    st.tuples(*[st.integers(0, 3).map(float)] * 4),
    min_size=1,
)


@settings(max_examples=200, deadline=None)
@given(BOXES)
def test_keyframes_interpolate_to_the_very_boxes(boxes) -> None:
    keyframes = keyframes_of_boxes(boxes, range(21))
    assert shown(keyframes, 21) == boxes


def shown(keyframes: list[Keyframe], length: int) -> dict[int, tuple[float, ...]]:
    """What the editor shows: lines between enabled keyframes, nothing after a disabled one."""
    boxes: dict[int, tuple[float, ...]] = {}
    for here, there in zip(keyframes, [*keyframes[1:], None], strict=True):
        boxes[here.frame_idx] = tuple(here.box)
        if not here.enabled:
            continue
        end = there.frame_idx if there else length
        for frame_idx in range(here.frame_idx + 1, end):
            part = (frame_idx - here.frame_idx) / (end - here.frame_idx) if there else 0.0
            last = there.box if there else here.box
            edges = zip(here.box, last, strict=True)
            boxes[frame_idx] = tuple(round(a + (b - a) * part, 6) for a, b in edges)
    return boxes


def test_a_moving_box_needs_two_keyframes() -> None:
    boxes = {i: (2.0 * i, 0.0, 2.0 * i + 5, 7.0) for i in range(50)}
    assert [k.frame_idx for k in keyframes_of_boxes(boxes, range(50))] == [0, 49]
