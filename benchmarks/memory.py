"""Peak memory of tracking against the length of the video: it must not grow.

    .venv/bin/python benchmarks/memory.py [--frames 300 3000] [--model tiny]

Each length runs in a process of its own on a real H.264 file; the peak is the kernel's (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def write_clip(path: Path, count: int, width: int = 320, height: int = 180) -> None:
    """A moving square over noise, written frame by frame."""
    import av

    noise = np.random.default_rng(0).integers(0, 90, (height, width, 3), dtype=np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(count):
            image = noise.copy()
            x = 20 + t % (width - 90)
            image[60:120, x : x + 60] = (220, 180, 40)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def track(video: Path, model_name: str) -> None:
    """Track two objects through the file into a database; print the peak in MiB."""
    import torch

    from edgetam_label import Box, Click, Frames, Labeler, Prompt, SessionStore, load_model

    torch.set_num_threads(1)
    model = load_model(model_name, "random" if model_name == "tiny" else None, "cpu")
    with SessionStore(video.with_suffix(".db")) as store, Frames.open(video) as frames:
        labeler = Labeler(model, store)
        session = labeler.create_session(frames)
        labeler.add_prompt(session.id, Prompt(1, 0, clicks=(Click(50, 90),)))
        labeler.add_prompt(session.id, Prompt(2, 0, box=Box(200, 40, 260, 100)))
        labeler.track(session.id, frames)
        stored = store.get(session.id).num_masks
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    print(json.dumps({"peak_mib": int(peak) / 1024, "masks": stored}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 3000])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--track", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.track:
        track(options.track, options.model)
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.frames:
            video = Path(folder) / f"{count}.mp4"
            write_clip(video, count)
            command = [sys.executable, __file__, "--track", str(video), "--model", options.model]
            answer = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            peaks.append(answer["peak_mib"])
            print(f"{count:6d} frames  {answer['masks']:6d} masks  peak {peaks[-1]:7.1f} MiB")
    print(f"growth {100 * (max(peaks) / peaks[0] - 1):.1f} %")


if __name__ == "__main__":
    main()
