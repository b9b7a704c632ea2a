"""Files of a dataset, written beside the target and moved into place in one rename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.palette import PALETTE


class DatasetWriter:
    """Writes into `.<name>.partial-<pid>` next to `out`; leaving the `with` block without an
    error renames it to `out`, leaving with one deletes it.

    A killed process leaves only that hidden folder, which the next export to the same target
    removes. Every file's SHA-256 is kept for the manifest.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        """Raises UsageError if `out` exists and is not empty, unless `overwrite`."""
        self.out = Path(out)
        self._overwrite = overwrite
        check_target(self.out, overwrite)
        parent = self.out.absolute().parent
        self._temp = parent / f".{self.out.name}.partial-{os.getpid()}"
        self._hashes: dict[str, tuple[int, str]] = {}

    def __enter__(self) -> DatasetWriter:
        self._temp.parent.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._temp.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            shutil.rmtree(self._temp, ignore_errors=True)
            return
        try:
            self._publish()
        except OSError as problem:
            shutil.rmtree(self._temp, ignore_errors=True)
            raise ExportError(f"{self.out} could not be put in place: {problem}.") from problem

    def path(self, relative: str) -> Path:
        """Where to write the file `relative` (POSIX path); its folders are made."""
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts:
            raise ExportError(f"{relative!r} would lie outside the dataset; this is a bug.")
        path = self._temp / pure
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_bytes(self, relative: str, data: bytes) -> None:
        if relative in self._hashes:
            raise ExportError(f"{relative} would be written twice; this is a bug.")
        self.path(relative).write_bytes(data)
        self._hashes[relative] = (len(data), hashlib.sha256(data).hexdigest())

    def write_text(self, relative: str, text: str) -> None:
        self.write_bytes(relative, text.encode("utf-8"))

    def write_json(self, relative: str, value: Any) -> None:
        """ASCII only: several readers open JSON without naming an encoding."""
        self.write_text(relative, json.dumps(value, ensure_ascii=True, indent=1) + "\n")

    def write_id_map(self, relative: str, ids: NDArray[np.uint16]) -> None:
        """A palette PNG (mode P, DAVIS colours) whose pixel values are `ids` (H, W), 0..255."""
        if int(ids.max(initial=0)) > 255:
            raise ExportError(f"{relative}: id {ids.max()} does not fit a palette PNG; a bug.")
        image = Image.fromarray(ids.astype(np.uint8))  # mode L; putpalette makes it P
        image.putpalette([channel for color in PALETTE for channel in color])
        self._save_png(relative, image)

    def write_gray(self, relative: str, values: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
        """A grey PNG, 8 or 16 bits by the dtype of `values` (H, W)."""
        self._save_png(relative, Image.fromarray(values))

    def open(self, relative: str) -> StreamedFile:
        """A text file to write piece by piece; use as a context manager."""
        return StreamedFile(self.path(relative), partial(self._register, relative))

    def files(self) -> dict[str, dict[str, Any]]:
        """{path: {"bytes", "sha256"}} of all files so far, by name."""
        return {
            name: {"bytes": size, "sha256": sha}
            for name, (size, sha) in sorted(self._hashes.items())
        }

    def _register(self, relative: str, size: int, sha: str) -> None:
        self._hashes[relative] = (size, sha)

    def _save_png(self, relative: str, image: Image.Image) -> None:
        buffer = BytesIO()
        image.save(buffer, format="PNG")
        self.write_bytes(relative, buffer.getvalue())

    def _sweep(self) -> None:
        """Remove what killed exports to this target left behind."""
        pattern = re.compile(rf"\.{re.escape(self.out.name)}\.(?:partial|old)-(\d+)")
        for stale in self._temp.parent.iterdir():
            match = pattern.fullmatch(stale.name)
            if match and (stale == self._temp or not _is_running(int(match[1]))):
                shutil.rmtree(stale, ignore_errors=True)

    def _publish(self) -> None:
        if not self.out.exists():
            self._temp.rename(self.out)
            return
        if not self._overwrite and any(self.out.iterdir()):
            raise UsageError(f"{self.out} appeared while exporting; choose another folder.")
        # A non-empty folder cannot be replaced in one step: move it aside, and back if need be.
        old = self._temp.with_name(f".{self.out.name}.old-{os.getpid()}")
        self.out.rename(old)
        try:
            self._temp.rename(self.out)
        except OSError:
            old.rename(self.out)
            raise
        shutil.rmtree(old, ignore_errors=True)


def check_target(out: Path, overwrite: bool) -> None:
    """Raise UsageError unless `out` is free, an empty folder, or may be overwritten."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is not a folder; give the name of a folder to write.")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UsageError(f"{out} already exists; choose another folder or pass --overwrite.")


class StreamedFile:
    """A UTF-8 text file written in pieces and hashed on the way."""

    def __init__(self, path: Path, done: Callable[[int, str], None]) -> None:
        self._path, self._done = path, done
        self._hash = hashlib.sha256()
        self._size = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> StreamedFile:
        self._file = self._path.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        self._file.close()
        if kind is None:
            self._done(self._size, self._hash.hexdigest())

    def write(self, text: str) -> None:
        assert self._file is not None, "open it with `with` first"
        data = text.encode("utf-8")
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def write_list(self, items: Iterable[Any], separator: str = ",\n") -> int:
        """A JSON list, one item a line, without ever holding all items; returns their number."""
        count = 0
        self.write("[")
        for item in items:
            text = json.dumps(item, ensure_ascii=True, separators=(",", ":"))
            self.write(("\n" if count == 0 else separator) + text)
            count += 1
        self.write("]")
        return count


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
