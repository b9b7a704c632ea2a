"""`edgetam-label track`: objects through a video into a session; resume and correct."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetam_label.errors import UsageError
from edgetam_label.options import db_option, json_option, model_options, open_store, print_json
from edgetam_label.settings import Settings

if TYPE_CHECKING:
    from edgetam_label.commands.tracking import Outcome, Request
    from edgetam_label.sessions import SessionStore

INTERRUPTED = 130
DIRECTIONS = {"forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}


@click.command()
@click.argument("video", required=False)
@click.option("--resume", metavar="SESSION", help="Go on with a session instead of a new VIDEO.")
@click.option("--object", "objects", multiple=True, metavar="ID:LABEL", help="An object's label.")
@click.option(
    "--click",
    "clicks",
    multiple=True,
    metavar="ID,FRAME,X,Y[,-]",
    help="A point on an object; - is outside of it.",
)
@click.option(
    "--box", "boxes", multiple=True, metavar="ID,FRAME,X0,Y0,X1,Y1", help="A box around an object."
)
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="ID,FRAME,PNG",
    help="A drawn mask: white object on black, of the frame's size.",
)
@click.option(
    "--direction",
    type=click.Choice(list(DIRECTIONS)),
    help="Which way from each object's first prompt: forward (default for a new session), "
    "backward or both.",
)
@click.option(
    "--max-frames", type=click.IntRange(1), metavar="N", help="At most N new frames a direction."
)
@click.option(
    "--every",
    type=click.IntRange(1, 32),
    metavar="K",
    help="Faster, less exact: the model sees every K-th frame, optical flow moves masks in "
    "between. K = 3 takes 0.4 of the time; on a clip of quick objects, true masks carried over "
    "one and two frames keep an IoU of 0.87.",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=32),
    metavar="N",
    help="Faster, less exact: the model sees N x N pixels instead of the size it was trained at. "
    "512 takes a quarter of the time of edgetam's 1024; what it loses has not been measured.",
)
@click.option("--name", help="The session's name; by default the file's.")
@model_options
@db_option
@json_option
@click.pass_context
def track(
    ctx: click.Context,
    video: str | None,
    resume: str | None,
    objects: tuple[str, ...],
    clicks: tuple[str, ...],
    boxes: tuple[str, ...],
    masks: tuple[str, ...],
    direction: str | None,
    max_frames: int | None,
    every: int | None,
    image_size: int | None,
    name: str | None,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    precision: str | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Track objects through VIDEO (a file or a folder of images) and print the session's id.

    Frames count from 0, coordinates are pixels of the original frame. Ctrl-C keeps what is done
    and says how to go on. With --resume more prompts may be given: on a frame that was tracked
    they correct, and only the objects that changed are tracked again. What is said about an object
    on a frame replaces what was said there before.

    \b
    Examples:
      edgetam-label track dog.mp4 --object 1:dog --click 1,0,320,180 --direction both
      edgetam-label track --resume SESSION --click 1,57,300,190,-
    """
    if (video is None) == (resume is None):
        raise UsageError(
            "Give a VIDEO to start with, or --resume SESSION to go on; one of the two."
        )
    settings = Settings.load(
        model=model, checkpoint=checkpoint, device=device, precision=precision, db=db
    )
    flags = (("--db", db), ("--model", model), ("--checkpoint", checkpoint), ("--device", device))
    request = _request(objects, clicks, boxes, masks, direction, max_frames, flags)
    request = replace(request, every=every, image_size=image_size)
    if video is not None:
        if not request.prompts:
            raise UsageError(
                "Nothing to track; point at an object, such as "
                "--object 1:dog --click 1,0,320,180 (id, frame, x, y)."
            )
        if "://" not in video and not Path(video).exists():
            raise UsageError(f"{video} does not exist; give a video file or a folder of images.")
    from edgetam_label.commands.tracking import track_new, track_on

    with open_store(db) as store:
        if video is not None:
            outcome = track_new(store, settings, video, name, request)
        else:
            outcome = track_on(store, settings, str(resume), request)
        _report(store, outcome, request.resume_command(outcome.session.id), as_json)
    ctx.exit(INTERRUPTED if outcome.interrupted and not outcome.summary.finished else 0)


def _request(
    objects: tuple[str, ...],
    clicks: tuple[str, ...],
    boxes: tuple[str, ...],
    masks: tuple[str, ...],
    direction: str | None,
    max_frames: int | None,
    flags: tuple[tuple[str, str | None], ...],
) -> Request:
    from edgetam_label.commands.tracking import Request
    from edgetam_label.mask_files import read_mask
    from edgetam_label.prompt_flags import parse_object, video_prompts

    return Request(
        tuple(parse_object(text) for text in objects),
        video_prompts(clicks, boxes, masks, read_mask),
        DIRECTIONS[direction] if direction else None,
        max_frames,
        flags,
    )


def _report(store: SessionStore, outcome: Outcome, resume: str, as_json: bool) -> None:
    from edgetam_label.commands.tracking import object_report

    session, summary = outcome.session, outcome.summary
    report = object_report(store, session)
    speed = summary.frames / outcome.seconds if outcome.seconds > 0 else 0.0
    for item in report:
        click.echo(
            f"{item['label']} ({item['id']}): visible on {item['visible']}, absent on "
            f"{item['absent']} of {session.media.num_frames} frames",
            err=True,
        )
    click.echo(
        f"{summary.frames} frames, {summary.masks} masks in {outcome.seconds:.1f} s "
        f"({speed:.1f} frames/s)",
        err=True,
    )
    if not summary.finished:
        why = "Interrupted" if outcome.interrupted else "Stopped by --max-frames"
        click.echo(f"{why}; what is done is kept. Go on with: {resume}", err=True)
    if not as_json:
        click.echo(session.id)
        return
    print_json(
        {
            "session": session.id,
            "source": session.media.source,
            "frames": session.media.num_frames,
            "objects": report,
            "tracked_frames": summary.frames,
            "written_masks": summary.masks,
            "finished": summary.finished,
            "seconds": round(outcome.seconds, 3),
            "resume": None if summary.finished else resume,
        }
    )
