"""Where the dataset tools read masks from: dataset folders and stored sessions, the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject, LabelSession

from .formats import Format, find_format

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

    from .importing import ImportedVideo

ObjectMasks = dict[int, dict[int, RLE]]  # obj_id -> frame_idx -> mask with pixels


@dataclass(frozen=True)
class SourceVideo:
    """One video of a source.

    stems: name of each frame without suffix. numbers: 0-based frame numbers in the original video.
    masks: streams the masks, once; some without pixels.
    images: the frame files in order, () where none are there. media: file to decode instead.
    """

    name: str
    height: int
    width: int
    stems: tuple[str, ...]
    numbers: tuple[int, ...]
    objects: tuple[LabelObject, ...]
    masks: Callable[[], Iterable[FrameMask]]
    images: tuple[Path, ...] = ()
    media: str | None = None

    @property
    def num_frames(self) -> int:
        return len(self.stems)

    def labels(self) -> dict[int, str]:
        return {entry.obj_id: entry.label for entry in self.objects}

    def masks_by_object(self) -> ObjectMasks:
        """All masks with pixels of this video: memory for one video, as run lengths."""
        found: ObjectMasks = {entry.obj_id: {} for entry in self.objects}
        for mask in self.masks():
            if mask.status != "absent" and mask.rle.area:
                found.setdefault(mask.obj_id, {})[mask.frame_idx] = mask.rle
        return found


@dataclass(frozen=True)
class Source:
    """A named series of videos.

    videos: streams them from the beginning at every call.
    keeps_ids: False where an object is all that is of one class, as in YOLO labels.
    """

    title: str
    videos: Callable[[], Iterator[SourceVideo]]
    keeps_ids: bool = True


def folder_source(folder: Path, format_name: str | None = None, split: str | None = None) -> Source:
    """A dataset folder. format_name: by default what manifest.json or the layout says.

    Raises UsageError for no folder or an unknown layout. YOLO keeps no identities: there, all that
    is of one class counts as one object.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give a dataset folder or a session id.")
    entry = find_format(format_name or detect_format(folder))

    def videos() -> Iterator[SourceVideo]:
        empty = True
        for video in _read(entry, folder, split):
            empty = False
            yield video
        if empty:
            raise UsageError(f"{folder} holds no video of format {entry.name}.")

    return Source(str(folder), videos, keeps_ids=entry.name != "yoloseg")


def _read(entry: Format, folder: Path, split: str | None) -> Iterator[SourceVideo]:
    if entry.reads:
        from .importing import ImportOptions

        for video in entry.importer()(folder, ImportOptions(None, split)):
            yield _imported(video)
        return
    from .dataset_plain import READERS

    yield from READERS[entry.name](folder, split)


def store_source(store: SessionStore, session_ids: Sequence[str], title: str) -> Source:
    """Stored sessions by id, all of them if none is named."""

    def videos() -> Iterator[SourceVideo]:
        for session_id in session_ids or [entry.id for entry in store.summaries()]:
            yield session_video(store, store.get(session_id))

    return Source(title, videos)


def session_video(store: SessionStore, session: LabelSession) -> SourceVideo:
    """A stored session as a video of a source."""
    media = session.media
    known = {entry.obj_id for entry in session.objects}

    def masks() -> Iterator[FrameMask]:
        return (m for m in store.iter_masks(session.id) if m.obj_id in known)

    return SourceVideo(
        name=session.name,
        height=media.height,
        width=media.width,
        stems=_stems(media.names, media.num_frames),
        numbers=tuple(range(media.num_frames)) if media.kind == "video" else media.pts,
        objects=session.objects,
        masks=masks,
        media=media.source,
    )


def detect_format(folder: Path) -> str:
    """The format of a folder. Raises UsageError where its layout fits none."""
    from .dataset_json import load_json

    manifest = folder / "manifest.json"
    if manifest.is_file():
        try:
            content: Any = load_json(manifest)
        except ExportError:
            content = None
        if isinstance(content, dict) and isinstance(content.get("format"), str):
            return find_format(content["format"]).name
    layouts = (
        ("davis", "ImageSets/2017/*.txt"),
        ("coco", "annotations/instances_*.json"),
        ("ytvos", "*/meta.json"),
        ("mots", "*/seqinfo.ini"),
        ("mots", "*/*/seqinfo.ini"),
        ("yoloseg", "data.yaml"),
        ("native", "sessions/*.jsonl"),
        ("masks", "*/objects.json"),
        ("ytvis", "*/instances.json"),
        ("labelstudio", "*/tasks.json"),
    )
    for name, pattern in layouts:
        if next(folder.glob(pattern), None) is not None:
            return name
    raise UsageError(f"The format of {folder} cannot be told from its files; name it: --format.")


def _imported(video: ImportedVideo) -> SourceVideo:
    make = partial(SourceVideo, name=video.name, objects=video.objects, masks=video.masks)
    if video.media is not None:
        media = video.media
        return make(
            height=media.height,
            width=media.width,
            stems=_stems(media.names, media.num_frames),
            numbers=tuple(range(media.num_frames)) if media.kind == "video" else media.pts,
            media=media.source,
        )
    files = video.files
    assert files is not None, "a reader gives the media or the files"
    images = tuple(files.folder / name for name in files.names)
    return make(
        height=files.height,
        width=files.width,
        stems=_stems(files.names, len(files.names)),
        numbers=files.numbers or tuple(range(len(files.names))),
        images=images if images and images[0].is_file() else (),
    )


def _stems(names: Sequence[str], num_frames: int) -> tuple[str, ...]:
    if names:
        return tuple(PurePosixPath(name).stem for name in names)
    return tuple(f"{index:05d}" for index in range(num_frames))
