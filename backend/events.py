"""The events of Label Studio's enterprise editor and of other clients: prompts on video frames.

`context.event` is one of capabilities, prewarm, track, track_progress, track_cancel, release; a
body with points or boxes on a <Video> and no event asks for the mask on one frame. Frames here are
0-based in answers (with `time_ms`), and `time` (seconds) is preferred to `frame` (1-based) in
requests, because time is the one thing that both sides agree on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgetam_label.frames import Frames
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.sessions import LabelSession, SessionStore

from .body import PredictBody, Task, brief, number
from .context import BOX_TYPES, POINT_TYPES, Instance, Size, answer_id, image_instances
from .faults import ConfigProblem, RequestError
from .frames_pool import FramesPool
from .images import Answer, Embeddings, ImageService
from .jobs import JobPass, JobRunner
from .label_config import OUTPUT_TAGS, VIDEO_TAGS, LabelConfig, ObjectTag
from .live_jobs import LiveJob
from .model_host import ModelHost
from .results import bitmask_url, probability
from .timeline import Timeline
from .track_updates import UNLABELLED
from .video_sessions import VideoSessions

EVENTS = ("capabilities", "prewarm", "track", "track_progress", "track_cancel", "release")
PROGRESS_WAIT = 5.0
MAX_BATCH = 32
MAX_WINDOW = 60
TARGETS = (
    {"tag": "BrushLabels", "output": "mask"},
    {"tag": "BitmaskLabels", "output": "mask"},
    {"tag": "PolygonLabels", "output": "polygon"},
    {"tag": "RectangleLabels", "output": "bbox"},
    {"tag": "EllipseLabels", "output": "ellipse"},
    {"tag": "VideoRectangle", "output": "bbox", "features": ["track"]},
)


class EventService:
    """Serves one event per call; the answer is one entry, as the editor expects it."""

    def __init__(
        self,
        store: SessionStore,
        host: ModelHost,
        pool: FramesPool,
        images: ImageService,
        sessions: VideoSessions,
        jobs: JobRunner,
        embeddings: Embeddings,
        count_hit: Callable[[bool], None],
    ) -> None:
        self._store = store
        self._host = host
        self._pool = pool
        self._images = images
        self._sessions = sessions
        self._jobs = jobs
        self._embeddings = embeddings
        self._count_hit = count_hit

    def answer(self, task: Task, body: PredictBody, config: LabelConfig, client: str) -> Answer:
        """Raises RequestError for an unknown event, naming the known ones."""
        event = body.event
        context = body.context or {}
        if event == "capabilities":
            return self.capabilities()
        if event == "track_progress":
            return _one("track_progress", self._progress(task, context), config)
        if event == "track_cancel":
            return _one("track_cancel_ack", self._cancel(task, context), config)
        if event == "release":
            return _one("release_ack", self._release(task), config)
        if event == "prewarm":
            return _one("prewarm_ack", self._prewarm(task, context, config), config)
        if event == "track":
            return _one("track_started", self._track(task, body, config, client), config)
        raise RequestError(f"The event {brief(event)} is unknown; known are {', '.join(EVENTS)}.")

    def capabilities(self) -> Answer:
        value = {
            "prompts": ["point", "box"],
            "targets": list(TARGETS),
            "model_info": {"name": "EdgeTAM", "version": self._host.version},
        }
        return Answer([_entry("capabilities", value, "", "")], 1.0)

    def frame_mask(self, task: Task, body: PredictBody, config: LabelConfig) -> Answer:
        """The mask on the frame that the prompts are for, as a bitmask entry."""
        video = _video(config)
        regions = [r for r in body.regions if r.get("type") in POINT_TYPES + BOX_TYPES]
        with self._pool.open(video.media(task.data), task.id) as frames:
            index = _frame_index(body.context or {}, frames.identity, video, task)
            size = Size(frames.width, frames.height)
            instances = image_instances(regions, size, scope=f"{task.project}/{task.id}")
            if not instances:
                return Answer([], 0.0)
            embedding = self._embed(frames, index)
        predictor = self._host.predictor()
        entries = []
        for instance in instances:
            with self._host.turnstile.turn(urgent=True):
                prediction = predictor.predict(embedding, instance.prompt)
            value: dict[str, Any] = {
                "imageDataURL": bitmask_url(prediction.best),
                "width": size.width,
                "height": size.height,
                "frame": index,
            }
            if instance.label is not None:
                value["labels"] = [instance.label]
            from_name, to_name = _names(config)
            entry = _entry("bitmask", value, from_name, to_name)
            entry["id"] = instance.region_id
            entry["score"] = probability(float(prediction.iou[prediction.best_index]))
            entries.append(entry)
        return Answer(entries, entries[0]["score"])

    # -- one method per event ---------------------------------------------------------------

    def _prewarm(
        self, task: Task, context: Mapping[str, Any], config: LabelConfig
    ) -> dict[str, Any]:
        image = config.first("image")
        if config.first("video") is None and image is not None:
            self._images.prewarm(task, image)
            return {"status": "ok", "cached": [0], "pending": [], "frame_count": 1}
        video = _video(config)
        window = int(min(max(number(context, "window", 1.0), 0), MAX_WINDOW))
        until = time.monotonic() + PROGRESS_WAIT
        with self._pool.open(video.media(task.data), task.id) as frames:
            first = _frame_index(context, frames.identity, video, task)
            step = -1 if context.get("direction") == "backward" else 1
            wanted = [i for i in range(first, first + step * (window + 1), step)]
            wanted = [i for i in wanted if 0 <= i < len(frames)]
            cached: list[int] = []
            for index in wanted:
                if cached and time.monotonic() > until:
                    break
                self._embed(frames, index)
                cached.append(index)
            pending = [i for i in wanted if i not in cached]
            return {
                "status": "ok",
                "cached": cached,
                "pending": pending,
                "frame_count": len(frames),
            }

    def _track(
        self, task: Task, body: PredictBody, config: LabelConfig, client: str
    ) -> dict[str, Any]:
        context = body.context or {}
        video = _video(config)
        url = video.media(task.data)
        with self._pool.open(url, task.id) as frames:
            index = _frame_index(context, frames.identity, video, task)
            identity = frames.identity
            size = Size(frames.width, frames.height)
            instances = image_instances(body.regions, size, scope=f"{task.project}/{task.id}")
            if not instances:
                raise RequestError("A track needs a point or a box in context.result.")
            session = self._sessions.of(task, frames)
        limit = _max_frames(context, identity)
        passes = _passes(context.get("direction"), index, limit)
        with self._sessions.one_at_a_time(session.id):
            session = self._store.get(session.id)
            replaced = self._replaced(session, instances)
            self._jobs.check_limits(client, len(passes), replaced)
            self._jobs.supersede(replaced)
            jobs = self._jobs.submit(
                session.id,
                passes,
                objects=self._prompted(session, instances, index),
                client=client,
                num_frames=identity.num_frames,
                payload={"url": url, "task": task.id, "project": task.project, "event": True},
            )
        return {
            "session_id": "+".join(job.id for job in jobs),
            "total_frames": sum(job.total for job in jobs),
            "fps": identity.fps,
            "duration_ms": _duration(identity) * 1000,
        }

    def _replaced(self, session: LabelSession, instances: Sequence[Instance]) -> list[LiveJob]:
        """Jobs of the objects that are about to be tracked anew."""
        names = {_external_id(instance) for instance in instances}
        again = {o.obj_id for o in session.objects if o.external_id in names}
        return [j for j in self._jobs.unfinished(session.id) if again & set(j.objects)]

    def _prompted(
        self, session: LabelSession, instances: Sequence[Instance], index: int
    ) -> list[int]:
        """Set the prompts of a new track, one object per instance; what they replace goes."""
        objects: list[int] = []
        for instance in instances:
            item = self._store.add_object(
                session.id,
                instance.label or UNLABELLED,
                external_id=_external_id(instance),
            )
            for old in session.prompts:
                if old.obj_id == item.obj_id:
                    self._store.clear_prompt(session.id, item.obj_id, old.frame_idx)
            self._store.delete_masks(session.id, item.obj_id)
            prompt = replace(instance.prompt, obj_id=item.obj_id, frame_idx=index)
            self._store.add_prompt(session.id, prompt)
            objects.append(item.obj_id)
        return objects

    def _progress(self, task: Task, context: Mapping[str, Any]) -> dict[str, Any]:
        """Long poll: frames that were not handed out yet, in the order they were tracked."""
        jobs = self._named(task, context)
        if not jobs:
            return {"error": "session not found", "done": True, "frames": []}
        until = time.monotonic() + PROGRESS_WAIT
        for job in jobs:
            with job.changed:
                job.changed.wait_for(
                    lambda j=job: j.ended or j.done > j.drained,  # type: ignore[misc]
                    timeout=max(0.0, until - time.monotonic()),
                )
        entries: list[dict[str, Any]] = []
        for job in jobs:
            entries += self._drain(job)
        done = all(job.ended and job.drained >= job.done for job in jobs)
        return {
            "frames": entries,
            "produced": sum(job.done for job in jobs),
            "total": sum(job.total for job in jobs),
            "done": done,
            "error": next((job.error for job in jobs if job.error), None),
        }

    def _drain(self, job: LiveJob) -> list[dict[str, Any]]:
        record = self._store.jobs.get(job.id)
        step = 1 if record.direction == "forward" else -1
        with job.changed:
            first, count = job.drained, min(job.done - job.drained, MAX_BATCH)
            job.drained += max(count, 0)
        if count <= 0:
            return []
        begin = record.start + step * first
        end = begin + step * (count - 1)
        media = self._store.get(job.session_id).media
        entries = [
            {
                "frame": mask.frame_idx,
                "time_ms": media.time_of(mask.frame_idx) * 1000,
                "obj_id": mask.obj_id,
                "imageDataURL": bitmask_url(mask.rle.decode()),
                "width": media.width,
                "height": media.height,
            }
            for mask in self._store.iter_masks(
                job.session_id, start=min(begin, end), stop=max(begin, end) + 1
            )
            if mask.obj_id in job.objects and mask.status != "absent"
        ]
        return entries if step == 1 else entries[::-1]

    def _cancel(self, task: Task, context: Mapping[str, Any]) -> dict[str, Any]:
        jobs = self._named(task, context)
        for job in jobs:
            self._jobs.cancel(job.id)
        return {"status": "cancelled" if jobs else "not_found"}

    def _release(self, task: Task) -> dict[str, Any]:
        """Nothing is held for a client; embeddings of the task's video make room."""
        session = self._store.find(self._sessions.key(task.project, task.id))
        if session is not None:
            self._embeddings.drop(lambda key: key.startswith(f"{session.media.sha256}/"))
        return {"status": "released"}

    def _named(self, task: Task, context: Mapping[str, Any]) -> list[LiveJob]:
        """The jobs of a `session_id`; those of another task are not this caller's."""
        raw = context.get("session_id")
        names = raw.split("+")[:4] if isinstance(raw, str) else []
        found = [job for job in map(self._jobs.live, names) if job is not None]
        mine = {"task": task.id, "project": task.project}
        return [job for job in found if mine.items() <= job.payload.items()]

    def _embed(self, frames: Frames, index: int) -> Any:
        def make() -> Any:
            predictor = self._host.predictor()
            image = frames[index]
            with self._host.turnstile.turn(urgent=True):
                return predictor.embed(image)

        key = f"{frames.identity.sha256}/{index}"
        embedding, hit = self._embeddings.get_or_make(key, make)
        self._count_hit(hit)
        return embedding


