"""Of a mask that was asked for by clicks, the parts that were clicked.

A small model answers a click on one thing with everything like it; a person who clicks once means
what is under the click. For models whose config says `clicked_parts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgetam_label.masks import Mask
from edgetam_label.prompts import Click

STRAY_LOGIT = -6.0  # of a dropped part: background beyond doubt


def keep_clicked_parts(
    low_res_logits: Tensor,
    drawn: Tensor,
    clicks: Sequence[Click],
    width: float,
    height: float,
    previous: Tensor | None = None,
) -> Tensor:
    """Masks without the parts that hold no positive click and nothing of the `previous` mask.

    low_res_logits: (1, M, h, w). drawn: (1, M, H, W), positive where the masks are as they are
    shown, whose parts count: drawn to the edges of the picture they come apart where the network's
    cells do not. clicks: in pixels of the width x height frame. previous: logits (1, 1, h, w) of
    the mask that the clicks correct, whose parts are all meant. A mask of which nothing is clicked
    stays as it is: the network knows no better either. Where nothing is dropped, low_res_logits
    itself is returned.
    """
    foreground = (drawn[0] > 0).cpu().numpy()
    meant: Mask = np.zeros(foreground.shape[1:], dtype=bool)
    rows, columns = foreground.shape[-2:]
    if previous is not None:
        meant |= F.interpolate(previous, (rows, columns))[0, 0].cpu().numpy() > 0
    for click in clicks:
        if click.positive:
            row, column = int(click.y / height * rows), int(click.x / width * columns)
            meant[min(row, rows - 1), min(column, columns - 1)] = True
    kept = np.stack([_parts_with(mask, meant) for mask in foreground])
    if (kept == foreground).all():
        return low_res_logits
    cells = low_res_logits.shape[-2:]
    stray = _cells_with(foreground & ~kept, cells) & ~_cells_with(kept, cells)
    return low_res_logits.masked_fill(stray.to(low_res_logits.device)[None], STRAY_LOGIT)


def _parts_with(mask: Mask, meant: Mask) -> Mask:
    """The parts of `mask`, 8-connected, that hold something of `meant`; all if none does."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    hit = np.unique(parts[mask & meant])
    if count <= 2 or not len(hit):
        return mask
    return np.asarray(np.isin(parts, hit), dtype=bool)


def _cells_with(masks: Mask, cells: Sequence[int]) -> Tensor:
    """(M, h, w) bool: cells that hold anything of (M, H, W) masks."""
    return F.adaptive_max_pool2d(torch.from_numpy(masks).float(), tuple(cells)) > 0
