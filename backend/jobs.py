"""Tracking in the background: queued, fair per frame, cancellable, resumed after a restart.

The store holds what must survive (position, objects, state); this module holds the threads. Each
step of the model takes one turn at the turnstile, so no job keeps another, or a click, waiting for
longer than a frame.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import Cancelled, EdgeTAMLabelError, UsageError
from edgetam_label.mask_writer import to_row
from edgetam_label.sessions import FrameMask, SessionStore, TrackingJob

from .faults import JobNotFound, TooManyJobs
from .frames_pool import FramesPool
from .model_host import ModelHost

if TYPE_CHECKING:
    from edgetam_label.tracker import TrackedFrame, VideoTracker

logger = logging.getLogger(__name__)

KIND = "label-studio"
WARM_UP = 16  # frames tracked again on resuming, to fill the memory bank; their masks stay
FLUSH_SECONDS = 0.5
FLUSH_MASKS = 64
LEASE_SECONDS = 60.0
KEEP_ENDED = 200


@dataclass
class LiveJob:
    """A job of this process. done, total: frames. late: the caller has left; push the outcome."""

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
    cancelled: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    began: float = field(default_factory=time.monotonic)
    drained: int = 0  # frames that a polling client has been handed

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

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

    def to_json(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.began
        return {
            "id": self.id,
            "kind": "track",
            "session": self.session_id,
            "objects": list(self.objects),
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "frames_per_second": round(self.done / seconds, 2) if seconds > 0 else 0.0,
            "error": self.error,
        }


class JobRunner:
    """workers: jobs under way at the same time. per_client: unfinished jobs of one client.

    observe(step, seconds), ended(state): for metrics. on_late(job): called when a job is done
    whose caller had left. owner: stable name of this server, so that it resumes its own jobs.
    """

    def __init__(
        self,
        store: SessionStore,
        host: ModelHost,
        pool: FramesPool,
        *,
        workers: int,
        per_client: int,
        owner: str,
        observe: Callable[[str, float], None],
        ended: Callable[[LiveJob], None],
        on_late: Callable[[LiveJob], None],
        on_masks: Callable[[int], None],
    ) -> None:
        self._store = store
        self._host = host
        self._pool = pool
        self._workers = workers
        self._per_client = per_client
        self._owner = owner
        self._observe = observe
        self._ended = ended
        self._on_late = on_late
        self._on_masks = on_masks
        self._lock = threading.Lock()
        self._live: dict[str, LiveJob] = {}
        self._queue: queue.Queue[LiveJob | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    # -- asked by requests ------------------------------------------------------------------

    def submit(
        self,
        session_id: str,
        *,
        start: int,
        stop: int | None,
        objects: Sequence[int],
        client: str,
        num_frames: int,
        payload: Mapping[str, Any],
        direction: str = "forward",
        late: bool = False,
    ) -> LiveJob:
        """Queue a track. Raises TooManyJobs beyond the limits."""
        with self._lock:
            self._check_limits(client)
            record = self._store.jobs.start(
                session_id,
                direction=direction,
                start=start,
                stop=stop,
                objects=tuple(objects),
                state="queued",
                payload={**payload, "kind": KIND, "client": client},
            )
            job = LiveJob(
                id=record.id,
                session_id=session_id,
                objects=tuple(objects),
                client=client,
                total=_length(record, num_frames),
                payload=record.payload,
                late=late,
            )
            self._add(job)
        return job

    def check_limits(self, client: str) -> None:
        """Raises TooManyJobs if `submit` would."""
        with self._lock:
            self._check_limits(client)

    def _check_limits(self, client: str) -> None:
        unfinished = [j for j in self._live.values() if not j.ended]
        mine = sum(j.client == client for j in unfinished)
        if mine >= self._per_client:
            raise TooManyJobs(
                f"You already have {mine} tracks under way, the most that one client may have; "
                "wait for one to end (GET /jobs) or cancel one (DELETE /jobs/<id>)."
            )
        if len(unfinished) >= 8 * self._workers:
            raise TooManyJobs(
                f"{len(unfinished)} tracks wait or run on this server; try again later."
            )

    def get(self, job_id: str) -> dict[str, Any]:
        """Progress as JSON; also of jobs from before a restart. Raises JobNotFound."""
        job = self.live(job_id)
        if job is not None:
            return job.to_json()
        try:
            record = self._store.jobs.get(job_id)
        except UsageError:
            raise JobNotFound(f"There is no job {job_id[:40]!r}; GET /jobs lists them.") from None
        return {
            "id": record.id,
            "kind": "track",
            "session": record.session_id,
            "objects": list(record.objects),
            "state": record.state,
            "done": abs(record.next_frame - record.start),
            "total": None if record.stop is None else abs(record.stop - record.start),
            "frames_per_second": None,
            "error": record.error,
        }

    def all(self) -> list[dict[str, Any]]:
        with self._lock:
            return [job.to_json() for job in self._live.values()]

    def live(self, job_id: str) -> LiveJob | None:
        with self._lock:
            return self._live.get(job_id)

    def of(self, session_id: str, obj_id: int) -> list[LiveJob]:
        """Unfinished jobs of an object."""
        with self._lock:
            return [
                j
                for j in self._live.values()
                if j.session_id == session_id and obj_id in j.objects and not j.ended
            ]

    def unfinished(self, session_id: str, client: str) -> list[LiveJob]:
        """A client's jobs on a session that are waiting or under way."""
        with self._lock:
            return [
                j
                for j in self._live.values()
                if j.session_id == session_id and j.client == client and not j.ended
            ]

    def cancel(self, job_id: str, *, wait: float = 0.0) -> None:
        """Stop a job; what was tracked is kept. Raises JobNotFound."""
        job = self.live(job_id)
        if job is None:
            record = self.get(job_id)
            if record["state"] in ("queued", "running"):
                self._store.jobs.update(job_id, state="cancelled")
            return
        job.cancelled.set()
        if wait:
            job.wait(time.monotonic() + wait)

    def running(self) -> tuple[int, int]:
        """(running, queued)."""
        with self._lock:
            states = [j.state for j in self._live.values()]
        return states.count("running"), states.count("queued")

    # -- life -------------------------------------------------------------------------------

    def resume(self) -> int:
        """Queue the jobs that an earlier run of this server left unfinished."""
        found = [r for r in self._store.jobs.unfinished() if r.payload.get("kind") == KIND]
        with self._lock:
            for record in found:
                if record.id in self._live:
                    continue
                frames = self._store.get(record.session_id).media.num_frames
                job = LiveJob(
                    id=record.id,
                    session_id=record.session_id,
                    objects=record.objects,
                    client=str(record.payload.get("client", "")),
                    total=_length(record, frames),
                    payload=record.payload,
                    done=abs(record.next_frame - record.start),
                    late=True,
                )
                self._add(job)
        if found:
            logger.info("resuming %d tracking job(s)", len(found))
        return len(found)

    def stop(self, timeout: float = 10.0) -> None:
        """Let every job store what it has and pause; the next start resumes them."""
        self._stopping.set()
        for _ in self._threads:
            self._queue.put(None)
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _add(self, job: LiveJob) -> None:
        self._live[job.id] = job
        ended = [j.id for j in self._live.values() if j.ended]
        for job_id in ended[: max(0, len(ended) - KEEP_ENDED)]:
            del self._live[job_id]
        if len(self._threads) < self._workers:
            name = f"track-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(job)

    def _work(self) -> None:
        while not self._stopping.is_set():
            job = self._queue.get()
            if job is None:
                return
            self._run(job)

    def _run(self, job: LiveJob) -> None:
        state, error = "done", None
        try:
            if job.cancelled.is_set():
                raise Cancelled("cancelled before it began")
            if not self._claim(job):
                return
            job.set(state="running")
            if not self._track(job):
                return  # stopping: the record stays unfinished
        except Cancelled:
            state = "cancelled"
        except EdgeTAMLabelError as failure:
            state, error = "failed", str(failure)
            logger.warning("job %s failed: %s", job.id, failure)
        except Exception as failure:
            state, error = "failed", f"The track failed ({type(failure).__name__}); see the log."
            logger.exception("job %s failed", job.id)
        self._finish(job, state, error)

    def _finish(self, job: LiveJob, state: str, error: str | None) -> None:
        try:
            self._store.jobs.update(job.id, state=state, error=error)
        except EdgeTAMLabelError as failure:  # its session was deleted meanwhile
            logger.info("job %s cannot be recorded as %s: %s", job.id, state, failure)
        job.set(state=state, error=error)
        self._ended(job)
        if job.late and state == "done":
            try:
                self._on_late(job)
            except EdgeTAMLabelError as failure:
                logger.warning("the outcome of job %s could not be pushed: %s", job.id, failure)
            except Exception:
                logger.exception("the outcome of job %s could not be pushed", job.id)

    def _claim(self, job: LiveJob) -> bool:
        """Wait until no other server works on it."""
        while not self._stopping.is_set():
            if job.cancelled.is_set():
                raise Cancelled("cancelled before it began")
            if self._store.jobs.claim(job.id, self._owner, LEASE_SECONDS):
                return True
            if not self._store.jobs.get(job.id).unfinished:
                job.set(state=self._store.jobs.get(job.id).state)
                return False
            self._stopping.wait(1.0)
        return False

    def _track(self, job: LiveJob) -> bool:
        """True when finished, False when the server stops. Raises Cancelled."""
        record = self._store.jobs.get(job.id)
        session = self._store.get(job.session_id)
        model = self._host.model(timeout=600.0)
        from edgetam_label.tracker import VideoTracker  # brings in torch, as the model did

        began = time.perf_counter()
        payload = record.payload
        with self._pool.open(
            str(payload.get("url", "")),
            str(payload.get("task", "")),
            identity=session.media,
            cancel=lambda: job.cancelled.is_set() or self._stopping.is_set(),
        ) as frames:
            self._observe("open", time.perf_counter() - began)
            tracker = VideoTracker(model, frames)
            try:
                for prompt in session.prompts:
                    if prompt.obj_id in job.objects:
                        with self._host.turnstile.turn(urgent=False):
                            tracker.add_prompt(prompt)
                return self._propagate(job, record, tracker, len(frames))
            finally:
                tracker.close()

    def _propagate(
        self, job: LiveJob, record: TrackingJob, tracker: VideoTracker, num_frames: int
    ) -> bool:
        step = 1 if record.direction == "forward" else -1
        if tracker.objects == () or abs(record.next_frame - record.start) >= job.total:
            return True
        first = record.next_frame
        if first != record.start:
            back = first - step * WARM_UP
            first = max(back, record.start) if step == 1 else min(back, record.start)
        last = record.start + step * job.total  # exclusive
        passing = tracker.propagate(
            first,
            direction=record.direction,
            max_frames=abs(last - first),
            objects=[o for o in job.objects if o in tracker.objects],
        )
        batch = _Batch(self._store, job, record, step, self._on_masks)
        renewed = time.monotonic()
        while True:
            if job.cancelled.is_set():
                batch.flush()
                raise Cancelled("cancelled")
            if self._stopping.is_set():
                batch.flush()
                return False
            began = time.perf_counter()
            with self._host.turnstile.turn(urgent=False):
                tracked = next(passing, None)
            self._observe("track", time.perf_counter() - began)
            if tracked is None:
                batch.close()
                return True
            batch.add(tracked)
            if time.monotonic() - renewed > LEASE_SECONDS / 3:
                self._store.jobs.claim(job.id, self._owner, LEASE_SECONDS)
                renewed = time.monotonic()


