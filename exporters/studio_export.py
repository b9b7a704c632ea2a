"""`export --label-studio`: a project joined into a temporary store, then exported as usual."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetam_label.errors import ExportError
from edgetam_label.sessions import SessionStore

from .dataset_writer import check_target
from .exporting import ExportRequest
from .labelstudio_join import join


@contextmanager
def joined_project(
    store: SessionStore,
    request: ExportRequest,
    url: str,
    project: str,
    redraw: bool,
    flags: dict[str, Any],
) -> Iterator[tuple[SessionStore, ExportRequest]]:
    """A store of its own with the project's tasks joined, and the request to export it.

    redraw: make masks of corrected boxes. flags: --db, --model, --checkpoint, --device.
    """
    # The composition root knows the server and the model; this folder knows neither.
    from edgetam_label.commands.studio import open_studio

    check_target(request.out, request.overwrite)
    with (
        tempfile.TemporaryDirectory(prefix="edgetam-label-") as folder,
        SessionStore(Path(folder) / "joined.db") as target,
        open_studio(url, project, redraw=redraw, **flags) as studio,
    ):
        report = join(store, studio, target)
        if not report.sessions:
            raise ExportError(_nothing_joined(url, project, report.tasks))
        account = {"url": url, "project": project, **report.to_json()}
        yield (
            target,
            replace(
                request,
                session_ids=tuple(report.sessions),
                names=report.sessions,
                extra={"label_studio": account},
            ),
        )


def _nothing_joined(url: str, project: str, tasks: dict[str, int]) -> str:
    return (
        f"Project {project} at {url} has {tasks['in']} tasks, {tasks['without_annotation']} "
        f"without an annotation and {tasks['refused']} that could not be read: nothing to export."
    )


def project_lines(account: dict[str, Any]) -> Iterator[str]:
    """What the command prints of `label_studio` in the manifest."""
    tasks, regions = account["tasks"], account["regions"]
    refused = sum("refused" in region for region in regions)
    yield (
        f"  tasks: {tasks['in']} in the project = {tasks['joined']} exported + "
        f"{tasks['without_annotation']} without annotation + {tasks['refused']} refused"
    )
    yield f"  regions: {len(regions)}, {refused} of them refused"
    for task in account["refused_tasks"]:
        yield f"  task {task['task']}: {task['why']}"
