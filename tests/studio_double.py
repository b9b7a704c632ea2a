"""A small HTTP server with the few Label Studio routes that the backend calls, over real sockets.

It serves files, trades tokens, takes predictions, redirects cloud files, and misbehaves on demand.
The end-to-end tests use the real Label Studio; this one has the faults that it cannot be made to
have.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


def personal_token() -> str:
    """The shape of a personal access token: an (unsigned) refresh JWT."""
    parts = ({"alg": "HS256"}, {"token_type": "refresh", "exp": 8054466129})
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*encoded, "signature"])


@dataclass
class Studio:
    """files: path → bytes. faults: path → statuses to answer first. seen: (method, path, auth).
    exports: path → JSON of a project's export."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)
    delay: dict[str, float] = field(default_factory=dict)
    etags: bool = True
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    token: str | None = None
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    exports: dict[str, Any] = field(default_factory=dict)
    cookies: list[str | None] = field(default_factory=list)
    refreshes: int = 0
    access_serial: int = 0

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, path: str, file: Path | bytes) -> str:
        self.files[path] = file if isinstance(file, bytes) else file.read_bytes()
        return path

    def gets(self, path: str) -> int:
        return sum(1 for method, p, _ in self.seen if method == "GET" and p == path)


def _handler(studio: Studio) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            studio.seen.append(("GET", path, self.headers.get("Authorization")))
            studio.cookies.append(self.headers.get("Cookie"))
            time.sleep(studio.delay.get(path, 0))
            waiting = studio.faults.get(path)
            if waiting:
                self._send(waiting.pop(0), b"fault", {"Retry-After": "0"})
            elif path in studio.redirects:
                self._send(302, b"", {"Location": studio.redirects[path]})
            elif path.startswith("/tasks/") and path.endswith("/presign/"):
                uri = parse_qs(urlsplit(self.path).query)["fileuri"][0]
                target = studio.redirects[base64.urlsafe_b64decode(uri).decode()]
                self._send(303, b"", {"Location": target})
            elif path in studio.exports:
                self._send(200, json.dumps(studio.exports[path]).encode())
            elif path in studio.files:
                self._file(path)
            else:
                self._send(404, b"{}")

        def _file(self, path: str) -> None:
            if studio.token is not None and not self._known():
                self._send(401, b'{"detail":"no"}')
                return
            body = studio.files[path]
            tag = f'"{len(body)}-{hash(body)}"'
            if studio.etags and self.headers.get("If-None-Match") == tag:
                self._send(304, b"")
                return
            headers = {"ETag": tag} if studio.etags else {}
            headers |= studio.headers.get(path, {})
            if path in studio.cut_short:
                studio.cut_short.discard(path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self._send(200, body, headers)

        def do_POST(self) -> None:
            path = urlsplit(self.path).path
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            studio.seen.append(("POST", path, self.headers.get("Authorization")))
            if path == "/api/token/refresh/":
                if json.loads(raw).get("refresh") != studio.token:
                    self._send(401, b"{}")
                    return
                studio.refreshes += 1
                studio.access_serial += 1
                self._send(200, json.dumps({"access": f"access-{studio.access_serial}"}).encode())
            elif studio.faults.get(path):
                self._send(studio.faults[path].pop(0), b"fault")
            elif path == "/api/predictions/":
                studio.predictions.append(json.loads(raw))
                self._send(201, b"{}")
            else:
                self._send(404, b"{}")

        def _known(self) -> bool:
            given = self.headers.get("Authorization")
            return given in (f"Bearer access-{studio.access_serial}", f"Token {studio.token}")

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has seen enough

    return Handler
