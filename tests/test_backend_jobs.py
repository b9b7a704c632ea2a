"""Background jobs where things cross: corrections, deletions, restarts, two annotators."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_bodies import VIDEO_CONFIG, keyframe, predict_body, track
from backend_rig import Rig, movie, running, seeing_model, settings
from studio_double import Studio

from edgetam_label.backend import jobs as jobs_module
from edgetam_label.backend.app import create_app
from edgetam_label.backend.faults import TooManyJobs
from edgetam_label.backend.job_queue import JobQueue
from edgetam_label.backend.job_tracker import pass_begin
from edgetam_label.backend.keyed_locks import KeyedLocks
from edgetam_label.backend.live_jobs import LiveJob, LiveJobs
from edgetam_label.errors import MediaError, StoreError
from edgetam_label.frames import Frames
from edgetam_label.prompts import Click, Prompt
from edgetam_label.sessions import FrameMask, SessionStore
from edgetam_label.tracker import TrackerSettings, VideoTracker

DATA = {"movie": "/data/upload/2/m.mp4"}
FIRST = keyframe(1, 12.5, 33.3, 25, 33.3)
MOVED = keyframe(1, 40, 40, 20, 30)
PUSHED = "/api/predictions/"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return movie(tmp_path_factory.mktemp("clip") / "m.mp4", frames=12)


@pytest.fixture
def studio(clip: Path) -> Iterator[Studio]:
    with Studio() as one:
        one.add(DATA["movie"], clip)
        yield one


def body(*regions: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    return predict_body(VIDEO_CONFIG, DATA, list(regions), **kwargs)


def box(first: dict[str, Any] = FIRST, **kwargs: Any) -> dict[str, Any]:
    return track([first], frames=12, **kwargs)


def until(true: Any, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def slow(rig: Rig, seconds: float) -> None:
    """Make each turn at the accelerator slower, as a bigger model would."""
    real = rig.backend.host.turnstile._leave

    def leave() -> None:
        time.sleep(seconds)
        real()

    rig.backend.host.turnstile._leave = leave  # type: ignore[method-assign]


def patient(rig: Rig, seconds: float) -> None:
    rig.backend.settings.__dict__["predict_deadline"] = seconds


def masks(rig: Rig, task: int = 1, obj_id: int = 1) -> list[FrameMask]:
    session = rig.backend.store.find(rig.backend.videos.sessions.key("1", str(task)))
    assert session is not None
    return list(rig.backend.store.iter_masks(session.id, obj_id=obj_id))


def under_way(rig: Rig, done: int = 1) -> dict[str, Any]:
    """The last job, once it has stored something and has more to do."""
    until(lambda: rig.backend.jobs.all() and rig.backend.jobs.all()[-1]["done"] >= done)
    return rig.backend.jobs.all()[-1]


# -- the parts --------------------------------------------------------------------------------


def test_one_thread_at_a_time_for_each_key_and_nothing_is_left() -> None:
    locks, inside, most = KeyedLocks(), {"a": 0, "b": 0}, []

    def work(key: str) -> None:
        for _ in range(50):
            with locks.hold(key):
                inside[key] += 1
                most.append(inside[key])
                time.sleep(0)
                inside[key] -= 1

    threads = [threading.Thread(target=work, args=("ab"[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 400 and max(most) == 1 and len(locks) == 0


def test_the_queue_is_first_come_first_served_and_holds_back_what_is_not_due() -> None:
    waiting: JobQueue[str] = JobQueue()
    waiting.put("later", delay=0.2)
    for name in ("one", "two"):
        waiting.put(name)
    began = time.monotonic()
    assert [waiting.get() for _ in range(3)] == ["one", "two", "later"]
    assert time.monotonic() - began >= 0.19
    # a worker that awaited a later job and took another first leaves the later one to the rest
    first, second = (threading.Thread(target=lambda: taken.append(waiting.get())) for _ in "ab")
    taken: list[str | None] = []
    waiting.put("later", delay=0.3)
    first.start()
    second.start()
    time.sleep(0.05)
    waiting.put("now")
    first.join(10)
    second.join(10)
    assert taken == ["now", "later"]
    got: list[str | None] = []
    threads = [threading.Thread(target=lambda: got.append(waiting.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    waiting.put("far", delay=1000)
    waiting.close()
    for thread in threads:
        thread.join(10)
    assert got == [None] * 3 and waiting.get() is None


def prompt(frame_idx: int, obj_id: int = 1) -> Prompt:
    return Prompt(obj_id, frame_idx, clicks=(Click(1, 1),))


@pytest.mark.parametrize(
    ("prompts", "start", "step", "begin"),
    [
        ([prompt(5)], 5, 1, 5),
        ([prompt(0), prompt(5)], 5, 1, 5),
        ([prompt(0), prompt(5)], 7, 1, 5),
        ([prompt(0), prompt(9)], 7, 1, 0),
        ([prompt(0), prompt(6, obj_id=2)], 7, 1, 0),
        ([prompt(9)], 7, 1, 7),
        ([prompt(9)], 8, -1, 9),
        ([prompt(9), prompt(2)], 5, -1, 9),
    ],
)
def test_a_pass_begins_at_the_last_prompt_before_what_it_writes(
    prompts: list[Prompt], start: int, step: int, begin: int
) -> None:
    assert pass_begin(prompts, start, step) == begin


def live(name: str, client: str = "ann", **values: Any) -> LiveJob:
    return LiveJob(name, "s", (1,), client, 10, {}, **values)


def test_what_counts_towards_the_limits() -> None:
    jobs = LiveJobs(workers=1, per_client=2)
    mine = [live("a"), live("b"), live("c", state="done"), live("d", elsewhere=True)]
    assert [jobs.add(job) for job in (*mine, mine[0])] == [True] * 4 + [False]
    jobs.check_limits("bob", 2, ())
    with pytest.raises(TooManyJobs, match="have 2 tracks under way, and one client may have 2"):
        jobs.check_limits("ann", 1, ())
    jobs.check_limits("ann", 1, replacing=mine[:1])
    with pytest.raises(TooManyJobs):
        jobs.check_limits("ann", 2, replacing=mine[:1])
    for i in range(6):
        jobs.add(live(f"x{i}", client=f"c{i}"))
    with pytest.raises(TooManyJobs, match="8 tracks wait or run"):
        jobs.check_limits("eve", 1, ())


# -- corrections ------------------------------------------------------------------------------


def test_a_box_corrected_while_its_job_runs_leaves_nothing_of_the_old_track(
    tmp_path: Path, studio: Studio
) -> None:
    with running(tmp_path, studio, predict_deadline=0.3, max_jobs_per_client=1) as rig:
        slow(rig, 0.15)
        rig.predict(body(box()))
        old = under_way(rig, done=2)
        patient(rig, 60)
        rig.predict(body(box(MOVED)))  # also at the limit: the new job takes the old one's place
        assert rig.backend.job(old["id"])["state"] == "cancelled"
        assert rig.backend.store.jobs.get(old["id"]).state == "cancelled"
        rig.predict(body(box(MOVED), task=2))
        assert masks(rig) == masks(rig, task=2) and len(masks(rig)) == 12


def test_a_deleted_keyframe_gives_from_there_on_what_the_others_give(
    tmp_path: Path, studio: Studio
) -> None:
    later = keyframe(7, 60, 20, 20, 20)
    with running(tmp_path, studio) as rig:
        (found,) = rig.predict(body(track([FIRST, later], frames=12)))
        rest = [k for k in found["value"]["sequence"] if k["frame"] != 7]
        before = masks(rig)
        rig.predict(body(track(rest, frames=12)))
        rig.predict(body(box(), task=2))
        assert masks(rig) == before[:6] + masks(rig, task=2)[6:]
        assert masks(rig)[6:] != before[6:]


def test_what_could_not_be_begun_is_begun_when_it_is_asked_again(
    tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, studio) as rig:
        real, failures = rig.backend.store.jobs.start, [StoreError("The database is full.")]

        def start(*args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return real(*args, **kwargs)

        monkeypatch.setattr(rig.backend.store.jobs, "start", start)
        status, answer = rig.post("/predict", body(box()))
        assert status == 503 and "full" in answer["error"]
        assert len(rig.predict(body(box()))) == 1
        assert len(masks(rig)) == 12


def test_a_track_that_failed_is_tried_again_when_it_is_asked_again(
    tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, studio) as rig:
        real, failures = rig.backend.host.tracker, [MediaError("Frame 7 cannot be decoded.")]

        def tracker(frames: Frames) -> VideoTracker:
            if failures:
                raise failures.pop()
            return real(frames)

        monkeypatch.setattr(rig.backend.host, "tracker", tracker)
        status, answer = rig.post("/predict", body(box()))
        assert (status, answer["error"]) == (502, "Frame 7 cannot be decoded.")
        assert len(rig.predict(body(box()))) == 1
        assert len(masks(rig)) == 12
        # done now: the next question begins nothing
        count = len(rig.backend.jobs.all())
        rig.predict(body(box()))
        assert len(rig.backend.jobs.all()) == count


def test_two_annotators_correct_one_region_at_once(tmp_path: Path, studio: Studio) -> None:
    """The region of a prediction has one id in both editors: the later word holds, and whole."""
    with running(tmp_path, studio, predict_deadline=60) as rig:
        rig.predict(body(box()))
        asked = [body(box(MOVED), user="ann"), body(box(keyframe(1, 5, 5, 20, 20)), user="bob")]
        answers: list[int] = []
        threads = [
            threading.Thread(
                target=lambda b=b: answers.append(rig.app.test_client().post(
                    "/predict", json=b).status_code)
            )
            for b in asked
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rig.settle()
        assert answers == [200, 200]
        (session,) = rig.backend.store.list()
        (given,) = session.prompts
        assert given.box is not None
        last = MOVED if given.box.x0 > 30 else keyframe(1, 5, 5, 20, 20)
        rig.predict(body(box(last), task=2))
        assert masks(rig) == masks(rig, task=2) and len(masks(rig)) == 12


# -- what is pushed ---------------------------------------------------------------------------


def test_jobs_that_end_together_are_pushed_once(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.02)
        rig.predict(body(box(id="a"), box(id="b")))
        until(lambda: bool(studio.predictions))
        rig.settle()
    (pushed,) = studio.predictions
    assert [r["id"] for r in pushed["result"]] == ["a", "b"]


def test_what_is_done_is_pushed_though_the_last_job_was_cancelled(
    tmp_path: Path, studio: Studio
) -> None:
    late = keyframe(12, 40, 40, 20, 30)
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.2)
        rig.predict(body(box(late, id="short"), box(id="long")))
        until(lambda: [j["state"] for j in rig.backend.jobs.all()] == ["done", "running"])
        assert studio.predictions == []
        rig.client.delete(f"/jobs/{rig.backend.jobs.all()[1]['id']}")
        until(lambda: bool(studio.predictions))
    assert len(studio.predictions) == 1


def test_a_job_is_on_record_as_done_once_it_was_pushed(tmp_path: Path, studio: Studio) -> None:
    """Label Studio is away while the server stops: the next start pushes, and tracks nothing."""
    studio.faults[PUSHED] = [503] * 50
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.02)
        rig.predict(body(box()))
        until(lambda: ("POST", PUSHED, None) in studio.seen)
        (job,) = rig.backend.jobs.all()
        assert job["state"] == "done"  # whoever asks gets the track
        rig.backend.client._sleep = lambda seconds: None
    with SessionStore(str(tmp_path / "sessions.db")) as store:
        (record,) = store.jobs.unfinished()
        assert (record.id, record.next_frame) == (job["id"], 12)
    studio.faults[PUSHED] = []
    with running(tmp_path, studio) as again:
        until(lambda: bool(studio.predictions))
        until(lambda: again.backend.store.jobs.unfinished() == [])
        assert 'edgetam_masks_total{kind="video"} 0.0' in again.client.get("/metrics").text
    with running(tmp_path, studio) as third:
        third.settle()
    assert len(studio.predictions) == 1


# -- deletions, restarts, other servers -------------------------------------------------------


def test_a_task_deleted_while_its_job_runs(
    tmp_path: Path, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.1)
        rig.predict(body(box()))
        job = under_way(rig)
        sent = {"action": "TASKS_DELETED", "project": {"id": 1}, "tasks": [{"id": 1}]}
        assert rig.post("/webhook", sent)[0] == 201
        assert rig.backend.store.list() == []
        rig.settle()
        assert rig.backend.job(job["id"])["state"] == "cancelled"
        assert studio.predictions == []
        assert not [r for r in caplog.records if r.levelname == "ERROR"]
        patient(rig, 60)
        assert len(rig.predict(body(box()))) == 1  # another task may be given the same id
        assert len(masks(rig)) == 12


def test_a_task_deleted_before_its_job_begins(
    tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's record goes between planning and claiming: cancelled, and no server error."""
    with running(tmp_path, studio) as rig:
        claim = rig.backend.store.jobs.claim

        def deleted_first(*args: Any) -> bool:
            sent = {"action": "TASKS_DELETED", "project": {"id": 1}, "tasks": [{"id": 1}]}
            rig.post("/webhook", sent)
            for live in rig.backend.jobs._live.all():
                live.cancelled.clear()  # as when the deletion did not know of the job yet
            return claim(*args)

        monkeypatch.setattr(rig.backend.store.jobs, "claim", deleted_first)
        status, answer = rig.post("/predict", body(box()))
        assert status < 500, answer
        rig.settle()
        assert {job["state"] for job in rig.backend.jobs.all()} <= {"cancelled"}


