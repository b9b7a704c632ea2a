"""From what a person asks for (a name, a file, nothing) to a model ready for inference."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetam_label.errors import CheckpointError, ConfigError
from edgetam_label.known_checkpoints import (
    CHECKPOINTS,
    checkpoint_path,
    checkpoint_status,
    download_checkpoint,
    file_sha256,
    how_to_get,
    known_checkpoint,
)
from edgetam_label.processor import has_bfloat16

if TYPE_CHECKING:
    import torch

    from edgetam_label.config import ModelConfig
    from edgetam_label.modeling.edgetam import EdgeTAM

__all__ = ["CHECKPOINTS", "ModelChoice", "choose_model", "download_checkpoint", "load_model"]

logger = logging.getLogger(__name__)

AUTO, RANDOM = "auto", "random"
RANDOM_SEED = 0


def resolve_device(device: str = AUTO) -> torch.device:
    """`auto` -> CUDA, else MPS, else CPU. Raises ConfigError if the one asked for is not there."""
    import torch

    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == AUTO:
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    kind = device.partition(":")[0]
    if kind not in has:
        raise ConfigError(f"Device {device!r} is unknown; use auto, cpu, cuda or mps.")
    if not has[kind]:
        raise ConfigError(
            f"Device {device!r} is not available to torch {torch.__version__} on this machine; "
            "use --device cpu, or install a build of torch for your device."
        )
    return torch.device(device)


@dataclass(frozen=True)
class ModelChoice:
    """Which config and which weights to load.

    config: None: take the one kept in the checkpoint, else the official one.
    checkpoint: a file, or None for seeded random weights.
    """

    config: str | None
    checkpoint: Path | None


def choose_model(
    name_or_path: str | Path = AUTO,
    checkpoint: str | Path | None = None,
    checkpoint_dir: Path | None = None,
    notify: Callable[[str], None] = logger.warning,
) -> ModelChoice:
    """Turn what a person asked for into a config and a file.

    notify: gets one sentence when something else than the best weights is taken.
    Raises CheckpointError when there are no weights for it, saying how to get them.
    """
    name = str(name_or_path)
    if checkpoint is not None:
        return _choose_weights(name, checkpoint, checkpoint_dir, notify)
    if name == AUTO:
        return _choose_best(checkpoint_dir, notify)
    if name in CHECKPOINTS:
        return ModelChoice(CHECKPOINTS[name].config, _present(name, checkpoint_dir))
    if Path(name).suffix in (".pt", ".pth", ".safetensors"):
        return ModelChoice(None, Path(name))
    if name == "tiny":
        notify("Model tiny is for tests: its weights are random and its masks mean nothing.")
        return ModelChoice(name, None)
    raise CheckpointError(
        f"Model {name!r} has no weights of its own; name some with --checkpoint FILE, or "
        f"--checkpoint {RANDOM} for a trial. Known with weights: {', '.join(CHECKPOINTS)}."
    )


def _choose_weights(
    name: str,
    checkpoint: str | Path,
    checkpoint_dir: Path | None,
    notify: Callable[[str], None],
) -> ModelChoice:
    config = None if name == AUTO else name
    if str(checkpoint) == RANDOM:
        notify(f"Weights are random (seed {RANDOM_SEED}): the masks mean nothing.")
        return ModelChoice(config or "edgetam_nano", None)
    if str(checkpoint) in CHECKPOINTS and not Path(checkpoint).exists():
        entry = known_checkpoint(str(checkpoint))
        return ModelChoice(config or entry.config, _present(entry.name, checkpoint_dir))
    return ModelChoice(config, Path(checkpoint))


def _choose_best(checkpoint_dir: Path | None, notify: Callable[[str], None]) -> ModelChoice:
    if checkpoint_path("edgetam", checkpoint_dir).is_file():
        return ModelChoice("edgetam", _present("edgetam", checkpoint_dir))
    notify(
        "Using the small model edgetam_nano that ships with this package; for better masks run "
        "`edgetam-label checkpoints download edgetam`."
    )
    return ModelChoice("edgetam_nano", _present("edgetam_nano", checkpoint_dir))


def _present(name: str, checkpoint_dir: Path | None) -> Path:
    """Path of a known checkpoint that is on disk and intact. Raises CheckpointError otherwise."""
    status = checkpoint_status(name, checkpoint_dir)
    if status.state == "absent":
        raise CheckpointError(f"The weights of {name} are not on this machine. {status.detail}")
    if status.state == "damaged":
        remedy = how_to_get(known_checkpoint(name), status.path)
        raise CheckpointError(f"{status.detail} Delete it. {remedy}")
    return status.path


def load_model(
    name_or_path: str | Path = AUTO,
    checkpoint: str | Path | None = None,
    device: str = AUTO,
    *,
    checkpoint_dir: Path | None = None,
    image_size: int | None = None,
    precision: str | None = None,
) -> EdgeTAM:
    """A model ready for inference, with `.identity` (name, checkpoint and config hashes).

    name_or_path: `auto`, a config name, a .toml config, or a checkpoint file.
    checkpoint: a file, a known name, or `random` for seeded random weights; None: the model's own.
    device: auto | cpu | cuda | mps.
    checkpoint_dir: where downloaded checkpoints lie; None: the user's cache folder.
    image_size: another input resolution than the one that the weights were trained at: faster,
        and less exact the farther it is from that. The identity's name says so.
    precision: float32 | bfloat16, of the large products. bfloat16 keeps 8 bits of 24, as upstream
        does on GPUs: faster where the processor multiplies it, and other masks at their edges. The
        identity's name says so.

    Raises CheckpointError or ConfigError, each saying what to do.
    """
    where = resolve_device(device)
    choice = choose_model(name_or_path, checkpoint, checkpoint_dir)
    model = build_model(choice, image_size, precision).to(where)
    if model.config.precision == "bfloat16" and where.type == "cpu" and not has_bfloat16():
        logger.warning(
            "This processor has no instructions for bfloat16, so it will be slower than float32, "
            "not faster; leave out --precision bfloat16."
        )
    return model


def build_model(
    choice: ModelChoice, image_size: int | None = None, precision: str | None = None
) -> EdgeTAM:
    """Build and fill the chosen model on the CPU, in eval mode."""
    import torch

    from edgetam_label.modeling.edgetam import EdgeTAM
    from edgetam_label.session_types import ModelIdentity
    from edgetam_label.state_dicts import load_weights, read_weights
    from edgetam_label.track_mode import TrackMode

    weights = read_weights(choice.checkpoint) if choice.checkpoint is not None else None
    config = _config_of(choice, weights.config if weights else None)
    mode = TrackMode()
    if image_size is not None and image_size != config.image_size:
        mode = replace(mode, image_size=image_size)
        config = config.at_size(image_size)
    if precision is not None and precision != config.precision:
        mode = replace(mode, precision=precision)
        config = replace(config, precision=precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = EdgeTAM(config)
    if weights is not None:
        load_weights(model, weights)
    digest = file_sha256(choice.checkpoint) if choice.checkpoint else f"random-{RANDOM_SEED}"
    model.identity = mode.mark(ModelIdentity(config.name, digest, config.sha256))
    return model.eval().requires_grad_(False)


def _config_of(choice: ModelChoice, kept: str | Mapping[str, Any] | None) -> ModelConfig:
    from edgetam_label.config import ModelConfig
    from edgetam_label.state_dicts import config_from_values

    if choice.config is not None:
        return ModelConfig.load(choice.config)
    if kept is None or isinstance(kept, str):
        return ModelConfig.load(kept or "edgetam")
    return config_from_values(kept)
