"""A Label Studio project joined with the stored masklets: the people's regions and labels win.

For each task the latest annotation counts. Brush, bitmask, polygon and ellipse regions are masks
themselves. A video rectangle takes, frame by frame, the stored mask of its region where that mask
fits the box; where only the box was corrected, the mask is made anew by prompting with the box.
The result is a store of its own, which any format exports; every region is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.frames import Frames, MediaIdentity
from edgetam_label.masks import RLE, Mask
from edgetam_label.prompts import Box, Prompt
from edgetam_label.session_types import FrameMask, LabelObject, LabelSession

from .importing import ImportOptions, media_of
from .labelstudio_reading import (
    TaskReader,
    label_of,
    media_url,
    merged_regions,
    results_of,
    url_name,
)
from .labelstudio_regions import track_of
from .labelstudio_sequence import from_ls_frame, interpolate
from .manifest import FrameRanges

if TYPE_CHECKING:
    from edgetam_label.sessions import SessionStore

KEEP_IOU = 0.85
"""A stored mask is kept where its box overlaps the person's box by this IoU: the backend leaves
out keyframes that interpolate to 0.9, so less than that is a person's doing."""

Redraw = Callable[[MediaIdentity, int, Box], Mask]
Task = dict[str, Any]


@dataclass(frozen=True)
class Studio:
    """What the join needs of a server and a model.

    origin, project: as in the session keys. tasks: of a JSON export, unannotated ones too.
    media(url, task id): the media as a file here, None if it cannot be had.
    redraw(media, frame_idx, box): the mask that the box prompts, None to refuse such frames.
    """

    origin: str
    project: str
    tasks: Callable[[], list[Task]]
    media: Callable[[str, str], Path | None]
    redraw: Redraw | None


@dataclass
class JoinReport:
    """sessions: in the joined store, with a stable name of each for the manifest."""

    sessions: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, int] = field(
        default_factory=lambda: {"in": 0, "joined": 0, "without_annotation": 0, "refused": 0}
    )
    regions: list[dict[str, Any]] = field(default_factory=list)
    refused_tasks: list[dict[str, str]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "tasks": self.tasks,
            "refused_tasks": self.refused_tasks,
            "regions": self.regions,
            "objects_removed_by_people": self.removed,
        }


def join(store: SessionStore, studio: Studio, target: SessionStore) -> JoinReport:
    """Fill `target` with a session per annotated task; `store` is only read."""
    report = JoinReport()
    tracked = _sessions_by_task(store, studio)
    for task in sorted(studio.tasks(), key=lambda item: int(item.get("id", 0))):
        report.tasks["in"] += 1
        task_id = str(task.get("id"))
        if not any(not a.get("was_cancelled") for a in task.get("annotations") or ()):
            report.tasks["without_annotation"] += 1
            continue
        regions = merged_regions(results_of(task))
        on_video = [key for key, r in regions.items() if r["type"] == "videorectangle"]
        try:
            if on_video or "video" in (task.get("data") or {}):
                made = _VideoJoin(
                    store, studio, target, report, task_id, tracked.get(task_id)
                ).join(task, regions)
            else:
                made = _join_image(studio, target, report, task, regions)
        except EdgeTAMLabelError as error:
            report.tasks["refused"] += 1
            report.refused_tasks.append({"task": task_id, "why": str(error)})
            for key, region in regions.items():
                report.regions.append(_entry(task_id, key, region, {"refused": str(error)}))
            continue
        report.tasks["joined"] += 1
        report.sessions[made] = f"task {task_id}"
    return report


def _sessions_by_task(store: SessionStore, studio: Studio) -> dict[str, str]:
    """Session id by task id: the latest one, under another address of the server if need be."""
    found: dict[str, tuple[bool, Any, str]] = {}
    for summary in store.summaries():
        parts = (summary.key or "").split("|")
        if parts[0] != "ls" or len(parts) < 4 or parts[2] != studio.project:
            continue
        rank = (parts[1] == studio.origin, summary.updated_at, summary.id)
        if parts[3] not in found or rank > found[parts[3]]:
            found[parts[3]] = rank
    return {task_id: rank[2] for task_id, rank in found.items()}


