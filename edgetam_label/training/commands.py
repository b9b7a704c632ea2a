"""`edgetam-label train`, `train-rater`, `train-fuser` and `finetune`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetam_label.options import F, json_option, print_json, progress_bar

if TYPE_CHECKING:
    from edgetam_label.training.finetune import FineTuned


def _folders(name: str, help: str) -> Callable[[F], F]:
    """An option that may be repeated, for folders that exist."""
    folder = click.Path(path_type=Path, exists=True, file_okay=False)
    return click.option(name, multiple=True, type=folder, help=help)


def _scene_options(command: F) -> F:
    """--cutouts and --backgrounds: what synthetic scenes are made of."""
    cutouts = _folders(
        "--cutouts",
        "Folder of PNG pictures with a transparent background, from which things in the synthetic "
        "scenes are made; may be repeated.",
    )
    backgrounds = _folders(
        "--backgrounds",
        "Folder of photographs or .hdr panoramas in which half of the synthetic scenes play; may "
        "be repeated.",
    )
    return cutouts(backgrounds(command))


@click.command()
@click.option("--config", default="edgetam_nano", show_default=True, help="Model config.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/nano"),
    show_default=True,
    help="Folder for resume.pt, model.pt, log.csv and pictures of predictions.",
)
@_folders(
    "--data",
    "DAVIS, YouTube-VOS or COCO folder to mix with the synthetic clips; may be repeated.",
)
@_scene_options
@click.option(
    "--init",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Start from the weights of this checkpoint, for example the shipped one.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Go on with an interrupted run from its resume.pt.",
)
@click.option("--still-minutes", type=float, default=50.0, show_default=True)
@click.option("--clip-minutes", type=float, default=40.0, show_default=True)
@click.option("--still-steps", type=int, help="In place of --still-minutes; repeatable by seed.")
@click.option("--clip-steps", type=int, help="In place of --clip-minutes; repeatable by seed.")
@click.option(
    "--stage",
    "stage_texts",
    multiple=True,
    metavar="KIND,NAME=VALUE,...",
    help="One stage of your own, in place of the four standard ones; repeat it for more. KIND is "
    "stills or clips; names: steps or minutes, batch, objects, rate, trunk, final, warmup, frames, "
    "still_share, shrink, part_share, lead.",
)
@click.option("--rate", type=float, default=4e-4, show_default=True, help="Peak learning rate.")
@click.option("--batch", type=int, default=4, show_default=True, help="Images per process.")
@click.option("--clips", type=int, default=1, show_default=True, help="Clips per process.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that share a step; by default one per core on a CPU, else one.",
)
@click.option("--workers", type=int, default=1, show_default=True, help="Loaders per process.")
@click.option(
    "--held-out",
    type=click.IntRange(min=0),
    default=48,
    show_default=True,
    help="Unseen synthetic scenes measured after each stage and every ten minutes; 0: none.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def train(
    config: str,
    out: Path,
    data: tuple[Path, ...],
    cutouts: tuple[Path, ...],
    backgrounds: tuple[Path, ...],
    init: Path | None,
    resume: Path | None,
    still_minutes: float,
    clip_minutes: float,
    still_steps: int | None,
    clip_steps: int | None,
    stage_texts: tuple[str, ...],
    rate: float,
    batch: int,
    clips: int,
    seed: int,
    processes: int | None,
    workers: int,
    held_out: int,
    device: str,
) -> None:
    """Train a model: stills teach prompting, then clips teach memory.

    Stops cleanly on Ctrl-C or SIGTERM; --resume goes on from there.

    \b
    Examples:
      edgetam-label train --out runs/nano
      edgetam-label train --out runs/nano --resume runs/nano/resume.pt
      edgetam-label train --out runs/more --init checkpoints/edgetam_nano.pt --data my_export
      edgetam-label train --stage stills,minutes=30,batch=4 --stage clips,minutes=30,frames=4-8
    """
    from edgetam_label.checkpoints import resolve_device
    from edgetam_label.training.plan import TrainingPlan, parse_stage, standard_stages
    from edgetam_label.training.start import TrainingRun

    where = resolve_device(device)
    stages = tuple(parse_stage(text) for text in stage_texts) or standard_stages(
        minutes=(still_minutes, clip_minutes),
        steps=(still_steps, clip_steps),
        rate=rate,
        batch=batch,
        clips=clips,
    )
    TrainingRun(
        config,
        TrainingPlan(stages, seed=seed),
        out,
        data=data,
        cutouts=cutouts,
        backgrounds=backgrounds,
        init=init,
        resume=resume,
        device=where.type,
        workers=workers,
        held_out=held_out,
        processes=processes or (_cores() if where.type == "cpu" else 1),
    ).start()
    click.echo(f"Weights: {out / 'model.pt'}. Go on with --resume {out / 'resume.pt'}.")


def _teaching_options(part: str, scenes: int, held_out: int) -> Callable[[F], F]:
    """What a command that teaches one part of a model on synthetic scenes may be told."""
    out = click.Path(path_type=Path, dir_okay=False)
    options = [
        click.option("--base", required=True, metavar="CHECKPOINT", help="File or known name."),
        click.option(
            "--out",
            required=True,
            type=out,
            help=f"The new checkpoint: the base with another {part}; never the base.",
        ),
        _scene_options,
        click.option("--scenes", type=click.IntRange(min=4), default=scenes, show_default=True),
        click.option(
            "--held-out",
            type=click.IntRange(min=4),
            default=held_out,
            show_default=True,
            help="Scenes of other textures by which it is measured.",
        ),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option(
            "--processes",
            type=click.IntRange(min=1),
            help="One per core by default; what they answer is equal.",
        ),
        json_option,
    ]

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command("train-rater")
@_teaching_options("rater", scenes=6000, held_out=400)
def train_rater(
    base: str,
    out: Path,
    cutouts: tuple[Path, ...],
    backgrounds: tuple[Path, ...],
    scenes: int,
    held_out: int,
    seed: int,
    processes: int | None,
    as_json: bool,
) -> None:
    """Teach a model which of the three candidates of a click is meant.

    The base answers a click on every thing of many synthetic stills, half of the clicks in the
    middle; its rater learns from that how good candidates are that look so. All other weights stay
    as they are. For models whose config says mask_rating.

    \b
    Example:
      edgetam-label train-rater --base runs/nano/model.pt --out nano.pt --cutouts cutouts
    """
    from edgetam_label.training.rating import train_rater as run

    with progress_bar("Answering", "scene") as progress:
        result = run(
            base,
            out,
            cutouts=cutouts,
            backgrounds=backgrounds,
            scenes=scenes,
            held_out=held_out,
            seed=seed,
            processes=processes or _cores(),
            progress=progress,
        )
    if as_json:
        print_json(result.to_json())
        return
    click.echo(f"{'held out, mIoU of one click':<28} {'before':>7} {'after':>7} {'best of 3':>10}")
    for key, title in (("middle", "in the middle of a thing"), ("anywhere", "anywhere on it")):
        before, after, best = (100 * m[key] for m in (result.before, result.after, result.best))
        click.echo(f"{title:<28} {before:7.1f} {after:7.1f} {best:10.1f}")
    click.echo(f"Learned from {result.clicks} clicks. Wrote {result.checkpoint}.")


@click.command("train-fuser")
@_teaching_options("fuser", scenes=400, held_out=40)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=2400,
    show_default=True,
    help="Of learning, 16 pictures each.",
)
def train_fuser(
    base: str,
    out: Path,
    cutouts: tuple[Path, ...],
    backgrounds: tuple[Path, ...],
    scenes: int,
    held_out: int,
    seed: int,
    processes: int | None,
    steps: int,
    as_json: bool,
) -> None:
    """Teach a model how to fuse a tracked mask with the one before.

    The base tracks the things of synthetic clips; its fuser learns to make the true mask of what
    the network answered, of the mask before as the optical flow moves it, and of the picture. A
    base whose fuser has been taught goes on from there. All other weights stay as they are. For
    models whose config says learned_fusion.

    \b
    Example:
      edgetam-label train-fuser --base runs/nano/model.pt --out nano.pt --cutouts cutouts
    """
    from edgetam_label.training.fusing import train_fuser as run

    with progress_bar("Tracking", "clip") as progress, progress_bar("Learning", "step") as learning:
        result = run(
            base,
            out,
            cutouts=cutouts,
            backgrounds=backgrounds,
            scenes=scenes,
            held_out=held_out,
            steps=steps,
            seed=seed,
            processes=processes or _cores(),
            progress=progress,
            step_progress=learning,
        )
    if as_json:
        print_json(result.to_json())
        return
    click.echo("Held out, mIoU of tracked frames:")
    for title, iou in (
        ("the network's answer alone", result.answer),
        ("the mask before, moved along the flow", result.moved),
        ("fused by the base", result.before),
        ("fused as learned", result.after),
    ):
        click.echo(f"  {title:<40} {100 * iou:5.1f}")
    click.echo(f"Learned from {result.samples} masks. Wrote {result.checkpoint}.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="DAVIS, YouTube-VOS or COCO folder, such as an export of this tool.",
)
@click.option("--base", required=True, metavar="CHECKPOINT", help="File or known name.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The new checkpoint; never the base.",
)
@click.option("--config", default="auto", help="Config of the base, if its file does not say.")
@click.option(
    "--part",
    type=click.Choice(["decoder", "memory", "all"]),
    default="decoder",
    show_default=True,
    help="What is trained. decoder: masks from clicks; memory: tracking; all: everything.",
)
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True)
@click.option("--rate", type=float, default=1e-4, show_default=True, help="Learning rate.")
@click.option("--holdout", type=float, default=0.2, show_default=True, help="Share held out.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def finetune(
    data: Path,
    base: str,
    out: Path,
    config: str,
    part: str,
    steps: int,
    rate: float,
    holdout: float,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Continue training on your own masklets; prints held-out quality before and after.

    \b
    Example:
      edgetam-label export --format ytvos SESSION my_export --images jpeg
      edgetam-label finetune --data my_export --base edgetam_nano --out mine.pt
    """
    from edgetam_label.training.finetune import FineTuning
    from edgetam_label.training.finetune import finetune as run

    options = FineTuning(part=part, steps=steps, rate=rate, holdout=holdout, seed=seed)

    def report(step: int, metrics: dict[str, float]) -> None:
        numbers = "  ".join(f"{k} {100 * v:.1f}" for k, v in metrics.items())
        click.echo(f"step {step}: {numbers}", err=True)

    result = run(data, base, out, options, config=config, device=device, report=report)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _print(result: FineTuned) -> None:
    names = {
        "click": "1 click, mIoU",
        "best": "best of 3 masks",
        "box": "box, mIoU",
        "clicks": "5 clicks, mIoU",
        "clip_iou": "carried by memory, mIoU",
    }
    click.echo(f"{'held out':<24} {'before':>7} {'after':>7}")
    for key, title in names.items():
        before, after = 100 * result.before[key], 100 * result.after[key]
        click.echo(f"{title:<24} {before:7.1f} {after:7.1f}  {after - before:+.1f}")
    click.echo(
        f"{result.train_videos} videos trained on, {result.held_out_videos} held out; weights of "
        f"step {result.kept_step} of {result.steps}; {result.seconds:.0f} s."
    )
    if result.kept_step == 0:
        click.echo(
            "Nothing beat the base on the held-out part; its weights were written unchanged."
        )
    click.echo(f"Wrote {result.checkpoint}.")
