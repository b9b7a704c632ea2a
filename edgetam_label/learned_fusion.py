"""Who is right about which pixel, the network or the moved mask: learned from how both looked.

`fuse_with_flow` weighs two masks of an object by how good each is expected to be as a whole. Where
something passes before the object, at thin parts and along edges that is not enough, and what is
right there can be seen: in the picture, in how the masks differ, in where the flow failed. A small
network (`modeling/mask_fuser.py`), taught on tracks whose truth is known, corrects the weights and
then the mask. For models whose config says `learned_fusion`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.crops import Crop, Drawn, Located
from edgetam_label.fusion import Plane, mean_of, odds
from edgetam_label.modeling.mask_fuser import STRIDE, MaskFuser

MARGIN = 24  # pixels around both masks that are looked at, too
FAINT = 13  # of 255: a pixel of less is no part of a mask's surroundings
SUREST_PIXEL = 0.01  # probabilities end so far from 0 and 1, so that a correction has a say

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Sight:
    """What is seen of an object on one frame, on a crop of it, before both masks are fused.

    picture: (S, S, 3) uint8. answer, moved: (S, S) uint8. trust: (S, S) in 0..1, how well the flow
    explains the picture. answer_logits, moved_logits, alike: (S/4, S/4) float32, of the network's
    answer, the moved mask and the likeness (`target_model.py`; zeros where nothing is known).
    predicted_iou, expected_iou: of the two masks. object_score: a logit. crop_width: share of the
    frame's.
    """

    picture: Picture
    answer: Drawn
    moved: Drawn
    trust: Plane
    answer_logits: Plane
    moved_logits: Plane
    alike: Plane
    predicted_iou: float
    expected_iou: float
    object_score: float
    crop_width: float

    def window(self) -> tuple[slice, slice] | None:
        """Rows and columns around both masks, multiples of STRIDE; None if there is no mask."""
        either: NDArray[np.bool_] = np.maximum(self.answer, self.moved) > FAINT
        rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
        if not len(rows):
            return None
        return _around(rows, len(either)), _around(columns, len(either))

    def inputs(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """What `MaskFuser` takes, (1, …) each, of a window whose edges are multiples of 4."""
        window = rows, columns
        coarse_window = _quarter(rows), _quarter(columns)
        picture = self.picture[window].astype(np.float32) / 127.5 - 1
        masks = [
            plane[window].astype(np.float32) / 127.5 - 1 for plane in (self.answer, self.moved)
        ]
        fine = [*np.moveaxis(picture, 2, 0), *masks, self.trust[window] * 2 - 1]
        coarse = [
            np.clip(self.answer_logits[coarse_window], -10, 10) / 5,
            np.clip(self.moved_logits[coarse_window], -10, 10) / 5,
            self.alike[coarse_window] / 2,
        ]
        whole = [
            float(np.log(odds(self.predicted_iou))) / 2,
            float(np.log(odds(self.expected_iou))) / 2,
            float(np.clip(self.object_score, -8, 8)) / 4,
            self.crop_width * 2 - 1,
        ]
        return (
            torch.from_numpy(np.stack(fine).astype(np.float32))[None],
            torch.from_numpy(np.stack(coarse).astype(np.float32))[None],
            torch.tensor([whole], dtype=torch.float32),
        )


@dataclass(frozen=True)
class Fused:
    """share: (S, S) in 0..1, the moved mask's. drawn: the mask. correction: (S, S), in logits."""

    share: Plane
    drawn: Drawn
    correction: Plane


@dataclass(frozen=True)
class LearnedFusion:
    """What corrects one fusion.

    picture: (S, S, 3) uint8 of the crop. alike: (1, 1, S/4, S/4), if anything is known. watch: told
    what was seen, on which crop, and the moved mask's share by the rule.
    """

    fuser: MaskFuser
    picture: Picture
    alike: Tensor | None
    watch: Callable[[Sight, Crop, Plane], None] | None = None

    def fuse(self, answer: Located, moved: Located, trust: Plane, share: Plane) -> Fused:
        """Both masks, drawn, as one. share: (S, S) in 0..1, the moved one's by the rule."""
        sight = self.sight(answer, moved, trust)
        if self.watch is not None:
            self.watch(sight, answer.crop, share)
        return fuse_as_learned(self.fuser, sight, share)

    def sight(self, answer: Located, moved: Located, trust: Plane) -> Sight:
        """trust: (S, S) in 0..1, how well the flow explains the picture."""
        assert answer.drawn is not None and moved.drawn is not None
        logits = _plane(answer.mask.low_res_logits)
        return Sight(
            self.picture,
            answer.drawn,
            moved.drawn,
            trust,
            logits,
            _plane(moved.mask.low_res_logits),
            np.zeros_like(logits) if self.alike is None else _plane(self.alike),
            float(answer.mask.iou.max()),
            float(moved.mask.iou.max()),
            float(answer.mask.object_score),
            answer.crop.width / answer.crop.frame_width,
        )


@torch.inference_mode()
def fuse_as_learned(fuser: MaskFuser, sight: Sight, share: Plane) -> Fused:
    """Both masks as one. share: (S, S) in 0..1, the moved mask's by the rule."""
    window = sight.window()
    answer, moved = sight.answer.astype(np.float32), sight.moved.astype(np.float32)
    drawn, correction = mean_of(answer, moved, share), np.zeros_like(answer)
    if window is None:
        return Fused(share, drawn, correction)
    device = next(fuser.parameters()).device
    changes = fuser(*(values.to(device) for values in sight.inputs(*window)))[0].cpu()
    of_share, mask = corrected(
        torch.from_numpy(share[window]),
        torch.from_numpy(answer[window] / 255),
        torch.from_numpy(moved[window] / 255),
        changes,
    )
    share = share.copy()
    share[window] = of_share.numpy()
    sure = (mask.sigmoid() - SUREST_PIXEL) / (1 - 2 * SUREST_PIXEL)  # 0 and 1 are themselves again
    drawn[window] = np.rint(sure.clamp(0, 1).numpy() * 255).astype(np.uint8)
    correction[window] = changes[1].numpy()
    return Fused(share, drawn, correction)


def corrected(
    share: Tensor, answer: Tensor, moved: Tensor, changes: Tensor
) -> tuple[Tensor, Tensor]:
    """The moved mask's share and the logits of the fused mask.

    share, answer, moved: (…, h, w) in 0..1. changes: (…, 2, h, w), what `MaskFuser` says.
    """
    of_share, of_mask = changes.unbind(-3)
    shares = torch.sigmoid(torch.logit(share, eps=1e-6) + of_share)
    mean = answer + shares * (moved - answer)
    return shares, torch.logit(mean, eps=SUREST_PIXEL) + of_mask


def _plane(logits: Tensor) -> Plane:
    return np.asarray(logits[0, 0].float().cpu().numpy(), np.float32)


def _around(taken: NDArray[np.intp], side: int) -> slice:
    low, high = max(0, int(taken[0]) - MARGIN), min(side, int(taken[-1]) + 1 + MARGIN)
    return slice(low // STRIDE * STRIDE, -(-high // STRIDE) * STRIDE)


def _quarter(span: slice) -> slice:
    return slice(span.start // 4, span.stop // 4)
