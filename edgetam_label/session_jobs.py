"""Tracking jobs: how far a propagation has come, so that it resumes after a crash."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, update

from edgetam_label.database import Database
from edgetam_label.errors import UsageError
from edgetam_label.session_rows import now, session_row
from edgetam_label.session_schema import JOBS, SESSIONS, pack_json
from edgetam_label.session_types import DIRECTIONS, JOB_STATES, UNFINISHED, TrackingJob

_JOB_WITH_SESSION = select(JOBS, SESSIONS.c.id.label("session_id")).join_from(JOBS, SESSIONS)


class TrackingJobs:
    """The jobs of a store. A job goes queued -> running -> done, failed or cancelled.

    >>> job = store.jobs.start(session.id, direction="forward", start=0)
    >>> store.save_masks(session.id, masks, job_id=job.id, next_frame=32)  # one transaction
    >>> store.jobs.update(job.id, state="done")
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(
        self,
        session_id: str,
        *,
        direction: str,
        start: int,
        stop: int | None = None,
        objects: Sequence[int] = (),
        state: str = "running",
        payload: Mapping[str, Any] | None = None,
    ) -> TrackingJob:
        """Record a new job; its next_frame is `start`."""
        if direction not in DIRECTIONS:
            raise UsageError(f"Direction {direction!r} is unknown; use forward or backward.")
        _check_state(state)
        job_id = secrets.token_hex(8)
        with self._database.write() as connection:
            session_pk = session_row(connection, session_id).pk
            connection.execute(
                insert(JOBS).values(
                    id=job_id,
                    session_pk=session_pk,
                    direction=direction,
                    start=int(start),
                    stop=None if stop is None else int(stop),
                    next_frame=int(start),
                    objects=pack_json([int(obj_id) for obj_id in objects]),
                    state=state,
                    payload=pack_json(dict(payload or {})),
                    created_at=now(),
                    updated_at=now(),
                )
            )
            return read_job(connection, job_id)

    def get(self, job_id: str) -> TrackingJob:
        """Raises UsageError when there is no such job."""
        with self._database.read() as connection:
            return read_job(connection, job_id)

    def find(
        self, session_id: str | None = None, *, states: Sequence[str] = JOB_STATES
    ) -> list[TrackingJob]:
        """Jobs in the order they were started, of one session or of all."""
        query = _JOB_WITH_SESSION.where(JOBS.c.state.in_(states))
        if session_id is not None:
            query = query.where(SESSIONS.c.id == session_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(JOBS.c.pk))
            return [_read(row) for row in rows]

    def unfinished(self, session_id: str | None = None) -> list[TrackingJob]:
        """Jobs that a restarted program has to take up again."""
        return self.find(session_id, states=UNFINISHED)

    def update(
        self,
        job_id: str,
        *,
        state: str | None = None,
        next_frame: int | None = None,
        error: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> TrackingJob:
        """Change what is given. A job that ends is no longer owned."""
        values: dict[str, Any] = {}
        if state is not None:
            _check_state(state)
            values["state"] = state
            if state not in UNFINISHED:
                values.update(owner=None, lease_until=None)
        if next_frame is not None:
            values["next_frame"] = int(next_frame)
        if error is not None:
            values["error"] = error
        if payload is not None:
            values["payload"] = pack_json(dict(payload))
        with self._database.write() as connection:
            _change(connection, [JOBS.c.id == job_id], job_id, values)
            return read_job(connection, job_id)

    def claim(self, job_id: str, owner: str, lease_seconds: float = 60.0) -> bool:
        """Become the one who works on an unfinished job, or prolong the lease; False when another
        owner's lease still runs. A crashed owner's job is free once its lease has run out."""
        moment = now()
        free = or_(JOBS.c.owner.is_(None), JOBS.c.owner == owner, JOBS.c.lease_until < moment)
        statement = update(JOBS).where(JOBS.c.id == job_id, JOBS.c.state.in_(UNFINISHED), free)
        values = {
            "owner": owner,
            "lease_until": moment + timedelta(seconds=lease_seconds),
            "state": "running",
            "updated_at": moment,
        }
        with self._database.write() as connection:
            return connection.execute(statement.values(values)).rowcount == 1


def advance(connection: Connection, session_pk: int, job_id: str, next_frame: int | None) -> None:
    """Move a session's job on, inside the transaction that stores its masks."""
    values = {} if next_frame is None else {"next_frame": int(next_frame)}
    _change(connection, (JOBS.c.id == job_id, JOBS.c.session_pk == session_pk), job_id, values)


def _change(
    connection: Connection,
    where: Sequence[ColumnElement[bool]],
    job_id: str,
    values: Mapping[str, Any],
) -> None:
    statement = update(JOBS).where(*where).values(updated_at=now(), **values)
    if connection.execute(statement).rowcount != 1:
        raise _not_found(job_id)


def read_job(connection: Connection, job_id: str) -> TrackingJob:
    row = connection.execute(_JOB_WITH_SESSION.where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise _not_found(job_id)
    return _read(row)


def _not_found(job_id: str) -> UsageError:
    return UsageError(f"There is no tracking job {job_id!r}; it may have gone with its session.")


def _check_state(state: str) -> None:
    if state not in JOB_STATES:
        raise UsageError(f"Job state {state!r} is unknown; use one of {', '.join(JOB_STATES)}.")


def _read(row: Row[Any]) -> TrackingJob:
    return TrackingJob(
        id=row.id,
        session_id=row.session_id,
        direction=row.direction,
        start=row.start,
        stop=row.stop,
        next_frame=row.next_frame,
        objects=tuple(json.loads(row.objects)),
        state=row.state,
        error=row.error,
        owner=row.owner,
        lease_until=row.lease_until,
        payload=json.loads(row.payload),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
