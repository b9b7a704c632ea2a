"""Masks in the database: guarded batch upsert, and reading page by page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    insert,
    or_,
    select,
)
from sqlalchemy import update as update_of
from sqlalchemy.dialects import postgresql, sqlite

from edgetam_label.database import Database
from edgetam_label.errors import UsageError
from edgetam_label.masks import RLE
from edgetam_label.session_rows import removed_objects
from edgetam_label.session_schema import MASKS, OBJECTS
from edgetam_label.session_types import FrameMask

# A page of masks at a time is in memory; a 4K mask of a ragged object takes about 50 KB.
_PAGE_ROWS = 256
# Databases limit the number of values in one statement, SQLite of old to 999.
_CHUNK = 500

_WRITTEN = ("status", "score", "height", "width", "counts", "model_id")
_KEY = ("session_pk", "obj_id", "frame_idx")


def save(
    connection: Connection, session_pk: int, masks: Sequence[FrameMask], model_id: int | None
) -> int:
    """Insert or replace; an approved mask yields only to another approved one.

    model_id goes to the masks that a model made; an approved mask is a person's.
    Returns the number of masks written. Raises UsageError for an object never set.
    """
    rows = _rows(session_pk, masks, model_id)
    if not rows:
        return 0
    query = select(OBJECTS.c.obj_id).where(OBJECTS.c.session_pk == session_pk)
    unknown = {row["obj_id"] for row in rows} - set(connection.execute(query).scalars())
    if unknown:
        raise UsageError(
            f"Masks for object {min(unknown)} cannot be stored: the session has no such object. "
            "Set the object, or prompt it, first."
        )
    if connection.dialect.name in ("sqlite", "postgresql"):
        return _upsert(connection, rows)
    return upsert_portably(connection, session_pk, rows)


def _rows(
    session_pk: int, masks: Iterable[FrameMask], model_id: int | None
) -> list[dict[str, Any]]:
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for mask in masks:
        place = (int(mask.obj_id), int(mask.frame_idx))
        approved = mask.status == "approved"
        if place in rows and rows[place]["status"] == "approved" and not approved:
            continue
        score = float(mask.score)
        rows[place] = {
            "session_pk": session_pk,
            "obj_id": place[0],
            "frame_idx": place[1],
            "status": mask.status,
            "score": None if math.isnan(score) else score,
            "height": int(mask.rle.size[0]),
            "width": int(mask.rle.size[1]),
            "counts": mask.rle.counts,
            "model_id": None if approved else model_id,
        }
    return list(rows.values())


def _upsert(connection: Connection, rows: list[dict[str, Any]]) -> int:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(MASKS)
    statement = statement.on_conflict_do_update(
        index_elements=list(_KEY),
        set_={name: statement.excluded[name] for name in _WRITTEN},
        where=or_(MASKS.c.status != "approved", statement.excluded.status == "approved"),
    )
    counting = connection.execution_options(preserve_rowcount=True)
    return int(counting.execute(statement, rows).rowcount)


def upsert_portably(connection: Connection, session_pk: int, rows: list[dict[str, Any]]) -> int:
    """The same with plain SQL, for databases whose upsert cannot be guarded (MySQL).

    Correct because the caller holds the session's row locked.
    """
    status: dict[tuple[int, int], str] = {}
    by_object: dict[int, list[int]] = {}
    for row in rows:
        by_object.setdefault(row["obj_id"], []).append(row["frame_idx"])
    for obj_id, frames in by_object.items():
        for condition in _frame_conditions(frames):
            query = select(MASKS.c.frame_idx, MASKS.c.status).where(
                MASKS.c.session_pk == session_pk, MASKS.c.obj_id == obj_id, condition
            )
            status.update(((obj_id, f), s) for f, s in connection.execute(query))
    places = [(row["obj_id"], row["frame_idx"]) for row in rows]
    new = [row for row, place in zip(rows, places, strict=True) if place not in status]
    changed = [
        {f"{name}_": value for name, value in row.items()}
        for row, place in zip(rows, places, strict=True)
        if place in status and (status[place] != "approved" or row["status"] == "approved")
    ]
    if new:
        connection.execute(insert(MASKS), new)
    if changed:
        statement = update_of(MASKS).where(*(MASKS.c[k] == bindparam(f"{k}_") for k in _KEY))
        connection.execute(statement.values({k: bindparam(f"{k}_") for k in _WRITTEN}), changed)
    return len(new) + len(changed)


def delete_masks(
    connection: Connection,
    session_pk: int,
    obj_id: int | None,
    frames: Iterable[int] | None,
    include_approved: bool,
) -> int:
    """Returns the number of masks deleted."""
    where = [MASKS.c.session_pk == session_pk]
    if obj_id is not None:
        where.append(MASKS.c.obj_id == obj_id)
    if not include_approved:
        where.append(MASKS.c.status != "approved")
    if frames is None:
        return int(connection.execute(delete(MASKS).where(*where)).rowcount)
    statements = (delete(MASKS).where(*where, part) for part in _frame_conditions(frames))
    return sum(int(connection.execute(statement).rowcount) for statement in statements)


def _frame_conditions(frames: Iterable[int]) -> Iterator[ColumnElement[bool]]:
    if isinstance(frames, range) and abs(frames.step) == 1:
        if frames:
            yield MASKS.c.frame_idx.between(min(frames), max(frames))
        return
    wanted = sorted({int(frame) for frame in frames})
    for at in range(0, len(wanted), _CHUNK):
        yield MASKS.c.frame_idx.in_(wanted[at : at + _CHUNK])


def stream(
    database: Database,
    session_pk: int,
    *,
    obj_id: int | None,
    start: int,
    stop: int | None,
    order: str,
) -> Iterator[FrameMask]:
    """Masks by (frame, object) or (object, frame), reading a page at a time after the last key.

    Each page is a transaction of its own: between pages no lock and no snapshot is held, however
    long the consumer takes. A mask that is replaced meanwhile is seen either way, none twice.
    """
    if order not in ("frame", "object"):
        raise UsageError(f"Masks cannot be ordered by {order!r}; use 'frame' or 'object'.")
    if order == "frame" and obj_id is None:
        return _by_frame(database, session_pk, start, stop)
    return _by_object(database, session_pk, obj_id, start, stop)


def _by_frame(
    database: Database, session_pk: int, start: int, stop: int | None
) -> Iterator[FrameMask]:
    after = 0  # the last object read on frame `start`; ids begin at 1
    while True:
        # One lower bound on the frame, and only one, lets the index be entered at the right place.
        place = or_(MASKS.c.frame_idx > start, MASKS.c.obj_id > after)
        query = _page(session_pk, start, stop).where(
            place,
            # Not a join: SQLite could then begin with `objects` and sort every page anew.
            MASKS.c.obj_id.not_in(removed_objects(session_pk)),
        )
        with database.read() as connection:
            rows = connection.execute(query).all()
        yield from map(_read, rows)
        if len(rows) < _PAGE_ROWS:
            return
        start, after = rows[-1].frame_idx, rows[-1].obj_id


def _by_object(
    database: Database, session_pk: int, obj_id: int | None, start: int, stop: int | None
) -> Iterator[FrameMask]:
    live = select(OBJECTS.c.obj_id).where(OBJECTS.c.session_pk == session_pk, ~OBJECTS.c.removed)
    if obj_id is not None:
        live = live.where(OBJECTS.c.obj_id == obj_id)
    with database.read() as connection:
        objects = connection.execute(live.order_by(OBJECTS.c.obj_id)).scalars().all()
    for number in objects:
        first: int | None = start
        while first is not None:
            query = _page(session_pk, first, stop).where(MASKS.c.obj_id == number)
            with database.read() as connection:
                rows = connection.execute(query).all()
            yield from map(_read, rows)
            first = rows[-1].frame_idx + 1 if len(rows) == _PAGE_ROWS else None


def _page(session_pk: int, start: int, stop: int | None) -> Select[Any]:
    query = select(MASKS).where(MASKS.c.session_pk == session_pk, MASKS.c.frame_idx >= start)
    if stop is not None:
        query = query.where(MASKS.c.frame_idx < stop)
    return query.order_by(MASKS.c.frame_idx, MASKS.c.obj_id).limit(_PAGE_ROWS)


def _read(row: Row[Any]) -> FrameMask:
    return FrameMask(
        obj_id=row.obj_id,
        frame_idx=row.frame_idx,
        rle=RLE((row.height, row.width), row.counts),
        score=math.nan if row.score is None else row.score,
        status=row.status,
    )
