"""Flip test: what is prompted is seen both ways round, and the mean of both answers is the answer.

A small network errs in one way on a picture and in another on its mirror image. For models whose
config says `flip_test`; what it is worth is in docs/training.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.modeling.point_labels import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT


def both_ways(pixels: Tensor) -> Tensor:
    """(1, C, h, w) → (2, C, h, w): as it is, and its mirror image."""
    return torch.cat([pixels, pixels.flip(-1)])


def points_both_ways(points: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Points (1, N, 2) of a picture of `size` pixels a side, labels (1, N) → (2, N, 2), (2, N)."""
    mirrored = points.clone()
    mirrored[..., 0] = size - 1 - points[..., 0]
    first, last = labels[0] == BOX_TOP_LEFT, labels[0] == BOX_BOTTOM_RIGHT
    mirrored[:, first, 0], mirrored[:, last, 0] = mirrored[:, last, 0], mirrored[:, first, 0]
    return torch.cat([points, mirrored]), labels.expand(2, -1)


def merged(output: DecoderOutput) -> DecoderOutput:
    """The answers to both, B = 2, as one: the mean, best mask with best mask and so on.

    Masks come in the order of their predicted IoU; tokens are those of the picture as it is.
    """
    order = output.iou.argsort(dim=1, descending=True)
    rows = torch.arange(2, device=order.device)[:, None]
    logits = output.low_res_logits[rows, order].float()
    mean = (logits[:1] + logits[1:].flip(-1)) / 2
    tokens = output.tokens[:1]
    if tokens.shape[1] > 1:
        tokens = tokens[:, order[0]]
    iou = output.iou[rows, order].mean(0, keepdim=True)
    return DecoderOutput(mean, iou, tokens, output.object_score.mean(0, keepdim=True))
