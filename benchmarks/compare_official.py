"""Ours beside the official EdgeTAM: differences and time ratios, in one process and one run.

    make bench-env && .venv-bench/bin/python benchmarks/compare_official.py [--json] [--sam21]

Both sides get the same formula weights and the same frames, fp32, the same number of threads. Every
repetition runs both, one after the other, so that a busy machine slows both; ratios are of medians.
The bank is full (one conditioning frame, six recent ones, sixteen pointers) before a step is timed.
On a machine that others use, `--threads 1 --clock cpu` compares processor time instead.
`--precision bfloat16` measures that mode of ours, `--autocast` lets the official side round too.
`--trained` compares masks once more with trained weights, whose logits mean something.
`--twice` asks how far the official package is from itself when its input moves by one rounding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import official_edgetam  # noqa: E402
from arithmetic import count_macs  # noqa: E402
from formula_weights import formula_frames, formula_state_dict  # noqa: E402

from edgetam_label.checkpoints import load_model  # noqa: E402
from edgetam_label.config import PRECISIONS, ModelConfig  # noqa: E402
from edgetam_label.demo_clip import render_demo_clip  # noqa: E402
from edgetam_label.frames import Frames  # noqa: E402
from edgetam_label.modeling import EdgeTAM  # noqa: E402
from edgetam_label.modeling.fused import fuse  # noqa: E402
from edgetam_label.predictor import ImagePredictor  # noqa: E402
from edgetam_label.preprocess import frame_to_input, logits_to_size  # noqa: E402
from edgetam_label.prompts import Click, Prompt  # noqa: E402
from edgetam_label.tracker import TrackerSettings, VideoTracker  # noqa: E402

Point = tuple[float, float]  # (x, y), pixels
FULL_BANK = 17  # frames after which all pointers and memories are there
CLICKS: list[Point] = [(140, 123), (340, 170), (60, 60), (420, 60), (240, 230)]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def long_clip(count: int) -> np.ndarray:
    """The formula frames forth and back, (count, 270, 480, 3)."""
    frames = formula_frames()
    order = [abs((i + 5) % 10 - 5) for i in range(count)]
    return frames[order]


Work = Callable[[], Any]


def autocast(work: Work) -> Work:
    """`work` in bfloat16 as upstream's README runs it, which is on a GPU."""

    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return work()

    return run


@dataclass(frozen=True)
class Timing:
    """How and how often to measure; `bank`: frames tracked before a step is timed.

    theirs: wraps whatever the official side does.
    """

    clock: Callable[[], float]
    repeats: int
    clicks: int
    bank: int
    theirs: Callable[[Work], Work] = lambda work: work

    def of(self, work: Work) -> float:
        begin = self.clock()
        work()
        return self.clock() - begin

    def interleaved(
        self, sides: dict[str, Callable[[], Any]], repeats: int
    ) -> dict[str, list[float]]:
        for work in sides.values():
            work()
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, work in sides.items():
                times[name].append(self.of(work))
        return times

    def matmul_rate(self) -> float:
        """GFLOP/s of a large matrix product: what this machine's arithmetic can give."""
        a = torch.randn(2048, 2048)
        return 2 * 2048**3 / min(self.of(lambda: a @ a) for _ in range(5)) / 1e9


def build_ours(precision: str) -> EdgeTAM:
    model = EdgeTAM(replace(ModelConfig.load("edgetam"), precision=precision)).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(formula_state_dict(shapes), strict=True)
    return model


def our_steps(model: EdgeTAM, clip: np.ndarray, clicks: Sequence[Point]) -> Iterator:
    """clicks: on frame 0, one for each object."""
    tracker = VideoTracker(model, Frames.open(list(clip)), TrackerSettings(fill_hole_area=0))
    for i, click in enumerate(clicks):
        tracker.add_prompt(Prompt(i + 1, 0, clicks=(Click(*click),)))
    return tracker.propagate()


