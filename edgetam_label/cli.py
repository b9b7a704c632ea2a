"""The command line: one table of commands, loaded only when one is called.

This is the composition root: the only module of the core that names `backend` and `exporters`.
It imports neither torch nor cv2 nor av, so that `edgetam-label --help` answers at once.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from edgetam_label.errors import EdgeTAMLabelError, UsageError
from edgetam_label.openmp import share_cores

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives and the line that `--help` shows for it."""

    target: str  # "module:attribute"
    summary: str


COMMANDS: dict[str, LazyCommand] = {
    "segment": LazyCommand(
        "edgetam_label.commands.segment:segment", "Cut an object out of one image."
    ),
    "track": LazyCommand(
        "edgetam_label.commands.track:track", "Track objects through a video into a session."
    ),
    "sessions": LazyCommand(
        "edgetam_label.commands.sessions:sessions", "List, show and delete stored sessions."
    ),
    "render": LazyCommand(
        "edgetam_label.commands.render:render", "Write a session as a video with its masks drawn."
    ),
    "export": LazyCommand(
        "edgetam_label.exporters.commands:export", "Write sessions as a dataset (COCO, ...)."
    ),
    "import": LazyCommand(
        "edgetam_label.exporters.commands:import_", "Read a dataset as sessions to correct."
    ),
    "dataset": LazyCommand(
        "edgetam_label.exporters.dataset_commands:dataset",
        "Check, compare, measure and preview datasets.",
    ),
    "review": LazyCommand(
        "edgetam_label.exporters.dataset_commands:review", "Frames most likely wrong, worst first."
    ),
    "serve": LazyCommand(
        "edgetam_label.backend.commands:serve", "Run the Label Studio ML backend."
    ),
    "train": LazyCommand("edgetam_label.training.commands:train", "Train a model from scratch."),
    "cutouts": LazyCommand(
        "edgetam_label.training.figures.commands:cutouts",
        "Draw cut-outs of 3-D figures, to train with.",
    ),
    "train-rater": LazyCommand(
        "edgetam_label.training.commands:train_rater",
        "Teach a model which of its candidate masks is best.",
    ),
    "train-fuser": LazyCommand(
        "edgetam_label.training.commands:train_fuser",
        "Teach a model to fuse masks with the flow.",
    ),
    "finetune": LazyCommand(
        "edgetam_label.training.commands:finetune", "Continue training on your own masklets."
    ),
    "evaluate": LazyCommand(
        "edgetam_label.evaluation.commands:evaluate", "Measure J&F and click IoU on a dataset."
    ),
    "checkpoints": LazyCommand(
        "edgetam_label.commands.checkpoints:checkpoints", "List, download and verify weights."
    ),
    "onnx": LazyCommand(
        "edgetam_label.commands.onnx:onnx", "Write the whole pipeline as ONNX files."
    ),
    "doctor": LazyCommand(
        "edgetam_label.commands.doctor:doctor", "Check this installation; name the exact fixes."
    ),
    "demo": LazyCommand(
        "edgetam_label.commands.demo:demo", "Render a clip, track two objects, export, measure."
    ),
}


class LazyGroup(click.Group):
    """Imports a command when it is called, and turns every error into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see `edgetam-label --help`."
            raise click.UsageError(f"No such command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(*args, standalone_mode=False, **extra)
        try:
            result = run(*args, standalone_mode=False, **extra)
        except BaseException as error:  # the last frame before a person: no traceback may pass
            sys.exit(report(error))
        sys.exit(result if isinstance(result, int) else 0)


def report(error: BaseException) -> int:
    """Print `error` as one sentence on standard error; return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILURE
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        _say("Interrupted.")
        return EXIT_INTERRUPTED
    if isinstance(error, click.UsageError):
        _say(f"Error: {error.format_message()}{_help_hint(error)}")
        return EXIT_USAGE
    if isinstance(error, click.ClickException):
        _say(f"Error: {error.format_message()}")
        return error.exit_code
    if isinstance(error, EdgeTAMLabelError):
        _say(f"Error: {error}")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    if isinstance(error, BrokenPipeError):
        # The reader (`| head`) has left; point stdout elsewhere so that the final flush is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    if os.environ.get("EDGETAM_LABEL_DEBUG"):
        traceback.print_exception(error)
        return EXIT_FAILURE
    _say(f"Error: {_describe(error)}")
    return EXIT_FAILURE


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full{_at(error)}; free some space and run the command again."
    if isinstance(error, PermissionError):
        return f"Permission denied{_at(error)}; choose a place that you may write to."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{_at(error)}."
    if isinstance(error, MemoryError):
        return "Out of memory; close other programs or use a smaller --model."
    text = " ".join(str(error).split()) or "no message"
    return (
        f"Unexpected {type(error).__name__}: {text[:500]} "
        "(a bug; run again with EDGETAM_LABEL_DEBUG=1 for the details to report)."
    )


def _at(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


def _help_hint(error: click.UsageError) -> str:
    if error.ctx is None or error.ctx.parent is None:
        return ""
    return f" See `{error.ctx.command_path} --help`."


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgetam-label", prog_name="edgetam-label")
def cli() -> None:
    """Label video with clicks: EdgeTAM segments and tracks, sessions store, datasets come out.

    \b
    Example:
      edgetam-label track dog.mp4 --object 1:dog --click 1,0,320,180
      edgetam-label export --format coco --all dataset/
    """


def main() -> None:
    """Entry point of the `edgetam-label` program."""
    share_cores()
    cli(prog_name="edgetam-label")
