"""The commands `export` and `import`. Everything heavy is imported when they run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetam_label.errors import UsageError
from edgetam_label.options import db_option, json_option, model_options, print_json

from .formats import EXPORTERS, IMPORTERS, find_format

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

    from .exporting import ExportReport, ExportRequest

_FORMATS = "\n".join(f"  {entry.name:<12} {entry.title}" for entry in EXPORTERS.values())


@click.command(
    epilog=f"\b\nFormats (docs/formats.md says what each keeps and loses):\n{_FORMATS}",
)
@click.argument("paths", nargs=-1, metavar="[SESSION]... OUT", required=True)
@click.option("--format", "format_name", required=True, metavar="|".join(EXPORTERS))
@click.option("--all", "every", is_flag=True, help="Export every session of the database.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--images", type=click.Choice(["jpeg", "png"]), help="Write the frames as well.")
@click.option("--jpeg-quality", type=click.IntRange(1, 100), default=95, show_default=True)
@click.option("--stride", type=int, default=1, help="Every n-th frame only.")
@click.option("--range", "frame_range", metavar="START:STOP", help="Frames from START, below STOP.")
@click.option("--keyframes", is_flag=True, help="Only frames with a prompt or an approved mask.")
@click.option("--split", metavar="train=0.8,val=0.2", help="Share the videos out, by category.")
@click.option("--seed", type=int, default=0, show_default=True, help="For --split.")
@click.option(
    "--categories",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Category map: JSON {label: id | {id, name} | null} or one label a line.",
)
@click.option(
    "--overlap",
    type=click.Choice(["highest-id", "score", "z-order"]),
    default="highest-id",
    show_default=True,
    help="Who keeps a shared pixel where a file holds one object per pixel.",
)
@click.option("--z-order", metavar="LABEL,LABEL", help="Labels from back to front.")
@click.option("--renumber", is_flag=True, help="Number the objects of each video from 1.")
@click.option("--polygons", is_flag=True, help="coco: polygons in place of run lengths.")
@click.option("--results", is_flag=True, help="ytvis: results with scores, not ground truth.")
@click.option("--annotations", is_flag=True, help="labelstudio: annotations, not predictions.")
@click.option("--media-url", metavar="PREFIX", help="labelstudio: where it finds the media.")
@click.option("--label-studio", metavar="URL", help="Export a Label Studio project, see below.")
@click.option("--project", metavar="N", help="Number of the project, with --label-studio.")
@click.option("--no-redraw", is_flag=True, help="Refuse corrected boxes; load no model for them.")
@model_options
@db_option
@json_option
def export(
    paths: tuple[str, ...],
    format_name: str,
    every: bool,
    label_studio: str | None,
    project: str | None,
    no_redraw: bool,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    precision: str | None,
    db: str | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Write sessions as a dataset in the folder OUT.

    With --label-studio URL --project N the people's final annotations are joined with the stored
    masklets: their regions and labels win, and where they corrected a box, its mask is made anew.
    The token is read from EDGETAM_LABEL_LABEL_STUDIO_API_KEY.

    \b
    Examples:
      edgetam-label export --format coco --all dataset/
      edgetam-label export --format ytvos SESSION dataset/ --images jpeg --split train=0.8,val=0.2
    """
    entry = find_format(format_name)
    for extra in ("polygons", "results", "annotations", "media_url"):
        if choices[extra] and extra not in entry.extras:
            flag = extra.replace("_", "-")
            raise UsageError(f"--{flag} means nothing to format {entry.name}; leave it out.")
    *sessions, out = paths
    if bool(label_studio) != bool(project):
        raise UsageError("--label-studio URL and --project N go together; give both.")
    if label_studio and (every or sessions):
        raise UsageError("--label-studio exports a project; leave the sessions and --all out.")
    if not label_studio and every == bool(sessions):
        raise UsageError(
            "Name the sessions to export, or pass --all; the last argument is the folder to write."
        )
    from .exporting import export_sessions

    store = _open_store(db)
    if every:
        sessions = [session.id for session in store.summaries()]
    request = _request(entry.name, Path(out), tuple(sessions), choices)
    if label_studio and project:
        flags = {
            "db": db,
            "model": model,
            "checkpoint": checkpoint,
            "device": device,
            "precision": precision,
        }
        from .studio_export import joined_project

        with joined_project(store, request, label_studio, project, not no_redraw, flags) as joined:
            with _progress("Exporting") as progress:
                report = export_sessions(*joined, progress)
    else:
        with _progress("Exporting") as progress:
            report = export_sessions(store, request, progress)
    _tell(report, as_json)


