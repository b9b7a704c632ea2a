"""`edgetam-label evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetam_label.errors import UsageError
from edgetam_label.options import json_option, model_options, print_json, progress_bar

if TYPE_CHECKING:
    from edgetam_label.evaluation.scoring import EvaluationResult


@click.command()
@click.argument("dataset")
@click.option(
    "--protocol",
    type=click.Choice(["vos", "pvs", "clicks"]),
    default="vos",
    show_default=True,
    help="vos: first masks carried on. pvs: simulated clicks, offline and online. clicks: mIoU of "
    "1 to 5 clicks and of a box on single images.",
)
@click.option(
    "--baseline",
    type=click.Choice(["flow", "grabcut"]),
    help="Measure optical flow (vos) or GrabCut (clicks) in place of a model.",
)
@click.option("--split", help="Which split of the dataset; by default all of it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the predictions of vos as indexed PNGs.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Score PNGs made elsewhere, PREDICTIONS/<video>/<frame>.png; nothing is segmented.",
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="clicks: measure every STRIDE-th annotated frame, not only the first of each video.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first LIMIT videos.")
@model_options
@json_option
def evaluate(
    dataset: str,
    protocol: str,
    baseline: str | None,
    split: str | None,
    out: Path | None,
    predictions: Path | None,
    stride: int | None,
    limit: int | None,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    precision: str | None,
    as_json: bool,
) -> None:
    """Measure a model on DATASET: a DAVIS, YouTube-VOS or COCO folder, or `synthetic`.

    \b
    Examples:
      edgetam-label evaluate DAVIS --split val --protocol vos --json
      edgetam-label evaluate DAVIS --split val --protocol vos --baseline flow
      edgetam-label evaluate synthetic --protocol clicks
    """
    from edgetam_label.evaluation.datasets import open_dataset
    from edgetam_label.evaluation.run import check_subject, run_evaluation
    from edgetam_label.evaluation.scoring import score_folder

    if predictions is not None and (protocol != "vos" or baseline is not None or out is not None):
        raise UsageError(
            f"--predictions {predictions} are scored as they are, after protocol vos; leave out "
            "--baseline, --out and any other --protocol."
        )
    if out is not None and protocol != "vos":
        raise UsageError(f"--out keeps the masks of protocol vos; {protocol} writes none. Omit it.")
    check_subject(protocol, baseline)
    videos = open_dataset(dataset, split=split, limit=limit)
    if predictions is not None:
        result = score_folder(videos, predictions, str(predictions))
    else:
        network = None
        if baseline is None:
            from edgetam_label.checkpoints import load_model
            from edgetam_label.settings import Settings

            settings = Settings.load(
                model=model, checkpoint=checkpoint, device=device, precision=precision
            )
            network = load_model(**settings.model_arguments())
        with progress_bar(protocol, "video") as progress:
            result = run_evaluation(
                videos,
                protocol,
                model=network,
                baseline=baseline,
                out=out,
                stride=stride,
                progress=progress,
            )
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _print(result: EvaluationResult) -> None:
    """A table for people; percentages with one decimal."""
    click.echo(f"{result.protocol} · {result.subject} · {result.num_objects} objects")
    if result.sequences:
        width = max(8, *(len(s.name) for s in result.sequences))
        click.echo(f"{'sequence':<{width}}  {'J&F':>5}  {'J':>5}  {'F':>5}")
        for s in result.sequences:
            click.echo(
                f"{s.name:<{width}}  {50 * (s.j + s.f):5.1f}  {100 * s.j:5.1f}  {100 * s.f:5.1f}"
            )
        click.echo(
            f"{'all':<{width}}  {100 * result.j_and_f:5.1f}  {100 * result.j:5.1f}  "
            f"{100 * result.f:5.1f}"
        )
    for name, value in result.mean_iou.items():
        click.echo(f"mIoU, {name:<9} {100 * value:5.1f}")
    for name, curve in result.curves.items():
        click.echo(
            f"J&F, {name}, after 1..{len(curve)} clicked frames: "
            + "  ".join(f"{100 * v:.1f}" for v in curve)
        )
    if result.seconds:
        click.echo(f"{result.frames} frames in {result.seconds:.1f} s")
