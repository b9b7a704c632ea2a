"""YouTube-VOS (youtube-vos.org, 2018/2019 data sets).

    <split>/Annotations/<video>/<stem>.png   <split>/JPEGImages/<video>/<stem>.jpg
    <split>/meta.json

Kept: exact masks where objects do not overlap, object ids 1..255 with their gaps, labels, on which
frames an object is seen. Lost: overlaps (by the stated policy), colours, scores, prompts, fps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.image_files import list_images
from edgetam_label.session_types import FrameMask, LabelObject

from .coco_reading import load_json
from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter
from .id_map import compose, masks_of_id_map, read_id_map
from .importing import FrameFiles, ImportedVideo, ImportOptions


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
    return f"{video.split}/JPEGImages/{video.name}/{video.frame_file(frame_idx)}"


def _meta(video: Video, seen: dict[int, list[str]]) -> str:
    objects = {
        str(entry.dataset_id): {"category": entry.category.name, "frames": seen[entry.obj_id]}
        for entry in video.objects
        if seen[entry.obj_id]
    }
    return f"{json.dumps(video.name)}:{json.dumps({'objects': objects}, separators=(',', ':'))}"


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos of every split under `folder`, or of `folder` if it is a split itself."""
    for root in split_folders(folder, options.split):
        yield from _read_split(root, options)


def split_folders(folder: Path, split: str | None) -> list[Path]:
    """Folders with an `Annotations` folder in them. Raises UsageError if there is none."""
    if split is None and (folder / "Annotations").is_dir():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/Annotations") if path.is_dir())
    chosen = [path for path in found if split in (None, path.name)]
    if not chosen:
        known = ", ".join(path.name for path in found) or "none"
        raise UsageError(
            f"{folder} holds no {split or '<split>'}/Annotations folder (splits found: {known})."
        )
    return chosen


def _read_split(root: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    meta = load_json(root / "meta.json") if (root / "meta.json").is_file() else {}
    videos = meta.get("videos", {})
    for folder in sorted(path for path in (root / "Annotations").iterdir() if path.is_dir()):
        name = folder.name
        described = videos.get(name, {}).get("objects", {})
        labels = {int(key): str(entry["category"]) for key, entry in described.items()}
        images = (options.images or root / "JPEGImages") / name
        yield read_annotations(name, folder, images, labels)


def read_annotations(
    name: str,
    folder: Path,
    images: Path,
    labels: Mapping[int, str],
    void: int | None = None,
) -> ImportedVideo:
    """A video from a folder of palette PNGs named like its frames.

    labels: by pixel value; values that it lacks are called "object". void: a value to skip.
    Frames without a PNG have no masks.
    """
    pngs = {path.stem: path for path in sorted(folder.glob("*.png"))}
    if not pngs:
        raise ExportError(f"{folder} holds no PNG files.")
    frames = list_images(images) if images.is_dir() else []
    names = tuple(path.name for path in frames) or tuple(f"{stem}.jpg" for stem in pngs)
    stems = {PurePosixPath(frame).stem: i for i, frame in enumerate(names)}
    lost = sorted(set(pngs) - set(stems))
    if lost:
        raise ExportError(f"{pngs[lost[0]]} belongs to no frame in {images}.")
    height, width = read_id_map(next(iter(pngs.values()))).shape
    found: set[int] = set()
    for path in pngs.values():
        ids = read_id_map(path)
        if ids.shape != (height, width):
            raise ExportError(f"{path} is {ids.shape[1]}x{ids.shape[0]}, not {width}x{height}.")
        found.update(int(value) for value in np.unique(ids))
    values = sorted(found - {0, void})

    def masks() -> Iterator[FrameMask]:
        for stem, path in pngs.items():
            yield from masks_of_id_map(read_id_map(path), stems[stem], {v: v for v in values})

    return ImportedVideo(
        name=name,
        objects=tuple(LabelObject(value, labels.get(value, "object")) for value in values),
        masks=masks,
        files=FrameFiles(images, names, width, height),
        warnings=(f"{name}: void pixels ({void}) were skipped",) if void in found else (),
    )
