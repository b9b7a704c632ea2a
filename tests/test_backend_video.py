from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_bodies import IMAGE_CONFIG, VIDEO_CONFIG, click, keyframe, predict_body, track
from backend_rig import Rig, movie, picture, running
from studio_double import Studio

from edgetam_label.backend.body import PredictBody
from edgetam_label.backend.keyframes import Keyframe, interpolate
from edgetam_label.sessions import SessionStore

DATA = {"movie": "/data/upload/2/m.mp4"}
FIRST = keyframe(1, 12.5, 33.3, 25, 33.3)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return movie(tmp_path_factory.mktemp("clip") / "m.mp4").read_bytes()


@pytest.fixture
def studio(video: bytes) -> Iterator[Studio]:
    with Studio() as one:
        one.add(DATA["movie"], video)
        yield one


@pytest.fixture
def rig(tmp_path: Path, studio: Studio) -> Iterator[Rig]:
    with running(tmp_path, studio) as one:
        yield one


def body(*regions: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    return predict_body(VIDEO_CONFIG, DATA, list(regions), **kwargs)


def masks_of(rig: Rig, obj_id: int = 1) -> dict[int, Any]:
    (session,) = rig.backend.store.list()
    return {m.frame_idx: m for m in rig.backend.store.iter_masks(session.id, obj_id=obj_id)}


def test_a_labelled_box_becomes_a_track_with_masks_in_the_store(rig: Rig) -> None:
    (region,) = rig.predict(body(track([FIRST])))
    assert (region["id"], region["type"], region["from_name"]) == ("t1", "videorectangle", "track")
    value = region["value"]
    assert value["labels"] == ["Cat"] and value["framesCount"] == 20 and value["duration"] == 0.8
    for k in value["sequence"]:
        assert {"frame", "time", "enabled", "rotation", "x", "y", "width", "height"} == set(k)
        assert k["time"] == k["frame"] / 25
    frames = [k["frame"] for k in value["sequence"]]
    assert frames == sorted(set(frames))
    own = value["sequence"][0]
    assert {**own, "enabled": True} == FIRST
    stored = masks_of(rig)
    assert sorted(stored) == list(range(20)) and stored[0].status == "prompted"
    (session,) = rig.backend.store.list()
    assert session.key == f"ls|{rig.studio.url}|1|1"
    assert (session.objects[0].label, session.objects[0].external_id) == ("Cat", "t1")
    assert session.objects[0].color == "#ff0000"


def test_the_keyframes_interpolate_to_the_tracked_boxes(rig: Rig) -> None:
    (region,) = rig.predict(body(track([FIRST])))
    keyframes = [
        Keyframe(k["frame"] - 1, (k["x"], k["y"], k["x"] + k["width"], k["y"] + k["height"]),
                 k["enabled"])
        for k in region["value"]["sequence"]
    ]  # fmt: skip
    for index, mask in masks_of(rig).items():
        box = mask.rle.box
        drawn = interpolate(keyframes, index)
        if box is None or index == 0:
            continue
        assert drawn is not None
        true = (box[0] / 1.6, box[1] / 1.2, box[2] / 1.6, box[3] / 1.2)
        assert _iou(drawn, true) >= 0.9 - 1e-6


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
    return w * h / (sum(areas) - w * h)


def test_the_same_question_with_our_answer_in_it_is_not_a_change(rig: Rig) -> None:
    (region,) = rig.predict(body(track([FIRST])))
    jobs = len(rig.backend.jobs.all())
    assert rig.predict(body(track(region["value"]["sequence"]))) == []
    assert len(rig.backend.jobs.all()) == jobs


def test_only_the_corrected_track_changes_and_keeps_the_annotators_boxes(rig: Rig) -> None:
    second = keyframe(5, 60, 60, 20, 20)
    one, two = rig.predict(body(track([FIRST], id="a"), track([second], id="b")))
    before = {i: masks_of(rig, i) for i in (1, 2)}
    fixed = keyframe(9, 40, 20, 30, 30)
    sequence = [k for k in one["value"]["sequence"] if k["frame"] != 9] + [fixed]
    asked = body(track(sequence, id="a"), track(two["value"]["sequence"], id="b"))
    found = rig.predict(asked)
    assert [r["id"] for r in found] == ["a"]
    drawn = {k["frame"]: k for k in found[0]["value"]["sequence"]}
    for own in (FIRST, fixed):
        got = drawn[own["frame"]]
        assert [got[k] for k in ("x", "y", "width", "height")] == [
            own[k] for k in ("x", "y", "width", "height")
        ]
    after = {i: masks_of(rig, i) for i in (1, 2)}
    assert after[2] == before[2]
    # what lies before the correction stays, what comes after is tracked anew
    assert all(after[1][i] == before[1][i] for i in range(8))
    assert after[1][8].status == "prompted"
    (session,) = rig.backend.store.list()
    assert sorted(p.frame_idx for p in session.prompts if p.obj_id == 1) == [0, 8]


def test_a_new_object_joins_without_touching_the_first(rig: Rig) -> None:
    (one,) = rig.predict(body(track([FIRST], id="a")))
    before = masks_of(rig, 1)
    added = track([keyframe(10, 60, 60, 20, 20)], "Dog", id="b")
    found = rig.predict(body(added))
    assert [(r["id"], r["value"]["labels"]) for r in found] == [("b", ["Dog"])]
    assert masks_of(rig, 1) == before
    assert min(masks_of(rig, 2)) == 9


def test_a_blanked_label_is_given_back(rig: Rig) -> None:
    (one,) = rig.predict(body(track([FIRST], "Dog")))
    (again,) = rig.predict(body(track(one["value"]["sequence"], None)))
    assert again["value"]["labels"] == ["Dog"] and again["id"] == one["id"]


@pytest.mark.parametrize("known_from", ["the draft", "the only label"])
def test_a_label_that_the_editor_took_away_comes_back_though_nothing_else_changed(
    rig: Rig, known_from: str
) -> None:
    config = VIDEO_CONFIG
    if known_from == "the only label":
        config = config.replace('<Label value="Cat" background="#FF0000"/>', "")
    (one,) = rig.predict(predict_body(config, DATA, [track([FIRST], "Dog")]))
    again = predict_body(config, DATA, [track(one["value"]["sequence"], None)])
    if known_from == "the draft":
        again["tasks"][0]["drafts"][0]["result"] = [track([FIRST], "Dog")]
    (region,) = rig.predict(again)
    assert region["id"] == one["id"] and region["value"]["labels"] == ["Dog"]


def test_a_label_from_the_draft_is_found(rig: Rig) -> None:
    asked = body(track([FIRST], None))
    asked["tasks"][0]["drafts"][0]["result"] = [track([FIRST], "Dog")]
    assert rig.predict(asked)[0]["value"]["labels"] == ["Dog"]


def test_a_changed_label_is_kept_without_tracking(rig: Rig) -> None:
    (one,) = rig.predict(body(track([FIRST], "Cat")))
    jobs = len(rig.backend.jobs.all())
    rig.predict(body(track(one["value"]["sequence"], "Dog")))
    assert len(rig.backend.jobs.all()) == jobs
    assert rig.backend.store.list()[0].objects[0].label == "Dog"


def test_a_wrong_frame_rate_is_mapped_through_time(rig: Rig) -> None:
    """The editor counts 50 per second: its frame 21 is at 0.4 s, which is picture 10."""
    config = VIDEO_CONFIG.replace('frameRate="25"', 'frameRate="50"')
    region = track([keyframe(21, 40, 33, 25, 33, fps=50)], frames=40, fps=50)
    (found,) = rig.predict(predict_body(config, DATA, [region]))
    assert min(masks_of(rig)) == 10
    assert found["value"]["sequence"][0]["frame"] == 21
    assert found["value"]["sequence"][0]["time"] == 21 / 50
    assert found["value"]["sequence"][-1]["frame"] <= 40


def test_a_variable_rate_file_is_mapped_through_time(tmp_path: Path, rig: Rig) -> None:
    pts = [0, 10, 12, 14, 40, 42, 44, 46, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 160]
    rig.studio.add("/data/vfr.mp4", movie(tmp_path / "v.mp4", pts=pts))
    region = track([keyframe(11, 40, 33, 25, 33)], frames=41)  # 0.4 s: the fifth picture
    rig.predict(predict_body(VIDEO_CONFIG, {"movie": "/data/vfr.mp4"}, [region]))
    assert min(masks_of(rig)) == 4


def test_backward_and_both_on_request(rig: Rig) -> None:
    rig.post("/setup", {"project": "1.1", "extra_params": {"direction": "both"}})
    rig.predict(body(track([keyframe(11, 40, 33, 25, 33)])))
    assert sorted(masks_of(rig)) == list(range(20))


def test_two_tasks_and_two_hosts_do_not_share_a_session(rig: Rig) -> None:
    rig.predict(body(track([FIRST])))
    rig.predict(body(track([FIRST]), task=2))
    keys = [s.key for s in rig.backend.store.list()]
    assert len(set(keys)) == 2


def test_an_edited_media_url_begins_a_new_session(tmp_path: Path, rig: Rig) -> None:
    rig.predict(body(track([FIRST])))
    rig.studio.add("/data/other.mp4", movie(tmp_path / "o.mp4", frames=12))
    other = predict_body(VIDEO_CONFIG, {"movie": "/data/other.mp4"}, [track([FIRST], frames=12)])
    rig.predict(other)
    assert [s.media.num_frames for s in rig.backend.store.list()] == [20, 12]


# -- the deadline, and what goes on after it --------------------------------------------------


def slow(rig: Rig, seconds: float = 0.05) -> None:
    """Make each turn at the accelerator slower, as a bigger model would."""
    real = rig.backend.host.turnstile._leave

    def leave() -> None:
        time.sleep(seconds)
        real()

    rig.backend.host.turnstile._leave = leave  # type: ignore[method-assign]


def test_the_deadline_gives_what_is_there_and_the_rest_is_pushed(
    tmp_path: Path, studio: Studio
) -> None:
    with running(tmp_path, studio, predict_deadline=3) as rig:
        slow(rig, 0.35)
        began = time.monotonic()
        (partial,) = rig.predict(body(track([FIRST])))
        assert time.monotonic() - began < 4.5
        reached = partial["value"]["sequence"][-1]
        (job,) = rig.client.get("/jobs").get_json()["jobs"]
        assert job["state"] == "running" and 0 <= job["done"] < job["total"] == 20
        # asked again, it attaches to the job that runs
        rig.predict(body(track(partial["value"]["sequence"])))
        assert len(rig.client.get("/jobs").get_json()["jobs"]) == 1
        rig.settle()
        assert rig.client.get(f"/jobs/{job['id']}").get_json()["state"] == "done"
        _until(lambda: bool(studio.predictions))
        pushed = studio.predictions[0]
        assert pushed["task"] == 1 and pushed["model_version"].startswith("tiny@")
        assert pushed["result"][0]["id"] == "t1"
        assert pushed["result"][0]["value"]["sequence"][-1]["frame"] >= reached["frame"]
        assert sorted(masks_of(rig)) == list(range(20))
        # the annotator asks once more and has the whole track
        (whole,) = rig.predict(body(track(partial["value"]["sequence"])))
        assert whole["value"] == pushed["result"][0]["value"]


def _until(true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_slow_download_is_left_and_its_track_pushed(tmp_path: Path, studio: Studio) -> None:
    studio.delay[DATA["movie"]] = 1.0
    with running(tmp_path, studio, predict_deadline=0.3) as rig:
        assert rig.predict(body(track([FIRST]))) == []
        _until(lambda: bool(studio.predictions))
        assert sorted(masks_of(rig)) == list(range(20))


def test_a_job_can_be_cancelled_and_keeps_what_it_has(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, predict_deadline=0.5) as rig:
        slow(rig, 0.2)
        rig.predict(body(track([FIRST])))
        _until(lambda: any(job["done"] > 1 for job in rig.backend.jobs.all()))
        (job,) = rig.client.get("/jobs").get_json()["jobs"]
        answer = rig.client.delete(f"/jobs/{job['id']}")
        assert answer.status_code == 202 and answer.get_json()["state"] == "cancelled"
        assert 0 < len(masks_of(rig)) < 20
        assert rig.client.get("/jobs/nonsense").status_code == 404
        assert rig.client.delete("/jobs/nonsense").status_code == 404


def test_a_restart_resumes_and_pushes(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, predict_deadline=0.8) as rig:
        slow(rig, 0.15)
        rig.predict(body(track([FIRST])))
        _until(lambda: bool(rig.backend.jobs.all()))
        (job,) = rig.client.get("/jobs").get_json()["jobs"]
    with SessionStore(str(tmp_path / "sessions.db")) as store:
        (record,) = store.jobs.unfinished()
        assert record.id == job["id"] and record.next_frame < 20
    with running(tmp_path, studio) as again:
        again.settle()
        assert again.client.get(f"/jobs/{job['id']}").get_json()["state"] == "done"
        assert sorted(masks_of(again)) == list(range(20))
        _until(lambda: bool(studio.predictions))


def test_too_many_jobs_of_one_client_are_a_429_and_others_go_on(
    tmp_path: Path, studio: Studio
) -> None:
    with running(tmp_path, studio, predict_deadline=0.3, max_jobs_per_client=2) as rig:
        slow(rig, 0.2)
        for i in (1, 2):
            rig.predict(body(track([FIRST]), task=i))
            _until(lambda i=i: len(rig.backend.jobs.all()) == i)
        rig.backend.settings.__dict__["predict_deadline"] = 20  # to hear of the refusal in time
        status, answer = rig.post("/predict", body(track([FIRST]), task=3))
        assert status == 429 and "GET /jobs" in answer["error"]
        rig.backend.settings.__dict__["predict_deadline"] = 0.3
        status, _ = rig.post("/predict", body(track([FIRST]), task=4, user="bob@example.com"))
        assert status == 200


def test_two_tracks_advance_in_step_and_a_click_passes_between(
    tmp_path: Path, studio: Studio
) -> None:
    studio.add("/data/p.png", picture())
    with running(tmp_path, studio, predict_deadline=0.2) as rig:
        slow(rig, 0.12)
        rig.predict(body(track([FIRST]), task=1))
        rig.predict(body(track([FIRST]), task=2))
        _until(lambda: [j["done"] > 1 for j in rig.backend.jobs.all()] == [True, True])
        asked = predict_body(IMAGE_CONFIG, {"photo": "/data/p.png"}, [click(50, 50)], task=3)
        rig.backend.settings.__dict__["predict_deadline"] = 20
        assert len(rig.predict(asked)) == 1
        # the click did not wait for either track, nor one of them for the other
        assert rig.backend.jobs.running() == (2, 0)
        _until(lambda: min(j["done"] for j in rig.backend.jobs.all()) > 4)
        done = [j["done"] for j in rig.backend.jobs.all()]
        assert max(done) - min(done) <= 12
        rig.settle()


@pytest.mark.slow
def test_many_annotators_at_once(rig: Rig) -> None:
    answers: dict[int, Any] = {}

    def ask(i: int) -> None:
        user = f"user{i % 4}@example.com"
        answers[i] = rig.backend.predict(
            PredictBody.parse(
                body(track([FIRST], ["Cat", "Dog"][i % 2], id=f"r{i}"), task=1 + i // 2, user=user)
            ),
            user,
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        (region,) = answers[i]["results"][0]["result"]
        assert (region["id"], region["value"]["labels"]) == (f"r{i}", [["Cat", "Dog"][i % 2]])
    sessions = rig.backend.store.list()
    assert len(sessions) == 4
    assert all({o.external_id for o in s.objects} <= {f"r{i}" for i in range(8)} for s in sessions)


# -- the other events -------------------------------------------------------------------------


def event(rig: Rig, name: str, *regions: dict[str, Any], **context: Any) -> dict[str, Any]:
    (entry,) = rig.predict(body(*regions, event=name, **context))
    return entry


def test_capabilities_need_no_task(rig: Rig) -> None:
    asked = {"tasks": [{"id": 0, "data": {}}], "params": {"context": {"event": "capabilities"}}}
    (entry,) = rig.predict(asked)
    assert entry["type"] == "capabilities" and entry["value"]["prompts"] == ["point", "box"]


def test_prewarm_then_a_click_on_that_frame(rig: Rig) -> None:
    warm = event(rig, "prewarm", frame=3, window=2, direction="forward")["value"]
    assert warm == {"status": "ok", "cached": [2, 3, 4], "pending": [], "frame_count": 20}
    asked = body(click(20, 50, to_name="clip"), frame=3)
    (entry,) = rig.predict(asked)
    assert entry["type"] == "bitmask" and entry["value"]["frame"] == 2
    assert entry["value"]["imageDataURL"].startswith("data:image/png;base64,")
    text = rig.client.get("/metrics").get_data(as_text=True)
    assert 'edgetam_embedding_cache_total{outcome="hit"} 1.0' in text


def test_prompts_of_clients_that_name_no_tag(rig: Rig) -> None:
    """The public peer's example: neither ids nor names, and the sign inside the value."""
    points = [{"type": "keypointlabels", "value": {"x": x, "y": 50, "positive": x < 50}}
              for x in (20.0, 80.0)]  # fmt: skip
    (entry,) = rig.predict(body(*points, frame=3))
    assert (entry["type"], entry["to_name"], entry["value"]["frame"]) == ("bitmask", "clip", 2)
    only = {**body(*points[:1], frame=3)}
    assert rig.predict(only)[0]["value"]["imageDataURL"] != entry["value"]["imageDataURL"]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("forward", range(10, 20)), ("backward", range(0, 11)), ("both", range(0, 20))],
)
def test_track_progress_and_release(rig: Rig, direction: str, expected: range) -> None:
    box = click(40, 50, to_name="clip")
    begun = event(rig, "track", box, time=0.4, direction=direction)
    assert begun["type"] == "track_started"
    name = begun["value"]["session_id"]
    assert begun["value"]["duration_ms"] == pytest.approx(800, rel=0.1)
    frames: list[int] = []
    for _ in range(200):
        value = event(rig, "track_progress", session_id=name)["value"]
        frames += [f["frame"] for f in value["frames"]]
        if value["done"]:
            break
    assert value["done"] and value["error"] is None
    assert value["produced"] == value["total"] == len(expected)
    assert len(frames) == len(set(frames))
    (session,) = rig.backend.store.list()
    seen = {m.frame_idx for m in rig.backend.store.iter_masks(session.id) if m.status != "absent"}
    assert set(frames) == seen <= set(expected)
    assert event(rig, "release")["value"] == {"status": "released"}


def test_track_cancel_and_unknown_names(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio) as rig:
        slow(rig, 0.2)
        name = event(rig, "track", click(40, 50, to_name="clip"))["value"]["session_id"]
        assert event(rig, "track_cancel", session_id=name)["value"] == {"status": "cancelled"}
        _until(lambda: rig.client.get(f"/jobs/{name}").get_json()["state"] == "cancelled")
        assert event(rig, "track_cancel", session_id="x")["value"] == {"status": "not_found"}
        # the session of another task is as unknown as none
        (entry,) = rig.predict(body(event="track_progress", session_id=name, task=9))
        assert entry["value"]["error"] == "session not found"
        lost = event(rig, "track_progress", session_id="nothing")["value"]
        assert lost["done"] and lost["error"]
        status, answer = rig.post("/predict", body(event="fly"))
        assert status == 400 and "prewarm" in answer["error"]


# -- webhooks ---------------------------------------------------------------------------------


def annotation(number: int, task: int, regions: list[Any], at: str) -> dict[str, Any]:
    return {"id": number, "task": task, "project": 1, "completed_by": 1, "result": regions,
            "updated_at": at}  # fmt: skip


def hook(rig: Rig, action: str, **extra: Any) -> dict[str, Any]:
    status, answer = rig.post("/webhook", {"action": action, "project": {"id": 1}, **extra})
    assert status == 201, answer
    return dict(answer)


def test_final_annotations_are_kept_updated_and_deleted(rig: Rig) -> None:
    rig.predict(body(track([FIRST])))
    (session,) = rig.backend.store.list()
    assert session.key is not None
    kept = rig.backend.store.annotations
    first = annotation(5, 1, [track([FIRST], "Cat")], "2026-11-22T09:30:53.512350Z")
    later = annotation(5, 1, [track([FIRST], "Dog")], "2026-11-22T09:30:59Z")
    hook(rig, "ANNOTATION_CREATED", annotation=first, task={"id": 1})
    hook(rig, "ANNOTATION_UPDATED", annotation=later, task={"id": 1})
    hook(rig, "ANNOTATION_UPDATED", annotation=first, task={"id": 1})  # overtaken on the way
    hook(rig, "ANNOTATION_CREATED", annotation=annotation(6, 12, [], "x"), task={"id": 12})
    (one,) = kept.of(session.key)
    assert one.regions[0]["value"]["labels"] == ["Dog"]
    assert hook(rig, "ANNOTATIONS_DELETED", annotations=[{"id": 5}])["count"] == 1
    assert kept.of(session.key) == [] and len(list(kept.under("ls|"))) == 1


def test_a_deleted_task_goes_with_its_session_and_no_other(rig: Rig) -> None:
    for task in (1, 12):
        rig.predict(body(track([FIRST]), task=task))
    hook(rig, "TASKS_DELETED", tasks=[{"id": 1}])
    (left,) = rig.backend.store.list()
    assert str(left.key).endswith("|12")


@pytest.mark.parametrize("action", ["PROJECT_UPDATED", "TASKS_CREATED", "NEW"])
def test_other_actions_are_ignored(rig: Rig, action: str) -> None:
    assert hook(rig, action)["status"].startswith("ignored")


@pytest.mark.parametrize(
    "wrong", [{}, {"action": 3}, {"action": "ANNOTATION_CREATED"},
              {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}},
              {"action": "ANNOTATION_CREATED", "annotation": {"id": 1, "task": 1, "result": 3}}],
)  # fmt: skip
def test_malformed_webhooks_are_a_400(rig: Rig, wrong: dict[str, Any]) -> None:
    status, answer = rig.post("/webhook", wrong)
    assert status == 400 and answer["error"]


@pytest.mark.slow
def test_a_pushed_prediction_holds_the_tracks_of_one_annotator(
    tmp_path: Path, studio: Studio
) -> None:
    with running(tmp_path, studio, predict_deadline=0.3) as rig:
        slow(rig, 0.05)
        rig.predict(body(track([FIRST], id="ann1"), track([FIRST], id="ann2")))
        _until(lambda: len(rig.backend.jobs.all()) == 2)
        rig.predict(body(track([FIRST], id="bob"), user="bob@example.com"))
        _until(lambda: len(rig.backend.jobs.all()) == 3)
        rig.settle(90)
        _until(lambda: len(studio.predictions) >= 2)
        held = sorted(sorted(r["id"] for r in p["result"]) for p in studio.predictions)
        assert held == [["ann1", "ann2"], ["bob"]]


def test_hundreds_of_foreign_keyframes_are_refused_in_a_sentence(rig: Rig) -> None:
    many = [keyframe(n, 10, 10, 20, 20) for n in range(1, 1500)]
    status, answer = rig.post("/predict", body(track(many)))
    assert status == 400 and "draw the track anew" in answer["error"]


def test_an_absurd_frame_count_costs_nothing(rig: Rig) -> None:
    began = time.monotonic()
    (region,) = rig.predict(body(track([FIRST], frames=10**9)))
    assert region["value"]["framesCount"] <= 2000
    assert time.monotonic() - began < 20
