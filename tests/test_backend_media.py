from __future__ import annotations

import gzip
import io
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from studio_double import Studio, personal_token

from edgetam_label.backend.faults import FetchFailed, FetchRefused
from edgetam_label.backend.ls_client import LabelStudioClient, token_kind
from edgetam_label.backend.media import Download, MediaCache, sniff
from edgetam_label.backend.net_guard import is_public


def png(seed: int = 0, side: int = 40) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio() as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Studio]:
    with Studio() as running:
        yield running


class Rig:
    def __init__(self, folder: Path, client: LabelStudioClient, **changes: Any) -> None:
        self.waits: list[float] = []
        self.downloads: list[Download] = []
        self.now = 1000.0
        self.client = client
        options: dict[str, Any] = {"budget_bytes": 1 << 30, "max_download_bytes": 1 << 20}
        self.cache = MediaCache(
            folder,
            client,
            observe=self.downloads.append,
            sleep=self.waits.append,
            clock=lambda: self.now,
            **{**options, **changes},
        )

    def get(self, url: str, task: str = "1") -> bytes:
        with self.cache.lease(url, task) as file:
            return file.path.read_bytes()


def rig(tmp_path: Path, studio: Studio, token: str | None = None, **changes: Any) -> Rig:
    return Rig(tmp_path, LabelStudioClient(studio.url, token), **changes)


def test_an_upload_is_fetched_once_and_then_from_disk(tmp_path: Path, studio: Studio) -> None:
    path = studio.add("/data/upload/1/a.png", png())
    one = rig(tmp_path, studio)
    assert one.get(path) == png() == one.get(path)
    assert studio.gets(path) == 1
    assert [d.outcome for d in one.downloads] == ["fetched", "hit"]
    # a new process finds it on disk
    assert rig(tmp_path, studio).get(path) == png() and studio.gets(path) == 1


def test_a_stale_file_is_revalidated_and_a_changed_one_fetched(
    tmp_path: Path, studio: Studio
) -> None:
    path = studio.add("/data/local-files/", png())
    one = rig(tmp_path, studio)
    one.get(path + "?d=a.png")
    one.now += 10_000
    one.get(path + "?d=a.png")
    assert [d.outcome for d in one.downloads] == ["fetched", "revalidated"]
    studio.add(path, png(1))
    one.now += 10_000
    assert one.get(path + "?d=a.png") == png(1)


