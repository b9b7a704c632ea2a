"""What everything around the model adds to a track: decoding, resizing, run lengths, database.

    .venv/bin/python benchmarks/pipeline.py [--frames 300] [--objects 3] [--model edgetam_nano]

Renders a 1080p clip, tracks its objects into a database, and tracks the same objects through the
same frames held in memory (6 MB each), keeping nothing: the model alone, with what it needs of the
pixels (resizing, crops, optical flow). The two take turns of TURN frames, since a machine whose
pace drifts by a tenth within minutes would say anything of one run after another. What the whole
adds is decoding, run lengths and the database; drawing masks at the size of the video, which both
do, is counted as added too. Then every stage by itself, to say where the time goes. --formula takes
weights computed from a formula, for configs whose weights are not here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from edgetam_label import Click, Frames, Labeler, Prompt, SessionStore, VideoTracker, load_model
from edgetam_label.config import ModelConfig
from edgetam_label.masks import RLE
from edgetam_label.modeling import EdgeTAM
from edgetam_label.preprocess import frame_to_input, logits_to_mask
from edgetam_label.sessions import FrameMask
from edgetam_label.tracker import TrackedFrame

WIDTH, HEIGHT = 1920, 1080
TURN = 25  # frames: many more than are decoded ahead
COLOURS = ((220, 60, 50), (60, 180, 75), (70, 110, 235), (240, 200, 40), (170, 60, 200))


def places(t: int, objects: int) -> list[tuple[int, int]]:
    """Where the centres of the discs are on frame t."""
    return [
        (
            300 + 320 * i + int(120 * np.sin(t / 40 + i)),
            300 + 110 * i + int(90 * np.cos(t / 30 + i)),
        )
        for i in range(objects)
    ]


def write_clip(path: Path, count: int, objects: int) -> None:
    """Discs that move over a smooth background which pans, as an H.264 file of ordinary quality."""
    import av

    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (14, 60, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (WIDTH * 2, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(0, 12, wide.shape, dtype=np.uint8)
    wide = cv2.add(wide, grain)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast"}
        for t in range(count):
            image = wide[:, 3 * t % WIDTH :][:, :WIDTH].copy()
            for (x, y), colour in zip(places(t, objects), COLOURS, strict=False):
                cv2.circle(image, (x, y), 105, colour, -1)
                cv2.circle(image, (x + 30, y - 30), 30, tuple(c // 2 for c in colour), -1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(stream.encode())


def build(name: str, formula: bool) -> EdgeTAM:
    if not formula:
        return load_model(name, "random" if name == "tiny" else None, "cpu")
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from formula_weights import formula_state_dict

    model = EdgeTAM(ModelConfig.load(name)).eval().requires_grad_(False)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(formula_state_dict(shapes))
    return model


class Clocks:
    """Wall and processor seconds of all `with` blocks so far, of all threads."""

    def __init__(self, wall: float = 0.0, processor: float = 0.0) -> None:
        self.wall, self.processor = wall, processor

    def without(self, other: Clocks) -> Clocks:
        return Clocks(self.wall - other.wall, self.processor - other.processor)

    def __enter__(self) -> Clocks:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.processor += time.process_time() - self._began[1]


def in_memory(video: Path) -> list[Any]:
    """All frames, decoded: what is tracked decides how long that takes, so both see the same."""
    with Frames.open(video) as frames:
        return [pixels.copy() for _, pixels in frames.iter(0, len(frames))]


def model_alone(model: EdgeTAM, images: list[Any], objects: int) -> Iterator[int]:
    """As many objects tracked with nothing to decode or store; yields the frames that are done."""
    with Frames.open(images) as frames:
        tracker = VideoTracker(model, frames)
        try:
            for prompt in prompts(objects):
                tracker.add_prompt(prompt)
            for count, tracked in enumerate(tracker.propagate(), start=1):
                if count % objects == 0:
                    yield tracked.frame_idx + 1
        finally:
            tracker.close()


def prompts(objects: int) -> list[Prompt]:
    return [
        Prompt(i + 1, 0, clicks=(Click(x - 20, y + 20),))
        for i, (x, y) in enumerate(places(0, objects))
    ]


def in_turns(
    model: EdgeTAM, video: Path, images: list[Any], objects: int
) -> tuple[Clocks, Clocks, list[TrackedFrame]]:
    """Time of the model alone, of `Labeler.track` from the file into a database; some masks."""
    alone, both, kept = Clocks(), Clocks(), list[TrackedFrame]()
    frames_alone = model_alone(model, images, objects)
    shown = 0

    def keep(tracked: TrackedFrame) -> None:
        nonlocal shown
        shown += 1
        if len(kept) < 30:
            kept.append(tracked)
        done, beyond = divmod(shown, objects)
        if beyond or done % TURN and done != len(images):
            return
        with alone:
            while next(frames_alone) < done:
                pass

    with SessionStore(video.with_suffix(".db")) as store, Frames.open(video) as frames:
        labeler = Labeler(model, store)
        session = labeler.create_session(frames)
        for prompt in prompts(objects):
            labeler.add_prompt(session.id, prompt)
        with both:
            labeler.track(session.id, frames, on_frame=keep)
        stored = store.get(session.id).num_masks
    assert shown == stored == objects * len(images), (shown, stored)
    return alone, both.without(alone), kept


def cpu_ms(work: Callable[[], Any], times: int) -> float:
    """Milliseconds of processor time, of all threads, for one call."""
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) * 1e3 / times


def stages(
    model: EdgeTAM, video: Path, masks: list[TrackedFrame], objects: int
) -> dict[str, float]:
    """Processor time per frame of each stage by itself, ms."""
    size, cpu = model.config.image_size, torch.device("cpu")
    with Frames.open(video) as frames, SessionStore(video.with_suffix(".stages.db")) as store:
        count = min(40, len(frames))
        begin = time.process_time()
        image = [pixels for _, pixels in frames.iter(0, count)][-1]
        found = {"decode": (time.process_time() - begin) * 1e3 / count}
        found["resize"] = cpu_ms(lambda: frame_to_input(image, size, cpu), 10)
        shown = [m for m in masks if not m.absent] or masks
        found["upsample"] = (
            objects
            * cpu_ms(lambda: [logits_to_mask(m.low_res_logits, HEIGHT, WIDTH) for m in shown], 3)
            / len(shown)
        )
        found["run lengths"] = (
            objects * cpu_ms(lambda: [RLE.encode(m.mask) for m in shown], 3) / len(shown)
        )
        session = store.create(frames.identity)
        store.add_prompt(session.id, Prompt(1, 0, clicks=(Click(9, 9),)))
        rle = RLE.encode(shown[-1].mask)
        rows = [FrameMask(1, i % len(frames), rle, 1.0) for i in range(32)]
        found["database"] = objects * cpu_ms(lambda: store.save_masks(session.id, rows), 10) / 32
    return found


def added_share(alone: float, whole: float, drawing: float) -> float:
    """What the whole track takes more than the model alone without its `drawing`."""
    return whole / (alone - drawing) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--objects", type=int, default=3, choices=range(1, 6))
    parser.add_argument("--model", default="edgetam_nano")
    parser.add_argument("--formula", action="store_true", help="weights by formula, not trained")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build(options.model, options.formula)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        write_clip(video, options.frames, options.objects)
        images = in_memory(video)
        for _ in model_alone(model, images[:3], options.objects):
            pass  # warm up
        alone, whole, masks = in_turns(model, video, images, options.objects)
        del images
        parts = stages(model, video, masks, options.objects)
    per_frame = 1e3 / options.frames
    runs = {"alone": alone, "whole": whole}
    wall = {name: clocks.wall * per_frame for name, clocks in runs.items()}
    processor = {name: clocks.processor * per_frame for name, clocks in runs.items()}
    answer = {
        "model": options.model,
        "frames": options.frames,
        "objects": options.objects,
        "threads": options.threads,
        "wall_ms": wall,
        "processor_ms": processor,
        "added_share": {
            "wall": added_share(**wall, drawing=parts["upsample"]),
            "processor": added_share(**processor, drawing=parts["upsample"]),
        },
        "stages_processor_ms": parts,
    }
    if options.json:
        print(json.dumps(answer, indent=2))
        return
    for name, ms in (("wall", wall), ("processor", processor)):
        print(
            f"{name:9s}  model alone {ms['alone']:8.1f} ms a frame, whole track {ms['whole']:8.1f} "
            f"ms: {answer['added_share'][name]:+.1%}"
        )
    for name, ms in parts.items():
        print(f"  {name:12s} {ms:7.2f} ms of processor time a frame")


if __name__ == "__main__":
    main()
