from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from tiny_video import HEIGHT, WIDTH, tiny_frames

from edgetam_label.crops import Crop
from edgetam_label.errors import MediaError, UsageError
from edgetam_label.mask_writer import BatchLimits, MaskWriter
from edgetam_label.prompts import Click, Prompt
from edgetam_label.sessions import SessionStore
from edgetam_label.tracker import TrackedFrame


@pytest.fixture
def store(tmp_path):
    with SessionStore(tmp_path / "sessions.db") as opened:
        yield opened


CROP = Crop.whole(WIDTH, HEIGHT)


@pytest.fixture
def session_id(store):
    session = store.create(tiny_frames(40).identity)
    store.add_prompt(session.id, Prompt(1, 0, clicks=(Click(20, 32),)))
    return session.id


def tracked(frame_idx: int, obj_id: int = 1) -> TrackedFrame:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[frame_idx : frame_idx + 9, 5:30] = True
    logits = torch.zeros(1, 1, 32, 32)
    return TrackedFrame(frame_idx, obj_id, mask, 3.0, False, frame_idx == 0, logits, CROP)


def writer(store, session_id, masks=8, direction="forward", on_stored=None) -> MaskWriter:
    job = store.jobs.start(session_id, direction=direction, start=0, objects=(1,))
    limits = BatchLimits(masks, 60.0)
    return MaskWriter(store, session_id, job.id, direction, limits, on_stored=on_stored)


def test_everything_is_stored_in_order_and_the_position_moves(store, session_id):
    with writer(store, session_id) as out:
        for t in range(20):
            out.add(tracked(t))
        out.finish(complete=True)
    assert (out.frames, out.masks) == (20, 20)
    rows = list(store.iter_masks(session_id))
    assert [m.frame_idx for m in rows] == list(range(20))
    assert all(np.array_equal(m.rle.decode(), tracked(m.frame_idx).mask) for m in rows)
    assert [m.status for m in rows[:2]] == ["prompted", "tracked"]
    assert store.jobs.find(session_id)[0].next_frame == 20


@pytest.mark.parametrize("count", [7, 8, 9, 10])
def test_the_position_is_behind_the_last_frame_wherever_a_batch_ends(store, session_id, count):
    with writer(store, session_id) as out:
        for t in range(count):
            out.add(tracked(t))
        out.finish(complete=True)
    assert store.jobs.find(session_id)[0].next_frame == count


def test_the_first_mask_is_stored_at_once_and_every_batch_is_told(store, session_id):
    told: list[tuple[int, int]] = []
    with writer(store, session_id, on_stored=lambda *what: told.append(what)) as out:
        for t in range(9):  # one, then a batch of eight
            out.add(tracked(t))
        out.finish(complete=True)
    assert told == [(1, 0), (8, 8), (0, 9)]


def test_without_the_last_object_a_frame_counts_as_to_do(store, session_id):
    with writer(store, session_id) as out:
        for t in range(5):
            out.add(tracked(t))
        out.finish(complete=False)
    assert store.jobs.find(session_id)[0].next_frame == 4


def test_another_error_loses_nothing_that_was_added(store, session_id):
    with pytest.raises(MediaError), writer(store, session_id) as out:
        for t in range(11):
            out.add(tracked(t))
        raise MediaError("Frame 11 can no longer be decoded.")
    assert out.masks == 11 and len(list(store.iter_masks(session_id))) == 11
    assert store.jobs.find(session_id)[0].next_frame == 10


def test_a_refusal_of_the_store_reaches_the_tracker(store, session_id):
    before = threading.active_count()
    with pytest.raises(UsageError, match="object 7"), writer(store, session_id, masks=2) as out:
        for t in range(40):
            out.add(tracked(t, obj_id=7))
        out.finish(complete=True)
    assert list(store.iter_masks(session_id)) == []
    assert threading.active_count() == before
