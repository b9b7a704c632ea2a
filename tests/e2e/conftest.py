from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_studio import LabelStudio, Server, program


@pytest.fixture(scope="session")
def template() -> Path:
    """A migrated Label Studio folder, kept between runs where $LABEL_STUDIO_TEMPLATE names one."""
    given = os.environ.get("LABEL_STUDIO_TEMPLATE")
    return Path(given) if given else Path(tempfile.mkdtemp(prefix="ls-template-")) / "migrated"


@pytest.fixture(scope="module")
def studio(template: Path) -> Iterator[LabelStudio]:
    if program() is None:
        pytest.skip("no Label Studio here; install it and set LABEL_STUDIO_VENV")
    with LabelStudio(template) as running:
        yield running


@pytest.fixture(scope="session")
def weights() -> dict[str, str]:
    """Settings of the model under test; $EDGETAM_TEST_CHECKPOINT tries other weights."""
    given = os.environ.get("EDGETAM_TEST_CHECKPOINT")
    model = os.environ.get("EDGETAM_TEST_MODEL", "auto")
    return {"model": model, "checkpoint": given} if given else {}


@pytest.fixture(scope="module")
def server(
    studio: LabelStudio, weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("backend"), studio, predict_deadline=90, **weights).start()
    try:
        yield one
    finally:
        one.stop()
