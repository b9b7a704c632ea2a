"""Write golden/brush_rle.json: what label-studio-sdk encodes for masks made by formula.

Run it with a Python that has the SDK, after adding a mask:

    pip install label-studio-sdk==2.1.2 && python tests/make_brush_corpus.py

The tests rebuild the masks from the formulas and compare our bytes with the recorded ones, so
they need neither the SDK nor image files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
GOLDEN = Path(__file__).parent / "golden" / "brush_rle.json"
INLINE_BYTES = 256  # longer streams are recorded by sha256 and length only


def disc(height: int, width: int, radius: float) -> Mask:
    y, x = np.mgrid[:height, :width]
    return np.asarray((x - width / 2) ** 2 + (y - height / 3) ** 2 < radius**2)


def ragged(height: int, width: int) -> Mask:
    """A waving shape with a fringe: thousands of short runs of every length class."""
    y, x = np.mgrid[:height, :width]
    edge = width * (0.35 + 0.2 * np.sin(y / 7.0)) + (y * 7919 % 101) * 0.9
    fringe = (x * 31 + y * 17) % 23 < 9
    return np.asarray((x > edge) & ((x < width * 0.8) | fringe))


def noise(height: int, width: int, every: int) -> Mask:
    """Pseudo-random pixels from integers alone, the same under every numpy version."""
    n = np.arange(height * width, dtype=np.uint64)
    mixed = (n * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)) >> np.uint64(33)
    return np.asarray(
        (mixed * np.uint64(2654435761) >> np.uint64(13)) % np.uint64(every) == 0
    ).reshape(height, width)


def runs(*lengths: int) -> Mask:
    """One row of runs, background first; a 0 skips a run."""
    row = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return row[None, :]


def one_pixel(height: int, width: int, y: int, x: int) -> Mask:
    mask = np.zeros((height, width), dtype=bool)
    mask[y, x] = True
    return mask


# Run lengths count four values per pixel: classes change at 8, 16 and 256 values, chunks at 65536.
MASKS: dict[str, Callable[[], Mask]] = {
    "off_1x1": lambda: np.zeros((1, 1), dtype=bool),
    "on_1x1": lambda: np.ones((1, 1), dtype=bool),
    "off_8x8": lambda: np.zeros((8, 8), dtype=bool),
    "on_9x5": lambda: np.ones((9, 5), dtype=bool),
    "first_pixel": lambda: one_pixel(37, 53, 0, 0),
    "last_pixel": lambda: one_pixel(37, 53, 36, 52),
    "inner_pixel": lambda: one_pixel(53, 37, 20, 30),
    "class_borders": lambda: runs(1, 2, 3, 4, 5, 63, 64, 65, 66, 2, 1, 4, 64),
    "chunk_borders": lambda: runs(16383, 16384, 16385, 32768, 32769, 1, 49152, 3, 16390),
    "exact_chunk_on": lambda: runs(0, 16384),
    "exact_chunk_off": lambda: runs(16384),
    "two_chunks_short_tail": lambda: runs(0, 32769, 7),
    "checker": lambda: np.indices((32, 33)).sum(axis=0) % 2 == 0,
    "column_stripes": lambda: np.indices((40, 31))[1] % 3 == 0,
    "row_stripes": lambda: np.indices((40, 31))[0] % 3 == 0,
    "tall": lambda: np.arange(5000)[:, None] % 997 < 400,
    "wide": lambda: np.arange(5000)[None, :] % 997 < 400,
    "noise_dense": lambda: noise(64, 67, 2),
    "noise_sparse": lambda: noise(101, 67, 29),
    "disc": lambda: disc(161, 97, 40),
    "ring": lambda: disc(240, 320, 70) & ~disc(240, 320, 31.5),
    "ragged": lambda: ragged(120, 213),
    "blob_1080p": lambda: disc(1080, 1920, 300) | disc(1080, 1920, 310) & ~disc(1080, 1920, 305),
    "ragged_1080p": lambda: ragged(1080, 1920),
}


def record(rle: list[int]) -> dict[str, Any]:
    """The golden entry of one encoded mask."""
    entry: dict[str, Any] = {
        "length": len(rle),
        "sha256": hashlib.sha256(bytes(rle)).hexdigest(),
    }
    if len(rle) <= INLINE_BYTES:
        entry["hex"] = bytes(rle).hex()
    return entry


def main() -> None:
    from importlib.metadata import version

    from label_studio_sdk.converter.brush import mask2rle

    corpus = {
        name: record([int(v) for v in mask2rle(make().astype(np.uint8) * 255)])
        for name, make in MASKS.items()
    }
    golden = {"encoder": f"label-studio-sdk {version('label-studio-sdk')}", "masks": corpus}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(f"{GOLDEN}: {len(corpus)} masks by {golden['encoder']}")


if __name__ == "__main__":
    main()
