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

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.image_files import list_images
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject

from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter
from .id_map import IdMap, compose, read_id_map
from .importing import FrameFiles, ImportedVideo, ImportOptions

IGNORE_CLASS = 10
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
    number = video.frames.index(frame_idx) + 1
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


@dataclass(frozen=True)
class _Sequence:
    """What seqinfo.ini says, and the masks by (0-based frame, MOTS id)."""

    folder: Path
    length: int
    fps: float
    suffix: str
    size: tuple[int, int]
    masks: Mapping[tuple[int, int], RLE]


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The videos of every `MOTS-<split>` folder; the txt if there is one, else the PNGs."""
    roots = sorted(path for path in folder.glob(f"MOTS-{options.split or '*'}") if path.is_dir())
    if not roots and options.split is None:
        roots = [folder]
    names = _class_names(folder)
    found = False
    for root in roots:
        for path in sorted(path for path in root.iterdir() if path.is_dir()):
            if (path / "gt" / "gt.txt").is_file() or (path / "instances").is_dir():
                found = True
                yield _read_video(path, names, options)
    if not found:
        raise UsageError(f"{folder} holds no MOTS-<split>/<video>/gt/gt.txt and no instances.")


def _class_names(folder: Path) -> dict[int, str]:
    names = {1: "car", 2: "pedestrian"}
    path = folder / "classes.txt"
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            key, _, name = line.partition(" ")
            if not key.isdecimal() or not name:
                raise ExportError(f"{path}, line {number}: expected `<class> <name>`.")
            names[int(key)] = name
    return names


def _read_video(path: Path, names: Mapping[int, str], options: ImportOptions) -> ImportedVideo:
    txt = path / "gt" / "gt.txt"
    sequence = _read_txt(path, txt) if txt.is_file() else _read_pngs(path)
    values = sorted({value for _, value in sequence.masks})
    kept = [value for value in values if value // 1000 != IGNORE_CLASS]
    obj_ids: dict[int, int] = {}
    for value in kept:
        wanted = value % 1000 or 1
        while wanted in obj_ids.values():
            wanted += 1
        obj_ids[value] = wanted
    objects = tuple(
        LabelObject(
            obj_ids[value],
            names.get(value // 1000, f"class {value // 1000}"),
            attributes={"mots_class": value // 1000},
        )
        for value in kept
    )

    def masks() -> Iterator[FrameMask]:
        empty = RLE.empty(*sequence.size)
        for frame_idx in range(sequence.length):
            for value in kept:
                rle = sequence.masks.get((frame_idx, value), empty)
                yield FrameMask(obj_ids[value], frame_idx, rle, status="approved")

    images = options.images / path.name if options.images else path / "img1"
    files = [file.name for file in list_images(images)] if images.is_dir() else []
    frame_names = files or [f"{n + 1:06d}{sequence.suffix}" for n in range(sequence.length)]
    if len(frame_names) != sequence.length:
        raise ExportError(
            f"{images} holds {len(frame_names)} images, the sequence {sequence.length} frames."
        )
    skipped = f"{path.name}: regions to ignore (class {IGNORE_CLASS}) were skipped"
    return ImportedVideo(
        name=path.name,
        objects=tuple(sorted(objects, key=lambda item: item.obj_id)),
        masks=masks,
        files=FrameFiles(
            images, tuple(frame_names), sequence.size[1], sequence.size[0], sequence.fps
        ),
        warnings=(skipped,) if kept != values else (),
    )


def _read_txt(path: Path, txt: Path) -> _Sequence:
    masks: dict[tuple[int, int], RLE] = {}
    info = _read_seqinfo(path)
    size: tuple[int, int] | None = None
    for number, line in enumerate(txt.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split(" ")
        if not line.strip():
            continue
        try:
            frame, value, _, height, width = (int(field) for field in fields[:5])
            rle = RLE((height, width), fields[5].encode("ascii"))
            rle.decode()
        except (ValueError, IndexError) as error:
            raise ExportError(
                f"{txt}, line {number}: expected `frame id class height width rle` ({error})."
            ) from error
        if frame < 1 or (size is not None and rle.size != size):
            raise ExportError(
                f"{txt}, line {number}: frame {frame} of {width}x{height} does not fit the "
                "sequence; frames start at 1 and have one size."
            )
        size = rle.size
        masks[frame - 1, value] = rle
    length = info.getint("seqLength", max((frame for frame, _ in masks), default=-1) + 1)
    size = size or (info.getint("imHeight", 0), info.getint("imWidth", 0))
    if length < 1 or 0 in size:
        raise ExportError(
            f"{txt} holds no rows and {path / 'seqinfo.ini'} no size; nothing to read."
        )
    last = max((frame for frame, _ in masks), default=0)
    if last >= length:
        raise ExportError(f"{txt} has frame {last + 1}, but seqinfo.ini says seqLength={length}.")
    return _Sequence(
        path, length, info.getfloat("frameRate", 1.0), info.get("imExt", ".jpg"), size, masks
    )


def _read_pngs(path: Path) -> _Sequence:
    info = _read_seqinfo(path)
    masks: dict[tuple[int, int], RLE] = {}
    pngs = sorted((path / "instances").glob("*.png"))
    if not pngs:
        raise ExportError(f"{path / 'instances'} holds no PNG files.")
    size = read_id_map(pngs[0]).shape
    for frame_idx, png in enumerate(pngs):
        ids = read_id_map(png)
        if ids.shape != size:
            raise ExportError(f"{png} is {ids.shape[1]}x{ids.shape[0]}, not {size[1]}x{size[0]}.")
        for value in np.unique(ids[ids > 0]).tolist():
            masks[frame_idx, value] = RLE.encode(ids == value)
    fps, suffix = info.getfloat("frameRate", 1.0), info.get("imExt", ".jpg")
    return _Sequence(path, len(pngs), fps, suffix, (size[0], size[1]), masks)


def _read_seqinfo(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path / "seqinfo.ini", encoding="utf-8")
    except configparser.Error as error:
        raise ExportError(f"{path / 'seqinfo.ini'} is damaged: {error}.") from error
    if not parser.has_section("Sequence"):
        parser.add_section("Sequence")
    return parser["Sequence"]
