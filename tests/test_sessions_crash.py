"""kill -9 while masks are written: whole batches stay, at most the one in flight is lost."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest
from session_samples import finish, mask, media, python, sql

from edgetam_label.prompts import Click, Prompt
from edgetam_label.sessions import LabelObject, SessionStore

OBJECTS = (1, 2, 3, 4)
FRAMES_PER_BATCH = 100

# Writes batch after batch and reports each on stdout once its transaction is committed.
WRITER = """
import sys
from session_samples import mask
from edgetam_label.sessions import SessionStore

store = SessionStore(sys.argv[1])
job = store.jobs.get(sys.argv[2])
at = job.next_frame
print("ready", flush=True)
while True:
    frames = range(at, at + int(sys.argv[3]))
    masks = [mask(obj_id, frame) for frame in frames for obj_id in (1, 2, 3, 4)]
    at = frames.stop
    store.save_masks(job.session_id, masks, job_id=job.id, next_frame=at)
    print(at, flush=True)
"""


@pytest.mark.slow
def test_killing_the_writer_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path) as store:
        session_id = store.create(media(1_000_000)).id
        for obj_id in OBJECTS:
            store.set_object(session_id, LabelObject(obj_id, "cat"))
        job = store.jobs.start(session_id, direction="forward", start=0)
    moments = random.Random(7)
    for _ in range(6):
        stored_before = _next_frame(path, job.id)
        reported = _kill_a_writer(path, job.id, after=moments.uniform(0.0, 0.4))
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
        assert sql(path, "PRAGMA foreign_key_check") == []
        stored = _next_frame(path, job.id)
        # The last report may be missing (killed after the commit), never the last commit.
        assert stored - max(reported, stored_before) in (0, FRAMES_PER_BATCH)
        assert stored % FRAMES_PER_BATCH == 0
        assert sql(
            path,
            "SELECT obj_id, min(frame_idx), max(frame_idx), count(*) FROM masks GROUP BY obj_id",
        ) == [(o, 0, stored - 1, stored) for o in OBJECTS]
    assert stored >= 6 * FRAMES_PER_BATCH  # every writer went on where the one before it died
    with SessionStore(path) as store:
        tail = list(store.iter_masks(session_id, start=stored - 1))
        assert tail == [mask(o, stored - 1) for o in OBJECTS]
        assert [j.id for j in store.jobs.unfinished()] == [job.id]


def _kill_a_writer(path: Path, job_id: str, *, after: float) -> int:
    """Start a writer, kill it `after` seconds into its work; the last frame that it reported."""
    process = python(WRITER, path, job_id, FRAMES_PER_BATCH)
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline()]
    assert lines == ["ready\n"], process.stderr.read()
    lines.append(process.stdout.readline())  # at least one batch, also on a slow machine
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    time.sleep(after)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    reader.join()
    process.communicate()
    return int([line for line in lines if line.endswith("\n")][-1])


def _next_frame(path: Path, job_id: str) -> int:
    with SessionStore(path) as store:
        return store.jobs.get(job_id).next_frame


WORKER = """
import sys
from session_samples import mask
from edgetam_label.prompts import Click, Prompt
from edgetam_label.sessions import SessionStore

print("ready", flush=True)
sys.stdin.readline()
store = SessionStore(sys.argv[1])
session_id = sys.argv[2]
obj_id = int(sys.argv[3])
for start in range(0, 300, 10):
    store.add_prompt(session_id, Prompt(obj_id, start, (Click(1, 1),)))
    store.save_masks(session_id, [mask(obj_id, f) for f in range(start, start + 10)])
"""


@pytest.mark.slow
def test_processes_write_to_one_session_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path) as store:
        session_id = store.create(media()).id
        workers = [python(WORKER, path, session_id, obj_id) for obj_id in OBJECTS]
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            finish(worker)
        assert store.get(session_id).num_masks == 300 * len(OBJECTS)
        assert [e.seq for e in store.events(session_id)] == list(range(1, 30 * len(OBJECTS) + 1))
        expected = {Prompt(o, f, (Click(1, 1),)) for o in OBJECTS for f in range(0, 300, 10)}
        assert set(store.get(session_id).prompts) == expected
