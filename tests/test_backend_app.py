from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_bodies import IMAGE_CONFIG, click, image_config, predict_body, rectangle
from backend_rig import Rig, picture, running, settings
from studio_double import Studio

from edgetam_label.backend.app import create_app
from edgetam_label.backend.auth import Door, check_bind
from edgetam_label.backend.brush import decode_brush
from edgetam_label.backend.openapi import description
from edgetam_label.checkpoints import load_model
from edgetam_label.errors import CheckpointError, ConfigError

DATA = {"photo": "/data/upload/1/a.png"}


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with Studio() as one:
        one.add("/data/upload/1/a.png", picture())
        yield one


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, studio: Studio) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("app"), studio) as one:
        yield one


def body(regions: list[dict[str, Any]] | None, config: str = IMAGE_CONFIG) -> dict[str, Any]:
    return predict_body(config, DATA, regions)


def test_health_and_setup_answer_at_once(rig: Rig) -> None:
    answer = rig.client.get("/health").get_json()
    assert (answer["status"], answer["model"]) == ("UP", "ready")
    status, setup = rig.post(
        "/setup",
        {"project": "3.17", "schema": IMAGE_CONFIG, "hostname": "http://ls", "access_token": "t",
         "extra_params": None},
    )  # fmt: skip
    assert status == 200 and setup == {"model_version": answer["model_version"]}
    assert rig.client.get("/versions").get_json() == {"versions": [answer["model_version"]]}


def test_setup_tells_the_problems_of_a_config(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    _, setup = rig.post("/setup", {"project": "8.1", "schema": "<View/>"})
    assert "add <Image" in setup["problems"][0]
    assert "project 8: The labelling config has no <Image>" in caplog.text


def test_a_click_comes_back_as_a_mask_with_the_chosen_label(rig: Rig) -> None:
    (region,) = rig.predict(body([click(50, 50, "Dog")]))
    assert region["type"] == "brushlabels" and region["from_name"] == "brush"
    assert region["to_name"] == "picture" and region["value"]["brushlabels"] == ["Dog"]
    assert (region["original_width"], region["original_height"]) == (320, 240)
    assert decode_brush(region["value"]["rle"], 240, 320).any()
    assert 0 <= region["score"] <= 1


def test_a_refinement_keeps_the_region_and_the_embedding(rig: Rig) -> None:
    first = rig.predict(body([click(50, 50)]))
    hits = _metric(rig, 'edgetam_embedding_cache_total{outcome="hit"}')
    second = rig.predict(body([click(50, 50), click(10, 10, positive=False, id="k2")]))
    assert _metric(rig, 'edgetam_embedding_cache_total{outcome="hit"}') == hits + 1
    assert [r["id"] for r in first] == [r["id"] for r in second]
    assert first[0]["value"]["rle"] != second[0]["value"]["rle"]


def test_boxes_are_instances(rig: Rig) -> None:
    found = rig.predict(body([rectangle(10, 10, 30, 30), rectangle(50, 50, 30, 30, id="r2")]))
    assert len({r["id"] for r in found}) == len(found) == 2


@pytest.mark.parametrize(
    "tag",
    ["BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels", "EllipseLabels"],
)
@pytest.mark.parametrize("prompt", ["click", "box"])
def test_every_tool_with_every_output(rig: Rig, tag: str, prompt: str) -> None:
    region = click(50, 50, to_name="i", from_name="p0")
    if prompt == "box":
        region = rectangle(20, 20, 50, 50, to_name="i", from_name="p1")
    found = rig.predict(body([region], image_config(tag)))
    assert found and {r["type"] for r in found} == {tag.lower()}
    assert all(r["value"][tag.lower()] == ["Cat"] for r in found)


def test_extra_params_choose_the_output(rig: Rig) -> None:
    both = IMAGE_CONFIG.replace(
        "</View>",
        '<PolygonLabels name="poly" toName="picture"><Label value="Cat"/></PolygonLabels></View>',
    )
    rig.post("/setup", {"project": "77.1", "extra_params": {"output": "PolygonLabels"}})
    asked = predict_body(both, DATA, [click(50, 50)], project=77)
    assert {r["type"] for r in rig.predict(asked)} == {"polygonlabels"}


def test_no_prompt_no_result_and_no_work(rig: Rig, studio: Studio) -> None:
    seen = len(studio.seen)
    for regions in (None, []):
        assert rig.predict(body(regions)) == []
    many = body(None)
    many["tasks"] *= 50
    _, answer = rig.post("/predict", many)
    assert len(answer["results"]) == 50 and len(studio.seen) == seen


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"params": None}, 200, ""),
        ({"params": {}}, 200, ""),
        ({"params": {"context": 3}}, 400, "'params.context' must be"),
        ({"tasks": None}, 400, "'tasks' must be a list"),
        ({"tasks": [3]}, 400, "Each task must be an object"),
        ({"tasks": [{"id": 1}]}, 400, "no 'data' object"),
        ({"label_config": None}, 400, "label config"),
        ({"label_config": "<View>"}, 400, "not well-formed"),
        ({"label_config": "<View/>"}, 422, "add <Image"),
        ({"tasks": [{"id": 1, "data": {"other": "x"}}]}, 400, "has no 'photo'.*holds: other"),
        ({"tasks": [{"id": 1, "data": {"photo": "/data/none.png"}}]}, 502, "answered with 404"),
        ({"tasks": [{"id": 1, "data": {"photo": "file:///etc/passwd"}}]}, 422, "is refused"),
    ],
)
def test_wrong_bodies_get_a_sentence(
    rig: Rig, changes: dict[str, Any], status: int, sentence: str
) -> None:
    got, answer = rig.post("/predict", {**body([click(50, 50)]), **changes})
    assert got == status, answer
    if status != 200:
        import re

        assert set(answer) == {"error"} and re.search(sentence, answer["error"])


