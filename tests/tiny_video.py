"""A tiny model with seeded weights and small frames: real code, meaningless masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from edgetam_label.config import ModelConfig
from edgetam_label.frames import Frames
from edgetam_label.modeling import EdgeTAM
from edgetam_label.prompts import Prompt
from edgetam_label.tracker import TrackedFrame, VideoTracker

WIDTH, HEIGHT = 96, 64


@cache
def tiny_model(**changes: bool) -> EdgeTAM:
    """Seeded weights, biased so that objects count as present; shared, so do not change it.

    changes: values of its config.
    """
    torch.manual_seed(0)
    model = EdgeTAM(replace(ModelConfig.load("tiny"), **changes)).eval()  # type: ignore[arg-type]
    last = model.sam_mask_decoder.pred_obj_score_head.layers[-1]
    torch.nn.init.constant_(last.bias, 5.0)
    return model


def tiny_images(count: int = 12) -> list[np.ndarray]:
    """Noise with a bright square that moves right, (64, 96, 3) uint8 each."""
    rng = np.random.default_rng(0)
    images = []
    for t in range(count):
        image = rng.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        image[20:44, 8 + 3 * t : 32 + 3 * t] = (220, 180, 40)
        images.append(image)
    return images


def tiny_frames(count: int = 12) -> Frames:
    return Frames.open(tiny_images(count))


def start_anew(tracker: VideoTracker, prompts: Sequence[Prompt], direction: str) -> VideoTracker:
    """Its objects prompted anew, on the one of twelve frames where a pass begins."""
    for prompt in prompts:
        tracker.remove_object(prompt.obj_id)
        tracker.add_prompt(replace(prompt, frame_idx=0 if direction == "forward" else 11))
    return tracker


def in_pieces(tracker: VideoTracker, direction: str) -> list[TrackedFrame]:
    """A pass over twelve frames with all objects, begun anew three times on the way."""
    found: list[TrackedFrame] = []
    for first, length in ((0, 1), (1, 4), (5, 4), (9, 3)):
        begin = first if direction == "forward" else 11 - first
        found += tracker.propagate(
            begin, direction=direction, max_frames=length, objects=tracker.objects
        )
    return found


def same_tracks(ours: list[TrackedFrame], theirs: list[TrackedFrame]) -> bool:
    """Whether two passes, in whatever order of frames, gave the same logits bit for bit."""
    first, second = (
        [t.low_res_logits for t in sorted(tracked, key=lambda t: (t.obj_id, t.frame_idx))]
        for tracked in (ours, theirs)
    )
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