def official_steps(
    model: Any, clip: np.ndarray, clicks: Sequence[Point], *, nudged: bool = False
) -> Iterator:
    state = official_edgetam.start_video(model, clip, nudged=nudged)
    for i, click in enumerate(clicks):
        model.add_new_points_or_box(state, 0, i + 1, points=[click], labels=[1])
    return model.propagate_in_video(state)


def compare_tracks(
    ours: EdgeTAM, theirs: Any, clip: np.ndarray, clicks: Sequence[Point], timing: Timing
) -> tuple[dict[str, list[float]], float, float]:
    """Seconds per frame on both sides; largest logit difference and share of pixels that differ.

    The differences are those of a single object; with more, only times are taken.
    """
    objects = len(clicks)
    mine = our_steps(ours, clip, clicks)
    official = timing.theirs(official_steps(theirs, clip, clicks).__next__)
    times: dict[str, list[float]] = {"ours": [], "official": []}
    worst, differing, pixels = 0.0, 0, 0
    for frame_idx in range(len(clip)):
        begin = timing.clock()
        tracked = [next(mine) for _ in range(objects)]
        middle = timing.clock()
        _, _, logits = official()
        end = timing.clock()
        if frame_idx >= timing.bank:
            times["ours"].append(middle - begin)
            times["official"].append(end - middle)
        if objects == 1:
            mask = logits[:, 0].float().numpy() > 0
            differing += int((np.stack([t.mask for t in tracked]) != mask).sum())
            pixels += mask.size
            own = logits_to_size(tracked[0].low_res_logits, *clip.shape[1:3])
            if tracked[0].score > 0:
                worst = max(worst, float((own - logits.float()).abs().max()))
    return times, worst, differing / max(1, pixels)


def official_beside_itself(theirs: Any, timing: Timing) -> dict[str, float]:
    """What one rounding of the input changes: no other implementation can be nearer than that."""
    clip = long_clip(timing.bank + timing.repeats)
    sides = [official_steps(theirs, clip, CLICKS[:1], nudged=nudged) for nudged in (False, True)]
    worst, differing, pixels = 0.0, 0, 0
    for (_, _, plain), (_, _, nudged) in zip(*sides, strict=True):
        worst = max(worst, float((plain - nudged).abs().max()))
        differing += int(((plain > 0) != (nudged > 0)).sum())
        pixels += plain.numel()
    return {"max_abs_diff": worst, "pixels_differing": differing / pixels}


def compare_trained(timing: Timing) -> dict[str, float]:
    """edgetam_nano's weights in the official code: what differs where logits mean something.

    Without what this project adds to the answers. Over the whole demo clip, from one click each.
    """
    taught = load_model("edgetam_nano", device="cpu")
    added = {field.name: False for field in fields(ModelConfig) if field.default is False}
    ours = EdgeTAM(replace(taught.config, **added)).eval()
    weights = taught.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()}, strict=True)
    theirs = official_edgetam.build(ours.state_dict(), ours.config)
    with tempfile.TemporaryDirectory() as folder:
        rendered = render_demo_clip(Path(folder) / "clip.mp4")
        with Frames.open(rendered.path) as frames:
            clip = np.stack([frames[i] for i in range(len(frames))])
    tracks = [compare_tracks(ours, theirs, clip, [t.click], timing) for t in rendered.objects]
    return {
        "max_abs_diff": max(worst for _, worst, _ in tracks),
        "pixels_differing": statistics.mean(share for _, _, share in tracks),
    }


def compare_clicks(ours: EdgeTAM, theirs: Any, timing: Timing) -> dict[str, list[float]]:
    image = formula_frames()[0]
    predictor = ImagePredictor(ours)
    embedding = predictor.embed(image)
    official = official_edgetam.image_predictor(theirs)
    official.set_image(image)
    point, label = np.array([[150, 120]]), np.array([1])
    prompt = Prompt(1, clicks=(Click(150, 120),))
    return timing.interleaved(
        {
            "ours": lambda: predictor.predict(embedding, prompt, multimask=True),
            "official": timing.theirs(
                lambda: official.predict(point, label, multimask_output=True)
            ),
        },
        timing.clicks,
    )


