"""A Label Studio project for `export --label-studio`: its tasks, its media, masks from boxes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import EdgeTAMLabelError, UsageError

if TYPE_CHECKING:
    from edgetam_label.exporters.labelstudio_join import Studio
    from edgetam_label.masks import Mask
    from edgetam_label.prompts import Prompt

logger = logging.getLogger(__name__)


@contextmanager
def open_studio(url: str, project: str, *, redraw: bool, **flags: Any) -> Iterator[Studio]:
    """A connection to project number `project` of the Label Studio at `url`.

    redraw: make masks of boxes that no stored mask fits; the model is loaded at the first one.
    flags: db, model, checkpoint, device as given on the command line. The token comes from
    EDGETAM_LABEL_LABEL_STUDIO_API_KEY. Media stay on disk until the context ends.
    """
    from edgetam_label.backend.ls_client import LabelStudioClient
    from edgetam_label.backend.media import MediaCache
    from edgetam_label.backend.settings import ServerSettings
    from edgetam_label.exporters.labelstudio_join import Studio, redraw_by

    if not re.fullmatch(r"[1-9]\d*", project):
        raise UsageError(f"--project {project!r} is not a number; it is in the project's address.")
    settings = ServerSettings.load(label_studio_url=url, **flags)
    key = settings.label_studio_api_key
    client = LabelStudioClient(
        settings.label_studio_url,
        key.get_secret_value() if key else None,
        allow_private=settings.allow_private_networks,
        timeout=settings.download_timeout,
    )
    cache = MediaCache(
        settings.media_dir,
        client,
        budget_bytes=settings.media_cache_bytes,
        max_download_bytes=settings.max_download_bytes,
        retries=settings.download_retries,
    )
    path = f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"
    with ExitStack() as stack:
        stack.callback(client.close)

        def tasks() -> list[dict[str, Any]]:
            found = client.call("GET", path)
            if not isinstance(found, list):
                raise EdgeTAMLabelError(f"Label Studio at {url} exported no list of tasks.")
            return found

        def media(address: str, task_id: str) -> Path | None:
            try:
                path: Path = stack.enter_context(cache.lease(address, task_id)).path
                return path
            except EdgeTAMLabelError as error:
                logger.warning("task %s: %s", task_id, error)
                return None  # the join says for each region what this cost it

        make, close = redraw_by(_predictor(settings)) if redraw else (None, None)
        if close is not None:
            stack.callback(close)
        yield Studio(str(client.origin), project, tasks, media, make)


def _predictor(settings: Any) -> Callable[[Any, Prompt], Mask]:
    """The image predictor, its model loaded when it is first asked."""
    loaded: list[Any] = []

    def predict(image: Any, prompt: Prompt) -> Mask:
        if not loaded:
            from edgetam_label.checkpoints import load_model
            from edgetam_label.predictor import ImagePredictor

            network = load_model(**settings.model_arguments())
            loaded.append(ImagePredictor(network))
        predictor = loaded[0]
        best: Mask = predictor.predict(predictor.embed(image), prompt).best
        return best

    return predict
