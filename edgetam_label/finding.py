"""Finding: where one object is on a frame without a prompt, from what is remembered of it.

Memory says what to look for, the flow where it was, its looks what is alike; the decoder answers,
and its answer is fused with the moved mask. Nothing is remembered here: `tracker.py` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.crops import ABSENT_SCORE, Crop, Located
from edgetam_label.edges import refine_edges
from edgetam_label.frame_features import EncodedFrame, Picture
from edgetam_label.fusion import Plane, drawn_edges, drawn_of, filled, fuse_with_flow
from edgetam_label.learned_fusion import LearnedFusion, Sight
from edgetam_label.memory import MemoryBank
from edgetam_label.modeling import EdgeTAM, ImageFeatures
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.target_model import ANSWER_SHARE, Appearance, likeness

# An object that was absent is taken to be there again from this predicted IoU on. Chosen by
# measurement, docs/training.md.
COMES_BACK = 0.6
# And from this one on, where only the prompted frames are remembered: they know of no other pose,
# but neither of what stood before the object. Likewise.
RECOGNISED = 0.65


@dataclass(frozen=True)
class Fusion:
    """What was fused of an object on a frame, on `crop`. share: the moved mask's, by the rule."""

    obj_id: int
    frame_idx: int
    crop: Crop
    sight: Sight
    share: Plane


@dataclass(frozen=True)
class Sought:
    """An object on a frame without a prompt.

    crop, encoded, started: where it is looked for, as the network sees it, and
    `EdgeTAM.start_attention` of that. reverse: the pass goes backward. moved: the mask of the frame
    before, where it is by the flow. trust: (S, S) of the crop, how well the flow explains it. lost:
    it was absent from the frame before, and must be sure to be found again.
    """

    obj_id: int
    bank: MemoryBank
    frame_idx: int
    reverse: bool
    crop: Crop
    encoded: EncodedFrame
    started: Tensor
    moved: Located | None
    trust: NDArray[np.float32] | None
    lost: bool


@dataclass(frozen=True)
class Found:
    """Where it is, its looks so far, and the moved mask, if that said anything."""

    located: Located
    learned: Appearance | None
    moved: Located | None


