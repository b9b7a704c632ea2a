"""Start Training: from a webhook to weights that load, in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_bodies import VIDEO_CONFIG, keyframe, predict_body, track
from backend_rig import Rig, movie, running, seeing_model
from studio_double import Studio, personal_token

from edgetam_label.backend import training as training_module
from edgetam_label.backend.faults import JobNotFound, TrainingRefused
from edgetam_label.backend.settings import ServerSettings
from edgetam_label.backend.training import Training, TrainingRun
from edgetam_label.checkpoints import load_model
from edgetam_label.sessions import SessionStore
from edgetam_label.training.start import write_checkpoint

DATA = {"movie": "/data/upload/2/m.mp4"}
EXPORT = "/api/projects/1/export"
START = {"action": "START_TRAINING", "project": {"id": 1, "title": "cats"}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    write_checkpoint(seeing_model(), path)
    return path


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio() as one:
        one.add(DATA["movie"], movie(tmp_path / "m.mp4", frames=8))
        one.token = personal_token()
        yield one


def training(folder: Path, studio: Studio, weights: Path, **changes: Any) -> Any:
    return running(
        folder, studio, model="auto", checkpoint=str(weights), train_on_start_training=True,
        label_studio_api_key=studio.token, training_steps=2, **changes,
    )  # fmt: skip


def submit(rig: Rig, label: str = "Dog") -> None:
    """Two tasks tracked, and a person's final say on both, as Label Studio exports it."""
    tasks = []
    for task in (1, 2):
        box = track([keyframe(1, 12.5, 33.3, 25, 33.3)], frames=8, id=f"r{task}")
        rig.predict(predict_body(VIDEO_CONFIG, DATA, [box], task=task))
        box["value"]["labels"] = [label]
        box["value"]["sequence"] = [
            keyframe(f, 12.5 + 1.875 * (f - 1), 33.3, 25, 33.3, enabled=f < 8) for f in (1, 8)
        ]
        notes = [{"id": task, "result": [box], "updated_at": "2026-11-22T09:30:53Z"}]
        tasks.append({"id": task, "data": DATA, "annotations": notes, "project": 1})
    rig.studio.exports[EXPORT] = tasks


def until(true: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


def job(rig: Rig, name: str) -> dict[str, Any]:
    return dict(rig.client.get(f"/jobs/{name}").get_json())


def ended(rig: Rig, name: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        one = job(rig, name)
        return one if one["state"] in ("done", "failed", "cancelled") else None

    return dict(until(found))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_submitted_annotations_become_weights_that_load_over_a_restart(
    tmp_path: Path, studio: Studio, weights: Path
) -> None:
    with training(tmp_path, studio, weights) as rig:
        submit(rig)
        status, answer = rig.post("/webhook", START)
        assert (status, answer["status"]) == (201, "training")
        name = answer["job"]
        listed = {j["id"]: j["kind"] for j in rig.client.get("/jobs").get_json()["jobs"]}
        assert listed[name] == "training" and set(listed.values()) == {"track", "training"}
        # one at a time, and the answer says where to look
        status, busy = rig.post("/webhook", START)
        assert status == 409 and f"GET /jobs/{name}" in busy["error"]
        until(lambda: job(rig, name)["state"] == "running")
    # the server was stopped; its next start begins the run again
    with training(tmp_path, studio, weights) as rig:
        found = ended(rig, name)
        assert found["state"] == "done", (found, Path(found["log"]).read_text())
        assert found["done"] == found["total"] == 2 and found["phase"] == "finetune"
        assert set(found["before"]) == set(found["after"]) >= {"click", "box", "clip_iou"}
        model = load_model("auto", found["weights"], "cpu")
        served = rig.backend.host.model().identity
        assert model.identity.name == served.name
        assert model.identity.checkpoint_sha256 != served.checkpoint_sha256
        log = Path(found["log"]).read_text()
        assert studio.token is not None and studio.token not in log
        assert not (Path(found["log"]).parent / "data").exists()
        # a second run does not meet the weights of the first
        status, again = rig.post("/webhook", START)
        assert status == 201 and again["job"] != name
        rig.client.delete(f"/jobs/{again['job']}")
        assert ended(rig, again["job"])["state"] == "cancelled"
        assert job(rig, name)["weights"] == found["weights"]


@pytest.mark.slow
def test_a_project_without_annotations_is_told(
    tmp_path: Path, studio: Studio, weights: Path
) -> None:
    with training(tmp_path, studio, weights) as rig:
        studio.exports[EXPORT] = [{"id": 1, "data": DATA, "annotations": []}]
        _, answer = rig.post("/webhook", START)
        found = ended(rig, answer["job"])
        assert found["state"] == "failed" and "1 without an annotation" in found["error"]


def test_it_is_off_unless_allowed_and_says_how_to_allow_it(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio) as rig:
        status, answer = rig.post("/webhook", START)
        assert status == 409
        assert "EDGETAM_LABEL_TRAIN_ON_START_TRAINING=true" in answer["error"]
        assert rig.client.get("/jobs").get_json() == {"jobs": []}
        assert not (tmp_path / "cache" / "training").exists()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [({"action": "START_TRAINING"}, "names no project"),
     ({"action": "START_TRAINING", "project": {"id": "../x"}}, "names no project"),
     (START, "random weights")],
)  # fmt: skip
def test_what_cannot_begin_is_told(
    tmp_path: Path, studio: Studio, body: dict[str, Any], sentence: str
) -> None:
    with running(tmp_path, studio, train_on_start_training=True) as rig:
        status, answer = rig.post("/webhook", body)
        assert status == 409 and sentence in answer["error"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "s.db") as opened:
        yield opened


def test_cancelling_what_has_ended_leaves_the_run_under_way_alone(
    tmp_path: Path, store: SessionStore
) -> None:
    runs = Training(ServerSettings.load(cache_dir=tmp_path), store, lambda project: project)
    runs._runs["old"] = TrainingRun("old", "1", 300, state="done")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        runs._child = child
        runs.cancel("old")
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.0)
    assert [run["state"] for run in runs.all()] == ["done"]
    with pytest.raises(JobNotFound):
        runs.cancel("new")