def test_two_requests_for_one_file_download_it_once(tmp_path: Path, studio: Studio) -> None:
    path = studio.add("/data/upload/1/a.png", png())
    studio.delay[path] = 0.3
    one = rig(tmp_path, studio)
    threads = [threading.Thread(target=one.get, args=(path,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert studio.gets(path) == 1


def test_equal_content_is_stored_once(tmp_path: Path, studio: Studio) -> None:
    one = rig(tmp_path, studio)
    one.get(studio.add("/data/upload/1/a.png", png()))
    one.get(studio.add("/data/upload/2/b.png", png()))
    assert len(list((tmp_path / "files").iterdir())) == 1


def test_429_and_5xx_are_retried_with_the_wait_that_was_asked_for(
    tmp_path: Path, studio: Studio
) -> None:
    path = studio.add("/data/upload/1/a.png", png())
    studio.faults[path] = [429, 503]
    one = rig(tmp_path, studio)
    assert one.get(path) == png()
    assert one.waits == [0.0, 0.0]


def test_a_lasting_fault_is_told(tmp_path: Path, studio: Studio) -> None:
    path = studio.add("/data/upload/1/a.png", png())
    studio.faults[path] = [503] * 9
    with pytest.raises(FetchFailed, match="answered with 503"):
        rig(tmp_path, studio, retries=2).get(path)


def test_a_download_that_breaks_off_leaves_nothing_and_is_repeated(
    tmp_path: Path, studio: Studio
) -> None:
    path = studio.add("/data/upload/1/a.png", png(side=400))
    studio.cut_short.add(path)
    one = rig(tmp_path, studio)
    assert one.get(path) == png(side=400)
    assert [p.suffix for p in (tmp_path / "files").iterdir()] == [".png"]


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_over_the_cap_is_refused(tmp_path: Path, studio: Studio, declared: bool) -> None:
    path = studio.add("/data/upload/1/a.png", png(side=700))
    with pytest.raises(FetchFailed, match="EDGETAM_LABEL_MAX_DOWNLOAD_BYTES"):
        rig(tmp_path, studio, max_download_bytes=100_000).get(path)
    assert list((tmp_path / "files").glob("*")) == []


def test_a_packed_transfer_is_refused(tmp_path: Path, studio: Studio) -> None:
    """A few kilobytes of gzip unpack to gigabytes, chunk by chunk, before any cap sees them."""
    path = studio.add("/data/upload/1/a.png", gzip.compress(bytes(50_000_000)))
    studio.headers[path] = {"Content-Encoding": "gzip"}
    with pytest.raises(FetchFailed, match="packed as 'gzip'"):
        rig(tmp_path, studio).get(path)


def test_the_budget_is_kept_and_files_in_use_stay(tmp_path: Path, studio: Studio) -> None:
    size = len(png(1))
    one = rig(tmp_path, studio, budget_bytes=2 * size + 10)
    paths = [studio.add(f"/data/upload/1/{i}.png", png(i)) for i in range(5)]
    with one.cache.lease(paths[0], "1") as held:
        for path in paths[1:]:
            one.get(path)
        assert held.path.read_bytes() == png(0)
    files = list((tmp_path / "files").iterdir())
    assert sum(f.stat().st_size for f in files) <= 2 * size + 10


# -- what may not be fetched -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/../../secret",
        "/data/upload/..%2f..%2fsecret",
        "/data/upload/%252e%252e/x",
        "//evil.example/x",
        "ftp://example.com/x",
        "gopher://example.com/x",
        "data:image/png;base64,AAAA",
        "C:/windows",
        "javascript:alert(1)",
        "http://user:password@example.com/a.png",
        "http://",
        "http://[::1",
        "http://example.com:99999/",
        "",
        "/a\nb",
        "http://exa mple.com/",
    ],
)
def test_odd_addresses_are_refused_in_a_sentence(tmp_path: Path, studio: Studio, url: str) -> None:
    with pytest.raises((FetchRefused, FetchFailed)) as told:
        rig(tmp_path, studio, retries=0).get(url)
    assert "password" not in str(told.value)
    assert studio.seen == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433",
             "0x7f.1", "127.1"],
)  # fmt: skip
def test_private_addresses_are_refused_when_connecting(
    tmp_path: Path, studio: Studio, elsewhere: Studio, host: str
) -> None:
    port = elsewhere.url.rsplit(":", 1)[1]
    elsewhere.add("/a.png", png())
    with pytest.raises((FetchRefused, FetchFailed)) as told:
        rig(tmp_path, studio, retries=0).get(f"http://{host}:{port}/a.png")
    assert elsewhere.seen == []
    assert "private or reserved" in str(told.value) or "cannot be reached" in str(told.value)


