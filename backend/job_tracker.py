"""One job's pass through its video: prompts are replayed, frames tracked, masks stored beside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from edgetam_label.errors import Cancelled
from edgetam_label.mask_writer import BatchLimits, MaskWriter
from edgetam_label.prompts import Prompt
from edgetam_label.sessions import SessionStore, TrackingJob

from .frames_pool import FramesPool
from .live_jobs import LiveJob
from .model_host import ModelHost

if TYPE_CHECKING:
    from edgetam_label.tracker import TrackedFrame, VideoTracker

LIMITS = BatchLimits(masks=64, seconds=0.5)
LOAD_SECONDS = 600.0


class JobTracker:
    """Shared by all workers. observe(step, seconds), on_masks(count): for metrics."""

    def __init__(
        self,
        store: SessionStore,
        host: ModelHost,
        pool: FramesPool,
        observe: Callable[[str, float], None],
        on_masks: Callable[[int], None],
    ) -> None:
        self._store = store
        self._host = host
        self._pool = pool
        self._observe = observe
        self._on_masks = on_masks

    def run(self, job: LiveJob, paused: Callable[[], bool], alive: Callable[[], None]) -> None:
        """Track until the job ends. paused: the server stops. alive: called after every mask.

        Raises Cancelled when it was cancelled or paused; what was tracked is stored. Raises
        JobEnded when another job took over.
        """
        record = self._store.jobs.get(job.id)
        if abs(record.next_frame - record.start) >= job.total:
            return  # all but its end was recorded
        self._host.model(timeout=LOAD_SECONDS)
        record = self._with_this_model(job, record)
        session = self._store.get(job.session_id)
        prompts = [p for p in session.prompts if p.obj_id in job.objects]
        if not prompts:
            return

        def interrupted() -> bool:
            return job.cancelled.is_set() or paused()

        began = time.perf_counter()
        with self._pool.open(
            str(record.payload.get("url", "")),
            str(record.payload.get("task", "")),
            identity=session.media,
            cancel=interrupted,
        ) as frames:
            self._observe("open", time.perf_counter() - began)
            with closing(self._host.tracker(frames)) as tracker:
                self._prompt(tracker, prompts, interrupted)
                self._propagate(job, record, tracker, prompts, interrupted, alive)
        if interrupted():
            raise Cancelled("The track was stopped; what is done is kept.")

    def _with_this_model(self, job: LiveJob, record: TrackingJob) -> TrackingJob:
        """A job that another model began, before a restart, begins anew: no track is of two."""
        if record.payload.get("model") in (None, self._host.version):
            return record
        if self._host.identity is not None:
            self._store.set_model(record.session_id, self._host.identity)
        job.set(done=0)
        payload = {**record.payload, "model": self._host.version}
        return self._store.jobs.update(job.id, next_frame=record.start, payload=payload)

    def _prompt(
        self, tracker: VideoTracker, prompts: Iterable[Prompt], interrupted: Callable[[], bool]
    ) -> None:
        for prompt in prompts:
            if interrupted():
                raise Cancelled("The track was stopped before it began.")
            with self._host.turnstile:
                tracker.add_prompt(prompt)

    def _propagate(
        self,
        job: LiveJob,
        record: TrackingJob,
        tracker: VideoTracker,
        prompts: Iterable[Prompt],
        interrupted: Callable[[], bool],
        alive: Callable[[], None],
    ) -> None:
        step = 1 if record.direction == "forward" else -1
        first = pass_begin(prompts, record.start, step)
        passed = tracker.propagate(
            first,
            direction=record.direction,
            max_frames=abs(record.start - first) + job.total,
            objects=[o for o in job.objects if o in tracker.objects],
            beside=partial(self._store.masks_on, job.session_id, besides=job.objects),
            cancel=interrupted,
        )

        def stored(written: int, position: int) -> None:
            self._on_masks(written)
            job.set(done=abs(position - record.start))

        writer = MaskWriter(
            self._store, job.session_id, job.id, record.direction, LIMITS, on_stored=stored
        )
        with writer, closing(passed):
            for tracked in self._timed(self._host.turnstile.in_turns(passed)):
                if (tracked.frame_idx - record.next_frame) * step >= 0:
                    writer.add(tracked)
                alive()
            writer.finish(complete=True)  # a pass ends between two frames, also when interrupted

    def _timed(self, source: Iterator[TrackedFrame]) -> Iterator[TrackedFrame]:
        began = time.perf_counter()
        for tracked in source:
            self._observe("track", time.perf_counter() - began)
            yield tracked
            began = time.perf_counter()


def pass_begin(prompts: Iterable[Prompt], start: int, step: int) -> int:
    """The frame at which a pass begins to look, so that what it writes from `start` on remembers.

    That is each object's last prompt at or before `start` in the direction of travel (step: 1 or
    -1). A resumed job begins there again: its masks are those of one that was never interrupted.
    """
    last: dict[int, int] = {}
    for prompt in prompts:
        before = (start - prompt.frame_idx) * step
        if before >= 0:
            last[prompt.obj_id] = min(last.get(prompt.obj_id, before), before)
    return start - step * max(last.values(), default=0)
