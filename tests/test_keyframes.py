"""Sparse keyframes: within tolerance everywhere, as few as brute force finds, gaps kept."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_oracle import ask, needs_sdk

from edgetam_label.backend.keyframes import (
    LONGEST_STEP,
    BoxXYXY,
    Keyframe,
    interpolate,
    sparse_keyframes,
)
from edgetam_label.errors import UsageError


def iou(a: BoxXYXY, b: BoxXYXY) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


@st.composite
def tracks(draw: st.DrawFn, max_frames: int = 60) -> dict[int, BoxXYXY]:
    """A box that wanders, grows, shrinks and leaves now and then; some are still, some jump."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, max_frames))
    speed = draw(st.sampled_from([0, 0.5, 3, 20]))
    centre = np.cumsum(rng.normal(0, speed, (n, 2)), axis=0)
    half = 15 + np.abs(np.cumsum(rng.normal(0, draw(st.sampled_from([0, 1])), (n, 2)), axis=0))
    rows = np.round(np.concatenate([centre - half, centre + half], axis=1), 1).tolist()
    seen = rng.random(n) >= draw(st.sampled_from([0, 0.1, 0.5]))
    start = draw(st.integers(0, 5))
    return {start + i: tuple(rows[i]) for i in range(n) if seen[i]}


@settings(max_examples=100, deadline=None)
@given(tracks(), st.sampled_from([0.5, 0.8, 0.9, 0.99, 1.0]))
def test_interpolation_stays_within_the_tolerance(
    boxes: dict[int, BoxXYXY], tolerance: float
) -> None:
    keyframes = sparse_keyframes(boxes, tolerance=tolerance, num_frames=70)
    for frame in range(70):
        drawn = interpolate(keyframes, frame)
        assert (drawn is None) == (frame not in boxes), frame
        if drawn is not None:
            assert iou(drawn, boxes[frame]) >= tolerance - 1e-6
    assert [k.frame_idx for k in keyframes] == sorted({k.frame_idx for k in keyframes})
    for keyframe in keyframes:
        assert keyframe.box == boxes[keyframe.frame_idx]


@settings(max_examples=60, deadline=None)
@given(tracks(max_frames=9), st.sampled_from([0.6, 0.8, 0.9]))
def test_no_smaller_set_of_frames_would_do(boxes: dict[int, BoxXYXY], tolerance: float) -> None:
    found = sparse_keyframes(boxes, tolerance=tolerance)
    frames = sorted(boxes)
    for count in range(len(found)):
        for subset in combinations(frames, count):
            tried = [Keyframe(f, boxes[f], f + 1 in boxes) for f in subset]
            drawn = {f: interpolate(tried, f) for f in range(frames[-1] + 2 if frames else 0)}
            assert not all(
                (drawn[f] is None) == (f not in boxes)
                and (drawn[f] is None or iou(drawn[f], boxes[f]) >= tolerance)
                for f in drawn
            ), subset


@settings(max_examples=60, deadline=None)
@given(tracks(), st.data())
def test_the_annotators_own_keyframes_are_kept(
    boxes: dict[int, BoxXYXY], data: st.DataObject
) -> None:
    frames = data.draw(st.lists(st.integers(0, 66), max_size=4, unique=True))
    pinned = {frame: (100.0, 100.0, 130.5, 140.0) for frame in frames}
    keyframes = sparse_keyframes(boxes, pinned=pinned, num_frames=70)
    by_frame = {k.frame_idx: k.box for k in keyframes}
    for frame, box in pinned.items():
        assert by_frame[frame] == box
    truth = {**boxes, **pinned}
    for frame in range(70):
        drawn = interpolate(keyframes, frame)
        assert (drawn is None) == (frame not in truth)
        if drawn is not None:
            assert iou(drawn, truth[frame]) >= 0.9 - 1e-6


def test_straight_motion_needs_its_ends_only() -> None:
    boxes = {f: (2.0 * f, f / 2, 2.0 * f + 30, f / 2 + 20) for f in range(10, 60)}
    ends = sparse_keyframes(boxes, tolerance=1.0, num_frames=200)
    assert [(k.frame_idx, k.enabled) for k in ends] == [(10, True), (59, False)]
    bent = {**boxes, 40: (0.0, 0.0, 30.0, 20.0)}
    assert [k.frame_idx for k in sparse_keyframes(bent)] == [10, 39, 40, 41, 59]


def test_a_gap_ends_with_a_disabled_keyframe_and_one_frame_is_one_keyframe() -> None:
    box = (1.0, 2.0, 30.0, 40.0)
    boxes = dict.fromkeys([3, 4, 5, 9, 12, 13], box)
    assert [(k.frame_idx, k.enabled) for k in sparse_keyframes(boxes, num_frames=14)] == [
        (3, True),
        (5, False),
        (9, False),
        (12, True),
        (13, True),
    ]
    assert sparse_keyframes({}) == ()


def test_a_still_object_of_many_frames_has_two_keyframes() -> None:
    n = 4 * LONGEST_STEP + 17
    boxes = dict.fromkeys(range(n), (5.0, 5.0, 90.0, 70.0))
    keyframes = sparse_keyframes(boxes, num_frames=n)
    assert [(k.frame_idx, k.enabled) for k in keyframes] == [(0, True), (n - 1, True)]


@pytest.mark.parametrize("tolerance", [0, -0.1, 1.01])
def test_impossible_tolerances_are_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match=f"{tolerance:g}"):
        sparse_keyframes({0: (0.0, 0.0, 1.0, 1.0)}, tolerance=tolerance)


@pytest.mark.parametrize("box", [(3.0, 0.0, 3.0, 5.0), (0.0, 0.0, float("nan"), 5.0)])
def test_empty_boxes_are_refused_with_their_frame(box: BoxXYXY) -> None:
    with pytest.raises(UsageError, match="frame 7"):
        sparse_keyframes({7: box})


@pytest.mark.consumers
@needs_sdk
def test_label_studio_fills_in_the_same_boxes(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    truths = []
    for _ in range(20):
        corner = np.cumsum(rng.normal(0, 2, (40, 2)), axis=0)
        boxes = np.concatenate([corner, corner + rng.uniform(20, 40, (40, 2))], axis=1).round(1)
        seen = rng.random(40) > 0.15
        truths.append({t: tuple(boxes[t].tolist()) for t in range(40) if seen[t]})
    tracks = [sparse_keyframes(truth, num_frames=50, tolerance=0.7) for truth in truths]
    values = [
        {
            "framesCount": 50,
            "duration": 2.0,
            "sequence": [
                {
                    "frame": k.frame_idx + 1,
                    "enabled": k.enabled,
                    "rotation": 0,
                    "time": k.frame_idx / 25,
                    "x": k.box[0],
                    "y": k.box[1],
                    "width": k.box[2] - k.box[0],
                    "height": k.box[3] - k.box[1],
                }
                for k in track
            ],
        }
        for track in tracks
    ]
    for truth, track, rows in zip(truths, tracks, ask("keyframes", values, tmp_path), strict=True):
        theirs = {
            r["frame"] - 1: (r["x"], r["y"], r["x"] + r["width"], r["y"] + r["height"])
            for r in rows
        }
        ours = {f: box for f in range(50) if (box := interpolate(track, f)) is not None}
        assert set(theirs) == set(ours) == set(truth)
        for frame, box in ours.items():
            np.testing.assert_allclose(theirs[frame], box, atol=1e-6)
            assert iou(theirs[frame], truth[frame]) >= 0.7 - 1e-6
