"""`edgetam-label sessions`: list, show, delete."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from edgetam_label.options import db_option, json_option, open_store, print_json

if TYPE_CHECKING:
    from edgetam_label.prompts import Prompt
    from edgetam_label.sessions import LabelObject, LabelSession, SessionStore, TrackingJob


@click.group()
def sessions() -> None:
    """List, show and delete stored sessions."""


@sessions.command("list")
@db_option
@json_option
def list_(db: str | None, as_json: bool) -> None:
    """One line per session, oldest first.

    \b
    Example:
      edgetam-label sessions list --json
    """
    with open_store(db) as store:
        if as_json:
            print_json([session_json(session) for session in store.list()])
            return
        summaries = store.summaries()
    if not summaries:
        click.echo("No sessions yet; `edgetam-label track VIDEO ...` makes one.", err=True)
    for item in summaries:
        click.echo(
            f"{item.id}  {item.num_frames} frames {item.width}x{item.height}  "
            f"{item.num_objects} objects  {item.num_masks} masks  {item.source or item.name}"
        )


@sessions.command()
@click.argument("session_id", metavar="SESSION")
@db_option
@json_option
def show(session_id: str, db: str | None, as_json: bool) -> None:
    """All about one session: media, model, objects, prompts, masks, unfinished tracking.

    \b
    Example:
      edgetam-label sessions show SESSION
    """
    with open_store(db) as store:
        session = store.get(session_id)
        masks = _mask_counts(store, session_id)
        unfinished = store.jobs.unfinished(session_id)
    if as_json:
        print_json(
            {
                **session_json(session),
                "prompts": [_prompt_json(prompt) for prompt in session.prompts],
                "masks_by_object": {str(obj_id): dict(kinds) for obj_id, kinds in masks.items()},
                "unfinished": [_job_json(job) for job in unfinished],
            }
        )
        return
    _print_session(session, masks)
    if unfinished:
        click.echo(f"Unfinished; go on with: edgetam-label track --resume {session.id}")


@sessions.command()
@click.argument("session_ids", metavar="SESSION...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@db_option
def delete(session_ids: tuple[str, ...], yes: bool, db: str | None) -> None:
    """Remove sessions with their prompts and masks; the video itself stays. Asks on a terminal.

    \b
    Example:
      edgetam-label sessions delete SESSION --yes
    """
    with open_store(db) as store:
        found = [store.get(session_id) for session_id in session_ids]
        masks = sum(session.num_masks for session in found)
        if not yes and sys.stdin.isatty():
            click.confirm(f"Delete {len(found)} session(s) with {masks} masks?", abort=True)
        for session in found:
            store.delete(session.id)
            click.echo(f"Deleted {session.id} ({session.num_masks} masks).")


def session_json(session: LabelSession) -> dict[str, Any]:
    """A session as machines read it; without the pts table."""
    media, model = session.media, session.model
    return {
        "id": session.id,
        "name": session.name,
        "key": session.key,
        "source": media.source,
        "kind": media.kind,
        "sha256": media.sha256,
        "frames": media.num_frames,
        "width": media.width,
        "height": media.height,
        "fps": media.fps,
        "objects": [_object_json(item) for item in session.objects],
        "masks": session.num_masks,
        "model": None
        if model is None
        else {
            "name": model.name,
            "checkpoint_sha256": model.checkpoint_sha256,
            "config_sha256": model.config_sha256,
        },
        "created_at": session.created_at.isoformat(),
        "updated_at": session.updated_at.isoformat(),
    }


def _object_json(item: LabelObject) -> dict[str, Any]:
    return {"id": item.obj_id, "label": item.label, "color": item.color}


def _prompt_json(prompt: Prompt) -> dict[str, Any]:
    box = prompt.box
    return {
        "object": prompt.obj_id,
        "frame": prompt.frame_idx,
        "clicks": [{"x": c.x, "y": c.y, "positive": c.positive} for c in prompt.clicks],
        "box": None if box is None else [box.x0, box.y0, box.x1, box.y1],
        "mask": None if prompt.mask is None else prompt.mask.to_coco(),
    }


def _job_json(job: TrackingJob) -> dict[str, Any]:
    return {
        "direction": job.direction,
        "start": job.start,
        "stop": job.stop,
        "next_frame": job.next_frame,
        "objects": list(job.objects),
        "state": job.state,
    }


def _mask_counts(store: SessionStore, session_id: str) -> dict[int, Counter[str]]:
    counts: dict[int, Counter[str]] = {}
    for mask in store.iter_masks(session_id):
        counts.setdefault(mask.obj_id, Counter())[mask.status] += 1
    return counts


def _print_session(session: LabelSession, masks: dict[int, Counter[str]]) -> None:
    media = session.media
    click.echo(f"{session.id}  {session.name}")
    click.echo(f"  media    {media.source}")
    click.echo(
        f"           {media.num_frames} frames, {media.width}x{media.height}, {media.fps:.2f} fps"
    )
    if session.model is not None:
        weights = session.model.checkpoint_sha256[:12]
        click.echo(f"  model    {session.model.name}, weights {weights}")
    for item in session.objects:
        kinds = masks.get(item.obj_id, Counter())
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
        click.echo(f"  object   {item.obj_id} {item.label} {item.color}  masks: {told}")
    for prompt in session.prompts:
        parts = [f"{len(prompt.clicks)} click(s)"] if prompt.clicks else []
        parts += ["box"] if prompt.box else []
        parts += ["mask"] if prompt.mask else []
        said = " + ".join(parts)
        click.echo(f"  prompt   object {prompt.obj_id}, frame {prompt.frame_idx}: {said}")
    click.echo(f"  updated  {session.updated_at:%Y-%m-%d %H:%M:%S} UTC")