def test_a_name_that_resolves_to_a_private_address_is_refused(
    tmp_path: Path, studio: Studio, elsewhere: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was checked is the address that is connected to: no second look-up."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return real("127.0.0.1" if host == "rebind.example" else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = elsewhere.url.rsplit(":", 1)[1]
    with pytest.raises(FetchRefused, match=r"rebind.example resolves to 127\.0\.0\.1"):
        rig(tmp_path, studio, retries=0).get(f"http://rebind.example:{port}/a.png")
    assert looked_up == ["rebind.example"] and elsewhere.seen == []


def test_a_redirect_to_a_private_address_is_refused(
    tmp_path: Path, studio: Studio, elsewhere: Studio
) -> None:
    elsewhere.add("/a.png", png())
    studio.redirects["/data/upload/1/a.png"] = elsewhere.url + "/a.png"
    with pytest.raises(FetchRefused, match="private or reserved"):
        rig(tmp_path, studio).get("/data/upload/1/a.png")
    assert elsewhere.seen == []


def test_private_networks_can_be_allowed(tmp_path: Path, studio: Studio, elsewhere: Studio) -> None:
    elsewhere.add("/a.png", png())
    client = LabelStudioClient(studio.url, None, allow_private=True)
    assert Rig(tmp_path, client).get(elsewhere.url + "/a.png") == png()


def test_redirects_do_not_go_on_for_ever(tmp_path: Path, studio: Studio) -> None:
    studio.redirects["/data/loop"] = studio.url + "/data/loop"
    with pytest.raises(FetchFailed, match="redirects more than"):
        rig(tmp_path, studio, retries=0).get("/data/loop")


@pytest.mark.parametrize(
    ("address", "public"),
    [("8.8.8.8", True), ("10.0.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
     ("192.0.2.1", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False),
     ("fc00::1", False), ("2606:4700::1111", True), ("::ffff:10.0.0.1", False),
     ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("0.0.0.0", False),
     ("::127.0.0.1", False), ("::ffff:0:10.0.0.1", False), ("64:ff9b:1::a00:1", False),
     ("64:ff9b::808:808", True), ("fec0::1", False), ("3fff::1", False), ("::", False)],
)  # fmt: skip
def test_what_counts_as_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("body", "sentence"),
    [(b"<!DOCTYPE html><html>", "HTML page.*personal access token"), (b"<svg/>", "SVG or XML"),
     (b"  <?xml version='1.0'?><!DOCTYPE x>", "SVG or XML"),
     (b"#EXTM3U\nhttp://10.0.0.1/", "is not"),
     (b"PK\3\4", "is not an image"), (b"\0" * 64, "is not an image"), (b"", "empty file")],
)  # fmt: skip
def test_what_is_not_media_is_refused(
    tmp_path: Path, studio: Studio, body: bytes, sentence: str
) -> None:
    path = studio.add("/data/upload/1/a.png", body)
    with pytest.raises(FetchFailed, match=sentence):
        rig(tmp_path, studio).get(path)
    assert list((tmp_path / "files").glob("*")) == []


def test_suffixes_come_from_the_bytes() -> None:
    assert sniff(b"\xff\xd8\xff\xe0", "/x.png") == ".jpg"
    assert sniff(b"\0\0\0\x20ftypisom", "/x") == ".mp4"
    assert sniff(b"G" + b"\0" * 187 + b"G" + b"\0" * 187 + b"G" + b"\0" * 9, "/x") == ".ts"


# -- tokens ----------------------------------------------------------------------------------


def test_a_personal_token_is_traded_and_traded_again_before_it_ends(
    tmp_path: Path, studio: Studio
) -> None:
    studio.token = personal_token()
    now = [0.0]
    client = LabelStudioClient(studio.url, studio.token, clock=lambda: now[0])
    one = Rig(tmp_path, client)
    for i in range(3):
        assert one.get(studio.add(f"/data/upload/1/{i}.png", png(i))) == png(i)
    assert studio.refreshes == 1
    now[0] = 250.0
    one.get(studio.add("/data/upload/1/9.png", png(9)))
    assert studio.refreshes == 2
    studio.access_serial += 1  # the server has forgotten our token
    one.get(studio.add("/data/upload/1/10.png", png(10)))
    assert studio.refreshes == 3


def test_a_legacy_token_is_sent_as_it_is(tmp_path: Path, studio: Studio) -> None:
    studio.token = "0123456789" * 4
    assert rig(tmp_path, studio, studio.token).get(studio.add("/data/upload/a.png", png()))
    assert studio.seen[-1][2] == f"Token {studio.token}"


def test_the_token_goes_to_the_configured_origin_only(
    tmp_path: Path, studio: Studio, elsewhere: Studio
) -> None:
    studio.token = personal_token()
    elsewhere.add("/a.png", png())
    studio.redirects["/data/moved.png"] = elsewhere.url + "/a.png"
    client = LabelStudioClient(studio.url, studio.token, allow_private=True)
    one = Rig(tmp_path, client)
    one.get(elsewhere.url + "/a.png")
    one.get("/data/moved.png")
    # an address that a request claims to be Label Studio's is not believed either
    client.learn(elsewhere.url)
    studio.add("/data/upload/x.png", png(3))
    assert one.get(elsewhere.url + "/data/upload/x.png") == png(3)
    assert [auth for _, _, auth in elsewhere.seen] == [None, None]
    assert studio.gets("/data/upload/x.png") == 1


def test_cookies_are_neither_kept_nor_sent(
    tmp_path: Path, studio: Studio, elsewhere: Studio
) -> None:
    """Both servers are 127.0.0.1: to a cookie jar they are one."""
    path = studio.add("/data/upload/1/a.png", png())
    studio.headers[path] = {"Set-Cookie": "sessionid=secret; Path=/"}
    elsewhere.add("/b.png", png(1))
    client = LabelStudioClient(studio.url, None, allow_private=True)
    one = Rig(tmp_path, client)
    one.get(path)
    one.get(studio.add("/data/upload/1/c.png", png(2)))
    one.get(elsewhere.url + "/b.png")
    assert len(studio.cookies) == 2 and set(studio.cookies + elsewhere.cookies) == {None}


def test_cloud_files_come_through_presign_without_the_token(
    tmp_path: Path, studio: Studio, elsewhere: Studio
) -> None:
    studio.token = personal_token()
    elsewhere.add("/bucket/a.png", png())
    studio.redirects["s3://bucket/a.png"] = elsewhere.url + "/bucket/a.png?sig=secret"
    client = LabelStudioClient(studio.url, studio.token, allow_private=True)
    one = Rig(tmp_path, client)
    assert one.get("s3://bucket/a.png", "7") == png() == one.get("s3://bucket/a.png", "7")
    assert studio.gets("/tasks/7/presign/") == 1
    assert [auth for _, _, auth in elsewhere.seen] == [None]


@pytest.mark.parametrize(
    ("token", "sentence"),
    [(None, "set EDGETAM_LABEL_LABEL_STUDIO_API_KEY"), ("a" * 40, "legacy token is refused")],
)
def test_a_401_names_the_cure(
    tmp_path: Path, studio: Studio, token: str | None, sentence: str
) -> None:
    studio.token = personal_token()
    with pytest.raises(FetchFailed, match=sentence):
        rig(tmp_path, studio, token, retries=0).get(studio.add("/data/upload/a.png", png()))


def test_no_token_reaches_a_log_or_an_error(
    tmp_path: Path, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = personal_token()
    studio.token = "another"
    with pytest.raises(FetchFailed, match="refused the personal access token") as told:
        rig(tmp_path, studio, token).get(studio.add("/data/upload/a.png", png()))
    assert token not in str(told.value) and token not in caplog.text


def test_without_a_configured_studio_relative_paths_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="set EDGETAM_LABEL_LABEL_STUDIO_URL"):
        Rig(tmp_path, LabelStudioClient(None, None)).get("/data/upload/1/a.png")


def test_a_studio_under_a_path(tmp_path: Path, studio: Studio) -> None:
    client = LabelStudioClient(studio.url + "/label", None)
    one = Rig(tmp_path, client)
    studio.add("/label/data/upload/a.png", png())
    assert one.get("/data/upload/a.png") == png() == one.get("/label/data/upload/a.png")


def test_token_kinds() -> None:
    assert token_kind(personal_token()).name == "personal"
    assert token_kind("ab" * 20).name == "legacy"
    assert token_kind(None).name == "none" == token_kind("").name
    assert token_kind("a.b.c").name == "legacy"


def test_push_prediction(studio: Studio) -> None:
    studio.token = personal_token()
    client = LabelStudioClient(studio.url, studio.token)
    client.push_prediction("7", [{"id": "a"}], model_version="m", score=0.5)
    assert studio.predictions == [
        {"task": 7, "result": [{"id": "a"}], "model_version": "m", "score": 0.5}
    ]


def test_a_push_waits_for_a_label_studio_that_is_away(studio: Studio) -> None:
    waits: list[float] = []
    client = LabelStudioClient(studio.url, None, sleep=waits.append)
    studio.faults["/api/predictions/"] = [503, 429]
    client.push_prediction("7", [], model_version="m", score=0.5)
    assert len(studio.predictions) == 1 and waits == [1.0, 4.0]
    studio.faults["/api/predictions/"] = [400]  # our own fault: said again it is no better
    with pytest.raises(FetchFailed, match="with 400"):
        client.push_prediction("7", [], model_version="m", score=0.5)
    assert len(waits) == 2
    with Studio() as gone:
        away = LabelStudioClient(gone.url, None, sleep=waits.append)
    with pytest.raises(FetchFailed, match="cannot be reached"):
        away.push_prediction("7", [], model_version="m", score=0.5)
    assert waits[2:] == [1.0, 4.0, 15.0]
