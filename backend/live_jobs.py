"""The jobs of this process: what each of them is at, and how many there may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgetam_label.sessions import TrackingJob

from .faults import TooManyJobs

KEEP_ENDED = 200
ENDED = ("done", "failed", "cancelled")


@dataclass
class LiveJob:
    """A job of this process. done, total: frames.

    late: the caller has left, so the outcome is to be pushed. pushed: it was.
    elsewhere: another server on the same database works on it.
    """

    id: str
    session_id: str
    objects: tuple[int, ...]
    client: str
    total: int
    payload: Mapping[str, Any]
    state: str = "queued"
    error: str | None = None
    done: int = 0
    late: bool = False
    pushed: bool = False
    elsewhere: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    began: float = field(default_factory=time.monotonic)
    drained: int = 0  # frames that a polling client has been handed

    @classmethod
    def of(cls, record: TrackingJob, num_frames: int, *, late: bool = False) -> LiveJob:
        """The job of a record, which may have come some way already."""
        return cls(
            id=record.id,
            session_id=record.session_id,
            objects=record.objects,
            client=str(record.payload.get("client", "")),
            total=_length(record, num_frames),
            payload=record.payload,
            done=abs(record.next_frame - record.start),
            late=late,
        )

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def counts(self) -> bool:
        """It takes, or will take, this server's time."""
        return not (self.ended or self.elsewhere or self.cancelled.is_set())

    def set(self, **values: Any) -> None:
        with self.changed:
            for name, value in values.items():
                setattr(self, name, value)
            self.changed.notify_all()

    def wait(self, until: float) -> bool:
        """True once it has ended, False at `until` (monotonic seconds)."""
        with self.changed:
            return self.changed.wait_for(
                lambda: self.ended, timeout=max(0.0, until - time.monotonic())
            )

    def leave(self) -> bool:
        """The caller goes away. False when the job ended meanwhile: its outcome is there."""
        with self.changed:
            if self.ended:
                return False
            self.late = True
            return True

    def end(self, state: str, error: str | None) -> bool:
        """True when the caller has left."""
        with self.changed:
            self.state, self.error = state, error
            self.changed.notify_all()
            return self.late

    def to_json(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.began
        return {
            **_json(self.id, self.session_id, self.objects, self.state, self.error),
            "done": self.done,
            "total": self.total,
            "frames_per_second": round(self.done / seconds, 2) if seconds > 0 else 0.0,
        }


class LiveJobs:
    """workers: jobs under way at the same time. per_client: unfinished jobs of one client."""

    def __init__(self, *, workers: int, per_client: int) -> None:
        self._workers = workers
        self._per_client = per_client
        self._lock = threading.Lock()
        self._jobs: dict[str, LiveJob] = {}

    def add(self, job: LiveJob) -> bool:
        """False when it is there already. The oldest of many ended ones are forgotten."""
        with self._lock:
            if job.id in self._jobs:
                return False
            self._jobs[job.id] = job
            ended = [j.id for j in self._jobs.values() if j.ended]
            for job_id in ended[: max(0, len(ended) - KEEP_ENDED)]:
                del self._jobs[job_id]
            return True

    def get(self, job_id: str) -> LiveJob | None:
        with self._lock:
            return self._jobs.get(job_id)

    def all(self) -> list[LiveJob]:
        """In the order they were added."""
        with self._lock:
            return list(self._jobs.values())

    def unfinished(self, session_id: str) -> list[LiveJob]:
        return [j for j in self.all() if j.session_id == session_id and not j.ended]

    def check_limits(self, client: str, count: int, replacing: Collection[LiveJob]) -> None:
        """Raises TooManyJobs where `count` more, without those replaced, would be too many."""
        gone = {job.id for job in replacing}
        counted = [j for j in self.all() if j.counts and j.id not in gone]
        mine = sum(j.client == client for j in counted)
        if mine + count > self._per_client:
            raise TooManyJobs(
                f"You already have {mine} tracks under way, and one client may have "
                f"{self._per_client}; wait for one to end (GET /jobs) or cancel one "
                "(DELETE /jobs/<id>)."
            )
        if len(counted) + count > 8 * self._workers:
            raise TooManyJobs(f"{len(counted)} tracks wait or run on this server; try again later.")


def record_json(record: TrackingJob) -> dict[str, Any]:
    """A job of an earlier start, or of another server, as `LiveJob.to_json` has it."""
    return {
        **_json(record.id, record.session_id, record.objects, record.state, record.error),
        "done": abs(record.next_frame - record.start),
        "total": None if record.stop is None else abs(record.stop - record.start),
        "frames_per_second": None,
    }


def _json(
    job_id: str, session_id: str, objects: tuple[int, ...], state: str, error: str | None
) -> dict[str, Any]:
    return {
        "id": job_id,
        "kind": "track",
        "session": session_id,
        "objects": list(objects),
        "state": state,
        "error": error,
    }


def _length(record: TrackingJob, num_frames: int) -> int:
    if record.direction == "forward":
        end = num_frames if record.stop is None else min(record.stop, num_frames)
        return max(0, end - record.start)
    end = -1 if record.stop is None else max(record.stop, -1)
    return max(0, record.start - end)
