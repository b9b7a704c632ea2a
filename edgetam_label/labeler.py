"""Labeler: the service that ties model, video and store. The command line and the server use it.

What a session's masks are follows from its prompts alone: each object is tracked from its first
prompted frame, and a correction takes effect when a pass reaches it. So an interrupted track, a
correction and an undo are one and the same case: compare what was tracked with what is prompted,
replay up to there, and go on. Masks of the replayed part come out identical and are not written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgetam_label.byte_cache import ByteCache
from edgetam_label.errors import Cancelled, EdgeTAMLabelError, PromptError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.mask_writer import BatchLimits, MaskWriter
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.fused import fuse
from edgetam_label.predictor import ImageEmbedding, ImagePredictor
from edgetam_label.prompts import Prompt
from edgetam_label.sessions import LabelSession, ModelIdentity, SessionStore, TrackingJob
from edgetam_label.track_mode import TrackMode
from edgetam_label.track_plan import ObjectHistory, TrackPass, histories, plan_passes
from edgetam_label.tracker import (
    DIRECTIONS,
    Beside,
    TrackedFrame,
    TrackerSettings,
    VideoTracker,
)
from edgetam_label.turnstile import Turnstile

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Cancel = Callable[[], bool]


@dataclass(frozen=True)
class TrackSummary:
    """What one call of `track` did.

    frames: visited and written, over all passes. masks: written. finished: False when it was
    cancelled or stopped by `max_frames`; calling `track` again goes on.
    """

    session_id: str
    frames: int
    masks: int
    finished: bool


class Labeler:
    """One model, one store, any number of threads: they take turns frame by frame.

    batch_masks, batch_seconds: masks are written when either is reached, so a crash loses at most
    that much.
    """

    def __init__(
        self,
        model: EdgeTAM,
        store: SessionStore,
        *,
        settings: TrackerSettings | None = None,
        batch_masks: int = 32,
        batch_seconds: float = 1.0,
        embedding_bytes: int = 256 * 2**20,
    ) -> None:
        self.model = fuse(model)
        self.store = store
        identity: ModelIdentity | None = getattr(model, "identity", None)
        if identity is not None and settings is not None:
            identity = TrackMode(settings.every).mark(identity)
        self.identity = identity
        self.turnstile = Turnstile()
        self._settings = settings
        self._limits = BatchLimits(batch_masks, batch_seconds)
        self.predictor = ImagePredictor(self.model)
        self._embeddings: ByteCache[str, ImageEmbedding] = ByteCache(embedding_bytes)

    # -- images -----------------------------------------------------------------------------

    def embed(self, key: str, load: Callable[[], NDArray[np.uint8]]) -> ImageEmbedding:
        """The embedding of an image, from the cache if `key` (its content's hash) is there.

        load: gives the pixels (H, W, 3) uint8 RGB when they are needed.
        """

        def make() -> ImageEmbedding:
            image = load()
            with self.turnstile:
                return self.predictor.embed(image)

        return self._embeddings.get_or_make(key, make)[0]

    # -- sessions ---------------------------------------------------------------------------

    def create_session(
        self, frames: Frames, *, name: str | None = None, key: str | None = None
    ) -> LabelSession:
        """A new, empty session on this media, made with this model."""
        return self.store.create(frames.identity, model=self.identity, name=name, key=key)

    def add_prompt(self, session_id: str, prompt: Prompt) -> Prompt:
        """Store a prompt; on a frame that was already tracked it becomes a correction.

        Raises PromptError for a place outside the media.
        """
        session = self.store.get(session_id)
        place = (prompt.obj_id, prompt.frame_idx)
        earlier = next((p for p in session.prompts if (p.obj_id, p.frame_idx) == place), None)
        if earlier is not None:
            correction = earlier.correction
        else:
            there = self.store.iter_masks(
                session_id,
                obj_id=prompt.obj_id,
                start=prompt.frame_idx,
                stop=prompt.frame_idx + 1,
            )
            known = any(p.obj_id == prompt.obj_id for p in session.prompts)
            correction = known and any(mask.status in ("tracked", "absent") for mask in there)
        prompt = replace(prompt, correction=correction)
        self.store.add_prompt(session_id, prompt)
        return prompt

    def track(
        self,
        session_id: str,
        frames: Frames | None = None,
        *,
        directions: Sequence[str] = ("forward",),
        objects: Sequence[int] | None = None,
        max_frames: int | None = None,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
        on_frame: Callable[[TrackedFrame], None] | None = None,
    ) -> TrackSummary:
        """Bring a session's masks up to date with its prompts, writing them while tracking.

        frames: the session's media if it is open already. directions: of "forward", "backward".
        objects: which ones; None for all. Only what is missing or changed is tracked. max_frames:
        at most so many new frames for each direction. cancel: asked before every frame.
        progress: (frames done, frames to do), replayed ones included.
        on_frame: called with every mask after it was handed to the store's thread or found to be
            unchanged.

        A tracking job on record tells where this one came; a later call goes on from there.
        Raises PromptError if the session has no prompts, MediaError if its media is gone or
        changed, UsageError if another model made its masks.
        """
        session = self.store.get(session_id)
        self._check_model(session)
        opened = frames or Frames.open(session.media.source, identity=session.media)
        try:
            return self._track(
                session, opened, directions, objects, max_frames, cancel, progress, on_frame
            )
        finally:
            if frames is None:
                opened.close()

    def resume(
        self,
        session_id: str,
        frames: Frames | None = None,
        *,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
        on_frame: Callable[[TrackedFrame], None] | None = None,
    ) -> TrackSummary:
        """Go on with what was interrupted or changed, in the directions tracked so far."""
        jobs = self.store.jobs.find(session_id)
        ran = {job.direction for job in jobs}
        directions = [d for d in DIRECTIONS if d in ran] or ["forward"]
        return self.track(
            session_id,
            frames,
            directions=directions,
            cancel=cancel,
            progress=progress,
            on_frame=on_frame,
        )

    # -- inside -----------------------------------------------------------------------------

    def _check_model(self, session: LabelSession) -> None:
        if session.model is not None and self.identity is not None:
            if session.num_masks and session.model != self.identity:
                _check_mode(session.id, session.model, self.identity)
                raise UsageError(
                    f"Session {session.id} was tracked with {session.model.name} (checkpoint "
                    f"{session.model.checkpoint_sha256[:12]}), this model is {self.identity.name} "
                    f"({self.identity.checkpoint_sha256[:12]}). Use --model and --checkpoint to "
                    "load the session's own, or start a new session."
                )
        if self.identity is not None and session.model != self.identity:
            self.store.set_model(session.id, self.identity)

    def _track(
        self,
        session: LabelSession,
        frames: Frames,
        directions: Sequence[str],
        objects: Sequence[int] | None,
        max_frames: int | None,
        cancel: Cancel | None,
        progress: Progress | None,
        on_frame: Callable[[TrackedFrame], None] | None,
    ) -> TrackSummary:
        planned, jobs = self._begin(session, directions, objects, max_frames)
        frames_done = masks = 0
        for one, job in zip(planned, jobs, strict=True):
            written = _PassCounts()
            try:
                self._run(session, frames, one, job, written, cancel, progress, on_frame)
            except Cancelled:
                self.store.jobs.update(job.id, state="queued")
                return TrackSummary(
                    session.id, frames_done + written.frames, masks + written.masks, False
                )
            except EdgeTAMLabelError as error:
                self.store.jobs.update(job.id, state="failed", error=str(error))
                raise
            self.store.jobs.update(job.id, state="done")
            frames_done, masks = frames_done + written.frames, masks + written.masks
        ends = {"forward": len(frames), "backward": -1}
        finished = all(one.stop == ends[one.direction] for one in planned)
        return TrackSummary(session.id, frames_done, masks, finished)

    def _begin(
        self,
        session: LabelSession,
        directions: Sequence[str],
        objects: Sequence[int] | None,
        max_frames: int | None,
    ) -> tuple[list[TrackPass], list[TrackingJob]]:
        """Plan the passes and put them on record, each with its job.

        Masks that no longer hold go in the transaction that records the jobs: a crash leaves either
        those masks, or jobs that make the new ones.
        """
        while True:
            known = self.store.jobs.find(session.id)
            events = {event.seq: event for event in self.store.events(session.id)}
            planned = plan_passes(
                _chosen(session.id, histories(self.store.history(session.id)), objects),
                events,
                known,
                directions,
                session.media.num_frames,
                max_frames,
            )
            if not planned:
                return [], []
            jobs = self.store.jobs.supersede(
                session.id,
                [one.as_job() for one in planned],
                known=known,
                drop_masks_of=sorted(frozenset[int]().union(*(one.drops for one in planned))),
            )
            if jobs is not None:
                return planned, jobs  # otherwise another program began one: plan with it

    def _run(
        self,
        session: LabelSession,
        frames: Frames,
        one: TrackPass,
        job: TrackingJob,
        counts: _PassCounts,
        cancel: Cancel | None,
        progress: Progress | None,
        on_frame: Callable[[TrackedFrame], None] | None,
    ) -> None:
        self.store.jobs.update(job.id, state="running")
        tracker = VideoTracker(self.model, frames, self._settings)
        with closing(tracker):
            with self.turnstile:
                for history in one.histories:
                    for event in history.events:
                        _replay(tracker, event.prompt, event.obj_id, event.frame_idx)
            others = partial(
                self.store.masks_on, session.id, besides=[h.obj_id for h in one.histories]
            )
            for tracked in self._replayed_window(tracker, one, others, cancel):
                del tracked
            joins = {h.obj_id: h.anchor for h in one.histories if h.anchor is not None}
            first = (min if one.direction == "forward" else max)(joins.values())
            length = abs(one.stop - first)
            passed = tracker.propagate(
                first,
                direction=one.direction,
                max_frames=length,
                objects=joins,
                beside=others,
                cancel=cancel,
                progress=progress,
            )
            writer = MaskWriter(self.store, session.id, job.id, one.direction, self._limits)
            try:
                with writer, closing(passed):
                    for tracked in self.turnstile.in_turns(passed):
                        if one.writes(tracked.obj_id, tracked.frame_idx):
                            writer.add(tracked)
                        if on_frame is not None:
                            on_frame(tracked)
                    writer.finish(complete=not (cancel is not None and cancel()))
            except KeyboardInterrupt:
                self.store.jobs.update(job.id, state="queued")
                raise
            finally:
                counts.frames, counts.masks = writer.frames, writer.masks
        if cancel is not None and cancel():
            raise Cancelled("Tracking was cancelled; what is done is kept.")

    def _replayed_window(
        self, tracker: VideoTracker, one: TrackPass, others: Beside, cancel: Cancel | None
    ) -> Iterator[TrackedFrame]:
        """The other direction's first frames: this pass attends to their memories at its start."""
        if not one.replay_other:
            return
        window = 1 + max(self.model.config.num_maskmem, self.model.config.max_object_pointers)
        for history in one.histories:
            yield from self.turnstile.in_turns(
                tracker.propagate(
                    direction=_other(one.direction),
                    max_frames=window,
                    objects=[history.obj_id],
                    beside=others,
                    cancel=cancel,
                )
            )


@dataclass
class _PassCounts:
    frames: int = 0
    masks: int = 0


def _chosen(
    session_id: str, known: Mapping[int, ObjectHistory], objects: Sequence[int] | None
) -> list[ObjectHistory]:
    if not known:
        raise PromptError(
            f"Session {session_id} has no prompts; add a click, a box or a mask for an object."
        )
    for obj_id in objects or ():
        if obj_id not in known:
            names = ", ".join(map(str, known))
            raise PromptError(f"Object {obj_id} has no prompts; objects that have: {names}.")
    return [h for h in known.values() if objects is None or h.obj_id in objects]


def _check_mode(session_id: str, theirs: ModelIdentity, ours: ModelIdentity) -> None:
    (their_name, their_mode), (our_name, our_mode) = TrackMode.of(theirs), TrackMode.of(ours)
    same = (their_name, theirs.checkpoint_sha256) == (our_name, ours.checkpoint_sha256)
    if same and their_mode != our_mode:
        raise UsageError(
            f"Session {session_id} was tracked with {their_mode}, now it is {our_mode}; its masks "
            f"would be mixed. Go on with {their_mode}, or start a new session."
        )


def _replay(
    tracker: VideoTracker, prompt: Prompt | None, obj_id: int, frame_idx: int | None
) -> None:
    if prompt is not None:
        tracker.add_prompt(prompt)
    elif frame_idx is not None:
        tracker.remove_prompt(obj_id, frame_idx)


def _other(direction: str) -> str:
    return "backward" if direction == "forward" else "forward"
