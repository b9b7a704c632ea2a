"""Exports stream: the benchmark, at a tenth of its size, needs no more memory than at its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "export_memory.py"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_masks() -> None:
    command = [sys.executable, str(SCRIPT), "--masks", "20000", "--formats", "coco,native"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines()[2:]:
        name, written, before, peak, *_ = line.split()
        assert int(written) == 20_000, name
        assert int(peak) - int(before) < 30, line  # MB; the masks alone are 9 MB of JSON in coco
        assert int(peak) < 300, line