def _entry(task_id: str, key: str, region: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    head = {"task": task_id, "region": key, "type": region["type"], "label": label_of(region)}
    return {**head, **told}


def _join_image(
    studio: Studio,
    target: SessionStore,
    report: JoinReport,
    task: Task,
    regions: dict[str, dict[str, Any]],
) -> str:
    task_id = str(task["id"])
    reader = TaskReader(Path(f"task {task_id}"), ImportOptions())
    video = reader.read([{**task, "predictions": []}])
    assert video.files is not None, "an image task"
    url = media_url(task.get("data") or {}, "image") or ""
    path = studio.media(url, task_id)
    files = video.files
    if path is not None:
        files = replace(files, folder=path.parent, names=(path.name,))
    ignored: list[str] = []
    media = replace(media_of(files, video.name, ignored), names=(url_name(url),))
    session = target.create(media, name=PurePosixPath(url_name(url)).stem)
    by_key = {item.external_id: item for item in video.objects}
    masks = {mask.obj_id: mask for mask in video.masks()}
    prompts = {prompt.obj_id: prompt for prompt in video.prompts}
    told: dict[int, str] = {obj_id: "the region's own mask" for obj_id in masks}
    why: dict[int, str] = {}
    for obj_id, prompt in prompts.items():
        mask, reason = _redrawn(studio, media, 0, prompt.box)
        if mask is None:
            why[obj_id] = reason
            continue
        masks[obj_id] = FrameMask(obj_id, 0, RLE.encode(mask), status="prompted")
        told[obj_id] = "mask made from the box"
    for key, region in regions.items():
        item = by_key[key]
        if item.obj_id in masks:
            target.set_object(session.id, item)
            if item.obj_id in prompts:
                target.add_prompt(session.id, prompts[item.obj_id])
            report.regions.append(_entry(task_id, key, region, {"written": told[item.obj_id]}))
        else:
            reason = why.get(item.obj_id, "this type of region has no mask")
            report.regions.append(_entry(task_id, key, region, {"refused": reason}))
    target.save_masks(session.id, masks.values())
    return session.id


def _redrawn(
    studio: Studio, media: MediaIdentity, frame_idx: int, box: Box | None
) -> tuple[Mask | None, str]:
    """(mask, "") or (None, why not)."""
    if box is None:
        return None, "this type of region has no mask"
    if studio.redraw is None:
        return None, "only a box, and making masks from boxes was turned off"
    if not media.sha256:
        return None, "only a box, and the media could not be fetched"
    mask = studio.redraw(media, frame_idx, box)
    return (mask, "") if mask.any() else (None, "the model found nothing in the box")


@dataclass(frozen=True)
class _VideoJoin:
    store: SessionStore
    studio: Studio
    target: SessionStore
    report: JoinReport
    task_id: str
    stored_id: str | None

    def join(self, task: Task, regions: dict[str, dict[str, Any]]) -> str:
        """The id of the joined session."""
        data = task.get("data") or {}
        url = media_url(data, "video") or ""
        stored = self.store.get(self.stored_id) if self.stored_id else None
        media = stored.media if stored else self._fetched(url)
        name = PurePosixPath(url_name(url)).stem or f"task-{self.task_id}"
        model = stored.model if stored else None
        session = self.target.create(media, model=model, name=name)
        known = {o.external_id: o for o in stored.objects if o.external_id} if stored else {}
        free = max((item.obj_id for item in known.values()), default=0)
        for key, region in regions.items():
            if region["type"] != "videorectangle":
                why = "this type of region has no mask on video"
                self.report.regions.append(_entry(self.task_id, key, region, {"refused": why}))
                continue
            item = known.get(key)
            if item is None:
                free += 1
            obj_id = item.obj_id if item else free
            color = item.color if item else ""
            self.target.set_object(
                session.id, LabelObject(obj_id, label_of(region), color, external_id=key)
            )
            self._region(session, stored if item else None, obj_id, key, region)
        for gone in stored.objects if stored else ():
            if stored is not None and gone.external_id not in regions:
                masks = sum(1 for _ in self.store.iter_masks(stored.id, obj_id=gone.obj_id))
                self.report.removed.append(
                    {
                        "task": self.task_id,
                        "region": gone.external_id,
                        "label": gone.label,
                        "masks": masks,
                    }
                )
        return session.id

    def _fetched(self, url: str) -> MediaIdentity:
        path = self.studio.media(url, self.task_id)
        if path is None:
            raise EdgeTAMLabelError(
                f"Task {self.task_id} was never tracked here and its video {url_name(url)!r} "
                "cannot be fetched, so its boxes have no masks."
            )
        with Frames.open(path) as frames:
            return frames.identity

    def _region(
        self,
        session: LabelSession,
        stored: LabelSession | None,
        obj_id: int,
        key: str,
        region: dict[str, Any],
    ) -> None:
        media = session.media
        track = track_of(region)
        boxes = _boxes_by_frame(media, region)
        prompted = {
            p.frame_idx: p for p in (stored.prompts if stored else ()) if p.obj_id == obj_id
        }
        told: dict[str, FrameRanges] = {}
        kept: list[FrameMask] = []
        masks = self.store.iter_masks(stored.id, obj_id=obj_id) if stored else iter(())
        by_frame = {mask.frame_idx: mask for mask in masks}
        empty = RLE.empty(media.height, media.width)
        for frame_idx in range(media.num_frames):
            mask, box = by_frame.get(frame_idx), boxes.get(frame_idx)
            if box is None:
                if mask is not None and mask.rle.area:
                    told.setdefault("hidden by the annotator", FrameRanges()).add(frame_idx)
                if mask is not None:
                    kept.append(FrameMask(obj_id, frame_idx, empty, mask.score, "absent"))
                continue
            if mask is not None and _fits(mask, box, prompted.get(frame_idx)):
                kept.append(mask)
                told.setdefault("stored mask", FrameRanges()).add(frame_idx)
                continue
            made, reason = _redrawn(self.studio, media, frame_idx, box)
            if made is None:
                told.setdefault(f"refused: {reason}", FrameRanges()).add(frame_idx)
                continue
            kept.append(FrameMask(obj_id, frame_idx, RLE.encode(made), status="prompted"))
            told.setdefault("mask made from the box", FrameRanges()).add(frame_idx)
        self.target.save_masks(session.id, kept)
        frames = {reason: ranges.to_json() for reason, ranges in sorted(told.items())}
        entry: dict[str, Any] = {"frames": frames}
        if track.warnings:
            entry["notes"] = list(track.warnings)
        self.report.regions.append(_entry(self.task_id, key, region, entry))


def _boxes_by_frame(media: MediaIdentity, region: dict[str, Any]) -> dict[int, Box]:
    """What the editor shows on each frame of the file; the last of several editor frames wins."""
    track = track_of(region)
    count = track.frames_count or round(media.num_frames / media.fps * track.fps)
    shown = interpolate(list(track.keyframes(media.width, media.height)), count)
    return {from_ls_frame(media, frame, track.fps): box for frame, box in shown}


def _fits(mask: FrameMask, box: Box, prompt: Prompt | None) -> bool:
    """A mask belongs to the box that prompted it, however loosely that was drawn."""
    if prompt is not None and prompt.box is not None and _iou(prompt.box, box) > 0.99:
        return True
    edges = mask.rle.box
    return edges is not None and _iou(Box(*map(float, edges)), box) >= KEEP_IOU


def _iou(a: Box, b: Box) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (a, b))
    return shared / (areas - shared)


def redraw_by(predict: Callable[[Any, Prompt], Mask]) -> tuple[Redraw, Callable[[], None]]:
    """A `redraw` over one open video at a time, and the function that closes it.

    predict(image (H, W, 3), prompt): the mask of a prompt.
    """
    opened: list[tuple[str, Frames]] = []

    def close() -> None:
        while opened:
            opened.pop()[1].close()

    def redraw(media: MediaIdentity, frame_idx: int, box: Box) -> Mask:
        if not opened or opened[0][0] != media.source:
            close()
            opened.append((media.source, Frames.open(media.source, identity=media)))
        prompt = Prompt(1, frame_idx, box=box)
        return predict(opened[0][1][frame_idx], prompt)

    return redraw, close
