"""Settings of the command line and the server: flags win over `EDGETAM_LABEL_*` variables.

Only the composition roots (`cli.py` with its commands, `create_app`) build a `Settings`; what lies
below them gets plain arguments and never reads the environment. docs/settings.md lists every one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgetam_label.errors import ConfigError

ENV_PREFIX = "EDGETAM_LABEL_"
APP_NAME = "edgetam-label"


def default_data_dir() -> Path:
    """Where sessions live unless told otherwise (platform's user data folder)."""
    return Path(platformdirs.user_data_dir(APP_NAME, appauthor=False))


def default_cache_dir() -> Path:
    """Where downloads live unless told otherwise (platform's user cache folder)."""
    return Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False))


class Settings(BaseSettings):
    """What every command shares. Field `x` is read from the flag `--x` or `EDGETAM_LABEL_X`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="ignore", frozen=True
    )

    model: str = Field("auto", description="config name, a .toml config, or `auto`")
    checkpoint: str | None = Field(None, description="weights: a file, a known name, or `random`")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where the model runs"
    )
    precision: Literal["float32", "bfloat16"] | None = Field(
        None, description="of the large products; bfloat16 is faster and less exact"
    )
    db: str = Field(
        default_factory=lambda: str(default_data_dir() / "sessions.db"),
        description="session database: a file or any SQLAlchemy URL",
    )
    cache_dir: Path = Field(
        default_factory=default_cache_dir, description="folder for downloaded checkpoints"
    )
    mirror: str | None = Field(
        None, description="base URL to fetch checkpoints from in place of the original"
    )

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Settings from `flags` (None means: not given), then the environment, then defaults.

        Raises ConfigError naming the flag or variable and the value seen.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise ConfigError(_explain(error, given)) from None

    def model_arguments(self) -> dict[str, Any]:
        """What these settings tell `checkpoints.load_model`, by the names of its arguments."""
        return {
            "name_or_path": self.model,
            "checkpoint": self.checkpoint,
            "device": self.device,
            "checkpoint_dir": self.checkpoint_dir,
            "precision": self.precision,
        }

    @property
    def checkpoint_dir(self) -> Path:
        """Folder that downloaded checkpoints are kept in."""
        return self.cache_dir / "checkpoints"


def _explain(error: ValidationError, flags: dict[str, Any]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    variable = ENV_PREFIX + name.upper()
    where = f"--{name.replace('_', '-')}" if name in flags else variable
    seen = flags.get(name, os.environ.get(variable))
    expected = first.get("ctx", {}).get("expected")
    wanted = f"use one of {expected}" if expected else str(first["msg"])
    return f"{where} is {seen!r}; {wanted}."
