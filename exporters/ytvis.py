"""YouTube-VIS 2019/2021 (youtube-vos.org/dataset/vis), ground truth or results.

    <split>/instances.json   or, with --results, <split>/results.json
    <split>/JPEGImages/<video>/<stem>.jpg with --images

Kept: exact masks, overlaps, absent frames (null), labels, object ids (`instance_id`, which others
ignore). Lost: colours, prompts, fps; scores in ground truth, per-frame scores in results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject

from .coco_reading import load_json
from .dataset import Dataset, ExportedObject, Video
from .dataset_writer import DatasetWriter, StreamedFile
from .importing import FrameFiles, ImportedVideo, ImportOptions
from .run_lengths import run_lengths


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """One annotation per object. Ground truth holds run lengths as lists: TrackEval reads no other;
    results hold strings, as pycocotools writes them."""
    results = dataset.options.results
    for split, videos in dataset.by_split():
        name = "results.json" if results else "instances.json"
        with writer.open(f"{split}/{name}") as file:
            if results:
                _write_annotations(file, videos, results=True)
                file.write("\n")
                continue
            file.write('{"info":{"description":"edgetam-label","version":"1.0"},"licenses":[],\n')
            file.write('"videos":')
            file.write_list(_video(video) for video in videos)
            file.write(',\n"annotations":')
            _write_annotations(file, videos, results=False)
            file.write(',\n"categories":')
            file.write_list(
                {"id": category.id, "name": category.name, "supercategory": ""}
                for category in dataset.categories
            )
            file.write("}\n")


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    return f"{video.split}/JPEGImages/{video.name}/{video.frame_file(frame_idx)}"


def _video(video: Video) -> dict[str, Any]:
    return {
        "id": video.id,
        "width": video.width,
        "height": video.height,
        "length": len(video.frames),
        "file_names": [f"{video.name}/{video.frame_file(i)}" for i in video.frames],
    }


def _write_annotations(file: StreamedFile, videos: Sequence[Video], *, results: bool) -> None:
    file.write("[")
    number = 0
    for video in videos:
        for entry in video.objects:
            masks = video.masks_of(entry)
            first = next(masks, None)
            if first is None:
                continue  # all its masks are absent or left out: there is nothing to annotate
            number += 1
            file.write("\n" if number == 1 else ",\n")
            _write_object(file, number, video, entry, _chain(first, masks), results)
        video.take_others()
    file.write("]")


def _chain(first: FrameMask, rest: Iterator[FrameMask]) -> Iterator[FrameMask]:
    yield first
    yield from rest


def _write_object(
    file: StreamedFile,
    number: int,
    video: Video,
    entry: ExportedObject,
    masks: Iterator[FrameMask],
    results: bool,
) -> None:
    """One annotation, its segmentations written one by one as the masks arrive."""
    head: dict[str, Any] = {"video_id": video.id, "category_id": entry.category.id}
    if not results:
        head = {"id": number, **head, "instance_id": entry.dataset_id}
        head |= {"iscrowd": int(bool(entry.attributes.get("iscrowd")))}
        head |= {"width": video.width, "height": video.height, "length": len(video.frames)}
    file.write(_json(head)[:-1] + ',"segmentations":[')
    boxes: list[list[float] | None] = []
    areas: list[int | None] = []
    scores: list[float] = []
    pending = next(masks, None)
    for position, frame_idx in enumerate(video.frames):
        file.write("," if position else "")
        if pending is None or pending.frame_idx != frame_idx:
            file.write("null")
            boxes.append(None)
            areas.append(None)
            continue
        file.write(_json(_segmentation(pending.rle, results)))
        box = pending.rle.box
        assert box is not None, "absent masks are not handed out"
        boxes.append([float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])])
        areas.append(pending.rle.area)
        if not math.isnan(pending.score):
            scores.append(pending.score)
        video.written(pending)
        pending = next(masks, None)
    if results:
        file.write(f'],"score":{_json(_probability(scores))}}}')
    else:
        file.write(f'],"bboxes":{_json(boxes)},"areas":{_json(areas)}}}')


def _segmentation(rle: RLE, results: bool) -> dict[str, Any]:
    return rle.to_coco() if results else {"counts": run_lengths(rle), "size": list(rle.size)}


def _probability(scores: Sequence[float]) -> float:
    """Mean object score (logits) as 0..1; 1 where none is known, as for approved masks."""
    if not scores:
        return 1.0
    mean = max(-60.0, min(60.0, sum(scores) / len(scores)))
    return round(1 / (1 + math.exp(-mean)), 6)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos of every `<split>/instances.json` (also train.json, valid.json) or of one file."""
    for path in _files(folder, options.split):
        data = load_json(path)
        if not isinstance(data, dict) or "videos" not in data:
            raise ExportError(
                f'{path} is not YouTube-VIS ground truth: it has no list "videos". '
                "Results hold no sizes and file names; import the ground truth they belong to."
            )
        categories = {c["id"]: str(c["name"]) for c in data.get("categories") or ()}
        by_video: dict[Any, list[dict[str, Any]]] = {video["id"]: [] for video in data["videos"]}
        for annotation in data.get("annotations") or ():
            if annotation.get("video_id") not in by_video:
                raise ExportError(
                    f"{path}: annotation {annotation.get('id')} belongs to video "
                    f"{annotation.get('video_id')!r}, which is not listed."
                )
            by_video[annotation["video_id"]].append(annotation)
        images = options.images or path.parent / "JPEGImages"
        for video in data["videos"]:
            yield _read_video(path, images, video, by_video[video["id"]], categories)


