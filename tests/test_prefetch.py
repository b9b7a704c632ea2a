from __future__ import annotations

import threading
import time

import pytest
from tiny_video import tiny_frames, tiny_model

from edgetam_label.errors import MediaError
from edgetam_label.prefetch import Prefetch
from edgetam_label.prompts import Click, Prompt
from edgetam_label.tracker import VideoTracker


def helpers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("prefetch", "mask-writer"))]


def test_order_is_kept_and_the_thread_ends():
    with Prefetch(iter(range(50))) as ahead:
        assert list(ahead) == list(range(50))
        assert list(ahead) == []
    assert helpers() == []


def test_no_more_is_made_ahead_than_asked():
    made: list[int] = []

    def source():
        for i in range(20):
            made.append(i)
            yield i

    with Prefetch(source(), ahead=2) as ahead:
        for i in range(5):
            assert next(ahead) == i
            time.sleep(0.02)
            assert len(made) <= i + 3
        assert len(made) == 7


def test_an_error_arrives_in_its_place():
    def source():
        yield 1
        yield 2
        raise MediaError("Frame 2 can no longer be decoded.")

    with Prefetch(source()) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(MediaError, match="no longer"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)
    assert helpers() == []


def test_leaving_early_closes_the_source():
    closed = []

    def source():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    with Prefetch(source()) as ahead:
        next(ahead)
    assert closed and helpers() == []


def test_a_pass_that_is_given_up_leaves_no_thread():
    tracker = VideoTracker(tiny_model(), tiny_frames(8))
    tracker.add_prompt(Prompt(1, 0, clicks=(Click(20, 32),)))
    passed = tracker.propagate()
    next(passed)
    assert helpers()
    passed.close()
    assert helpers() == []
    calls: list[int] = []
    list(tracker.propagate(cancel=lambda: len(calls) > 1 or calls.append(1)))
    assert helpers() == []
