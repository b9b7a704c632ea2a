"""`edgetam-label train` and `finetune` from the shell: real processes, real signals, real files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result
from true_dataset import write_davis, write_youtube_vos

from edgetam_label.checkpoints import load_model
from edgetam_label.errors import UsageError
from edgetam_label.training.commands import finetune, train

COMMAND = (sys.executable, "-m", "edgetam_label")
QUICK = ("--config", "tiny", "--device", "cpu", "--workers", "0")
ALONE = ("--processes", "1", "--held-out", "0")


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def invoke(command: click.Command, *arguments: object) -> Result:
    """The command in this process: the same code without another import of torch."""
    return CliRunner().invoke(command, [str(a) for a in arguments])


def steps_of(resume: Path) -> int:
    return int(torch.load(resume, weights_only=True)["place"]["total_steps"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that three real steps of the command made."""
    out = tmp_path_factory.mktemp("run")
    stages = ("--stage", "stills,steps=2,batch=2", "--stage", "clips,steps=1,batch=1,frames=3")
    done = invoke(train, *QUICK, *ALONE, *stages, "--out", out)
    assert done.exit_code == 0, done.output
    assert str(out / "model.pt") in done.output
    return out / "model.pt"


@pytest.mark.slow
def test_two_processes_stop_when_told_and_go_on(tmp_path: Path) -> None:
    def run(steps: int, *more: object) -> subprocess.Popen[str]:
        stage = f"stills,steps={steps},batch=1,objects=1,shrink=0.5"
        common = ("--processes", 2, "--held-out", 8, "--stage", stage, "--out", tmp_path)
        return start("train", *QUICK, "--workers", 1, *common, *more)

    process, log = run(100_000), tmp_path / "log.csv"
    waiting_since = time.monotonic()
    while not log.exists() and time.monotonic() < waiting_since + 240:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)  # loaders too, as service managers do
    finish(process)
    stopped_at = steps_of(tmp_path / "resume.pt")
    assert stopped_at >= 20
    assert load_model(tmp_path / "model.pt", device="cpu").config.name == "tiny"

    goal = (stopped_at // 20 + 1) * 20
    finish(run(goal, "--resume", tmp_path / "resume.pt"))
    assert steps_of(tmp_path / "resume.pt") == goal
    rows = list(csv.DictReader(log.open()))
    numbers = [int(row["step"]) for row in rows if row["kind"] == "train"]
    assert numbers == sorted(set(numbers)) and numbers[-1] == goal
    held_out = [row for row in rows if row["kind"] == "held out"]
    assert len(held_out) == 1 and "clip_iou=" in held_out[0]["values"]
    assert (tmp_path / f"predictions_{goal:06d}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--stage", "movies,steps=3"], "Unknown training stage 'movies'"),
        (["--stage", "stills,speed=3"], "has no option 'speed'; there are steps"),
        (["--stage", "stills,steps=many"], "'many' is no value for steps"),
        (["--stage", "stills"], "needs a length in steps or in minutes"),
        (["--stage", "clips,steps=3,frames=8-4"], "frames 8-4"),
        (["--still-minutes", "0", "--clip-minutes", "0"], "nothing to train"),
        (["--config", "huge", "--still-steps", "3"], "huge"),
        (["--data", ".", "--still-steps", "3"], "no known layout"),
    ],
)
def test_wrong_training_input_gets_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = invoke(train, *QUICK, *ALONE, "--out", "run", *arguments).exception
    assert isinstance(error, UsageError)
    assert sentence in str(error)
    assert not (tmp_path / "run").exists()


def test_training_goes_on_from_weights_with_folders_mixed_in(base: Path, tmp_path: Path) -> None:
    data, out = write_davis(tmp_path / "davis"), tmp_path / "more"
    stage = ("--stage", "clips,steps=2,batch=1,frames=3")
    done = invoke(train, *QUICK, *ALONE, *stage, "--data", data, "--init", base, "--out", out)
    assert done.exit_code == 0, done.output
    assert steps_of(out / "resume.pt") == 2


@pytest.mark.slow
def test_fine_tuning_reports_and_spares_its_base(base: Path, tmp_path: Path) -> None:
    data, before = write_youtube_vos(tmp_path / "ytvos"), base.read_bytes()
    arguments = ("--data", data, "--steps", 2, "--part", "memory", "--device", "cpu")
    mine = tmp_path / "mine.pt"
    done = invoke(finetune, *arguments, "--base", base, "--out", mine, "--json")
    report = json.loads(done.stdout)
    assert report["before"].keys() == report["after"].keys() >= {"click", "clip_iou"}
    assert report["steps"] == 2 and report["held_out_videos"] == 1
    assert load_model(mine, device="cpu").config.name == "tiny"
    for target in (base, mine):
        error = invoke(finetune, *arguments, "--base", base, "--out", target).exception
        assert isinstance(error, UsageError) and str(error).endswith("Give another --out.")
    assert base.read_bytes() == before