def measure_parts(ours: EdgeTAM, timing: Timing) -> dict[str, dict[str, float]]:
    """Each part of a frame with a full bank: seconds, multiply-adds, share of a product's rate."""
    model, config = fuse(ours), ours.config
    image = frame_to_input(formula_frames()[0], config.image_size, ours.device)
    features = model.encode_image(image)
    shape = (1, config.num_latents + config.num_latents_2d, config.memory_dim)
    maps = [(torch.randn(shape), i) for i in reversed(range(config.num_maskmem))]
    pointers = [torch.randn(1, config.d_model) for _ in range(config.max_object_pointers)]
    started = model.start_attention(features.top)
    memory = model.assemble_memory(maps, pointers)
    top = model.attend_memory(started, memory)
    logits = torch.randn(1, 1, config.low_res_size, config.low_res_size)
    parts: dict[str, Callable[[], Any]] = {
        "image encoder": lambda: model.encode_image(image),
        "first self-attention": lambda: model.start_attention(features.top),
        "memory attention": lambda: model.attend_memory(started, memory),
        "mask decoder": lambda: model.decode_masks(top, features.high_res, multimask=True),
        "memory encoder": lambda: model.encode_memory(features.top, logits, binarize=False),
    }
    table = {}
    for name, work in parts.items():
        macs = count_macs(work)
        # beside a matrix product each: a machine's clock is not the same from minute to minute
        rate = timing.matmul_rate()
        seconds = statistics.median(timing.of(work) for _ in range(max(3, timing.repeats)))
        reached = 2 * macs / seconds / 1e9
        table[name] = {
            "seconds": seconds,
            "gmac": macs / 1e9,
            "gflops": reached,
            "of_matmul": reached / rate,
        }
    return table


@dataclass(frozen=True)
class Besides:
    """What else to compare, as the command line asks for it."""

    sam21: bool
    float32_memories: bool
    twice: bool
    trained: bool


@torch.inference_mode()
def compare(timing: Timing, objects: list[int], precision: str, besides: Besides) -> dict[str, Any]:
    ours = build_ours(precision)
    theirs = official_edgetam.build(ours.state_dict())
    image = frame_to_input(formula_frames()[0], 1024, torch.device("cpu"))
    fused = ImagePredictor(ours).model
    times = {
        "encode": timing.interleaved(
            {
                "ours": lambda: fused.encode_image(image),
                "official": timing.theirs(lambda: theirs.forward_image(image)),
            },
            timing.repeats,
        ),
        "click": compare_clicks(ours, theirs, timing),
    }
    result: dict[str, Any] = {"ratios": {}, "max_abs_diff": 0.0, "pixels_differing": 0.0}
    clip = long_clip(timing.bank + timing.repeats)
    for count in objects:
        name = f"frame_{count}_object" + ("s" if count > 1 else "")
        times[name], logits, share = compare_tracks(ours, theirs, clip, CLICKS[:count], timing)
        result["max_abs_diff"] = max(result["max_abs_diff"], logits)
        result["pixels_differing"] = max(result["pixels_differing"], share)
    medians = {
        name: {side: statistics.median(values) for side, values in sides.items()}
        for name, sides in times.items()
    }
    result["ratios"] = {name: m["official"] / m["ours"] for name, m in medians.items()}
    result["seconds"] = medians
    result["spread"] = {
        name: float(np.quantile(sides["ours"], 0.99 if "frame" in name else 0.95))
        / medians[name]["ours"]
        for name, sides in times.items()
    }
    result["parts"] = measure_parts(ours, timing)
    result["matmul_gflops"] = timing.matmul_rate()
    result["threads"], result["torch"] = torch.get_num_threads(), torch.__version__
    result["precision"] = precision
    if besides.float32_memories:
        exact = EdgeTAM(replace(ours.config, memory_dtype="float32")).eval()
        exact.load_state_dict(ours.state_dict())
        with official_edgetam.float32_memories():
            _, logits, share = compare_tracks(exact, theirs, clip, CLICKS[:1], timing)
        result["float32_memories"] = {"max_abs_diff": logits, "pixels_differing": share}
    if besides.twice:
        result["official_twice"] = official_beside_itself(theirs, timing)
    if besides.trained:
        result["trained_weights"] = compare_trained(timing)
    if besides.sam21:
        base_plus = official_edgetam.build_sam21_base_plus()
        steps = official_steps(base_plus, long_clip(timing.bank + 3), CLICKS[:1])
        seconds = [timing.of(lambda: next(steps)) for _ in range(timing.bank + 3)][timing.bank :]
        result["seconds"]["sam21_base_plus"] = statistics.median(seconds)
        if "frame_1_object" in medians:
            result["ratios"]["sam21_base_plus"] = (
                result["seconds"]["sam21_base_plus"] / medians["frame_1_object"]["ours"]
            )
    return result


