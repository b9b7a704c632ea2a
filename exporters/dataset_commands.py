"""The commands `dataset …` and `review`. Everything heavy is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetam_label.errors import UsageError
from edgetam_label.options import db_option, json_option, print_json

from .formats import EXPORTERS, IMPORTERS

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

    from .dataset_agreement import Agreement
    from .dataset_diff import DatasetDiff, ObjectDiff
    from .dataset_source import Source
    from .dataset_stats import DatasetStats

_format_option = click.option(
    "--format",
    "format_name",
    metavar="|".join(IMPORTERS),
    help="Format of the folders; by default what manifest.json or the files say.",
)


@click.group()
def dataset() -> None:
    """Check, compare, measure and preview datasets.

    SOURCE is a dataset folder or the id of a stored session.

    \b
    Example:
      edgetam-label dataset validate coco dataset/
      edgetam-label dataset diff dataset-v1/ dataset-v2/ --tolerance 0.01
    """


@dataset.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@_format_option
@click.option(
    "--plots", type=click.Path(path_type=Path, dir_okay=False), help="Write a page of plots (PNG)."
)
@db_option
@json_option
def stats(
    sources: tuple[str, ...],
    format_name: str | None,
    plots: Path | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Count objects, frames, masks, areas and gaps; without SOURCE, of all stored sessions.

    \b
    Example:
      edgetam-label dataset stats dataset/ --plots stats.png
    """
    from .dataset_stats import dataset_stats

    found = dataset_stats(_joined(sources, format_name, db))
    if plots is not None:
        from .dataset_plots import write_plots

        write_plots(found, plots)
    if as_json:
        print_json(found.to_json())
    else:
        _tell_stats(found)
        if plots is not None:
            click.echo(f"{plots}: plots")


