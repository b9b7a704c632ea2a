"""One black-and-white PNG per object and frame; nothing is lost where objects overlap.

    <split>/masks/<video>/<object id>/<stem>.png   0 background, 255 the object
    <split>/images/<video>/<stem>.jpg              <split>/objects.json

Kept: exact masks, overlaps, ids, labels, colours. Lost: scores, prompts, absent frames (no file).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Objects without a mask on a frame have no file there."""
    for split, videos in dataset.by_split():
        for video in videos:
            for frame in video.frames_of_masks():
                for mask in frame.masks:
                    number = video.by_obj_id[mask.obj_id].dataset_id
                    stem = video.stem(frame.frame_idx)
                    writer.write_gray(
                        f"{split}/masks/{video.name}/{number}/{stem}.png",
                        mask.rle.decode().astype(np.uint8) * 255,
                    )
                    video.written(mask)
        writer.write_json(f"{split}/objects.json", {v.name: _objects(v) for v in videos})


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    return f"{video.split}/images/{video.name}/{video.frame_file(frame_idx)}"


def _objects(video: Video) -> dict[str, Any]:
    return {
        str(entry.dataset_id): {
            "label": entry.category.name,
            "category_id": entry.category.id,
            "color": entry.color,
        }
        for entry in video.objects
    }
