"""Video protocols: `vos` (first masks carried on) and `pvs` (clicks, SAM 2 section 6.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.evaluation.datasets import Masks, TrueVideo
from edgetam_label.evaluation.metrics import (
    Score,
    contour_accuracy,
    region_similarity,
)
from edgetam_label.evaluation.scoring import SequenceScore, score_sequence
from edgetam_label.finding import Fusion
from edgetam_label.mask_files import write_whole
from edgetam_label.masks import RLE, Mask
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.palette import PALETTE
from edgetam_label.prompts import Click, Prompt
from edgetam_label.tracker import TrackedFrame, VideoTracker
from edgetam_label.training.prompt_sampling import POSITIVE, corrective_click, deepest_point

CLICKS_PER_FRAME = 3
PVS_FRAMES = 8
ONLINE_PAUSE_IOU = 0.75  # the online annotator stops where the mask is worse than this

Carry = Callable[[TrueVideo, dict[int, int]], Iterator[tuple[int, Masks]]]


def carry_by_model(model: EdgeTAM, on_fusion: Callable[[Fusion], None] | None = None) -> Carry:
    """The `vos` way of a model: each object's first true mask is its only prompt.

    on_fusion: as of `VideoTracker`.
    """

    def carry(video: TrueVideo, starts: dict[int, int]) -> Iterator[tuple[int, Masks]]:
        with video.frames() as frames:
            tracker = VideoTracker(model, frames, on_fusion=on_fusion)
            try:
                for obj_id, frame_idx in starts.items():
                    mask = RLE.encode(video.masks(frame_idx)[obj_id])
                    tracker.add_prompt(Prompt(obj_id, frame_idx, mask=mask))
                current: list[TrackedFrame] = []
                for tracked in tracker.propagate(start=0):
                    if current and current[0].frame_idx != tracked.frame_idx:
                        yield current[0].frame_idx, without_overlap(current)
                        current = []
                    current.append(tracked)
                if current:
                    yield current[0].frame_idx, without_overlap(current)
            finally:
                tracker.close()

    return carry


def without_overlap(tracked: list[TrackedFrame]) -> Masks:
    """Masks of one frame; a pixel claimed by several objects goes to the highest logit."""
    masks = {t.obj_id: t.mask for t in tracked}
    claims = np.sum([m for m in masks.values()], axis=0)
    if claims.max(initial=0) <= 1:
        return masks
    logits = np.stack([t.logits() for t in tracked])
    logits[~np.stack(list(masks.values()))] = -np.inf
    winner = logits.argmax(axis=0)
    return {t.obj_id: t.mask & (winner == i) for i, t in enumerate(tracked)}


def run_vos(video: TrueVideo, carry: Carry, out: Path | None) -> tuple[SequenceScore, int]:
    """Carry the first masks of all objects through a video; its score and its number of frames.

    out: folder for predictions, out/<video>/<frame>.png, palette PNGs of object ids.
    """
    wanted, kept, count = set(video.annotated), {}, 0
    written: set[int] = set()
    if out is not None:
        with video.frames() as frames:
            shape = (frames.height, frames.width)

    def write(frame_idx: int, masks: Masks) -> None:
        if out is not None and frame_idx not in written:
            name = f"{video.frame_name(frame_idx)}.png"
            write_palette_png(out / video.name / name, masks, shape)
            written.add(frame_idx)

    for frame_idx, masks in carry(video, video.first_seen):
        count += 1
        if frame_idx in wanted:
            kept[frame_idx] = {k: RLE.encode(m) for k, m in masks.items()}
        write(frame_idx, masks)
    for frame_idx in range(len(video.images)):
        write(frame_idx, {})  # before the first object there is nothing to carry
    score = score_sequence(video, lambda i: {k: rle.decode() for k, rle in kept.get(i, {}).items()})
    return score, count


def write_palette_png(path: Path, masks: Masks, shape: tuple[int, int]) -> None:
    """One indexed PNG of object ids, with the palette of DAVIS."""
    ids: NDArray[np.uint8] = np.zeros(shape, np.uint8)
    for obj_id, mask in masks.items():
        ids[mask] = obj_id
    image = Image.fromarray(ids, mode=None).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([channel for color in PALETTE for channel in color])
    write_whole(path, lambda part: image.save(part))


@dataclass
class _Annotator:
    """One object of one video: a tracker, the clicks so far and the masks that they gave."""

    video: TrueVideo
    obj_id: int
    tracker: VideoTracker
    masks: dict[int, Mask]
    clicks: dict[int, tuple[Click, ...]]

    def truth(self, frame_idx: int) -> Mask:
        mask = self.video.masks(frame_idx).get(self.obj_id)
        size = (self.tracker.frames.height, self.tracker.frames.width)
        return np.zeros(size, dtype=bool) if mask is None else mask

    def annotate(self, frame_idx: int) -> None:
        """CLICKS_PER_FRAME clicks on a frame, each where the mask is most wrong."""
        truth = self.truth(frame_idx)
        for _ in range(CLICKS_PER_FRAME):
            found = self.masks.get(frame_idx)
            if found is None:
                x, y = deepest_point(truth)
                click = Click(x, y, True)
            else:
                correction = corrective_click(found, truth)
                if correction is None:
                    return
                click = Click(correction[0], correction[1], correction[2] == POSITIVE)
            clicks = (*self.clicks.get(frame_idx, ()), click)
            self.clicks[frame_idx] = clicks
            answer = self.tracker.add_prompt(Prompt(self.obj_id, frame_idx, clicks=clicks))
            assert answer is not None
            self.masks[frame_idx] = answer.mask

    def iou(self, frame_idx: int) -> float:
        return region_similarity(self.masks[frame_idx], self.truth(frame_idx))

    def score(self) -> Score:
        """Over all annotated frames from the object's first on."""
        frames = [i for i in self.video.annotated if i in self.masks]
        f = [contour_accuracy(self.masks[i], self.truth(i)) for i in frames]
        return Score(float(np.mean([self.iou(i) for i in frames])), float(np.mean(f)), len(frames))


