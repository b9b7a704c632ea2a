"""The session database's schema through time, run by Alembic when a store is opened.

A new revision: add a module to `versions`, set its `down_revision`, and raise HEAD. Tests check
that HEAD is the newest revision and that the migrated database equals `session_schema`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0001"
VERSION_TABLE = "edgetam_label_schema"

# Alembic hands its context to the revisions through module globals: one migration at a time.
_one_at_a_time = threading.Lock()


def alembic_config() -> Config:
    """Alembic's settings without an alembic.ini: the scripts lie beside this file."""
    from alembic.config import Config

    config = Config()
    # A "%" in the path would be read as interpolation by configparser.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def known_revisions() -> frozenset[str]:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to `revision` inside the transaction that `connection` is in."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, revision)
