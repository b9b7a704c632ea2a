"""Writes docs/cli.md and the server's table in docs/settings.md: `make docs`.

Both come from the program itself; tests/test_docs.py fails when they are stale.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from edgetam_label.backend.settings import ServerSettings
from edgetam_label.cli import COMMANDS
from edgetam_label.settings import ENV_PREFIX, Settings

CLI_PAGE = Path(__file__).with_name("cli.md")
SETTINGS_PAGE = Path(__file__).with_name("settings.md")
SERVER_TABLE = re.compile(r"(?<=<!-- server: written by make docs -->\n).*?(?=<!-- end -->)", re.S)
WIDTH = 100


def commands() -> Iterator[tuple[str, click.Command]]:
    """(full name, command) for every command and subcommand, groups excluded."""
    for name, entry in COMMANDS.items():
        module, attribute = entry.target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, click.Group):
            for sub_name in command.commands:
                yield f"{name} {sub_name}", command.commands[sub_name]
        else:
            yield name, command


def cli_page() -> str:
    """The whole of docs/cli.md."""
    parts = [
        "# Command line\n",
        "Written by `make docs` from the commands; do not edit. Settings and their variables:"
        " [settings.md](settings.md).",
    ]
    for name, command in commands():
        title = f"edgetam-label {name}"
        context = click.Context(
            command, info_name=title, max_content_width=WIDTH, terminal_width=WIDTH
        )
        context.help_option_names = ["-h", "--help"]
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"\n## `{name}`\n\n```\n{text}\n```")
    return "\n".join(parts) + "\n"


def server_table() -> str:
    """The settings that only `serve` has."""
    flags = {option for param in dict(commands())["serve"].params for option in param.opts}
    lines = ["", "| flag | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in ServerSettings.model_fields.items():
        if name in Settings.model_fields:
            continue
        flag = f"--{name.replace('_', '-')}"
        shown = f"`{flag}`" if flag in flags else "–"
        variable = f"`{ENV_PREFIX}{name.upper()}`"
        lines.append(f"| {shown} | {variable} | {_default(field.default)} | {field.description} |")
    return "\n".join(lines) + "\n\n"


def settings_page() -> str:
    """docs/settings.md with a fresh table of the server's settings."""
    table = server_table()
    return SERVER_TABLE.sub(lambda _: table, SETTINGS_PAGE.read_text(encoding="utf-8"))


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "not set"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if isinstance(value, int) and value >= size and value % size == 0:
            return f"{value} ({value // size} {unit})"
    return str(value)


if __name__ == "__main__":
    os.environ["COLUMNS"] = str(WIDTH)
    for page, content in ((CLI_PAGE, cli_page()), (SETTINGS_PAGE, settings_page())):
        page.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{page}\n")
