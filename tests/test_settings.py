"""Flags win over variables, variables over defaults; a wrong value is named with its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetam_label.errors import ConfigError
from edgetam_label.settings import Settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EDGETAM_LABEL_{name.upper()}", raising=False)


def test_defaults() -> None:
    settings = Settings.load()
    assert (settings.model, settings.checkpoint, settings.device) == ("auto", None, "auto")
    assert settings.db.endswith("sessions.db") and settings.mirror is None
    assert settings.checkpoint_dir == settings.cache_dir / "checkpoints"


def test_a_flag_wins_over_the_environment_and_none_means_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGETAM_LABEL_MODEL", "tiny")
    monkeypatch.setenv("EDGETAM_LABEL_DB", "from-env.db")
    monkeypatch.setenv("EDGETAM_LABEL_CACHE_DIR", "/somewhere")
    settings = Settings.load(model="edgetam", db=None)
    assert (settings.model, settings.db) == ("edgetam", "from-env.db")
    assert settings.cache_dir == Path("/somewhere")


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETAM_LABEL_MODEL", "")
    monkeypatch.setenv("EDGETAM_LABEL_DEVICE", "")
    assert (Settings.load().model, Settings.load().device) == ("auto", "auto")


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        Settings.load(device="gpu")
    assert str(error.value) == "--device is 'gpu'; use one of 'auto', 'cpu', 'cuda' or 'mps'."


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETAM_LABEL_DEVICE", "tpu")
    with pytest.raises(ConfigError, match=r"^EDGETAM_LABEL_DEVICE is 'tpu'; use one of"):
        Settings.load()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().model = "tiny"  # type: ignore[misc]