def test_a_folder_that_cannot_be_written_is_told_and_blocks_nothing(
    tmp_path: Path, store: SessionStore, weights: Path
) -> None:
    (tmp_path / "training").write_text("a file in the way")
    settings = ServerSettings.load(
        cache_dir=tmp_path,
        train_on_start_training=True,
        checkpoint=str(weights),
        label_studio_url="http://localhost:1",
    )
    runs = Training(settings, store, lambda project: project)
    for _ in range(2):
        with pytest.raises(TrainingRefused, match="cannot be written.*EDGETAM_LABEL_CACHE_DIR"):
            runs.start("1")
    assert runs.all() == []


def test_what_a_crash_left_running_is_ended_before_the_run_begins_again(
    tmp_path: Path, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_module, "ORPHAN_SECONDS", 0.5)
    stubborn = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
    command = [sys.executable, "-c", stubborn + "sys.stdin.read()", "run-abc"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"1\n"
        folder = tmp_path / "training" / "project-1" / "run-abc"
        folder.mkdir(parents=True)
        run = TrainingRun("run-abc", "1", 300, state="running", attempts=2, pid=child.pid)
        (folder / "run.json").write_text(json.dumps(vars(run)))
        settings = ServerSettings.load(cache_dir=tmp_path, train_on_start_training=True)
        Training(settings, store, lambda project: project).resume()
        assert child.wait(10) == -signal.SIGKILL


def test_a_run_that_twice_took_the_server_down_is_not_begun_again(
    tmp_path: Path, studio: Studio
) -> None:
    folder = tmp_path / "cache" / "training" / "project-1"
    for number, text in enumerate(
        [json.dumps(vars(TrainingRun("abc", "1", 300, state="running", attempts=2,
                                     pid=os.getpid()))), "{", '{"x": 1}']
    ):  # fmt: skip
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "run.json").write_text(text)
    settings = ServerSettings.load(cache_dir=tmp_path / "cache", train_on_start_training=True)
    with SessionStore(tmp_path / "s.db") as store:
        runs = Training(settings, store, lambda project: project)
        runs.resume()  # our own process is not killed: its command line does not name the run
    (found,) = runs.all()
    assert found["state"] == "failed" and "start training again" in found["error"]
