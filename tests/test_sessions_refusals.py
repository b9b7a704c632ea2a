"""When the database refuses, a person reads one sentence that says what to do."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_samples import finish, mask, media, python, sql

from edgetam_label.errors import StoreError
from edgetam_label.masks import RLE
from edgetam_label.sessions import FrameMask, LabelObject, SessionStore


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(StoreError) as caught:
        SessionStore(*args, **kwargs).close()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def big_masks(start: int) -> list[FrameMask]:
    """About 250 KB."""
    return [FrameMask(1, f, RLE((8, 4), os.urandom(5000))) for f in range(start, start + 50)]


def new_session(store: SessionStore) -> str:
    session_id = store.create(media()).id
    store.set_object(session_id, LabelObject(1, "cat"))
    return session_id


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("This is a text file, long enough to be looked at as a database. " * 50)
    before = path.read_bytes()
    assert f"{path} is not a session database" in refusal(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path) as store:
        session_id = new_session(store)
        store.save_masks(session_id, big_masks(0))
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged.*Restore a copy"):
        with SessionStore(path) as store:
            list(store.iter_masks(session_id))


def test_folders_and_places_that_cannot_be(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "file").write_text("x")
    message = refusal(tmp_path / "file" / "deeper" / "sessions.db")
    assert "cannot be made" in message and "--db" in message
    assert "empty" in refusal("")


READ_ONLY = """
import os, sys
from edgetam_label.errors import StoreError
from edgetam_label.sessions import SessionStore

if os.getuid() == 0:
    os.setuid(65534)  # root may write everywhere
for path in sys.argv[1:]:
    try:
        SessionStore(path)
    except StoreError as error:
        print(error)
"""


def test_a_read_only_file_and_folder() -> None:
    # Not tmp_path: its parents are closed to the user that root turns into.
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "sessions.db"
        SessionStore(path).close()
        path.chmod(0o444)
        folder.chmod(0o555)
        lines = finish(python(READ_ONLY, path, folder / "new.db")).splitlines()
        assert len(lines) == 2
        for line, name in zip(lines, (path, folder / "new.db"), strict=True):
            assert f"{name} cannot be written" in line and "read-only" in line
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_locked_database(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path, busy_timeout=0.2) as store:
        session_id = new_session(store)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StoreError, match="is locked: another process.*try again"):
                store.save_masks(session_id, [mask(1, 0)])
            assert store.get(session_id).num_masks == 0  # readers are not locked out
            SessionStore(path, busy_timeout=0.2).close()
            assert "is locked" in refusal_of_new(tmp_path)
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert store.save_masks(session_id, [mask(1, 0)]) == 1


def refusal_of_new(tmp_path: Path) -> str:
    """Opening an empty file that another process is just filling."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        return refusal(path, busy_timeout=0.2)
    finally:
        other.close()


def fill(store: SessionStore, session_id: str) -> tuple[int, str]:
    """Write until the database refuses: how many masks were stored, and its sentence."""
    stored = 0
    with pytest.raises(StoreError) as caught:
        while stored < 5000:
            stored += store.save_masks(session_id, big_masks(stored % 1000))
    return min(stored, 1000), str(caught.value)


def test_a_full_database_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path) as store:
        session_id = new_session(store)
        engine = store._database._engine
        with engine.connect() as connection:  # the pool hands the same connection out again
            connection.exec_driver_sql("PRAGMA max_page_count = 300")
        stored, sentence = fill(store, session_id)
        assert 0 < stored < 1000
        assert "disk is full" in sentence and "Free some space" in sentence
        assert store.get(session_id).num_masks == stored
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        assert store.save_masks(session_id, big_masks(900)) == 50
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_it_has(small_disk: Path) -> None:
    path = small_disk / "sessions.db"
    with SessionStore(path) as store:
        session_id = new_session(store)
        stored, sentence = fill(store, session_id)
        assert stored > 0 and ("disk is full" in sentence or "is full, or" in sentence)
        assert store.get(session_id).num_masks == stored
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    with SessionStore(path) as store:
        assert store.get(session_id).num_masks == stored
    with pytest.raises(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert "full" in refusal(small_disk / "second.db")


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path) as store:
        session_id = new_session(store)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
        try:
            stored, sentence = fill(store, session_id)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert 0 < stored < 1000 and "size limit" in sentence
        assert store.get(session_id).num_masks == stored
        assert store.save_masks(session_id, big_masks(900)) == 50


def test_urls_that_cannot_work() -> None:
    assert "'nosuchdb'" in refusal("nosuchdb://host/name")
    message = refusal("mysql+mysqldb://user:hunter2@host/name")
    assert "pip install MySQLdb" in message and "hunter2" not in message
    message = refusal("postgresql://user:hunter2@host:port/name")
    assert "cannot be read" in message and "hunter2" not in message


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    sql(path, "CREATE TABLE sessions (token TEXT)")
    message = refusal(path)
    assert "belongs to another program" in message and "'sessions'" in message
    tables = sql(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    assert tables == [("sessions",)]
