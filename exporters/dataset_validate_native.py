"""Rules of our own JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetam_label.session_types import MASK_STATUSES

from .dataset_findings import Finding, Problem, checked_rle, files, is_id, is_number

RULES = {
    "native.layout": "sessions/<video>.jsonl is there",
    "native.line": "every line is a JSON object with a type",
    "native.session": "the first line is the session: version 1, media with size and frames",
    "native.object": "objects have ids from 1, once each, and a label",
    "native.reference": "prompts and masks belong to an object of the file",
    "native.frame": "frame_idx is a frame of the media; one mask per object and frame",
    "native.mask": "a mask has the media's size, a known status and a number or null as score",
    "native.absent": "a mask with status absent is empty",
    "native.prompt": "a prompt has clicks, a box or a mask, inside the frame",
    "native.order": "masks come by frame, then by object",
}


@dataclass
class _File:
    name: str
    height: int = 0
    width: int = 0
    frames: int = 0
    objects: set[int] = field(default_factory=set)
    last: tuple[int, int] = (-1, -1)


def check(folder: Path) -> Iterator[Finding]:
    paths = list(files(folder / "sessions", ".jsonl"))
    if not paths:
        yield Finding("native.layout", "sessions/", "holds no .jsonl file")
    for path in paths:
        state = _File(path.relative_to(folder).as_posix())
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                where = f"{state.name}, line {number}"
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    yield Finding("native.line", where, f"is not JSON: {error.msg}")
                    continue
                if not isinstance(record, dict) or not isinstance(record.get("type"), str):
                    yield Finding("native.line", where, "is not an object with a type")
                elif (number == 1) != (record["type"] == "session"):
                    yield Finding("native.session", where, "the session must be the first line")
                else:
                    yield from _check_record(state, where, record)
        if not state.frames:
            yield Finding("native.session", state.name, "has no usable session line")


def _check_record(state: _File, where: str, record: dict[str, Any]) -> Iterator[Finding]:
    kind = record["type"]
    if kind == "session":
        media = record.get("media")
        media = media if isinstance(media, dict) else {}
        height, width, frames = (media.get(key) for key in ("height", "width", "num_frames"))
        if record.get("version") != 1 or not (is_id(height) and is_id(width) and is_id(frames)):
            yield Finding("native.session", where, "wants version 1 and media with its size")
            return
        state.height, state.width, state.frames = height, width, frames
        pts = media.get("pts")
        if not isinstance(pts, list) or len(pts) != state.frames:
            yield Finding("native.session", where, f"wants pts of all {state.frames} frames")
    elif kind == "object":
        obj_id = record.get("obj_id")
        if not is_id(obj_id) or obj_id in state.objects or not record.get("label"):
            yield Finding("native.object", where, f"has obj_id {obj_id!r} or label unusable")
        else:
            state.objects.add(obj_id)
    elif kind in ("prompt", "mask"):
        obj_id = record.get("obj_id")
        if not is_id(obj_id) or obj_id not in state.objects:
            yield Finding("native.reference", where, f"belongs to object {obj_id!r}")
        frame = record.get("frame_idx")
        if not is_id(frame, 0) or frame >= state.frames:
            yield Finding("native.frame", where, f"is of frame {frame!r} of {state.frames}")
        elif kind == "prompt":
            yield from _check_prompt(state, where, record)
        else:
            yield from _check_mask(state, where, record, frame)
    else:
        yield Finding("native.line", where, f"has the unknown type {kind!r}")


def _check_mask(state: _File, where: str, record: dict[str, Any], frame: int) -> Iterator[Finding]:
    status, score = record.get("status"), record.get("score")
    if not isinstance(status, str) or status not in MASK_STATUSES:
        yield Finding("native.mask", where, f"has status {status!r}")
    if score is not None and not (is_number(score) and math.isfinite(score)):
        yield Finding("native.mask", where, f"has score {score!r}")
    obj_id = record.get("obj_id")
    place = (frame, obj_id if is_id(obj_id) else 0)
    if place == state.last:
        yield Finding("native.frame", where, f"is a second mask of object {obj_id} on {frame}")
    elif place < state.last:
        yield Finding("native.order", where, f"comes after frame {state.last[0]}")
    state.last = place
    try:
        rle = checked_rle(record.get("rle"), state.height, state.width)
    except Problem as problem:
        yield Finding("native.mask", where, str(problem))
        return
    if status == "absent" and rle.area:
        yield Finding("native.absent", where, f"is absent but has {rle.area} pixels")


def _check_prompt(state: _File, where: str, record: dict[str, Any]) -> Iterator[Finding]:
    clicks, box, mask = record.get("clicks"), record.get("box"), record.get("mask")
    if not clicks and not box and not mask:
        yield Finding("native.prompt", where, "says nothing")
    if clicks and not isinstance(clicks, list):
        yield Finding("native.prompt", where, f"has clicks {clicks!r}, want a list")
        clicks = []
    for click in clicks or ():
        if (
            not isinstance(click, list)
            or len(click) != 3
            or not all(map(is_number, click[:2]))
            or not (0 <= click[0] <= state.width and 0 <= click[1] <= state.height)
        ):
            yield Finding("native.prompt", where, f"has a click {click} outside the frame")
    if box and not (
        isinstance(box, list)
        and len(box) == 4
        and all(map(is_number, box))
        and box[0] < box[2]
        and box[1] < box[3]
    ):
        yield Finding("native.prompt", where, f"has a box {box} that is none")
    if mask:
        try:
            checked_rle(mask, state.height, state.width)
        except Problem as problem:
            yield Finding("native.prompt", where, f"its mask {problem}")
