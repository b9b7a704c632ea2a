from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_video import tiny_images, tiny_model

from edgetam_label.errors import JobEnded, PromptError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.labeler import Labeler
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.sessions import ModelIdentity, SessionStore
from edgetam_label.track_plan import histories, plan_passes
from edgetam_label.turnstile import Turnstile

COUNT = 24
CLICK = Prompt(1, 8, clicks=(Click(40, 30),))
BOX = Prompt(2, 2, box=Box(14, 20, 38, 44))


@pytest.fixture
def folder(tmp_path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for i, image in enumerate(tiny_images(COUNT)):
        Image.fromarray(image).save(images / f"{i:03d}.png")
    return images


@pytest.fixture
def frames(folder):
    with Frames.open(folder) as opened:
        yield opened


@pytest.fixture
def store(tmp_path):
    with SessionStore(tmp_path / "sessions.db") as opened:
        yield opened


@pytest.fixture
def labeler(store):
    return Labeler(tiny_model(), store)


def begin(labeler: Labeler, frames: Frames, *prompts: Prompt) -> str:
    session = labeler.create_session(frames)
    for prompt in prompts:
        labeler.add_prompt(session.id, prompt)
    return session.id


def masks(store: SessionStore, session_id: str) -> list:
    return list(store.iter_masks(session_id))


BOTH = ("forward", "backward")


def test_every_frame_of_every_object_is_stored(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK, BOX)
    summary = labeler.track(session_id, frames, directions=BOTH)
    rows = masks(store, session_id)
    assert summary.finished and len(rows) == 2 * COUNT
    status = {(m.obj_id, m.frame_idx): m.status for m in rows}
    assert status[1, 8] == status[2, 2] == "prompted"
    assert set(status.values()) == {"prompted", "tracked"}
    assert all(job.state == "done" for job in store.jobs.find(session_id))


def test_a_second_call_has_nothing_to_do(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames)
    before = masks(store, session_id)
    again = labeler.track(session_id, frames)
    assert (again.frames, again.masks, again.finished) == (0, 0, True)
    assert masks(store, session_id) == before


@pytest.mark.parametrize("stop_at", [1, 5, 17, 30])
def test_an_interrupted_track_ends_as_if_it_had_not_been(labeler, store, frames, stop_at):
    whole = begin(labeler, frames, CLICK, BOX)
    labeler.track(whole, frames, directions=BOTH)
    broken = begin(labeler, frames, CLICK, BOX)
    seen: list[int] = []
    stopped = labeler.track(
        broken,
        frames,
        directions=BOTH,
        on_frame=lambda t: seen.append(t.frame_idx),
        cancel=lambda: len(seen) >= stop_at,
    )
    assert not stopped.finished
    resumed = labeler.resume(broken, frames)
    assert resumed.finished
    assert masks(store, broken) == masks(store, whole)


def test_max_frames_then_the_rest(labeler, store, frames):
    whole = begin(labeler, frames, BOX)
    labeler.track(whole, frames)
    parts = begin(labeler, frames, BOX)
    first = labeler.track(parts, frames, max_frames=7)
    assert (first.frames, first.finished) == (7, False)
    assert [m.frame_idx for m in masks(store, parts)] == list(range(2, 9))
    assert labeler.track(parts, frames).frames == COUNT - 9
    assert masks(store, parts) == masks(store, whole)


def test_a_correction_changes_its_object_from_its_frame_on(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK, BOX)
    labeler.track(session_id, frames, directions=BOTH)
    before = masks(store, session_id)
    given = labeler.add_prompt(session_id, Prompt(2, 12, clicks=(Click(80, 8, positive=False),)))
    assert given.correction
    summary = labeler.track(session_id, frames, directions=BOTH)
    changed = [
        (new.obj_id, new.frame_idx)
        for old, new in zip(before, masks(store, session_id), strict=True)
        if old != new
    ]
    assert changed and {obj for obj, _ in changed} == {2}
    assert min(frame for _, frame in changed) == 12
    assert summary.frames == COUNT - 12
    store.undo(session_id)
    labeler.track(session_id, frames, directions=BOTH)
    assert masks(store, session_id) == before


def test_a_correction_behind_the_start_goes_backward(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames, directions=BOTH)
    before = masks(store, session_id)
    labeler.add_prompt(session_id, Prompt(1, 4, clicks=(Click(80, 8, positive=False),)))
    labeler.track(session_id, frames, directions=BOTH)
    after = masks(store, session_id)
    changed = {new.frame_idx for old, new in zip(before, after, strict=True) if old != new}
    assert changed and max(changed) == 4


def test_a_moved_start_leaves_no_mask_of_the_old_one(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames)
    store.clear_prompt(session_id, 1, 8)
    labeler.add_prompt(session_id, Prompt(1, 15, clicks=(Click(60, 30),)))
    labeler.track(session_id, frames)
    assert min(m.frame_idx for m in masks(store, session_id)) == 15


def move_start(labeler: Labeler, store: SessionStore, session_id: str, old: int, new: int) -> None:
    store.clear_prompt(session_id, 1, old)
    labeler.add_prompt(session_id, Prompt(1, new, clicks=(Click(60, 30),)))


def test_a_moved_start_drops_each_old_mask_once(labeler, store, frames):
    """The second direction, tracked later, must not take the new masks of the first for old."""
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames, directions=BOTH)
    move_start(labeler, store, session_id, 8, 15)
    fresh = begin(labeler, frames, Prompt(1, 15, clicks=(Click(60, 30),)))
    for direction in BOTH:
        labeler.track(session_id, frames, directions=(direction,))
        labeler.track(fresh, frames, directions=(direction,))
    assert len(masks(store, session_id)) == COUNT
    assert masks(store, session_id) == masks(store, fresh)