def test_the_sentence_is_the_reason_phrase_too(rig: Rig) -> None:
    """Label Studio shows nothing else of a failed call."""
    wrong = body([click(50, 50)], "<View/>")
    answer = rig.client.post("/predict", json=wrong)
    assert answer.status.startswith("422 The labelling config has no <Image>")
    wrong["label_config"] = '<View><Image name="i\u00e4\u2028" value="$x"/></View>'
    answer = rig.client.post("/predict", json=wrong)
    assert answer.status.isascii() and answer.status.isprintable() and len(answer.status) < 320


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"tasks": [{"id": 1, "data": {"a": "\\ud800"}}]}',
     b"[" * 100_000, b'{"tasks": ' + b"9" * 5000 + b"}", b"NaN", b'{"a": "\x00"}'],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_raw_rubbish_is_a_400(rig: Rig, path: str, raw: bytes) -> None:
    response = rig.client.post(path, data=raw, content_type="application/json")
    assert response.status_code == 400 and response.get_json()["error"]


def test_unknown_routes_and_methods_are_json(rig: Rig) -> None:
    assert "openapi" in rig.client.get("/nowhere").get_json()["error"]
    assert rig.client.get("/predict").status_code == 405
    assert rig.client.get("/predict").get_json()["error"]


def test_every_route_is_described(rig: Rig) -> None:
    described = {
        (method.upper(), path.replace("{id}", "<job_id>"))
        for path, item in description()["paths"].items()
        for method in item
        if method in ("get", "post", "delete")
    }
    real = {
        (method, rule.rule)
        for rule in rig.app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}
        if rule.endpoint != "static"
    }
    assert described == real
    assert rig.client.get("/openapi.json").get_json() == json.loads(json.dumps(description()))


def test_metrics_count_requests_steps_and_errors(rig: Rig) -> None:
    rig.predict(body([click(50, 50)]))
    rig.post("/predict", 3)
    text = rig.client.get("/metrics").get_data(as_text=True)
    assert 'edgetam_requests_total{route="/predict",status="200"}' in text
    assert 'edgetam_errors_total{kind="RequestError"}' in text
    assert 'edgetam_step_seconds_count{step="predict"}' in text
    assert 'edgetam_masks_total{kind="image"}' in text
    assert "edgetam_model_ready 1.0" in text


def _metric(rig: Rig, name: str) -> float:
    for line in rig.client.get("/metrics").get_data(as_text=True).splitlines():
        if line.startswith(name):
            return float(line.split()[-1])
    return 0.0


def test_a_decompression_bomb_is_refused(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, max_pixels=50_000) as rig:
        status, answer = rig.post("/predict", body([click(50, 50)]))
    assert status == 502 and "EDGETAM_LABEL_MAX_PIXELS" in answer["error"]


def test_a_damaged_image_is_told(rig: Rig, studio: Studio) -> None:
    studio.add("/data/upload/1/bad.png", picture()[:300])
    asked = predict_body(IMAGE_CONFIG, {"photo": "/data/upload/1/bad.png"}, [click(5, 5)])
    status, answer = rig.post("/predict", asked)
    assert status == 502 and answer["error"]


def test_large_requests_are_refused(tmp_path: Path, studio: Studio) -> None:
    with running(tmp_path, studio, request_bytes=2000) as rig:
        response = rig.client.post("/predict", data=b" " * 3000)
        assert response.status_code == 413
        assert "EDGETAM_LABEL_REQUEST_BYTES" in response.get_json()["error"]


def test_a_slow_download_is_answered_by_the_deadline_and_goes_on(
    tmp_path: Path, studio: Studio
) -> None:
    studio.add("/data/slow.png", picture(5))
    studio.delay["/data/slow.png"] = 1.5
    asked = predict_body(IMAGE_CONFIG, {"photo": "/data/slow.png"}, [click(50, 50)])
    with running(tmp_path, studio, predict_deadline=0.5) as rig:
        began = time.monotonic()
        status, answer = rig.post("/predict", asked)
        assert status == 503 and "the work goes on" in answer["error"]
        assert time.monotonic() - began < 1.2
        time.sleep(1.5)
        assert len(rig.predict(asked)) == 1
    assert studio.gets("/data/slow.png") == 1


