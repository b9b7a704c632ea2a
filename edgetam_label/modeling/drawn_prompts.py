"""Clicks and boxes drawn into the mask prompt, for models whose config says `drawn_prompts`.

SAM gives the decoder clicks and corners as tokens; that "inside of the box" or "here, not there" is
to be read off their position codes takes long to learn. Drawn as logits they are plain to see, as
the discs of RITM (Sofiiuk, Petrov and Konushin, arXiv 2102.06583, section 3.2) are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgetam_label.modeling.point_labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, POSITIVE

CELL = 4  # input pixels between two logits
RADIUS = 2 * CELL  # of a click's disc, in input pixels
CLICKED = 8.0  # logit of a disc: beyond doubt
IN_BOX, OUTSIDE = 2.0, -8.0  # rather than not; beyond doubt not


def draw_prompts(points: Tensor, labels: Tensor, base: Tensor) -> Tensor:
    """Logits (B, 1, h, w) with discs of ±8 on the clicks, the later ones above.

    points (B, N, 2) in input pixels, labels (B, N), as in `EdgeTAM.decode_masks`. base: a mask's
    logits (B or 1, 1, h, w). Boxes are not drawn here; `draw_boxes` makes a base of them.
    """
    y, x = _centres(base)
    across = (points[..., 0, None] + 0.5 - x).square()[..., None, :]  # (B, N, 1, w)
    down = (points[..., 1, None] + 0.5 - y).square()[..., None]  # (B, N, h, 1)
    is_click = ((labels == POSITIVE) | (labels == NEGATIVE))[..., None, None]
    covers = (across + down <= RADIUS**2) & is_click
    # the highest code at a cell is that of its last click, and odd if that is a positive one
    order = torch.arange(1, points.shape[1] + 1, device=points.device)
    codes = (2 * order + (labels == POSITIVE))[..., None, None] * covers
    last = codes.amax(dim=1, keepdim=True)
    disc = torch.where(last % 2 == 1, CLICKED, -CLICKED).to(base.dtype)
    return torch.where(last > 0, disc, base)


def draw_boxes(points: Tensor, labels: Tensor, base: Tensor) -> Tensor:
    """Logits (B, 1, h, w): high in each row's box and low around it; `base` for rows without one.

    Shapes as in `draw_prompts`. A cell that the box touches is in it.
    """
    y, x = _centres(base)
    low = ((labels == BOX_TOP_LEFT)[..., None] * points).sum(dim=1) + 0.5
    high = ((labels == BOX_BOTTOM_RIGHT)[..., None] * points).sum(dim=1) + 0.5
    half = CELL / 2
    across = (x + half > low[:, :1]) & (x - half < high[:, :1])  # (B, w)
    down = (y + half > low[:, 1:]) & (y - half < high[:, 1:])  # (B, h)
    inside = down[:, None, :, None] & across[:, None, None, :]
    boxes = torch.where(inside, IN_BOX, OUTSIDE).to(base.dtype)
    has_box = (labels == BOX_TOP_LEFT).any(dim=1)
    return torch.where(has_box[:, None, None, None], boxes, base)


def _centres(base: Tensor) -> tuple[Tensor, Tensor]:
    """Of the cells of (…, h, w) logits, (h,) and (w,), in input pixels."""
    h, w = base.shape[-2:]
    return (
        (torch.arange(h, device=base.device) + 0.5) * CELL,
        (torch.arange(w, device=base.device) + 0.5) * CELL,
    )
