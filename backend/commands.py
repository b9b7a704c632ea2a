"""`edgetam-label serve`: the backend under gunicorn, one process with threads."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgetam_label.errors import ConfigError
from edgetam_label.options import db_option, model_options
from edgetam_label.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from .settings import ServerSettings

F = TypeVar("F", bound=Callable[..., Any])

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


SECRETS = ("label_studio_api_key", "basic_auth_password", "bearer_token")


def server_options(command: F) -> F:
    """A flag for every setting of the server but the secrets: a command line is seen by all."""
    from .settings import ServerSettings

    own = {k: v for k, v in ServerSettings.model_fields.items() if k not in Settings.model_fields}
    for name, field in reversed(own.items()):
        if name in SECRETS:
            continue
        variable = f"[{ENV_PREFIX}{name.upper()}]"
        flag = "--" + name.replace("_", "-")
        text = f"{str(field.description)[:1].upper()}{str(field.description)[1:]}. {variable}"
        if field.annotation is bool:
            command = click.option(flag, is_flag=True, default=None, help=text)(command)
        else:
            command = click.option(flag, metavar=_metavar(field.annotation), help=text)(command)
    return command


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X"}.get(kind, "TEXT")


@click.command()
@server_options
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    help="Folder for downloaded media and weights. [EDGETAM_LABEL_CACHE_DIR]",
)
@model_options
@db_option
def serve(**flags: Any) -> None:
    """Run the Label Studio ML backend.

    The token of Label Studio is read from EDGETAM_LABEL_LABEL_STUDIO_API_KEY, and our own
    credentials from EDGETAM_LABEL_BASIC_AUTH_USER, EDGETAM_LABEL_BASIC_AUTH_PASSWORD or
    EDGETAM_LABEL_BEARER_TOKEN: secrets on a command line are seen by everybody.

    \b
    Example:
      export EDGETAM_LABEL_LABEL_STUDIO_API_KEY=<personal access token>
      edgetam-label serve --label-studio-url http://localhost:8080
    """
    from .auth import check_bind
    from .settings import ServerSettings

    settings = ServerSettings.load(**flags)
    check_bind(settings.host, closed=settings.has_door, insecure=settings.insecure_public)
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    run(settings)


def run(settings: ServerSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; jobs then store what they have and pause."""
    from gunicorn.app.base import BaseApplication

    from .app import create_app

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in _gunicorn(settings).items():
                if name in self.cfg.settings:  # some are younger than the oldest gunicorn we take
                    self.cfg.set(name, value)
            self.cfg.set("worker_exit", _pause)

        def load(self) -> Any:
            # in the worker, after the fork: threads and database handles do not survive one
            self.made = create_app(settings)
            return self.made

    def _pause(_arbiter: Any, worker: Any) -> None:
        app = getattr(worker.app, "made", None)
        if app is not None:
            app.extensions["edgetam"].close()

    check_port(settings.host, settings.port)
    check_parts(settings)
    click.echo(f"Listening on {address(settings.host, settings.port)} (Ctrl-C stops).", err=True)
    Server().run()


def check_parts(settings: ServerSettings) -> None:
    """Raises StoreError or CheckpointError here, as a sentence, not later in a log."""
    from edgetam_label.checkpoints import choose_model
    from edgetam_label.sessions import SessionStore

    SessionStore(settings.db).close()
    choose_model(
        settings.model, settings.checkpoint, settings.checkpoint_dir, notify=lambda _: None
    )


def check_port(host: str, port: int) -> None:
    """Raises ConfigError where we cannot listen, before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{address(host, port)} cannot be listened on ({error.strerror}); it may be in use "
                "by another program, or not an address of this machine: choose --port or --host."
            ) from None


def address(host: str, port: int) -> str:
    """The URL to give to Label Studio."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _gunicorn(settings: ServerSettings) -> dict[str, Any]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        # one process: the model, the caches and the turnstile are shared by its threads
        "workers": 1,
        "worker_class": "gthread",
        "threads": settings.threads,
        # the heartbeat of a thread worker comes from its main thread, not from requests
        "timeout": 120,
        "graceful_timeout": 15,
        "keepalive": 5,
        "limit_request_line": 4094,
        # it would write to the home folder, which a locked-down container does not have
        "control_socket_disable": True,
        "accesslog": None,
        "loglevel": "warning",
        "proc_name": "edgetam-label",
    }
