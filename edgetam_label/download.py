"""Download one file: resumable, verified, and under its final name only once it is whole.

What has arrived is kept in `<name>.part` beside the target, so that the next try goes on where the
last one stopped. The target appears by a rename after the caller's check has passed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests

from edgetam_label.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows: two downloads of one file at once are then not told apart
    fcntl = None  # type: ignore[assignment]

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
CHUNK_BYTES = 1 << 16  # what a broken connection loses at most
ATTEMPTS = 4
# Statuses worth another try: the server is busy or ill, not unwilling.
RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

Progress = Callable[[int, "int | None"], None]  # (bytes so far, bytes in all if known)


class _Interrupted(Exception):
    """The connection broke; what arrived is in the part file."""


def download(
    url: str,
    target: Path,
    verify: Callable[[Path], str | None],
    *,
    progress: Progress | None = None,
    backoff_s: float = 0.5,
    timeout_s: tuple[float, float] = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
) -> Path:
    """Fetch `url` to `target`; return `target`.

    verify: gets the finished part file, returns None or what is wrong with it.
    backoff_s: pause before the second try; it doubles with each further one.
    timeout_s: (connect, between two chunks) in seconds.

    Raises CheckpointError: unreachable, refused, interrupted, wrong content, disk full. After an
    interruption the part file stays; after wrong content nothing stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _exclusive(part):
        resumed = part.exists() and part.stat().st_size > 0
        _fetch(url, part, progress, backoff_s, timeout_s)
        problem = verify(part)
        if problem is not None and resumed:
            # The older half may come from another version of the file: once more, from the start.
            part.unlink()
            _fetch(url, part, progress, backoff_s, timeout_s)
            problem = verify(part)
        if problem is not None:
            part.unlink(missing_ok=True)
            raise CheckpointError(
                f"{url} is not the expected file: {problem} The download was removed; "
                "check the address (and the mirror, if one is set) or fetch the file by hand."
            )
        os.replace(part, target)
    return target


def _fetch(
    url: str,
    part: Path,
    progress: Progress | None,
    backoff_s: float,
    timeout_s: tuple[float, float],
) -> None:
    """Fill `part`, trying again after interruptions."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(backoff_s * 2 ** (attempt - 1))
        before = part.stat().st_size if part.exists() else 0
        try:
            _fetch_once(url, part, progress, timeout_s)
            return
        except _Interrupted as error:
            reason = str(error)
        except requests.exceptions.RequestException as error:
            reason = _short(error)
            if isinstance(error, _HOPELESS):
                raise CheckpointError(f"{url} cannot be fetched: {reason}") from None
        after = part.stat().st_size if part.exists() else 0
        if attempt and after == before and after == 0:
            break  # not one byte in two tries: no connection, waiting longer will not help
    have = part.stat().st_size if part.exists() else 0
    kept = f" The first {have:,} bytes are kept; run the same command to go on." if have else ""
    raise CheckpointError(f"{url} cannot be fetched: {reason}{kept}")


_HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
)


def _fetch_once(
    url: str, part: Path, progress: Progress | None, timeout_s: tuple[float, float]
) -> None:
    have = part.stat().st_size if part.exists() else 0
    # identity: a compressed transfer would make the byte offsets of a resumed one meaningless
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
        if response.status_code == 416:
            # Nothing beyond what we have: either it is whole (the check decides) or it is foreign.
            if _range_total(response) != have:
                part.unlink(missing_ok=True)
                raise _Interrupted("the kept part did not fit the file; starting over.")
            return
        if response.status_code in RETRY_STATUS:
            raise _Interrupted(f"the server answered {response.status_code} {response.reason}.")
        if response.status_code not in (200, 206):
            raise CheckpointError(
                f"{url} cannot be fetched: the server answered "
                f"{response.status_code} {response.reason}."
            )
        if response.status_code == 200 or _range_start(response) != have:
            if response.status_code == 206:
                part.unlink(missing_ok=True)
                raise _Interrupted("the server sent another range than asked; starting over.")
            have = 0  # the server does not resume
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        _check_space(part, (total or 0) - have)
        _write(response, part, have, total, progress)


def _write(
    response: requests.Response, part: Path, have: int, total: int | None, progress: Progress | None
) -> None:
    try:
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
    except (
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
    ) as error:
        raise _Interrupted(f"the connection broke after {have:,} bytes ({_short(error)})") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)
            raise CheckpointError(
                f"The disk that holds {part.parent} is full after {have:,} bytes; free some space "
                "or choose another cache folder, then run the command again."
            ) from None
        raise
    if total is not None and have < total:
        raise _Interrupted(f"the connection broke after {have:,} of {total:,} bytes.")


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise CheckpointError(
            f"{needed:,} bytes are needed in {part.parent} but only {free:,} are free; free some "
            "space or choose another cache folder, then run the command again."
        )


def _range_start(response: requests.Response) -> int:
    """First byte of a 206 answer, from `Content-Range: bytes 5-9/10`; -1 if it is not said."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def _range_total(response: requests.Response) -> int:
    """Size of the whole file from the `Content-Range: bytes */10` of a 416 answer; -1 if unsaid."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else -1


def _short(error: requests.exceptions.RequestException) -> str:
    """One line for a person, without the object addresses and nesting of urllib3's messages."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "the host did not answer in time."
    if isinstance(error, requests.exceptions.Timeout):
        return "the server stopped sending."
    if isinstance(error, requests.exceptions.SSLError):
        return "the secure connection was refused (certificate)."
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refused the connection."
    if isinstance(error, requests.exceptions.ConnectionError):
        url = error.request.url if error.request is not None else None
        host = urlsplit(url).hostname if isinstance(url, str) else None
        return f"{host or 'the host'} cannot be reached (no network?)."
    if isinstance(error, requests.exceptions.RequestException):
        return f"{' '.join(str(error).split())[:200]}."
    return "unknown."


@contextlib.contextmanager
def _exclusive(part: Path) -> Iterator[None]:
    """Hold a lock beside `part`, so that two downloads never write into one file."""
    lock = part.with_name(part.name + ".lock")
    with lock.open("w") as handle:
        if not _lock(handle):
            raise CheckpointError(
                f"Another process is downloading {part.stem} to {part.parent}; wait for it to end."
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _lock(handle: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
