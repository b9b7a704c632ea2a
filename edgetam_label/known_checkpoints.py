"""The table of known checkpoints: where they come from, where they lie, how they are verified."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from edgetam_label.download import Progress, download
from edgetam_label.errors import CheckpointError, UsageError
from edgetam_label.settings import default_cache_dir

HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class KnownCheckpoint:
    """One entry of the table.

    config: the model config it was made for.
    url: where it is downloaded from; None for weights that ship with the package.
    git_blob: git object id, sha1 over `blob <size>\\0` + content; None: the hash is read from
        `<file>.sha256` beside the file.
    """

    name: str
    config: str
    filename: str
    licence: str
    summary: str
    url: str | None = None
    git_blob: str | None = None

    @property
    def shipped(self) -> bool:
        return self.url is None


CHECKPOINTS: dict[str, KnownCheckpoint] = {
    entry.name: entry
    for entry in (
        KnownCheckpoint(
            name="edgetam",
            config="edgetam",
            filename="edgetam.pt",
            licence="Apache-2.0",
            summary="the official EdgeTAM weights (facebookresearch/EdgeTAM), 56 MB",
            url="https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt",
            git_blob="abd54d22bbd22ba3e53cf59a307e59e0f3701be6",
        ),
        KnownCheckpoint(
            name="edgetam_nano",
            config="edgetam_nano",
            filename="edgetam_nano.pt",
            licence="Apache-2.0",
            summary="a small model of the same architecture, trained by this project and shipped",
        ),
    )
}


@dataclass(frozen=True)
class CheckpointStatus:
    """One checkpoint on this machine. state: ok | absent | damaged | unverified (no hash known)."""

    name: str
    path: Path
    state: str
    detail: str


def known_checkpoint(name: str) -> KnownCheckpoint:
    """The table entry. Raises UsageError listing the known names."""
    if name not in CHECKPOINTS:
        raise UsageError(f"No checkpoint is called {name!r}; known are {', '.join(CHECKPOINTS)}.")
    return CHECKPOINTS[name]


def checkpoint_path(name: str, checkpoint_dir: Path | None = None) -> Path:
    """Where a known checkpoint lies, or would lie once downloaded."""
    entry = known_checkpoint(name)
    if entry.shipped:
        return Path(str(resources.files("edgetam_label.weights"))) / entry.filename
    return (checkpoint_dir or default_cache_dir() / "checkpoints") / entry.filename


def git_blob_id(path: Path) -> str:
    """The id git gives this content: sha1 over `blob <size>\\0` and the bytes, streamed."""
    header = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(header, usedforsecurity=False))


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, streamed."""
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_problem(entry: KnownCheckpoint, path: Path) -> str | None:
    """None if the file is the expected one, else a sentence. Unverifiable files pass."""
    if entry.git_blob is not None:
        seen = git_blob_id(path)
        if seen != entry.git_blob:
            size = path.stat().st_size
            return f"its git blob id is {seen} ({size:,} bytes), expected {entry.git_blob}."
    expected = _expected_sha256(path)
    if expected is not None and (seen := file_sha256(path)) != expected:
        return f"its sha256 is {seen}, expected {expected}."
    return None


def _expected_sha256(path: Path) -> str | None:
    """From `<file>.sha256` beside the file, as `sha256sum` writes it."""
    sidecar = path.with_name(path.name + ".sha256")
    return sidecar.read_text(encoding="ascii").split()[0] if sidecar.is_file() else None


def checkpoint_status(name: str, checkpoint_dir: Path | None = None) -> CheckpointStatus:
    """Look at a known checkpoint on disk and verify its content."""
    entry, path = known_checkpoint(name), checkpoint_path(name, checkpoint_dir)
    if not path.is_file():
        return CheckpointStatus(name, path, "absent", how_to_get(entry, path))
    problem = content_problem(entry, path)
    if problem is not None:
        return CheckpointStatus(name, path, "damaged", f"{path} is damaged: {problem}")
    if entry.git_blob is None and _expected_sha256(path) is None:
        return CheckpointStatus(name, path, "unverified", f"{path} has no hash to compare with.")
    return CheckpointStatus(name, path, "ok", f"{path.stat().st_size:,} bytes")


def how_to_get(entry: KnownCheckpoint, path: Path) -> str:
    """What to download and where to put it, in one sentence."""
    if entry.shipped:
        return f"{path} should have come with the package; install the package again."
    return (
        f"Run `edgetam-label checkpoints download {entry.name}`, or download {entry.url} "
        f"on a machine with network and put it at {path}."
    )


def download_checkpoint(
    name: str,
    checkpoint_dir: Path | None = None,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a known checkpoint unless it is there; verified, resumable. Returns its path.

    mirror: base URL; `<mirror>/<file name>` is fetched and must have the same content.

    Raises CheckpointError with what to download by hand and where to put it.
    """
    entry, path = known_checkpoint(name), checkpoint_path(name, checkpoint_dir)
    if path.is_file() and content_problem(entry, path) is None:
        return path
    if entry.url is None:
        raise CheckpointError(how_to_get(entry, path))
    url = f"{mirror.rstrip('/')}/{entry.filename}" if mirror else entry.url
    try:
        return download(url, path, lambda part: content_problem(entry, part), progress=progress)
    except CheckpointError as error:
        by_hand = f"By hand: download {entry.url} and put it at {path}."
        raise CheckpointError(f"{error} {by_hand}") from None
