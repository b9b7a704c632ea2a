"""`edgetam-label doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgetam_label.doctor import Check, run_checks
from edgetam_label.options import db_option, json_option, model_options, print_json
from edgetam_label.settings import Settings


@click.command()
@model_options
@db_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context,
    model: str | None,
    checkpoint: str | None,
    device: str | None,
    db: str | None,
    as_json: bool,
) -> None:
    """Check Python, torch, device, checkpoint, video, database and disk; say the exact fixes.

    Exit code 1 if something is not ok.

    \b
    Example:
      edgetam-label doctor
    """
    settings = Settings.load(model=model, checkpoint=checkpoint, device=device, db=db)
    results: list[Check] = []
    for check in run_checks(settings):
        results.append(check)
        if not as_json:
            _print(check)
    good = all(check.ok for check in results)
    if as_json:
        print_json({"ok": good, "checks": [asdict(check) for check in results]})
    ctx.exit(0 if good else 1)


def _print(check: Check) -> None:
    click.echo(f"{'ok ' if check.ok else 'BAD'} {check.name:<12} {check.detail}")
    if not check.ok:
        click.echo(f"{'':16} fix: {check.fix}")