def _video(config: LabelConfig) -> ObjectTag:
    video = config.first("video")
    if video is None:
        raise ConfigProblem(
            'The labelling config has no <Video> tag; add <Video name="video" value="$video"/>.'
        )
    return video


def _names(config: LabelConfig) -> tuple[str, str]:
    target = config.first("video") or config.first("image")
    if target is None:
        return "", ""
    found = config.controls_of(target.name, VIDEO_TAGS + OUTPUT_TAGS)
    return (found[0].name if found else ""), target.name


def _frame_index(
    context: Mapping[str, Any], media: MediaIdentity, video: ObjectTag, task: Task
) -> int:
    """`time` (seconds) wins over `time_ms`, and that over `frame` (1-based, the editor's)."""
    if context.get("time") is not None:
        return media.frame_at(number(context, "time"))
    if context.get("time_ms") is not None:
        return media.frame_at(number(context, "time_ms") / 1000)
    frame = int(number(context, "frame", 1.0))
    rate = video.frames_per_second(task.data)
    return Timeline.of(media.pts, media.time_base, rate).index_of(max(frame, 1))


def _external_id(instance: Instance) -> str:
    return answer_id("event", instance.region_id)


def _passes(direction: Any, index: int, limit: int) -> list[JobPass]:
    """With both directions, the prompted frame comes once."""
    forward = JobPass("forward", index, index + limit + 1)
    if direction == "backward":
        return [JobPass("backward", index, index - limit - 1)]
    if direction != "both" or index == 0:
        return [forward]
    return [forward, JobPass("backward", index - 1, index - limit - 1)]


def _max_frames(context: Mapping[str, Any], media: MediaIdentity) -> int:
    if context.get("max_duration_ms") is not None:
        seconds = max(number(context, "max_duration_ms"), 0.0) / 1000
        return max(1, min(round(seconds * media.fps), media.num_frames))
    limit = number(context, "max_frames", float(media.num_frames))
    return int(min(max(limit, 1), media.num_frames))


def _duration(media: MediaIdentity) -> float:
    return media.num_frames / media.fps if media.fps else 0.0


def _entry(kind: str, value: Any, from_name: str, to_name: str) -> dict[str, Any]:
    return {
        "id": answer_id(kind, str(time.monotonic_ns())),
        "type": kind,
        "from_name": from_name,
        "to_name": to_name,
        "origin": "manual",
        "value": value,
    }


def _one(kind: str, value: dict[str, Any], config: LabelConfig) -> Answer:
    return Answer([_entry(kind, value, *_names(config))], 1.0)
