"""The truth as plain arrays, for scripts that run where edgetam_label is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


class Truth:
    """videos: dicts with name, height, width, length, labels {obj_id: label}.

    masks[name][obj_id][frame]: (H, W) bool, only where the object is.
    """

    def __init__(self, folder: str) -> None:
        root = Path(folder)
        described = json.loads((root / "truth.json").read_text(encoding="utf-8"))
        arrays = np.load(root / "truth.npz")
        self.videos = described["videos"]
        self.masks: dict[str, dict[int, dict[int, np.ndarray]]] = {}
        for entry in described["masks"]:
            by_object = self.masks.setdefault(entry["video"], {})
            by_frame = by_object.setdefault(entry["obj_id"], {})
            by_frame[entry["frame"]] = arrays[entry["key"]]

    def flat(self, video: dict, frame: int, highest_wins: bool = True) -> np.ndarray:
        """Ids per pixel (H, W), where objects overlap the higher id."""
        ids = np.zeros((video["height"], video["width"]), np.uint8)
        for obj_id in sorted(self.masks[video["name"]], reverse=not highest_wins):
            mask = self.masks[video["name"]][obj_id].get(frame)
            if mask is not None:
                ids[mask] = obj_id
        return ids
