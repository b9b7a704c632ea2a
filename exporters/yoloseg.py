"""YOLO segmentation labels (docs.ultralytics.com, "Instance Segmentation Datasets").

    labels/<split>/<video>/<stem>.txt   images/<split>/<video>/<stem>.jpg   data.yaml

A row is `class x1 y1 … xn yn` in 0..1, one ring per object. Holes and separate parts are joined to
one ring by bridges; where a bridge paints pixels that are not the object's, the manifest says so.
Lost: ids, colours, scores, prompts, time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetam_label.session_types import FrameMask

from .categories import Category
from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter
from .polygons import center_ring, draw_center_ring

# Readers scale by the size and round down (ultralytics, supervision) or to nearest: a quarter of
# a pixel past the centre is the same pixel either way.
NUDGE = 0.25


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Frames without an object get an empty file: a negative example, not a missing one."""
    numbers = {category.id: i for i, category in enumerate(dataset.categories)}
    for split, videos in dataset.by_split():
        for video in videos:
            for frame in video.frames_of_masks():
                rows = [_row(video, mask, numbers) for mask in frame.masks]
                path = f"labels/{split}/{_name(video, frame.frame_idx).rpartition('.')[0]}.txt"
                writer.write_text(path, "".join(f"{row}\n" for row in rows))
    writer.write_text("data.yaml", data_yaml(dataset.splits, dataset.categories))


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame: the same path as its labels."""
    return f"images/{video.split}/{_name(video, frame_idx)}"


def _name(video: Video, frame_idx: int) -> str:
    return video.image_name(frame_idx)


def _row(video: Video, mask: FrameMask, numbers: dict[int, int]) -> str:
    height, width = mask.rle.size
    truth = mask.rle.decode()
    ring = center_ring(truth)
    drawn = draw_center_ring(ring, height, width)
    if bool((drawn == truth).all()):
        video.written(mask)
    else:
        video.converted(mask, "one ring: bridges between parts or holes paint extra pixels")
    return f"{numbers[video.by_obj_id[mask.obj_id].category.id]} {_points(ring, width, height)}"


def _points(ring: NDArray[np.int32], width: int, height: int) -> str:
    # Readers refuse fewer than three points; repeating the last draws the same pixels.
    padded = np.concatenate([ring, np.repeat(ring[-1:], max(0, 3 - len(ring)), axis=0)])
    scaled = (padded + NUDGE) / (width, height)
    return " ".join(f"{value:.8f}" for value in scaled.ravel())


def data_yaml(splits: Sequence[str], categories: Sequence[Category]) -> str:
    """train and val must both be there for ultralytics; without a val split it is the train one."""
    train = "train" if "train" in splits else splits[0]
    val = next((name for name in ("val", "valid", "test") if name in splits), train)
    lines = ["path: .", f"train: images/{train}", f"val: images/{val}"]
    lines += [f"{name}: images/{name}" for name in splits if name not in (train, val, "val")]
    lines += ["names:"]
    # A JSON string is a YAML string, with every character that YAML would trip over escaped.
    lines += [f"  {i}: {json.dumps(category.name)}" for i, category in enumerate(categories)]
    return "\n".join(lines) + "\n"
