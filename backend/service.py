"""The server without HTTP: every part, wired once, and what a parsed request is answered with."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.sessions import SessionStore

from .body import PredictBody, Task, project_id
from .context import TRACK_TYPE
from .events import EventService
from .faults import ConfigProblem, ModelLoading
from .frames_pool import FramesPool
from .images import Answer, Embeddings, ImageService
from .jobs import JobRunner
from .label_config import LabelConfig, LabelConfigCache
from .live_jobs import LiveJob
from .ls_client import LabelStudioClient
from .media import Download, MediaCache
from .metrics import Metrics
from .model_host import ModelHost
from .settings import ServerSettings
from .training import Training
from .videos import VideoService, VideoSettings
from .webhooks import WebhookService

if TYPE_CHECKING:
    from edgetam_label.modeling import EdgeTAM

logger = logging.getLogger(__name__)

MAX_PROJECTS = 1000


class Backend:
    """load: makes the model, called in the background. Close it to pause the jobs."""

    def __init__(self, settings: ServerSettings, load: Callable[[], EdgeTAM]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.configs = LabelConfigCache()
        self.host = ModelHost(load, every=settings.every)
        key = settings.label_studio_api_key
        self.client = LabelStudioClient(
            settings.label_studio_url,
            key.get_secret_value() if key else None,
            allow_private=settings.allow_private_networks,
            timeout=settings.download_timeout,
        )
        self.media = MediaCache(
            settings.media_dir,
            self.client,
            budget_bytes=settings.media_cache_bytes,
            max_download_bytes=settings.max_download_bytes,
            retries=settings.download_retries,
            observe=self._count_download,
        )
        self.store = SessionStore(settings.db)
        self.pool = FramesPool(self.media, max_pixels=settings.max_pixels)
        embeddings = Embeddings(settings.embedding_cache_bytes)
        self.images = ImageService(
            self.host,
            self.media,
            embeddings,
            max_pixels=settings.max_pixels,
            tolerance=settings.polygon_tolerance,
            observe=self.metrics.observe_step,
            count_hit=self.metrics.count_embedding,
        )
        self.jobs = JobRunner(
            self.store,
            self.host,
            self.pool,
            workers=settings.max_jobs,
            per_client=settings.max_jobs_per_client,
            owner=f"{socket.gethostname()}:{settings.port}",
            observe=self.metrics.observe_step,
            ended=self._count_job,
            on_late=self._push,
            on_masks=self.metrics.masks.labels("video").inc,
        )
        self.videos = VideoService(
            self.store,
            self.host,
            self.pool,
            self.client,
            self.jobs,
            VideoSettings(settings.keyframe_iou, settings.max_track_frames),
            self.metrics.observe_step,
        )
        self.events = EventService(
            self.store,
            self.host,
            self.pool,
            self.images,
            self.videos.sessions,
            self.jobs,
            embeddings,
            self.metrics.count_embedding,
        )
        self.training = Training(
            settings, self.store, lambda project: self.videos.sessions.key(project, "")
        )
        self.webhooks = WebhookService(
            self.store,
            self.jobs,
            self.videos.sessions.key,
            lambda project: self.training.start(project).id,
        )
        self._workers = ThreadPoolExecutor(settings.threads, thread_name_prefix="predict")
        self._options: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._warned: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Load the model in the background; take up unfinished jobs."""
        self.host.start()
        self.jobs.resume()
        self.training.resume()

    def close(self) -> None:
        self.training.stop()
        self.jobs.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self.videos.close()
        self.pool.close()
        self.client.close()
        self.store.close()

    # -- jobs: tracks and fine-tunes ----------------------------------------------------------

    def all_jobs(self) -> list[dict[str, Any]]:
        return self.jobs.all() + self.training.all()

    def job(self, job_id: str) -> dict[str, Any]:
        """Raises JobNotFound."""
        return self.training.get(job_id) or self.jobs.get(job_id)

    def cancel_job(self, job_id: str) -> None:
        """Stop a track, which keeps its masks, or a fine-tune. Raises JobNotFound."""
        if self.training.get(job_id) is not None:
            self.training.cancel(job_id)
        else:
            self.jobs.cancel(job_id, wait=2.0)

    # -- requests ---------------------------------------------------------------------------

    def setup(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Remember a project's options. The token in the body is neither used nor kept."""
        project = project_id(body.get("project"))
        self.client.learn(body.get("hostname"))
        options = body.get("extra_params")
        with self._lock:
            self._options[project] = options if isinstance(options, dict) else {}
            self._options.move_to_end(project)
            while len(self._options) > MAX_PROJECTS:
                self._options.popitem(last=False)
        answer: dict[str, Any] = {"model_version": self.host.version}
        schema = body.get("schema")
        if isinstance(schema, str) and schema.strip():
            config = self.configs.get(schema)
            self._warn(project, config)
            if config.problems:
                answer["problems"] = [p.sentence for p in config.problems]
        return answer

    def predict(self, body: PredictBody, client: str) -> dict[str, Any]:
        """The answer of /predict: one result per task, in the order of the tasks."""
        until = time.monotonic() + self.settings.predict_deadline
        results = [self._task(task, body, client, until) for task in body.tasks]
        version = self.host.version
        return {
            "results": [
                {"model_version": version, "score": a.score, "result": a.result} for a in results
            ]
        }

    def _task(self, task: Task, body: PredictBody, client: str, until: float) -> Answer:
        event = body.event
        if event == "capabilities":
            return self.events.capabilities()
        if body.context is None or (event is None and not body.regions):
            return Answer([], 0.0)  # a batch, or a task that was opened: nothing was asked yet
        config = self.configs.get(body.label_config)
        self._warn(task.project, config)
        if config.fatal is not None:
            raise ConfigProblem(config.fatal)
        with self._lock:
            options = self._options.get(task.project, {})
        if event is not None:
            return self._within(until, self.events.answer, task, body, config, client)
        regions = [r for r in body.regions if isinstance(r.get("type"), str)]
        if any(r["type"] == TRACK_TYPE for r in regions):
            # waits for itself: its work must go on after the deadline
            return self.videos.answer(task, body, config, options, client, until)
        target = next((config.object(str(r.get("to_name"))) for r in regions), None)
        if target is None and config.first("image") is None:
            target = config.first("video")  # other clients do not name the tag
        if target is not None and target.kind == "video":
            return self._within(until, self.events.frame_mask, task, body, config)
        answer = self._within(until, self.images.answer, task, body, config, options)
        self.metrics.masks.labels("image").inc(len(answer.result))
        return answer

    def _within(self, until: float, work: Callable[..., Answer], *args: Any) -> Answer:
        """Run `work`, but answer by the deadline; what it computes meanwhile is cached."""
        future = self._workers.submit(work, *args)
        try:
            return future.result(max(0.0, until - time.monotonic()))
        except FutureTimeout:
            future.add_done_callback(_log_failure)
            raise ModelLoading(
                f"No answer within {self.settings.predict_deadline:g} seconds (a large download, "
                "or the model is still loading); the work goes on, so repeat the click in a moment."
            ) from None

    def _warn(self, project: str, config: LabelConfig) -> None:
        """Each problem of a project once in the log."""
        for problem in config.problems:
            key = f"{project}\0{problem.sentence}"
            with self._lock:
                if key in self._warned:
                    continue
                self._warned[key] = None
                while len(self._warned) > MAX_PROJECTS:
                    self._warned.popitem(last=False)
            logger.warning("project %s: %s", project, problem.sentence)

    # -- observers --------------------------------------------------------------------------

    def _push(self, job: LiveJob) -> None:
        if not job.payload.get("event"):
            self.videos.push(job)

    def _count_download(self, download: Download) -> None:
        self.metrics.media.labels(download.outcome).inc()
        self.metrics.media_bytes.inc(download.bytes)

    def _count_job(self, job: LiveJob) -> None:
        self.metrics.jobs.labels(job.state).inc()

    def refresh_gauges(self) -> None:
        running, queued = self.jobs.running()
        self.metrics.jobs_running.set(running)
        self.metrics.jobs_queued.set(queued)
        self.metrics.model_ready.set(self.host.state.name == "ready")


def _log_failure(future: Any) -> None:
    if future.cancelled():
        return
    error = future.exception()
    if isinstance(error, EdgeTAMLabelError):
        logger.warning("work that outlived its request failed: %s", error)
    elif error is not None:
        logger.error("work that outlived its request failed", exc_info=error)
