"""How the program treats the processor that it shares with others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgetam_label.openmp import share_cores

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(
    given: dict[str, str], then: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    share_cores()
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == then


def test_the_program_says_so_before_torch_is_there() -> None:
    code = (
        "import os, sys; from edgetam_label import cli; sys.argv = ['edgetam-label', '--version']\n"
        "try: cli.main()\n"
        "finally: print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    env = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "1000 False", done.stderr
