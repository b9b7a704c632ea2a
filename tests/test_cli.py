"""The command line as a person meets it: start-up, help, and errors in one sentence."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgetam_label import cli as cli_module
from edgetam_label.cli import COMMANDS, cli
from edgetam_label.errors import ConfigError, MediaError


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Commands run against a database and a cache of their own."""
    monkeypatch.setenv("EDGETAM_LABEL_DB", str(tmp_path / "sessions.db"))
    monkeypatch.setenv("EDGETAM_LABEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGETAM_LABEL_DEBUG", raising=False)
    return CliRunner()


def program(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "edgetam_label", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from edgetam_label.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "print(sorted(m for m in ('torch', 'cv2', 'av', 'numpy', 'sqlalchemy', 'pydantic', 'flask')"
        " if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_help_takes_less_than_half_a_second() -> None:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        result = program("--help")
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0
    assert min(seconds) < 0.5, seconds


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_explains_itself(name: str, runner: CliRunner) -> None:
    module, attribute = COMMANDS[name].target.split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command) and command.name == name
    result = runner.invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    subcommands = command.commands.values() if isinstance(command, click.Group) else [command]
    for sub in subcommands:
        assert "edgetam-label" in (sub.help or ""), f"{sub.name}: the help shows no example"
        for parameter in sub.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.metavar or parameter.type, parameter.name


def test_the_table_of_help_holds_every_command() -> None:
    text = program("--help").stdout
    for name, entry in COMMANDS.items():
        assert name in text and entry.summary in text


def test_an_unknown_command_is_answered_with_the_nearest(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["trak"])
    assert result.exit_code == 2
    assert result.stderr == "Error: No such command 'trak'; did you mean 'track'?\n"


def test_a_usage_error_is_one_line_with_the_place_to_look(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["sessions", "show"])
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: Missing argument 'SESSION'. See `edgetam-label sessions show --help`.\n"
    ) or result.stderr.startswith("Error: Missing argument 'SESSION'.")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("--device is 'x'; use cpu."), 2, "Error: --device is 'x'; use cpu."),
        (MediaError("clip.mp4 has no video."), 1, "Error: clip.mp4 has no video."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y.png"),
            1,
            "Error: The disk is full: /x/y.png; free some space and run the command again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "Error: Permission denied: /x; choose a place that you may write to.",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), 1, "Error: No such"),
        (ZeroDivisionError("division by zero"), 1, "Error: Unexpected ZeroDivisionError: division"),
        (MemoryError(), 1, "Error: Out of memory"),
    ],
)
def test_every_error_is_one_sentence(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_module.report(error) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(text) and captured.err.count("\n") == 1
    assert captured.out == "" and "Traceback" not in captured.err


def test_a_bug_shows_its_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGETAM_LABEL_DEBUG", "1")
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        assert cli_module.report(error) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    code = "from edgetam_label.cli import main; main()"
    tool = subprocess.Popen(
        [sys.executable, "-P", "-c", code, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert tool.stdout is not None and tool.stderr is not None
    tool.stdout.close()
    stderr = tool.stderr.read()
    tool.wait(timeout=30)
    tool.stderr.close()
    assert b"Traceback" not in stderr


def test_sessions_of_an_empty_database(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["sessions", "list", "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout) == []
    result = runner.invoke(cli, ["sessions", "list"])
    assert result.stdout == "" and "No sessions yet" in result.stderr


def test_an_unknown_session_is_a_usage_error(runner: CliRunner) -> None:
    for command in (["sessions", "show", "nope"], ["sessions", "delete", "nope"]):
        result = runner.invoke(cli, command)
        assert result.exit_code == 2 and "'nope'" in result.stderr


def test_a_text_file_as_database(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("just some notes, by no means a database\n" * 100)
    result = runner.invoke(cli, ["sessions", "list", "--db", str(tmp_path / "notes.db")])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert "notes.db" in result.stderr


def test_checkpoints_list_and_verify(runner: CliRunner, tmp_path: Path) -> None:
    listed = json.loads(runner.invoke(cli, ["checkpoints", "list", "--json"]).stdout)
    assert {entry["name"]: entry["licence"] for entry in listed} == {
        "edgetam": "Apache-2.0",
        "edgetam_nano": "Apache-2.0",
    }
    assert listed[0]["state"] == "absent" and listed[0]["path"].startswith(str(tmp_path / "cache"))
    file = tmp_path / "some.pt"
    file.write_bytes(b"weights")
    result = runner.invoke(cli, ["checkpoints", "verify", str(file)])
    assert result.exit_code == 1
    assert "is no known checkpoint" in result.stdout and "Not verified" in result.stderr
    result = runner.invoke(cli, ["checkpoints", "download", "sam9"])
    assert result.exit_code == 2 and "known are edgetam" in result.stderr


def test_doctor_checks_everything_and_exits_by_the_result(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["doctor", "--json", "--model", "tiny", "--device", "cpu"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["ok"], report
    names = [check["name"] for check in report["checks"]]
    assert names == ["Python", "torch", "device", "checkpoint", "PyAV/ffmpeg", "database", "disk"]


def test_doctor_names_the_fix(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_text("no weights")
    result = runner.invoke(
        cli, ["doctor", "--checkpoint", str(tmp_path / "broken.pt"), "--device", "cpu"]
    )
    assert result.exit_code == 1
    bad = [line for line in result.stdout.splitlines() if line.startswith("BAD")]
    assert len(bad) == 1 and "checkpoint" in bad[0] and "broken.pt" in bad[0]
    assert result.stdout.count("fix:") == 1


def test_settings_errors_reach_the_person(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["doctor", "--device", "gpu"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --device is 'gpu'; use one of 'auto', 'cpu'")


def test_the_module_runs_as_the_program() -> None:
    result = program("--version")
    assert result.returncode == 0 and result.stdout.startswith("edgetam-label, version ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_is_drawn_where_a_person_watches_and_nowhere_else() -> None:
    import pty

    code = (
        "from edgetam_label.options import progress_bar\n"
        "with progress_bar('Tracking', 'frame') as show:\n"
        "    show(1, 4); show(4, 4)"
    )
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-P", "-c", code], stderr=theirs, check=True)
    os.close(theirs)
    assert b"Tracking" in os.read(ours, 10_000)
    os.close(ours)
    piped = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert piped.stderr == piped.stdout == b""
