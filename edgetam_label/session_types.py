"""The values that a session is made of. All are frozen; none holds a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edgetam_label.errors import UsageError
from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.palette import default_color, parse_color
from edgetam_label.prompts import Prompt

MASK_STATUSES = ("tracked", "prompted", "absent", "approved")
"""tracked: by propagation. prompted: on a frame with a prompt. absent: the model says the object
is gone (empty mask). approved: a person's word or imported ground truth; never overwritten by a
machine, and empty where the person says that the object is not there."""

DIRECTIONS = ("forward", "backward")
JOB_STATES = ("queued", "running", "done", "failed", "cancelled")
UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made a mask: its config's name and the sha256 of weights and config."""

    name: str
    checkpoint_sha256: str
    config_sha256: str


@dataclass(frozen=True)
class LabelObject:
    """One object of a session.

    color: "#rrggbb"; left empty, the default colour of the id.
    external_id: the object's id elsewhere, such as a Label Studio region id.
    attributes: anything JSON can hold, kept for exporters (a category id, `iscrowd`).
    """

    obj_id: int
    label: str
    color: str = ""
    external_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.obj_id < 1:
            raise UsageError(f"Object id {self.obj_id} is not usable; object ids start at 1.")
        if not self.label.strip():
            raise UsageError(f"Object {self.obj_id} has an empty label; give it a name.")
        if not self.color:
            object.__setattr__(self, "color", default_color(self.obj_id))
        parse_color(self.color)


@dataclass(frozen=True)
class FrameMask:
    """One object's mask on one frame.

    score: object score (logit); > 0 means that the model sees the object. nan: not known.
    status: one of MASK_STATUSES.
    """

    obj_id: int
    frame_idx: int
    rle: RLE
    score: float = float("nan")
    status: str = "tracked"

    def __post_init__(self) -> None:
        if self.status not in MASK_STATUSES:
            raise UsageError(
                f"Mask status {self.status!r} is unknown; use one of {', '.join(MASK_STATUSES)}."
            )


@dataclass(frozen=True)
class PromptEvent:
    """One entry of a session's append-only history.

    seq: 1, 2, 3 … in the order of writing. parent: the event in force before this one (0: none);
    undo moves the session's cursor to the parent, so an undone event stays on record.
    kind: "prompt", "clear_prompt", "set_object" or "remove_object".
    """

    seq: int
    parent: int
    kind: str
    obj_id: int
    frame_idx: int | None = None
    prompt: Prompt | None = None
    object: LabelObject | None = None
    created_at: datetime | None = None


@dataclass(frozen=True)
class LabelSession:
    """A video or image with what was said about it.

    objects: by obj_id. prompts: those in force, in the order they were given, at most one per
    object and frame. num_masks: masks stored for these objects.
    """

    id: str
    key: str | None
    name: str
    media: MediaIdentity
    model: ModelIdentity | None
    objects: tuple[LabelObject, ...]
    prompts: tuple[Prompt, ...]
    created_at: datetime
    updated_at: datetime
    num_masks: int

    def object(self, obj_id: int) -> LabelObject:
        """Raises UsageError for an object that the session does not have."""
        for item in self.objects:
            if item.obj_id == obj_id:
                return item
        known = ", ".join(str(item.obj_id) for item in self.objects) or "none"
        raise UsageError(f"Session {self.id} has no object {obj_id}; its objects: {known}.")


@dataclass(frozen=True)
class SessionSummary:
    """A line of a listing: a session without its history and pts table."""

    id: str
    key: str | None
    name: str
    source: str
    kind: str
    width: int
    height: int
    num_frames: int
    num_objects: int
    num_masks: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Masklet:
    """One object through the video: mask and object score by 0-based frame index."""

    obj_id: int
    label: str
    frames: dict[int, RLE]
    scores: dict[int, float]


@dataclass(frozen=True)
class JobPlan:
    """A propagation about to be recorded; the fields are those of the TrackingJob it becomes."""

    direction: str
    start: int
    stop: int | None = None
    objects: tuple[int, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class TrackingJob:
    """A propagation that can be resumed after a crash.

    start: first frame. stop: the frame after the last one in the direction of travel (None: the
    end of the video). next_frame: first frame whose masks are not stored yet.
    objects: the objects to track, () for all. owner: who works on it, until lease_until.
    payload: whatever its creator needs to go on, as JSON.
    """

    id: str
    session_id: str
    direction: str
    start: int
    stop: int | None
    next_frame: int
    objects: tuple[int, ...]
    state: str
    error: str | None
    owner: str | None
    lease_until: datetime | None
    payload: Mapping[str, Any] = field(hash=False)
    created_at: datetime
    updated_at: datetime

    @property
    def unfinished(self) -> bool:
        return self.state in UNFINISHED


@dataclass(frozen=True)
class ExternalAnnotation:
    """A person's final annotation of a task elsewhere (Label Studio), word for word.

    source_key: the task, written as the `key` of its session. payload: the annotation as JSON,
    its regions under "result". updated_at: by the clock of the other side.
    """

    source_key: str
    annotation_id: str
    payload: Mapping[str, Any] = field(hash=False)
    created_by: str | None = None
    updated_at: datetime | None = None

    @property
    def regions(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(self.payload.get("result") or ())

    def regions_of(self, region_id: str) -> tuple[Mapping[str, Any], ...]:
        """Several results may share a region id: a shape and its per-region choices."""
        return tuple(region for region in self.regions if str(region.get("id")) == region_id)
