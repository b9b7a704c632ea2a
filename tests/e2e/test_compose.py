"""The settings of docker/compose.yaml on real processes: no engine is needed to see them work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from backend_bodies import click
from real_studio import LabelStudio, Server, program
from rendered_scenes import write_image

from edgetam_label.backend.settings import ServerSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-+])((?:[^{}]|\$\{[^}]*\})*))?\}")


def interpolated(text: str, env: dict[str, str]) -> str:
    """${A}, ${A:-default} and ${A:+instead}, nested ones too, as Compose fills them in."""

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        given = env.get(name, "")
        if kind == "+":
            return interpolated(rest, env) if given else ""
        return given or interpolated(rest or "", env)

    return VARIABLE.sub(fill, text)


def environments(env: dict[str, str]) -> dict[str, dict[str, str]]:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return {
        name: {k: interpolated(str(v), env) for k, v in one["environment"].items()}
        for name, one in services.items()
    }


def dot_env(folder: Path) -> dict[str, str]:
    """What docker/env.sh writes; a second run leaves it alone."""
    script = folder / "env.sh"
    shutil.copy(DOCKER / "env.sh", script)
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, capture_output=True, timeout=30)
    file = folder / ".env"
    assert file.stat().st_mode & 0o077 == 0
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class Composed(LabelStudio):
    """Label Studio with the environment of the compose file, from an empty folder."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__()
        self._composed = env

    def _env(self) -> dict[str, str]:
        ours = {k: v for k, v in super()._env().items() if k not in ("ML_BLOCK_LOCAL_IP",
                "SSRF_PROTECTION_ENABLED")}  # fmt: skip
        return {**ours, **self._composed, "LABEL_STUDIO_HOST": self.url}

    def _make_token(self) -> str:
        return self._composed["LABEL_STUDIO_USER_TOKEN"]

    def api(self, method: str, path: str, *, check: bool = True, **kwargs: Any) -> Any:
        self.http.headers["Authorization"] = f"Token {self.token}"
        self._access_at = float("inf")
        return super().api(method, path, check=check, **kwargs)


def test_label_studio_and_the_backend_can_talk_from_the_first_start(
    tmp_path: Path, weights: dict[str, str]
) -> None:
    if program() is None:
        pytest.skip("no Label Studio here; install it and set LABEL_STUDIO_VENV")
    told = environments(dot_env(tmp_path))
    backend = {k.removeprefix("EDGETAM_LABEL_").lower(): v for k, v in told["backend"].items()}
    assert backend.pop("label_studio_url") == "http://label-studio:8080"
    assert set(backend) <= set(ServerSettings.model_fields)
    with Composed(told["label-studio"]) as studio:
        server = Server(tmp_path, studio, **{**backend, **weights}).start()
        try:
            config = (DOCKER.parent / "configs/label_studio/image_brush.xml").read_text()
            project = studio.project("composed", config)
            task = studio.upload(project, write_image(tmp_path / "scene.png"))
            ml = studio.connect(project, server.url)
            hooks = studio.api("GET", "/api/webhooks/", params={"project": project}).json()
            assert [h["url"] for h in hooks] == [server.url + "/webhook"]
            asked = click(19, 34, "Object", to_name="image", id="k")
            assert studio.interactive(ml, task, [asked])
        finally:
            server.stop()


def test_without_a_dot_env_people_sign_up_and_no_token_is_invented() -> None:
    told = environments({})
    assert told["label-studio"]["LABEL_STUDIO_USERNAME"] == ""
    assert told["label-studio"]["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "false"
    assert told["backend"]["EDGETAM_LABEL_LABEL_STUDIO_API_KEY"] == ""
    given = environments({"LABEL_STUDIO_TOKEN": "pat", "LABEL_STUDIO_USER_TOKEN": "old"})
    assert given["backend"]["EDGETAM_LABEL_LABEL_STUDIO_API_KEY"] == "pat"
