"""Ours beside the official EdgeTAM: differences and time ratios, in one process and one run.

    make bench-env && .venv-bench/bin/python benchmarks/compare_official.py [--json] [--sam21]

Both sides get the same formula weights and the same frames, fp32, the same number of threads. Every
repetition runs both, one after the other, so that a busy machine slows both; ratios are of medians.
The bank is full (one conditioning frame, six recent ones, sixteen pointers) before a step is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import official_edgetam  # noqa: E402
from formula_weights import formula_frames, formula_state_dict  # noqa: E402

from edgetam_label.config import ModelConfig  # noqa: E402
from edgetam_label.frames import Frames  # noqa: E402
from edgetam_label.modeling import EdgeTAM  # noqa: E402
from edgetam_label.predictor import ImagePredictor  # noqa: E402
from edgetam_label.preprocess import frame_to_input, logits_to_size  # noqa: E402
from edgetam_label.prompts import Click, Prompt  # noqa: E402
from edgetam_label.tracker import TrackerSettings, VideoTracker  # noqa: E402

FULL_BANK = 17  # frames after which all pointers and memories are there
CLICKS = [(140, 123), (340, 170), (60, 60), (420, 60), (240, 230)]
GMAC = {"encode": 19.4, "frame_1_object": 19.4 + 44.5 + 6.3 + 1.8}  # of the official arithmetic


def long_clip(count: int) -> np.ndarray:
    """The formula frames forth and back, (count, 270, 480, 3)."""
    frames = formula_frames()
    order = [abs((i + 5) % 10 - 5) for i in range(count)]
    return frames[order]


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def interleaved(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    for work in sides.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            times[name].append(timed(work))
    return times


def matmul_rate() -> float:
    """GFLOP/s of a large matrix product: what this machine's arithmetic can give."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / min(timed(lambda: a @ a) for _ in range(5)) / 1e9


def build_ours() -> EdgeTAM:
    model = EdgeTAM(ModelConfig.load("edgetam")).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(formula_state_dict(shapes), strict=True)
    return model


def our_steps(model: EdgeTAM, clip: np.ndarray, objects: int) -> tuple[VideoTracker, Iterator]:
    tracker = VideoTracker(model, Frames.open(list(clip)), TrackerSettings(fill_hole_area=0))
    for i in range(objects):
        tracker.add_prompt(Prompt(i + 1, 0, clicks=(Click(*CLICKS[i]),)))
    return tracker, tracker.propagate()


def official_steps(model: Any, clip: np.ndarray, objects: int) -> Iterator:
    state = official_edgetam.start_video(model, clip)
    for i in range(objects):
        model.add_new_points_or_box(state, 0, i + 1, points=[CLICKS[i]], labels=[1])
    return model.propagate_in_video(state)


def compare_tracks(
    ours: EdgeTAM, theirs: Any, objects: int, repeats: int
) -> tuple[dict[str, list[float]], float, float]:
    """Seconds per frame on both sides; largest logit difference and share of pixels that differ."""
    clip = long_clip(FULL_BANK + repeats)
    _, mine = our_steps(ours, clip, objects)
    official = official_steps(theirs, clip, objects)
    times: dict[str, list[float]] = {"ours": [], "official": []}
    worst, differing, pixels = 0.0, 0, 0
    for frame_idx in range(len(clip)):
        begin = time.perf_counter()
        tracked = [next(mine) for _ in range(objects)]
        middle = time.perf_counter()
        _, _, logits = next(official)
        end = time.perf_counter()
        if frame_idx >= FULL_BANK:
            times["ours"].append(middle - begin)
            times["official"].append(end - middle)
        if objects == 1:
            mask = logits[:, 0].numpy() > 0
            differing += int((np.stack([t.mask for t in tracked]) != mask).sum())
            pixels += mask.size
            own = logits_to_size(tracked[0].low_res_logits, *clip.shape[1:3])
            if tracked[0].score > 0:
                worst = max(worst, float((own - logits).abs().max()))
    return times, worst, differing / max(1, pixels)


def compare_clicks(ours: EdgeTAM, theirs: Any, repeats: int) -> dict[str, list[float]]:
    image = formula_frames()[0]
    predictor = ImagePredictor(ours)
    embedding = predictor.embed(image)
    official = official_edgetam.image_predictor(theirs)
    official.set_image(image)
    point, label = np.array([[150, 120]]), np.array([1])
    prompt = Prompt(1, clicks=(Click(150, 120),))
    return interleaved(
        {
            "ours": lambda: predictor.predict(embedding, prompt, multimask=True),
            "official": lambda: official.predict(point, label, multimask_output=True),
        },
        repeats,
    )


@torch.inference_mode()
def compare(repeats: int, clicks: int, objects: list[int], sam21: bool) -> dict[str, Any]:
    ours = build_ours()
    theirs = official_edgetam.build(ours.state_dict())
    image = frame_to_input(formula_frames()[0], 1024, torch.device("cpu"))
    fused = ImagePredictor(ours).model
    times = {
        "encode": interleaved(
            {
                "ours": lambda: fused.encode_image(image),
                "official": lambda: theirs.forward_image(image),
            },
            repeats,
        ),
        "click": compare_clicks(ours, theirs, clicks),
    }
    worst = differing = 0.0
    for count in objects:
        name = f"frame_{count}_object" + ("s" if count > 1 else "")
        times[name], logits, share = compare_tracks(ours, theirs, count, repeats)
        worst, differing = max(worst, logits), max(differing, share)
    medians = {
        name: {side: statistics.median(values) for side, values in sides.items()}
        for name, sides in times.items()
    }
    result: dict[str, Any] = {
        "ratios": {name: m["official"] / m["ours"] for name, m in medians.items()},
        "max_abs_diff": worst,
        "pixels_differing": differing,
        "seconds": medians,
        "click_p95_over_median": float(np.quantile(times["click"]["ours"], 0.95))
        / medians["click"]["ours"],
        "matmul_gflops": matmul_rate(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for name, gmac in GMAC.items():
        if name in medians:
            result.setdefault("gflops", {})[name] = 2 * gmac / medians[name]["ours"]
    if sam21:
        base_plus = official_edgetam.build_sam21_base_plus()
        steps = official_steps(base_plus, long_clip(FULL_BANK + 3), 1)
        seconds = [timed(lambda: next(steps)) for _ in range(FULL_BANK + 3)][FULL_BANK:]
        result["seconds"]["sam21_base_plus"] = statistics.median(seconds)
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
    print(f"matrix products          {result['matmul_gflops']:.0f} GFLOP/s on this machine")
    for name, rate in result.get("gflops", {}).items():
        print(f"  {name:22} {rate:.0f} GFLOP/s of the official arithmetic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--objects", type=int, nargs="*", default=[1, 5])
    parser.add_argument("--sam21", action="store_true", help="also time SAM 2.1 base+")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    official_edgetam.prepare()
    result = compare(options.repeats, options.clicks, options.objects, options.sam21)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)


if __name__ == "__main__":
    main()
