"""Is the cost of a frame the same at the end of a long track as at its beginning?

    .venv/bin/python benchmarks/flatness.py [--frames 3000] [--model tiny] [--picture FILE.png]

Tracks one object through a rendered clip into a database and takes the time between one mask and
the next: processor time of the whole process (decoding and writing included, other programs not),
and the wall clock, which counts only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from memory import write_clip

from edgetam_label import Click, Frames, Labeler, Prompt, SessionStore, load_model

EARLY, LATE = slice(10, 110), slice(-100, None)


def seconds_per_frame(video: Path, model_name: str) -> np.ndarray:
    """(frames - 1, 2): processor and wall seconds between consecutive masks."""
    model = load_model(model_name, "random" if model_name == "tiny" else None, "cpu")
    clocks: list[tuple[float, float]] = []
    with SessionStore(video.with_suffix(".db")) as store, Frames.open(video) as frames:
        labeler = Labeler(model, store)
        session = labeler.create_session(frames)
        labeler.add_prompt(session.id, Prompt(1, 0, clicks=(Click(50, 90),)))
        labeler.track(
            session.id,
            frames,
            on_frame=lambda _: clocks.append((time.process_time(), time.perf_counter())),
        )
    return np.diff(np.array(clocks), axis=0)


def report(name: str, seconds: np.ndarray) -> None:
    ms = seconds * 1e3
    early, late = ms[EARLY].mean(), ms[LATE].mean()
    median, p95, p99 = np.percentile(ms, [50, 95, 99])
    print(
        f"{name:10s} frames 10-110 {early:6.2f} ms, last 100 {late:6.2f} ms "
        f"({late / early - 1:+.1%}); median {median:.2f}, p95 {p95:.2f}, "
        f"p99/median {p99 / median:.2f}, max {ms.max():.1f} at frame {int(ms.argmax()) + 1}"
    )


def draw(seconds: np.ndarray, title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    ms = seconds * 1e3
    mean = np.convolve(ms, np.ones(50) / 50, mode="valid")
    figure, axes = pyplot.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(ms, ".", markersize=2, color="#9db7d5", label="each frame")
    axes.plot(np.arange(len(mean)) + 25, mean, color="#1f4e8c", label="mean of 50")
    axes.set(xlabel="frame", ylabel="processor ms", title=title, xlim=(0, len(ms)))
    axes.set_ylim(0, 2.5 * float(np.median(ms)))
    axes.legend(loc="upper right", frameon=False, ncols=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="where to draw the curve")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        write_clip(video, options.frames)
        seconds = seconds_per_frame(video, options.model)
    report("processor", seconds[:, 0])
    report("wall", seconds[:, 1])
    if options.picture:
        title = f"{options.model}, 1 object, {options.frames:,} frames"
        draw(seconds[:, 0], title, options.picture)


if __name__ == "__main__":
    main()
