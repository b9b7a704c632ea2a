"""Answers for video: boxes in, tracks out, within a deadline; the rest goes on in the background.

One session per task, one object per region. Only what the annotator changed is tracked again, from
the changed frame on: `track_updates` begins the jobs, `track_answers` reads what they stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Any

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.sessions import SessionStore

from .body import PredictBody, Task
from .context import Size, TrackRegion, track_regions
from .faults import ConfigProblem, FetchFailed, RequestError
from .frames_pool import FramesPool
from .images import Answer
from .jobs import JobRunner
from .label_config import VIDEO_TAGS, LabelConfig, ObjectTag
from .live_jobs import LiveJob
from .ls_client import LabelStudioClient
from .model_host import ModelHost
from .timeline import Timeline
from .track_answers import TrackAnswers, TrackPusher
from .track_updates import TrackUpdates, VideoRequest
from .video_sessions import VideoSessions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Begun:
    """What a request set off. regions: as the editor holds them, by object id."""

    session_id: str
    regions: Mapping[int, TrackRegion]
    jobs: tuple[LiveJob, ...]
    timeline: Timeline
    size: Size


@dataclass(frozen=True)
class VideoSettings:
    keyframe_iou: float
    max_frames: int


class VideoService:
    """answer() serves a request; push() sends finished tracks to Label Studio."""

    def __init__(
        self,
        store: SessionStore,
        host: ModelHost,
        pool: FramesPool,
        client: LabelStudioClient,
        jobs: JobRunner,
        settings: VideoSettings,
        observe: Callable[[str, float], None],
    ) -> None:
        origin = None if client.origin is None else str(client.origin)
        self.sessions = VideoSessions(store, host, origin)
        self._store = store
        self._pool = pool
        self._observe = observe
        self._updates = TrackUpdates(store, jobs, settings.max_frames)
        self._answers = TrackAnswers(store, settings.keyframe_iou)
        self._pusher = TrackPusher(store, host, client, jobs, self.sessions, self._answers, observe)
        self._workers = ThreadPoolExecutor(8, thread_name_prefix="video")

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    def push(self, job: LiveJob) -> None:
        """See TrackPusher."""
        self._pusher.push(job)

    def answer(
        self,
        task: Task,
        body: PredictBody,
        config: LabelConfig,
        options: Mapping[str, Any],
        client: str,
        until: float,
    ) -> Answer:
        """Tracks that differ from what the editor holds. until: monotonic seconds."""
        regions = [r for r in track_regions(body.regions, task.draft_labels) if r.keyframes]
        if not regions:
            return Answer([], 0.0)
        video = _video_tag(config, regions[0])
        begun = self._workers.submit(
            self._begin, task, regions, config, video, dict(options), client
        )
        try:
            work = begun.result(max(0.0, until - time.monotonic()))
        except FutureTimeout:
            # still downloading or indexing: its jobs are pushed when they end
            begun.add_done_callback(self._leave_all)
            return Answer([], 0.0)
        for job in work.jobs:
            job.wait(until)
        for job in work.jobs:
            job.leave()
        failed = next((j for j in work.jobs if j.state == "failed"), None)
        if failed is not None:
            raise FetchFailed(failed.error or "The track failed.")
        with self.sessions.one_at_a_time(work.session_id):
            result = self._answers.held(work.session_id, work.regions, work.timeline, work.size)
        scores = [entry["score"] for entry in result]
        return Answer(result, sum(scores) / len(scores) if scores else 0.0)

    def _begin(
        self,
        task: Task,
        regions: Sequence[TrackRegion],
        config: LabelConfig,
        video: ObjectTag,
        options: Mapping[str, Any],
        client: str,
    ) -> Begun:
        url = video.media(task.data)
        began = time.perf_counter()
        with self._pool.open(url, task.id) as frames:
            self._observe("open", time.perf_counter() - began)
            session = self.sessions.of(task, frames)
        rate = video.frames_per_second(task.data)
        size = Size(session.media.width, session.media.height)
        count = next((r.frames_count for r in regions if r.frames_count), None)
        timeline = Timeline.of(session.media.pts, session.media.time_base, rate, count)
        asked = VideoRequest(task, url, config, timeline, size, options, client)
        only = config.labels_of(video.name) or tuple(
            v for c in config.controls_of(video.name, VIDEO_TAGS) for v in c.labels
        )
        held: dict[int, TrackRegion] = {}
        jobs: list[LiveJob] = []
        try:
            with self.sessions.one_at_a_time(session.id):
                session = self._store.get(session.id)
                for region in regions:
                    if region.label is None and len(only) == 1:
                        region = replace(region, label=only[0])
                    item, own_jobs = self._updates.follow(session, region, asked)
                    held[item.obj_id] = region
                    jobs += own_jobs
        except Exception:
            self._leave(jobs)  # the answer is an error; what began already is pushed
            raise
        return Begun(session.id, held, tuple(jobs), timeline, size)

    def _leave_all(self, begun: Future[Begun]) -> None:
        """What a request set off after it had to answer is pushed when it is ready."""
        try:
            self._leave(begun.result().jobs)
        except CancelledError:
            pass  # the server stops
        except EdgeTAMLabelError as error:
            logger.warning("a track could not begin after its request had left: %s", error)
        except Exception:
            logger.exception("a track could not begin after its request had left")

    def _leave(self, jobs: Sequence[LiveJob]) -> None:
        for job in jobs:
            if not job.leave():  # it ended before anybody was there to hand it to
                job.set(late=True)
                try:
                    self.push(job)
                except EdgeTAMLabelError as error:
                    logger.warning("the outcome of job %s could not be pushed: %s", job.id, error)


def _video_tag(config: LabelConfig, region: TrackRegion) -> ObjectTag:
    tag = config.object(region.to_name) or config.first("video")
    if tag is None or tag.kind != "video":
        raise RequestError(
            f"The boxes are for {region.to_name!r}, which is no <Video> of the config."
        )
    if not config.controls_of(tag.name, VIDEO_TAGS):
        raise ConfigProblem(config.fatal or f"Add a VideoRectangle for {tag.name!r}.")
    return tag
