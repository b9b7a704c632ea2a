"""Is this installation able to work? One check per thing that can be missing, each with its fix."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetam_label.errors import EdgeTAMLabelError
from edgetam_label.settings import Settings

MIN_PYTHON = (3, 11)
MIN_TORCH = (2, 5)
LOW_DISK_BYTES = 1 << 30
PROBE_FRAMES = 3


@dataclass(frozen=True)
class Check:
    """One line of the report. fix: what to do, "" when ok."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class _Failed(Exception):
    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail, self.fix = detail, fix


def run_checks(settings: Settings) -> Iterator[Check]:
    """All checks in the order in which they depend on each other; none raises."""
    checks: tuple[tuple[str, Callable[[Settings], str]], ...] = (
        ("Python", _python),
        ("torch", _torch),
        ("device", _device),
        ("checkpoint", _checkpoint),
        ("PyAV/ffmpeg", _video),
        ("database", _database),
        ("disk", _disk),
    )
    for name, check in checks:
        try:
            yield Check(name, True, check(settings))
        except _Failed as failure:
            yield Check(name, False, failure.detail, failure.fix)
        except EdgeTAMLabelError as error:
            yield Check(
                name, False, str(error), "Do what the sentence says, then run doctor again."
            )
        except Exception as error:  # a broken library may raise anything; the report goes on
            detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield Check(name, False, detail, "Install the package again: pip install -e .")


def _python(_: Settings) -> str:
    if sys.version_info < MIN_PYTHON:
        raise _Failed(
            f"Python {platform.python_version()}",
            f"Use Python {'.'.join(map(str, MIN_PYTHON))} or newer.",
        )
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch(_: Settings) -> str:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        raise _Failed("not installed", "pip install torch") from None
    import torch

    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if numbers < MIN_TORCH:
        raise _Failed(version, f"pip install 'torch>={'.'.join(map(str, MIN_TORCH))}'")
    product = torch.ones(2, 3) @ torch.ones(3, 2)
    if product.tolist() != [[3.0, 3.0], [3.0, 3.0]]:
        raise _Failed(
            f"{version} multiplies matrices wrongly",
            "pip install --force-reinstall torch",
        )
    return f"{version}, {torch.get_num_threads()} threads"


def _device(settings: Settings) -> str:
    import torch

    from edgetam_label.checkpoints import resolve_device

    device = resolve_device(settings.device)
    asked = f"{settings.device} -> {device.type}" if settings.device == "auto" else device.type
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{asked}, {name}, {free >> 20} of {total >> 20} MiB free"
    return asked


def _checkpoint(settings: Settings) -> str:
    from edgetam_label.checkpoints import choose_model

    notices: list[str] = []
    choice = choose_model(
        settings.model, settings.checkpoint, settings.checkpoint_dir, notices.append
    )
    if choice.checkpoint is None:
        return f"{choice.config}: {notices[-1]}"
    from edgetam_label.checkpoints import build_model

    model = build_model(choice)  # loads strictly: a file of another model fails here
    note = f" ({notices[-1]})" if notices else ""
    return f"{model.config.name} from {choice.checkpoint}{note}"


def _video(_: Settings) -> str:
    try:
        import av
    except ImportError as error:
        raise _Failed(
            f"PyAV cannot be imported: {error}", "pip install --force-reinstall av"
        ) from None
    import numpy as np

    codec = next((c for c in ("libx264", "h264", "mpeg4") if c in av.codecs_available), None)
    if codec is None:
        raise _Failed(
            "this build of PyAV has no H.264 or MPEG-4 encoder",
            "pip install --force-reinstall --only-binary av av",
        )
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (40, 120, 200):
            image = np.full((48, 64, 3), value, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = len(list(container.decode(video=0)))
    if decoded != PROBE_FRAMES:
        raise _Failed(
            f"{PROBE_FRAMES} frames were written, {decoded} came back",
            "pip install --force-reinstall av",
        )
    ffmpeg = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"PyAV {av.__version__}, libavcodec {ffmpeg}, writes and reads {codec}"


def _database(settings: Settings) -> str:
    from edgetam_label.sessions import SessionStore

    with SessionStore(settings.db, busy_timeout=3.0) as store:
        count = len(store.summaries())
        return f"{store.url}, {count} sessions"


def _disk(settings: Settings) -> str:
    folder = settings.cache_dir
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise _Failed(
            f"{folder} cannot be written to",
            "Set EDGETAM_LABEL_CACHE_DIR to a folder of yours.",
        )
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        raise _Failed(
            f"only {free >> 20} MiB are free at {folder}",
            "Free some space, or set EDGETAM_LABEL_CACHE_DIR to a larger disk.",
        )
    return f"{free >> 30} GiB free at {_short(folder)}"


def _short(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)
