"""Tracking jobs: how far a propagation has come, so that it resumes after a crash."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from edgetam_label.database import Database
from edgetam_label.errors import JobEnded, UsageError
from edgetam_label.session_masks import delete_masks
from edgetam_label.session_rows import now, session_row
from edgetam_label.session_schema import JOBS, SESSIONS, pack_json
from edgetam_label.session_types import DIRECTIONS, JOB_STATES, UNFINISHED, JobPlan, TrackingJob

_JOB_WITH_SESSION = select(JOBS, SESSIONS.c.id.label("session_id")).join_from(JOBS, SESSIONS)


class TrackingJobs:
    """The jobs of a store. A job goes queued -> running -> done, failed or cancelled.

    A job ends once. From then on neither its state nor its masks are taken: a newer job may be
    writing the same frames.

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
        plan = JobPlan(direction, start, stop, tuple(objects), payload or {})
        _check(plan, state)
        with self._database.write() as connection:
            session_pk = session_row(connection, session_id).pk
            return _insert(connection, session_pk, plan, state)

    def supersede(
        self,
        session_id: str,
        plans: Sequence[JobPlan],
        *,
        known: Sequence[TrackingJob],
        drop_masks_of: Sequence[int] = (),
    ) -> list[TrackingJob] | None:
        """Record new jobs, queued, in the order given.

        In the same transaction, unfinished jobs that do nothing but what a new one does are
        cancelled, and all masks of the objects in `drop_masks_of` go, approved ones excepted.

        known: the session's jobs that were planned with. None, and nothing is done, when others
        were recorded since: the plan no longer holds.
        """
        for plan in plans:
            _check(plan, "queued")
        with self._database.write() as connection:
            session_pk = session_row(connection, session_id, lock=True).pk
            query = _JOB_WITH_SESSION.where(JOBS.c.session_pk == session_pk)
            there = [_read(row) for row in connection.execute(query)]
            if {job.id for job in there} != {job.id for job in known}:
                return None
            for job in there:
                if job.unfinished and any(_covers(plan, job) for plan in plans):
                    ended = update(JOBS).where(JOBS.c.id == job.id)
                    connection.execute(ended.values(updated_at=now(), **_ending("cancelled")))
            for obj_id in drop_masks_of:
                delete_masks(connection, session_pk, obj_id, None, include_approved=False)
            return [_insert(connection, session_pk, plan, "queued") for plan in plans]

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
        """Change what is given. A job that ends is no longer owned; one that has ended stays as it
        is."""
        values: dict[str, Any] = {}
        if state is not None:
            _check_state(state)
            values.update({"state": state} if state in UNFINISHED else _ending(state))
        if next_frame is not None:
            values["next_frame"] = int(next_frame)
        if error is not None:
            values["error"] = error
        if payload is not None:
            values["payload"] = pack_json(dict(payload))
        unfinished = (JOBS.c.id == job_id, JOBS.c.state.in_(UNFINISHED))
        with self._database.write() as connection:
            connection.execute(update(JOBS).where(*unfinished).values(updated_at=now(), **values))
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

    def release(self, job_id: str, owner: str) -> None:
        """Give an unfinished job back before its lease has run out, for whoever goes on with it."""
        mine = (JOBS.c.id == job_id, JOBS.c.owner == owner, JOBS.c.state.in_(UNFINISHED))
        with self._database.write() as connection:
            connection.execute(update(JOBS).where(*mine).values(owner=None, updated_at=now()))


def advance(connection: Connection, session_pk: int, job_id: str, next_frame: int | None) -> None:
    """Move a session's job on, inside the transaction that stores its masks.

    Raises JobEnded, with which the masks are not stored, for a job that is not under way.
    """
    values = {} if next_frame is None else {"next_frame": int(next_frame)}
    where = (JOBS.c.id == job_id, JOBS.c.session_pk == session_pk)
    statement = update(JOBS).where(*where, JOBS.c.state.in_(UNFINISHED))
    if connection.execute(statement.values(updated_at=now(), **values)).rowcount == 1:
        return
    state = connection.execute(select(JOBS.c.state).where(*where)).scalar_one_or_none()
    if state is None:
        raise _not_found(job_id)
    raise JobEnded(
        f"Tracking job {job_id} is {state}: a newer track took over its objects, or it was "
        "stopped. What it tracked since is not kept; track again once the other has ended."
    )


def _insert(connection: Connection, session_pk: int, plan: JobPlan, state: str) -> TrackingJob:
    job_id = secrets.token_hex(8)
    connection.execute(
        insert(JOBS).values(
            id=job_id,
            session_pk=session_pk,
            direction=plan.direction,
            start=int(plan.start),
            stop=None if plan.stop is None else int(plan.stop),
            next_frame=int(plan.start),
            objects=pack_json([int(obj_id) for obj_id in plan.objects]),
            state=state,
            payload=pack_json(dict(plan.payload)),
            created_at=now(),
            updated_at=now(),
        )
    )
    return read_job(connection, job_id)


def _covers(plan: JobPlan, job: TrackingJob) -> bool:
    return job.direction == plan.direction and set(job.objects) <= set(plan.objects)


def _ending(state: str) -> dict[str, Any]:
    return {"state": state, "owner": None, "lease_until": None}


def read_job(connection: Connection, job_id: str) -> TrackingJob:
    row = connection.execute(_JOB_WITH_SESSION.where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise _not_found(job_id)
    return _read(row)


def _not_found(job_id: str) -> JobEnded:
    return JobEnded(f"There is no tracking job {job_id!r}; it may have gone with its session.")


def _check(plan: JobPlan, state: str) -> None:
    if plan.direction not in DIRECTIONS:
        raise UsageError(f"Direction {plan.direction!r} is unknown; use forward or backward.")
    _check_state(state)


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
