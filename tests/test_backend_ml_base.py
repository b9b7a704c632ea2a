"""The LabelStudioMLBase subclass under label-studio-ml 2.x's own app, where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from backend_bodies import IMAGE_CONFIG, click, predict_body
from backend_rig import picture
from studio_double import Studio


@pytest.mark.filterwarnings("default")
def test_the_framework_serves_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the framework puts a database as it is imported
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    api = pytest.importorskip("label_studio_ml.api", reason="label-studio-ml 2.x is in git only")
    with Studio() as studio:
        studio.add("/data/p.png", picture())
        for name, value in {
            "DB": tmp_path / "s.db", "CACHE_DIR": tmp_path / "c", "MODEL": "tiny",
            "LABEL_STUDIO_URL": studio.url,
        }.items():  # fmt: skip
            monkeypatch.setenv(f"EDGETAM_LABEL_{name}", str(value))
        from edgetam_label.backend.ml_base import EdgeTAMBackend, shared_backend

        try:
            shared_backend().host.model(timeout=60)
            client = api.init_app(EdgeTAMBackend).test_client()
            assert client.get("/health").get_json()["status"] == "UP"
            setup = client.post(
                "/setup", json={"project": "1.2", "schema": IMAGE_CONFIG, "hostname": "",
                                "access_token": ""}
            ).get_json()  # fmt: skip
            assert setup["model_version"].startswith("tiny@")
            body: dict[str, Any] = predict_body(
                IMAGE_CONFIG, {"photo": "/data/p.png"}, [click(50, 50)]
            )
            (found,) = client.post("/predict", json=body).get_json()["results"]
            assert found["result"][0]["type"] == "brushlabels"
            wrong = predict_body(IMAGE_CONFIG, {"other": "x"}, [click(50, 50)])
            (empty,) = client.post("/predict", json=wrong).get_json()["results"]
            assert empty["result"] == [] and "has no 'photo'" in empty["model_version"]
            hook = {"action": "ANNOTATION_CREATED", "task": {"id": 1},
                    "project": {"id": 1, "label_config": IMAGE_CONFIG},
                    "annotation": {"id": 3, "task": 1, "result": []}}  # fmt: skip
            assert client.post("/webhook", json=hook).status_code < 300
            kept = shared_backend().store.annotations.under("ls|")
            assert [a.annotation_id for a in kept] == ["3"]
        finally:
            shared_backend().close()
            shared_backend.cache_clear()
