"""A session's history in the database, and the tables that say what it comes to.

`objects` and `events.in_force` follow from the events up to the cursor. A new event changes them
in place, at a cost that does not depend on the history's length; undo and redo work them out anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from edgetam_label.prompts import Prompt
from edgetam_label.session_events import (
    fold,
    implied_object,
    object_payload,
    parse_object,
    path_to,
    prompt_payload,
    read_event,
)
from edgetam_label.session_rows import now, read_object, touch
from edgetam_label.session_schema import EVENTS, MASKS, OBJECTS, pack_json
from edgetam_label.session_types import LabelObject, PromptEvent

Target = Callable[[Iterable[PromptEvent], int], int | None]


@dataclass(frozen=True)
class History:
    """The history of one session inside one write transaction.

    row: the session's row, locked by the caller.
    """

    connection: Connection
    row: Row[Any]

    def object(self, obj_id: int) -> LabelObject | None:
        """The object if it is in force."""
        row = self._object_row(obj_id)
        return None if row is None or row.removed else read_object(row)

    def set_object(self, item: LabelObject) -> None:
        self._forget_predecessor(item.obj_id)
        self._append("set_object", item.obj_id, None, object_payload(item))
        self._store_object(item)

    def remove_object(self, obj_id: int) -> None:
        self._append("remove_object", obj_id, None, "{}")
        self._mark_removed(obj_id)
        self._retire(EVENTS.c.obj_id == obj_id)

    def says(self, prompt: Prompt) -> bool:
        """Whether the very same prompt holds already."""
        return self._payload_at(prompt.obj_id, prompt.frame_idx) == prompt_payload(prompt)

    def add_prompt(self, prompt: Prompt) -> None:
        if self.object(prompt.obj_id) is None:
            self._forget_predecessor(prompt.obj_id)
            self._store_object(implied_object(prompt.obj_id))
        self._retire(*_at(prompt.obj_id, prompt.frame_idx))
        self._append("prompt", prompt.obj_id, prompt.frame_idx, prompt_payload(prompt))

    def clear_prompt(self, obj_id: int, frame_idx: int) -> bool:
        if self._payload_at(obj_id, frame_idx) is None:
            return False
        self._append("clear_prompt", obj_id, frame_idx, "{}")
        self._retire(*_at(obj_id, frame_idx))
        return True

    def move(self, target_of: Target) -> bool:
        """Undo or redo: put the cursor where `target_of` says, and work out what holds there."""
        c = EVENTS.c
        columns = (c.seq, c.parent, c.kind, c.obj_id, c.frame_idx)
        rows = self.connection.execute(select(*columns).where(c.session_pk == self.row.pk))
        events = [PromptEvent(*row) for row in rows]
        target = target_of(events, self.row.cursor)
        if target is None:
            return False
        state = fold(path_to(events, target))
        self._project_objects(state.objects)
        self._project_prompts(set(state.prompts))
        touch(self.connection, self.row.pk, cursor=target)
        return True

    def _append(self, kind: str, obj_id: int, frame_idx: int | None, payload: str) -> None:
        """Write one event after the cursor and move the cursor to it."""
        highest = select(func.max(EVENTS.c.seq)).where(EVENTS.c.session_pk == self.row.pk)
        seq = 1 + (self.connection.execute(highest).scalar() or 0)
        self.connection.execute(
            insert(EVENTS).values(
                session_pk=self.row.pk,
                seq=seq,
                parent=self.row.cursor,
                kind=kind,
                obj_id=obj_id,
                frame_idx=frame_idx,
                payload=payload,
                in_force=kind == "prompt",
                created_at=now(),
            )
        )
        touch(self.connection, self.row.pk, cursor=seq)

    def _payload_at(self, obj_id: int, frame_idx: int) -> str | None:
        query = select(EVENTS.c.payload).where(*self._in_force(), *_at(obj_id, frame_idx))
        return self.connection.execute(query).scalar()

    def _in_force(self) -> tuple[Any, ...]:
        return EVENTS.c.session_pk == self.row.pk, EVENTS.c.in_force

    def _retire(self, *where: Any) -> None:
        statement = update(EVENTS).where(*self._in_force(), *where)
        self.connection.execute(statement.values(in_force=False))

    def _object_row(self, obj_id: int) -> Row[Any] | None:
        query = select(OBJECTS).where(
            OBJECTS.c.session_pk == self.row.pk, OBJECTS.c.obj_id == obj_id
        )
        return self.connection.execute(query).one_or_none()

    def _store_object(self, item: LabelObject) -> None:
        values = {
            "label": item.label,
            "color": item.color,
            "external_id": item.external_id,
            "attributes": pack_json(dict(item.attributes)),
            "removed": False,
        }
        if self._object_row(item.obj_id) is None:
            key = {"session_pk": self.row.pk, "obj_id": item.obj_id}
            self.connection.execute(insert(OBJECTS).values(**key, **values))
        else:
            self._update_object(item.obj_id, **values)

    def _mark_removed(self, obj_id: int) -> None:
        """The row stays, and with it the masks: undoing the removal brings both back."""
        self._update_object(obj_id, removed=True)

    def _update_object(self, obj_id: int, **values: Any) -> None:
        mine = (OBJECTS.c.session_pk == self.row.pk, OBJECTS.c.obj_id == obj_id)
        self.connection.execute(update(OBJECTS).where(*mine).values(**values))

    def _forget_predecessor(self, obj_id: int) -> None:
        """A removed object's masks must not turn up under a new object of the same id."""
        row = self._object_row(obj_id)
        if row is not None and row.removed:
            mine = (MASKS.c.session_pk == self.row.pk, MASKS.c.obj_id == obj_id)
            self.connection.execute(delete(MASKS).where(*mine))

    def _project_objects(self, objects: dict[int, int]) -> None:
        """objects: as in InForce."""
        query = select(OBJECTS).where(OBJECTS.c.session_pk == self.row.pk)
        for row in self.connection.execute(query).all():
            if row.obj_id not in objects and not row.removed:
                self._mark_removed(row.obj_id)
        for obj_id, seq in objects.items():
            item = implied_object(obj_id)
            if seq:
                key = (EVENTS.c.session_pk == self.row.pk, EVENTS.c.seq == seq)
                payload = self.connection.execute(select(EVENTS.c.payload).where(*key)).scalar_one()
                item = parse_object(obj_id, payload)
            if self.object(obj_id) != item:
                self._store_object(item)

    def _project_prompts(self, wanted: set[int]) -> None:
        query = select(EVENTS.c.seq).where(*self._in_force())
        held = set(self.connection.execute(query).scalars())
        for seq in held ^ wanted:
            key = (EVENTS.c.session_pk == self.row.pk, EVENTS.c.seq == seq)
            self.connection.execute(update(EVENTS).where(*key).values(in_force=seq in wanted))


def read_events(connection: Connection, session_pk: int) -> list[PromptEvent]:
    """The whole history, undone branches included, in the order of writing."""
    query = select(EVENTS).where(EVENTS.c.session_pk == session_pk).order_by(EVENTS.c.seq)
    return [read_event(row) for row in connection.execute(query)]


def _at(obj_id: int, frame_idx: int) -> tuple[Any, ...]:
    return EVENTS.c.obj_id == obj_id, EVENTS.c.frame_idx == frame_idx
