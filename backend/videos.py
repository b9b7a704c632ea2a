"""Answers for video: boxes in, tracks out, within a deadline; the rest goes on in the background.

One session per task, keyed by Label Studio's address, project and task; one object per region.
Only what the annotator changed is tracked again, from the changed frame on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Any

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.frames import Frames
from edgetam_label.sessions import LabelObject, LabelSession, SessionStore

from .body import PredictBody, Task
from .context import Size, TrackRegion, track_regions
from .faults import ConfigProblem, FetchFailed, RequestError
from .frames_pool import FramesPool
from .images import Answer
from .jobs import JobRunner, LiveJob
from .keyframes import BoxXYXY
from .label_config import VIDEO_TAGS, LabelConfig, ObjectTag
from .ls_client import LabelStudioClient
from .model_host import ModelHost
from .results import track_result
from .timeline import Timeline
from .tracks import TrackState, merged_keyframes, own_keyframes, track_prompts

logger = logging.getLogger(__name__)

UNLABELLED = "unlabelled"
CANCEL_WAIT = 10.0


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
    """answer() serves a request; push() sends a finished track to Label Studio."""

    def __init__(
        self,
        store: SessionStore,
        host: ModelHost,
        pool: FramesPool,
        client: LabelStudioClient,
        settings: VideoSettings,
        observe: Callable[[str, float], None],
    ) -> None:
        self._store = store
        self._host = host
        self._pool = pool
        self._client = client
        self._settings = settings
        self._observe = observe
        self._workers = ThreadPoolExecutor(8, thread_name_prefix="video")
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self.jobs: JobRunner  # set by the app: the runner's callbacks need this service

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    # -- answering ---------------------------------------------------------------------------

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
        video = self._video_tag(config, regions[0])
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
        return self._collect(work)

    def _video_tag(self, config: LabelConfig, region: TrackRegion) -> ObjectTag:
        tag = config.object(region.to_name) or config.first("video")
        if tag is None or tag.kind != "video":
            raise RequestError(
                f"The boxes are for {region.to_name!r}, which is no <Video> of the config."
            )
        if not config.controls_of(tag.name, VIDEO_TAGS):
            raise ConfigProblem(config.fatal or f"Add a VideoRectangle for {tag.name!r}.")
        return tag

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
            session = self.session_for(task, frames)
        rate = video.frames_per_second(task.data)
        size = Size(session.media.width, session.media.height)
        count = next((r.frames_count for r in regions if r.frames_count), None)
        timeline = Timeline.of(session.media.pts, session.media.time_base, rate, count)
        only = config.labels_of(video.name) or tuple(
            v for c in config.controls_of(video.name, VIDEO_TAGS) for v in c.labels
        )
        held: dict[int, TrackRegion] = {}
        jobs: list[LiveJob] = []
        with self.one_at_a_time(session.id):
            session = self._store.get(session.id)
            for region in regions:
                if region.label is None and len(only) == 1:
                    region = replace(region, label=only[0])
                item, own_jobs = self._follow(
                    session, region, config, timeline, size, url, task, options, client
                )
                held[item.obj_id] = region
                jobs += own_jobs
        return Begun(session.id, held, tuple(jobs), timeline, size)

    def _follow(
        self,
        session: LabelSession,
        region: TrackRegion,
        config: LabelConfig,
        timeline: Timeline,
        size: Size,
        url: str,
        task: Task,
        options: Mapping[str, Any],
        client: str,
    ) -> tuple[LabelObject, list[LiveJob]]:
        """Bring one object's prompts up to date; the jobs that are under way for it."""
        known = self._object_of(session, region.region_id)
        state = TrackState.from_attributes(known.attributes) if known else None
        own = own_keyframes(region, state)
        label = region.label or (state.label if state else None)
        if known is not None and state is not None and own == state.own:
            if label != state.label:
                known = self._save_state(session.id, known, replace(state, label=label), config)
            return known, self.jobs.of(session.id, known.obj_id)
        wanted = {p.frame_idx: p for p in track_prompts(own, timeline, size, 1)}
        if not wanted:
            raise RequestError("The track has no box of yours left; draw one, then label it.")
        self.jobs.check_limits(client)
        item = known or self._store.add_object(
            session.id, label or UNLABELLED, external_id=region.region_id
        )
        for job in self.jobs.of(session.id, item.obj_id):
            self.jobs.cancel(job.id, wait=CANCEL_WAIT)
        start = self._set_prompts(session, item.obj_id, wanted)
        fresh = TrackState(
            region_id=region.region_id,
            label=label,
            from_name=region.from_name,
            to_name=region.to_name,
            frame_rate=timeline.frame_rate,
            frames_count=timeline.frames_count,
            own=own,
            sent=state.sent if state else (),
            client=client,
        )
        item = self._save_state(session.id, item, fresh, config)
        payload = {"url": url, "task": task.id, "project": task.project}
        jobs = [
            self.jobs.submit(
                session.id,
                start=first,
                stop=stop,
                objects=(item.obj_id,),
                client=client,
                num_frames=session.media.num_frames,
                payload=payload,
                direction=direction,
            )
            for direction, first, stop in self._passes(options, start, wanted)
        ]
        return item, jobs

    def _passes(
        self, options: Mapping[str, Any], start: int, wanted: Mapping[int, Any]
    ) -> list[tuple[str, int, int | None]]:
        """(direction, first frame, frame to stop before). options: "direction" of the project."""
        limit = self._settings.max_frames
        way = options.get("direction")
        passes: list[tuple[str, int, int | None]] = []
        if way != "backward":
            passes.append(("forward", start, start + limit))
        if way in ("backward", "both"):
            first = min(wanted)
            passes.append(("backward", first, first - limit))
        return passes

    def _set_prompts(self, session: LabelSession, obj_id: int, wanted: Mapping[int, Any]) -> int:
        """Write the prompts that changed; drop the masks from there on. The frame to start at."""
        before = {p.frame_idx: p for p in session.prompts if p.obj_id == obj_id}
        prompts = {index: replace(p, obj_id=obj_id) for index, p in wanted.items()}
        changed = [i for i in before.keys() | prompts.keys() if before.get(i) != prompts.get(i)]
        for index in before.keys() - prompts.keys():
            self._store.clear_prompt(session.id, obj_id, index)
        for _, prompt in sorted(prompts.items()):
            self._store.add_prompt(session.id, prompt)
        first = min(changed, default=min(prompts))
        self._store.delete_masks(session.id, obj_id, range(first, session.media.num_frames))
        return max(first, min(prompts))

    def session_for(self, task: Task, frames: Frames) -> LabelSession:
        """The session of a task; a new one where the task's file is another than before."""
        key = self.session_key(task.project, task.id)
        session = self._store.find_or_create(key, frames.identity, name=f"task {task.id}")
        if session.media.sha256 != frames.identity.sha256:
            other = f"{key}|{frames.identity.sha256[:12]}"
            session = self._store.find_or_create(other, frames.identity, name=f"task {task.id}")
        model = getattr(self._host.model(), "identity", None)
        if model is not None and session.model != model:
            self._store.set_model(session.id, model)
        return session

    def session_key(self, project: str, task_id: str) -> str:
        """What ties a session, and people's annotations, to a task."""
        return f"ls|{self._client.origin or 'label-studio'}|{project}|{task_id}"[:230]

    # -- results -----------------------------------------------------------------------------

    def _collect(self, work: Begun) -> Answer:
        result, scores = [], []
        with self.one_at_a_time(work.session_id):
            session = self._store.get(work.session_id)
            for obj_id, region in work.regions.items():
                entry = self._entry(session, obj_id, work.timeline, work.size, region)
                if entry is not None:
                    result.append(entry)
                    scores.append(entry["score"])
        return Answer(result, sum(scores) / len(scores) if scores else 0.0)

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
        keyframes = merged_keyframes(state.own, boxes, timeline, size, self._settings.keyframe_iou)
        if held is not None:
            same = len(keyframes) == len(held.keyframes) and all(
                a.near(b) for a, b in zip(keyframes, held.keyframes, strict=True)
            )
            self._store.set_object(
                session.id,
                replace(
                    item,
                    attributes={**item.attributes, **state.with_sent(keyframes).to_attributes()},
                ),
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

    def push(self, job: LiveJob) -> None:
        """Send an annotator's tracks as a prediction: the answer came after its deadline."""
        if self._client.url is None:
            logger.info("job %s is done; set the Label Studio URL to have it pushed", job.id)
            return
        if self.jobs.unfinished(job.session_id, job.client):
            return  # the last of them to end pushes them all
        session = self._store.get(job.session_id)
        size = Size(session.media.width, session.media.height)
        result = []
        for item in session.objects:
            state = TrackState.from_attributes(item.attributes)
            if state is None or state.client != job.client:
                continue  # another annotator's, on the same task
            timeline = Timeline.of(
                session.media.pts, session.media.time_base, state.frame_rate, state.frames_count
            )
            entry = self._entry(session, item.obj_id, timeline, size, None)
            if entry is not None:
                result.append(entry)
        if result:
            began = time.perf_counter()
            score = sum(e["score"] for e in result) / len(result)
            self._client.push_prediction(
                str(job.payload.get("task", "")),
                result,
                model_version=self._host.version,
                score=score,
            )
            self._observe("push", time.perf_counter() - began)

    # -- inside ------------------------------------------------------------------------------

    def _leave_all(self, begun: Future[Begun]) -> None:
        """What a request set off after it had to answer is pushed when it is ready."""
        try:
            jobs = begun.result().jobs
            for job in jobs:
                if not job.leave() and job.state == "done":
                    self.push(job)
        except CancelledError:
            pass  # the server stops
        except EdgeTAMLabelError as error:
            logger.warning("a track could not begin after its request had left: %s", error)
        except Exception:
            logger.exception("a track could not begin after its request had left")

    def _object_of(self, session: LabelSession, region_id: str) -> LabelObject | None:
        return next((o for o in session.objects if o.external_id == region_id), None)

    def _save_state(
        self, session_id: str, item: LabelObject, state: TrackState, config: LabelConfig
    ) -> LabelObject:
        label = state.label or UNLABELLED
        color = _hex(config.color(label)) or item.color
        changed = replace(
            item,
            label=label,
            color=color,
            external_id=state.region_id,
            attributes={**item.attributes, **state.to_attributes()},
        )
        self._store.set_object(session_id, changed)
        return changed

    def one_at_a_time(self, session_id: str) -> threading.Lock:
        """Two annotators on one task change its prompts one after the other, not interleaved."""
        with self._lock:
            if len(self._busy) > 1000:
                self._busy = {k: v for k, v in self._busy.items() if v.locked()}
            return self._busy.setdefault(session_id, threading.Lock())


def _sigmoid(logit: float) -> float:
    if not math.isfinite(logit):
        return 1.0 if logit > 0 else 0.0
    return 1 / (1 + math.exp(-max(min(logit, 60.0), -60.0)))


def _hex(color: str | None) -> str | None:
    """ "#RGB" or "#RRGGBB" as "#rrggbb"; a named colour is left to the default."""
    if color is None or not color.startswith("#"):
        return None
    digits = color[1:].lower()
    if len(digits) == 3:
        digits = "".join(2 * d for d in digits)
    usable = len(digits) == 6 and all(d in "0123456789abcdef" for d in digits)
    return f"#{digits}" if usable else None