def test_a_start_that_moved_away_and_back_is_tracked_again(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames, directions=BOTH)
    before = masks(store, session_id)
    move_start(labeler, store, session_id, 8, 15)
    labeler.track(session_id, frames)
    store.undo(session_id)
    store.undo(session_id)
    labeler.track(session_id, frames, directions=BOTH)
    assert masks(store, session_id) == before


KILLED_AT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from sqlalchemy import Engine, event
from tiny_video import tiny_model
from edgetam_label.labeler import Labeler
from edgetam_label.sessions import SessionStore
store = SessionStore({db!r})
labeler = Labeler(tiny_model(), store)

@event.listens_for(Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *rest):
    if statement.startswith({statement!r}):
        os.kill(os.getpid(), signal.SIGKILL)

labeler.track({session!r})
"""


@pytest.mark.parametrize(
    ("statement", "old_masks"),
    [("DELETE FROM masks", True), ("INSERT INTO jobs", True), ("UPDATE jobs", False)],
)
def test_killed_while_a_moved_start_begins_nothing_is_lost(
    labeler, store, frames, tmp_path, statement, old_masks
):
    """The old masks are there until the job that replaces them is on record; then it is resumed."""
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames)
    before = masks(store, session_id)
    move_start(labeler, store, session_id, 8, 15)
    script = KILLED_AT.format(
        tests=str(Path(__file__).parent),
        db=str(tmp_path / "sessions.db"),
        session=session_id,
        statement=statement,
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert masks(store, session_id) == (before if old_masks else [])
    assert len(store.jobs.unfinished(session_id)) == (0 if old_masks else 1)
    labeler.resume(session_id, frames)
    fresh = begin(labeler, frames, Prompt(1, 15, clicks=(Click(60, 30),)))
    labeler.track(fresh, frames)
    assert masks(store, session_id) == masks(store, fresh)


def test_planning_changes_nothing(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK)
    labeler.track(session_id, frames)
    move_start(labeler, store, session_id, 8, 15)
    before, jobs = masks(store, session_id), store.jobs.find(session_id)
    (one,) = plan_passes(
        list(histories(store.history(session_id)).values()),
        {event.seq: event for event in store.events(session_id)},
        jobs,
        ("forward",),
        COUNT,
    )
    assert (one.start, one.stop, one.drops) == (15, COUNT, {1})
    assert (masks(store, session_id), store.jobs.find(session_id)) == (before, jobs)


def test_a_newer_track_of_the_same_object_stops_the_older_one(labeler, store, frames):
    session_id = begin(labeler, frames, BOX)
    newer = Labeler(tiny_model(), store)
    began = []

    def overtake(tracked) -> None:
        if tracked.frame_idx == 6 and not began:
            began.append(newer.track(session_id, frames))

    with pytest.raises(JobEnded, match="a newer track took over"):
        labeler.track(session_id, frames, on_frame=overtake)
    assert [job.state for job in store.jobs.find(session_id)] == ["cancelled", "done"]
    alone = begin(labeler, frames, BOX)
    labeler.track(alone, frames)
    assert masks(store, session_id) == masks(store, alone)


def test_a_session_that_the_server_tracked_is_tracked_from_its_first_prompt(labeler, store, frames):
    session_id = begin(labeler, frames, BOX)
    job = store.jobs.start(
        session_id, direction="forward", start=2, objects=[2], payload={"kind": "label-studio"}
    )
    store.jobs.update(job.id, state="done")
    assert labeler.resume(session_id, frames).frames == COUNT - 2


def test_approved_masks_stay(labeler, store, frames):
    from dataclasses import replace

    session_id = begin(labeler, frames, BOX)
    labeler.track(session_id, frames, max_frames=6)
    mine = replace(masks(store, session_id)[3], status="approved")
    store.save_masks(session_id, [mine])
    labeler.add_prompt(session_id, Prompt(2, 3, clicks=(Click(80, 8, positive=False),)))
    labeler.track(session_id, frames)
    assert mine in masks(store, session_id)


def test_two_annotators_share_the_model_fairly(labeler, store, frames):
    """Both tracks advance together, and each gives what it gives alone."""
    alone = begin(labeler, frames, BOX)
    labeler.track(alone, frames)
    sessions = [begin(labeler, frames, BOX) for _ in range(2)]
    order: list[int] = []

    def work(i: int) -> None:
        labeler.track(sessions[i], frames, on_frame=lambda _: order.append(i))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session_id in sessions:
        assert masks(store, session_id) == masks(store, alone)
    first_end = max(i for i, who in enumerate(order) if who == order[0])
    second_begin = min(i for i, who in enumerate(order) if who != order[0])
    assert second_begin < first_end, "one waited for the other's whole track"


def test_turnstile_is_first_come_first_served():
    turnstile, order = Turnstile(), []

    def worker(i: int) -> None:
        for _ in turnstile.in_turns(iter(range(2))):
            order.append(i)

    threads = [threading.Thread(target=worker, args=(i,)) for i in range(3)]
    with turnstile:
        for i, thread in enumerate(threads):
            thread.start()
            while len(turnstile._patient) <= i:
                time.sleep(0.001)
        waiting = list(turnstile._patient)
    for thread in threads:
        thread.join()
    assert len(waiting) == 3 and sorted(order) == [0, 0, 1, 1, 2, 2]
    assert order.index(0) < order.index(1) < order.index(2)


def test_another_model_is_refused(labeler, store, frames):
    labeler.identity = ModelIdentity("tiny", "a" * 64, "c" * 64)
    session_id = begin(labeler, frames, BOX)
    labeler.track(session_id, frames, max_frames=2)
    labeler.identity = ModelIdentity("tiny", "b" * 64, "c" * 64)
    with pytest.raises(UsageError, match="was tracked with tiny .checkpoint aaaaaaaaaaaa"):
        labeler.track(session_id, frames)


def test_nothing_to_track(labeler, store, frames):
    session_id = begin(labeler, frames)
    with pytest.raises(PromptError, match="has no prompts"):
        labeler.track(session_id, frames)
    labeler.add_prompt(session_id, BOX)
    with pytest.raises(PromptError, match="Object 7 has no prompts; objects that have: 2"):
        labeler.track(session_id, frames, objects=[7])


def test_an_image_is_embedded_once(labeler):
    image = tiny_images(1)[0]
    loads: list[int] = []

    def load() -> np.ndarray:
        loads.append(1)
        return image

    first = labeler.embed("a", load)
    assert labeler.embed("a", load) is first and len(loads) == 1


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from tiny_video import tiny_model
from edgetam_label.frames import Frames
from edgetam_label.labeler import Labeler
from edgetam_label.sessions import SessionStore
store = SessionStore({db!r})
labeler = Labeler(tiny_model(), store, batch_masks=3)
print("ready", flush=True)
labeler.track({session!r}, directions=("forward", "backward"))
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_where_it_stopped(labeler, store, frames, tmp_path):
    """kill -9 while tracking: whole batches only, and the end result is the uninterrupted one."""

    # all in processes of their own: what ran before in this one may have changed how sums round,
    # and seeded noise for weights makes much of the last bit
    def script(session_id: str) -> list[str]:
        text = textwrap.dedent(SCRIPT).format(
            tests=str(Path(__file__).parent), db=str(tmp_path / "sessions.db"), session=session_id
        )
        return [sys.executable, "-c", text]

    whole = begin(labeler, frames, CLICK, BOX)
    subprocess.run(script(whole), check=True, stdout=subprocess.DEVNULL)
    expected = masks(store, whole)
    assert len(expected) == 2 * COUNT
    session_id = begin(labeler, frames, CLICK, BOX)
    stored = []
    for delay in (0.05, 0.15, 0.3):
        process = subprocess.Popen(script(session_id), stdout=subprocess.PIPE, env={**os.environ})
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        rows = masks(store, session_id)
        assert set(map(repr, rows)) <= set(map(repr, expected))
        stored.append(len(rows))
    assert stored == sorted(stored)
    subprocess.run(script(session_id), check=True, stdout=subprocess.DEVNULL)
    assert masks(store, session_id) == expected


def test_an_object_that_is_tracked_later_leaves_the_others_their_pixels(store, frames):
    def shared(non_overlap: bool) -> int:
        model = tiny_model(flow_prompt=True, fuse_flow=True, non_overlap=non_overlap)
        labeler = Labeler(model, store)
        session_id = begin(labeler, frames, BOX)
        labeler.track(session_id, frames)
        before = masks(store, session_id)
        labeler.add_prompt(session_id, replace(BOX, obj_id=3))  # the same thing once more
        labeler.track(session_id, frames)
        rows = masks(store, session_id)
        assert [m for m in rows if m.obj_id == 2] == before  # the other one is not made again
        tracked = [store.masks_on(session_id, i) for i in range(BOX.frame_idx + 1, COUNT)]
        return sum(int((found[2].decode() & found[3].decode()).sum()) for found in tracked)

    assert shared(True) < shared(False) / 4


def test_masks_on_a_frame(labeler, store, frames):
    session_id = begin(labeler, frames, CLICK, BOX)
    labeler.track(session_id, frames)
    assert set(store.masks_on(session_id, 12)) == {1, 2}
    assert store.masks_on(session_id, 12, besides=[2]) == {1: store.masks_on(session_id, 12)[1]}
    assert store.masks_on(session_id, COUNT) == {}
