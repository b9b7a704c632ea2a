"""What fine-tuning gains on a domain that the base has never seen: before, after, seconds.

The domain: rendered clips whose textures, photographs and outlines are kept out of all training
(`texture_family="heldout"`), written as a YouTube-VOS folder as a user's export would be. A fifth
of the videos is kept out of the fine-tuning too, and only they are measured.

    .venv/bin/python benchmarks/finetune_gain.py [--part all] [--videos 60] [--steps 300]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from edgetam_label.evaluation.video_protocols import write_palette_png
from edgetam_label.training.finetune import FineTuned, FineTuning, finetune
from edgetam_label.training.synthetic import SyntheticClips

SEED = 770_001  # used by nothing else
SIZE = (256, 384)
FRAMES = 8


def write_videos(root: Path, count: int) -> None:
    """`count` clips of the held-out family in YouTube-VOS layout."""
    clips = SyntheticClips(SEED, SIZE, FRAMES, texture_family="heldout")
    for v in tqdm(range(count), desc="rendering", unit="video"):
        clip = clips[v]
        for t in range(FRAMES):
            image = root / f"train/JPEGImages/{v:03d}/{t:05d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(clip.frames[t]).save(image, quality=92)
            masks = {k: clip.mask(k, t) for k in range(1, clip.num_objects + 1)}
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
    parser.add_argument("--videos", type=int, default=60)
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
