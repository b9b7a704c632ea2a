"""The model of a server: loaded once in the background, so that the first request never waits
for a port, and /health can say how far it is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.sessions import ModelIdentity
from edgetam_label.track_mode import TrackMode
from edgetam_label.turnstile import Turnstile

from .faults import ModelLoading

if TYPE_CHECKING:
    from edgetam_label.frames import Frames
    from edgetam_label.modeling import EdgeTAM
    from edgetam_label.predictor import ImagePredictor
    from edgetam_label.tracker import VideoTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostState:
    """name: "loading", "ready" or "failed". seconds: since the load began, or that it took."""

    name: str
    seconds: float
    error: str | None = None


class ModelHost:
    """load: returns the model, or raises EdgeTAMLabelError. version: what Label Studio shows.

    every: tracks show the model one frame in so many; optical flow moves masks in between.
    """

    def __init__(
        self, load: Callable[[], EdgeTAM], *, every: int = 1, wait_seconds: float = 60.0
    ) -> None:
        self.turnstile = Turnstile()
        self._load = load
        self._every = every
        self._wait = wait_seconds
        self._began = time.monotonic()
        self._done = threading.Event()
        self._predictor: ImagePredictor | None = None
        self._error: str | None = None
        self._seconds = 0.0
        self._version = "edgetam-label"
        self._identity: ModelIdentity | None = None

    def start(self) -> None:
        """Begin to load; returns at once."""
        threading.Thread(target=self._run, name="load-model", daemon=True).start()

    def _run(self) -> None:
        try:
            model = self._load()
            # torch takes seconds to import: here the model has brought it in already
            from edgetam_label.predictor import ImagePredictor

            identity = getattr(model, "identity", None)
            if identity is not None:
                self._identity = identity = TrackMode(self._every).mark(identity)
                self._version = f"{identity.name}@{identity.checkpoint_sha256[:8]}"
            # made once: fusing the network takes several times as long as answering a click
            self._predictor = ImagePredictor(model)
        except EdgeTAMLabelError as error:
            self._error = str(error)
            logger.error("the model cannot be loaded: %s", error)
        except Exception as error:
            self._error = f"The model cannot be loaded: {type(error).__name__}."
            logger.exception("the model cannot be loaded")
        finally:
            self._seconds = time.monotonic() - self._began
            self._done.set()

    @property
    def state(self) -> HostState:
        if not self._done.is_set():
            return HostState("loading", time.monotonic() - self._began)
        name = "failed" if self._predictor is None else "ready"
        return HostState(name, self._seconds, self._error)

    @property
    def version(self) -> str:
        """Name and weights, such as "edgetam@1f2e3d4c" or "edgetam+every=3@1f2e3d4c"; settled once
        the model is loaded."""
        return self._version

    @property
    def identity(self) -> ModelIdentity | None:
        """What makes the masks of tracks, as sessions record it; None before it is loaded, and
        for a model that was not made from a checkpoint."""
        return self._identity

    def predictor(self, timeout: float | None = None) -> ImagePredictor:
        """For images and frames; waited for. Raises ModelLoading where it is not there (yet)."""
        self._done.wait(self._wait if timeout is None else timeout)
        if self._predictor is None:
            if self._error is not None:
                raise ModelLoading(self._error)
            raise ModelLoading("The model is still loading; ask again in a few seconds.")
        return self._predictor

    def model(self, timeout: float | None = None) -> EdgeTAM:
        """The network, fused for inference; raises as `predictor` does."""
        return self.predictor(timeout).model

    def tracker(self, frames: Frames) -> VideoTracker:
        """For one track; raises as `predictor` does."""
        model = self.model()
        from edgetam_label.tracker import TrackerSettings, VideoTracker

        return VideoTracker(model, frames, TrackerSettings(every=self._every))
