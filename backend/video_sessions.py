"""Which session belongs to a task: keyed by Label Studio's address, project and task."""

from __future__ import annotations

from contextlib import AbstractContextManager

from edgetam_label.frames import Frames
from edgetam_label.sessions import LabelSession, SessionStore

from .body import Task
from .keyed_locks import KeyedLocks
from .model_host import ModelHost


class VideoSessions:
    """origin: of the configured Label Studio, if there is one."""

    def __init__(self, store: SessionStore, host: ModelHost, origin: str | None) -> None:
        self._store = store
        self._host = host
        self._origin = origin
        self._locks = KeyedLocks()

    def key(self, project: str, task_id: str) -> str:
        """What ties a session, and people's annotations, to a task."""
        return f"ls|{self._origin or 'label-studio'}|{project}|{task_id}"[:230]

    def of(self, task: Task, frames: Frames) -> LabelSession:
        """The session of a task; a new one where the task's file is another than before."""
        key = self.key(task.project, task.id)
        session = self._store.find_or_create(key, frames.identity, name=f"task {task.id}")
        if session.media.sha256 != frames.identity.sha256:
            other = f"{key}|{frames.identity.sha256[:12]}"
            session = self._store.find_or_create(other, frames.identity, name=f"task {task.id}")
        self._host.model()
        model = self._host.identity
        if model is not None and session.model != model:
            self._store.set_model(session.id, model)
        return session

    def one_at_a_time(self, session_id: str) -> AbstractContextManager[None]:
        """Two annotators on one task change its prompts one after the other, not interleaved."""
        return self._locks.hold(session_id)