class _Batch:
    """Masks that are stored together, always up to the end of a frame."""

    def __init__(
        self,
        store: SessionStore,
        job: LiveJob,
        record: TrackingJob,
        step: int,
        on_masks: Callable[[int], None],
    ) -> None:
        self._store, self._job, self._step, self._on_masks = store, job, step, on_masks
        self._start, self._resumed = record.start, record.next_frame
        self._frame: int | None = None
        self._current: list[FrameMask] = []
        self._ready: list[FrameMask] = []
        self._next = record.next_frame
        self._flushed = 0.0  # the first frame is stored, and shown, at once

    def add(self, tracked: TrackedFrame) -> None:
        if tracked.frame_idx != self._frame:
            self._end_frame()
            self._frame = tracked.frame_idx
        if (tracked.frame_idx - self._resumed) * self._step < 0:
            return  # warming up
        self._current.append(to_row(tracked))

    def _end_frame(self) -> None:
        if self._frame is None or (self._frame - self._resumed) * self._step < 0:
            return
        self._ready += self._current
        self._current = []
        self._next = self._frame + self._step
        due = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if due or len(self._ready) >= FLUSH_MASKS:
            self.flush()

    def close(self) -> None:
        self._end_frame()
        self.flush()

    def flush(self) -> None:
        if self._ready:
            written = self._store.save_masks(
                self._job.session_id, self._ready, job_id=self._job.id, next_frame=self._next
            )
            self._on_masks(written)
        self._ready = []
        self._flushed = time.monotonic()
        self._job.set(done=abs(self._next - self._start))


def _length(record: TrackingJob, num_frames: int) -> int:
    if record.direction == "forward":
        end = num_frames if record.stop is None else min(record.stop, num_frames)
        return max(0, end - record.start)
    end = -1 if record.stop is None else max(record.stop, -1)
    return max(0, record.start - end)