@click.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, metavar="|".join(IMPORTERS))
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the frames, if they lie elsewhere than the format says.",
)
@click.option("--split", help="Only this split of the dataset.")
@db_option
@json_option
def import_(
    folder: Path,
    format_name: str,
    images: Path | None,
    split: str | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Read the dataset in DIR as sessions with approved masks, to be corrected and exported again.

    \b
    Example:
      edgetam-label import --format ytvos dataset/
    """
    from .importing import ImportOptions, import_dataset

    store = _open_store(db)
    with _progress("Importing") as progress:
        report = import_dataset(
            store, find_format(format_name), folder, ImportOptions(images, split), progress
        )
    if as_json:
        print_json(report.to_json())
        return
    for imported in report.sessions:
        click.echo(f"{imported.session_id}  {imported.name}  {imported.masks} masks")
    for warning in report.warnings:
        click.echo(f"Note: {warning}", err=True)


def _open_store(db: str | None) -> SessionStore:
    from edgetam_label.sessions import SessionStore
    from edgetam_label.settings import Settings

    return SessionStore(Settings.load(db=db).db)


def _request(
    format_name: str, out: Path, sessions: tuple[str, ...], choices: dict[str, Any]
) -> ExportRequest:
    from .dataset import ExportOptions
    from .exporting import ExportRequest
    from .selection import FrameSelection, parse_split

    z_order = tuple(part.strip() for part in (choices["z_order"] or "").split(",") if part.strip())
    if z_order and choices["overlap"] != "z-order":
        raise UsageError("--z-order needs --overlap z-order.")
    return ExportRequest(
        format=format_name,
        out=out,
        session_ids=sessions,
        options=ExportOptions(
            images=choices["images"],
            jpeg_quality=choices["jpeg_quality"],
            overlap=choices["overlap"],
            z_order=z_order,
            renumber=choices["renumber"],
            polygons=choices["polygons"],
            results=choices["results"],
            annotations=choices["annotations"],
            media_url=choices["media_url"],
        ),
        selection=FrameSelection.parse_range(
            choices["frame_range"] or ":",
            stride=choices["stride"],
            keyframes=choices["keyframes"],
        ),
        split=parse_split(choices["split"]) if choices["split"] else (),
        seed=choices["seed"],
        category_map=choices["categories"],
        overwrite=choices["overwrite"],
    )


def _tell(report: ExportReport, as_json: bool) -> None:
    totals = report.manifest["totals"]
    if as_json:
        print_json({"out": str(report.out), **totals})
        return
    masks, frames = totals["masks"], totals["frames"]
    click.echo(
        f"{report.out}: {totals['sessions']} sessions, {totals['objects']} objects, "
        f"{frames['written']} of {frames['in']} frames"
    )
    click.echo(
        f"  masks: {masks['in']} stored = {masks['written']} written + {masks['converted']} "
        f"converted + {masks['absent']} absent + {masks['left_out']} left out + "
        f"{masks['refused']} refused"
    )
    if "label_studio" in report.manifest:
        from .studio_export import project_lines

        for line in project_lines(report.manifest["label_studio"]):
            click.echo(line)
    for outcome, reason, count in report.losses:
        click.echo(f"  {outcome} {count}: {reason}")
    for session in report.manifest["sessions"]:
        for note in session["notes"]:
            click.echo(f"  {session['dataset_name']}: {note}")
    click.echo("  manifest.json accounts for each of them")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=what, unit="mask", leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
