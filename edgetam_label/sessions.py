"""The session store: what was prompted and what was tracked, safe against crashes.

A session keeps its media's identity, its objects, every prompt as an event, and one mask per
object and frame as COCO RLE. It never keeps a tensor: a tracker resumes by replaying the prompts.

    python -c "
    from edgetam_label import Click, Frames, Prompt, SessionStore
    with SessionStore('sessions.db') as store, Frames.open('clip.mp4') as frames:
        session = store.create(frames.identity)
        store.add_prompt(session.id, Prompt(obj_id=1, frame_idx=0, clicks=(Click(320, 180),)))
        store.undo(session.id), store.redo(session.id)
        print(store.get(session.id).prompts)"
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from edgetam_label import session_masks
from edgetam_label.closing import Closing
from edgetam_label.database import Database
from edgetam_label.errors import PromptError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.prompts import Prompt
from edgetam_label.session_annotations import ExternalAnnotations
from edgetam_label.session_events import path_to, redo_target, undo_target
from edgetam_label.session_history import History, read_events
from edgetam_label.session_jobs import TrackingJobs, advance
from edgetam_label.session_rows import (
    insert_media,
    model_id,
    now,
    read_model,
    read_objects,
    read_session,
    read_summaries,
    session_row,
    touch,
)
from edgetam_label.session_schema import MASKS, MEDIA, OBJECTS, SESSIONS
from edgetam_label.session_types import (
    ExternalAnnotation,
    FrameMask,
    LabelObject,
    LabelSession,
    Masklet,
    ModelIdentity,
    PromptEvent,
    SessionSummary,
    TrackingJob,
)

__all__ = [
    "ExternalAnnotation",
    "FrameMask",
    "LabelObject",
    "LabelSession",
    "Masklet",
    "ModelIdentity",
    "PromptEvent",
    "SessionStore",
    "SessionSummary",
    "TrackingJob",
]

# Base 32 without the letters that are misread for digits or each other.
_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_MAX_KEY = 255

Sessions = list[LabelSession]  # inside the class `list` is the method


class SessionStore(Closing):
    """Sessions in a database; safe for several threads and several processes.

    url: an SQLAlchemy URL or the path of a SQLite file, made when absent.
    busy_timeout: seconds to wait while another process writes.
    jobs: the store's tracking jobs. annotations: people's final annotations from elsewhere.

    Every method is one transaction. Raises StoreError when the database refuses (locked, full,
    read-only, damaged, too new), SessionNotFound for an unknown session id.
    """

    def __init__(self, url: str | Path, *, busy_timeout: float = 30.0) -> None:
        self._database = Database(url, busy_timeout=busy_timeout)
        self.jobs = TrackingJobs(self._database)
        self.annotations = ExternalAnnotations(self._database)

    @property
    def url(self) -> str:
        """Where the database is, for people: without a password."""
        return self._database.display_url

    def close(self) -> None:
        self._database.close()

    # -- sessions ---------------------------------------------------------------------------

    def create(
        self,
        media: MediaIdentity,
        *,
        model: ModelIdentity | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> LabelSession:
        """A new session on `media`.

        name: for people; by default the media's file name.
        key: an id from elsewhere, unique, such as a Label Studio task. Raises UsageError if taken.
        """
        session, is_new = self._create(media, model, name, key)
        if not is_new:
            raise UsageError(f"The key {key!r} is already used by session {session.id}.")
        return session

    def find_or_create(
        self,
        key: str,
        media: MediaIdentity,
        *,
        model: ModelIdentity | None = None,
        name: str | None = None,
    ) -> LabelSession:
        """The session with this key, made when absent: one, however many ask at the same time.

        An existing session is returned as it is; compare its media and model with yours.
        """
        return self._create(media, model, name, key)[0]

    def get(self, session_id: str) -> LabelSession:
        with self._database.read() as connection:
            return read_session(connection, session_row(connection, session_id))

    def find(self, key: str) -> LabelSession | None:
        """The session with this key, if there is one."""
        with self._database.read() as connection:
            row = _row_by_key(connection, key)
            return None if row is None else read_session(connection, row)

    def list(self, *, key_prefix: str | None = None) -> Sessions:
        """Whole sessions in the order they were created; `summaries` is much lighter."""
        query = select(SESSIONS).order_by(SESSIONS.c.pk)
        if key_prefix is not None:
            query = query.where(func.substr(SESSIONS.c.key, 1, len(key_prefix)) == key_prefix)
        with self._database.read() as connection:
            return [read_session(connection, row) for row in connection.execute(query).all()]

    def summaries(self) -> tuple[SessionSummary, ...]:
        """One line per session in the order they were created."""
        with self._database.read() as connection:
            return tuple(read_summaries(connection))

    def delete(self, session_id: str) -> None:
        """Remove a session with all it has; external annotations of its key stay."""
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            connection.execute(delete(SESSIONS).where(SESSIONS.c.pk == row.pk))
        self._database.reclaim()

    def set_model(self, session_id: str, model: ModelIdentity) -> None:
        """From now on masks of this session are made by `model`."""
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            touch(connection, row.pk, model_id=model_id(connection, model))

    # -- objects and prompts ----------------------------------------------------------------

    def set_object(self, session_id: str, item: LabelObject) -> bool:
        """Add an object or change its label, colour or attributes. False when nothing changed.

        Setting the id of a removed object begins a new one: the old one's masks are deleted.
        """
        with self._database.write() as connection:
            history = History(connection, session_row(connection, session_id, lock=True))
            if history.object(item.obj_id) == item:
                return False
            history.set_object(item)
            return True

    def add_object(
        self,
        session_id: str,
        label: str,
        *,
        color: str = "",
        external_id: str | None = None,
    ) -> LabelObject:
        """An object under the next free id; ids of removed objects are not given out again.

        The object in force with this external_id is returned instead when there is one, renamed
        if the label differs: asking twice makes one object.
        """
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            objects = read_objects(connection, row.pk)
            same = [o for o in objects if external_id is not None and o.external_id == external_id]
            if same and same[0].label == label:
                return same[0]
            if same:
                item = replace(same[0], label=label)
            else:
                query = select(func.max(OBJECTS.c.obj_id)).where(OBJECTS.c.session_pk == row.pk)
                highest = connection.execute(query).scalar() or 0
                item = LabelObject(highest + 1, label, color, external_id)
            History(connection, row).set_object(item)
            return item

    def remove_object(self, session_id: str, obj_id: int) -> None:
        """Remove an object and its prompts; its masks are hidden, and come back with an undo.

        Raises PromptError when the session has no such object.
        """
        with self._database.write() as connection:
            history = History(connection, session_row(connection, session_id, lock=True))
            if history.object(obj_id) is None:
                raise PromptError(f"Session {session_id} has no object {obj_id} to remove.")
            history.remove_object(obj_id)

    def add_prompt(self, session_id: str, prompt: Prompt) -> bool:
        """Say something about an object on a frame, in place of what was said there before.

        An object that nobody set yet is called "object <id>". False when the same was said
        already. Raises PromptError for a place outside the media.
        """
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            _check_place(connection, row.pk, prompt)
            history = History(connection, row)
            if history.says(prompt):
                return False
            history.add_prompt(prompt)
            return True

    def clear_prompt(self, session_id: str, obj_id: int, frame_idx: int) -> bool:
        """Take back what was said about an object on a frame. False when nothing was."""
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            return History(connection, row).clear_prompt(obj_id, frame_idx)

    def undo(self, session_id: str) -> bool:
        """Take back the last event in force; False when there is none."""
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            return History(connection, row).move(undo_target)

    def redo(self, session_id: str) -> bool:
        """Bring back the event undone last; False when there is none."""
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            return History(connection, row).move(redo_target)

    def events(self, session_id: str) -> tuple[PromptEvent, ...]:
        """The whole history in the order of writing, undone events included."""
        with self._database.read() as connection:
            return tuple(read_events(connection, session_row(connection, session_id).pk))

    def history(self, session_id: str) -> tuple[PromptEvent, ...]:
        """The events in force, oldest first: what a tracker replays."""
        with self._database.read() as connection:
            row = session_row(connection, session_id)
            return tuple(path_to(read_events(connection, row.pk), row.cursor))

    # -- masks ------------------------------------------------------------------------------

    def save_masks(
        self,
        session_id: str,
        masks: Iterable[FrameMask],
        *,
        model: ModelIdentity | None = None,
        job_id: str | None = None,
        next_frame: int | None = None,
    ) -> int:
        """Store a batch in one transaction; returns how many masks were written.

        A mask replaces the one of the same object and frame, but an approved one yields only to
        another approved one.
        model: who made them, by default the session's model.
        job_id, next_frame: move this tracking job on in the same transaction, so that its
        position and its masks never disagree.
        """
        batch = tuple(masks)  # before the transaction: a slow producer must not block others
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            _check_frames(connection, row.pk, batch)
            maker = row.model_id if model is None else model_id(connection, model)
            written = session_masks.save(connection, row.pk, batch, maker)
            if job_id is not None:
                advance(connection, row.pk, job_id, next_frame)
            touch(connection, row.pk)
            return written

    def iter_masks(
        self,
        session_id: str,
        *,
        obj_id: int | None = None,
        start: int = 0,
        stop: int | None = None,
        order: str = "frame",
    ) -> Iterator[FrameMask]:
        """Masks of frames start <= frame_idx < stop, streaming in bounded memory.

        order: "frame" (by frame, then object) or "object" (by object, then frame). No lock is
        held between steps; a mask replaced meanwhile is seen in one of its versions.
        """
        with self._database.read() as connection:
            session_pk = session_row(connection, session_id).pk
        return session_masks.stream(
            self._database, session_pk, obj_id=obj_id, start=start, stop=stop, order=order
        )

    def masks_on(
        self, session_id: str, frame_idx: int, *, besides: Collection[int] = ()
    ) -> dict[int, RLE]:
        """What is stored of one frame, by object. besides: objects that are left out."""
        masks = self.iter_masks(session_id, start=frame_idx, stop=frame_idx + 1)
        return {mask.obj_id: mask.rle for mask in masks if mask.obj_id not in besides}

    def masklet(self, session_id: str, obj_id: int) -> Masklet:
        """One object's masks in frame order. Raises UsageError for an unknown object."""
        with self._database.read() as connection:
            row = session_row(connection, session_id)
            item = read_session(connection, row).object(obj_id)
        masks = tuple(self.iter_masks(session_id, obj_id=obj_id))
        return Masklet(
            obj_id,
            item.label,
            frames={mask.frame_idx: mask.rle for mask in masks},
            scores={mask.frame_idx: mask.score for mask in masks},
        )

    def delete_masks(
        self,
        session_id: str,
        obj_id: int | None = None,
        frames: Iterable[int] | None = None,
        *,
        include_approved: bool = False,
    ) -> int:
        """Delete masks of one or all objects on some or all frames; returns how many.

        Approved masks stay unless `include_approved`.
        """
        with self._database.write() as connection:
            row = session_row(connection, session_id, lock=True)
            deleted = session_masks.delete_masks(
                connection, row.pk, obj_id, frames, include_approved
            )
            touch(connection, row.pk)
            return deleted

    def mask_models(self, session_id: str) -> dict[ModelIdentity | None, int]:
        """How many masks each model made; None: a person or an import. For manifests."""
        with self._database.read() as connection:
            row = session_row(connection, session_id)
            query = (
                select(MASKS.c.model_id, func.count())
                .where(MASKS.c.session_pk == row.pk)
                .group_by(MASKS.c.model_id)
                .order_by(MASKS.c.model_id)
            )
            counts = connection.execute(query).all()
            return {read_model(connection, number): count for number, count in counts}

    # -- inside -----------------------------------------------------------------------------

    def _create(
        self, media: MediaIdentity, model: ModelIdentity | None, name: str | None, key: str | None
    ) -> tuple[LabelSession, bool]:
        if key is not None and not 1 <= len(key) <= _MAX_KEY:
            raise UsageError(f"A session key has 1 to {_MAX_KEY} characters, not {len(key)}.")
        title = name or PurePath(media.source).name or media.kind
        with self._database.write() as connection:
            row = None if key is None else _row_by_key(connection, key)
            if row is not None:
                return read_session(connection, row), False
            values = {
                "id": _new_id(title),
                "key": key,
                "name": title,
                "model_id": None if model is None else model_id(connection, model),
                "cursor": 0,
                "created_at": now(),
                "updated_at": now(),
            }
            try:
                with connection.begin_nested():
                    connection.execute(insert(SESSIONS).values(values))
            except IntegrityError:  # another process took the key a moment ago
                row = None if key is None else _row_by_key(connection, key)
                if row is None:
                    raise
                return read_session(connection, row), False
            row = session_row(connection, str(values["id"]))
            insert_media(connection, row.pk, media)
            return read_session(connection, row), True


