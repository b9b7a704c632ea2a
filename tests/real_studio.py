"""A real Label Studio on a free loopback port, and the backend as its own process beside it.

Label Studio lives in a virtual environment of its own (it pins other versions of our dependencies):
$LABEL_STUDIO_VENV, or the environment of a `label-studio` on the PATH.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

USER, PASSWORD = "annotator@example.com", "an-ordinary-password-1"
START_SECONDS = 600


def program() -> Path | None:
    """The `label-studio` executable, None where there is none."""
    venv = os.environ.get("LABEL_STUDIO_VENV")
    found = str(Path(venv) / "bin" / "label-studio") if venv else shutil.which("label-studio")
    return Path(found) if found and Path(found).exists() else None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Process:
    """A child in a session of its own, logging to a file; stopped with everything it started."""

    def __init__(self, command: Sequence[str], env: dict[str, str], log: Path, cwd: Path) -> None:
        self.log = log
        self._out = log.open("ab")
        self._child = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=self._out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def wait_for(self, url: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._child.poll() is not None:
                raise RuntimeError(f"exited with {self._child.returncode}:\n{self.tail()}")
            try:
                if requests.get(url, timeout=5).ok:
                    return
            except requests.RequestException:
                time.sleep(0.3)
        raise RuntimeError(f"{url} did not answer in {seconds} s:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._child.poll() is None:
            os.killpg(self._child.pid, how)
            try:
                self._child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._child.pid, signal.SIGKILL)
                self._child.wait(15)
        self._out.close()


class LabelStudio:
    """auth "pat": legacy tokens stay off, as by default. protect: the SSRF guard stays on."""

    def __init__(self, template: Path | None = None, *, protect: bool = False) -> None:
        executable = program()
        assert executable is not None, "no label-studio; set LABEL_STUDIO_VENV"
        self._program = executable
        self._protect = protect
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="label-studio-"))
        # the first start migrates for a minute or more: a copy of a migrated folder starts at once
        self._template = template
        if template is not None and template.exists():
            shutil.copytree(template, self.folder, dirs_exist_ok=True)
        self._process: Process | None = None
        self._access_at = -1e9
        self.token = ""
        self.http = requests.Session()
        self.http.trust_env = False

    def __enter__(self) -> LabelStudio:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _env(self) -> dict[str, str]:
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder),
            "LABEL_STUDIO_USERNAME": USER,
            "LABEL_STUDIO_PASSWORD": PASSWORD,
            "LABEL_STUDIO_HOST": self.url,
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
        if not self._protect:
            env |= {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}
        return env

    def _start(self) -> None:
        command = [str(self._program), "start", "--no-browser", "--internal-host", "127.0.0.1",
                   "--port", str(self.port)]  # fmt: skip
        log = self.folder / "label-studio.log"
        self._process = Process(command, self._env(), log, self.folder)
        self._process.wait_for(self.url + "/health", START_SECONDS)
        kept = self.folder / "personal-token"
        if not kept.exists():
            kept.write_text(self._make_token())
        self.token = kept.read_text()
        if self._template is not None and not self._template.exists():
            self._save(self._template)

    def _save(self, template: Path) -> None:
        part = template.with_name(f"{template.name}.{os.getpid()}")
        part.mkdir(parents=True)
        name = "label_studio.sqlite3"
        source, copy = sqlite3.connect(self.folder / name), sqlite3.connect(part / name)
        with copy:
            source.backup(copy)
        source.close()
        copy.close()
        for extra in (".env", "personal-token"):
            if (self.folder / extra).exists():
                shutil.copy2(self.folder / extra, part / extra)
        try:
            part.rename(template)
        except OSError:  # another run was quicker
            shutil.rmtree(part, ignore_errors=True)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_token(self) -> str:
        """Log in as a person and create a personal access token, as the account page does."""
        with requests.Session() as s:
            s.trust_env = False
            page = s.get(self.url + "/user/login/", timeout=60)
            hidden = re.search(r'csrfmiddlewaretoken" value="([^"]+)', page.text)
            csrf = s.cookies.get("csrftoken") or (hidden.group(1) if hidden else "")
            s.post(self.url + "/user/login/", timeout=60, allow_redirects=False,
                   headers={"Referer": self.url + "/user/login/"},
                   data={"email": USER, "password": PASSWORD,
                         "csrfmiddlewaretoken": csrf})  # fmt: skip
            made = s.post(self.url + "/api/token/", timeout=60, json={},
                          headers={"X-CSRFToken": s.cookies.get("csrftoken", ""),
                                   "Referer": self.url + "/"})  # fmt: skip
            made.raise_for_status()
            return str(made.json()["token"])

    # -- API --------------------------------------------------------------------------------

    def api(
        self, method: str, path: str, *, check: bool = True, **kwargs: Any
    ) -> requests.Response:
        if time.monotonic() - self._access_at > 200:
            answer = self.http.post(
                self.url + "/api/token/refresh/", json={"refresh": self.token}, timeout=60
            )
            answer.raise_for_status()
            self.http.headers["Authorization"] = "Bearer " + answer.json()["access"]
            self._access_at = time.monotonic()
        answer = self.http.request(method, self.url + path, timeout=300, **kwargs)
        assert answer.ok or not check, f"{method} {path}: {answer.status_code} {answer.text[:800]}"
        return answer

    def project(self, title: str, config: str) -> int:
        made = self.api("POST", "/api/projects", json={"title": title, "label_config": config})
        return int(made.json()["id"])

    def upload(self, project: int, file: Path) -> int:
        """The id of the task that the file became."""
        before = {t["id"] for t in self.tasks(project)}
        with file.open("rb") as content:
            self.api(
                "POST", f"/api/projects/{project}/import", files={"file": (file.name, content)}
            )
        (new,) = [t["id"] for t in self.tasks(project) if t["id"] not in before]
        return int(new)

    def tasks(self, project: int) -> list[dict[str, Any]]:
        query = {"project": project, "page_size": 100, "fields": "all"}
        return list(self.api("GET", "/api/tasks", params=query).json()["tasks"])

    def connect(self, project: int, url: str, **extra: Any) -> int:
        body = {"project": project, "url": url, "title": "edgetam", "is_interactive": True, **extra}
        return int(self.api("POST", "/api/ml", json=body).json()["id"])

    def interactive(
        self, ml: int, task: int, regions: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The call that the editor makes after a smart tool was used: the regions it gets."""
        body = {"task": task, "context": {"result": regions}}
        answer = self.api("POST", f"/api/ml/{ml}/interactive-annotating", json=body).json()
        assert not answer.get("errors"), answer
        return list(answer["data"]["result"])


