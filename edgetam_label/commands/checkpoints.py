"""`edgetam-label checkpoints`: list, download, verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgetam_label.errors import CheckpointError, UsageError
from edgetam_label.known_checkpoints import (
    CHECKPOINTS,
    CheckpointStatus,
    checkpoint_status,
    download_checkpoint,
    file_sha256,
    git_blob_id,
    known_checkpoint,
)
from edgetam_label.options import json_option, print_json, progress_bar
from edgetam_label.settings import Settings


@click.group()
def checkpoints() -> None:
    """List, download and verify weights."""


@checkpoints.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Known checkpoints and whether they are here.

    \b
    Example:
      edgetam-label checkpoints list
    """
    folder = Settings.load().checkpoint_dir
    states = [checkpoint_status(name, folder) for name in CHECKPOINTS]
    if as_json:
        print_json([_to_json(state) for state in states])
        return
    for state in states:
        click.echo(f"{state.name:<14} {state.state:<11} {CHECKPOINTS[state.name].summary}")
        click.echo(f"{'':<14} {state.path if state.state == 'ok' else state.detail}")


@checkpoints.command()
@click.argument("name")
@click.option(
    "--mirror",
    metavar="URL",
    help="Fetch URL/<file name> in place of the original; the content must be the same. "
    "[EDGETAM_LABEL_MIRROR]",
)
@json_option
def download(name: str, mirror: str | None, as_json: bool) -> None:
    """Fetch a checkpoint, verify it, keep it in the cache folder; an interrupted one is resumed.

    \b
    Example:
      edgetam-label checkpoints download edgetam
    """
    known_checkpoint(name)
    settings = Settings.load(mirror=mirror)
    with progress_bar(name, "B", scaled=True) as progress:
        path = download_checkpoint(
            name, settings.checkpoint_dir, mirror=settings.mirror, progress=progress
        )
    if as_json:
        print_json(_to_json(checkpoint_status(name, settings.checkpoint_dir)))
    else:
        click.echo(str(path))


@checkpoints.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Compare checkpoints with their published hashes; without names, all that are here.

    A file is compared with every known checkpoint. Exit code 1 if one is damaged or unknown.

    \b
    Example:
      edgetam-label checkpoints verify edgetam ~/Downloads/edgetam.pt
    """
    folder = Settings.load().checkpoint_dir
    states = [checkpoint_status(name, folder) for name in CHECKPOINTS] if not names else []
    if not names:
        states = [state for state in states if state.state != "absent"]
    for name in names:
        states.append(checkpoint_status(name, folder) if name in CHECKPOINTS else _of_file(name))
    if as_json:
        print_json([_to_json(state) for state in states])
    else:
        for state in states:
            click.echo(f"{state.name}: {state.state}, {state.detail}")
    bad = [state.name for state in states if state.state != "ok"]
    if bad:
        raise CheckpointError(f"Not verified: {', '.join(bad)}.")


def _of_file(text: str) -> CheckpointStatus:
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"{text!r} is neither a known checkpoint ({', '.join(CHECKPOINTS)}) nor a file."
        )
    blob = git_blob_id(path)
    for entry in CHECKPOINTS.values():
        if entry.git_blob == blob:
            return CheckpointStatus(text, path, "ok", f"this is {entry.name}")
    return CheckpointStatus(
        text, path, "unknown", f"git blob {blob}, sha256 {file_sha256(path)} is no known checkpoint"
    )


def _to_json(state: CheckpointStatus) -> dict[str, Any]:
    entry = CHECKPOINTS.get(state.name)
    about = {} if entry is None else {"licence": entry.licence, "url": entry.url}
    return {**asdict(state), "path": str(state.path), **about}
