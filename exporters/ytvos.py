"""YouTube-VOS (youtube-vos.org, 2018/2019 data sets).

    <split>/Annotations/<video>/<stem>.png   <split>/JPEGImages/<video>/<stem>.jpg
    <split>/meta.json

Kept: exact masks where objects do not overlap, object ids 1..255 with their gaps, labels, on which
frames an object is seen. Lost: overlaps (by the stated policy), colours, scores, prompts, fps.
"""

from __future__ import annotations

import json

from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter
from .id_map import compose


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Every selected frame gets a PNG, an empty one where no object is seen."""
    for split, videos in dataset.by_split():
        entries = []
        for video in videos:
            seen: dict[int, list[str]] = {entry.obj_id: [] for entry in video.objects}
            for frame in video.frames_of_masks():
                ids, areas = compose(video, frame, dataset.options)
                stem = video.stem(frame.frame_idx)
                writer.write_id_map(f"{split}/Annotations/{video.name}/{stem}.png", ids)
                for obj_id in areas:
                    seen[obj_id].append(stem)
            entries.append((video, seen))
        with writer.open(f"{split}/meta.json") as file:
            file.write('{"videos":{')
            for number, (video, seen) in enumerate(entries):
                file.write(("\n" if number == 0 else ",\n") + _meta(video, seen))
            file.write("}}\n")


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    name = f"{video.stem(frame_idx)}{video.image_suffix}"
    return f"{video.split}/JPEGImages/{video.name}/{name}"


def _meta(video: Video, seen: dict[int, list[str]]) -> str:
    objects = {
        str(entry.dataset_id): {"category": entry.category.name, "frames": seen[entry.obj_id]}
        for entry in video.objects
        if seen[entry.obj_id]
    }
    return f"{json.dumps(video.name)}:{json.dumps({'objects': objects}, separators=(',', ':'))}"
