"""`edgetam-label serve` as a process: it answers at once, refuses what it must, stops cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from backend_bodies import VIDEO_CONFIG, keyframe, predict_body, track
from backend_rig import movie
from studio_double import Studio

from edgetam_label.sessions import SessionStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def serving(folder: Path, *flags: str, **env: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    command = [sys.executable, "-m", "edgetam_label", "serve", "--port", str(port), "--model",
               "tiny", "--db", str(folder / "s.db"), "--cache-dir", str(folder / "c"),
               *flags]  # fmt: skip
    child = subprocess.Popen(
        command, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and child.poll() is None:
            try:
                requests.get(url + "/health", timeout=2)
                break
            except requests.RequestException:
                time.sleep(0.05)
        yield url, child
    finally:
        if child.poll() is None:
            child.terminate()
        child.communicate(timeout=60)


def ready(url: str) -> None:
    until = time.monotonic() + 120
    while requests.get(url + "/health", timeout=10).json()["model"] != "ready":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_it_starts_answers_and_stops_with_zero(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, child):
        assert requests.get(url + "/health", timeout=5).json()["status"] == "UP"
        ready(url)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0


def test_health_and_setup_answer_while_tracks_run(tmp_path: Path) -> None:
    with Studio() as studio:
        studio.add("/data/m.mp4", movie(tmp_path / "m.mp4", frames=20))
        flags = ["--label-studio-url", studio.url, "--predict-deadline", "0.5"]
        with serving(tmp_path, *flags) as (url, _):
            ready(url)
            asked = [
                predict_body(VIDEO_CONFIG, {"movie": "/data/m.mp4"},
                             [track([keyframe(1, 12, 33, 25, 33)])], task=i, user=f"u{i}")
                for i in range(6)
            ]  # fmt: skip
            threads = [
                threading.Thread(target=requests.post, args=(url + "/predict",),
                                 kwargs={"json": body, "timeout": 60})
                for body in asked
            ]  # fmt: skip
            for thread in threads:
                thread.start()
            waits: list[float] = []
            for i in range(40):
                began = time.monotonic()
                if i % 2:
                    answer: Any = requests.get(url + "/health", timeout=5)
                else:
                    sent = {"project": "1.1", "schema": VIDEO_CONFIG}
                    answer = requests.post(url + "/setup", json=sent, timeout=5)
                assert answer.status_code == 200
                waits.append(time.monotonic() - began)
                time.sleep(0.02)
            for thread in threads:
                thread.join()
        # Label Studio gives /health one second and /setup three
        assert sorted(waits)[-3] < 1.0, waits


def test_every_other_frame_by_flag_over_http(tmp_path: Path) -> None:
    """Stopped in the middle of a track and started again: every mask is there, of one mode."""
    with Studio() as studio:
        studio.add("/data/m.mp4", movie(tmp_path / "m.mp4", frames=60))
        flags = ["--label-studio-url", studio.url, "--predict-deadline", "0.05"]  # never in time
        asked = predict_body(
            VIDEO_CONFIG, {"movie": "/data/m.mp4"},
            [track([keyframe(1, 12, 33, 25, 33)], frames=60)],
        )  # fmt: skip
        with serving(tmp_path, *flags, "--every", "2") as (url, child):
            ready(url)
            assert (
                requests.get(url + "/versions", timeout=5)
                .json()["versions"][0]
                .startswith("tiny+every=2@")
            )
            assert requests.post(url + "/predict", json=asked, timeout=60).status_code == 200
            jobs: list[Any] = []
            while not jobs or not jobs[0]["done"]:
                jobs = requests.get(url + "/jobs", timeout=5).json()["jobs"]
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == 0
        with serving(tmp_path, *flags, EDGETAM_LABEL_EVERY="2") as (url, _):
            until = time.monotonic() + 50  # less than the lease that the first server held
            while not studio.predictions:
                assert time.monotonic() < until
                time.sleep(0.05)
    (pushed,) = studio.predictions
    assert pushed["model_version"].startswith("tiny+every=2@")
    with SessionStore(tmp_path / "s.db") as store:
        (session,) = store.list()
        assert session.model is not None and session.model.name == "tiny+every=2"
        assert store.mask_models(session.id) == {session.model: 60}


@pytest.mark.parametrize(
    ("flags", "env", "sentence"),
    [
        (["--host", "0.0.0.0"], {}, "EDGETAM_LABEL_BASIC_AUTH_USER"),
        (["--label-studio-url", "localhost:8080"], {}, "with its scheme"),
        ([], {"EDGETAM_LABEL_PREDICT_DEADLINE": "500"}, "EDGETAM_LABEL_PREDICT_DEADLINE"),
        (["--every", "0"], {}, "--every is '0'"),
    ],
)
def test_settings_that_cannot_work_are_told(
    tmp_path: Path, flags: list[str], env: dict[str, str], sentence: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgetam_label", "serve", "--db", str(tmp_path / "s.db"), *flags],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "edgetam_label", "serve", "--db", str(tmp_path / "s.db"),
             "--port", str(taken.getsockname()[1]), "--model", "tiny"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "in use" in done.stderr