def run_pvs(
    video: TrueVideo, model: EdgeTAM, *, online: bool, num_frames: int = PVS_FRAMES
) -> tuple[SequenceScore, list[list[float]], int]:
    """Simulated annotation of each object on its own.

    Offline: after each pass over the video, the worst frame gets clicks and the pass is repeated.
    Online: one pass, which stops for clicks wherever the mask falls below ONLINE_PAUSE_IOU.
    Returns the score with all clicks, per object J&F after 1..num_frames clicked frames, and the
    number of frames tracked.
    """
    scores: dict[int, Score] = {}
    curves: list[list[float]] = []
    tracked = 0
    for obj_id, start in video.first_seen.items():
        with video.frames() as frames:
            if online:
                runs = [
                    _online(video, model, frames, obj_id, start, budget + 1)
                    for budget in range(num_frames)
                ]
            else:
                runs = _offline(video, model, frames, obj_id, start, num_frames)
        curves.append([score.j_and_f for score, _ in runs])
        tracked += sum(count for _, count in runs)
        scores[obj_id] = runs[-1][0]
    return SequenceScore(video.name, scores), curves, tracked


def _offline(
    video: TrueVideo, model: EdgeTAM, frames: Any, obj_id: int, start: int, rounds: int
) -> list[tuple[Score, int]]:
    annotator = _Annotator(video, obj_id, VideoTracker(model, frames), {}, {})
    try:
        annotator.annotate(start)
        results: list[tuple[Score, int]] = []
        for _ in range(rounds):
            count = 0
            for tracked in annotator.tracker.propagate(start=start, objects=[obj_id]):
                annotator.masks[tracked.frame_idx] = tracked.mask
                count += 1
            results.append((annotator.score(), count))
            open_frames = [
                i for i in video.annotated if i in annotator.masks and i not in annotator.clicks
            ]
            if len(results) < rounds and open_frames:
                annotator.annotate(min(open_frames, key=annotator.iou))
        return results
    finally:
        annotator.tracker.close()


def _online(
    video: TrueVideo, model: EdgeTAM, frames: Any, obj_id: int, start: int, budget: int
) -> tuple[Score, int]:
    annotator = _Annotator(video, obj_id, VideoTracker(model, frames), {}, {})
    annotated, position, count = set(video.annotated), start, 0
    try:
        annotator.annotate(start)
        while position < len(frames):
            for tracked in annotator.tracker.propagate(start=position, objects=[obj_id]):
                position, count = tracked.frame_idx, count + 1
                annotator.masks[position] = tracked.mask
                stop = len(annotator.clicks) < budget and position in annotated
                if stop and position not in annotator.clicks:
                    if annotator.iou(position) < ONLINE_PAUSE_IOU:
                        annotator.annotate(position)
                        break
            position += 1
        return annotator.score(), count
    finally:
        annotator.tracker.close()
