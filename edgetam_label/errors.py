"""Every error a person can meet. Each message says what was wrong, the value seen, and what to do.

`UsageError` means the request itself cannot work (exit code 2, HTTP 4xx); any other
`EdgeTAMLabelError` means that the work failed (exit code 1, HTTP 5xx).
"""

from __future__ import annotations


class EdgeTAMLabelError(Exception):
    """Base of all errors of this package; its text is shown to people as it stands."""


class UsageError(EdgeTAMLabelError):
    """The request is wrong: an impossible click, an unknown object, an unknown format."""


class ConfigError(UsageError):
    """A model config or a setting is missing, unknown or ill-typed; the message names the key."""


class PromptError(UsageError):
    """A prompt cannot be used: outside the frame, empty, or for an unknown object."""


class MediaError(EdgeTAMLabelError):
    """A video or image cannot be read."""


class CheckpointError(EdgeTAMLabelError):
    """A checkpoint is absent, damaged, or does not fit the model."""


class StoreError(EdgeTAMLabelError):
    """The session database refused: locked, full, damaged or too new."""


class JobEnded(UsageError):
    """A tracking job was cancelled, superseded by a newer one, or went with its session."""


class SessionNotFound(UsageError):
    """No session has this id."""


class ExportError(EdgeTAMLabelError):
    """A dataset could not be written or read."""


class Cancelled(EdgeTAMLabelError):
    """The work was cancelled by its caller; what was done is kept."""


def first_line(error: BaseException) -> str:
    """What a library's error says, without what follows its first line; its type if nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