def test_a_resumed_job_gives_what_an_uninterrupted_one_gives(
    tmp_path: Path, studio: Studio
) -> None:
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.2)
        rig.predict(body(box()))
        under_way(rig, done=3)
    with running(tmp_path, studio) as again:
        assert 0 < again.backend.jobs.all()[0]["done"] < 12
        again.settle()
        again.predict(body(box(), task=2))
        assert masks(again) == masks(again, task=2) and len(masks(again)) == 12


def test_stopped_before_its_first_frame_a_job_is_resumed(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.2)
        rig.predict(body(box()))
        under_way(rig)
    loaded = threading.Event()

    def load() -> Any:
        loaded.wait(60)
        return seeing_model()

    second = create_app(settings(tmp_path, studio), load=load).extensions["edgetam"]
    until(lambda: second.jobs.running() == (1, 0))  # it waits for the model
    second.jobs.stop(timeout=0)
    loaded.set()
    second.jobs.stop(timeout=60)
    (record,) = second.store.jobs.unfinished()
    second.close()
    assert record.next_frame < 12
    with running(tmp_path, studio) as third:
        third.settle()
        assert len(masks(third)) == 12


def test_another_model_begins_a_resumed_job_anew(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.2)
        rig.predict(body(box()))
        under_way(rig, done=3)
    with running(tmp_path, studio, every=2) as again:
        again.settle()
        (session,) = again.backend.store.list()
        assert session.model is not None and session.model.name == "tiny+every=2"
        assert again.backend.store.mask_models(session.id) == {session.model: 12}
        again.predict(body(box(), task=2))
        assert masks(again) == masks(again, task=2)


