"""A session's history: events in, the state in force out. Pure; knows no database.

Events form a tree, each naming the event that was in force before it. The path from the root to
the cursor is the history in force. Undo moves the cursor to the parent; redo to the newest child,
which is the one undone last. A new event after an undo starts a new branch: the old one can no
longer be reached by redo, but it stays on record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgetam_label.masks import RLE
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.session_schema import pack_json
from edgetam_label.session_types import LabelObject, PromptEvent


@dataclass(frozen=True)
class InForce:
    """What a history comes to.

    objects: each object's latest "set_object" event by obj_id, 0 where a prompt implied it.
    prompts: the events of the prompts that hold, in their order.
    """

    objects: dict[int, int]
    prompts: tuple[int, ...]


def implied_object(obj_id: int) -> LabelObject:
    """The object that a prompt brings into being when nobody named it first."""
    return LabelObject(obj_id, f"object {obj_id}")


def path_to(events: Iterable[PromptEvent], cursor: int) -> list[PromptEvent]:
    """The events in force, oldest first."""
    by_seq = {event.seq: event for event in events}
    path = []
    while cursor:
        event = by_seq[cursor]
        path.append(event)
        cursor = event.parent
    path.reverse()
    return path


def undo_target(events: Iterable[PromptEvent], cursor: int) -> int | None:
    """The cursor after one undo; None when nothing is left to undo."""
    return next((event.parent for event in events if event.seq == cursor), None)


def redo_target(events: Iterable[PromptEvent], cursor: int) -> int | None:
    """The cursor after one redo; None when nothing was undone."""
    return max((event.seq for event in events if event.parent == cursor), default=None)


def fold(path: Iterable[PromptEvent]) -> InForce:
    """Apply events in order; of each only kind, object and frame are looked at."""
    objects: dict[int, int] = {}
    prompts: dict[tuple[int, int | None], int] = {}
    for event in path:
        if event.kind == "set_object":
            objects[event.obj_id] = event.seq
        elif event.kind == "prompt":
            objects.setdefault(event.obj_id, 0)
            prompts[event.obj_id, event.frame_idx] = event.seq
        elif event.kind == "clear_prompt":
            prompts.pop((event.obj_id, event.frame_idx), None)
        elif event.kind == "remove_object":
            objects.pop(event.obj_id, None)
            prompts = {place: seq for place, seq in prompts.items() if place[0] != event.obj_id}
        else:
            raise ValueError(f"Event {event.seq} has the unknown kind {event.kind!r}.")
    return InForce(objects, tuple(sorted(prompts.values())))


def prompt_payload(prompt: Prompt) -> str:
    """JSON of what a prompt says; floats are written so that they read back bit for bit."""
    box = prompt.box
    return pack_json(
        {
            "clicks": [[float(c.x), float(c.y), bool(c.positive)] for c in prompt.clicks],
            "box": None if box is None else [float(v) for v in (box.x0, box.y0, box.x1, box.y1)],
            "mask": None if prompt.mask is None else prompt.mask.to_coco(),
            "correction": prompt.correction,
        }
    )


def parse_prompt(obj_id: int, frame_idx: int, payload: str) -> Prompt:
    data = json.loads(payload)
    return Prompt(
        obj_id,
        frame_idx,
        clicks=tuple(Click(x, y, positive) for x, y, positive in data["clicks"]),
        box=None if data["box"] is None else Box(*data["box"]),
        mask=None if data["mask"] is None else RLE.from_coco(data["mask"]),
        correction=data["correction"],
    )


def object_payload(item: LabelObject) -> str:
    return pack_json(
        {
            "label": item.label,
            "color": item.color,
            "external_id": item.external_id,
            "attributes": dict(item.attributes),
        }
    )


def parse_object(obj_id: int, payload: str) -> LabelObject:
    return LabelObject(obj_id, **json.loads(payload))


def read_event(row: Any) -> PromptEvent:
    """A row of the table `events` as a value."""
    is_prompt = row.kind == "prompt"
    return PromptEvent(
        seq=row.seq,
        parent=row.parent,
        kind=row.kind,
        obj_id=row.obj_id,
        frame_idx=row.frame_idx,
        prompt=parse_prompt(row.obj_id, row.frame_idx, row.payload) if is_prompt else None,
        object=parse_object(row.obj_id, row.payload) if row.kind == "set_object" else None,
        created_at=row.created_at,
    )
