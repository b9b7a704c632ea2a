"""From stored sessions to a dataset folder: choose, number, write, account."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import UsageError

from .categories import CategoryMap
from .dataset import Dataset, ExportedObject, ExportOptions, Video
from .dataset_writer import DatasetWriter
from .formats import Format, find_format
from .manifest import Ledger
from .manifest_report import build_manifest
from .selection import Fractions, FrameSelection, assign_splits, dataset_names

if TYPE_CHECKING:
    from edgetam_label.session_types import LabelSession
    from edgetam_label.sessions import SessionStore

Progress = Callable[[int, int], None]  # (masks done, masks in all)


@dataclass(frozen=True)
class ExportRequest:
    """What to export and how.

    split: () keeps everything in the format's default split. names: what the manifest calls a
    session in place of its id. extra: more for the manifest, by key.
    """

    format: str
    out: Path
    session_ids: tuple[str, ...]
    options: ExportOptions = field(default_factory=ExportOptions)
    selection: FrameSelection = field(default_factory=FrameSelection)
    split: Fractions = ()
    seed: int = 0
    category_map: Path | None = None
    overwrite: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportReport:
    """out: the dataset folder. manifest: what its manifest.json holds. losses: for people, as
    (converted or refused, reason, masks)."""

    out: Path
    manifest: dict[str, Any]
    losses: tuple[tuple[str, str, int], ...]


def export_sessions(
    store: SessionStore, request: ExportRequest, progress: Progress | None = None
) -> ExportReport:
    """Write the dataset at `request.out`, whole or not at all.

    Raises UsageError if the request cannot work (no session, a target that exists, ids that the
    format cannot hold) and ExportError if the writing or the accounting fails.
    """
    entry = find_format(request.format)
    sessions = [store.get(session_id) for session_id in dict.fromkeys(request.session_ids)]
    if not sessions:
        raise UsageError("There is no session to export; name one, or track a video first.")
    ledger = Ledger()
    with DatasetWriter(request.out, overwrite=request.overwrite) as writer:
        builder = _Builder(store, request, entry, ledger, _ticker(sessions, progress))
        dataset, empty = builder.build(sessions)
        entry.exporter()(dataset, writer)
        for video in empty:
            for _ in video.frames_of_masks():
                raise AssertionError("a video without selected frames yields none")
        if request.options.images:
            write_all_images(dataset, entry, writer)
        for session in sessions:
            ledger.check(session.id, session.num_masks)
        manifest = build_manifest(request, dataset, [*dataset.videos, *empty], ledger, writer)
        writer.write_text("manifest.json", json.dumps(manifest, indent=1, sort_keys=False) + "\n")
    return ExportReport(request.out, manifest, tuple(ledger.losses()))


def write_all_images(dataset: Dataset, entry: Format, writer: DatasetWriter) -> None:
    """The selected frames of every video, where the format wants them."""
    from .frame_images import write_images

    for video in dataset.videos:
        write_images(video, entry.image_path(), dataset.options, writer)


@dataclass(frozen=True)
class _Builder:
    store: SessionStore
    request: ExportRequest
    format: Format
    ledger: Ledger
    tick: Callable[[int], None]

    def build(self, sessions: Sequence[LabelSession]) -> tuple[Dataset, list[Video]]:
        """The dataset, and the videos of which no frame was selected."""
        categories = self._categories(sessions)
        by_age = sorted(sessions, key=lambda s: (s.name, s.created_at, s.id))
        names = dataset_names([folder_name(session) for session in by_age])
        stems = dataset_names([still_stem(session) for session in by_age], folders=True)
        named = sorted(zip(names, by_age, stems, strict=True), key=lambda entry: entry[0])
        splits = self._splits({name: session for name, session, _ in named})
        videos: list[Video] = []
        empty: list[Video] = []
        for name, session, stem in named:
            video = self._video(len(videos) + 1, name, stem, splits[name], session, categories)
            (videos if video.frames else empty).append(video)
        if not videos:
            raise UsageError(
                "The chosen --range, --stride or --keyframes leaves no frame of any session."
            )
        names_of_splits = tuple(n for n, _ in self.request.split) or (self.format.default_split,)
        dataset = Dataset(
            tuple(videos),
            categories.categories,
            self.request.options,
            names_of_splits,
            categories.explicit,
        )
        return dataset, empty

    def _categories(self, sessions: Iterable[LabelSession]) -> CategoryMap:
        objects = [entry for session in sessions for entry in session.objects]
        if self.request.category_map is None:
            return CategoryMap.of_objects(objects)
        categories = CategoryMap.load(self.request.category_map)
        categories.check_covers(entry.label for entry in objects)
        return categories

    def _splits(self, named: Mapping[str, LabelSession]) -> dict[str, str]:
        if not self.request.split:
            return dict.fromkeys(named, self.format.default_split)
        labels = {
            name: {entry.label for entry in session.objects} for name, session in named.items()
        }
        return assign_splits(labels, self.request.split, self.request.seed)

    def _video(
        self,
        number: int,
        name: str,
        stem: str,
        split: str,
        session: LabelSession,
        categories: CategoryMap,
    ) -> Video:
        left_out = self._left_out(session)
        objects: list[ExportedObject] = []
        excluded: dict[int, str] = {}
        for entry in session.objects:
            category = categories.by_label[entry.label]
            if category is None:
                excluded[entry.obj_id] = "label left out by the category map"
                continue
            dataset_id = len(objects) + 1 if self.request.options.renumber else entry.obj_id
            self.ledger.account(session.id, entry.obj_id).dataset_id = dataset_id
            objects.append(
                ExportedObject(
                    obj_id=entry.obj_id,
                    dataset_id=dataset_id,
                    label=entry.label,
                    color=entry.color,
                    category=category,
                    external_id=entry.external_id,
                    attributes=entry.attributes,
                )
            )
        _check_ids(self.format, session, objects)
        return Video(
            id=number,
            name=name,
            split=split,
            session=session,
            frames=tuple(i for i in range(session.media.num_frames) if i not in left_out),
            left_out=left_out,
            objects=tuple(objects),
            excluded=excluded,
            image_suffix=self.request.options.image_suffix,
            still_stem=stem,
            source=self.store,
            ledger=self.ledger,
            tick=self.tick,
        )

    def _left_out(self, session: LabelSession) -> dict[int, str]:
        keyframes: set[int] = set()
        if self.request.selection.keyframes:
            keyframes.update(prompt.frame_idx for prompt in session.prompts)
            keyframes.update(
                mask.frame_idx
                for mask in self.store.iter_masks(session.id)
                if mask.status in ("prompted", "approved")
            )
        reasons = {}
        for frame_idx in range(session.media.num_frames):
            reason = self.request.selection.reason_against(frame_idx, keyframes)
            if reason is not None:
                reasons[frame_idx] = reason
        return reasons


def folder_name(session: LabelSession) -> str:
    """A session's name; without the suffix where it is merely the name of the media file."""
    is_file_name = session.name == PurePath(session.media.source).name
    return PurePath(session.name).stem if is_file_name else session.name