def test_a_job_of_another_server_keeps_no_worker_busy(
    tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "ASK_AGAIN", 0.1)
    with running(tmp_path, studio, predict_deadline=0.1) as rig:
        slow(rig, 0.2)
        rig.predict(body(box()))
        job = under_way(rig)
    with SessionStore(str(tmp_path / "sessions.db")) as other:
        other.jobs.update(job["id"], state="queued")
        record = other.jobs.get(job["id"])
        assert other.jobs.claim(job["id"], str(record.owner), -1)  # the first server is gone
        assert other.jobs.claim(job["id"], "other:9090", 600)
        with running(tmp_path, studio, max_jobs=1) as mine:
            assert len(mine.predict(body(box(), task=2))) == 1
            assert mine.backend.job(job["id"])["state"] == "queued"
            other.jobs.update(job["id"], state="done")
            until(lambda: mine.backend.job(job["id"])["state"] == "done")
            assert studio.predictions == []  # the other one's to push


# -- every k-th frame -------------------------------------------------------------------------


def test_every_other_frame_on_request_is_told_and_recorded(
    tmp_path: Path, clip: Path, studio: Studio
) -> None:
    with running(tmp_path, studio, every=2) as rig:
        (version,) = rig.client.get("/versions").get_json()["versions"]
        assert version.startswith("tiny+every=2@")
        rig.predict(body(box()))
        (session,) = rig.backend.store.list()
        assert session.model is not None and session.model.name == "tiny+every=2"
        assert rig.backend.store.mask_models(session.id) == {session.model: 12}
        found = {m.frame_idx: m.rle.decode() for m in masks(rig)}
        with Frames.open(clip) as frames:
            expected = {}
            for every in (1, 2):
                tracker = VideoTracker(
                    rig.backend.host.model(), frames, TrackerSettings(every=every)
                )
                tracker.add_prompt(session.prompts[0])
                expected[every] = {t.frame_idx: t.mask for t in tracker.propagate()}
                tracker.close()
    same = {k: sum((v[t] == found[t]).all() for t in range(12)) for k, v in expected.items()}
    assert same[2] == 12 and same[1] < 12
