"""The real Label Studio drives the real backend: projects, clicks, tracks, restarts, webhooks."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from real_studio import LabelStudio, Server
from rendered_scenes import FPS, HEIGHT, WIDTH, iou, percent_box, truth, write_image, write_movie
from shipped_quality import (
    RENDERED_BOX_IOU,
    RENDERED_CLICK_IOU,
    RENDERED_LONG_TRACK_IOU,
    RENDERED_TRACK_IOU,
)
from skimage.draw import polygon2mask

from edgetam_label.backend.brush import decode_brush
from edgetam_label.sessions import SessionStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

FRAMES = 40
LONG = 110  # long enough to be under way when the server is stopped
# random weights show that the protocol works, and nothing about masks
MEANINGFUL = os.environ.get("EDGETAM_TEST_CHECKPOINT") != "random"


def config(name: str) -> str:
    folder = files("edgetam_label.configs") / "label_studio"
    return (folder / f"{name}.xml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_movie(tmp_path_factory.mktemp("media") / "clip.mp4", FRAMES)


def click(x: float, y: float, label: str = "Object", positive: bool = True) -> dict[str, Any]:
    return {
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.3, "labels": [label], "keypointlabels": [label]},
        "is_positive": positive, "id": f"k{x}{y}", "from_name": "click", "to_name": "image",
        "type": "keypointlabels", "origin": "manual",
    }  # fmt: skip


def box(mask: Any, label: str = "Other") -> dict[str, Any]:
    return {
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {**percent_box(mask), "rotation": 0, "rectanglelabels": [label]},
        "id": "r1", "from_name": "box", "to_name": "image", "type": "rectanglelabels",
        "origin": "manual",
    }  # fmt: skip


def keyframe(frame: int, mask: Any) -> dict[str, Any]:
    return {"frame": frame, "enabled": True, "rotation": 0, "time": frame / FPS,
            **percent_box(mask)}  # fmt: skip


def region(
    name: str, label: str | None, sequence: list[dict[str, Any]], frames: int = FRAMES
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "framesCount": frames, "duration": frames / FPS, "sequence": sequence,
        **({"labels": [label]} if label else {}),
    }  # fmt: skip
    return {"id": name, "type": "videorectangle", "from_name": "box", "to_name": "video",
            "origin": "manual", "value": value}  # fmt: skip


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.3)
    return found


def drawn(entry: dict[str, Any]) -> Any:
    """The mask of an image region, whatever its type."""
    value = entry["value"]
    if entry["type"] == "brushlabels":
        return decode_brush(value["rle"], HEIGHT, WIDTH) > 127
    if entry["type"] == "bitmasklabels":
        png = base64.b64decode(value["imageDataURL"].split(",")[1])
        return np.array(Image.open(io.BytesIO(png)).convert("RGBA"))[..., 3] > 127
    if entry["type"] == "polygonlabels":
        points = np.array(value["points"]) * (WIDTH / 100, HEIGHT / 100)
        return polygon2mask((HEIGHT, WIDTH), points[:, ::-1] - 0.5)
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    x, y = (cols + 0.5) * 100 / WIDTH, (rows + 0.5) * 100 / HEIGHT
    if entry["type"] == "rectanglelabels":
        inside = (x > value["x"]) & (x < value["x"] + value["width"])
        return inside & (y > value["y"]) & (y < value["y"] + value["height"])
    return ((x - value["x"]) / value["radiusX"]) ** 2 + (
        (y - value["y"]) / value["radiusY"]
    ) ** 2 < 1


@pytest.mark.parametrize("kind", ["brush", "bitmask", "polygon", "rectangle", "ellipse"])
def test_image_configs(studio: LabelStudio, server: Server, tmp_path: Path, kind: str) -> None:
    project = studio.project(f"image {kind}", config(f"image_{kind}"))
    task = studio.upload(project, write_image(tmp_path / "scene.png"))
    ml = studio.connect(project, server.url)
    state = studio.api("GET", f"/api/ml/{ml}").json()
    assert state["state"] == "CO" and state["model_version"] == server.health()["model_version"]
    masks = truth(0)
    found = studio.interactive(ml, task, [click(90 / 4.8, 110 / 3.2)])
    assert {r["value"][f"{kind}labels"][0] for r in found} == {"Object"}
    if MEANINGFUL:
        want = masks["disc"]
        if kind == "rectangle":
            want = drawn({"type": "rectanglelabels", "value": percent_box(want)})
        assert iou(drawn(found[0]), want) >= RENDERED_CLICK_IOU
    boxed = studio.interactive(ml, task, [box(masks["block"])])
    assert boxed[0]["value"][f"{kind}labels"] == ["Other"]
    if MEANINGFUL and kind != "ellipse":
        assert iou(drawn(boxed[0]), masks["block"]) >= RENDERED_BOX_IOU
    # opened, or predicted in bulk, without prompts: an empty prediction that is stored
    query = {"id": "retrieve_tasks_predictions", "project": project}
    selected = {"selectedItems": {"all": True, "excluded": []}, "project": str(project)}
    studio.api("POST", "/api/dm/actions", params=query, json=selected)


def test_video_from_box_to_export(
    studio: LabelStudio, server: Server, movie: Path, tmp_path: Path
) -> None:
    project = studio.project("video", config("video_track"))
    task = studio.upload(project, movie)
    ml = studio.connect(project, server.url)
    first = keyframe(1, truth(0)["disc"])
    (one,) = studio.interactive(ml, task, [region("disc1", "Object", [first])])
    assert one["id"] == "disc1" and one["value"]["labels"] == ["Object"]
    store = SessionStore(str(server.folder / "sessions.db"))
    (session,) = [s for s in store.list() if str(s.key).endswith(f"|{project}|{task}")]
    check_masks(store, session.id, 1, "disc", range(FRAMES))

    # a corrected box is a prompt there, and the annotator's boxes stay as they were drawn
    fixed = keyframe(21, truth(20)["disc"])
    fixed["x"] += 0.4
    sequence = [k for k in one["value"]["sequence"] if k["frame"] != 21] + [fixed]
    sequence.sort(key=lambda k: k["frame"])
    (two,) = studio.interactive(ml, task, [region("disc1", None, sequence)])
    assert two["id"] == "disc1" and two["value"]["labels"] == ["Object"]
    by_frame = {k["frame"]: k for k in two["value"]["sequence"]}
    for own in (first, fixed):
        for key in ("x", "y", "width", "height"):
            assert by_frame[own["frame"]][key] == pytest.approx(own[key])

    # a second object on a later frame; the first one is not touched
    before = {m.frame_idx: m for m in store.iter_masks(session.id, obj_id=1)}
    block = region("block1", "Other", [keyframe(6, truth(5)["block"])])
    found = studio.interactive(ml, task, [block])
    assert [r["id"] for r in found] == ["block1"]
    assert {m.frame_idx: m for m in store.iter_masks(session.id, obj_id=1)} == before
    check_masks(store, session.id, 2, "block", range(5, FRAMES))

    # the annotator submits; the webhook brings the final regions; then deletes
    saved = studio.api(
        "POST", f"/api/tasks/{task}/annotations/", json={"result": [two, found[0]]}
    ).json()
    key = str(session.key)
    (kept,) = until(lambda: store.annotations.of(key))
    assert {r["id"] for r in kept.regions} == {"disc1", "block1"}
    # Label Studio's own export interpolates our keyframes without failing
    for flag in ("true", "false"):
        query = {"exportType": "JSON", "interpolate_key_frames": flag}
        answer = studio.api("GET", f"/api/projects/{project}/export", params=query)
        (exported,) = json.loads(answer.content)
        assert len(exported["annotations"][0]["result"]) == 2
    studio.api("DELETE", f"/api/annotations/{saved['id']}/")
    until(lambda: not store.annotations.of(key))
    studio.api("DELETE", f"/api/tasks/{task}/")
    until(lambda: all(s.id != session.id for s in store.list()))
    store.close()


def check_masks(
    store: SessionStore, session_id: str, obj_id: int, name: str, frames: range
) -> None:
    masks = {m.frame_idx: m for m in store.iter_masks(session_id, obj_id=obj_id)}
    assert sorted(masks) == list(frames)
    if MEANINGFUL:
        scores = [iou(masks[i].rle.decode(), truth(i)[name]) for i in frames]
        floors = RENDERED_TRACK_IOU if frames.stop <= FRAMES else RENDERED_LONG_TRACK_IOU
        assert np.mean(scores) >= floors[name], scores


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_in_the_middle_of_a_track(
    studio: LabelStudio,
    weights: dict[str, str],
    tmp_path: Path,
    how: signal.Signals,
) -> None:
    server = Server(tmp_path, studio, predict_deadline=0.5, **weights).start()
    try:
        project = studio.project(f"restart {how}", config("video_track"))
        task = studio.upload(project, write_movie(tmp_path / "long.mp4", LONG))
        ml = studio.connect(project, server.url)
        asked = [
            region("disc1", "Object", [keyframe(1, truth(0)["disc"])], LONG),
            region("block1", "Object", [keyframe(1, truth(0)["block"])], LONG),
        ]
        studio.interactive(ml, task, asked)
        until(lambda: any(j["done"] > 1 for j in server.jobs()))
        assert all(j["state"] in ("queued", "running") for j in server.jobs())
        server.stop(how)
        server.start()
        server.settle(900)
        store = SessionStore(str(server.folder / "sessions.db"))
        (session,) = store.list()
        for obj_id, name in ((1, "disc"), (2, "block")):
            check_masks(store, session.id, obj_id, name, range(LONG))
        store.close()
        # what ended after its request is in Label Studio as a prediction
        pushed = until(lambda: predictions(studio, task))
        assert {r["id"] for p in pushed for r in p["result"]} == {"disc1", "block1"}
        (whole, other) = studio.interactive(ml, task, asked)
        assert {whole["id"], other["id"]} == {"disc1", "block1"}
        assert studio.token not in server.log()
    finally:
        server.stop()


def predictions(studio: LabelStudio, task: int) -> list[dict[str, Any]]:
    found = studio.api("GET", "/api/predictions/", params={"task": task}).json()
    return [p for p in found if p["result"]]


def test_basic_auth_from_label_studio(
    studio: LabelStudio, weights: dict[str, str], tmp_path: Path
) -> None:
    server = Server(
        tmp_path, studio, basic_auth_user="ls", basic_auth_password="secret", **weights
    ).start()
    try:
        assert requests.get(server.url + "/versions", timeout=10).status_code == 401
        project = studio.project("with a door", config("image_brush"))
        task = studio.upload(project, write_image(tmp_path / "scene.png"))
        # Label Studio shows a person the reason phrase of what we answer, and nothing else
        asked = {"project": project, "url": server.url, "title": "edgetam"}
        refused = studio.api("POST", "/api/ml", json=asked, check=False)
        assert refused.status_code >= 400 and "Credentials are missing" in refused.text
        ml = studio.connect(
            project, server.url, auth_method="BASIC_AUTH", basic_auth_user="ls",
            basic_auth_pass="secret",
        )  # fmt: skip
        assert studio.interactive(ml, task, [click(90 / 4.8, 110 / 3.2)])
        unknown = {"task": task, "context": {"result": [click(50, 50, "Nobody")]}}
        path = f"/api/ml/{ml}/interactive-annotating"
        (told,) = studio.api("POST", path, json=unknown).json()["errors"]
        assert "No output tag has the label 'Nobody'; add" in told
    finally:
        server.stop()


def test_start_training_in_label_studio_makes_weights_that_load(
    studio: LabelStudio, server: Server, weights: dict[str, str], movie: Path, tmp_path: Path
) -> None:
    project = studio.project("training", config("video_track"))
    tasks = [studio.upload(project, movie), studio.upload(project, movie)]
    ml = studio.connect(project, server.url)
    studio.api("POST", f"/api/ml/{ml}/train")  # refused here: it is off by default
    assert "EDGETAM_LABEL_TRAIN_ON_START_TRAINING=true" in until(server.log)
    assert all(j["kind"] == "track" for j in server.jobs())
    studio.api("DELETE", f"/api/ml/{ml}")
    for task in tasks:  # a person's own boxes, no track of ours among them
        boxes = [keyframe(f, truth(f - 1)["disc"]) for f in (1, 20, FRAMES)]
        submitted = {"result": [region(f"d{task}", "Object", boxes)]}
        studio.api("POST", f"/api/tasks/{task}/annotations/", json=submitted)
    teaching = Server(
        tmp_path, studio, train_on_start_training="true", training_steps=2, **weights
    ).start()
    try:
        ml = studio.connect(project, teaching.url)
        studio.api("POST", f"/api/ml/{ml}/train")
        (job,) = teaching.jobs()
        assert (job["kind"], job["project"]) == ("training", str(project))
        found = until(lambda: next((j for j in teaching.jobs() if j["weights"]), None), 600)
        assert found["state"] == "done" and found["done"] == found["total"] == 2
        assert set(found["before"]) == set(found["after"])
    finally:
        teaching.stop()
    taught = Server(tmp_path, studio, **{**weights, "checkpoint": found["weights"]}).start()
    try:
        assert taught.health()["model_version"] != server.health()["model_version"]
        ml = studio.connect(project, taught.url)
        box = region("x", "Object", [keyframe(1, truth(0)["disc"])])
        (answer,) = studio.interactive(ml, tasks[0], [box])
        assert answer["id"] == "x"
    finally:
        taught.stop()


def test_doctor_finds_nothing_wrong_and_then_everything(
    studio: LabelStudio, server: Server, tmp_path: Path
) -> None:
    project = studio.project("for the doctor", config("image_brush"))
    studio.upload(project, write_image(tmp_path / "scene.png"))
    asked = ["--project", str(project), "--backend-url", server.url]
    status, lost = doctor(studio, tmp_path, *asked, "--connect")
    assert status == 1
    assert (
        not lost[f"project {project} connection"]["ok"] and lost[f"project {project} guard"]["ok"]
    )
    # the attempt left nothing behind
    assert studio.api("GET", "/api/ml", params={"project": project}).json() == []
    assert studio.api("GET", "/api/webhooks/", params={"project": project}).json() == []
    studio.connect(project, server.url)
    status, found = doctor(studio, tmp_path, *asked)
    assert status == 0, found
    assert found["token"]["detail"].startswith("personal token of")
    assert "scene.png" in found[f"project {project} media"]["detail"]
    status, found = doctor(studio, tmp_path, *asked, token="0" * 40)
    assert status == 1 and "Personal Access Token" in found["token"]["fix"]
    broken = studio.project("cannot work", "<View><Image name='i' value='$image'/></View>")
    _, found = doctor(studio, tmp_path, "--project", str(broken), "--backend-url", server.url)
    assert "add <KeyPointLabels" in found[f"project {broken} config"]["detail"]


def test_doctor_names_the_guard(
    template: Path, server: Server, weights: dict[str, str], tmp_path: Path
) -> None:
    with LabelStudio(template, protect=True) as guarded:
        project = guarded.project("guarded", config("image_brush"))
        asked = ["--project", str(project), "--backend-url", server.url, "--connect"]
        status, found = doctor(guarded, tmp_path, *asked)
    check = found[f"project {project} guard"]
    assert status == 1 and not check["ok"]
    assert "SSRF_PROTECTION_ENABLED=false" in check["fix"]


def doctor(
    studio: LabelStudio, folder: Path, *flags: str, token: str | None = None
) -> tuple[int, dict[str, dict[str, Any]]]:
    """(exit code, checks by name); of several with one name the last."""
    command = [sys.executable, "-m", "edgetam_label", "doctor", "--json"]
    env = {**os.environ, "EDGETAM_LABEL_LABEL_STUDIO_API_KEY": token or studio.token}
    done = subprocess.run(
        [*command, "--label-studio", studio.url, *flags],
        env=env, cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert studio.token not in done.stdout + done.stderr
    return done.returncode, {c["name"]: c for c in json.loads(done.stdout)["checks"]}
