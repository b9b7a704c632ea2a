"""Sessions between database rows and values: look up, write, read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from edgetam_label.errors import SessionNotFound
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.prompts import Prompt
from edgetam_label.session_events import parse_prompt
from edgetam_label.session_schema import (
    EVENTS,
    MASKS,
    MEDIA,
    MODELS,
    OBJECTS,
    SESSIONS,
    pack_document,
    pack_pts,
    unpack_document,
    unpack_pts,
)
from edgetam_label.session_types import (
    LabelObject,
    LabelSession,
    ModelIdentity,
    SessionSummary,
)


def now() -> datetime:
    return datetime.now(UTC)


def session_row(connection: Connection, session_id: str, *, lock: bool = False) -> Row[Any]:
    """The session's row; `lock` keeps other writers off it (SQLite's write transaction does so
    by itself). Raises SessionNotFound."""
    query = select(SESSIONS).where(SESSIONS.c.id == session_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise SessionNotFound(
            f"There is no session {session_id!r}; `edgetam-label sessions list` shows those stored."
        )
    return row


def touch(connection: Connection, session_pk: int, **values: Any) -> None:
    """Set `updated_at`, and `values` with it."""
    connection.execute(
        update(SESSIONS).where(SESSIONS.c.pk == session_pk).values(updated_at=now(), **values)
    )


def model_id(connection: Connection, model: ModelIdentity) -> int:
    """The number of this model; it gets one when it is new."""
    columns = {
        "name": model.name,
        "checkpoint_sha256": model.checkpoint_sha256,
        "config_sha256": model.config_sha256,
    }
    query = select(MODELS.c.id).where(and_(*(MODELS.c[k] == v for k, v in columns.items())))
    found = connection.execute(query).scalar()
    if found is not None:
        return int(found)
    try:
        with connection.begin_nested():
            connection.execute(insert(MODELS).values(columns))
    except IntegrityError:
        pass  # another process registered the same model a moment ago
    return int(connection.execute(query).scalar_one())


def insert_media(connection: Connection, session_pk: int, media: MediaIdentity) -> None:
    connection.execute(
        insert(MEDIA).values(
            session_pk=session_pk,
            source=media.source,
            kind=media.kind,
            size_bytes=media.size_bytes,
            sha256=media.sha256,
            width=media.width,
            height=media.height,
            num_frames=media.num_frames,
            time_base_num=media.time_base[0],
            time_base_den=media.time_base[1],
            pts=pack_pts(media.pts),
            names=pack_document(list(media.names)),
        )
    )


def read_media(row: Row[Any]) -> MediaIdentity:
    return MediaIdentity(
        source=row.source,
        kind=row.kind,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        width=row.width,
        height=row.height,
        num_frames=row.num_frames,
        pts=unpack_pts(row.pts),
        time_base=(row.time_base_num, row.time_base_den),
        names=tuple(unpack_document(row.names)),
    )


def read_session(connection: Connection, row: Row[Any]) -> LabelSession:
    media = connection.execute(select(MEDIA).where(MEDIA.c.session_pk == row.pk)).one()
    return LabelSession(
        id=row.id,
        key=row.key,
        name=row.name,
        media=read_media(media),
        model=read_model(connection, row.model_id),
        objects=read_objects(connection, row.pk),
        prompts=read_prompts(connection, row.pk),
        created_at=row.created_at,
        updated_at=row.updated_at,
        num_masks=count_masks(connection, row.pk),
    )


def read_objects(connection: Connection, session_pk: int) -> tuple[LabelObject, ...]:
    """The objects in force, by obj_id."""
    query = select(OBJECTS).where(OBJECTS.c.session_pk == session_pk, ~OBJECTS.c.removed)
    return tuple(map(read_object, connection.execute(query.order_by(OBJECTS.c.obj_id))))


def read_object(row: Row[Any]) -> LabelObject:
    return LabelObject(
        row.obj_id, row.label, row.color, row.external_id, json.loads(row.attributes)
    )


def read_prompts(connection: Connection, session_pk: int) -> tuple[Prompt, ...]:
    """The prompts in force, in the order of their events."""
    query = select(EVENTS.c.obj_id, EVENTS.c.frame_idx, EVENTS.c.payload).where(
        EVENTS.c.session_pk == session_pk, EVENTS.c.in_force
    )
    return tuple(parse_prompt(*row) for row in connection.execute(query.order_by(EVENTS.c.seq)))


def read_model(connection: Connection, number: int | None) -> ModelIdentity | None:
    if number is None:
        return None
    row = connection.execute(select(MODELS).where(MODELS.c.id == number)).one()
    return ModelIdentity(row.name, row.checkpoint_sha256, row.config_sha256)


def removed_objects(session_pk: int) -> Any:
    """Subquery: ids of the objects that are not in force, whose masks stay hidden."""
    return select(OBJECTS.c.obj_id).where(OBJECTS.c.session_pk == session_pk, OBJECTS.c.removed)


def count_masks(connection: Connection, session_pk: int) -> int:
    query = select(func.count()).where(
        MASKS.c.session_pk == session_pk, MASKS.c.obj_id.not_in(removed_objects(session_pk))
    )
    return int(connection.execute(query).scalar_one())


def read_summaries(connection: Connection) -> list[SessionSummary]:
    """All sessions in the order they were created, without histories and pts tables."""
    live = and_(OBJECTS.c.session_pk == SESSIONS.c.pk, ~OBJECTS.c.removed)
    masks = (
        select(func.count())
        .select_from(OBJECTS.join(MASKS))
        .where(live)
        .correlate(SESSIONS)
        .scalar_subquery()
    )
    objects = select(func.count()).where(live).correlate(SESSIONS).scalar_subquery()
    query = (
        select(
            *(SESSIONS.c[name] for name in ("id", "key", "name", "created_at", "updated_at")),
            *(MEDIA.c[name] for name in ("source", "kind", "width", "height", "num_frames")),
            objects.label("num_objects"),
            masks.label("num_masks"),
        )
        .join_from(SESSIONS, MEDIA)
        .order_by(SESSIONS.c.pk)
    )
    return [SessionSummary(**row._mapping) for row in connection.execute(query)]
