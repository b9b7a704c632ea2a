"""Two witnesses of where an object is: the network, and the mask before, moved along the flow.

A small network forgets fine things from one frame to the next (a strap, a head, a bag of ten
pixels), and says so: its predicted IoU is low there. A moved mask keeps them, but slips a little
with every frame and knows nothing of what comes into view. So each has a say as far as it is sure,
and the mask is kept as finely as the network's input, not on the four times coarser grid of its
logits. For models whose config says `fuse_flow`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.crops import Crop, Drawn, Located, seen_from
from edgetam_label.masks import Mask, small_components

if TYPE_CHECKING:
    from edgetam_label.learned_fusion import LearnedFusion

Plane = NDArray[np.float32]

KEPT = 0.98  # of a mask's expected IoU, from one frame to the next along the flow
SUREST = 0.98  # no expected IoU counts for more, so that neither witness decides alone
BEYOND_DOUBT = 10.0  # the largest logit that a memory is told of a pixel
FILLED_HOLE = 140  # of 255: a filled hole, just inside


def drawn_mask(mask: Mask, crop: Crop, side: int) -> Drawn:
    """A mask (H, W) of the whole frame as a crop of it shows it, at side x side."""
    finer = max(1, round(max(crop.width, crop.height) / side))
    values = mask.astype(np.uint8) * np.uint8(255)
    large = seen_from(values, crop.frame, crop, (side * finer, side * finer))
    return np.asarray(cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def drawn_logits(logits: Tensor, side: int) -> Drawn:
    """Logits (1, 1, h, w) as the probabilities that they stand for, at side x side."""
    coarse = torch.sigmoid(logits[0, 0].float()).cpu().numpy()
    large = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.rint(large * 255), np.uint8)


def drawn_of(located: Located, side: int) -> Drawn:
    """An object's mask at side x side: as it is kept, or else from its logits."""
    if located.drawn is not None:
        return located.drawn
    return drawn_logits(located.mask.low_res_logits, side)


def drawn_edges(refined: Tensor) -> Drawn:
    """What `refine_edges` gives, (1, 1, S, S) in about ±0.5, in 0..255."""
    values = refined[0, 0].cpu().numpy()
    return np.asarray(np.rint(np.clip(values + 0.5, 0, 1) * 255), np.uint8)


def fuse_with_flow(
    answer: Located,
    moved: Located,
    trust: Plane | None = None,
    learned: LearnedFusion | None = None,
) -> Located:
    """The mean of both masks, weighted by the odds of their expected IoU.

    answer: of the network, drawn. moved: the frame before, drawn, on the same crop; its `iou` is
    what is expected of it now. trust: (S, S) in 0..1, a factor of its odds at every pixel; None: 1.
    learned: corrects the weights, and then the mask.
    Of the result, `iou` is the weighted mean over the moved mask, for the next frame.
    """
    if answer.drawn is None or moved.drawn is None:
        return answer
    seen, expected = float(answer.mask.iou.max()), float(moved.mask.iou.max())
    trusted = np.ones(moved.drawn.shape, np.float32) if trust is None else trust
    of_moved = odds(expected) * trusted
    share = (of_moved / (of_moved + odds(seen))).astype(np.float32)
    before = moved.drawn.astype(np.float32)
    logits = answer.mask.low_res_logits.clamp(-BEYOND_DOUBT, BEYOND_DOUBT)
    if learned is None:
        drawn = mean_of(answer.drawn.astype(np.float32), before, share)
    else:
        fused = learned.fuse(answer, moved, trusted, share)
        share, drawn = fused.share, fused.drawn
    coarse = averaged(share, logits)
    logits = (1 - coarse) * logits + coarse * _coarse_logits(moved.drawn, logits)
    if learned is not None:
        logits = logits + averaged(fused.correction, logits)
    inside = float((share * before).sum() / max(1.0, before.sum()))
    iou = torch.full_like(answer.mask.iou, inside * expected + (1 - inside) * seen)
    return Located(replace(answer.mask, low_res_logits=logits, iou=iou), answer.crop, drawn)


def logits_of_shares(shares: Tensor) -> Tensor:
    """Of the share of every cell that belongs to the object, in 0..1; finite at both ends."""
    return torch.log((shares + 1e-3) / (1 - shares + 1e-3))


def filled(drawn: Drawn, area: int) -> Drawn:
    """Without holes of at most `area` pixels; the same array where there are none."""
    holes = small_components(drawn < 128, area) if area > 0 else None
    if holes is None or not holes.any():
        return drawn
    return np.where(holes, np.uint8(FILLED_HOLE), drawn)


def mean_of(answer: Plane, moved: Plane, share: Plane) -> Drawn:
    """The mean of two masks in 0..255. share: of the moved one."""
    return np.asarray(np.rint(answer + share * (moved - answer)), np.uint8)


def odds(iou: float) -> float:
    """Of an expected IoU, bounded by SUREST at both ends."""
    bounded = min(max(iou, 1 - SUREST), SUREST)
    return bounded / (1 - bounded)


def _coarse_logits(drawn: NDArray[np.uint8], like: Tensor) -> Tensor:
    """Logits of the size of `like`: of the share of every cell that belongs to the object."""
    return logits_of_shares(averaged((drawn / 255).astype(np.float32), like))


def averaged(values: Plane, like: Tensor) -> Tensor:
    """(S, S) averaged over the cells of `like`, (1, 1, h, w)."""
    rows, columns = like.shape[-2:]
    means = np.asarray(cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(means)[None, None].to(like)
