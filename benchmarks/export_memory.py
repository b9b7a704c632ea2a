"""Peak memory and time of exporting many masks, in a process of its own per format.

    python benchmarks/export_memory.py [--masks 200000] [--formats coco,ytvis,native]

The store is filled with masks of wandering ellipses at 640 x 360, ten objects a frame. Prints a
table; exits 1 if a format needs more than --limit MB.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.session_types import FrameMask, LabelObject
from edgetam_label.sessions import SessionStore

HEIGHT, WIDTH, OBJECTS, FRAMES_PER_SESSION = 360, 640, 10, 2000
LABELS = ("person", "dog", "cat", "bicycle", "ball")


def fill(path: Path, total: int) -> int:
    """A store with `total` masks in sessions of at most 20,000; returns the number of sessions."""
    with SessionStore(path) as store:
        left = total // OBJECTS
        sessions = 0
        while left > 0:
            length = min(left, FRAMES_PER_SESSION)
            media = MediaIdentity(
                source=f"/videos/clip{sessions}.mp4",
                kind="video",
                size_bytes=1,
                sha256="0" * 64,
                width=WIDTH,
                height=HEIGHT,
                num_frames=length,
                pts=tuple(range(length)),
                time_base=(1, 25),
            )
            session = store.create(media, name=f"clip{sessions}")
            for obj_id in range(1, OBJECTS + 1):
                store.set_object(session.id, LabelObject(obj_id, LABELS[obj_id % len(LABELS)]))
            batch: list[FrameMask] = []
            for mask in masks(length, sessions):
                batch.append(mask)
                if len(batch) == 2000:
                    store.save_masks(session.id, batch)
                    batch = []
            store.save_masks(session.id, batch)
            left -= length
            sessions += 1
    return sessions


def masks(length: int, seed: int) -> Iterator[FrameMask]:
    rng = np.random.default_rng(seed)
    shapes = []
    rows, cols = np.ogrid[:HEIGHT, :WIDTH]
    for _ in range(200):
        x, y = rng.uniform(60, WIDTH - 60), rng.uniform(60, HEIGHT - 60)
        rx, ry = rng.uniform(15, 60, 2)
        shape = ((cols - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1
        shapes.append(RLE.encode(shape & (rng.random((HEIGHT, WIDTH)) > 0.002)))
    for frame_idx in range(length):
        for obj_id in range(1, OBJECTS + 1):
            shape = shapes[(frame_idx + 20 * obj_id) % len(shapes)]
            yield FrameMask(obj_id, frame_idx, shape, 5.0)


def export(name: str, database: Path, out: Path) -> None:
    """Run in a process of its own: peak memory is counted per process."""
    from edgetam_label.exporters.exporting import ExportRequest, export_sessions

    with SessionStore(database) as store:
        ids = tuple(summary.id for summary in store.summaries())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        report = export_sessions(store, ExportRequest(name, out, ids))
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    count = report.manifest["totals"]["masks"]["written"]
    print(f"{name},{count},{before:.0f},{peak:.0f},{seconds:.1f},{size:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", type=int, default=200_000)
    parser.add_argument("--formats", default="coco")
    parser.add_argument("--limit", type=float, default=300.0, help="MB")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.child:
        name, database, out = choices.child
        export(name, Path(database), Path(out))
        return 0
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "sessions.db"
        start = time.perf_counter()
        sessions = fill(database, choices.masks)
        print(
            f"{choices.masks} masks in {sessions} sessions, "
            f"{database.stat().st_size / 1e6:.0f} MB, made in {time.perf_counter() - start:.0f} s"
        )
        print(f"{'format':<12}{'written':>9}{'before MB':>11}{'peak MB':>9}{'s':>8}{'MB out':>8}")
        for name in choices.formats.split(","):
            command = [sys.executable, __file__, "--child", name, str(database)]
            done = subprocess.run(
                [*command, os.path.join(folder, name)], check=True, capture_output=True, text=True
            )
            _, count, before, peak, seconds, size = done.stdout.strip().split(",")
            print(f"{name:<12}{count:>9}{before:>11}{peak:>9}{seconds:>8}{size:>8}")
            worst = max(worst, float(peak))
    if worst > choices.limit:
        print(f"over the limit of {choices.limit:.0f} MB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
