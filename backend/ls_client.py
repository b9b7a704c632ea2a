"""The few calls that we make to Label Studio: tokens, predictions, presigned media, checks.

The token is sent to the configured origin only; `GuardedSession` enforces it. A personal access
token is a refresh token: it is traded for access tokens that live five minutes.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from .faults import FetchFailed, FetchRefused, Unreachable
from .net_guard import GuardedSession, Origin, shown

ACCESS_SECONDS = 240.0  # of 300: never use a token in its last minute
MAX_ALIASES = 16
PUSH_WAITS = (1.0, 4.0, 15.0)  # seconds before a push is tried again: a restart takes that long
MEDIA_PATHS = ("/data/", "/storage-data/", "/tasks/")
CLOUD_SCHEMES = ("s3", "s3s", "gs", "azure-blob", "azure_blob")


@dataclass(frozen=True)
class TokenKind:
    """name: "none", "personal" or "legacy"; as `doctor` shows it."""

    name: str


def token_kind(token: str | None) -> TokenKind:
    """A personal access token is a JWT of type "refresh"; a legacy token is 40 hex digits."""
    if not token:
        return TokenKind("none")
    parts = token.split(".")
    if len(parts) == 3:
        try:
            body = parts[1] + "=" * (-len(parts[1]) % 4)
            payload = json.loads(base64.urlsafe_b64decode(body))
        except (binascii.Error, ValueError):
            return TokenKind("legacy")
        if isinstance(payload, dict):
            return TokenKind("access" if payload.get("token_type") == "access" else "personal")
    return TokenKind("legacy")


class LabelStudioClient:
    """One Label Studio server. Thread-safe.

    url: base URL, with a path where it runs under one. clock: seconds, replaceable for tests.
    """

    def __init__(
        self,
        url: str | None,
        token: str | None,
        *,
        allow_private: bool = False,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self.origin = Origin.of(url) if url else None
        self.kind = token_kind(token)
        self._token = token
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._access: str | None = None
        self._access_at = 0.0
        self._aliases: dict[Origin, None] = {}
        self.http = GuardedSession(
            self.origin, self.credentials, allow_private=allow_private, timeout=timeout
        )

    def close(self) -> None:
        self.http.close()

    def learn(self, hostname: object) -> None:
        """Remember an address that Label Studio calls itself by (from /setup).

        It never gets a request or a token: media under it are fetched from the configured URL.
        """
        if not isinstance(hostname, str) or not hostname:
            return
        try:
            alias = Origin.of(hostname)
        except FetchRefused:
            return
        with self._lock:
            if alias != self.origin:
                self._aliases[alias] = None
            while len(self._aliases) > MAX_ALIASES:
                self._aliases.pop(next(iter(self._aliases)))

    def own(self, url: str) -> str:
        """A media URL under one of Label Studio's other names → under the configured one."""
        parts = urlsplit(url)
        media = parts.path.startswith(MEDIA_PATHS)
        if self.url is None or not media or Origin.of(url) not in self._aliases:
            return url
        return self.absolute(parts.path + (f"?{parts.query}" if parts.query else ""))

    def credentials(self) -> Mapping[str, str]:
        """The Authorization header, with a fresh access token where one is needed."""
        if self._token is None or self.kind.name == "none":
            return {}
        if self.kind.name == "legacy":
            return {"Authorization": f"Token {self._token}"}
        if self.kind.name == "access":
            return {"Authorization": f"Bearer {self._token}"}
        with self._lock:
            if self._access is None or self._clock() - self._access_at > ACCESS_SECONDS:
                self._access = self._refresh()
                self._access_at = self._clock()
            return {"Authorization": f"Bearer {self._access}"}

    def forget_access(self) -> None:
        """After a 401: the next call trades the personal token again."""
        with self._lock:
            self._access = None

    def _refresh(self) -> str:
        url = f"{self.url}/api/token/refresh/"
        response = self.http.send("POST", url, authorize=False, json={"refresh": self._token})
        with response:
            if response.status_code in (400, 401, 403):
                raise FetchFailed(
                    f"Label Studio at {self.url} refused the personal access token "
                    f"({response.status_code}); make a new one under Account & Settings → "
                    "Personal Access Token and set EDGETAM_LABEL_LABEL_STUDIO_API_KEY."
                )
            access = _json(response, url).get("access")
        if not isinstance(access, str):
            raise FetchFailed(
                f"Label Studio at {self.url} answered the token refresh without a token."
            )
        return access

    def absolute(self, path: str) -> str:
        """The URL of a path on the configured server. Raises FetchRefused without one."""
        if self.url is None:
            raise FetchRefused(
                f"The media {shown(path)} is on Label Studio, but its address is not known here; "
                "set EDGETAM_LABEL_LABEL_STUDIO_URL (and EDGETAM_LABEL_LABEL_STUDIO_API_KEY)."
            )
        # a path that starts with the sub-path of the server already holds it
        base = self.url[: -len(_sub_path(self.url))] if _sub_path(self.url) else self.url
        prefix = _sub_path(self.url)
        return f"{base}{path}" if prefix and path.startswith(prefix + "/") else f"{self.url}{path}"

    def presign_url(self, uri: str, task_id: str) -> str:
        """Where Label Studio hands out a cloud file (s3://, gs://, azure-blob://) of a task."""
        if not task_id.isdigit():
            raise FetchRefused(
                f"The cloud address {shown(uri)} needs a stored task, got task {task_id!r}."
            )
        encoded = base64.urlsafe_b64encode(uri.encode()).decode()
        return self.absolute(f"/tasks/{task_id}/presign/?fileuri={encoded}")

    def push_prediction(
        self, task_id: str, result: Sequence[Mapping[str, Any]], *, model_version: str, score: float
    ) -> None:
        """POST /api/predictions, again while Label Studio is away or overloaded.

        Raises FetchFailed with the status and the remedy.
        """
        body = {
            "task": int(task_id) if task_id.isdigit() else task_id,
            "result": list(result),
            "model_version": model_version,
            "score": score,
        }
        for wait in PUSH_WAITS:
            try:
                self.call("POST", "/api/predictions/", body)
                return
            except Unreachable:
                self._sleep(wait)
        self.call("POST", "/api/predictions/", body)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """An API call on the configured server; one retry with a new access token on a 401."""
        url = self.absolute(path)
        for attempt in (1, 2):
            with self.http.send(method, url, json=body) as response:
                if response.status_code == 401 and attempt == 1 and self.kind.name == "personal":
                    self.forget_access()
                    continue
                if response.status_code == 429 or response.status_code >= 500:
                    raise Unreachable(self._explain(response.status_code, method, path))
                if response.status_code >= 400:
                    raise FetchFailed(self._explain(response.status_code, method, path))
                if response.is_redirect:
                    raise FetchFailed(
                        f"{method} {shown(path)} on {self.url} redirects; set the Label Studio URL "
                        "to the final address (https instead of http?)."
                    )
                return None if not response.content else _json(response, url, dict_only=False)
        raise AssertionError("unreachable")

    def _explain(self, status: int, method: str, path: str) -> str:
        text = f"Label Studio at {self.url} answered {method} {shown(path)} with {status}"
        if status == 401:
            kinds = {
                "none": "no token is set; set EDGETAM_LABEL_LABEL_STUDIO_API_KEY",
                "legacy": "legacy tokens are off by default; use a personal access token",
                "access": "this is an access token, which lives five minutes; use the personal "
                "access token itself",
                "personal": "the personal access token was not accepted",
            }
            return f"{text}: {kinds[self.kind.name]}."
        return f"{text}."


def _sub_path(url: str) -> str:
    rest = url.split("://", 1)[1]
    return "/" + rest.split("/", 1)[1].rstrip("/") if "/" in rest.rstrip("/") else ""


def _json(response: requests.Response, url: str, *, dict_only: bool = True) -> Any:
    try:
        found = response.json()
    except ValueError:
        raise FetchFailed(
            f"{shown(url)} answered {response.status_code} without JSON; is this Label Studio?"
        ) from None
    if dict_only and not isinstance(found, dict):
        raise FetchFailed(f"{shown(url)} answered {response.status_code} with unexpected JSON.")
    return found