class Server:
    """`edgetam-label serve` as a person starts it."""

    def __init__(self, folder: Path, studio: LabelStudio, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("EDGETAM_LABEL_")},
            "EDGETAM_LABEL_DB": str(folder / "sessions.db"),
            "EDGETAM_LABEL_CACHE_DIR": str(folder / "cache"),
            "EDGETAM_LABEL_LABEL_STUDIO_URL": studio.url,
            "EDGETAM_LABEL_LABEL_STUDIO_API_KEY": studio.token,
            "EDGETAM_LABEL_PORT": str(self.port),
            **{f"EDGETAM_LABEL_{k.upper()}": str(v) for k, v in settings.items()},
        }
        self._process: Process | None = None

    def start(self) -> Server:
        log = self.folder / f"serve-{secrets.token_hex(3)}.log"
        command = [sys.executable, "-m", "edgetam_label", "serve"]
        self._process = Process(command, self._env, log, self.folder)
        self._process.wait_for(self.url + "/health", 120)
        until = time.monotonic() + 180
        while self.health()["model"] == "loading":
            assert time.monotonic() < until, self._process.tail()
            time.sleep(0.3)
        assert self.health()["model"] == "ready", self._process.tail()
        return self

    def health(self) -> dict[str, Any]:
        return dict(requests.get(self.url + "/health", timeout=10).json())

    def jobs(self) -> list[dict[str, Any]]:
        return list(requests.get(self.url + "/jobs", timeout=10).json()["jobs"])

    def settle(self, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while any(j["state"] in ("queued", "running") for j in self.jobs()):
            assert time.monotonic() < until, self.jobs()
            time.sleep(0.3)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.stop(how)
            self._process = None

    def log(self) -> str:
        return "\n".join(p.read_text(errors="replace") for p in self.folder.glob("serve-*.log"))
