"""COCO instances, with the COCO-VID fields for video (cocodataset.org, "Data format").

    annotations/instances_<split>.json      images/<split>/<file_name> with --images

Kept: exact masks as run lengths (or polygons), labels, object ids (`track_id`, `instance_id`),
0-based `frame_id`, sizes, average fps. Lost: colours, scores, prompts, absent frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from edgetam_label.errors import UsageError
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask

from .coco_reading import read_videos
from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter, StreamedFile
from .importing import ImportedVideo, ImportOptions
from .polygons import coco_polygons


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Write every split; annotations are streamed, so memory does not grow with their number."""
    for split, videos in dataset.by_split():
        with writer.open(f"annotations/instances_{split}.json") as file:
            _write_split(file, dataset, videos)


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos and single images of `annotations/instances_*.json`, or of one JSON file."""
    for split, path in annotation_files(folder, options.split):
        images = options.images or _images_folder(folder, split)
        yield from read_videos(path, images)


def annotation_files(folder: Path, split: str | None) -> list[tuple[str, Path]]:
    """(split, file) of a COCO folder, by name. Raises UsageError if there is none."""
    if folder.is_file():
        return [("", folder)]
    paths = sorted(folder.glob("annotations/*.json")) or sorted(folder.glob("*.json"))
    found = [
        (path.stem.removeprefix("instances_"), path)
        for path in paths
        if path.name != "manifest.json"
    ]
    chosen = [entry for entry in found if split in (None, entry[0])]
    if not chosen:
        known = ", ".join(name for name, _ in found) or "none"
        raise UsageError(
            f"{folder} holds no COCO file annotations/instances_{split or '<split>'}.json "
            f"(splits found: {known})."
        )
    return chosen


def _images_folder(folder: Path, split: str) -> Path:
    root = folder.parent if folder.is_file() else folder
    candidates = (root / "images" / split, root / split, root / "images", root)
    return next((path for path in candidates if path.is_dir()), root)


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    return f"images/{video.split}/{video.image_name(frame_idx)}"


def _write_split(file: StreamedFile, dataset: Dataset, videos: tuple[Video, ...]) -> None:
    file.write('{"info":{"description":"edgetam-label","version":"1.0"},"licenses":[],\n"images":')
    file.write_list(_images(videos))
    file.write(',\n"annotations":')
    file.write_list(_annotations(dataset, videos))
    file.write(',\n"categories":')
    file.write_list(
        {"id": category.id, "name": category.name, "supercategory": ""}
        for category in dataset.categories
    )
    file.write(',\n"videos":')
    file.write_list(_video(video) for video in videos if not video.is_still)
    file.write("}\n")


def _images(videos: tuple[Video, ...]) -> Iterator[dict[str, Any]]:
    # Ids run over the selected frames of all videos of the split, from 1: pycocotools'
    # evaluation reads an id of 0 as "unmatched".
    image_id = 0
    for video in videos:
        for frame_idx in video.frames:
            image_id += 1
            image = {
                "id": image_id,
                "file_name": video.image_name(frame_idx),
                "width": video.width,
                "height": video.height,
            }
            if not video.is_still:
                image |= {"video_id": video.id, "frame_id": video.frame_number(frame_idx)}
            yield image


def _annotations(dataset: Dataset, videos: tuple[Video, ...]) -> Iterator[dict[str, Any]]:
    annotation_id = first_image_id = 0
    for video in videos:
        for frame in video.frames_of_masks():
            for mask in frame.masks:
                entry = video.by_obj_id[mask.obj_id]
                box = mask.rle.box
                assert box is not None, "absent masks are not handed out"
                annotation_id += 1
                segmentation = _segmentation(video, mask, dataset.options.polygons)
                annotation = {
                    "id": annotation_id,
                    "image_id": first_image_id + frame.position + 1,
                    "category_id": entry.category.id,
                    "segmentation": segmentation,
                    "area": mask.rle.area,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "iscrowd": int(bool(entry.attributes.get("iscrowd"))),
                    "track_id": entry.dataset_id,
                    "instance_id": entry.dataset_id,
                    "attributes": {"track_id": entry.dataset_id},  # what datumaro and CVAT keep
                }
                if not video.is_still:
                    annotation["video_id"] = video.id
                yield annotation
        first_image_id += len(video.frames)


def _segmentation(video: Video, mask: FrameMask, as_polygons: bool) -> Any:
    if not as_polygons:
        video.written(mask)
        return mask.rle.to_coco()
    polygons = coco_polygons(mask.rle.decode())
    rings = coco_mask.frPyObjects(polygons, *mask.rle.size)
    drawn = RLE.from_coco(coco_mask.merge(rings))
    if drawn.counts == mask.rle.counts:
        video.written(mask)
    else:
        video.converted(mask, "polygon: pixels differ when pycocotools draws it")
    return polygons


def _video(video: Video) -> dict[str, Any]:
    return {
        "id": video.id,
        "name": video.name,
        "width": video.width,
        "height": video.height,
        "fps": round(video.fps, 6),
    }
