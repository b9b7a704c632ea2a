"""`edgetam-label doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from edgetam_label.doctor import Check, run_checks
from edgetam_label.options import db_option, json_option, model_options, print_json
from edgetam_label.settings import Settings


@click.command()
@model_options
@db_option
@json_option
@click.option(
    "--label-studio",
    metavar="URL",
    help="Also check a Label Studio: token, guard, labelling configs, media.",
)
@click.option("--project", type=int, help="With --label-studio: look at this project only.")
@click.option(
    "--backend-url",
    metavar="URL",
    help="With --label-studio: our server, as Label Studio reaches it.",
)
@click.option(
    "--connect",
    is_flag=True,
    help="With --label-studio: connect the backend to each project for a moment, to see whether "
    "Label Studio's guard lets it.",
)
@click.pass_context
def doctor(
    ctx: click.Context,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    precision: str | None,
    db: str | None,
    as_json: bool,
    label_studio: str | None,
    project: int | None,
    backend_url: str | None,
    connect: bool,
) -> None:
    """Check Python, torch, device, checkpoint, video, database and disk; say the exact fixes.

    Exit code 1 if something is not ok.

    \b
    Example:
      edgetam-label doctor
      edgetam-label doctor --label-studio http://localhost:8080 --connect
    """
    settings = Settings.load(
        model=model, checkpoint=checkpoint, device=device, precision=precision, db=db
    )
    checks = run_checks(settings)
    if label_studio is not None:
        checks = _label_studio(label_studio, project, backend_url, connect)
    results: list[Check] = []
    for check in checks:
        results.append(check)
        if not as_json:
            _print(check)
    good = all(check.ok for check in results)
    if as_json:
        print_json({"ok": good, "checks": [asdict(check) for check in results]})
    ctx.exit(0 if good else 1)


def _label_studio(
    url: str, project: int | None, backend_url: str | None, connect: bool
) -> Iterator[Check]:
    """The backend's own checks, with the backend's own settings and token."""
    from edgetam_label.backend import ls_doctor
    from edgetam_label.backend.settings import ServerSettings

    settings = ServerSettings.load(label_studio_url=url)
    ours = (backend_url or ls_doctor.default_backend_url(settings)).rstrip("/")
    checks: Iterator[Check] = ls_doctor.run_checks(
        settings, ls_doctor.Probe(ours, project, connect)
    )
    return checks


def _print(check: Check) -> None:
    click.echo(f"{'ok ' if check.ok else 'BAD'} {check.name:<12} {check.detail}")
    if not check.ok:
        click.echo(f"{'':16} fix: {check.fix}")