@dataclass(frozen=True)
class Finder:
    """Finds objects on frames of one video.

    num_frames: of the video. every: only multiples of it are remembered. flow_prompt, fuse_flow,
    learned_fusion, recognises: as of `TrackerSettings`; recognises is its `close_tracks`.
    fill_hole_area: in cells of the logits. on_fusion: told what `learned_fusion` sees.
    """

    model: EdgeTAM
    num_frames: int
    every: int
    flow_prompt: bool
    fuse_flow: bool
    learned_fusion: bool
    recognises: bool
    fill_hole_area: int
    on_fusion: Callable[[Fusion], None] | None = None

    @torch.inference_mode()
    def find(self, sought: Sought) -> Found:
        """Attend to memory, decode, fuse.

        The moved mask, if shown to the decoder, says which mask is meant, so only one is asked for.
        """
        bank, encoded, moved = sought.bank, sought.encoded, sought.moved
        frame_idx, reverse = sought.frame_idx, sought.reverse
        top = self.attend(bank, frame_idx, sought.started, reverse)
        if moved is not None and not bool((moved.mask.low_res_logits > 0).any()):
            moved = None  # it went out of sight, which says nothing of where it is
        known, learned = bank.appearance(frame_idx, reverse=reverse, every=self.every)
        alike = None if moved is None else _likeness(known, encoded)
        decoded = self._decode(top, encoded.features, moved, alike)
        if sought.lost:
            decoded = _if_sure(decoded)
        found, lost = Located(self.model.gate_by_presence(decoded), sought.crop), sought.lost
        if found.absent and self.recognises:
            found, lost = self._recognised(sought, found), True
        if self.fuse_flow and not found.absent:
            found = self._fused(sought, found, None if lost else moved, alike)
        return Found(found, learned, moved)

    def attend(self, bank: MemoryBank, frame_idx: int, started: Tensor, reverse: bool) -> Tensor:
        """Features of a frame, (1, C, h, w), that have seen what is remembered of an object."""
        return self._attend(
            started, *bank.select(frame_idx, self.num_frames, reverse=reverse, every=self.every)
        )

    def _attend(
        self, started: Tensor, maps: Sequence[tuple[Tensor, int]], pointers: Sequence[Tensor]
    ) -> Tensor:
        return self.model.attend_memory(started, self.model.assemble_memory(maps, pointers))

    def _decode(
        self, top: Tensor, features: ImageFeatures, moved: Located | None, alike: Tensor | None
    ) -> DecoderOutput:
        """The decoder's answer, told where the object was and how it looks."""
        guide = moved.mask.low_res_logits if moved is not None and self.flow_prompt else None
        if guide is not None and alike is not None:
            guide = guide + alike
        decoded = self.model.decode_masks(
            top, features.high_res, mask_logits=guide, multimask=guide is None
        )
        return _with_likeness(decoded, alike)

    def _recognised(self, sought: Sought, absent: Located) -> Located:
        """An object that is taken for absent, if it is sure to look as it was prompted.

        The network is asked again, remembers prompted frames alone, and is told nothing of where
        the object was.
        """
        bank, encoded = sought.bank, sought.encoded
        maps, pointers = bank.select_prompted(sought.frame_idx, reverse=sought.reverse)
        if not maps:
            return absent
        top = self._attend(sought.started, maps, pointers)
        decoded = self._decode(top, encoded.features, None, None).best()
        if float(decoded.iou) < RECOGNISED:
            return absent
        decoded = _with_likeness(decoded, _likeness(bank.prompted_appearance(), encoded))
        return Located(self.model.gate_by_presence(decoded), absent.crop)

    def _fused(
        self, sought: Sought, found: Located, moved: Located | None, alike: Tensor | None
    ) -> Located:
        """What the network found, drawn finely, together with what the flow says."""
        side, logits = self.model.config.image_size, found.mask.low_res_logits
        picture = sought.encoded.picture
        if picture is not None:
            found = replace(found, drawn=drawn_edges(refine_edges(logits, picture)))
        found = replace(found, drawn=drawn_of(found, side))
        if moved is not None:
            moved = replace(moved, drawn=drawn_of(moved, side))
            learned = self._fuser(sought, picture, alike)
            found = fuse_with_flow(found, moved, sought.trust, learned)
        assert found.drawn is not None
        cells = (side / logits.shape[-1]) ** 2
        return replace(found, drawn=filled(found.drawn, round(self.fill_hole_area * cells)))

    def _fuser(
        self, sought: Sought, picture: Picture | None, alike: Tensor | None
    ) -> LearnedFusion | None:
        """What corrects the fusion of an object's masks, if anything does."""
        fuser, told = self.model.mask_fuser, self.on_fusion
        if not self.learned_fusion or fuser is None or picture is None:
            return None
        if told is None:
            return LearnedFusion(fuser, picture, alike)

        def watch(sight: Sight, crop: Crop, share: Plane) -> None:
            told(Fusion(sought.obj_id, sought.frame_idx, crop, sight, share))

        return LearnedFusion(fuser, picture, alike, watch)


def _likeness(known: Appearance | None, encoded: EncodedFrame) -> Tensor | None:
    """How much every place looks like what is known, if that and the frame's colours are."""
    if known is None or encoded.colours is None:
        return None
    return likeness(known, encoded.features, encoded.colours)


def _with_likeness(decoded: DecoderOutput, alike: Tensor | None) -> DecoderOutput:
    if alike is None:
        return decoded
    return replace(decoded, low_res_logits=decoded.low_res_logits + ANSWER_SHARE * alike)


def _if_sure(decoded: DecoderOutput) -> DecoderOutput:
    """The same, absent unless it is sure: a lookalike is near more often than the object is."""
    if float(decoded.iou.max()) >= COMES_BACK:
        return decoded
    return replace(decoded, object_score=decoded.object_score.clamp(max=ABSENT_SCORE))
