"""`edgetam-label demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetam_label.known_checkpoints import CHECKPOINTS, checkpoint_path
from edgetam_label.options import json_option, model_options, print_json, progress_bar
from edgetam_label.settings import Settings

if TYPE_CHECKING:
    from edgetam_label.demo import DemoReport

MEANING = {
    "clip": "the rendered video",
    "overlay": "the video with masks, ids and labels",
    "sheet": "some of its frames in one picture",
    "database": "the session: prompts and masks",
    "coco": "the dataset as COCO",
    "ytvos": "the dataset as YouTube-VOS",
}


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for all that it makes.",
)
@click.option("--frames", type=click.IntRange(2), default=48, show_default=True, metavar="N")
@model_options
@json_option
def demo(
    out: Path,
    frames: int,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Render a clip with known truth, track two objects, store, draw, export, measure.

    \b
    Example:
      edgetam-label demo --out demo-output
    """
    settings = Settings.load(model=model, checkpoint=checkpoint, device=device, precision=precision)
    from edgetam_label.checkpoints import AUTO, RANDOM, load_model
    from edgetam_label.demo import run_demo

    checkpoint = settings.checkpoint
    if settings.model == AUTO and checkpoint is None and not _has_weights(settings):
        checkpoint = RANDOM  # the path can still be shown; load_model says that masks mean nothing
    network = load_model(**(settings.model_arguments() | {"checkpoint": checkpoint}))
    with progress_bar("Tracking", "frame") as progress:
        report = run_demo(
            out,
            network,
            num_frames=frames,
            tell=lambda text: click.echo(f"{text} ...", err=True),
            progress=progress,
        )
    if as_json:
        print_json(_to_json(report))
    else:
        _print(report)


def _has_weights(settings: Settings) -> bool:
    return any(checkpoint_path(name, settings.checkpoint_dir).is_file() for name in CHECKPOINTS)


def _to_json(report: DemoReport) -> dict[str, object]:
    return {
        "session": report.session_id,
        "model": report.model,
        "frames": report.frames,
        "seconds": round(report.seconds, 3),
        "mean_iou": report.mean_iou,
        "iou": {score.label: score.iou for score in report.scores},
        "files": {name: str(path) for name, path in report.files.items()},
    }


def _print(report: DemoReport) -> None:
    speed = report.frames / report.seconds
    click.echo(
        f"\nTracked with {report.model}: {report.frames} frames in {report.seconds:.1f} s "
        f"({speed:.1f} frames/s, {len(report.scores)} objects)"
    )
    for score in report.scores:
        click.echo(
            f"  {score.label:<6} IoU with the truth {score.iou:.3f} on average, "
            f"{score.worst:.3f} at worst (frame {score.worst_frame})"
        )
    click.echo(f"  mean   {report.mean_iou:.3f}\n")
    for name, path in report.files.items():
        click.echo(f"  {str(path):<28} {MEANING[name]}")
    database = report.files["database"]
    click.echo(
        f"\nLook at it again: edgetam-label sessions show {report.session_id} --db {database}"
    )
