"""`export` and `import` as typed: exit codes, one sentence, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hard_fixture import make_videos, store_video

from edgetam_label.cli import cli
from edgetam_label.exporters import EXPORTERS
from edgetam_label.sessions import SessionStore


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, tuple[str, ...]]:
    folder = tmp_path_factory.mktemp("cli")
    with SessionStore(folder / "sessions.db") as store:
        ids = tuple(store_video(store, video) for video in make_videos(folder))
    return str(folder / "sessions.db"), ids


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_format_by_command(database, tmp_path: Path, name: str) -> None:
    result = run("export", "--format", name, "--all", tmp_path / "out", "--db", database[0])
    assert result.exit_code == 0, result.output
    assert "2 sessions, 6 objects, 19 of 19 frames" in result.output
    assert (tmp_path / "out/manifest.json").is_file()


def test_one_session_as_json(database, tmp_path: Path) -> None:
    result = run(
        "export",
        "--format",
        "coco",
        database[1][1],
        tmp_path / "out",
        "--db",
        database[0],
        "--json",
    )
    report = json.loads(result.stdout)
    assert report["sessions"] == 1 and report["out"] == str(tmp_path / "out")
    assert report["masks"]["in"] == report["masks"]["written"] == 14


def test_losses_are_said(database, tmp_path: Path) -> None:
    result = run("export", "--format", "davis", "--all", tmp_path / "out", "--db", database[0])
    assert "refused 9: not visible on the first frame" in result.output


def test_import_then_export(database, tmp_path: Path) -> None:
    run("export", "--format", "ytvos", "--all", tmp_path / "a", "--db", database[0])
    other = tmp_path / "other.db"
    result = run("import", "--format", "ytvos", tmp_path / "a", "--db", other)
    assert result.exit_code == 0, result.output
    assert "Видео один" in result.output
    assert "pass --images" in result.output
    listed = json.loads(
        run("import", "--format", "ytvos", tmp_path / "a", "--db", other, "--json").stdout
    )
    assert [entry["masks"] for entry in listed["sessions"]] == [48, 14]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "pascal", "--all", "OUT"), "Unknown format 'pascal'; choose one of coco"),
        (("--format", "coco", "OUT"), "Name the sessions to export, or pass --all"),
        (("--format", "coco", "--all", "x", "OUT"), "or pass --all"),
        (("--format", "coco", "nobody", "OUT"), "nobody"),
        (("--format", "davis", "--all", "OUT", "--polygons"), "--polygons means nothing to"),
        (("--format", "coco", "--all", "OUT", "--stride", "0"), "--stride 0"),
        (("--format", "coco", "--all", "OUT", "--range", "9:3"), "--range 9:3 holds no frame"),
        (("--format", "coco", "--all", "OUT", "--range", "a"), "--range 'a'"),
        (("--format", "coco", "--all", "OUT", "--range", "50:60"), "leaves no frame"),
        (("--format", "coco", "--all", "OUT", "--split", "train"), "--split 'train'"),
        (("--format", "ytvos", "--all", "OUT", "--z-order", "a"), "needs --overlap z-order"),
    ],
)
def test_bad_requests_are_one_sentence(database, tmp_path: Path, arguments, message) -> None:
    filled = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    result = run("export", *filled, "--db", database[0])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output and len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
