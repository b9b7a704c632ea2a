"""Click options that several commands share; each falls back to its EDGETAM_LABEL_* variable.

The fall-back is done by `Settings.load`, not by click, so that a value is checked in one place and
an error names the flag or the variable it came from.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

F = TypeVar("F", bound=Callable[..., Any])


def weights_options(command: F) -> F:
    """--model, --checkpoint."""
    options = (
        click.option(
            "--model",
            metavar="NAME|TOML",
            help="Model config: edgetam, edgetam_nano, tiny, a .toml file, or auto (default): "
            "edgetam if its weights are downloaded, else the shipped edgetam_nano. "
            "[EDGETAM_LABEL_MODEL]",
        ),
        click.option(
            "--checkpoint",
            metavar="FILE|NAME|random",
            help="Weights for the model; `random` takes seeded random weights, for trials only. "
            "[EDGETAM_LABEL_CHECKPOINT]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def model_options(command: F) -> F:
    """--model, --checkpoint, --device, --precision."""
    device = click.option(
        "--device",
        metavar="auto|cpu|cuda|mps",
        help="Where the model runs (default auto). [EDGETAM_LABEL_DEVICE]",
    )
    precision = click.option(
        "--precision",
        metavar="float32|bfloat16",
        help="bfloat16: faster, less exact; the large products in half the digits. "
        "[EDGETAM_LABEL_PRECISION]",
    )
    return weights_options(device(precision(command)))


def db_option(command: F) -> F:
    """--db."""
    return click.option(
        "--db",
        metavar="FILE|URL",
        help="Session database: a file or a SQLAlchemy URL; by default sessions.db in the user's "
        "data folder. [EDGETAM_LABEL_DB]",
    )(command)


def json_option(command: F) -> F:
    """--json, passed on as `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
    )(command)


@contextmanager
def progress_bar(
    what: str, unit: str, *, scaled: bool = False
) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error for (done, total) reports; silent where no person watches."""
    from tqdm import tqdm

    width = min(100, shutil.get_terminal_size().columns)  # a terminal may claim to have none
    with tqdm(
        desc=what,
        unit=unit,
        unit_scale=scaled,
        leave=False,
        ncols=width,
        nrows=20,
        disable=not sys.stderr.isatty(),
    ) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def print_json(value: Any) -> None:
    """One JSON document on standard output, non-ASCII names as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def open_store(db: str | None) -> SessionStore:
    """The session store that the flag or the environment names; the default one is made."""
    from edgetam_label.sessions import SessionStore
    from edgetam_label.settings import Settings

    return SessionStore(Settings.load(db=db).db)
