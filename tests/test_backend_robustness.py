"""Thousands of damaged requests: a 2xx or a sentence with 4xx, 502, 503; never a 500 or a hang."""

from __future__ import annotations

import copy
import json
import random
import resource
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backend_bodies import (
    IMAGE_CONFIG,
    VIDEO_CONFIG,
    click,
    keyframe,
    predict_body,
    rectangle,
    track,
)
from backend_rig import Rig, movie, picture, running
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studio_double import Studio

PHOTO, MOVIE = {"photo": "/data/p.png"}, {"movie": "/data/m.mp4"}
WITH_A_SENTENCE = {400, 404, 405, 409, 413, 422, 429, 502, 503}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("robust")
    with Studio() as studio:
        studio.add("/data/p.png", picture(width=64, height=48))
        studio.add("/data/m.mp4", movie(folder / "m.mp4", frames=4))
        with running(folder, studio, max_jobs_per_client=50) as one:
            yield one


def seeds() -> list[tuple[str, dict[str, Any]]]:
    hook = {
        "action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": {"id": 1},
        "annotation": {"id": 1, "task": 1, "result": [click(1, 1)], "updated_at": "2026-11-22"},
    }  # fmt: skip
    return [
        ("/predict", predict_body(IMAGE_CONFIG, PHOTO, [click(50, 50), click(9, 9, id="b")])),
        ("/predict", predict_body(IMAGE_CONFIG, PHOTO, [rectangle(10, 10, 40, 40, rotation=5)])),
        ("/predict", predict_body(IMAGE_CONFIG, PHOTO, None)),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE,
                                  [track([keyframe(1, 20, 20, 40, 40), keyframe(3, 9, 9, 9, 9)])])),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE, [click(9, 9, to_name="clip")], frame=2)),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE, [click(9, 9, to_name="clip")],
                                  event="track", frame=2, direction="both", max_frames=3)),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE, [], event="prewarm", frame=2, window=2)),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE, [], event="track_cancel", session_id="x")),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE, [], event="release")),
        ("/setup", {"project": "1.2", "schema": IMAGE_CONFIG, "hostname": "http://x:1",
                    "access_token": "t", "extra_params": {"output": "PolygonLabels"}}),
        ("/webhook", hook),
        ("/webhook", {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}],
                      "project": {"id": 1}}),
        ("/webhook", {"action": "START_TRAINING", "project": {"id": 1, "title": "cats"}}),
        ("/predict", predict_body(VIDEO_CONFIG, MOVIE, [], event="track_progress",
                                  session_id="a+b")),
        ("/webhook", {"action": "TASKS_DELETED", "tasks": [{"id": 5}], "project": {"id": 1}}),
    ]  # fmt: skip


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3.5, 1e308, -1e308, 10**30, 2**63, float("nan"), float("inf"),
    "", "x", "$photo", "\x00", "é" * 50, "../..", "file:///etc/passwd", "//x", "http://10.0.0.1/",
    "1" * 500, [], {}, [[]], [None], [{}], {"": None}, {"id": {}}, "keypointlabels",
    "videorectangle", "track", "<View/>", "null", ["Cat"], [1, "2", None],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path inside a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()  # fmt: skip
    for key, inner in items:
        yield from places(inner, (*path, key))


def damaged(body: Any, rng: random.Random) -> Any:
    """One to four places changed: replaced, removed, repeated, renamed, or taken from elsewhere."""
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 4)):
        found = list(places(body))
        if not found:
            return rng.choice(ODD)
        *parents, last = rng.choice(found)
        holder = body
        for key in parents:
            holder = holder[key]
        kind = rng.randrange(6)
        if kind == 0:
            holder[last] = copy.deepcopy(rng.choice(ODD))
        elif kind == 1:
            del holder[last]
        elif kind == 2 and isinstance(holder, list):
            holder += [copy.deepcopy(holder[last])] * rng.choice((1, 3, 40))
        elif kind == 3 and isinstance(holder, dict):
            holder[rng.choice(("id", "type", "value", "x", "frame", "é", ""))] = holder.pop(last)
        elif kind == 4 and isinstance(holder[last], str) and holder[last]:
            at = rng.randrange(len(holder[last]))
            holder[last] = holder[last][:at] + rng.choice('<>&"\0é{}$%') + holder[last][at + 1 :]
        else:
            *source, end = rng.choice(found)
            there: Any = body
            try:
                for key in source:
                    there = there[key]
                holder[last] = copy.deepcopy(there[end])
            except (KeyError, IndexError, TypeError):
                holder[last] = None
    return body


