"""`doctor --label-studio URL`: is Label Studio able to work with this backend, and if not, the fix.

Every check is a real request, made with the same guards and the same token as the server's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from edgetam_label.doctor import Check
from edgetam_label.errors import EdgeTAMLabelError

from .commands import address
from .faults import FetchFailed
from .label_config import LabelConfig
from .ls_client import LabelStudioClient
from .media import MediaCache
from .settings import ServerSettings

MAX_PROJECTS = 20
GUARD_FIX = (
    "Start Label Studio with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false (or with "
    "USE_DEFAULT_BANNED_SUBNETS=false); by default it refuses backends on private addresses."
)
TOKEN_FIX = (
    "In Label Studio open Account & Settings → Personal Access Token, create one, and set "
    "EDGETAM_LABEL_LABEL_STUDIO_API_KEY to it."
)


@dataclass(frozen=True)
class Probe:
    """What to look at. backend_url: as Label Studio has to reach us. project: None: every one.

    connect: also connect and disconnect a backend, which tells what Label Studio's guard allows.
    """

    backend_url: str
    project: int | None = None
    connect: bool = False


def default_backend_url(settings: ServerSettings) -> str:
    return address(settings.host, settings.port)


def run_checks(settings: ServerSettings, probe: Probe) -> Iterator[Check]:
    """Checks in the order in which they depend on each other; none raises."""
    key = settings.label_studio_api_key
    client = LabelStudioClient(
        settings.label_studio_url,
        key.get_secret_value() if key else None,
        allow_private=settings.allow_private_networks,
        timeout=settings.download_timeout,
    )
    try:
        reachable = _reachable(client)
        yield reachable
        yield _backend(probe, settings)
        if not reachable.ok:
            return
        token = _token(client)
        yield token
        if not token.ok:
            return
        projects = _projects(client, probe)
        if isinstance(projects, Check):
            yield projects
            return
        for project in projects:
            yield from _project(client, settings, probe, project)
    finally:
        client.close()


def _reachable(client: LabelStudioClient) -> Check:
    name = "Label Studio"
    try:
        with client.http.send("GET", client.absolute("/api/version"), authorize=False) as answer:
            found = answer.json() if answer.status_code == 200 else None
    except EdgeTAMLabelError as error:
        return Check(
            name,
            False,
            str(error),
            "Start Label Studio, or correct the address: as seen from this machine (in a container "
            "localhost is the container).",
        )
    except ValueError:
        found = None
    if not isinstance(found, dict) or "label-studio-os-package" not in str(found):
        return Check(
            name,
            False,
            f"{client.url} answers, but not as Label Studio does",
            "Give the base URL of Label Studio, such as http://localhost:8080.",
        )
    return Check(name, True, f"{found.get('release', 'unknown version')} at {client.url}")


def _backend(probe: Probe, settings: ServerSettings) -> Check:
    """Our own server, as we would reach it; Label Studio may see the network differently."""
    name, url = "backend", probe.backend_url
    try:
        answer = requests.get(url + "/health", timeout=3)
        found = answer.json()
        state = found["model"] if isinstance(found, dict) else None
    except (requests.RequestException, ValueError, KeyError):
        return Check(
            name,
            False,
            f"no answer at {url}/health",
            "Start it: edgetam-label serve"
            + (f" --port {settings.port}" if settings.port != 9090 else "")
            + "; or name its address with --backend-url.",
        )
    if state == "failed":
        return Check(name, False, str(found.get("error")), "See the log of edgetam-label serve.")
    return Check(name, True, f"{found.get('model_version')} at {url}, model {state}")


def _token(client: LabelStudioClient) -> Check:
    name, kind = "token", client.kind.name
    if kind == "none":
        return Check(name, False, "no token is set", TOKEN_FIX)
    try:
        found = client.call("GET", "/api/current-user/whoami")
    except EdgeTAMLabelError as error:
        fix = TOKEN_FIX
        if kind == "legacy":
            fix += (
                " (Or turn legacy tokens on in Label Studio: Organization → API Tokens Settings.)"
            )
        return Check(name, False, f"{kind} token: {error}", fix)
    person = found.get("email", "?") if isinstance(found, dict) else "?"
    return Check(name, True, f"{kind} token of {person}")


def _projects(client: LabelStudioClient, probe: Probe) -> list[dict[str, Any]] | Check:
    try:
        if probe.project is not None:
            return [client.call("GET", f"/api/projects/{probe.project}/")]
        found = client.call("GET", f"/api/projects/?page_size={MAX_PROJECTS}")
        results = found.get("results", []) if isinstance(found, dict) else found
        projects = [p for p in results if isinstance(p, dict)]
    except EdgeTAMLabelError as error:
        return Check("projects", False, str(error), "Check the project number and the token.")
    if not projects:
        return Check(
            "projects",
            False,
            "there is no project yet",
            "Create one, with a labelling config from configs/label_studio/.",
        )
    return projects


def _project(
    client: LabelStudioClient, settings: ServerSettings, probe: Probe, project: dict[str, Any]
) -> Iterator[Check]:
    number = project.get("id")
    config: LabelConfig | None = None
    name = f"project {number}"
    try:
        config = LabelConfig.parse(str(project.get("label_config") or "<View/>"))
        problems = config.problems
        if problems:
            for problem in problems:
                word = "config" if problem.fatal else "hint"
                yield Check(f"{name} {word}", not problem.fatal, problem.sentence, _fix(problem))
        else:
            yield Check(f"{name} config", True, "every smart tool has an output")
        yield from _connection(client, settings, probe, number)
        if config.fatal is None:
            yield _media(client, settings, config, number)
    except EdgeTAMLabelError as error:
        yield Check(name, False, str(error), "Do what the sentence says, then run doctor again.")


def _fix(problem: Any) -> str:
    return "Settings → Labeling Interface → Code: make that change." if problem.fatal else ""


def _connection(
    client: LabelStudioClient, settings: ServerSettings, probe: Probe, project: Any
) -> Iterator[Check]:
    name = f"project {project} connection"
    found = client.call("GET", f"/api/ml/?project={project}")
    backends = [b for b in found if isinstance(b, dict)] if isinstance(found, list) else []
    ours = [b for b in backends if str(b.get("url", "")).rstrip("/") == probe.backend_url]
    if not ours:
        others = ", ".join(str(b.get("url")) for b in backends) or "none"
        yield Check(
            name,
            False,
            f"{probe.backend_url} is not connected (connected: {others})",
            f"Settings → Model → Connect Model: URL {probe.backend_url}, Interactive "
            "preannotations on.",
        )
        if probe.connect:
            yield _try_to_connect(client, probe, project)
        return
    backend = ours[0]
    if backend.get("state") != "CO":
        message = str(backend.get("error_message") or backend.get("readable_state"))[:300]
        yield Check(name, False, message, GUARD_FIX if _guarded(message) else _NOT_CONNECTED)
    elif not backend.get("is_interactive"):
        yield Check(
            name,
            False,
            "connected, but not interactive: the smart tools stay off",
            "Settings → Model → Edit: turn on Interactive preannotations.",
        )
    else:
        yield Check(name, True, f"connected and interactive ({backend.get('model_version')})")
    yield _webhook(client, settings, probe, project)


_NOT_CONNECTED = (
    "Label Studio itself must reach the address: open it from Label Studio's machine or container "
    "(curl <url>/health), then save the model again under Settings → Model."
)


def _guarded(message: str) -> bool:
    return any(
        word in message.lower() for word in ("reserved network", "ssrf", "block:", "local ip")
    )


def _try_to_connect(client: LabelStudioClient, probe: Probe, project: Any) -> Check:
    """Connect as a person would, and take it back."""
    name = f"project {project} guard"
    body = {"project": project, "url": probe.backend_url, "title": "doctor", "is_interactive": True}
    before = _webhooks(client, project)
    with client.http.send("POST", client.absolute("/api/ml/"), json=body) as answer:
        text = answer.text[:500]
        made = answer.json().get("id") if answer.status_code == 201 else None
    found = client.call("GET", f"/api/ml/?project={project}")
    # a refused connection may leave its row behind, so both kinds are taken back
    for backend in found if isinstance(found, list) else []:
        if backend.get("id") == made or backend.get("title") == "doctor":
            client.call("DELETE", f"/api/ml/{backend['id']}")
    for hook in _webhooks(client, project):
        if hook not in before:
            client.call("DELETE", f"/api/webhooks/{hook['id']}/")
    if made is not None:
        return Check(name, True, "Label Studio can connect to this address")
    if _guarded(text):
        return Check(name, False, f"Label Studio refuses {probe.backend_url}", GUARD_FIX)
    return Check(name, False, f"Label Studio answered {text[:200]}", _NOT_CONNECTED)


def _webhooks(client: LabelStudioClient, project: Any) -> list[dict[str, Any]]:
    found = client.call("GET", f"/api/webhooks/?project={project}")
    return [w for w in found if isinstance(w, dict)] if isinstance(found, list) else []


def _webhook(
    client: LabelStudioClient, settings: ServerSettings, probe: Probe, project: Any
) -> Check:
    name = f"project {project} webhook"
    url = probe.backend_url + "/webhook"
    ours = [w for w in _webhooks(client, project) if str(w.get("url")).rstrip("/") == url]
    if not ours:
        return Check(
            name,
            False,
            "none: final annotations do not reach the session store",
            f"Settings → Webhooks → Add Webhook: {url}, send payload, all actions. If it was "
            f"refused when the model was connected: {GUARD_FIX}",
        )
    if len(ours) > 1:
        return Check(name, False, f"{len(ours)} equal ones", "Delete all but one under Webhooks.")
    headers = {str(k).lower() for k in (ours[0].get("headers") or {})}
    if settings.has_door and "authorization" not in headers:
        return Check(
            name,
            False,
            "it has no Authorization header, so our door refuses it",
            "Settings → Webhooks → Edit: add the header Authorization with your basic or bearer "
            "credentials.",
        )
    return Check(name, True, url)


def _media(
    client: LabelStudioClient, settings: ServerSettings, config: LabelConfig, project: Any
) -> Check:
    """Fetch the media of one task into a throw-away folder."""
    name = f"project {project} media"
    query = f"/api/tasks/?project={project}&page_size=1&fields=all"
    found = client.call("GET", query)
    tasks = found.get("tasks", []) if isinstance(found, dict) else []
    if not tasks:
        return Check(name, True, "no task yet")
    task, tag = tasks[0], config.objects[0]
    try:
        url = tag.media(task.get("data") or {})
        with tempfile.TemporaryDirectory() as folder:
            cache = MediaCache(
                Path(folder),
                client,
                budget_bytes=0,
                max_download_bytes=settings.max_download_bytes,
                retries=1,
            )
            with cache.lease(url, str(task.get("id"))) as file:
                size = file.size_bytes
    except EdgeTAMLabelError as error:
        fix = "Do what the sentence says."
        if not isinstance(error, FetchFailed) and "private" in str(error):
            fix = "Set EDGETAM_LABEL_ALLOW_PRIVATE_NETWORKS=true if that host is yours."
        return Check(name, False, str(error), fix)
    where = urlsplit(url).path.rsplit("/", 1)[-1][:60]
    return Check(name, True, f"task {task.get('id')}: {where}, {size} bytes")
