"""Stored tracks as regions of the editor: answers to a request, and what is pushed after it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgetam_label.sessions import LabelSession, SessionStore

from .context import Size, TrackRegion
from .jobs import JobRunner
from .keyframes import BoxXYXY
from .live_jobs import LiveJob
from .ls_client import LabelStudioClient
from .model_host import ModelHost
from .results import track_result
from .timeline import Timeline
from .tracks import TrackState, merged_keyframes
from .video_sessions import VideoSessions


class TrackAnswers:
    """keyframe_iou: that boxes between two keyframes keep with the tracked ones."""

    def __init__(self, store: SessionStore, keyframe_iou: float) -> None:
        self._store = store
        self._keyframe_iou = keyframe_iou

    def held(
        self,
        session_id: str,
        regions: Mapping[int, TrackRegion],
        timeline: Timeline,
        size: Size,
    ) -> list[dict[str, Any]]:
        """Those of the regions (by object id) that differ from what the editor holds.

        They are remembered as sent. Call it with the session's lock held.
        """
        session = self._store.get(session_id)
        found = []
        for obj_id, region in regions.items():
            entry = self._entry(session, obj_id, timeline, size, region)
            if entry is not None:
                found.append(entry)
        return found

    def of_client(self, session: LabelSession, client: str) -> list[dict[str, Any]]:
        """All tracks that an annotator asked for last; another's, on the same task, are theirs."""
        size = Size(session.media.width, session.media.height)
        found = []
        for item in session.objects:
            state = TrackState.from_attributes(item.attributes)
            if state is None or state.client != client:
                continue
            timeline = Timeline.of(
                session.media.pts, session.media.time_base, state.frame_rate, state.frames_count
            )
            entry = self._entry(session, item.obj_id, timeline, size, None)
            if entry is not None:
                found.append(entry)
        return found

    def _entry(
        self,
        session: LabelSession,
        obj_id: int,
        timeline: Timeline,
        size: Size,
        held: TrackRegion | None,
    ) -> dict[str, Any] | None:
        """A region as it stands; None where the editor holds the very same."""
        item = next((o for o in session.objects if o.obj_id == obj_id), None)
        state = TrackState.from_attributes(item.attributes) if item else None
        if item is None or state is None:
            return None
        boxes: dict[int, BoxXYXY] = {}
        scores: list[float] = []
        for mask in self._store.iter_masks(session.id, obj_id=obj_id):
            box = mask.rle.box
            if box is not None:
                boxes[mask.frame_idx] = box
                scores.append(_sigmoid(mask.score))
        keyframes = merged_keyframes(state.own, boxes, timeline, size, self._keyframe_iou)
        if held is not None:
            same = len(keyframes) == len(held.keyframes) and all(
                a.near(b) for a, b in zip(keyframes, held.keyframes, strict=True)
            )
            sent = state.with_sent(keyframes).to_attributes()
            self._store.set_object(
                session.id, replace(item, attributes={**item.attributes, **sent})
            )
            if same and held.label == state.label and not held.blank:
                return None
        return track_result(
            state.region_id,
            state.label,
            state.from_name,
            state.to_name,
            keyframes,
            frames_count=timeline.frames_count,
            frame_rate=timeline.frame_rate,
            score=sum(scores) / len(scores) if scores else 0.0,
        )


class TrackPusher:
    """Sends an annotator's tracks as one prediction, when the last of their jobs has ended."""

    def __init__(
        self,
        store: SessionStore,
        host: ModelHost,
        client: LabelStudioClient,
        jobs: JobRunner,
        sessions: VideoSessions,
        answers: TrackAnswers,
        observe: Callable[[str, float], None],
    ) -> None:
        self._store = store
        self._host = host
        self._client = client
        self._jobs = jobs
        self._sessions = sessions
        self._answers = answers
        self._observe = observe
        self._lock = threading.Lock()

    def push(self, job: LiveJob) -> None:
        """A job has ended whose caller had left. Raises FetchFailed, Unreachable."""
        if self._client.url is None or not self._due(job):
            return
        with self._sessions.one_at_a_time(job.session_id):  # not while prompts are being changed
            result = self._answers.of_client(self._store.get(job.session_id), job.client)
        if not result:
            return
        began = time.perf_counter()
        self._client.push_prediction(
            str(job.payload.get("task", "")),
            result,
            model_version=self._host.version,
            score=sum(entry["score"] for entry in result) / len(result),
        )
        self._observe("push", time.perf_counter() - began)

    def _due(self, job: LiveJob) -> bool:
        """Whether this call is the one to push: something is done, and nothing under way."""
        with self._lock:
            owed = self._jobs.owed(job.session_id, job.client)
            if not owed or self._jobs.unfinished(job.session_id, job.client):
                return False
            for one in owed:
                one.set(pushed=True)
            return True


def _sigmoid(logit: float) -> float:
    if not math.isfinite(logit):
        return 1.0 if logit > 0 else 0.0
    return 1 / (1 + math.exp(-max(min(logit, 60.0), -60.0)))
