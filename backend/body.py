"""The JSON that Label Studio posts, read defensively into values; no key is trusted to exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .faults import RequestError

MAX_REGIONS = 5000
MAX_TASKS = 1000


@dataclass(frozen=True)
class Task:
    """One Label Studio task. id: as text. user: who drafts, where Label Studio says so."""

    id: str
    project: str
    data: Mapping[str, Any]
    draft_labels: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


@dataclass(frozen=True)
class PredictBody:
    """context: None in a batch call or when a task is opened; else what the editor sent."""

    tasks: tuple[Task, ...]
    project: str
    label_config: str
    context: Mapping[str, Any] | None

    @property
    def event(self) -> str | None:
        value = (self.context or {}).get("event")
        return value if isinstance(value, str) and value else None

    @property
    def regions(self) -> list[Mapping[str, Any]]:
        """The prompts of the editor, in its order; [] where there are none."""
        found = (self.context or {}).get("result")
        if found is None:
            return []
        if not isinstance(found, list) or len(found) > MAX_REGIONS:
            raise RequestError(
                f"context.result must be a list of at most {MAX_REGIONS} regions, "
                f"got {brief(found)}."
            )
        return [r for r in found if isinstance(r, dict)]

    @classmethod
    def parse(cls, body: Any) -> PredictBody:
        """Raises RequestError with the key and the value that was found there."""
        if not isinstance(body, dict):
            raise RequestError(f"The body must be a JSON object, got {brief(body)}.")
        raw_tasks = body.get("tasks")
        if not isinstance(raw_tasks, list) or len(raw_tasks) > MAX_TASKS:
            raise RequestError(
                f"'tasks' must be a list of at most {MAX_TASKS} tasks, got {brief(raw_tasks)}."
            )
        params = body.get("params")
        context = params.get("context") if isinstance(params, dict) else None
        if context is not None and not isinstance(context, dict):
            raise RequestError(f"'params.context' must be an object or null, got {brief(context)}.")
        config = body.get("label_config")
        project = project_id(body.get("project"))
        return cls(
            tasks=tuple(_task(raw, project) for raw in raw_tasks),
            project=project,
            label_config=config if isinstance(config, str) else "",
            context=context,
        )


def project_id(raw: Any) -> str:
    """ "1.1795339990" (id, dot, creation time) → "1"; a number as text; "0" where absent."""
    if isinstance(raw, dict):
        raw = raw.get("id")
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        return "0"
    return str(raw).split(".")[0][:64] or "0"


def _task(raw: Any, project: str) -> Task:
    if not isinstance(raw, dict):
        raise RequestError(f"Each task must be an object, got {brief(raw)}.")
    data = raw.get("data")
    if not isinstance(data, dict):
        raise RequestError(f"Task {brief(raw.get('id'))} has no 'data' object, got {brief(data)}.")
    number = raw.get("id")
    if number is None or isinstance(number, (dict, list, bool)):
        number = 0
    # a task's own project is surer than the body's "<id>.<time>"
    own = raw.get("project")
    labels, user = _drafts(raw.get("drafts"))
    return Task(
        str(number)[:64], project_id(own) if own is not None else project, data, labels, user
    )


def _drafts(raw: Any) -> tuple[dict[str, str], str | None]:
    """(label by region id, the user of the last draft)."""
    labels: dict[str, str] = {}
    user: str | None = None
    for draft in raw if isinstance(raw, list) else []:
        if not isinstance(draft, dict):
            continue
        if isinstance(draft.get("user"), (str, int)):
            user = str(draft["user"])[:200]
        result = draft.get("result")
        for region in result if isinstance(result, list) else []:
            if isinstance(region, dict) and isinstance(region.get("id"), str):
                label = region_label(region)
                if label:
                    labels[region["id"]] = label
    return labels, user


def region_label(region: Mapping[str, Any]) -> str | None:
    """The first label of a region, whatever its type calls it; None if it is unlabelled."""
    value = region.get("value")
    if not isinstance(value, dict):
        return None
    kind = region.get("type")
    keys = [kind] if isinstance(kind, str) else []
    keys += ["labels", *(k for k in value if isinstance(k, str) and k.endswith("labels"))]
    for key in keys:
        labels = value.get(key)
        if isinstance(labels, list) and labels and isinstance(labels[0], str):
            return labels[0]
    return None


def number(value: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A finite number. Raises RequestError with the key and what was found."""
    raw = value.get(key, default)
    if raw is None:
        raw = default
    usable = isinstance(raw, (int, float)) and not isinstance(raw, bool) and abs(raw) < 1e12
    if not usable or not math.isfinite(raw):  # type: ignore[arg-type]
        raise RequestError(f"{key!r} must be a finite number, got {brief(raw)}.")
    return float(raw)  # type: ignore[arg-type]


def brief(value: Any) -> str:
    """A value as a person may see it: short, and without what a body may hide in depth."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
