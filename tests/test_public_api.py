"""The names that users import; removing one is a breaking change."""

from __future__ import annotations

import edgetam_label

PUBLIC = {
    "Box", "Click", "EdgeTAMLabelError", "FrameMask", "Frames", "ImagePredictor", "LabelObject",
    "LabelSession", "Labeler", "MaskPrediction", "Masklet", "ModelConfig", "Prompt", "RLE",
    "SessionStore", "TrackedFrame", "TrackerSettings", "VideoTracker", "load_model",
}  # fmt: skip


def test_public_names():
    assert set(edgetam_label.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(edgetam_label, name).__name__ == name


def test_star_import_gives_them_all():
    scope: dict[str, object] = {}
    exec("from edgetam_label import *", scope)
    assert PUBLIC <= scope.keys()
