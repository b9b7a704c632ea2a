"""The schema is made by migrations, once, whoever comes first, whatever happens on the way."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from session_samples import finish, media, python, sql
from sqlalchemy import create_engine

from edgetam_label.errors import StoreError
from edgetam_label.migrations import HEAD, VERSION_TABLE, alembic_config, known_revisions, upgrade
from edgetam_label.session_schema import METADATA
from edgetam_label.sessions import SessionStore


def test_head_is_the_newest_revision() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert scripts.get_heads() == [HEAD]
    assert HEAD in known_revisions()


def test_the_migrated_database_equals_the_schema(tmp_path: Path) -> None:
    SessionStore(tmp_path / "s.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 's.db'}")
    with engine.connect() as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, METADATA) == []
        # What autogenerate does not compare: columns of primary keys and checks.
        fresh = create_engine("sqlite://")
        METADATA.create_all(fresh)
        query = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index')"
        with fresh.connect() as wanted:
            expected = {n: _plain(s) for n, s in wanted.exec_driver_sql(query)}
        found = {n: _plain(s) for n, s in connection.exec_driver_sql(query)}
        assert {n: s for n, s in found.items() if VERSION_TABLE not in n} == expected
    engine.dispose()
    fresh.dispose()


def _plain(statement: str | None) -> list[str]:
    """The parts of a CREATE statement; the order of constraints does not matter."""
    text = " ".join((statement or "").split())
    return sorted(part.strip(" ,)") for part in text.split(" CONSTRAINT "))


def test_downgrade_leaves_nothing(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 's.db'}")
    with engine.begin() as connection:
        upgrade(connection)
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    engine.dispose()
    left = sql(tmp_path / "s.db", "SELECT name FROM sqlite_master WHERE type = 'table'")
    assert {name for (name,) in left} <= {VERSION_TABLE, "sqlite_sequence"}


def test_a_newer_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with SessionStore(path) as store:
        session_id = store.create(media()).id
    sql(path, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreError, match=f"newer edgetam-label .schema 9999.*{HEAD}.*pip install"):
        SessionStore(path)
    assert sql(path, "SELECT id FROM sessions") == [(session_id,)]
    assert sql(path, f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]


def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    # In the way of the third table or so, when others have been made already.
    sql(path, "CREATE VIEW objects AS SELECT 1")
    with pytest.raises(StoreError, match="refused"):
        SessionStore(path)
    assert sql(path, "SELECT name FROM sqlite_master") == [("objects",)]
    sql(path, "DROP VIEW objects")
    with SessionStore(path) as store:
        store.create(media())


def test_threads_opening_new_databases_do_not_clash(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def open_new(number: int) -> None:
        try:
            with SessionStore(tmp_path / f"{number % 3}.db") as store:
                store.create(media(5))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_new, args=(i,)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(3):
        assert sql(tmp_path / f"{number}.db", "SELECT count(*) FROM sessions") == [(3,)]


OPENER = """
import sys
from session_samples import media
from edgetam_label.sessions import SessionStore
import alembic.command, alembic.script, edgetam_label.migrations  # so that opening takes no imports

print("ready", flush=True)
sys.stdin.readline()
store = SessionStore(sys.argv[1])
print("opened", flush=True)
store.create(media(5))
"""


@pytest.mark.slow
def test_processes_starting_together_do_not_clash(tmp_path: Path) -> None:
    openers = [python(OPENER, tmp_path / "s.db") for _ in range(4)]
    for opener in openers:
        assert opener.stdout is not None and opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("go\n")
        opener.stdin.flush()
    for opener in openers:
        finish(opener)
    assert sql(tmp_path / "s.db", "SELECT count(*) FROM sessions") == [(4,)]
    assert sql(tmp_path / "s.db", f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]


@pytest.mark.slow
def test_killing_a_process_that_migrates_does_no_harm(tmp_path: Path) -> None:
    moments = random.Random(3)
    for attempt in range(4):
        path = tmp_path / f"{attempt}.db"
        opener = python(OPENER, path)
        assert opener.stdin is not None and opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
        opener.stdin.write("go\n")
        opener.stdin.flush()
        time.sleep(moments.uniform(0.0, 0.15))
        opener.kill()
        opener.communicate()
        assert opener.returncode in (0, -signal.SIGKILL)
        with SessionStore(path) as store:
            store.create(media(5))
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]