def _files(folder: Path, split: str | None) -> list[Path]:
    if folder.is_file():
        return [folder]
    patterns = (f"{split}/instances.json", f"{split}.json") if split else ("*/instances.json",)
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if not found and split is None:
        found = [path for path in sorted(folder.glob("*.json")) if path.name != "manifest.json"]
    if not found:
        raise UsageError(f"{folder} holds no {split or '<split>'}/instances.json.")
    return found


def _read_video(
    path: Path,
    images: Path,
    video: dict[str, Any],
    annotations: Sequence[dict[str, Any]],
    categories: dict[Any, str],
) -> ImportedVideo:
    names = [PurePosixPath(str(name)) for name in video["file_names"]]
    size = (int(video["height"]), int(video["width"]))
    objects: dict[int, LabelObject] = {}
    tracks: dict[int, list[Any]] = {}
    for annotation in annotations:
        given = annotation.get("instance_id")
        obj_id = given if isinstance(given, int) and given > 0 else len(objects) + 1
        while obj_id in objects:
            obj_id += 1
        if len(annotation["segmentations"]) != len(names):
            raise ExportError(
                f"{path}: annotation {annotation.get('id')} has "
                f"{len(annotation['segmentations'])} segmentations for {len(names)} frames."
            )
        category = annotation["category_id"]
        if category not in categories:
            raise ExportError(
                f"{path}: annotation {annotation.get('id')} has category {category!r}, "
                "which is not in the list of categories."
            )
        crowd = {"iscrowd": 1} if annotation.get("iscrowd") else {}
        objects[obj_id] = LabelObject(
            obj_id, categories[category], attributes={"category_id": category, **crowd}
        )
        tracks[obj_id] = annotation["segmentations"]

    def masks() -> Iterator[FrameMask]:
        for obj_id, segments in tracks.items():
            for frame_idx, segment in enumerate(segments):
                rle = RLE.empty(*size) if segment is None else RLE.from_coco(segment)
                if rle.size != size:
                    raise ExportError(
                        f"{path}: object {obj_id}, frame {frame_idx}: the segmentation has size "
                        f"{list(rle.size)}, the video {list(size)} (height, width)."
                    )
                yield FrameMask(obj_id, frame_idx, rle, status="approved")

    return ImportedVideo(
        name=str(names[0].parent) if names[0].parent.name else f"video {video['id']}",
        objects=tuple(objects[obj_id] for obj_id in sorted(objects)),
        masks=masks,
        files=FrameFiles(
            images / names[0].parent, tuple(name.name for name in names), size[1], size[0]
        ),
    )
