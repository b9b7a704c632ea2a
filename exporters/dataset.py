"""What an exporter is given: videos with their selected frames, objects and masks, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from .categories import Category
from .manifest import Ledger, Outcome

if TYPE_CHECKING:
    from edgetam_label.session_types import FrameMask, LabelSession


class MaskSource(Protocol):
    """The one thing an export needs of the session store."""

    def iter_masks(
        self,
        session_id: str,
        *,
        obj_id: int | None = None,
        start: int = 0,
        stop: int | None = None,
        order: str = "frame",
    ) -> Iterator[FrameMask]:
        """Stored masks in the order of frames, or of objects, without holding them all."""
        ...


@dataclass(frozen=True)
class ExportOptions:
    """Choices that formats share.

    images: None (annotations only), "jpeg" or "png". jpeg_quality: 1..100.
    overlap: which object keeps a pixel that several cover, in formats with one id per pixel:
        "highest-id", "score" (the object score of that frame) or "z-order" (by `z_order`).
    z_order: labels from back to front; labels not listed lie behind them all.
    renumber: object ids become 1, 2, … in each video.
    polygons: COCO polygons in place of run lengths. results: YouTube-VIS results, with scores.
    annotations: Label Studio annotations in place of predictions. media_url: what Label Studio
        finds the media under, in place of local paths.
    """

    images: str | None = None
    jpeg_quality: int = 95
    overlap: str = "highest-id"
    z_order: tuple[str, ...] = ()
    renumber: bool = False
    polygons: bool = False
    results: bool = False
    annotations: bool = False
    media_url: str | None = None

    @property
    def image_suffix(self) -> str | None:
        """Suffix of the images written, None without `--images`."""
        return {"png": ".png", "jpeg": ".jpg"}.get(self.images or "")


@dataclass(frozen=True)
class ExportedObject:
    """obj_id: in the session. dataset_id: in the dataset, equal unless renumbered."""

    obj_id: int
    dataset_id: int
    label: str
    color: str
    category: Category
    external_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameOfMasks:
    """position: 0-based among the selected frames. masks: present ones, by ascending obj_id."""

    position: int
    frame_idx: int
    masks: tuple[FrameMask, ...]


@dataclass(frozen=True)
class Video:
    """One session as an exporter sees it.

    id: 1-based number in the dataset. name: its folder name, unique. frames: selected indices,
    ascending. left_out: reason by frame index for the others. objects: by dataset_id.
    excluded: reason by obj_id for objects that stay out.
    image_suffix: of written images; None keeps that of the frames. still_stem: a single image's
    name in the dataset without suffix, folders kept.
    """

    id: int
    name: str
    split: str
    session: LabelSession
    frames: tuple[int, ...]
    left_out: dict[int, str]
    objects: tuple[ExportedObject, ...]
    excluded: dict[int, str]
    image_suffix: str | None
    still_stem: str
    source: MaskSource = field(repr=False)
    ledger: Ledger = field(repr=False)
    tick: Callable[[int], None] = field(repr=False, default=lambda done: None)

    @property
    def width(self) -> int:
        return self.session.media.width

    @property
    def height(self) -> int:
        return self.session.media.height

    @property
    def is_still(self) -> bool:
        """A single image rather than a video."""
        return self.session.media.kind == "image"

    def stem(self, frame_idx: int) -> str:
        """File stem of a frame: the image's own in a folder, else the index, five digits."""
        return self._stems[frame_idx] if self._stems else f"{frame_idx:05d}"

    @cached_property
    def _stems(self) -> tuple[str, ...]:
        stems = tuple(PurePosixPath(name).stem for name in self.session.media.names)
        # 1.jpg beside 1.png: only the index tells them apart.
        return stems if len({stem.casefold() for stem in stems}) == len(stems) else ()

    def frame_file(self, frame_idx: int) -> str:
        """File name of a frame, such as 00000.jpg: with the suffix of `--images`, else its own."""
        names = self.session.media.names
        own = PurePosixPath(names[frame_idx]).suffix if names else ".jpg"
        return self.stem(frame_idx) + (self.image_suffix or own)

    def image_name(self, frame_idx: int) -> str:
        """`<video>/<file>`; for a single image its own name, with folders if it was imported."""
        if self.is_still:
            return self.still_stem + PurePosixPath(self.frame_file(frame_idx)).suffix
        return f"{self.name}/{self.frame_file(frame_idx)}"

    def frame_number(self, frame_idx: int) -> int:
        """0-based number of a frame in the original video; imported frames remember theirs."""
        media = self.session.media
        return frame_idx if media.kind == "video" else media.pts[frame_idx]

    @property
    def fps(self) -> float:
        """Frame rate that `frame_number` counts in; the average for a variable frame rate."""
        media = self.session.media
        if media.kind == "video":
            return media.fps
        return media.time_base[1] / media.time_base[0]

    @cached_property
    def by_obj_id(self) -> dict[int, ExportedObject]:
        """The exported objects by their id in the session."""
        return {entry.obj_id: entry for entry in self.objects}

    def frames_of_masks(self, *, absent: bool = False) -> Iterator[FrameOfMasks]:
        """Every selected frame in order, with the masks to place on it, possibly none.

        absent: hand out masks of absent objects too, for formats that can say so.

        Takes each stored mask into the ledger; those not handed out are accounted for here, the
        caller says `written`, `converted` or `refused` for the others.
        """
        usable = self._usable(self.source.iter_masks(self.session.id, order="frame"), absent)
        groups = groupby(usable, key=lambda mask: mask.frame_idx)
        pending = next(groups, None)
        for position, frame_idx in enumerate(self.frames):
            masks: tuple[FrameMask, ...] = ()
            if pending is not None and pending[0] == frame_idx:
                masks = tuple(sorted(pending[1], key=lambda mask: mask.obj_id))
                pending = next(groups, None)
            yield FrameOfMasks(position, frame_idx, masks)
        assert pending is None, "masks must come in the order of frames"

    def masks_of(self, entry: ExportedObject) -> Iterator[FrameMask]:
        """One object's masks to place, in the order of frames; accounts like `frames_of_masks`.

        Call `take_others` once too, so that objects left out are accounted for.
        """
        yield from self._usable(self.source.iter_masks(self.session.id, obj_id=entry.obj_id))

    def take_others(self) -> None:
        """Account for the masks of objects that are not in `objects`."""
        for obj_id in sorted(self.excluded):
            for _ in self._usable(self.source.iter_masks(self.session.id, obj_id=obj_id)):
                raise AssertionError("masks of an object left out are never handed out")

    def peek(self, frame_idx: int) -> tuple[FrameMask, ...]:
        """The masks to place on one frame, without accounting for them."""
        masks = self.source.iter_masks(self.session.id, start=frame_idx, stop=frame_idx + 1)
        size = (self.height, self.width)
        usable = (m for m in masks if m.obj_id in self.by_obj_id and m.rle.size == size)
        return tuple(mask for mask in usable if not is_absent(mask))

    def written(self, mask: FrameMask) -> None:
        self._tell(mask, Outcome.WRITTEN, "")

    def converted(self, mask: FrameMask, how: str) -> None:
        self._tell(mask, Outcome.CONVERTED, how)

    def refused(self, mask: FrameMask, why: str) -> None:
        self._tell(mask, Outcome.REFUSED, why)

    def _tell(self, mask: FrameMask, outcome: Outcome, reason: str) -> None:
        self.ledger.account(self.session.id, mask.obj_id).add(outcome, reason, mask.frame_idx)

    def _usable(self, masks: Iterable[FrameMask], absent: bool = False) -> Iterator[FrameMask]:
        known = self.by_obj_id
        for mask in masks:
            self.ledger.account(self.session.id, mask.obj_id).taken += 1
            self.tick(1)
            if mask.obj_id not in known:
                why = self.excluded.get(mask.obj_id, "the object is not in the session")
                self._tell(mask, Outcome.LEFT_OUT, why)
            elif mask.frame_idx >= self.session.media.num_frames:
                self.refused(mask, "beyond the last frame of the media")
            elif mask.frame_idx in self.left_out:
                self._tell(mask, Outcome.LEFT_OUT, self.left_out[mask.frame_idx])
            elif mask.rle.size != (self.height, self.width):
                size = f"{mask.rle.size[1]}x{mask.rle.size[0]}"
                self.refused(mask, f"mask of {size} on media of {self.width}x{self.height}")
            elif is_absent(mask):
                self._tell(mask, Outcome.ABSENT, "")
                if absent:
                    yield mask
            else:
                yield mask


def is_absent(mask: FrameMask) -> bool:
    """Whether the object has no pixel on its frame."""
    return mask.status == "absent" or mask.rle.area == 0


@dataclass(frozen=True)
class Dataset:
    """All that is exported in one go.

    splits: at least one. explicit_categories: the ids of the categories were given by the user.
    """

    videos: tuple[Video, ...]
    categories: tuple[Category, ...]
    options: ExportOptions
    splits: tuple[str, ...]
    explicit_categories: bool = False

    def by_split(self) -> Iterator[tuple[str, tuple[Video, ...]]]:
        """(split, its videos) for every split, empty ones too."""
        for split in self.splits:
            yield split, tuple(video for video in self.videos if video.split == split)
