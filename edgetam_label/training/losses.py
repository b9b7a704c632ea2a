"""Losses of promptable segmentation, after SAM 2 (arXiv 2408.00714, appendix D.2).

Focal and dice on masks (20 : 1), the minimum over the three masks of an ambiguous prompt, L1 on the
predicted IoU, cross-entropy on the presence of the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.training.soft_edges import DrawnWindows, soft_edges


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; `all_masks` keeps the two masks that lost the minimum alive.

    edges: share of the mask's terms that compare what the edge filter makes of it, where there is
    one.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    presence: float = 1.0
    all_masks: float = 0.05
    edges: float = 0.5


@dataclass(frozen=True)
class MaskLoss:
    """total: scalar to minimise. best_iou: (N,) true IoU of the mask that won the minimum.

    chosen_iou: (N,) true IoU of the mask whose *predicted* IoU is highest, what a person would get.
    present: (N,) bool, whether there was anything to find.
    """

    total: Tensor
    best_iou: Tensor
    chosen_iou: Tensor
    present: Tensor

    def metrics(self) -> dict[str, float]:
        """Mean IoU over the prompts whose object is visible."""
        count = self.present.sum().clamp(min=1)
        return {
            "iou": float((self.chosen_iou * self.present).sum() / count),
            "best_iou": float((self.best_iou * self.present).sum() / count),
        }


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss, mean over pixels (RetinaNet, arXiv 1708.02002, eq. 5).

    logits, target: (..., H, W), target in [0, 1]. Returns (...,).
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + target - 2 * probability * target
    balance = alpha * target + (1 - alpha) * (1 - target)
    return (balance * wrong**gamma * cross_entropy).mean(dim=(-2, -1))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft Dice with one pixel of smoothing; shapes as in `focal_loss`."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def true_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of `logits > 0` with `target > 0.5`, (..., H, W) -> (...,); two empty masks give 1."""
    predicted, expected = logits > 0, target > 0.5
    inter = (predicted & expected).sum(dim=(-2, -1)).float()
    union = (predicted | expected).sum(dim=(-2, -1)).float()
    return torch.where(union > 0, inter / union.clamp(min=1), torch.ones_like(union))


def mask_loss(
    output: DecoderOutput,
    eligible: Tensor,
    target: Tensor,
    weights: LossWeights,
    windows: DrawnWindows | None = None,
) -> MaskLoss:
    """Loss of N prompts with M masks each.

    output: masks (N, M, h, w). eligible: (N, M) bool, the masks that may answer each prompt: the
    three of an ambiguous one, else the single one. target: (N, H, W) in [0, 1], averaged to the
    masks' grid where it is finer; an empty one means that the object is absent: only the presence
    term learns from it, as in SAM 2. windows: of N pictures, for a model whose masks are drawn to
    edges; the winner is also compared as it is drawn, and IoU is that of drawn masks.
    """
    present = (target.amax(dim=(-2, -1)) > 0.5).float()
    shape, iou_loss = target.new_zeros(len(target)), target.new_zeros(len(target))
    best_iou, chosen_iou = torch.zeros_like(shape), torch.zeros_like(shape)
    for pattern in eligible.unique(dim=0):  # at most two: single and ambiguous prompts
        rows = (eligible == pattern).all(dim=1)
        terms = _compare(output, rows, pattern, target, weights, windows)
        shape, iou_loss = (
            shape.masked_scatter(rows, terms[0]),
            iou_loss.masked_scatter(rows, terms[1]),
        )
        best_iou[rows], chosen_iou[rows] = terms[2], terms[3]
    presence = F.binary_cross_entropy_with_logits(output.object_score[:, 0].float(), present)
    total = (present * (shape + weights.iou * iou_loss)).sum() / present.sum().clamp(min=1)
    return MaskLoss(total + weights.presence * presence, best_iou, chosen_iou, present > 0)


def _compare(
    output: DecoderOutput,
    rows: Tensor,
    pattern: Tensor,
    target: Tensor,
    weights: LossWeights,
    windows: DrawnWindows | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mask loss, IoU loss, best and chosen IoU of prompts `rows` whose masks `pattern` count."""
    logits = output.low_res_logits[rows][:, pattern].float()
    predicted_iou = output.iou[rows][:, pattern].float()
    fine = target[rows][:, None]
    grid = (logits.shape[-2], logits.shape[-1])
    expected = F.adaptive_avg_pool2d(fine, grid).expand_as(logits)
    per_mask = _per_mask(logits, expected, weights)
    shape, best = per_mask.min(dim=1)
    if logits.shape[1] > 1:
        shape = shape + weights.all_masks * per_mask.sum(dim=1)
    drawn = logits
    if windows is not None:
        here = windows[rows]
        winner = logits.gather(1, best[:, None, None, None].expand(-1, 1, *logits.shape[-2:]))
        winner = F.interpolate(winner, fine.shape[-2:], mode="bilinear", align_corners=False)
        refined = _per_mask(soft_edges(winner, here.fine), fine, weights)[:, 0]
        shape = shape * (1 - weights.edges) + refined * weights.edges
        with torch.no_grad():
            drawn = soft_edges(logits, here.coarse)
    with torch.no_grad():
        actual = true_iou(drawn, expected)
        chosen = actual.gather(1, predicted_iou.argmax(dim=1, keepdim=True))
    iou_loss = (predicted_iou - actual).abs().mean(dim=1)
    return shape, iou_loss, actual.gather(1, best[:, None])[:, 0], chosen[:, 0]


def _per_mask(logits: Tensor, expected: Tensor, weights: LossWeights) -> Tensor:
    focal = weights.focal * focal_loss(logits, expected)
    return focal + weights.dice * dice_loss(logits, expected)
