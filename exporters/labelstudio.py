"""Label Studio tasks, to upload with "Import", with predictions or annotations.

    video/tasks.json   video/label_config.xml      one task per video: VideoRectangle regions
    image/tasks.json   image/label_config.xml      one task per image: brush masks

Label Studio's open-source editor has no masks on video, so a video keeps the box of each mask
only; images keep exact masks, and so does a video with --images, which makes every frame a task.
Lost besides: prompts, per-frame scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import quoteattr

from edgetam_label.backend.brush import encode_brush
from edgetam_label.session_types import FrameMask

from .dataset import Dataset, ExportedObject, Video
from .dataset_writer import DatasetWriter
from .importing import ImportedVideo, ImportOptions
from .labelstudio_reading import read_tasks
from .labelstudio_sequence import Keyframe, keyframes_of_boxes, keyframes_of_prompts, to_ls_frame

AS_BOX = "box of the mask: Label Studio holds no masks on video"
IMAGE_TAGS = ("brush", "image")  # from_name, to_name
VIDEO_TAGS = ("box", "video")


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Tasks carry the split in their data; a project has one label config, hence two folders."""
    videos = [video for video in dataset.videos if _as_video(video, dataset)]
    images = [video for video in dataset.videos if not _as_video(video, dataset)]
    if videos:
        with writer.open("video/tasks.json") as file:
            file.write_list(_video_task(video, dataset) for video in videos)
            file.write("\n")
        writer.write_text("video/label_config.xml", label_config(videos, on_video=True))
    if images:
        with writer.open("image/tasks.json") as file:
            file.write_list(task for video in images for task in _image_tasks(video, dataset))
            file.write("\n")
        writer.write_text("image/label_config.xml", label_config(images, on_video=False))


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The tasks of `video/tasks.json` and `image/tasks.json`, or of a JSON export of a project."""
    return read_tasks(folder, options)


def _as_video(video: Video, dataset: Dataset) -> bool:
    return video.session.media.kind == "video" and not dataset.options.images


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    return f"image/files/{video.image_name(frame_idx)}"


def label_config(videos: list[Video], *, on_video: bool) -> str:
    """A labeling interface for exactly these labels."""
    colors = {e.category.name: e.color for v in videos for e in reversed(v.objects)}
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(colors[name])}/>\n"
        for name in sorted(colors)
    )
    if on_video:
        return (
            f'<View>\n  <Labels name="label" toName="video">\n{labels}  </Labels>\n'
            '  <Video name="video" value="$video" frameRate="$fps"/>\n'
            '  <VideoRectangle name="box" toName="video"/>\n</View>\n'
        )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="brush" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
    )


def _wrap(dataset: Dataset, video: Video, results: list[Any], scores: list[float]) -> Any:
    if dataset.options.annotations:
        return {"annotations": [{"result": results}]}
    model = video.session.model
    prediction: dict[str, Any] = {"model_version": model.name if model else "edgetam-label"}
    known = [score for score in scores if not math.isnan(score)]
    if known:
        logit = max(-60.0, min(60.0, sum(known) / len(known)))
        prediction["score"] = round(1 / (1 + math.exp(-logit)), 6)
    return {"predictions": [{**prediction, "result": results}]}


def _video_task(video: Video, dataset: Dataset) -> dict[str, Any]:
    fps = round(video.fps, 6)
    results: list[dict[str, Any]] = []
    scores: list[float] = []
    for entry in video.objects:
        keyframes = _track(video, entry, fps, scores)
        if keyframes:
            results.append(_video_region(video, entry, fps, keyframes))
    video.take_others()
    data = {"video": _url(video, dataset, None), "fps": fps, "session": video.name}
    return {"data": {**data, "split": video.split}, **_wrap(dataset, video, results, scores)}


def _track(video: Video, entry: ExportedObject, fps: float, scores: list[float]) -> list[Keyframe]:
    """Keyframes of one object: of its masks, or of its box prompts if nothing was tracked."""
    boxes = {}
    for mask in video.masks_of(entry):
        if to_ls_frame(video.session.media, mask.frame_idx, fps) is None:
            video.refused(mask, "variable frame rate: Label Studio never shows this frame")
            continue
        box = mask.rle.box
        assert box is not None, "absent masks are not handed out"
        boxes[mask.frame_idx] = box
        scores.append(mask.score)
        video.converted(mask, AS_BOX)
    if boxes:
        return keyframes_of_boxes(boxes, video.frames)
    prompts = [p for p in video.session.prompts if p.obj_id == entry.obj_id and p.box]
    gone = {
        mask.frame_idx
        for mask in video.source.iter_masks(video.session.id, obj_id=entry.obj_id)
        if mask.status == "approved" and mask.rle.area == 0
    }
    return keyframes_of_prompts(prompts, gone)


def _video_region(
    video: Video, entry: ExportedObject, fps: float, keyframes: list[Keyframe]
) -> dict[str, Any]:
    media = video.session.media
    sequence = []
    for keyframe in keyframes:
        x0, y0, x1, y1 = keyframe.box
        number = to_ls_frame(media, keyframe.frame_idx, fps)
        if number is None:
            continue
        sequence.append(
            {
                "frame": number,
                "enabled": keyframe.enabled,
                "rotation": 0,
                "x": _percent(x0, media.width),
                "y": _percent(y0, media.height),
                "width": _percent(x1 - x0, media.width),
                "height": _percent(y1 - y0, media.height),
                "time": round(number / fps, 6),
            }
        )
    value = {
        "framesCount": media.num_frames,
        "duration": round(media.num_frames / fps, 6),
        "sequence": sequence,
        "labels": [entry.category.name],
    }
    region = _region(video, entry, "videorectangle", VIDEO_TAGS)
    return {**region, "value": value}


def _image_tasks(video: Video, dataset: Dataset) -> Iterator[dict[str, Any]]:
    for frame in video.frames_of_masks():
        results = [_brush_region(video, mask) for mask in frame.masks]
        data = {"image": _url(video, dataset, frame.frame_idx), "session": video.name}
        if not video.is_still:
            data |= {
                "frame": str(video.frame_number(frame.frame_idx)),
                "fps": str(round(video.fps, 6)),
            }
        data |= {"width": str(video.width), "height": str(video.height)}
        scores = [mask.score for mask in frame.masks]
        yield {
            "data": {**data, "split": video.split},
            **_wrap(dataset, video, results, scores),
        }


def _brush_region(video: Video, mask: FrameMask) -> dict[str, Any]:
    entry = video.by_obj_id[mask.obj_id]
    rle = encode_brush(mask.rle.decode())
    video.written(mask)
    value = {"format": "rle", "rle": rle, "brushlabels": [entry.category.name]}
    return {**_region(video, entry, "brushlabels", IMAGE_TAGS), "value": value}


def _region(
    video: Video, entry: ExportedObject, kind: str, tags: tuple[str, str]
) -> dict[str, Any]:
    return {
        "id": entry.external_id or f"object-{entry.dataset_id}",
        "type": kind,
        "from_name": tags[0],
        "to_name": tags[1],
        "original_width": video.width,
        "original_height": video.height,
        "image_rotation": 0,
    }


def _url(video: Video, dataset: Dataset, frame_idx: int | None) -> str:
    """Where Label Studio finds the media: below --media-url, else the local path."""
    media, prefix = video.session.media, dataset.options.media_url
    if frame_idx is None:
        return (
            f"{prefix.rstrip('/')}/{PurePosixPath(media.source).name}" if prefix else media.source
        )
    name = video.image_name(frame_idx)
    if prefix:
        return f"{prefix.rstrip('/')}/{name}"
    if dataset.options.images:
        return f"files/{name}"
    return media.source if video.is_still else f"{media.source}/{media.names[frame_idx]}"


def _percent(value: float, full: int) -> float:
    return round(value / full * 100, 6)
