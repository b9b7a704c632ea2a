"""The HTTP border: routes, our own door, JSON errors. Only this module knows Flask."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from edgetam_label.errors import EdgeTAMLabelError

from .auth import Door
from .body import PredictBody, Task, brief
from .faults import RequestError, TooManyJobs, Unauthorized, status_of
from .openapi import description
from .service import Backend
from .settings import ServerSettings
from .torch_libraries import open_ahead

if TYPE_CHECKING:
    from edgetam_label.modeling import EdgeTAM

logger = logging.getLogger(__name__)

MAX_CLIENT = 200
MAX_REASON = 300


def create_app(
    settings: ServerSettings | None = None, load: Callable[[], EdgeTAM] | None = None
) -> Flask:
    """The WSGI application. settings: read from the environment if left out.

    load: makes the model; by default the one that the settings name. The `Backend` is in
    `app.extensions["edgetam"]`; close it to pause its jobs.
    """
    settings = settings or ServerSettings.load()
    backend = Backend(settings, load or default_loader(settings))
    app = Flask("edgetam_label.backend")
    app.config["MAX_CONTENT_LENGTH"] = settings.request_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["edgetam"] = backend
    _add_door(app, settings)
    _add_observers(app, backend)
    _add_errors(app, backend)
    _add_routes(app, backend)
    _add_job_routes(app, backend)
    backend.start()
    return app


def default_loader(settings: ServerSettings) -> Callable[[], EdgeTAM]:
    def load() -> EdgeTAM:
        open_ahead()
        from edgetam_label.checkpoints import load_model

        return load_model(**settings.model_arguments())

    return load


def _add_door(app: Flask, settings: ServerSettings) -> None:
    password, bearer = settings.basic_auth_password, settings.bearer_token
    door = Door(
        settings.basic_auth_user,
        password.get_secret_value() if password else None,
        bearer.get_secret_value() if bearer else None,
    )

    @app.before_request
    def knock() -> None:
        g.began = time.perf_counter()
        if not door.admits(request.path, request.headers.get("Authorization")):
            raise Unauthorized(
                "Credentials are missing or wrong; give Label Studio the user name and password of "
                "this backend (Settings → Model), and its webhooks an Authorization header."
            )


def _add_observers(app: Flask, backend: Backend) -> None:
    @app.after_request
    def observe(response: Response) -> Response:
        # the rule, not the path: a path may hold anything, and each value costs memory
        route = request.url_rule.rule if request.url_rule else "unknown"
        seconds = time.perf_counter() - g.get("began", time.perf_counter())
        backend.metrics.requests.labels(route, str(response.status_code)).inc()
        backend.metrics.latency.labels(route).observe(seconds)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _add_errors(app: Flask, backend: Backend) -> None:
    @app.errorhandler(EdgeTAMLabelError)
    def ours(error: EdgeTAMLabelError) -> Response:
        status = status_of(error)
        backend.metrics.errors.labels(type(error).__name__).inc()
        logger.warning("%s %s: %s (%d)", request.method, request.path, error, status)
        response = jsonify(error=str(error))
        response.status = _status_line(status, str(error))
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="edgetam-label"'
        if status in (429, 503):
            response.headers["Retry-After"] = "10" if isinstance(error, TooManyJobs) else "5"
        return response

    @app.errorhandler(HTTPException)
    def flask_own(error: HTTPException) -> Response:
        backend.metrics.errors.labels(type(error).__name__).inc()
        sentence = error.description or error.name
        if error.code == 413:
            sentence = (
                f"The request is larger than {backend.settings.request_bytes} bytes; raise "
                "EDGETAM_LABEL_REQUEST_BYTES if such tasks are meant."
            )
        elif error.code == 404:
            sentence = f"There is no {request.path[:80]!r} here; /openapi.json lists the routes."
        response = jsonify(error=sentence)
        response.status_code = error.code or 500
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        backend.metrics.errors.labels(type(error).__name__).inc()
        logger.exception("%s %s failed", request.method, request.path)
        response = jsonify(
            error=f"An unexpected {type(error).__name__} happened; a bug: the log tells more."
        )
        response.status_code = 500
        return response


def _add_routes(app: Flask, backend: Backend) -> None:
    @app.get("/")
    @app.get("/health")
    def health() -> Response:
        state = backend.host.state
        response = jsonify(
            status="UP" if state.name != "failed" else "DOWN",
            model_class="EdgeTAM",
            model_version=backend.host.version,
            model=state.name,
            error=state.error,
        )
        # a failed model is told to Label Studio, which then shows the backend as disconnected
        response.status_code = 503 if state.name == "failed" else 200
        return response

    @app.post("/setup")
    def setup() -> Response:
        return jsonify(backend.setup(_object(_body())))

    @app.post("/predict")
    def predict() -> Response:
        body = PredictBody.parse(_body())
        return jsonify(backend.predict(body, _client(body.tasks)))

    @app.post("/webhook")
    def webhook() -> tuple[Response, int]:
        outcome = backend.webhooks.receive(_body())
        return jsonify(outcome.to_json()), 201

    @app.get("/versions")
    def versions() -> Response:
        return jsonify(versions=[backend.host.version])

    @app.get("/metrics")
    def metrics() -> Response:
        backend.refresh_gauges()
        return Response(backend.metrics.render(), content_type="text/plain; version=0.0.4")

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(description())


def _add_job_routes(app: Flask, backend: Backend) -> None:
    @app.get("/jobs")
    def jobs() -> Response:
        return jsonify(jobs=backend.all_jobs())

    @app.get("/jobs/<job_id>")
    def job(job_id: str) -> Response:
        return jsonify(backend.job(job_id))

    @app.delete("/jobs/<job_id>")
    def cancel(job_id: str) -> tuple[Response, int]:
        backend.cancel_job(job_id)
        return jsonify(backend.job(job_id)), 202


def _status_line(status: int, sentence: str) -> str:
    """The sentence as the reason phrase too: of a failed call, that is all Label Studio shows."""
    reason = "".join(c if " " <= c <= "~" else " " for c in sentence[:MAX_REASON])
    return f"{status} {reason}"


def _body() -> Any:
    """The JSON of a request. Raises RequestError for anything that is not JSON."""
    raw = request.get_data(cache=False)
    try:
        found = json.loads(raw)
        if b"\\u" in raw:
            # half a surrogate pair is legal in JSON and in nothing that comes after it
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise RequestError("The JSON is nested too deeply.") from None
    except UnicodeError:
        raise RequestError("The body is not valid Unicode text.") from None
    except ValueError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from None
    return found


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RequestError(f"The body must be a JSON object, got {brief(body)}.")
    return body


def _client(tasks: tuple[Task, ...]) -> str:
    """Who asks. Label Studio calls for everybody, so the drafting user counts where it is told."""
    user = next((task.user for task in tasks if task.user), "")
    return f"{request.remote_addr}|{user}"[:MAX_CLIENT]
