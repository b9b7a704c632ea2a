"""The documents say what the program does: settings, flags, commands, links."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from edgetam_label.backend.settings import ServerSettings
from edgetam_label.cli import COMMANDS, cli
from edgetam_label.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
NO_SETTING = {"EDGETAM_LABEL_DEBUG"}  # read by the error handler itself, before any setting


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_reference", ROOT / "docs" / "make_reference.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table() -> dict[str, list[str]]:
    """Rows of docs/settings.md by variable: flag, default, meaning."""
    rows = {}
    for line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        match = re.fullmatch(r"`(EDGETAM_LABEL_\w+)`", cells[1]) if len(cells) == 4 else None
        if match:
            assert match[1] not in rows, f"{match[1]} stands twice"
            rows[match[1]] = [cells[0], cells[2], cells[3]]
    return rows


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    fields = {f"EDGETAM_LABEL_{name.upper()}" for name in ServerSettings.model_fields}
    assert set(Settings.model_fields) <= set(ServerSettings.model_fields)
    assert set(table()) == fields | NO_SETTING


def test_the_table_shows_the_true_defaults() -> None:
    for name, field in ServerSettings.model_fields.items():
        shown = table()[f"EDGETAM_LABEL_{name.upper()}"][1].strip("`").split(" (")[0]
        default = field.default
        if isinstance(default, bool):
            assert shown == ("on" if default else "off"), name
        elif isinstance(default, (int, float, str)) and field.default_factory is None:
            assert shown.replace(",", "") == str(default), name


def options_of(command: click.Command) -> set[str]:
    return {
        o
        for p in command.params
        if isinstance(p, click.Option)
        for o in (*p.opts, *p.secondary_opts)
    }


def test_the_flags_in_the_table_exist() -> None:
    commands = dict(generator().commands())
    every = set().union(*map(options_of, commands.values()))
    for variable, (flags, _, _) in table().items():
        for flag in re.findall(r"`(--[\w-]+)`", flags):
            assert flag in every, f"{variable}: no command has {flag}"


def test_every_option_that_names_a_variable_names_one_that_exists() -> None:
    for name, command in generator().commands():
        for option in command.params:
            for variable in re.findall(r"EDGETAM_LABEL_\w+", getattr(option, "help", None) or ""):
                assert variable in table(), f"{name}: {variable}"


@pytest.mark.parametrize("name", ["cli", "settings"])
def test_the_written_pages_are_fresh(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert text == getattr(generator(), f"{name}_page")(), "run `make docs`"


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Every `edgetam-label ...` line in the code blocks of a page, as words."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            line = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if line.startswith("edgetam-label "):
                yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "cli.md"], ids=lambda p: p.name)
def test_commands_in_the_documents_exist(page: Path) -> None:
    for words in shown_commands(page):
        command: click.Command = cli
        while words and isinstance(command, click.Group):
            if words[0].startswith("-"):
                break
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{page.name}: {words}"
            command = found
        flags = {word.split("=")[0] for word in words if word.startswith("--")}
        unknown = flags - options_of(command) - {"--help", "--version"}
        assert not unknown, f"{page.name}: {command.name} has no {sorted(unknown)}"


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [
        name for name in COMMANDS if f"`{name}`" not in text and f"label {name}" not in text
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    )
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z0-9-]+)", page.read_text(encoding="utf-8")))
        assert named <= targets, f"{page.name}: {sorted(named - targets)}"


@pytest.mark.slow
def test_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    """Its bash blocks, in order, in one shell; `make demo` is replaced by the command it runs."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    assert blocks[0] == "make demo\n" and len(blocks) >= 5
    script = "\n".join(["set -eu", "edgetam-label demo", *blocks[1:]])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EDGETAM_LABEL_MODEL": "tiny",
        "EDGETAM_LABEL_DEVICE": "cpu",
        "EDGETAM_LABEL_DB": str(tmp_path / "sessions.db"),
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for made in ("demo-output/overlay.png", "overlay.mp4", "cut-out/clip.00012.mask.png"):
        assert (tmp_path / made).is_file()
    assert (tmp_path / "dataset" / "manifest.json").is_file()
