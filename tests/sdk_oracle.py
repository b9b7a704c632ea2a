"""Asks label-studio-sdk, in the environment that `tests/consumers/install.sh` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-consumers" / "readers" / "bin" / "python"

needs_sdk = pytest.mark.skipif(not PYTHON.is_file(), reason="run tests/consumers/install.sh first")


def ask(mode: str, question: Any, folder: Path) -> Any:
    """What `tests/consumers/label_studio_codecs.py` answers."""
    path = folder / "question.json"
    path.write_text(json.dumps(question), encoding="utf-8")
    script = ROOT / "tests" / "consumers" / "label_studio_codecs.py"
    command = [str(PYTHON), str(script), mode, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