def show(result: dict[str, Any]) -> None:
    print(f"{'':20}{'ours':>10}{'official':>10}{'ratio':>8}")
    for name, ratio in result["ratios"].items():
        row = result["seconds"][name]
        if isinstance(row, dict):
            ours, theirs = row["ours"] * 1000, row["official"] * 1000
            print(f"{name:20}{ours:8.0f}ms{theirs:8.0f}ms{ratio:7.2f}x")
        else:
            print(f"{name:20}{'':10}{row * 1000:8.0f}ms{ratio:7.2f}x")
    print(f"largest logit difference {result['max_abs_diff']:.1e}")
    print(f"pixels that differ       {100 * result['pixels_differing']:.4f} %")
    if "float32_memories" in result:
        exact = result["float32_memories"]
        print(
            f"with memories kept in float32: {exact['max_abs_diff']:.1e}, "
            f"{100 * exact['pixels_differing']:.4f} %"
        )
    if "official_twice" in result:
        twice = result["official_twice"]
        print(
            f"official beside itself, input moved by one rounding: {twice['max_abs_diff']:.1e}, "
            f"{100 * twice['pixels_differing']:.4f} %"
        )
    if "trained_weights" in result:
        trained = result["trained_weights"]
        print(
            f"trained weights (edgetam_nano's): {trained['max_abs_diff']:.1e}, "
            f"{100 * trained['pixels_differing']:.4f} %"
        )
    for name, spread in result["spread"].items():
        print(f"{name:20} {'p99' if 'frame' in name else 'p95'} / median {spread:.2f}")
    print(f"matrix products          {result['matmul_gflops']:.0f} GFLOP/s on this machine")
    for name, part in result["parts"].items():
        print(
            f"  {name:22}{part['seconds'] * 1000:7.0f} ms {part['gmac']:6.2f} GMAC"
            f"{part['gflops']:6.0f} GFLOP/s, {100 * part['of_matmul']:.0f} % of a matrix product"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--objects", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--bank", type=int, default=FULL_BANK, help="frames before timing starts")
    parser.add_argument("--sam21", action="store_true", help="also time SAM 2.1 base+")
    parser.add_argument(
        "--float32-memories", action="store_true", help="also compare without bfloat16 memories"
    )
    parser.add_argument(
        "--twice", action="store_true", help="also the official package beside itself"
    )
    parser.add_argument(
        "--trained", action="store_true", help="also with the trained weights of edgetam_nano"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of ours")
    parser.add_argument(
        "--autocast", action="store_true", help="the official side in bfloat16 where it can"
    )
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    official_edgetam.prepare()
    timing = Timing(CLOCKS[options.clock], options.repeats, options.clicks, options.bank)
    if options.autocast:
        timing = replace(timing, theirs=autocast)
    besides = Besides(options.sam21, options.float32_memories, options.twice, options.trained)
    result = compare(timing, options.objects, options.precision, besides)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)


if __name__ == "__main__":
    main()
