"""A backend with the tiny model (real code, random weights) beside a small Label Studio double."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image
from studio_double import Studio

from edgetam_label.backend.app import create_app
from edgetam_label.backend.service import Backend
from edgetam_label.backend.settings import ServerSettings
from edgetam_label.checkpoints import load_model


def picture(seed: int = 0, width: int = 320, height: int = 240) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def frame_of(index: int, width: int = 160, height: int = 120) -> NDArray[np.uint8]:
    """A bright square that moves to the right over a dark ramp."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 2] = np.linspace(0, 90, width, dtype=np.uint8)
    x = 20 + 3 * index
    image[40:80, x : x + 40] = (250, 220, 40)
    return image


def movie(path: Path, frames: int = 20, pts: list[int] | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(frame_of(i), "rgb24")
            frame.pts, frame.time_base = (pts[i] if pts else 4 * i), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seeing_model() -> Any:
    """The tiny model with random weights, but sure that it sees the object: its masks mean nothing,
    and there are some on every frame."""
    model = load_model("tiny", "random", "cpu")
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)
    return model


class Rig:
    """client: of Flask, the same routes without a socket."""

    def __init__(self, app: Flask, studio: Studio, folder: Path) -> None:
        self.app, self.studio, self.folder = app, studio, folder
        self.client: FlaskClient = app.test_client()
        self.backend: Backend = app.extensions["edgetam"]
        self.backend.host.model(timeout=60)

    def post(self, path: str, body: Any, **kwargs: Any) -> tuple[int, Any]:
        response = self.client.post(path, json=body, **kwargs)
        return response.status_code, response.get_json()

    def predict(self, body: Any) -> list[dict[str, Any]]:
        status, answer = self.post("/predict", body)
        assert status == 200, answer
        assert len(answer["results"]) == len(body["tasks"])
        return list(answer["results"][0]["result"])

    def settle(self, seconds: float = 60) -> None:
        """Wait until no job is under way."""
        until = time.monotonic() + seconds
        while self.backend.jobs.running() != (0, 0):
            assert time.monotonic() < until, self.backend.jobs.all()
            time.sleep(0.02)


def settings(folder: Path, studio: Studio | None, **changes: Any) -> ServerSettings:
    given: dict[str, Any] = {
        "db": str(folder / "sessions.db"),
        "cache_dir": folder / "cache",
        "label_studio_url": studio.url if studio else None,
        "model": "tiny",
        "checkpoint": "random",
        "device": "cpu",
        "download_retries": 0,
        **changes,
    }
    return ServerSettings.load(**given)


@contextmanager
def running(folder: Path, studio: Studio, **changes: Any) -> Iterator[Rig]:
    made = settings(folder, studio, **changes)
    app = create_app(made, load=seeing_model)
    rig = Rig(app, studio, folder)
    try:
        yield rig
    finally:
        rig.backend.close()
