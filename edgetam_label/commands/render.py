"""`edgetam-label render`: a session as a video or a sheet with its masks drawn."""

from __future__ import annotations

from pathlib import Path

import click

from edgetam_label.errors import UsageError
from edgetam_label.options import db_option, json_option, open_store, print_json, progress_bar


@click.command()
@click.argument("session_id", metavar="SESSION")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--range", "frame_range", metavar="START:STOP", help="Frames from START, below STOP.")
@click.option("--no-prompts", is_flag=True, help="Do not draw clicks and boxes.")
@db_option
@json_option
def render(
    session_id: str,
    out: Path,
    frame_range: str | None,
    no_prompts: bool,
    db: str | None,
    as_json: bool,
) -> None:
    """Write SESSION as the video OUT (.mp4, .mov, .mkv) with masks, ids and labels drawn.

    Every frame keeps its exact time.

    \b
    Example:
      edgetam-label render SESSION overlay.mp4
    """
    from edgetam_label.frames import Frames
    from edgetam_label.render import render_video

    with open_store(db) as store:
        session = store.get(session_id)
        start, stop = _range(frame_range, session.media.num_frames)
        with (
            Frames.open(session.media.source, identity=session.media) as frames,
            progress_bar("Rendering", "frame") as progress,
        ):
            path = render_video(
                frames,
                store.iter_masks(session_id, start=start, stop=stop),
                session.objects,
                out,
                prompts=() if no_prompts else session.prompts,
                start=start,
                stop=stop,
                progress=progress,
            )
    if as_json:
        print_json({"session": session_id, "out": str(path), "frames": stop - start})
    else:
        click.echo(str(path))


def _range(text: str | None, num_frames: int) -> tuple[int, int]:
    first, colon, last = (text or ":").partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, last)):
        raise UsageError(f"--range {text!r} cannot be read; write START:STOP, such as 0:100.")
    return int(first or 0), int(last or num_frames)
