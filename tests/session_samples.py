"""Small sessions for tests of the store: media without a file, masks without a model."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgetam_label import errors
from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.sessions import FrameMask, ModelIdentity

MODEL = ModelIdentity("tiny", "a" * 64, "b" * 64)
HEIGHT, WIDTH = 48, 64


def media(num_frames: int = 1000, source: str = "/videos/street.mp4") -> MediaIdentity:
    """Variable frame rate, a first timestamp that is not 0."""
    pts = tuple(1024 + 512 * i + (i % 3) for i in range(num_frames))
    return MediaIdentity(
        source=source,
        kind="video",
        size_bytes=123456,
        sha256="c" * 64,
        width=WIDTH,
        height=HEIGHT,
        num_frames=num_frames,
        pts=pts,
        time_base=(1, 15360),
    )


def rle(seed: int) -> RLE:
    """A mask that differs from seed to seed."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[seed % HEIGHT, : 1 + seed % WIDTH] = True
    mask[(7 * seed) % HEIGHT, seed // 50 % WIDTH] = True
    return RLE.encode(mask)


def mask(obj_id: int, frame_idx: int, status: str = "tracked", score: float = 1.5) -> FrameMask:
    return FrameMask(obj_id, frame_idx, rle(31 * obj_id + frame_idx), score, status)


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """Start `python -c code args` with this package importable, its output piped."""
    root = Path(errors.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)])},
    )


def finish(process: subprocess.Popen[str], words: str = "") -> str:
    """Its output once it ended well; `words` go to its input."""
    out, err = process.communicate(words, timeout=120)
    assert process.returncode == 0, err
    return out


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Run one statement with Python's own sqlite3, past the store."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
