"""What fine-tuning gains on a domain that the base has never seen: before, after, seconds.

The domain: living cells under a microscope, drawn here: a membrane, a nucleus, and inside much the
same grain as outside, which is not what an object looks like in training. They drift, deform and
touch. The clips are written as a YouTube-VOS folder, as a user's export would be; a fifth of them
is kept out of the fine-tuning, and only they are measured.

    .venv/bin/python benchmarks/finetune_gain.py [--part all] [--videos 40] [--steps 300]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from edgetam_label.evaluation.video_protocols import write_palette_png
from edgetam_label.training.finetune import FineTuned, FineTuning, finetune

SIZE = (256, 384)
FRAMES = 8


def grain(rng: np.random.Generator, scale: int) -> NDArray[np.float32]:
    """Smooth noise of deviation 1, (H, W)."""
    height, width = SIZE
    coarse = rng.normal(size=(height // scale + 2, width // scale + 2)).astype(np.float32)
    return np.asarray(
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32
    )


def cells(seed: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Frames (H, W, 3) and maps of cell numbers (H, W) of one clip."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    ground = 120 + 10 * grain(rng, 48) + 5 * grain(rng, 6)
    count = int(rng.integers(4, 8))
    centres = rng.uniform((40, 40), (width - 40, height - 40), (count, 2))
    drift = rng.normal(0, 2.0, (count, 2))
    radii = rng.uniform(18, 42, count)
    waves = rng.uniform(0.0, 0.12, (count, 3))
    phases = rng.uniform(0, 2 * np.pi, (count, 3))
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    frames, maps = [], []
    for t in range(FRAMES):
        image, ids = ground.copy(), np.zeros(SIZE, np.uint8)
        for k in range(count):
            bumps = [
                waves[k, j] * np.sin((j + 2) * angles + phases[k, j] + 0.2 * t) for j in range(3)
            ]
            radius = radii[k] * (1 + sum(bumps))
            outline = centres[k] + drift[k] * t
            outline = outline + np.stack((np.cos(angles), np.sin(angles)), 1) * radius[:, None]
            points = np.round(outline).astype(np.int32)[:, None]
            inside = np.zeros(SIZE, np.uint8)
            cv2.fillPoly(inside, [points], 1)
            ids[inside > 0] = k + 1
            image[inside > 0] += 6
            cv2.polylines(image, [points], True, 70.0, 2, cv2.LINE_AA)
            nucleus = np.round(centres[k] + drift[k] * t + radii[k] * 0.2).astype(int)
            cv2.circle(image, tuple(map(int, nucleus)), int(radii[k] * 0.22), 90.0, -1, cv2.LINE_AA)
        noisy = cv2.GaussianBlur(image, (0, 0), 0.8) + rng.normal(0, 4, SIZE)
        frames.append(np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
        maps.append(ids)
    return frames, maps


def write_videos(root: Path, count: int) -> None:
    """`count` clips in YouTube-VOS layout."""
    for v in tqdm(range(count), desc="drawing", unit="video"):
        for t, (frame, ids) in enumerate(zip(*cells(v), strict=True)):
            image = root / f"train/JPEGImages/{v:03d}/{t:05d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(image, quality=92)
            masks = {int(k): ids == k for k in np.unique(ids) if k > 0}
            write_palette_png(root / f"train/Annotations/{v:03d}/{t:05d}.png", masks, SIZE)


def measure(arguments: argparse.Namespace) -> FineTuned:
    """Fine-tune in a temporary folder."""
    options = FineTuning(
        part=arguments.part, steps=arguments.steps, rate=arguments.rate, patience=6, check_every=50
    )
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder) / "export", arguments.videos)
        return finetune(
            Path(folder) / "export", arguments.base, Path(folder) / "tuned.pt", options,
            device=arguments.device,
            report=lambda step, m: print(f"step {step}: " + show(m), flush=True),
        )  # fmt: skip


def show(metrics: dict[str, float]) -> str:
    """Percent, one column per metric."""
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--base", default="edgetam_nano")
    parser.add_argument("--part", default="all", choices=("decoder", "memory", "all"))
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    result = measure(arguments)
    if arguments.json:
        print(json.dumps(result.to_json()))
        return
    print(f"{result.train_videos} videos trained on, {result.held_out_videos} measured")
    print("before:", show(result.before))
    print("after: ", show(result.after))
    print(f"kept step {result.kept_step} of {result.steps}, {result.seconds:.0f} s")


if __name__ == "__main__":
    main()
