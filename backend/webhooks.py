"""Webhooks: people's final annotations are kept beside the session, and go when they are deleted.

Label Studio says ANNOTATIONS_DELETED (plural) and names only the ids; drafts send nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgetam_label.sessions import ExternalAnnotation, SessionStore

from .body import brief, project_id
from .faults import RequestError
from .jobs import JobRunner

logger = logging.getLogger(__name__)

SAVED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"})
DELETED = frozenset({"ANNOTATIONS_DELETED", "ANNOTATION_DELETED"})


@dataclass(frozen=True)
class Outcome:
    """What a webhook did, as it is answered. count: annotations or tasks.

    job: the fine-tune that it began; Label Studio keeps it with the model.
    """

    status: str
    count: int = 0
    job: str | None = None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"status": self.status, "count": self.count}
        return found if self.job is None else {**found, "job": self.job}


class WebhookService:
    """session_key(project, task) names the task; train(project) starts a fine-tune and gives its
    id, or raises TrainingRefused."""

    def __init__(
        self,
        store: SessionStore,
        jobs: JobRunner,
        session_key: Callable[[str, str], str],
        train: Callable[[str], str],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._key = session_key
        self._train = train

    def receive(self, body: Any) -> Outcome:
        """Raises RequestError for a body without an action; unknown actions are ignored."""
        if not isinstance(body, dict) or not isinstance(body.get("action"), str):
            raise RequestError(f"A webhook body needs an 'action', got {brief(body)}.")
        action = body["action"]
        project = project_id(body.get("project"))
        if action in SAVED:
            return self._save(body, project)
        if action in DELETED:
            return self._delete_annotations(body, project)
        if action == "TASKS_DELETED":
            return self._delete_tasks(body, project)
        if action == "START_TRAINING":
            return Outcome("training", job=self._train(project))
        return Outcome("ignored")

    def _save(self, body: Mapping[str, Any], project: str) -> Outcome:
        found = body.get("annotations") if "annotations" in body else [body.get("annotation")]
        if not isinstance(found, list):
            raise RequestError(f"'annotations' must be a list, got {brief(found)}.")
        tasks = body.get("tasks")
        tasks = tasks if isinstance(tasks, list) else [body.get("task")] * len(found)
        count = 0
        for i, annotation in enumerate(found):
            if not isinstance(annotation, dict):
                raise RequestError(f"'annotation' must be an object, got {brief(annotation)}.")
            number = _id(annotation.get("id"))
            task = annotation.get("task")
            if task is None and i < len(tasks) and isinstance(tasks[i], dict):
                task = tasks[i].get("id")
            task_id = _id(task)
            result = annotation.get("result")
            if number is None or task_id is None or not isinstance(result, list):
                raise RequestError("The annotation needs an 'id', a 'task' and a 'result' list.")
            regions = [r for r in result if isinstance(r, dict)]
            count += self._store.annotations.put(
                ExternalAnnotation(
                    source_key=self._key(project, task_id),
                    annotation_id=number,
                    payload={**annotation, "result": regions},
                    created_by=_id(annotation.get("completed_by")),
                    updated_at=_time(annotation.get("updated_at")),
                )
            )
        return Outcome("saved", count)

    def _delete_annotations(self, body: Mapping[str, Any], project: str) -> Outcome:
        gone = {*_ids(body.get("annotations")), *_ids([body.get("annotation")])}
        # the body names no task; annotation ids are unique on their server
        prefix = self._key(project, "")
        keys = {
            a.source_key: a.annotation_id
            for a in self._store.annotations.under(prefix)
            if a.annotation_id in gone
        }
        count = sum(self._store.annotations.delete(key, gone) for key in keys)
        return Outcome("deleted", count)

    def _delete_tasks(self, body: Mapping[str, Any], project: str) -> Outcome:
        count = 0
        for task_id in _ids(body.get("tasks")):
            key = self._key(project, task_id)
            self._store.annotations.delete(key)
            for session in self._store.list(key_prefix=key):
                if session.key not in (key, None) and not str(session.key).startswith(key + "|"):
                    continue  # task 1 is not task 12
                self._jobs.supersede(self._jobs.unfinished(session.id))
                self._store.delete(session.id)
            count += 1
        return Outcome("deleted", count)


def _ids(raw: Any) -> Iterator[str]:
    for one in raw if isinstance(raw, list) else []:
        found = _id(one.get("id") if isinstance(one, dict) else one)
        if found is not None:
            yield found


def _id(raw: Any) -> str | None:
    if isinstance(raw, bool) or not isinstance(raw, (int, str)) or raw == "":
        return None
    return str(raw)[:64]


def _time(raw: Any) -> datetime | None:
    """ISO 8601 with a zone; None for anything else."""
    if not isinstance(raw, str):
        return None
    try:
        found = datetime.fromisoformat(raw)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
