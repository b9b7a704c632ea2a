"""Downloads against a real HTTP server that resumes, does not resume, breaks, lies or is absent."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgetam_label import download as download_module
from edgetam_label.download import CHUNK_BYTES, download
from edgetam_label.errors import CheckpointError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)  # bytes sent before each hang-up
    statuses: list[int] = field(default_factory=list)  # answered before the real answer
    stall: bool = False
    asked: list[str | None] = field(default_factory=list)  # Range headers seen


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        does = self.behaviour
        does.asked.append(wanted)
        if does.statuses:
            self.send_response(does.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and does.ranges else 0
        if start >= len(does.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(does.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = does.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            last = len(does.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(does.content)}")
        self.end_headers()
        if does.stall:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            threading.Event().wait(3)
            return
        if does.break_after:
            self.wfile.write(body[: does.break_after.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    handler = type("Bound", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/weights.pt", behaviour
        httpd.shutdown()
        thread.join()


def check(path: Path) -> str | None:
    seen = hashlib.sha256(path.read_bytes()).hexdigest()
    return None if seen == DIGEST else f"its sha256 is {seen}."


def only(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_whole_file_arrives_and_progress_is_reported(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, _ = server
    seen: list[tuple[int, int | None]] = []
    target = download(
        url, tmp_path / "new" / "w.pt", check, progress=lambda *args: seen.append(args)
    )
    assert target.read_bytes() == CONTENT
    assert only(target.parent) == ["w.pt"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_broken_transfer_goes_on_where_it_stopped(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    does.break_after = [3 * CHUNK_BYTES + 7, 2 * CHUNK_BYTES]
    assert download(url, tmp_path / "w.pt", check, backoff_s=0.0).read_bytes() == CONTENT
    assert does.asked == [None, f"bytes={3 * CHUNK_BYTES}-", f"bytes={5 * CHUNK_BYTES}-"]


def test_without_ranges_a_broken_transfer_starts_over(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    does.ranges, does.break_after = False, [300_000]
    assert download(url, tmp_path / "w.pt", check, backoff_s=0.0).read_bytes() == CONTENT
    assert only(tmp_path) == ["w.pt"]


def test_a_second_run_resumes_what_the_first_left(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    does.break_after = [2 * CHUNK_BYTES, 10, 10, 10]
    with pytest.raises(CheckpointError, match=r"first 131,072 bytes are kept; run the same"):
        download(url, tmp_path / "w.pt", check, backoff_s=0.0)
    assert (tmp_path / "w.pt.part").stat().st_size == 2 * CHUNK_BYTES
    does.asked.clear()
    assert download(url, tmp_path / "w.pt", check).read_bytes() == CONTENT
    assert does.asked == [f"bytes={2 * CHUNK_BYTES}-"]


def test_a_complete_part_file_is_only_verified(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
    assert download(url, tmp_path / "w.pt", check).read_bytes() == CONTENT
    assert does.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_another_version_is_fetched_again_from_the_start(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    (tmp_path / "w.pt.part").write_bytes(b"\0" * 1000)
    assert download(url, tmp_path / "w.pt", check).read_bytes() == CONTENT
    assert does.asked == ["bytes=1000-", None]


def test_a_part_longer_than_the_file_is_fetched_again(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, _ = server
    (tmp_path / "w.pt.part").write_bytes(CONTENT + b"x")
    assert download(url, tmp_path / "w.pt", check, backoff_s=0.0).read_bytes() == CONTENT


def test_wrong_content_leaves_nothing(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, does = server
    does.content = b"<html>login first</html>"
    with pytest.raises(CheckpointError, match="is not the expected file: its sha256 is") as error:
        download(url, tmp_path / "w.pt", check)
    assert url in str(error.value)
    assert only(tmp_path) == []


def test_an_existing_file_survives_a_failed_download(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    does.content = b"wrong"
    (tmp_path / "w.pt").write_bytes(b"old")
    with pytest.raises(CheckpointError):
        download(url, tmp_path / "w.pt", check)
    assert (tmp_path / "w.pt").read_bytes() == b"old"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(
    server: tuple[str, Behaviour], tmp_path: Path, status: int
) -> None:
    url, does = server
    does.statuses = [status]
    assert download(url, tmp_path / "w.pt", check, backoff_s=0.0).read_bytes() == CONTENT


def test_a_missing_page_is_not_asked_for_again(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, does = server
    does.statuses = [404, 404]
    with pytest.raises(CheckpointError, match="the server answered 404"):
        download(url, tmp_path / "w.pt", check, backoff_s=0.0)
    assert len(does.asked) == 1
    assert only(tmp_path) == []


def test_a_server_that_stops_sending_is_given_up(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, does = server
    does.stall = True
    monkeypatch.setattr(download_module, "ATTEMPTS", 1)
    with pytest.raises(CheckpointError, match="connection broke after 0 bytes"):
        download(url, tmp_path / "w.pt", check, timeout_s=(1.0, 0.3))


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1 cannot be reached \(no network\?\)"):
        download(f"http://127.0.0.1:{port}/w.pt", tmp_path / "w.pt", check, backoff_s=0.0)
    assert only(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://example.org/w.pt", "weights.pt", "http://"])
def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        download(url, tmp_path / "w.pt", check, backoff_s=0.0)


def test_too_little_room_is_said_before_the_transfer(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = server
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="1,048,576 bytes are needed in .* only 1,000 are"):
        download(url, tmp_path / "w.pt", check)
    assert only(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = server

    def full(done: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="is full after 65,536 bytes; free some space"):
        download(url, tmp_path / "w.pt", check, progress=full)
    assert only(tmp_path) == []


def test_two_downloads_of_one_file_do_not_mix(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, _ = server
    refused: list[str] = []

    def nested(done: int, total: int | None) -> None:
        if not refused:
            with pytest.raises(CheckpointError, match="Another process is downloading") as error:
                download(url, tmp_path / "w.pt", check)
            refused.append(str(error.value))

    assert download(url, tmp_path / "w.pt", check, progress=nested).read_bytes() == CONTENT
    assert refused