def check(client: FlaskClient, path: str, raw: bytes) -> int:
    began = time.monotonic()
    response = client.post(path, data=raw, content_type="application/json")
    assert time.monotonic() - began < 30
    status = response.status_code
    answer = response.get_json()
    if status in WITH_A_SENTENCE:
        assert set(answer) == {"error"}, answer
        assert isinstance(answer["error"], str) and len(answer["error"]) < 2000
        assert "Traceback" not in answer["error"]
    else:
        assert status in (200, 201), (status, answer, raw[:3000])
    return int(status)


def _memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_of_damaged_bodies(rig: Rig) -> None:
    rng = random.Random(4)
    statuses: dict[int, int] = {}
    memory = 0
    all_seeds = seeds()
    for i in range(2000):
        path, body = all_seeds[i % len(all_seeds)]
        raw = json.dumps(damaged(body, rng)).encode()
        status = check(rig.client, path, raw)
        statuses[status] = statuses.get(status, 0) + 1
        if i == 700:
            rig.settle()
            memory = _memory()
    rig.settle()
    assert _memory() - memory < 150 << 20, "memory grows with the number of requests"
    assert statuses[200] > 150 and statuses[400] > 150, statuses
    assert rig.client.get("/health").get_json()["status"] == "UP"


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["tasks", "data", "id", "params", "context", "result", "value", "type",
                         "action", "annotation", "task", "project", "event", "frame", "x",
                         "label_config", "sequence", "drafts"]),
        inner, max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_any_json_at_all(rig: Rig, path: str) -> None:
    @settings(
        max_examples=300, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(any_json)
    def attempt(body: Any) -> None:
        check(rig.client, path, json.dumps(body).encode())

    attempt()


regions = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["keypointlabels", "rectanglelabels", "videorectangle", "brush"])},
        optional={
            "id": any_json | st.text(max_size=5),
            "to_name": st.sampled_from(["picture", "clip", "", None]),
            "from_name": any_json,
            "is_positive": any_json,
            "image_rotation": st.sampled_from([0, 90, 180, 270, 45, None, "90"]),
            "item_index": any_json,
            "value": any_json
            | st.fixed_dictionaries(
                {k: st.floats(-10, 110) | any_json for k in ("x", "y", "width", "height")},
                optional={
                    "rotation": st.floats(),
                    "labels": any_json,
                    "keypointlabels": st.just(["Cat"]),
                    "framesCount": any_json,
                    "duration": any_json,
                    "sequence": st.lists(
                        st.fixed_dictionaries(
                            {"frame": st.integers(-2, 6) | any_json},
                            optional={
                                k: st.floats(-10, 110) for k in ("x", "y", "width", "height")
                            },
                        )
                        | any_json,
                        max_size=4,
                    ),
                },
            ),
        },
    )
    | any_json,
    max_size=4,
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_any_regions_at_all(rig: Rig, kind: str) -> None:
    config, data = (IMAGE_CONFIG, PHOTO) if kind == "image" else (VIDEO_CONFIG, MOVIE)

    @settings(
        max_examples=300, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(regions, st.integers(1, 3))
    def attempt(found: list[Any], task: int) -> None:
        check(
            rig.client,
            "/predict",
            json.dumps(predict_body(config, data, found, task=task)).encode(),
        )

    attempt()
    rig.settle()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_soak_of_mixed_requests_from_several_threads(rig: Rig) -> None:
    stop = time.monotonic() + 12
    wrong: list[Any] = []
    counts = [0] * 4
    bodies = seeds()

    def work(number: int) -> None:
        rng = random.Random(number)
        client = rig.app.test_client()
        while time.monotonic() < stop:
            path, body = rng.choice(bodies)
            body = copy.deepcopy(body)
            if "tasks" in body and path == "/predict":
                body["tasks"][0]["id"] = rng.randint(1, 6)
                body["tasks"][0]["drafts"][0]["user"] = f"user{number}"
            status = client.post(path, json=body).status_code
            counts[number] += 1
            if status not in (200, 201, 429):
                wrong.append((status, path, body))
            if rng.random() < 0.2:
                began = time.monotonic()
                if client.get("/health").status_code != 200 or time.monotonic() - began > 1:
                    wrong.append(("health", time.monotonic() - began))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.settle(120)
    # a task that another thread deletes in the middle of a request may be gone: a 4xx, no more
    serious = [w for w in wrong if w[0] == "health" or int(w[0]) >= 500]
    assert not serious, serious[:3]
    assert min(counts) > 5


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_people_are_answered_rightly_while_others_send_rubbish(rig: Rig) -> None:
    """Clicks and tracks of a project of its own: the same answers as on an idle server."""

    def answer(body: dict[str, Any]) -> list[dict[str, Any]]:
        response = rig.app.test_client().post("/predict", json=body)  # a client is for one thread
        assert response.status_code == 200, response.get_json()
        return list(response.get_json()["results"][0]["result"])

    clicks = [
        predict_body(IMAGE_CONFIG, PHOTO, [click(x, y, id=f"c{x}")], task=7, project=77)
        for x, y in ((30, 40), (50, 50), (70, 60))
    ]
    wanted = [answer(body) for body in clicks]
    assert all(len(found) == 1 for found in wanted) and wanted[0] != wanted[1]
    boxes = [keyframe(1, 20, 20, 40, 40)]

    def tracked(name: str) -> list[dict[str, Any]]:
        body = predict_body(
            VIDEO_CONFIG, MOVIE, [track(boxes, id=name, frames=4)], task=8, project=77, user="ann"
        )
        return [{**entry, "id": entry["id"] == name} for entry in answer(body)]

    followed = tracked("alone")
    assert len(followed) == 1 and followed[0]["id"]

    stop = time.monotonic() + 20
    wrong: list[Any] = []
    done = {"rubbish": 0, "clicks": 0, "tracks": 0, "looks": 0}

    def rubbish(number: int) -> None:
        rng = random.Random(number)
        path, body = rng.choice(seeds())
        check(rig.app.test_client(), path, json.dumps(damaged(body, rng)).encode())

    def honest_click(number: int) -> None:
        index = number % len(clicks)
        if (found := answer(clicks[index])) != wanted[index]:
            wrong.append((clicks[index], found))

    def honest_track(number: int) -> None:
        if (found := tracked(f"t{number}")) != followed:
            wrong.append(found)

    def look(number: int) -> None:
        path = ("/health", "/jobs", "/metrics", "/versions")[number % 4]
        began = time.monotonic()
        status = rig.app.test_client().get(path).status_code
        if status != 200 or time.monotonic() - began > 5:
            wrong.append((path, status, time.monotonic() - began))
        time.sleep(0.02)

    def work(name: str, first: int, step: Callable[[int], None]) -> None:
        number = first
        while time.monotonic() < stop:
            try:
                step(number)
            except Exception as error:  # in a thread, nobody else would tell
                wrong.append((name, number, error))
                return
            done[name] += 1
            number += 3

    steps = [("rubbish", first, rubbish) for first in range(3)]
    steps += [("clicks", 0, honest_click), ("tracks", 0, honest_track), ("looks", 0, look)]
    threads = [threading.Thread(target=work, args=one) for one in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.settle(120)
    assert not wrong, wrong[:3]
    assert min(done.values()) > 3, done
    print(done)
