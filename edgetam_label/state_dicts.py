"""Weights on disk -> a state dict with the official names -> a model, strictly.

Read are: the official file (`{"model": state_dict}`), a bare state dict, this tool's own
checkpoints (the official form plus the config they were trained with), and safetensors in the
official or the Hugging Face layout. Pickled code is never run (`weights_only=True`).
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgetam_label.config import ModelConfig
from edgetam_label.errors import CheckpointError, ConfigError
from edgetam_label.hf_layout import is_hugging_face, to_official

# Keys of modules that begin as if they were not there, which older checkpoints may lack:
TAUGHT_LATER = ("mask_rater.", "mask_fuser.")
SHOWN_KEYS = 3  # of each kind of mismatch; the counts say the rest


@dataclass(frozen=True)
class WeightsFile:
    """What a checkpoint file holds.

    state: tensors by official key name, as stored (half precision stays half).
    config: the model config kept in the file (its name or its keys), None if there is none.
    """

    path: Path
    state: Mapping[str, Tensor]
    config: str | Mapping[str, Any] | None


def read_weights(path: Path) -> WeightsFile:
    """Read a checkpoint file. Raises CheckpointError: absent, not a checkpoint, damaged."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"Checkpoint {path} {what}; give a .pt or .safetensors file.")
    content = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    config = content.get("config") if isinstance(content, Mapping) else None
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not _all_tensors(state):
        raise CheckpointError(
            f'Checkpoint {path} holds no state dict; expected {{"model": state_dict}} as in the '
            "official edgetam.pt, or a safetensors file."
        )
    if is_hugging_face(state):
        state = to_official(state)
    return WeightsFile(path, state, config if isinstance(config, (str, Mapping)) else None)


def load_weights(model: nn.Module, weights: WeightsFile) -> None:
    """Put the weights into `model`: every key must be there, none more, each of the right shape.

    Half-precision weights are cast to the model's own type. Only a mask rater and a mask fuser may
    be missing as a whole: checkpoints made before there were any answer as they did. Raises
    CheckpointError naming what is missing, unexpected or misshapen.
    """
    expected, state = model.state_dict(), dict(weights.state)
    for part in TAUGHT_LATER:
        if not any(key.startswith(part) for key in state):
            state |= {key: value for key, value in expected.items() if key.startswith(part)}
    problems = mismatches(expected, state)
    if problems:
        raise CheckpointError(
            f"Checkpoint {weights.path} does not fit the model: {'; '.join(problems)}. "
            "Choose the config it was made for with --model, or another checkpoint."
        )
    cast = {key: value.to(expected[key].dtype) for key, value in state.items()}
    model.load_state_dict(cast, strict=True)


def save_weights(path: Path, model: nn.Module, config: ModelConfig, *, half: bool = False) -> None:
    """Write a checkpoint that `read_weights` and `load_model(path)` read, config included.

    half: store floating-point tensors as float16. The file appears whole or not at all.
    """
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        torch.save({"model": state, "config": asdict(config)}, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def config_from_values(values: Mapping[str, Any]) -> ModelConfig:
    """The config kept in a checkpoint. Raises ConfigError naming what is missing or unknown.

    Keys with a default may be missing: checkpoints outlive the releases that add such keys.
    """
    names = {f.name for f in fields(ModelConfig)}
    missing, unknown = ModelConfig.required_keys() - values.keys(), values.keys() - names
    for wrong, keys in (("lacks the", missing), ("has an unknown", unknown)):
        if keys:
            raise ConfigError(
                f"The model config kept in the checkpoint {wrong} key {sorted(keys)[0]!r}; "
                "name a config with --model."
            )
    frozen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelConfig(**frozen)


def mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Sentences on how `state` differs from `expected` in keys and shapes; empty if it fits."""
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {tuple(state[key].shape)} in place of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    return [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys]


def _first(keys: Sequence[str]) -> str:
    more = f", and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more


def _all_tensors(state: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def _is_safetensors(path: Path) -> bool:
    """By content: a length in 8 bytes, then JSON. The name may say anything."""
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:9] == b"{")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise CheckpointError(f"Checkpoint {path} is no valid safetensors file: {error}.") from None


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(2)
    if head != b"PK" and head[:1] != b"\x80":  # a zip archive, or the pickle of torch before 1.6
        raise CheckpointError(
            f"Checkpoint {path} ({path.stat().st_size:,} bytes) is no PyTorch file; "
            "if it came from a download, fetch it again."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch on the pickle protocol: of no use to a person
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes torch's reader raises whatever it stumbles over
        unsafe = isinstance(error, pickle.UnpicklingError) and head == b"PK"
        why = (
            "it holds objects other than plain tensors, which could run code and are refused"
            if unsafe
            else "it is damaged or incomplete; fetch it again"
        )
        size = f"{path.stat().st_size:,} bytes"
        raise CheckpointError(f"Checkpoint {path} ({size}) cannot be read: {why}.") from None
