"""Tracking jobs resume; people's annotations are kept word for word."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from session_samples import mask, media

from edgetam_label.errors import JobEnded, SessionNotFound, UsageError
from edgetam_label.session_types import JobPlan
from edgetam_label.sessions import ExternalAnnotation, LabelObject, SessionStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "sessions.db") as opened:
        yield opened


def test_a_job_and_its_masks_move_together(store: SessionStore) -> None:
    session_id = store.create(media()).id
    store.set_object(session_id, LabelObject(1, "cat"))
    payload = {"task": 7, "регион": ["r1"]}
    job = store.jobs.start(
        session_id, direction="backward", start=90, stop=-1, objects=[1], payload=payload
    )
    assert (job.next_frame, job.stop, job.objects, job.unfinished) == (90, -1, (1,), True)
    store.save_masks(session_id, [mask(1, 90), mask(1, 89)], job_id=job.id, next_frame=88)
    moved = store.jobs.get(job.id)
    assert (moved.next_frame, moved.payload, moved.session_id) == (88, payload, session_id)
    with pytest.raises(UsageError):
        store.save_masks(session_id, [mask(5, 0)], job_id=job.id, next_frame=10)
    assert store.jobs.get(job.id).next_frame == 88
    store.jobs.update(job.id, state="failed", error="the file is gone")
    ended = store.jobs.get(job.id)
    assert (ended.state, ended.error, ended.unfinished) == ("failed", "the file is gone", False)


def test_jobs_of_other_sessions_cannot_be_moved(store: SessionStore) -> None:
    mine, other = store.create(media()).id, store.create(media()).id
    store.set_object(mine, LabelObject(1, "cat"))
    job = store.jobs.start(other, direction="forward", start=0)
    with pytest.raises(UsageError, match=job.id):
        store.save_masks(mine, [mask(1, 0)], job_id=job.id, next_frame=1)
    assert store.jobs.get(job.id).next_frame == 0 and store.get(mine).num_masks == 0


def test_unfinished_jobs_are_found_after_a_restart(tmp_path: Path) -> None:
    with SessionStore(tmp_path / "s.db") as store:
        one, two = store.create(media()).id, store.create(media()).id
        jobs = [store.jobs.start(s, direction="forward", start=0) for s in (one, two, one)]
        queued = store.jobs.start(one, direction="forward", start=5, state="queued")
        store.jobs.update(jobs[0].id, state="done")
    with SessionStore(tmp_path / "s.db") as store:
        assert [j.id for j in store.jobs.unfinished()] == [jobs[1].id, jobs[2].id, queued.id]
        assert [j.id for j in store.jobs.unfinished(one)] == [jobs[2].id, queued.id]
        assert [j.id for j in store.jobs.find(one, states=["done"])] == [jobs[0].id]


def test_a_job_has_one_owner_at_a_time(store: SessionStore) -> None:
    job = store.jobs.start(store.create(media()).id, direction="forward", start=0, state="queued")
    won: list[str] = []

    def claim(owner: str) -> None:
        if store.jobs.claim(job.id, owner, 30):
            won.append(owner)

    threads = [threading.Thread(target=claim, args=(f"worker {i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    owned = store.jobs.get(job.id)
    assert owned.owner == won[0] and owned.state == "running"
    assert store.jobs.claim(job.id, won[0], -1)  # prolongs; here to a lease that has run out
    assert store.jobs.claim(job.id, "successor")
    assert not store.jobs.claim(job.id, won[0])
    assert store.jobs.update(job.id, state="cancelled").owner is None
    assert not store.jobs.claim(job.id, "late")


def test_a_job_that_is_given_back_is_free_at_once(store: SessionStore) -> None:
    job = store.jobs.start(store.create(media()).id, direction="forward", start=0, state="queued")
    assert store.jobs.claim(job.id, "first", 30)
    store.jobs.release(job.id, "another")  # not his
    assert not store.jobs.claim(job.id, "second")
    store.jobs.release(job.id, "first")
    given_back = store.jobs.get(job.id)
    assert given_back.owner is None and given_back.unfinished
    assert store.jobs.claim(job.id, "second")
    done = store.jobs.update(job.id, state="done")
    store.jobs.release(job.id, "second")
    assert store.jobs.get(job.id) == done


def test_a_job_ends_once_and_then_stores_nothing(store: SessionStore) -> None:
    session_id = store.create(media()).id
    store.set_object(session_id, LabelObject(1, "cat"))
    job = store.jobs.start(session_id, direction="forward", start=0, objects=[1])
    store.save_masks(session_id, [mask(1, 0)], job_id=job.id, next_frame=1)
    store.jobs.update(job.id, state="cancelled")
    with pytest.raises(JobEnded, match=f"{job.id} is cancelled"):
        store.save_masks(session_id, [mask(1, 1)], job_id=job.id, next_frame=2)
    assert [m.frame_idx for m in store.iter_masks(session_id)] == [0]
    assert store.jobs.update(job.id, state="done", error="too late").state == "cancelled"
    assert store.jobs.get(job.id).error is None


def test_new_jobs_supersede_old_ones_and_drop_masks_at_once(store: SessionStore) -> None:
    session_id = store.create(media()).id
    for obj_id in (1, 2):
        store.set_object(session_id, LabelObject(obj_id, "cat"))
    old = [
        store.jobs.start(session_id, direction=way, start=4, objects=objects)
        for way, objects in (("forward", [1]), ("backward", [1]), ("forward", [1, 2]))
    ]
    store.save_masks(session_id, [mask(o, 4) for o in (1, 2)])
    plan = JobPlan("forward", 7, objects=(1,), payload={"a": 1})
    new = store.jobs.supersede(session_id, [plan], known=old, drop_masks_of=[1])
    assert new is not None
    assert [(j.start, j.next_frame, j.state, j.payload) for j in new] == [
        (7, 7, "queued", {"a": 1})
    ]
    states = [store.jobs.get(one.id).state for one in old]
    assert states == ["cancelled", "running", "running"]
    assert [m.obj_id for m in store.iter_masks(session_id)] == [2]
    # planned without knowing of the last one: nothing happens
    assert store.jobs.supersede(session_id, [plan], known=old, drop_masks_of=[2]) is None
    assert [m.obj_id for m in store.iter_masks(session_id)] == [2]
    assert len(store.jobs.find(session_id)) == 4


def test_impossible_jobs_are_refused(store: SessionStore) -> None:
    session_id = store.create(media()).id
    with pytest.raises(UsageError, match="'sideways'"):
        store.jobs.start(session_id, direction="sideways", start=0)
    with pytest.raises(UsageError, match="'paused'"):
        store.jobs.start(session_id, direction="forward", start=0, state="paused")
    with pytest.raises(SessionNotFound):
        store.jobs.start("nope", direction="forward", start=0)
    with pytest.raises(UsageError, match="'nope'"):
        store.jobs.get("nope")
    with pytest.raises(UsageError, match="'nope'"):
        store.jobs.update("nope", state="done")


def annotation(key: str, number: int, moment: datetime | None = None) -> ExternalAnnotation:
    regions = [{"id": "r1", "value": {"x": 0.1}}, {"id": "r1", "choices": ["да"]}, {"id": "r2"}]
    payload = {"id": number, "result": regions}
    return ExternalAnnotation(key, str(number), payload, "anna@example.org", moment)


def test_annotations_come_back_word_for_word(store: SessionStore) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    given = annotation("ls/1/7", 3, moment)
    assert store.annotations.put(given)
    assert store.annotations.of("ls/1/7") == [given]
    assert len(given.regions) == 3 and len(given.regions_of("r1")) == 2
    assert ExternalAnnotation("k", "1", {}).regions == ()


def test_an_old_version_does_not_replace_a_new_one(store: SessionStore) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    new = annotation("k", 3, moment)
    store.annotations.put(new)
    old = ExternalAnnotation("k", "3", {"result": []}, None, moment - timedelta(seconds=1))
    assert not store.annotations.put(old)
    assert store.annotations.of("k") == [new]
    newer = ExternalAnnotation("k", "3", {"result": []}, None, moment + timedelta(seconds=1))
    assert store.annotations.put(newer)
    assert store.annotations.of("k") == [newer]


def test_annotations_are_found_by_task_and_by_project(store: SessionStore) -> None:
    keys = [f"ls/{project}/{task:03d}" for project in (1, 2) for task in range(100)]
    for key in reversed(keys):
        store.annotations.put(annotation(key, 1))
    store.annotations.put(annotation(keys[0], 2))
    store.annotations.put(annotation("LS/1/1", 1))
    found = [(a.source_key, a.annotation_id) for a in store.annotations.under("ls/1/")]
    assert found == [(keys[0], "1"), (keys[0], "2"), *((key, "1") for key in keys[1:100])]
    assert store.annotations.delete(keys[0], ["2", "99"]) == 1
    assert store.annotations.delete(keys[1]) == 1
    assert [a.source_key for a in store.annotations.under("ls/1/")] == [keys[0], *keys[2:100]]
    assert list(store.annotations.under("ls/3/")) == []
