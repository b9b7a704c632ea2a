"""From a dataset folder to sessions with approved masks, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import ExportError, MediaError, UsageError
from edgetam_label.frames import Frames, MediaIdentity
from edgetam_label.prompts import Prompt
from edgetam_label.session_types import FrameMask, LabelObject, ModelIdentity

from .formats import Format

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

BATCH = 500
Progress = Callable[[int, int], None]  # (videos done, videos in all)


@dataclass(frozen=True)
class ImportOptions:
    """images: folder that holds the frames, if not where the format puts them.
    split: read only this split; None reads all."""

    images: Path | None = None
    split: str | None = None


@dataclass(frozen=True)
class FrameFiles:
    """The frames that a dataset names: file names in order, and the folder they should lie in.

    numbers: frame numbers in the original video, where the format has them; else 0, 1, 2 …
    """

    folder: Path
    names: tuple[str, ...]
    width: int
    height: int
    fps: float = 1.0
    numbers: tuple[int, ...] = ()
    is_still: bool = False


@dataclass(frozen=True)
class ImportedVideo:
    """What a reader found about one video. masks: called once, in any order of frames.

    media: the identity, where the format stores it whole; else it is built from `files`.
    """

    name: str
    objects: tuple[LabelObject, ...]
    masks: Callable[[], Iterable[FrameMask]]
    files: FrameFiles | None = None
    media: MediaIdentity | None = None
    model: ModelIdentity | None = None
    prompts: tuple[Prompt, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportedSession:
    session_id: str
    name: str
    objects: int
    masks: int
    prompts: int


@dataclass(frozen=True)
class ImportReport:
    sessions: tuple[ImportedSession, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {
            "sessions": [vars(entry) for entry in self.sessions],
            "warnings": list(self.warnings),
        }


def import_dataset(
    store: SessionStore,
    entry: Format,
    folder: Path,
    options: ImportOptions,
    progress: Progress | None = None,
) -> ImportReport:
    """Make a session of every video of the dataset; if one fails, none is kept.

    Raises UsageError for a folder that is not such a dataset, ExportError (naming the file and
    the entry) for a damaged one.
    """
    if not folder.exists():
        raise UsageError(f"{folder} does not exist; give the folder of the dataset.")
    done: list[ImportedSession] = []
    warnings: list[str] = []
    try:
        for number, video in enumerate(entry.importer()(folder, options), start=1):
            warnings += video.warnings
            done.append(_store(store, video, warnings))
            if progress is not None:
                progress(number, number)
    except BaseException:
        for session in done:
            store.delete(session.session_id)
        raise
    if not done:
        raise UsageError(f"{folder} holds no video of format {entry.name}.")
    return ImportReport(tuple(done), tuple(warnings))


def _store(store: SessionStore, video: ImportedVideo, warnings: list[str]) -> ImportedSession:
    media = video.media
    if media is None:
        assert video.files is not None, "a reader gives the media or the files"
        media = media_of(video.files, video.name, warnings)
    session = store.create(media, model=video.model, name=video.name)
    try:
        for item in video.objects:
            store.set_object(session.id, item)
        for prompt in video.prompts:
            store.add_prompt(session.id, prompt)
        count, stream = 0, iter(video.masks())
        while batch := tuple(islice(stream, BATCH)):
            count += store.save_masks(session.id, batch)
    except BaseException:
        store.delete(session.id)
        raise
    return ImportedSession(session.id, video.name, len(video.objects), count, len(video.prompts))


def media_of(files: FrameFiles, name: str, warnings: list[str]) -> MediaIdentity:
    """The identity of the frames; without the files, one that says what they should be."""
    paths = [files.folder / frame for frame in files.names]
    numbers = files.numbers or tuple(range(len(files.names)))
    per_frame = 1 / Fraction(files.fps).limit_denominator(10**6)
    time_base = (per_frame.numerator, per_frame.denominator)
    if all(path.is_file() for path in paths):
        found = _open(files, paths)
        if (found.width, found.height) != (files.width, files.height):
            raise ExportError(
                f"The frames of {name!r} in {files.folder} have {found.width}x{found.height} "
                f"pixels, the dataset says {files.width}x{files.height}; give the right images."
            )
        return replace(found, pts=numbers, time_base=time_base, names=files.names)
    missing = next(path for path in paths if not path.is_file())
    warnings.append(
        f"{name}: {missing} is not there, so its masks can be exported but not tracked; "
        "pass --images with the folder of the frames."
    )
    kind = "image" if files.is_still else "folder"
    source = paths[0] if files.is_still else files.folder
    return MediaIdentity(
        source=str(source.absolute()),
        kind=kind,
        size_bytes=0,
        sha256="",
        width=files.width,
        height=files.height,
        num_frames=len(files.names),
        pts=numbers,
        time_base=time_base,
        names=files.names,
    )


def _open(files: FrameFiles, paths: list[Path]) -> MediaIdentity:
    try:
        if files.is_still:
            with Frames.open(paths[0]) as frames:
                return frames.identity
        with Frames.open(files.folder) as frames:
            if frames.identity.names == files.names:
                return frames.identity
    except MediaError as error:
        if files.is_still:
            raise ExportError(str(error)) from error
    with Frames.open(paths) as frames:
        return frames.identity
