"""Errors of the HTTP border: what was wrong with a request, and the status it is answered with."""

from __future__ import annotations

from edgetam_label.errors import EdgeTAMLabelError, UsageError


class RequestError(UsageError):
    """The body is not what Label Studio sends: a missing key, a wrong type, an impossible value."""

    status = 400


class ConfigProblem(UsageError):
    """The labelling config cannot work; the sentence names the tag to add."""

    status = 422


class Unauthorized(UsageError):
    """No, or wrong, credentials at our own door."""

    status = 401


class JobNotFound(UsageError):
    """No background job has this id."""

    status = 404


class TooManyJobs(UsageError):
    """This client, or the whole server, already runs as many jobs as it may."""

    status = 429


class TrainingRefused(UsageError):
    """START_TRAINING cannot begin a fine-tune: it is off, or one is under way."""

    status = 409


class FetchRefused(UsageError):
    """The address of a media file may not be fetched: private network, odd scheme, traversal."""

    status = 422


class FetchFailed(EdgeTAMLabelError):
    """A media file or a Label Studio call failed: unreachable, 4xx, 5xx, too large, not media."""

    status = 502


class Unreachable(FetchFailed):
    """The other side is away or overloaded now; the same call may succeed later."""


class ModelLoading(EdgeTAMLabelError):
    """The model is not ready yet; the request may be repeated."""

    status = 503


def status_of(error: EdgeTAMLabelError) -> int:
    """HTTP status for an error: its own, else 400 for the caller's fault, 503 for ours."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status
    return 400 if isinstance(error, UsageError) else 503
