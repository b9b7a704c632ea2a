"""START_TRAINING: a fine-tune on the masklets of one project, in a process of its own.

Off unless `train_on_start_training` is set. The new weights lie beside the log; they are used once
an operator has looked at the numbers and starts the server with them: a server that changes its
model by itself would answer differently in the middle of a task.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from edgetam_label.sessions import SessionStore

from .settings import ServerSettings

logger = logging.getLogger(__name__)

DEFAULT_BASE = "edgetam_nano"


class Training:
    """One fine-tune at a time. prefix(project): what the session keys of a project begin with."""

    def __init__(
        self, settings: ServerSettings, store: SessionStore, prefix: Callable[[str], str]
    ) -> None:
        self._settings = settings
        self._store = store
        self._prefix = prefix
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def start(self, project: str) -> str:
        """Begin, and say what was begun; or why not."""
        if not project.isalnum():
            return "ignored: the project is not named"
        sessions = [s.id for s in self._store.list(key_prefix=self._prefix(project)) if s.num_masks]
        if not sessions:
            return "ignored: no masklets of this project are stored yet"
        if not self._lock.acquire(blocking=False):
            return "ignored: a fine-tune is under way"
        folder = self._settings.cache_dir / "training" / f"project-{project}"
        thread = threading.Thread(
            target=self._run, args=(folder, sessions), name="training", daemon=True
        )
        thread.start()
        return f"training on {len(sessions)} session(s); see {folder.name}/finetune.log"

    def stop(self) -> None:
        """End a fine-tune that is under way."""
        self._stopped = True
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()

    def _run(self, folder: Path, sessions: list[str]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            data, weights = folder / "data", folder / "model.pt"
            program = [sys.executable, "-m", "edgetam_label"]
            export = [*program, "export", *sessions, "--format", "ytvos", "--images", "jpeg",
                      "--overwrite", "--db", self._settings.db, str(data)]  # fmt: skip
            tune = [*program, "finetune", "--data", str(data), "--base", self._base(),
                    "--out", str(weights), "--device", self._settings.device]  # fmt: skip
            with (folder / "finetune.log").open("wb") as log:
                for command in (export, tune):
                    if self._stopped:
                        return
                    self._child = subprocess.Popen(command, stdout=log, stderr=log)
                    status = self._child.wait()
                    if status != 0:
                        logger.warning("fine-tune failed with %d; see %s", status, log.name)
                        return
            logger.info("fine-tune is done: start serve with --checkpoint %s to use it", weights)
        except OSError as error:
            logger.warning("fine-tune could not run: %s", error)
        finally:
            self._lock.release()

    def _base(self) -> str:
        given = self._settings.checkpoint
        return given if given and given != "random" else DEFAULT_BASE