# -- the model loads in the background -------------------------------------------------------


def test_health_answers_while_the_model_loads(tmp_path: Path, studio: Studio) -> None:
    gate = threading.Event()

    def load() -> Any:
        gate.wait(30)
        return load_model("tiny", "random", "cpu")

    app = create_app(settings(tmp_path, studio, predict_deadline=0.3), load=load)
    try:
        client = app.test_client()
        for path in ("/health", "/"):
            began = time.perf_counter()
            assert client.get(path).get_json()["model"] == "loading"
            assert time.perf_counter() - began < 0.2
        assert client.post("/setup", json={"project": "1.1"}).status_code == 200
        answer = client.post("/predict", json=body([click(50, 50)]))
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        gate.set()
        app.extensions["edgetam"].host.model(timeout=30)
        assert client.get("/health").get_json()["model"] == "ready"
    finally:
        gate.set()
        app.extensions["edgetam"].close()


def test_the_network_is_fused_once_and_not_for_each_click(rig: Rig) -> None:
    """Fusing takes several times as long as a click: it belongs to loading."""
    host = rig.backend.host
    predictor = host.predictor()
    assert predictor.model.fused and host.model() is predictor.model
    rig.predict(body([click(50, 50)]))
    rig.predict(body([click(40, 50)]))
    assert host.predictor() is predictor


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path, studio: Studio) -> None:
    def load() -> Any:
        raise CheckpointError("The weights are not here; download them.")

    app = create_app(settings(tmp_path, studio, predict_deadline=5), load=load)
    try:
        client = app.test_client()
        answer = client.post("/predict", json=body([click(50, 50)]))
        assert answer.status_code == 503 and "download them" in answer.get_json()["error"]
        health = client.get("/health")
        assert health.status_code == 503 and health.get_json()["status"] == "DOWN"
    finally:
        app.extensions["edgetam"].close()


# -- our own door ----------------------------------------------------------------------------


def _basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def test_the_door_asks_on_every_route_but_health(tmp_path: Path, studio: Studio) -> None:
    with running(
        tmp_path, studio, basic_auth_user="ls", basic_auth_password="pässword", bearer_token="tok"
    ) as rig:
        for rule in rig.app.url_map.iter_rules():
            method = "POST" if "POST" in (rule.methods or ()) else "GET"
            path = rule.rule.replace("<job_id>", "x").replace("<path:filename>", "x")
            status = rig.client.open(path, method=method).status_code
            assert status == (200 if path == "/health" else 401), path
        for headers in (_basic("ls:pässword"), {"Authorization": "Bearer tok"}):
            assert rig.client.get("/versions", headers=headers).status_code == 200
        for headers in (
            _basic("ls:wrong"), _basic("ls"), _basic(":"), {"Authorization": "Basic %%%"},
            {"Authorization": "Bearer "}, {"Authorization": "Bearer tök"}, {"Authorization": "tok"},
        ):  # fmt: skip
            answer = rig.client.get("/versions", headers=headers)
            assert answer.status_code == 401 and answer.headers["WWW-Authenticate"]


def test_an_open_door_admits_and_half_credentials_do_not_close_it() -> None:
    assert Door().admits("/predict", None)
    assert not Door(user="a").closed


@pytest.mark.parametrize(
    ("host", "closed", "insecure", "fine"),
    [("127.0.0.1", False, False, True), ("::1", False, False, True),
     ("0.0.0.0", False, False, False), ("192.168.1.4", False, False, False),
     ("example.com", False, False, False), ("0.0.0.0", True, False, True),
     ("0.0.0.0", False, True, True)],
)  # fmt: skip
def test_a_public_address_needs_credentials(
    host: str, closed: bool, insecure: bool, fine: bool
) -> None:
    if fine:
        check_bind(host, closed=closed, insecure=insecure)
    else:
        with pytest.raises(ConfigError, match="EDGETAM_LABEL_BASIC_AUTH_USER"):
            check_bind(host, closed=closed, insecure=insecure)


def test_secrets_are_in_no_log_and_no_answer(
    tmp_path: Path, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "5ecret" * 7
    with running(
        tmp_path, studio, label_studio_api_key=secret, bearer_token="hidden-bearer"
    ) as rig:
        known = {"Authorization": "Bearer hidden-bearer"}
        assert secret not in repr(rig.backend.settings)
        for path, sent in (
            ("/setup", {"project": "1.1", "access_token": "setup-token", "schema": "<View/>"}),
            ("/predict", body([click(500, 1)])),
            ("/predict", body([click(50, 50)])),
            ("/webhook", {"action": "NO", "token": "hook-token"}),
        ):
            answer = rig.client.post(path, json=sent, headers=known).get_data(as_text=True)
            assert secret not in answer and "hidden-bearer" not in answer
            assert "setup-token" not in answer
    for word in (secret, "hidden-bearer", "setup-token", "hook-token"):
        assert word not in caplog.text
