"""The tables of the session database, and the compact columns' encodings.

`sessions.pk` is the internal key: masks repeat it a million times, so it is an integer. The
migrations in `migrations/versions` build these tables; a test keeps the two equal.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect

# MySQL's plain TEXT and BLOB end at 64 KiB; a mask prompt or a pts table may be longer.
LongText = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
LongBinary = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


class UTCDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes in Python, whatever the database does about time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return super().load_dialect_impl(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _session_pk() -> Column[int]:
    return Column(
        "session_pk", ForeignKey("sessions.pk", ondelete="CASCADE"), primary_key=True, type_=Integer
    )


MODELS = Table(
    "models",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(128), nullable=False),
    Column("checkpoint_sha256", String(64), nullable=False),
    Column("config_sha256", String(64), nullable=False),
    Index("uq_models_identity", "name", "checkpoint_sha256", "config_sha256", unique=True),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("pk", Integer, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("key", String(255), nullable=True, unique=True),
    Column("name", LongText, nullable=False),
    Column("model_id", ForeignKey("models.id"), nullable=True),
    Column("cursor", Integer, nullable=False, default=0),
    Column("created_at", UTCDateTime, nullable=False),
    Column("updated_at", UTCDateTime, nullable=False),
    # A deleted session's number is not given out again: an iterator that is still open on it
    # must run dry, not read its successor.
    sqlite_autoincrement=True,
)

MEDIA = Table(
    "media",
    METADATA,
    _session_pk(),
    Column("source", LongText, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("num_frames", Integer, nullable=False),
    Column("time_base_num", Integer, nullable=False),
    Column("time_base_den", Integer, nullable=False),
    Column("pts", LongBinary, nullable=False),
    Column("names", LongBinary, nullable=False),
)

OBJECTS = Table(
    "objects",
    METADATA,
    _session_pk(),
    Column("obj_id", Integer, primary_key=True, autoincrement=False),
    Column("label", LongText, nullable=False),
    Column("color", String(7), nullable=False),
    Column("external_id", String(255), nullable=True),
    Column("attributes", LongText, nullable=False),
    Column("removed", Boolean(create_constraint=False), nullable=False, default=False),
    Index("ix_objects_external", "session_pk", "external_id"),
)

EVENTS = Table(
    "events",
    METADATA,
    _session_pk(),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("obj_id", Integer, nullable=False),
    Column("frame_idx", Integer, nullable=True),
    Column("payload", LongText, nullable=False),
    # Whether this is the prompt that holds now for its object and frame: follows from the cursor,
    # kept so that neither a click nor a look has to read the whole history.
    Column("in_force", Boolean(create_constraint=False), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Index("ix_events_in_force", "session_pk", "in_force", "obj_id", "frame_idx"),
)

MASKS = Table(
    "masks",
    METADATA,
    # The primary key serves iteration by object, ix_masks_frame iteration by frame.
    Column("session_pk", Integer, primary_key=True, autoincrement=False),
    Column("obj_id", Integer, primary_key=True, autoincrement=False),
    Column("frame_idx", Integer, primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),
    Column("score", Double, nullable=True),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("counts", LongBinary, nullable=False),
    Column("model_id", ForeignKey("models.id"), nullable=True),
    ForeignKeyConstraint(
        ["session_pk", "obj_id"], ["objects.session_pk", "objects.obj_id"], ondelete="CASCADE"
    ),
    CheckConstraint("status IN ('tracked', 'prompted', 'absent', 'approved')", name="status"),
    Index("ix_masks_frame", "session_pk", "frame_idx", "obj_id"),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("pk", Integer, primary_key=True, autoincrement=True),  # the order of starting
    Column("id", String(32), nullable=False, unique=True),
    Column("session_pk", ForeignKey("sessions.pk", ondelete="CASCADE"), nullable=False, index=True),
    Column("direction", String(16), nullable=False),
    Column("start", Integer, nullable=False),
    Column("stop", Integer, nullable=True),
    Column("next_frame", Integer, nullable=False),
    Column("objects", LongText, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("error", LongText, nullable=True),
    Column("owner", String(128), nullable=True),
    Column("lease_until", UTCDateTime, nullable=True),
    Column("payload", LongText, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("updated_at", UTCDateTime, nullable=False),
    sqlite_autoincrement=True,
)

# No foreign key to sessions: a person may annotate a task by hand before, or without, a session.
ANNOTATIONS = Table(
    "annotations",
    METADATA,
    Column("source_key", String(255), primary_key=True),
    Column("annotation_id", String(64), primary_key=True),
    Column("created_by", String(255), nullable=True),
    Column("updated_at", UTCDateTime, nullable=True),
    Column("payload", LongBinary, nullable=False),
)


def pack_json(value: Any) -> str:
    """Compact JSON text with sorted keys: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def pack_document(value: Any) -> bytes:
    """JSON, UTF-8, zlib: for documents that may be large (a brush region is a list of ints)."""
    return zlib.compress(pack_json(value).encode("utf-8"), 6)


def unpack_document(data: bytes) -> Any:
    return json.loads(zlib.decompress(data))


def pack_pts(pts: Sequence[int]) -> bytes:
    """Timestamps as zlib over little-endian int64 differences, the first taken from 0.

    Frames of a constant rate differ by a constant, so 100,000 of them take about a kilobyte.
    """
    values = np.asarray(pts, dtype=np.int64)
    return zlib.compress(np.diff(values, prepend=np.int64(0)).astype("<i8").tobytes(), 6)


def unpack_pts(data: bytes) -> tuple[int, ...]:
    deltas = np.frombuffer(zlib.decompress(data), dtype="<i8")
    return tuple(np.cumsum(deltas, dtype=np.int64).tolist())
