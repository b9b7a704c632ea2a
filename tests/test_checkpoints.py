"""The table of checkpoints, their verification, and which model a request ends at."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from edgetam_label import known_checkpoints
from edgetam_label.checkpoints import choose_model, load_model, resolve_device
from edgetam_label.config import ModelConfig
from edgetam_label.errors import CheckpointError, ConfigError, UsageError
from edgetam_label.known_checkpoints import (
    CHECKPOINTS,
    KnownCheckpoint,
    checkpoint_path,
    checkpoint_status,
    download_checkpoint,
    file_sha256,
    git_blob_id,
)
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.state_dicts import save_weights

CONTENT = b"weights" * 1000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real HTTP server over a folder: its base URL, and the folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}/", folder
        httpd.shutdown()
        thread.join()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> KnownCheckpoint:
    """A table entry whose content the test can make."""
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    entry = KnownCheckpoint(
        "demo", "tiny", "demo.pt", "MIT", "made here", "http://127.0.0.1:9/demo.pt", blob
    )
    monkeypatch.setitem(known_checkpoints.CHECKPOINTS, "demo", entry)
    return entry


def test_the_official_entry_is_pinned() -> None:
    entry = CHECKPOINTS["edgetam"]
    assert entry.url is not None and entry.url.endswith("/EdgeTAM/raw/main/checkpoints/edgetam.pt")
    assert entry.git_blob == "abd54d22bbd22ba3e53cf59a307e59e0f3701be6"
    assert entry.licence == "Apache-2.0"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the independent witness")
def test_the_blob_id_is_what_git_says(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    said = subprocess.run(
        ["git", "hash-object", "--no-filters", str(file)], capture_output=True, check=True
    )
    assert git_blob_id(file) == said.stdout.decode().strip()


def test_download_from_a_mirror(
    known: KnownCheckpoint, mirror: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = mirror
    (folder / "demo.pt").write_bytes(CONTENT)
    assert checkpoint_status("demo", tmp_path).state == "absent"
    path = download_checkpoint("demo", tmp_path, mirror=url)
    assert path == tmp_path / "demo.pt" and path.read_bytes() == CONTENT
    assert checkpoint_status("demo", tmp_path).state == "ok"
    (folder / "demo.pt").unlink()
    assert download_checkpoint("demo", tmp_path, mirror=url) == path  # no second transfer


def test_a_mirror_with_other_content_is_refused(
    known: KnownCheckpoint, mirror: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = mirror
    (folder / "demo.pt").write_bytes(CONTENT + b"!")
    with pytest.raises(CheckpointError, match=f"expected {known.git_blob}.*removed.*By hand"):
        download_checkpoint("demo", tmp_path / "cache", mirror=url)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_copy_is_replaced(
    known: KnownCheckpoint, mirror: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = mirror
    (folder / "demo.pt").write_bytes(CONTENT)
    (tmp_path / "demo.pt").write_bytes(b"cut")
    assert checkpoint_status("demo", tmp_path).state == "damaged"
    assert download_checkpoint("demo", tmp_path, mirror=url).read_bytes() == CONTENT


def test_no_network_says_what_to_fetch_and_where_to_put_it(
    known: KnownCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgetam_label.download.time.sleep", lambda _: None)
    with pytest.raises(CheckpointError) as error:
        download_checkpoint("demo", tmp_path)
    assert str(error.value).endswith(
        f"By hand: download {known.url} and put it at {tmp_path}/demo.pt."
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'sam9'; known are edgetam, edgetam_nano"):
        checkpoint_path("sam9")


def test_shipped_weights_match_their_hash() -> None:
    for entry in CHECKPOINTS.values():
        path = checkpoint_path(entry.name)
        if entry.shipped and path.exists():
            assert checkpoint_status(entry.name).state == "ok"
            assert path.stat().st_size <= 20 * 2**20


def test_an_absent_model_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoints download edgetam`, or download https"):
        choose_model("edgetam", checkpoint_dir=tmp_path)


def test_auto_prefers_the_official_weights_and_refuses_damaged_ones(tmp_path: Path) -> None:
    (tmp_path / "edgetam.pt").write_bytes(b"cut short")
    with pytest.raises(CheckpointError, match=r"is damaged: .*git blob id.* Delete it"):
        choose_model("auto", checkpoint_dir=tmp_path)


def test_auto_takes_the_shipped_model_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "edgetam_nano.pt"
    shipped.write_bytes(b"x")
    monkeypatch.setattr(
        known_checkpoints.resources, "files", lambda package: tmp_path, raising=True
    )
    said: list[str] = []
    choice = choose_model("auto", checkpoint_dir=tmp_path / "empty", notify=said.append)
    assert (choice.config, choice.checkpoint) == ("edgetam_nano", shipped)
    assert len(said) == 1 and "`edgetam-label checkpoints download edgetam`" in said[0]


def test_random_weights_only_when_asked_and_said_plainly() -> None:
    said: list[str] = []
    choice = choose_model("edgetam", checkpoint="random", notify=said.append)
    assert (choice.config, choice.checkpoint) == ("edgetam", None)
    assert said == ["Weights are random (seed 0): the masks mean nothing."]


def test_random_weights_are_the_same_every_time_and_leave_the_seed_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = load_model("tiny", device="cpu").state_dict()
    assert torch.equal(torch.rand(3), expected)
    two = load_model("tiny", device="cpu").state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_saved_model_comes_back_with_its_config_and_identity(tmp_path: Path) -> None:
    model = load_model("tiny", device="cpu")
    path = tmp_path / "mine.pt"
    save_weights(path, model, ModelConfig.load("tiny"))
    again = load_model(path, device="cpu")
    assert again.config == ModelConfig.load("tiny") and not again.training
    assert again.identity is not None
    assert again.identity.name == "tiny"
    assert again.identity.checkpoint_sha256 == file_sha256(path)
    assert again.identity.config_sha256 == ModelConfig.load("tiny").sha256
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_half_precision_weights_become_single(tmp_path: Path) -> None:
    model = load_model("tiny", device="cpu")
    save_weights(tmp_path / "half.pt", model, model.config, half=True)
    save_weights(tmp_path / "full.pt", model, model.config)
    again = load_model("tiny", tmp_path / "half.pt", device="cpu")
    assert {v.dtype for v in again.state_dict().values()} <= {torch.float32, torch.int64}
    for key, value in model.state_dict().items():
        assert torch.allclose(again.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    half, full = ((tmp_path / f"{name}.pt").stat().st_size for name in ("half", "full"))
    assert half < 0.75 * full


def test_a_checkpoint_of_another_model_names_what_does_not_fit(tmp_path: Path) -> None:
    save_weights(tmp_path / "tiny.pt", EdgeTAM(ModelConfig.load("tiny")), ModelConfig.load("tiny"))
    with pytest.raises(CheckpointError) as error:
        load_model("edgetam", tmp_path / "tiny.pt", device="cpu")
    text = str(error.value)
    assert "missing (" in text and "misshapen (" in text and "more" in text
    assert "Choose the config it was made for with --model" in text


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="'tpu' is unknown; use auto, cpu, cuda or mps"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"'cuda' is not available to torch .* --device cpu"):
            resolve_device("cuda")
