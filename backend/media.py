"""Task URL → local file: streaming, capped, retried, content-addressed, each file fetched once.

    media/files/<sha256><suffix>   the bytes; the name is their hash, so a half file has no name
    media/urls/<sha256 of key>.json   which URL gave which file, with its validators

Nothing here opens a path that a request names: only what was downloaded is ever read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from .faults import FetchFailed, FetchRefused
from .keyed_locks import KeyedLocks
from .ls_client import CLOUD_SCHEMES, LabelStudioClient
from .net_guard import Origin, shown

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
FRESH_SECONDS = 300.0  # a click must not wait for a revalidation; five minutes is a sitting
RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_WAIT = 20.0
SNIFF_BYTES = 512
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True)
class MediaFile:
    """A downloaded file. key: what it is cached under; sha256: of its bytes."""

    path: Path
    sha256: str
    size_bytes: int
    key: str


@dataclass(frozen=True)
class _Entry:
    """One line of the URL index."""

    url: str
    file: str
    sha256: str
    size_bytes: int
    etag: str | None
    modified: str | None
    checked_at: float


@dataclass(frozen=True)
class Download:
    """Counters for /metrics: hit, fetched, revalidated."""

    outcome: str
    bytes: int


class MediaCache:
    """Fetches the media of tasks and keeps them within a byte budget. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        client: LabelStudioClient,
        *,
        budget_bytes: int,
        max_download_bytes: int,
        retries: int = 4,
        observe: Callable[[Download], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = folder / "files"
        self._urls = folder / "urls"
        self._client = client
        self._budget = budget_bytes
        self._cap = max_download_bytes
        self._retries = retries
        self._observe = observe or (lambda _: None)
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._downloading = KeyedLocks()
        self._leases: dict[str, int] = {}

    @contextlib.contextmanager
    def lease(self, url: str, task_id: str) -> Iterator[MediaFile]:
        """The file of a task's URL, which is not evicted while the context lasts.

        Raises FetchRefused for an address that may not be fetched, FetchFailed where that failed.
        """
        target = self.resolve(url, task_id)
        # a cloud file keeps its own name: the presigned address changes with every request
        key = f"{self._client.origin or ''}|{url if url != target else target}"
        with self._downloading.hold(key):
            entry = self._ensure(key, target)
            with self._lock:
                self._leases[entry.file] = self._leases.get(entry.file, 0) + 1
        try:
            yield MediaFile(self._files / entry.file, entry.sha256, entry.size_bytes, key)
        finally:
            with self._lock:
                self._leases[entry.file] -= 1
                if not self._leases[entry.file]:
                    del self._leases[entry.file]
            self._evict()

    def resolve(self, url: str, task_id: str) -> str:
        """The address to fetch for what a task's data holds."""
        if not url or len(url) > 8192 or any(ord(c) < 0x20 for c in url):
            raise FetchRefused("The media address is empty, too long, or holds control characters.")
        scheme = url.split(":", 1)[0].lower() if "://" in url else ""
        if scheme in CLOUD_SCHEMES:
            return self._client.presign_url(url, task_id)
        if scheme in ("http", "https"):
            Origin.of(url)  # refuses what is malformed
            _refuse_traversal(url)
            return self._client.own(url)
        if url.startswith("//") or _SCHEME.match(url):
            raise FetchRefused(
                f"The address {shown(url)} is refused; media must be http(s), a Label Studio path "
                "such as /data/upload/…, or cloud storage connected to Label Studio."
            )
        _refuse_traversal(url)
        return self._client.absolute(url if url.startswith("/") else "/" + url)

    def _ensure(self, key: str, url: str) -> _Entry:
        known = self._read(key)
        if known is not None:
            age = self._clock() - known.checked_at
            if 0 <= age < FRESH_SECONDS or not (known.etag or known.modified):
                with contextlib.suppress(OSError):
                    os.utime(self._files / known.file)
                self._observe(Download("hit", 0))
                return known
        fresh = self._download(key, url, known)
        self._write(key, fresh)
        return fresh

    def _read(self, key: str) -> _Entry | None:
        try:
            raw = json.loads(self._index(key).read_text(encoding="utf-8"))
            entry = _Entry(**raw)
            found = (self._files / Path(entry.file).name).stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        return entry if found == entry.size_bytes and entry.url == key else None

    def _write(self, key: str, entry: _Entry) -> None:
        self._urls.mkdir(parents=True, exist_ok=True)
        path = self._index(key)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._urls, suffix=".part", delete=False, encoding="utf-8"
        ) as part:
            json.dump(asdict(entry), part)
        os.replace(part.name, path)

    def _index(self, key: str) -> Path:
        return self._urls / (hashlib.sha256(key.encode("utf-8", "replace")).hexdigest() + ".json")

    def _download(self, key: str, url: str, known: _Entry | None) -> _Entry:
        # a compressed transfer could unpack to anything; media are compressed already
        headers = {"Accept-Encoding": "identity"}
        if known is not None:
            if known.etag:
                headers["If-None-Match"] = known.etag
            elif known.modified:
                headers["If-Modified-Since"] = known.modified
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._client.http.get(url, headers)
            except FetchFailed:
                if last:
                    raise
                self._wait(attempt, None)
                continue
            with response:
                if response.status_code == 304 and known is not None:
                    self._observe(Download("revalidated", 0))
                    return _Entry(**{**asdict(known), "checked_at": self._clock()})
                if response.status_code in RETRY_STATUS and not last:
                    self._wait(attempt, response.headers.get("Retry-After"))
                    continue
                if response.status_code == 401 and not last and attempt == 0:
                    self._client.forget_access()
                    continue
                if response.status_code != 200:
                    raise FetchFailed(self._explain(url, response.status_code))
                try:
                    return self._save(key, url, response)
                except _Broken as error:
                    if last:
                        raise FetchFailed(
                            f"The download of {shown(url)} broke off: {error}; try again."
                        ) from None
            self._wait(attempt, None)
        raise AssertionError("unreachable")

    def _wait(self, attempt: int, retry_after: str | None) -> None:
        seconds = float(2**attempt) * (0.5 + random.random() / 2)
        if retry_after and retry_after.strip().isdigit():
            seconds = float(retry_after)
        self._sleep(min(seconds, MAX_WAIT))

    def _save(self, key: str, url: str, response: requests.Response) -> _Entry:
        """Stream into a temp file, hash, rename. Nothing half-written keeps a name."""
        declared = response.headers.get("Content-Length", "")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise FetchFailed(f"{shown(url)} came packed as {encoding!r:.40}, which is refused.")
        if declared.isdigit() and int(declared) > self._cap:
            raise FetchFailed(self._too_large(url, int(declared)))
        self._files.mkdir(parents=True, exist_ok=True)
        digest, size, suffix = hashlib.sha256(), 0, ""
        handle, name = tempfile.mkstemp(dir=self._files, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as part:
                try:
                    for chunk in response.iter_content(CHUNK):
                        if size == 0:
                            suffix = sniff(chunk, url)
                        size += len(chunk)
                        if size > self._cap:
                            raise FetchFailed(self._too_large(url, size))
                        digest.update(chunk)
                        part.write(chunk)
                except requests.exceptions.RequestException as error:
                    raise _Broken(type(error).__name__) from None
            if declared.isdigit() and size != int(declared):
                raise _Broken(f"{size} of {declared} bytes came")
            if size == 0:
                raise FetchFailed(f"{shown(url)} is an empty file.")
            file = digest.hexdigest() + suffix
            os.replace(name, self._files / file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        self._observe(Download("fetched", size))
        return _Entry(
            url=key,
            file=file,
            sha256=digest.hexdigest(),
            size_bytes=size,
            etag=response.headers.get("ETag"),
            modified=response.headers.get("Last-Modified"),
            checked_at=self._clock(),
        )

    def _evict(self) -> None:
        """Delete the files that were used longest ago until the budget is kept."""
        with self._lock:
            try:
                found = [(p.stat(), p) for p in self._files.iterdir()]
            except OSError:
                return
            total = sum(s.st_size for s, _ in found)
            for stat, path in sorted(found, key=lambda item: item[0].st_mtime):
                if total <= self._budget:
                    break
                if path.name in self._leases or path.suffix == ".part":
                    continue
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= stat.st_size
                    logger.info(
                        "evicted %s (%d bytes) from the media cache", path.name, stat.st_size
                    )

    def _too_large(self, url: str, size: int) -> str:
        return (
            f"{shown(url)} has {size} bytes or more, over the limit of {self._cap}; raise "
            "EDGETAM_LABEL_MAX_DOWNLOAD_BYTES if such files are meant."
        )

    def _explain(self, url: str, status: int) -> str:
        text = f"{shown(url)} was answered with {status}"
        ours = self._client.origin is not None and Origin.of(url) == self._client.origin
        if status in (401, 403) and ours:
            if self._client.kind.name == "none":
                return f"{text}: set EDGETAM_LABEL_LABEL_STUDIO_API_KEY to a personal access token."
            if self._client.kind.name == "legacy":
                return (
                    f"{text}: the legacy token is refused (they are off by default); "
                    "set EDGETAM_LABEL_LABEL_STUDIO_API_KEY to a personal access token."
                )
            return f"{text}: the token was refused; make a new personal access token."
        if status in (401, 403):
            return f"{text}: it needs a login that only Label Studio has; sync it as cloud storage."
        if status == 404:
            return f"{text}: the file is gone, or the task belongs to another Label Studio."
        return f"{text}."


class _Broken(Exception):
    """The connection ended before the file did."""


def _refuse_traversal(url: str) -> None:
    path = urlsplit(url).path
    for _ in range(3):  # %252e%252e
        path = unquote(path)
    if "\\" in path or ".." in path.split("/"):
        raise FetchRefused(f"The address {shown(url)} climbs out of its folder; refused.")


_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"GIF8", ".gif"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (8, b"WEBP", ".webp"),
    (8, b"AVI ", ".avi"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypheic", ".heic"),
    (4, b"ftyp", ".mp4"),
    (4, b"moov", ".mov"),
    (4, b"mdat", ".mov"),
    (4, b"wide", ".mov"),
    (4, b"free", ".mov"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (0, b"OggS", ".ogv"),
    (0, b"FLV", ".flv"),
    (0, b"\x00\x00\x01\xba", ".mpg"),
    (0, b"\x00\x00\x01\xb3", ".mpg"),
    (0, b"\x30\x26\xb2\x75", ".wmv"),
)


def sniff(head: bytes, url: str) -> str:
    """File suffix by the first bytes; a name or a header is never believed.

    Raises FetchFailed for anything that is not raster media: HTML (a login page), XML and SVG
    (which may name other files), playlists (which name other addresses), archives.
    """
    for offset, magic, suffix in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return suffix
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return ".ts"
    text = head[:SNIFF_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        raise FetchFailed(
            f"{shown(url)} is an HTML page, not media; if it is Label Studio's login page, set "
            "EDGETAM_LABEL_LABEL_STUDIO_API_KEY to a personal access token."
        )
    if text.startswith((b"<?xml", b"<svg", b"<")):
        raise FetchFailed(f"{shown(url)} is SVG or XML, which is not decoded; use PNG or JPEG.")
    raise FetchFailed(
        f"{shown(url)} is not an image or video that is known here (first bytes {head[:8].hex()}); "
        "use JPEG, PNG, WebP, BMP, TIFF or GIF, or MP4, MOV, MKV, WebM, AVI, MPEG-TS."
    )
