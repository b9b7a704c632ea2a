"""One database behind an SQLAlchemy URL: transactions, start-up, and refusals in plain sentences.

SQLite runs in WAL mode, so readers and the one writer do not wait for each other, with
`synchronous=NORMAL`: a commit survives the death of the process (kill -9) at any moment; a power
cut may take the last commits, but leaves a whole database. Write transactions begin with
`BEGIN IMMEDIATE`: they queue at their start, and never fail half-way for want of a lock.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from edgetam_label.errors import StoreError
from edgetam_label.migrations import HEAD, VERSION_TABLE
from edgetam_label.session_schema import METADATA

_WAL_SIZE_LIMIT = 64 * 2**20
_LOCK_NAME = "edgetam_label schema"
_LOCK_NUMBER = 0x45544C5343484D41  # "ETLSCHMA", for databases that number their advisory locks


class Database:
    """Opens, creates and migrates the database at `url`. Safe for several threads and processes.

    url: an SQLAlchemy URL, or a plain path of a SQLite file, whose folder is created.
    busy_timeout: seconds to wait for another process's write transaction.
    Raises StoreError when the database cannot be used, saying why and what to do.
    """

    def __init__(self, url: str | Path, *, busy_timeout: float = 30.0) -> None:
        self.url = parse_url(url)
        self.busy_timeout = busy_timeout
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # SQLite makes waiting writers poll; threads of one process queue here instead.
        self._writers = threading.Lock() if self.is_sqlite else nullcontext()
        self._pid = os.getpid()
        with self._sentences():
            if self._file is not None:
                self._prepare_file(self._file)
            self._engine = self._create_engine()
            try:
                if self._file is not None:
                    self._enter_wal()
                self._migrate()
            except BaseException:
                self._engine.dispose()
                raise

    @property
    def display_url(self) -> str:
        """The URL without its password; the path alone for a SQLite file."""
        return str(self._file) if self._file else self.url.render_as_string(hide_password=True)

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view; blocks no writer."""
        with self._sentences(), self._connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed as a whole at the end, or not at all."""
        with self._sentences(), self._writers, self._connect() as connection:
            writing = connection.execution_options(edgetam_label_write=True)
            with writing.begin():
                yield writing

    def reclaim(self) -> None:
        """Give the space of deleted rows back to the disk; other databases do so by themselves."""
        if self._file is None:
            return
        with self._sentences(), self._writers, self._connect() as connection:
            # The pragma frees one page a step; only executescript takes all the steps.
            with closing(connection.connection.cursor()) as cursor:
                cursor.executescript("PRAGMA incremental_vacuum")

    def close(self) -> None:
        self._engine.dispose()

    @property
    def _file(self) -> Path | None:
        name = self.url.database
        if not self.is_sqlite or not name or name == ":memory:" or name.startswith("file:"):
            return None
        return Path(name)

    def _connect(self) -> Connection:
        if os.getpid() != self._pid:
            # A forked child must neither use nor close the connections of its parent.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine.connect()

    def _create_engine(self) -> Engine:
        if not self.is_sqlite:
            return create_engine(self.url, pool_pre_ping=True)
        # A database in memory belongs to its connection: all threads take turns on that one.
        one = (
            {"pool_size": 1, "max_overflow": 0}
            if self.url.database in (None, "", ":memory:")
            else {}
        )
        engine = create_engine(
            self.url,
            poolclass=QueuePool,
            connect_args={"check_same_thread": False, "timeout": self.busy_timeout},
            **one,
        )
        event.listen(engine, "connect", self._configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _configure_sqlite(self, connection: Any, _record: Any) -> None:
        try:
            # Python's driver would begin transactions by itself, and always deferred ones.
            connection.isolation_level = None
            connection.execute(f"PRAGMA busy_timeout = {int(self.busy_timeout * 1000)}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_SIZE_LIMIT}")
        except sqlite3.Error:
            connection.close()  # the pool never gets to know it
            raise

    def _prepare_file(self, path: Path) -> None:
        if path.is_dir():
            raise StoreError(f"{path} is a folder; give the path of a database file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder {path.parent} for the session database cannot be made: "
                f"{error.strerror}. Choose another place with --db."
            ) from error
        target = path if path.exists() else path.parent
        if not os.access(target, os.W_OK):
            raise StoreError(_READ_ONLY.format(url=path))

    def _enter_wal(self) -> None:
        """Switch the file to write-ahead logging; once is enough, the file remembers."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                # Outside a transaction, hence on the driver's own connection.
                with closing(self._engine.raw_connection()) as connection:
                    # An open cursor would keep the file open after a failure.
                    with closing(connection.cursor()) as cursor:
                        cursor.execute("PRAGMA journal_mode")
                        if cursor.fetchall()[0][0] != "wal":
                            cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
                            cursor.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # SQLite does not wait by itself for this switch when another process makes it.
                if _sqlite_error(error) != "SQLITE_BUSY" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        with self.read() as connection:
            if _schema_version(connection) == HEAD:
                return
        with self._sentences(), self._writers, self._connect() as connection:
            writing = connection.execution_options(edgetam_label_write=True)
            with writing.begin(), _schema_lock(writing):
                self._upgrade(writing)

    def _upgrade(self, connection: Connection) -> None:
        from edgetam_label.migrations import known_revisions, upgrade

        # Read again: while we waited for the lock another process may have done the work.
        found = _schema_version(connection)
        if found == HEAD:
            return
        if found is not None and found not in known_revisions():
            raise StoreError(
                f"The session database {self.display_url} was written by a newer edgetam-label "
                f"(schema {found}; this version knows up to {HEAD}). "
                "Upgrade with `pip install -U edgetam-label`, or choose another file with --db."
            )
        clash = sorted(set(inspect(connection).get_table_names()) & set(METADATA.tables))
        if found is None and clash:
            raise StoreError(
                f"The database {self.display_url} belongs to another program (it has a table "
                f"{clash[0]!r} that is not ours). Choose another one with --db."
            )
        upgrade(connection)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error, PoolTimeout) as error:
            raise StoreError(_explain(error, self.display_url)) from error