def _row_by_key(connection: Connection, key: str) -> Row[Any] | None:
    return connection.execute(select(SESSIONS).where(SESSIONS.c.key == key)).one_or_none()


def _check_place(connection: Connection, session_pk: int, prompt: Prompt) -> None:
    query = select(MEDIA.c.width, MEDIA.c.height, MEDIA.c.num_frames)
    media = connection.execute(query.where(MEDIA.c.session_pk == session_pk)).one()
    if prompt.frame_idx >= media.num_frames:
        raise PromptError(
            f"Frame {prompt.frame_idx} does not exist; the media has frames 0 to "
            f"{media.num_frames - 1}."
        )
    prompt.check_inside(media.width, media.height)


def _check_frames(connection: Connection, session_pk: int, masks: Iterable[FrameMask]) -> None:
    query = select(MEDIA.c.num_frames).where(MEDIA.c.session_pk == session_pk)
    num_frames = connection.execute(query).scalar_one()
    for mask in masks:
        if not 0 <= mask.frame_idx < num_frames:
            raise UsageError(
                f"A mask of object {mask.obj_id} is for frame {mask.frame_idx}, but the media has "
                f"frames 0 to {num_frames - 1}."
            )


def _new_id(title: str) -> str:
    """A short readable id: what is ASCII of the title, and six random characters."""
    plain = unicodedata.normalize("NFKD", PurePath(title).stem).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower())[:24].strip("-") or "session"
    return f"{slug}-" + "".join(secrets.choice(_ID_LETTERS) for _ in range(6))
