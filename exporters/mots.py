"""MOTS (vision.rwth-aachen.de/page/mots), txt and PNG, in the folders that TrackEval expects.

    MOTS-<split>/<video>/gt/gt.txt                 rows `frame id class height width rle`
    MOTS-<split>/<video>/instances/000001.png      16 bits, id = class * 1000 + instance
    MOTS-<split>/<video>/img1/000001.jpg           MOTS-<split>/<video>/seqinfo.ini
    seqmaps/MOTS-<split>.txt   classes.txt

Frames are numbered from 1 among the selected ones. Class 2 is the pedestrian that TrackEval
scores, class 1 the car, class 10 is reserved for regions to ignore.
Lost: colours, scores, prompts, overlaps (by the stated policy), numbers and names of frames.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgetam_label.errors import UsageError
from edgetam_label.masks import RLE

from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter
from .id_map import IdMap, compose
from .importing import ImportedVideo, ImportOptions
from .mots_reading import IGNORE_CLASS, read_videos

MAX_CLASS = 65  # 65535 // 1000; of class 65 only objects up to 535 fit, see `_check_fits`
CONVENTIONAL = {"car": 1, "pedestrian": 2, "person": 2}


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """The txt and the PNGs hold the same masks, without overlaps."""
    classes = class_ids(dataset)
    for split, videos in dataset.by_split():
        for video in videos:
            _write_video(video, dataset, writer, classes)
        names = "".join(f"{video.name}\n" for video in videos)
        writer.write_text(f"seqmaps/MOTS-{split}.txt", "name\n" + names)
    rows = sorted((number, name) for name, number in classes.items())
    writer.write_text("classes.txt", "".join(f"{number} {name}\n" for number, name in rows))


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    number = bisect_left(video.frames, frame_idx) + 1
    return f"{_folder(video)}/img1/{number:06d}{_suffix(video, frame_idx)}"


def class_ids(dataset: Dataset) -> dict[str, int]:
    """Class number by category name: as imported, or as a category map says; else car 1, person 2,
    all others from 3 in the order of their names. Raises UsageError if one is not usable."""
    imported: dict[str, set[object]] = {}
    for video in dataset.videos:
        for entry in video.objects:
            claim = entry.attributes.get("mots_class")
            imported.setdefault(entry.category.name, set()).add(claim)
    claims = {name: next(iter(ids)) for name, ids in imported.items() if len(ids) == 1}
    numbers: dict[str, int] = {}
    for category in dataset.categories:
        claim = claims.get(category.name)
        if dataset.explicit_categories:
            numbers[category.name] = category.id
        elif isinstance(claim, int) and claim > 0:
            numbers[category.name] = claim
    for category in dataset.categories:
        wanted = CONVENTIONAL.get(category.name.lower())
        if wanted is not None and wanted not in numbers.values():
            numbers.setdefault(category.name, wanted)
    free = (n for n in range(3, 10**6) if n != IGNORE_CLASS and n not in numbers.values())
    for category in sorted(dataset.categories, key=lambda c: c.name):
        if category.name not in numbers:
            numbers[category.name] = next(free)
    for name, number in numbers.items():
        if number == IGNORE_CLASS or number > MAX_CLASS:
            raise UsageError(
                f"MOTS cannot use class {number} for {name!r}: 10 means 'ignore' and 65 is the "
                "last that fits 16 bits; give it another id with --categories."
            )
    return numbers


def _folder(video: Video) -> str:
    return f"MOTS-{video.split}/{video.name}"


def _suffix(video: Video, frame_idx: int) -> str:
    return "." + video.frame_file(frame_idx).rpartition(".")[2]


def _write_video(
    video: Video, dataset: Dataset, writer: DatasetWriter, classes: Mapping[str, int]
) -> None:
    values = {
        entry.obj_id: classes[entry.category.name] * 1000 + entry.dataset_id
        for entry in video.objects
    }
    _check_fits(video, values)
    with writer.open(f"{_folder(video)}/gt/gt.txt") as file:
        for frame in video.frames_of_masks():
            ids, areas = compose(video, frame, dataset.options, values)
            writer.write_gray(f"{_folder(video)}/instances/{frame.position + 1:06d}.png", ids)
            for obj_id in sorted(areas):
                file.write(_row(frame.position + 1, values[obj_id], ids))
    writer.write_text(f"{_folder(video)}/seqinfo.ini", _seqinfo(video))


def _check_fits(video: Video, values: Mapping[int, int]) -> None:
    for obj_id, value in values.items():
        if value > 65535:
            raise UsageError(
                f"Object {obj_id} of session {video.session.id} would be {value} in a 16-bit PNG "
                "(class * 1000 + object, at most 65535); give its label a class below 65 with "
                "--categories, or pass --renumber."
            )


def _row(number: int, value: int, ids: IdMap) -> str:
    rle = RLE.encode(ids == value)
    height, width = rle.size
    return f"{number} {value} {value // 1000} {height} {width} {rle.counts.decode('ascii')}\n"


def _seqinfo(video: Video) -> str:
    suffix = _suffix(video, video.frames[0])
    return (
        f"[Sequence]\nname={video.name}\nimDir=img1\nframeRate={max(1, round(video.fps))}\n"
        f"seqLength={len(video.frames)}\nimWidth={video.width}\nimHeight={video.height}\n"
        f"imExt={suffix}\n"
    )


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos of every `MOTS-<split>` folder; the txt if there is one, else the PNGs."""
    return read_videos(folder, options)
