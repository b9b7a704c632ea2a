"""START_TRAINING: a fine-tune on what people submitted in one project, in processes of its own.

Off unless `train_on_start_training` is set. Each run has a folder under the cache folder:

    training/project-<N>/<run>/run.json        where it stands; read again after a restart
                               finetune.log    what export and finetune said
                               model.pt        the new weights, once it is done

The weights are used once an operator has looked at the numbers and starts the server with them: a
server that changes its model by itself would answer differently in the middle of a task.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetam_label.checkpoints import choose_model
from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.sessions import SessionStore

from .faults import JobNotFound, TrainingRefused
from .settings import ServerSettings

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
ORPHAN_SECONDS = 5.0
MAX_ATTEMPTS = 2  # a run that twice went down with the server is not begun a third time
_STEP = re.compile(r"^step (\d+):", re.MULTILINE)


@dataclass
class TrainingRun:
    """One fine-tune. done, total: steps; it may end early, when nothing improves any more.

    phase: "export", then "finetune". pid: of the process under way, None between them.
    """

    id: str
    project: str
    total: int
    state: str = "queued"
    phase: str = "export"
    done: int = 0
    error: str | None = None
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None
    attempts: int = 0
    pid: int | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Training:
    """One fine-tune at a time. prefix(project): what the session keys of a project begin with
    (…|project|)."""

    def __init__(
        self, settings: ServerSettings, store: SessionStore, prefix: Callable[[str], str]
    ) -> None:
        self._settings = settings
        self._store = store
        self._prefix = prefix
        self._root = settings.cache_dir / "training"
        self._lock = threading.Lock()
        self._runs: dict[str, TrainingRun] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled: set[str] = set()
        self._stopping = threading.Event()

    # -- asked by requests ------------------------------------------------------------------

    def start(self, project: str) -> TrainingRun:
        """Begin in the background. Raises TrainingRefused with the reason and what to do."""
        if not self._settings.train_on_start_training:
            raise TrainingRefused(
                "Training on START_TRAINING is off; start the server with "
                "EDGETAM_LABEL_TRAIN_ON_START_TRAINING=true to allow it."
            )
        if not project.isalnum() or project == "0":
            raise TrainingRefused("START_TRAINING names no project; send its id.")
        if self._settings.label_studio_url is None and not self._sessions(project):
            raise TrainingRefused(
                f"No masklets of project {project} are stored, and without "
                "EDGETAM_LABEL_LABEL_STUDIO_URL its annotations cannot be fetched; set it."
            )
        self._base()  # its problem is told now, not in a log
        with self._lock:
            busy = next((r for r in self._runs.values() if not r.ended), None)
            if busy is not None:
                raise TrainingRefused(
                    f"A fine-tune on project {busy.project} is under way; GET /jobs/{busy.id} "
                    "shows how far it is, DELETE stops it."
                )
            run = TrainingRun(secrets.token_hex(8), project, self._settings.training_steps)
            try:
                self._save(run)
            except OSError as error:
                raise TrainingRefused(
                    f"{self._folder(run)} cannot be written ({error.strerror}); make room there, "
                    "or set EDGETAM_LABEL_CACHE_DIR to another folder."
                ) from None
            self._runs[run.id] = run
        self._launch(run)
        return run

    def all(self) -> list[dict[str, Any]]:
        with self._lock:
            runs = list(self._runs.values())
        return [self._json(run) for run in runs]

    def get(self, run_id: str) -> dict[str, Any] | None:
        with self._lock:
            run = self._runs.get(run_id)
        return None if run is None else self._json(run)

    def cancel(self, run_id: str) -> None:
        """Stop a run and forget what it has; one that has ended stays. Raises JobNotFound."""
        with self._lock:
            if run_id not in self._runs:
                raise JobNotFound(f"There is no fine-tune {run_id[:40]!r}; GET /jobs lists them.")
            if not self._runs[run_id].ended:
                self._cancelled.add(run_id)  # its thread looks there twice a second

    # -- life -------------------------------------------------------------------------------

    def resume(self) -> None:
        """Read the runs of earlier starts; one that was under way begins again."""
        for path in sorted(self._root.glob("project-*/*/run.json")):
            try:
                run = TrainingRun(**json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                logger.warning("%s cannot be read: %s", path, error)
                continue
            with self._lock:
                self._runs[run.id] = run
            if run.ended:
                continue
            self._end_orphan(run)
            if not self._settings.train_on_start_training or run.attempts >= MAX_ATTEMPTS:
                self._set(run, state="failed", error="The server stopped; start training again.")
            else:
                logger.info("fine-tune %s begins again", run.id)
                self._launch(run)

    def stop(self) -> None:
        """End what is under way; the next start begins it again."""
        self._stopping.set()
        self._terminate()

    # -- inside -----------------------------------------------------------------------------

    def _launch(self, run: TrainingRun) -> None:
        threading.Thread(target=self._run, args=(run,), name="training", daemon=True).start()

    def _run(self, run: TrainingRun) -> None:
        folder = self._folder(run)
        state, error = "done", None
        try:
            self._set(run, state="running", done=0, attempts=run.attempts + 1)
            (folder / "model.pt").unlink(missing_ok=True)
            with (folder / "finetune.log").open("ab") as log:
                for phase, command in self._commands(run):
                    self._set(run, phase=phase)
                    if not self._execute(run, command, log):
                        return
            found = json.loads((folder / "finetune.json").read_text(encoding="utf-8"))
            self._set(run, done=run.total, before=found["before"], after=found["after"])
            logger.info("fine-tune is done: serve --checkpoint %s uses it", folder / "model.pt")
        except _Failed as failure:
            state, error = "failed", str(failure)
        except EdgeTAMLabelError as failure:
            state, error = "failed", str(failure)
        except (OSError, ValueError, KeyError) as failure:
            state, error = "failed", f"The run failed ({type(failure).__name__}); see its log."
            logger.exception("fine-tune %s failed", run.id)
        finally:
            shutil.rmtree(folder / "data", ignore_errors=True)
        if error is not None:
            logger.warning("fine-tune %s failed: %s", run.id, error)
        try:
            self._set(run, state=state, error=error, pid=None)
        except OSError as failure:  # a full disk; whoever asks this server is told all the same
            logger.error("fine-tune %s cannot be recorded as %s: %s", run.id, state, failure)

    def _commands(self, run: TrainingRun) -> Iterator[tuple[str, list[str]]]:
        folder = self._folder(run)
        data = folder / "data"
        s = self._settings
        export = ["export", "--format", "ytvos", "--images", "jpeg", "--overwrite"]
        if s.label_studio_url is not None:
            # the people's final annotations are the truth; stored masklets fill their boxes
            export += ["--label-studio", s.label_studio_url, "--project", run.project]
        else:
            export += self._sessions(run.project)
        yield "export", [*export, str(data)]
        base, config = self._base()
        yield "finetune", ["finetune", "--data", str(data), "--base", base, "--config", config,
                           "--steps", str(run.total), "--out", str(folder / "model.pt"),
                           "--json"]  # fmt: skip

    def _execute(self, run: TrainingRun, command: Sequence[str], log: Any) -> bool:
        """True when it succeeded, False when the server stops or it was cancelled."""
        nice = [found, "-n", "10"] if (found := shutil.which("nice")) else []
        out = self._folder(run) / f"{run.phase}.json"
        with out.open("wb") as answer:
            child = subprocess.Popen(
                [*nice, sys.executable, "-m", "edgetam_label", *command],
                stdin=subprocess.DEVNULL, stdout=answer, stderr=log, env=self._environment(),
            )  # fmt: skip
        self._child = child
        self._set(run, pid=child.pid)
        while True:
            if self._stopping.is_set() or run.id in self._cancelled:
                child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL_SECONDS)
                break
            self._set(run, done=self._reached(run))
        if self._stopping.is_set():
            return False
        if run.id in self._cancelled:
            self._set(run, state="cancelled", pid=None)
            return False
        if child.returncode != 0:
            raise _Failed(self._last_line(run))
        return True

    def _environment(self) -> dict[str, str]:
        """Settings by environment, not by flag: command lines are seen by everybody."""
        s = self._settings
        given = {"DB": s.db, "CACHE_DIR": str(s.cache_dir), "DEVICE": s.device, "MODEL": s.model}
        given["ALLOW_PRIVATE_NETWORKS"] = str(s.allow_private_networks).lower()
        if s.checkpoint is not None:
            given["CHECKPOINT"] = s.checkpoint
        if s.label_studio_api_key is not None:
            given["LABEL_STUDIO_API_KEY"] = s.label_studio_api_key.get_secret_value()
        return {**os.environ, **{f"EDGETAM_LABEL_{k}": v for k, v in given.items()}}

    def _base(self) -> tuple[str, str]:
        """(weights, config) that the server runs with. Raises TrainingRefused on random ones."""
        s = self._settings
        choice = choose_model(s.model, s.checkpoint, s.checkpoint_dir, notify=lambda _: None)
        if choice.checkpoint is None:
            raise TrainingRefused(
                "The server runs with random weights, which are nothing to continue from; start it "
                "with --checkpoint FILE."
            )
        return str(choice.checkpoint), choice.config or "auto"

    def _sessions(self, project: str) -> list[str]:
        prefix = self._prefix(project)
        return [s.id for s in self._store.list(key_prefix=prefix) if s.num_masks]

    def _folder(self, run: TrainingRun) -> Path:
        return self._root / f"project-{run.project}" / run.id

    def _reached(self, run: TrainingRun) -> int:
        if run.phase != "finetune":
            return 0
        text = (self._folder(run) / "finetune.log").read_text(encoding="utf-8", errors="replace")
        return max((int(n) for n in _STEP.findall(text)), default=0)

    def _last_line(self, run: TrainingRun) -> str:
        text = (self._folder(run) / "finetune.log").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return (lines[-1] if lines else f"{run.phase} failed without a word").removeprefix(
            "Error: "
        )[:500]

    def _terminate(self) -> None:
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()

    def _end_orphan(self, run: TrainingRun) -> None:
        """After a crash of the server its child may still be at it, in the same folder."""
        if run.pid is None:
            return
        until = time.monotonic() + ORPHAN_SECONDS
        with contextlib.suppress(OSError):  # it is gone
            while run.id.encode() in Path(f"/proc/{run.pid}/cmdline").read_bytes():
                late = time.monotonic() > until
                os.kill(run.pid, signal.SIGKILL if late else signal.SIGTERM)
                time.sleep(0.1)

    def _set(self, run: TrainingRun, **values: Any) -> None:
        if all(getattr(run, name) == value for name, value in values.items()):
            return
        for name, value in values.items():
            setattr(run, name, value)
        self._save(run)

    def _save(self, run: TrainingRun) -> None:
        path = self._folder(run) / "run.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(run)), encoding="utf-8")
        part.replace(path)

    def _json(self, run: TrainingRun) -> dict[str, Any]:
        folder = self._folder(run)
        return {
            "id": run.id,
            "kind": "training",
            "project": run.project,
            "state": run.state,
            "phase": run.phase,
            "done": run.done,
            "total": run.total,
            "error": run.error,
            "before": run.before,
            "after": run.after,
            "weights": str(folder / "model.pt") if run.state == "done" else None,
            "log": str(folder / "finetune.log"),
        }


class _Failed(Exception):
    """A process ended badly; carries its last line."""
