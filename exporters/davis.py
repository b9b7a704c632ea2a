"""DAVIS 2017 (davischallenge.org), as davis2017-evaluation and TrackEval read it.

    Annotations/480p/<video>/<stem>.png   JPEGImages/480p/<video>/<stem>.jpg
    ImageSets/2017/<split>.txt

The evaluator takes the number of objects from the highest id on the first frame. So objects are
numbered 1, 2, … among those visible there, and an object that comes later is refused.
Lost: labels, ids, colours, scores, prompts, overlaps (by the stated policy), fps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetam_label.errors import UsageError

from .dataset import Dataset, FrameOfMasks, Video
from .dataset_writer import DatasetWriter
from .id_map import compose, draw
from .importing import ImportedVideo, ImportOptions
from .ytvos import read_annotations

VOID = 255
LATE = "not visible on the first frame, where DAVIS counts its objects"


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Every selected frame gets a PNG; 480p is DAVIS's folder name, sizes stay as they are."""
    for split, videos in dataset.by_split():
        listed = []
        for video in videos:
            numbers = _numbers(video, dataset)
            for entry in video.objects:
                account = video.ledger.account(video.session.id, entry.obj_id)
                account.dataset_id = numbers.get(entry.obj_id)
            if numbers:
                listed.append(video.name)
            else:
                video.ledger.note(
                    video.session.id,
                    f"no object is visible on frame {video.frames[0]}, so DAVIS cannot hold the "
                    "video; begin where one is, with --range.",
                )
            for frame in video.frames_of_masks():
                for mask in frame.masks:
                    if mask.obj_id not in numbers:
                        video.refused(mask, LATE)
                if not numbers:
                    continue
                kept = tuple(mask for mask in frame.masks if mask.obj_id in numbers)
                ids, _ = compose(video, replace(frame, masks=kept), dataset.options, numbers)
                stem = video.stem(frame.frame_idx)
                writer.write_id_map(f"Annotations/480p/{video.name}/{stem}.png", ids)
        writer.write_text(f"ImageSets/2017/{split}.txt", "".join(f"{name}\n" for name in listed))


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    return f"JPEGImages/480p/{video.name}/{video.frame_file(frame_idx)}"


def _numbers(video: Video, dataset: Dataset) -> dict[int, int]:
    """1, 2, … by obj_id for the objects with a pixel on the first selected frame."""
    first = FrameOfMasks(0, video.frames[0], video.peek(video.frames[0]))
    drawn = draw(video, first, dataset.options, {})
    visible = set(np.unique(drawn).tolist())
    ids = [entry.obj_id for entry in video.objects if entry.dataset_id in visible]
    return {obj_id: number for number, obj_id in enumerate(sorted(ids), start=1)}


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos of `ImageSets/2017/<split>.txt`, or of all lists; without lists all folders."""
    root = folder / "Annotations" / "480p"
    if not root.is_dir():
        root = folder / "Annotations"
    if not root.is_dir():
        raise UsageError(f"{folder} holds no Annotations/480p folder, so it is not DAVIS.")
    for name in _listed(folder, root, options.split):
        images = (options.images or folder / "JPEGImages" / root.name) / name
        yield read_annotations(name, root / name, images, {}, void=VOID)


def _listed(folder: Path, root: Path, split: str | None) -> list[str]:
    lists = sorted((folder / "ImageSets" / "2017").glob(f"{split or '*'}.txt"))
    if split is not None and not lists:
        raise UsageError(f"{folder} holds no ImageSets/2017/{split}.txt.")
    names = {
        line.strip()
        for path in lists
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    }
    return sorted(names or {path.name for path in root.iterdir() if path.is_dir()})
