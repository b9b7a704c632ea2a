"""Whether exported files track as the network does: one short video through both, compared."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from edgetam_label.demo_clip import DemoClip, render_demo_clip
from edgetam_label.errors import ExportError
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE, Mask, mask_to_box
from edgetam_label.modeling import EdgeTAM
from edgetam_label.onnx_track import OnnxPipeline, OnnxTracker, Tracked
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackedFrame, TrackerSettings, VideoTracker

NUM_FRAMES = 6
CORRECTED_FRAME = 3
# Of a frame's pixels. Memories are rounded to 8 bits of mantissa, so that two exact kernels may
# differ by one such step; it moves a mask's edge by less than this.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxCheck:
    """Largest absolute differences, and how the masks compare.

    masks: how many were compared. visible: on how many of them the object is visible.
    worst_share: the largest share of a frame's pixels that differ.
    """

    masks: int
    visible: int
    low_res_logits: float
    object_score: float
    pointer: float
    memory: float
    pixels: int
    pixels_differing: int
    worst_share: float

    @property
    def passed(self) -> bool:
        return self.worst_share <= TOLERANCE and not np.isnan(self.low_res_logits)

    def require(self) -> None:
        """Raise ExportError unless the masks are equal within the tolerance."""
        if not self.passed:
            raise ExportError(
                f"The exported files do not track as the network does: on one frame "
                f"{self.worst_share:.2%} of the pixels differ ({TOLERANCE:.1%} is allowed), logits "
                f"by up to {self.low_res_logits:.3g}. Nothing was written; --no-check writes the "
                "files all the same."
            )


def check_onnx(model: EdgeTAM, folder: Path, *, width: int = 640, height: int = 360) -> OnnxCheck:
    """Track a rendered clip with `model` and with the files in `folder`.

    A click, a box and a drawn mask on frame 0, five more frames, a correcting click on frame 3 and
    the frames after it again.
    """
    with tempfile.TemporaryDirectory(prefix="edgetam-label-") as temp:
        clip = render_demo_clip(
            Path(temp) / "clip.mp4", width=width, height=height, num_frames=NUM_FRAMES
        )
        with Frames.open(clip.path) as frames:
            pair = _Pair(model, folder, frames)
            for prompt in _prompts(clip):
                pair.prompt(prompt)
            pair.propagate(0)
            dog = clip.objects[0]
            x, y = _centre(clip.mask(dog.id, CORRECTED_FRAME))
            pair.prompt(Prompt(1, CORRECTED_FRAME, clicks=(Click(x, y),)))
            pair.propagate(CORRECTED_FRAME)
            return pair.result()


def _prompts(clip: DemoClip) -> tuple[Prompt, ...]:
    dog, ball = clip.objects
    box = mask_to_box(clip.mask(ball.id, 0))
    assert box is not None
    return (
        Prompt(1, clicks=(Click(*dog.click),)),
        Prompt(2, box=Box(*box)),
        Prompt(3, mask=RLE.encode(clip.mask(dog.id, 0))),
    )


def _centre(mask: Mask) -> tuple[float, float]:
    box = mask_to_box(mask)
    assert box is not None
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


class _Pair:
    """Two trackers that are given the same, and what was found to differ."""

    def __init__(self, model: EdgeTAM, folder: Path, frames: Frames) -> None:
        self.frames = frames
        self.torch = VideoTracker(
            model,
            frames,
            TrackerSettings(
                flow_prompt=False,
                refine_edges=False,
                clicked_parts=False,
                honour_clicks=False,
                close_ups=False,
                close_tracks=False,
                fuse_flow=False,
                target_model=False,
                non_overlap=False,
            ),
        )
        self.onnx = OnnxTracker(OnnxPipeline(folder))
        self._found: list[OnnxCheck] = []

    def prompt(self, prompt: Prompt) -> None:
        reference = self.torch.add_prompt(prompt)
        assert reference is not None
        box = prompt.box
        ours = self.onnx.prompt(
            prompt.frame_idx,
            self.frames[prompt.frame_idx],
            prompt.obj_id,
            clicks=tuple((c.x, c.y, c.positive) for c in prompt.clicks),
            box=None if box is None else (box.x0, box.y0, box.x1, box.y1),
            mask=None if prompt.mask is None else prompt.mask.decode(),
        )
        self._compare(reference, ours)

    def propagate(self, start: int) -> None:
        answers: dict[int, dict[int, Tracked]] = {}
        for reference in self.torch.propagate(start, objects=self.torch.objects):
            frame_idx = reference.frame_idx
            if frame_idx not in answers:
                answers[frame_idx] = self.onnx.track(frame_idx, self.frames[frame_idx])
            self._compare(reference, answers[frame_idx][reference.obj_id])

    def _compare(self, reference: TrackedFrame, ours: Tracked) -> None:
        obj = self.onnx.objects[reference.obj_id]
        memory = self.torch.memory(reference.obj_id, reference.frame_idx)
        kept = obj.conditioning.get(reference.frame_idx) or obj.passing[reference.frame_idx]
        assert memory is not None
        differing = int((ours.mask != reference.mask).sum())
        self._found.append(
            OnnxCheck(
                masks=1,
                visible=int(not reference.absent),
                low_res_logits=_difference(
                    ours.low_res_logits, reference.low_res_logits.cpu().numpy()
                ),
                object_score=abs(ours.score - reference.score),
                pointer=_difference(kept.pointer, memory.pointer.cpu().numpy()),
                memory=_difference(kept.tokens, memory.tokens.float().cpu().numpy()),
                pixels=ours.mask.size,
                pixels_differing=differing,
                worst_share=differing / ours.mask.size,
            )
        )

    def result(self) -> OnnxCheck:
        counts = ("masks", "visible", "pixels", "pixels_differing")
        return OnnxCheck(
            **{
                f.name: (sum if f.name in counts else max)(getattr(c, f.name) for c in self._found)
                for f in fields(OnnxCheck)
            }
        )


def _difference(ours: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(ours - reference).max())