def parse_url(url: str | Path) -> URL:
    """An SQLAlchemy URL, or a plain path of a SQLite file made absolute."""
    if isinstance(url, str) and "://" in url:
        try:
            parsed = make_url(url)
            parsed.get_dialect().import_dbapi()
        except NoSuchModuleError:
            raise StoreError(
                f"Databases of the kind {url.split('://')[0]!r} are not known. Give a file path, "
                "or an SQLAlchemy URL such as sqlite:///sessions.db or postgresql://host/name."
            ) from None
        except ImportError as error:
            raise StoreError(
                f"The database driver {error.name!r} is not installed; run `pip install "
                f"{(error.name or '').split('.')[0]}`, or name another driver in the URL."
            ) from error
        except (ArgumentError, ValueError):
            # Without the text: a password may be in it.
            raise StoreError(
                "The database URL cannot be read; write it like sqlite:///sessions.db or "
                "postgresql://user:password@host/name."
            ) from None
        if parsed.get_backend_name() != "sqlite" or not parsed.database:
            return parsed
        url = parsed.database
        if url == ":memory:" or url.startswith("file:"):
            return parsed
        return parsed.set(database=str(Path(url).expanduser().absolute()))
    if str(url) == ":memory:":
        return URL.create("sqlite")
    if not str(url).strip():
        raise StoreError("The database path is empty; give a file path or an SQLAlchemy URL.")
    return URL.create("sqlite", database=str(Path(url).expanduser().absolute()))


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("edgetam_label_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _schema_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


@contextmanager
def _schema_lock(connection: Connection) -> Iterator[None]:
    """Keep other processes from migrating; SQLite's write transaction does so by itself."""
    name = connection.dialect.name
    if name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _LOCK_NUMBER})
        yield
    elif name in ("mysql", "mariadb"):
        connection.execute(text("SELECT GET_LOCK(:name, 60)"), {"name": _LOCK_NAME})
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": _LOCK_NAME})
    else:
        yield


_READ_ONLY = (
    "The session database {url} cannot be written: the file or its folder is read-only. "
    "Make it writable, or choose another place with --db."
)
_REFUSALS = {
    "SQLITE_BUSY": "The session database {url} is locked: another process has been writing to it "
    "for too long. Wait for it to finish or stop it, then try again.",
    "SQLITE_LOCKED": "The session database {url} is locked by another connection; try again.",
    "SQLITE_FULL": "The disk is full: the session database {url} cannot grow. Free some space and "
    "try again; what was stored before is safe.",
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_NOTADB": "{url} is not a session database (it is a file of another kind). "
    "Choose another file with --db.",
    "SQLITE_CORRUPT": "The session database {url} is damaged. Restore a copy, or save what is "
    "readable with `sqlite3 FILE .recover`.",
    "SQLITE_CANTOPEN": "The session database {url} cannot be opened. Check that its folder exists "
    "and that you may write there.",
    "SQLITE_IOERR": "The session database {url} cannot be read or written: the disk reports an "
    "error, is full, or the file has reached a size limit. What was stored before is safe.",
}


def _sqlite_error(error: BaseException | None) -> str:
    """The primary code of an extended one: SQLITE_BUSY_SNAPSHOT is a SQLITE_BUSY."""
    name = str(getattr(error, "sqlite_errorname", "") or "")
    return "_".join(name.split("_")[:2])


def _explain(error: Exception, url: str) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    sentence = _REFUSALS.get(_sqlite_error(original))
    if sentence is not None:
        return sentence.format(url=url)
    reason = str(original).strip().splitlines()[0] if str(original).strip() else repr(original)
    return f"The session database {url} refused: {reason.rstrip('.')}."