@dataset.command()
@click.argument("format_name", metavar="FORMAT", type=click.Choice(list(EXPORTERS)))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--rules", is_flag=True, help="List what is checked, and stop.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--strict", is_flag=True, help="Warnings fail as well.")
@json_option
@click.pass_context
def validate(
    context: click.Context,
    format_name: str,
    folder: Path,
    rules: bool,
    limit: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Check that DIR keeps every rule that readers of FORMAT rely on; exit 1 if not.

    \b
    Example:
      edgetam-label dataset validate ytvos dataset/
    """
    from .dataset_validate import rules_of
    from .dataset_validate import validate as check

    if rules:
        table = rules_of(format_name)
        if as_json:
            print_json(dict(table))
        for name, text in () if as_json else table.items():
            click.echo(f"{name:<24} {text}")
        return
    report = check(format_name, folder, limit=limit)
    if as_json:
        print_json(report.to_json())
    else:
        for finding in report.findings:
            click.echo(f"{finding.severity}: {finding}")
        hidden = report.errors + report.warnings - len(report.findings)
        if hidden:
            click.echo(f"… and {hidden} more; see them with --limit")
        click.echo(
            f"{folder}: {report.errors} errors, {report.warnings} warnings, "
            f"{len(report.rules)} rules of {format_name} checked"
        )
    if report.errors or (strict and report.warnings):
        context.exit(1)


@dataset.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--tolerance",
    type=float,
    default=0.0,
    show_default=True,
    help="Loss of J&F that an object may have and still count as unchanged.",
)
@_format_option
@click.option("--second-format", metavar="FORMAT", help="Format of B, if not that of A.")
@db_option
@json_option
@click.pass_context
def diff(
    context: click.Context,
    first: str,
    second: str,
    tolerance: float,
    format_name: str | None,
    second_format: str | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Compare two versions of a dataset object by object; exit 1 if they differ.

    Reports IoU, J and F of each object, and objects that are lost, new or under another id.

    \b
    Example:
      edgetam-label dataset diff dataset-v1/ dataset-v2/ --tolerance 0.01
    """
    from .dataset_diff import diff as compare

    report = compare(
        _source(first, format_name, db),
        _source(second, second_format or format_name, db),
        tolerance=tolerance,
    )
    if as_json:
        print_json(report.to_json())
    else:
        _tell_diff(report)
    if report.differs:
        context.exit(1)


@dataset.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE SOURCE...")
@click.option("--by-id", is_flag=True, help="Match objects by id, not by overlap.")
@click.option("--at-least", type=click.FloatRange(0, 1), help="Exit 1 below this mean J&F.")
@_format_option
@db_option
@json_option
@click.pass_context
def agreement(
    context: click.Context,
    sources: tuple[str, ...],
    by_id: bool,
    at_least: float | None,
    format_name: str | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Measure how far annotators of the same media agree (J&F), pair by pair.

    \b
    Example:
      edgetam-label dataset agreement anna/ boris/ chen/
    """
    from .dataset_agreement import agreement as measure

    report = measure([_source(name, format_name, db) for name in sources], by_id=by_id)
    if as_json:
        print_json(report.to_json())
    else:
        _tell_agreement(report)
    if at_least is not None and report.j_and_f < at_least:
        context.exit(1)


@dataset.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--every", type=int, help="Show each n-th frame (default: about 20 of a video).")
@click.option("--columns", type=int, default=5, show_default=True)
@click.option("--width", "tile_width", type=int, default=320, show_default=True, help="Of a tile.")
@_format_option
@db_option
@json_option
def preview(
    source: str,
    out: Path,
    every: int | None,
    columns: int,
    tile_width: int,
    format_name: str | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Draw contact sheets: one PNG per video in the folder OUT, or one file if OUT ends in .png.

    \b
    Example:
      edgetam-label dataset preview dataset/ sheets/ --every 10
    """
    from .dataset_preview import SheetOptions, write_previews

    options = SheetOptions(every, columns, tile_width)
    sheets = write_previews(_source(source, format_name, db), out, options)
    if as_json:
        print_json([{**vars(sheet), "path": str(sheet.path)} for sheet in sheets])
        return
    for sheet in sheets:
        note = "; its frames were not found, so the masks lie on grey"
        click.echo(
            f"{sheet.path}: {sheet.tiles} frames of {sheet.video}"
            f"{note if sheet.without_images else ''}"
        )


@click.command()
@click.argument("sessions", nargs=-1, metavar="[SESSION]...")
@click.option(
    "--against", metavar="SESSION", help="The same objects tracked the other way round, to compare."
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--least", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Least severity."
)
@db_option
@json_option
def review(
    sessions: tuple[str, ...],
    against: str | None,
    limit: int,
    least: float,
    db: str | None,
    as_json: bool,
) -> None:
    """List the frames most likely wrong, worst first, each with its reasons.

    \b
    Example:
      edgetam-label review SESSION --limit 10
    """
    from .review import review as suspects

    store = _open_store(db)
    if against is not None and len(sessions) != 1:
        raise UsageError("--against compares one session; name exactly one.")
    other = store.get(against) if against else None
    found = [
        item
        for session_id in sessions or [entry.id for entry in store.summaries()]
        for item in suspects(store, store.get(session_id), against=other)
        if item.severity >= least
    ]
    found.sort(key=lambda item: (-item.severity, item.session_id, item.frame_idx, item.obj_id))
    if as_json:
        print_json({"total": len(found), "items": [item.to_json() for item in found[:limit]]})
        return
    for item in found[:limit]:
        span = f" ({item.first}-{item.last})" if item.first != item.last else ""
        why = "; ".join(f"{reason.kind}: {reason.detail}" for reason in item.reasons)
        click.echo(
            f"{item.severity:.2f}  {item.session_id}  frame {item.frame_idx}{span}  "
            f"{item.time:.2f} s  object {item.obj_id} {item.label}  {why}"
        )
    shown = min(limit, len(found))
    click.echo(f"{shown} of {len(found)} suspects" if found else "Nothing looks wrong.", err=True)


def _open_store(db: str | None) -> SessionStore:
    from edgetam_label.sessions import SessionStore
    from edgetam_label.settings import Settings

    return SessionStore(Settings.load(db=db).db)


def _source(name: str, format_name: str | None, db: str | None) -> Source:
    """A folder if there is one of this name, else a session of the store."""
    from .dataset_source import folder_source, store_source

    if Path(name).is_dir():
        return folder_source(Path(name), format_name)
    if Path(name).exists() or "/" in name:
        raise UsageError(f"{name} is not a folder; give a dataset folder or a session id.")
    store = _open_store(db)
    store.get(name)  # an unknown id is said at once, not in the middle of the work
    return store_source(store, [name], name)


def _joined(names: tuple[str, ...], format_name: str | None, db: str | None) -> Source:
    """Several sources as one; all sessions of the store if none is named."""
    from .dataset_source import Source, store_source

    if not names:
        store = _open_store(db)
        return store_source(store, [], store.url)
    parts = [_source(name, format_name, db) for name in names]
    if len(parts) == 1:
        return parts[0]
    return Source(
        ", ".join(names),
        lambda: (video for part in parts for video in part.videos()),
        keeps_ids=all(part.keeps_ids for part in parts),
    )


def _tell_stats(found: DatasetStats) -> None:
    click.echo(
        f"{found.title}: {found.videos} videos, {found.frames} frames "
        f"({found.frames_with_masks} with masks), {len(found.objects)} objects, "
        f"{found.masks} masks"
    )
    for label, row in found.by_category().items():
        area: dict[str, Any] = row["area"]
        size = f"area {area['min']:.0f} to {area['max']:.0f} px" if area["count"] else "no mask"
        click.echo(
            f"  {label}: {row['objects']} objects, {row['masks']} masks, {size}, "
            f"{row['gaps']} gaps of {row['gap_frames']} frames"
        )


def _tell_diff(report: DatasetDiff) -> None:
    for video in report.videos:
        if video.state != "both":
            click.echo(f"{video.name}: {video.state}: {video.note}")
        for entry in video.objects:
            if entry.state != "same":
                click.echo(f"{video.name}, object {entry.obj_id}: {_describe(entry)}")
    counted = ", ".join(f"{count} {state}" for state, count in report.counts().items())
    verdict = "differs" if report.differs else "equal"
    if report.tolerance:
        verdict += f" (tolerance {report.tolerance:g})"
    click.echo(f"{verdict}: {counted or 'no objects'}")


def _describe(entry: ObjectDiff) -> str:
    parts = [entry.state]
    if entry.labels[0] != entry.labels[1]:
        parts.append(f"label {entry.labels[0] or 'none'} → {entry.labels[1] or 'none'}")
    if entry.score is not None:
        score = entry.score
        parts.append(
            f"J&F {score.j_and_f:.4f} (J {score.j:.4f}, F {score.f:.4f}), IoU {score.iou:.4f}"
        )
        if score.worst:
            parts.append(f"worst frame {score.worst[0][0]} with {score.worst[0][1]:.4f}")
    parts += [f"is object {swap.other_id} on {swap.frames}" for swap in entry.swaps]
    return ", ".join(parts)


def _tell_agreement(report: Agreement) -> None:
    for pair in report.pairs:
        shared = sum(entry.score is not None for entry in pair.objects)
        labels = f", labels agree {pair.labels:.0%}" if pair.labels is not None else ""
        click.echo(
            f"{pair.first} / {pair.second}: J&F {pair.j_and_f:.4f} (J {pair.j:.4f}, "
            f"F {pair.f:.4f}), {shared} of {len(pair.objects)} objects shared{labels}"
        )
        for entry in pair.objects:
            ids = " / ".join("none" if i is None else str(i) for i in entry.ids)
            label = entry.labels[0] or entry.labels[1]
            worst = entry.score.worst[:1] if entry.score else ()
            where = "".join(f", worst frame {name} with {value:.4f}" for name, value in worst)
            click.echo(f"  {entry.video}, object {ids} {label}: {entry.j_and_f:.4f}{where}")
        for name in pair.videos_missing:
            click.echo(f"  {name}: only one of them has it")
    if len(report.pairs) > 1:
        click.echo(f"mean J&F {report.j_and_f:.4f}")
