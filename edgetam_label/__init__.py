"""edgetam-label: label video with clicks. The names below are the public API, imported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module; lazy, so that `edgetam-label --help` and error handling never wait for torch
_PUBLIC = {
    "Box": "prompts",
    "Click": "prompts",
    "EdgeTAMLabelError": "errors",
    "FrameMask": "sessions",
    "Frames": "frames",
    "ImagePredictor": "predictor",
    "LabelObject": "sessions",
    "LabelSession": "sessions",
    "Labeler": "labeler",
    "MaskPrediction": "predictor",
    "Masklet": "sessions",
    "ModelConfig": "config",
    "Prompt": "prompts",
    "RLE": "masks",
    "SessionStore": "sessions",
    "TrackedFrame": "tracker",
    "TrackerSettings": "tracker",
    "VideoTracker": "tracker",
    "load_model": "checkpoints",
}

__all__ = [
    "RLE",
    "Box",
    "Click",
    "EdgeTAMLabelError",
    "FrameMask",
    "Frames",
    "ImagePredictor",
    "LabelObject",
    "LabelSession",
    "Labeler",
    "MaskPrediction",
    "Masklet",
    "ModelConfig",
    "Prompt",
    "SessionStore",
    "TrackedFrame",
    "TrackerSettings",
    "VideoTracker",
    "load_model",
]

if TYPE_CHECKING:
    from edgetam_label.checkpoints import load_model
    from edgetam_label.config import ModelConfig
    from edgetam_label.errors import EdgeTAMLabelError
    from edgetam_label.frames import Frames
    from edgetam_label.labeler import Labeler
    from edgetam_label.masks import RLE
    from edgetam_label.predictor import ImagePredictor, MaskPrediction
    from edgetam_label.prompts import Box, Click, Prompt
    from edgetam_label.sessions import (
        FrameMask,
        LabelObject,
        LabelSession,
        Masklet,
        SessionStore,
    )
    from edgetam_label.tracker import TrackedFrame, TrackerSettings, VideoTracker


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"edgetam_label.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
