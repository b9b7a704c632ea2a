"""The commands `dataset` and `review`: exit codes, JSON, sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dataset_rig import Rig, edit_json, make_rig

from edgetam_label.cli import cli


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = make_rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.store.close()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="edgetam-label")


def load(result: Result) -> Any:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def test_stats_of_a_folder_and_of_the_store(rig: Rig, tmp_path: Path) -> None:
    page = tmp_path / "plots.png"
    result = run("dataset", "stats", rig.folders["coco"], "--plots", page)
    assert result.exit_code == 0, result.output
    assert "2 videos, 19 frames (19 with masks), 6 objects, 54 masks" in result.output
    assert "человек: 2 objects, 19 masks" in result.output
    assert page.read_bytes()[:4] == b"\x89PNG"
    whole = load(run("dataset", "stats", "--db", rig.db, "--json"))
    assert (whole["videos"], whole["masks"]) == (2, 54)
    one = load(run("dataset", "stats", rig.sessions[0], "--db", rig.db, "--json"))
    assert (one["videos"], one["masks"]) == (1, 40)
    both = load(run("dataset", "stats", *rig.sessions, "--db", rig.db, "--json"))
    assert both["categories"] == whole["categories"]


def test_validate_fails_on_errors_and_strictly_on_warnings(rig: Rig, tmp_path: Path) -> None:
    assert run("dataset", "validate", "coco", rig.folders["coco"]).exit_code == 0
    yolo = ("dataset", "validate", "yoloseg", rig.folders["yoloseg"])
    assert run(*yolo).exit_code == 0
    assert run(*yolo, "--strict").exit_code == 1
    folder = rig.copy("coco", tmp_path / "coco")
    edit_json(
        folder / "annotations/instances_train.json",
        lambda data: [entry.update(area=1) for entry in data["annotations"]] and None,
    )
    result = run("dataset", "validate", "coco", folder, "--limit", 3)
    assert result.exit_code == 1
    # Object 7 covers a single pixel, so 12 of the 54 areas are right.
    assert "42 errors, 0 warnings" in result.output
    assert "… and 39 more" in result.output
    assert "annotations id 1: has area 1, want" in result.output
    assert load(run("dataset", "validate", "coco", folder, "--json"))["errors"] == 42
    rules = run("dataset", "validate", "mots", folder, "--rules")
    assert rules.exit_code == 0 and "mots.seqinfo" in rules.output


def test_diff_is_a_gate(rig: Rig) -> None:
    equal = run("dataset", "diff", rig.folders["coco"], rig.folders["native"])
    assert (equal.exit_code, equal.output) == (0, "equal: 6 same\n")
    changed = run("dataset", "diff", rig.folders["coco"], rig.folders["ytvos"])
    assert changed.exit_code == 1
    assert "Видео один, object 1: changed, J&F 0.8" in changed.output
    assert "differs: 2 changed, 4 same" in changed.output
    lenient = ("dataset", "diff", rig.folders["coco"], rig.folders["ytvos"], "--tolerance", "0.5")
    assert run(*lenient).exit_code == 0
    document = load(run(*lenient, "--json"))
    assert document["differs"] is False and document["objects"] == {"changed": 2, "same": 4}
    session = rig.sessions[0]
    assert run("dataset", "diff", session, session, "--db", rig.db).exit_code == 0


def test_agreement_has_a_threshold(rig: Rig) -> None:
    names = (rig.folders["coco"], rig.folders["native"], rig.folders["mots"])
    result = run("dataset", "agreement", *names)
    assert result.exit_code == 0 and "mean J&F 0.9" in result.output
    assert run("dataset", "agreement", *names, "--at-least", "0.99").exit_code == 1
    assert load(run("dataset", "agreement", *names, "--json"))["pairs"][0]["j_and_f"] == 1


def test_preview_says_what_it_wrote(rig: Rig, tmp_path: Path) -> None:
    result = run("dataset", "preview", rig.folders["mots"], tmp_path / "out", "--every", 6)
    assert result.exit_code == 0
    assert f"{tmp_path / 'out' / '動画 二.png'}: 2 frames of 動画 二\n" in result.output
    single = load(
        run("dataset", "preview", rig.sessions[0], tmp_path / "a.png", "--db", rig.db, "--json")
    )
    assert single[0]["tiles"] == 12 and Path(single[0]["path"]).is_file()


def test_review_lists_the_worst_first(rig: Rig) -> None:
    result = run("review", "--db", rig.db)
    assert result.exit_code == 0
    assert "motion: moves" in result.output.splitlines()[0]
    document = load(run("review", rig.sessions[1], "--db", rig.db, "--json", "--limit", 1))
    assert document["items"][0]["frame_idx"] == 5
    assert document["total"] >= len(document["items"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dataset", "stats", "no-such-session"), "no-such-session"),
        (("dataset", "stats", "./nowhere/"), "is not a folder"),
        (("dataset", "diff", "nowhere", "nobody"), "nowhere"),
        (("dataset", "validate", "coco", "nowhere"), "is not a folder"),
        (("review", "a", "b", "--against", "c"), "name exactly one"),
        (("dataset", "stats", "--format", "voc", "."), "Unknown format"),
    ],
)
def test_mistakes_are_one_sentence(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGETAM_LABEL_DB", str(rig.db))
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments), prog_name="edgetam-label")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("Error: ") and error.count("\n") == 1
