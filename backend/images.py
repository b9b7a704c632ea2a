"""Answers for images: prompts in, regions out; the embedding of an image is computed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from edgetam_label.byte_cache import ByteCache
from edgetam_label.errors import MediaError
from edgetam_label.frames import Frames

from .body import PredictBody, Task
from .context import BOX_TYPES, POINT_TYPES, Instance, Size, image_instances
from .faults import FetchFailed, RequestError
from .label_config import ControlTag, LabelConfig, ObjectTag
from .media import MediaCache, MediaFile
from .model_host import ModelHost
from .results import image_results

if TYPE_CHECKING:
    from edgetam_label.predictor import ImageEmbedding

Observe = Callable[[str, float], None]
"""Told (step, seconds): fetch, decode, embed, predict, encode."""

MAX_INSTANCES = 200
ENCODER = "embedding"


@dataclass(frozen=True)
class Answer:
    """Regions for one task, and the mean predicted IoU as its score."""

    result: list[dict[str, Any]]
    score: float


class Embeddings(ByteCache[str, "ImageEmbedding"]):
    """By "<sha256 of the media>/<frame>"."""


class ImageService:
    """Stateless towards callers: what an answer needs comes with the request."""

    def __init__(
        self,
        host: ModelHost,
        media: MediaCache,
        embeddings: Embeddings,
        *,
        max_pixels: int,
        tolerance: float,
        observe: Observe,
        count_hit: Callable[[bool], None],
    ) -> None:
        self._host = host
        self._media = media
        self._embeddings = embeddings
        self._max_pixels = max_pixels
        self._tolerance = tolerance
        self._observe = observe
        self._count_hit = count_hit

    def answer(
        self, task: Task, body: PredictBody, config: LabelConfig, options: Mapping[str, Any]
    ) -> Answer:
        """options: the backend's extra parameters of this project: output, polygon_tolerance.

        Raises RequestError, ConfigProblem, FetchRefused or FetchFailed with a sentence each.
        """
        regions = [r for r in body.regions if r.get("type") in POINT_TYPES + BOX_TYPES]
        if not regions:
            return Answer([], 0.0)
        result: list[dict[str, Any]] = []
        scores: list[float] = []
        for target, group in _by_object(regions).items():
            tag = config.object(target) or config.first("image")
            if tag is None or tag.kind != "image":
                raise RequestError(
                    f"The prompts are for {target!r}, which is no <Image> of the config."
                )
            entries, ious = self._object(task, tag, group, config, options)
            result += entries
            scores += ious
        return Answer(result, sum(scores) / len(scores) if scores else 0.0)

    def _object(
        self,
        task: Task,
        tag: ObjectTag,
        regions: list[Mapping[str, Any]],
        config: LabelConfig,
        options: Mapping[str, Any],
    ) -> tuple[list[dict[str, Any]], list[float]]:
        result: list[dict[str, Any]] = []
        scores: list[float] = []
        wanted = options.get("output")
        for item, group in _by_item(regions).items():
            began = time.perf_counter()
            with self._media.lease(tag.media(task.data, item), task.id) as file:
                self._observe("fetch", time.perf_counter() - began)
                embedding = self._embed(file)
            size = Size(embedding.width, embedding.height)
            instances = image_instances(group, size, scope=f"{task.project}/{task.id}")
            if len(instances) > MAX_INSTANCES:
                raise RequestError(
                    f"{len(instances)} objects in one request; at most {MAX_INSTANCES} work."
                )
            for instance in instances:
                control = config.output_for(tag.name, instance.label, _text(wanted))
                entries, iou = self._instance(embedding, instance, control, options)
                result += entries
                scores.append(iou)
        return result, scores

    def prewarm(self, task: Task, tag: ObjectTag) -> None:
        """Fetch and embed an image before its first click."""
        with self._media.lease(tag.media(task.data), task.id) as file:
            self._embed(file)

    def _instance(
        self,
        embedding: ImageEmbedding,
        instance: Instance,
        control: ControlTag,
        options: Mapping[str, Any],
    ) -> tuple[list[dict[str, Any]], float]:
        predictor = self._host.predictor()
        began = time.perf_counter()
        with self._host.turnstile.turn(urgent=True):
            # waiting for the turn is part of what the annotator waits for
            prediction = predictor.predict(embedding, instance.prompt)
        self._observe("predict", time.perf_counter() - began)
        began = time.perf_counter()
        iou = float(prediction.iou[prediction.best_index])
        entries = image_results(
            instance, control, prediction.best, iou, tolerance=self._tolerance_of(options)
        )
        self._observe("encode", time.perf_counter() - began)
        return entries, iou

    def _tolerance_of(self, options: Mapping[str, Any]) -> float:
        raw = options.get("polygon_tolerance")
        usable = isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0 <= raw <= 100
        return float(raw) if usable else self._tolerance  # type: ignore[arg-type]

    def _embed(self, file: MediaFile) -> ImageEmbedding:
        def make() -> ImageEmbedding:
            predictor = self._host.predictor()
            began = time.perf_counter()
            image = read_image(file, self._max_pixels)
            self._observe("decode", time.perf_counter() - began)
            began = time.perf_counter()
            with self._host.turnstile.turn(urgent=True):
                embedding = predictor.embed(image)
            self._observe("embed", time.perf_counter() - began)
            return embedding

        embedding, hit = self._embeddings.get_or_make(f"{file.sha256}/0", make)
        self._count_hit(hit)
        return embedding


def read_image(file: MediaFile, max_pixels: int) -> Any:
    """(H, W, 3) RGB of a downloaded image, turned as its EXIF says.

    The header is looked at before a pixel is decoded: a small file may unpack to a huge picture.
    """
    try:
        with PILImage.open(file.path) as header:
            width, height = header.size
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        raise FetchFailed("The image is damaged or of a kind that is not decoded here.") from None
    except PILImage.DecompressionBombError:
        raise FetchFailed("The image unpacks to more pixels than are decoded here.") from None
    if width * height > max_pixels:
        raise FetchFailed(
            f"The image has {width}x{height} pixels, over the limit of {max_pixels}; raise "
            "EDGETAM_LABEL_MAX_PIXELS if such images are meant."
        )
    try:
        with Frames.open(file.path) as frames:
            return frames[0]
    except MediaError as error:
        raise FetchFailed(str(error)) from None


def _by_object(regions: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for region in regions:
        name = region.get("to_name")
        groups.setdefault(name if isinstance(name, str) else "", []).append(region)
    return groups


def _by_item(regions: list[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for region in regions:
        raw = region.get("item_index")
        item = raw if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0 else 0
        groups.setdefault(item, []).append(region)
    return groups


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
