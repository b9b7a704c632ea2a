"""Tracking in the background: queued, fair per frame, cancellable, resumed after a restart.

The store holds what must survive (position, objects, state); this module holds the threads. What
one job does is in `job_tracker`, what is known of all of them in `live_jobs`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetam_label.errors import Cancelled, EdgeTAMLabelError, JobEnded, SessionNotFound, UsageError
from edgetam_label.sessions import SessionStore, TrackingJob

from .faults import JobNotFound, ModelLoading, Unreachable
from .frames_pool import FramesPool
from .job_queue import JobQueue
from .job_tracker import JobTracker
from .live_jobs import LiveJob, LiveJobs, record_json
from .model_host import ModelHost

logger = logging.getLogger(__name__)

KIND = "label-studio"
LEASE_SECONDS = 60.0
ASK_AGAIN = 5.0  # seconds until a job that another server works on is looked at again


@dataclass(frozen=True)
class JobPass:
    """start: the first frame that is written. stop: the one after the last, in its direction."""

    direction: str
    start: int
    stop: int


class JobRunner:
    """workers: jobs under way at the same time. per_client: unfinished jobs of one client.

    observe(step, seconds), on_masks(count), ended(state): for metrics. on_late(job): called when a
    job has ended, however it did, whose caller had left. owner: stable name of this server, so that
    it resumes its own jobs.
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
        self._tracker = JobTracker(store, host, pool, observe, on_masks)
        self._workers = workers
        self._owner = owner
        self._ended = ended
        self._on_late = on_late
        self._live = LiveJobs(workers=workers, per_client=per_client)
        self._queue: JobQueue[LiveJob] = JobQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    # -- asked by requests ------------------------------------------------------------------

    def submit(
        self,
        session_id: str,
        passes: Sequence[JobPass],
        *,
        objects: Sequence[int],
        client: str,
        num_frames: int,
        payload: Mapping[str, Any],
    ) -> list[LiveJob]:
        """Queue a track of some passes, all or none. Raises TooManyJobs beyond the limits."""
        jobs: list[LiveJob] = []
        with self._lock:  # what is counted must not change until these count too
            self._live.check_limits(client, len(passes), ())
            for one in passes:
                record = self._store.jobs.start(
                    session_id,
                    direction=one.direction,
                    start=one.start,
                    stop=one.stop,
                    objects=tuple(objects),
                    state="queued",
                    payload={
                        **payload,
                        "kind": KIND,
                        "client": client,
                        "model": self._host.version,
                    },
                )
                jobs.append(LiveJob.of(record, num_frames))
                self._add(jobs[-1])
        return jobs

    def check_limits(
        self, client: str, count: int = 1, replacing: Collection[LiveJob] = ()
    ) -> None:
        """Raises TooManyJobs if `submit` of so many passes would, once those replaced are gone."""
        self._live.check_limits(client, count, replacing)

    def get(self, job_id: str) -> dict[str, Any]:
        """Progress as JSON; also of jobs from before a restart. Raises JobNotFound."""
        job = self.live(job_id)
        return record_json(self._record(job_id)) if job is None else job.to_json()

    def all(self) -> list[dict[str, Any]]:
        return [job.to_json() for job in self._live.all()]

    def live(self, job_id: str) -> LiveJob | None:
        return self._live.get(job_id)

    def of(self, session_id: str, obj_id: int) -> list[LiveJob]:
        """Unfinished jobs of an object."""
        return [j for j in self._live.unfinished(session_id) if obj_id in j.objects]

    def unfinished(self, session_id: str, client: str | None = None) -> list[LiveJob]:
        """A client's, or everybody's, jobs on a session that are waiting or under way."""
        found = self._live.unfinished(session_id)
        return [j for j in found if client is None or j.client == client]

    def owed(self, session_id: str, client: str) -> list[LiveJob]:
        """A client's jobs on a session that are done and whose outcome was not pushed yet."""
        return [
            j
            for j in self._live.all()
            if (j.session_id, j.client) == (session_id, client)
            if j.state == "done" and j.late and not j.pushed
        ]

    def cancel(self, job_id: str, *, wait: float = 0.0) -> None:
        """Stop a job; what was tracked is kept. Raises JobNotFound."""
        job = self.live(job_id)
        if job is None:
            self._record(job_id)
            self._store.jobs.update(job_id, state="cancelled")
            return
        job.cancelled.set()
        if wait:
            job.wait(time.monotonic() + wait)

    def supersede(self, jobs: Collection[LiveJob]) -> None:
        """Stop jobs whose prompts are about to change: from now on they store nothing."""
        for job in jobs:
            self._store.jobs.update(job.id, state="cancelled")
            job.cancelled.set()

    def running(self) -> tuple[int, int]:
        """(running, queued)."""
        states = [j.state for j in self._live.all()]
        return states.count("running"), states.count("queued")

    # -- life -------------------------------------------------------------------------------

    def resume(self) -> int:
        """Queue the jobs that an earlier run of this server left unfinished."""
        count = 0
        for record in self._store.jobs.unfinished():
            if record.payload.get("kind") != KIND:
                continue
            try:
                frames = self._store.get(record.session_id).media.num_frames
            except SessionNotFound:
                continue  # deleted this moment
            with self._lock:
                count += self._add(LiveJob.of(record, frames, late=True))
        if count:
            logger.info("resuming %d tracking job(s)", count)
        return count

    def stop(self, timeout: float = 10.0) -> None:
        """Let every job store what it has and pause; the next start resumes them."""
        self._stopping.set()
        self._queue.close()
        until = time.monotonic() + timeout
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _add(self, job: LiveJob) -> bool:
        """Call it with the lock held."""
        if not self._live.add(job):
            return False
        if len(self._threads) < self._workers:
            name = f"track-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(job)
        return True

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._run(job)

    def _run(self, job: LiveJob) -> None:
        try:
            if job.cancelled.is_set():
                raise Cancelled("cancelled before it began")
            if not self._claimed(job):
                return
            job.set(state="running")
            self._tracker.run(job, self._stopping.is_set, self._lease(job))
        except (Cancelled, JobEnded):
            if job.cancelled.is_set() or not self._stopping.is_set():
                self._finish(job, "cancelled")
            else:  # the server stops: the record stays unfinished, for the next start at once
                self._release(job)
        except ModelLoading as failure:
            logger.warning("job %s waits for a model: %s", job.id, failure)
            job.end("failed", str(failure))  # its record stays: a start with a model resumes it
            self._ended(job)
        except EdgeTAMLabelError as failure:
            if job.cancelled.is_set():  # its session may be gone by now
                self._finish(job, "cancelled")
                return
            logger.warning("job %s failed: %s", job.id, failure)
            self._finish(job, "failed", str(failure))
        except Exception as failure:
            logger.exception("job %s failed", job.id)
            sentence = f"The track failed ({type(failure).__name__}); see the log."
            self._finish(job, "failed", sentence)
        else:
            self._finish(job, "done")

    def _finish(self, job: LiveJob, state: str, error: str | None = None) -> None:
        """A job is on record as done once its outcome was handed over: a server that is ended while
        it pushes does so again when it is started."""
        if state != "done":
            self._settle(job, state, error)
        late = job.end(state, error)
        self._ended(job)
        handed_over = self._hand_over(job) if late else True
        if state == "done" and handed_over:
            self._settle(job, state, error)

    def _hand_over(self, job: LiveJob) -> bool:
        """False when it should be tried again at the next start."""
        try:
            self._on_late(job)
        except Unreachable as failure:
            logger.warning("job %s will be pushed after the next start: %s", job.id, failure)
            return False
        except EdgeTAMLabelError as failure:
            logger.warning("the outcome of job %s could not be pushed: %s", job.id, failure)
        except Exception:
            logger.exception("the outcome of job %s could not be pushed", job.id)
        return True

    def _settle(self, job: LiveJob, state: str, error: str | None) -> None:
        try:
            self._store.jobs.update(job.id, state=state, error=error)
        except EdgeTAMLabelError as failure:  # its session was deleted meanwhile
            logger.info("job %s cannot be recorded as %s: %s", job.id, state, failure)

    def _claimed(self, job: LiveJob) -> bool:
        """False where another server works on it; then it is looked at again later."""
        if self._store.jobs.claim(job.id, self._owner, LEASE_SECONDS):
            job.set(elsewhere=False)
            return True
        record = self._store.jobs.get(job.id)
        if record.unfinished:
            job.set(elsewhere=True, done=abs(record.next_frame - record.start))
            self._queue.put(job, delay=ASK_AGAIN)
        else:
            job.end(record.state, record.error)
        return False

    def _release(self, job: LiveJob) -> None:
        try:
            self._store.jobs.release(job.id, self._owner)
        except EdgeTAMLabelError as failure:  # then the lease runs out
            logger.info("job %s cannot be given back: %s", job.id, failure)

    def _lease(self, job: LiveJob) -> Callable[[], None]:
        """To be called often; asks the store now and then."""
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed > LEASE_SECONDS / 3:
                self._store.jobs.claim(job.id, self._owner, LEASE_SECONDS)
                renewed = time.monotonic()

        return renew

    def _record(self, job_id: str) -> TrackingJob:
        try:
            return self._store.jobs.get(job_id)
        except UsageError:
            raise JobNotFound(f"There is no job {job_id[:40]!r}; GET /jobs lists them.") from None