def still_stem(session: LabelSession) -> str:
    """Where a single image lies below the images, without suffix; imported ones keep folders."""
    names = session.media.names
    imported = names[0] if names else ""
    if session.media.kind == "image" and PurePosixPath(imported).stem == folder_name(session):
        return str(PurePosixPath(imported).with_suffix(""))
    return folder_name(session).replace("/", "_")


def _check_ids(entry: Format, session: LabelSession, objects: Sequence[ExportedObject]) -> None:
    limit = entry.max_obj_id
    if limit is None:
        return
    numbers = [len(objects)] if entry.renumbers else [item.dataset_id for item in objects]
    highest = max(numbers, default=0)
    if highest <= limit:
        return
    if len(objects) <= limit:
        way_out = "pass --renumber to number the objects from 1"
    else:
        way_out = (
            f"it has {len(objects)} objects: export it as coco or ytvis, "
            "or leave labels out with --categories"
        )
    raise UsageError(
        f"Session {session.id} has object id {highest}, but {entry.name} files hold ids up to "
        f"{limit}; {way_out}."
    )


def _ticker(sessions: Sequence[LabelSession], progress: Progress | None) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    total, state = sum(session.num_masks for session in sessions), [0]

    def tick(done: int) -> None:
        state[0] += done
        progress(state[0], total)

    return tick
