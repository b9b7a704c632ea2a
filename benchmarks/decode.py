"""How fast frames are found, and that memory does not grow with the length of the video.

    python benchmarks/decode.py [VIDEO]

Without a file, makes clips of 300 and 3,000 frames. Each measurement runs in a process of its own,
so that its peak memory is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from edgetam_label.frames import Frames

SIZE = (1280, 720)


def make_clip(path: Path, num_frames: int) -> Path:
    """Moving noise in H.264 with B-frames and a key frame every 250 frames, as x264 does."""
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
    still = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=30, options={"preset": "ultrafast", "bf": "2"}
        )
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for idx in range(num_frames):
            image = np.roll(still, (2 * idx, 3 * idx), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(what: str, path: Path) -> dict[str, float]:
    """One measurement in this process: seconds, frames per second where it applies, peak MiB."""
    started = time.perf_counter()
    if what.startswith("index"):
        count = len(Frames.open(path, index="decode" if what == "index by decoding" else "auto"))
    else:
        frames = Frames.open(path)
        started = time.perf_counter()
        if what == "forward":
            count = sum(1 for _ in frames.iter())
        elif what == "backward":
            count = sum(1 for _ in frames.iter(step=-1))
        else:
            picks = np.random.default_rng(1).integers(0, len(frames), 20)
            count = sum(frames[int(idx)].shape[0] > 0 for idx in picks)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "per_second": count / seconds, "peak_mib": peak_mib()}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            clips = [Path(sys.argv[1])]
        else:
            clips = [make_clip(Path(folder) / f"{n}.mp4", n) for n in (300, 3000)]
        print(f"{'clip':>12}  {'what':<18} {'seconds':>8} {'frames/s':>9} {'peak MiB':>9}")
        for what in ("index", "index by decoding", "forward", "backward", "random"):
            for clip in clips:
                command = [sys.executable, __file__, "--one", what, str(clip)]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                seen = json.loads(run.stdout)
                print(
                    f"{clip.name:>12}  {what:<18} {seen['seconds']:8.2f} "
                    f"{seen['per_second']:9.1f} {seen['peak_mib']:9.0f}"
                )


if __name__ == "__main__":
    main()
