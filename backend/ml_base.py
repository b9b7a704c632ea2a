"""The same service as a `LabelStudioMLBase` subclass, for `label-studio-ml start` with 2.x.

Optional: label-studio-ml 2.x is published in git only. `edgetam-label serve` needs none of it, and
is what we recommend: the framework turns errors into tracebacks and has no route for jobs.

docs/label-studio.md has the line that installs the pinned commit. It works with a `model.py` of one
line: `from edgetam_label.backend.ml_base import EdgeTAMBackend`.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

from edgetam_label.errors import EdgeTAMLabelError

from .app import default_loader
from .body import PredictBody
from .service import Backend
from .settings import ServerSettings


@functools.cache
def shared_backend() -> Backend:
    """One per process: the framework makes a new instance of the class for every request."""
    settings = ServerSettings.load()
    backend = Backend(settings, default_loader(settings))
    backend.start()
    return backend


class EdgeTAMBackend(LabelStudioMLBase):  # type: ignore[misc]
    """Settings come from the same EDGETAM_LABEL_* variables as those of `edgetam-label serve`."""

    def setup(self) -> None:
        backend = shared_backend()
        self.set("model_version", backend.host.version)

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> ModelResponse:
        """Never raises on a request: the framework would answer with a traceback."""
        backend = shared_backend()
        raw = {
            "tasks": tasks,
            "project": self.project_id,
            "label_config": self.label_config,
            "params": {"context": context},
        }
        try:
            answer = backend.predict(PredictBody.parse(raw), "label-studio-ml")
            results = answer["results"]
        except EdgeTAMLabelError as error:
            version = backend.host.version
            results = [
                {"model_version": f"{version}: {error}", "score": 0.0, "result": []} for _ in tasks
            ]
        return ModelResponse(model_version=backend.host.version, predictions=results)

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Webhooks: final annotations are kept beside the session."""
        body = data if isinstance(data, dict) else json.loads(data)
        try:
            return shared_backend().webhooks.receive({**body, "action": event}).to_json()
        except EdgeTAMLabelError as error:
            return {"status": f"refused: {error}", "count": 0}
