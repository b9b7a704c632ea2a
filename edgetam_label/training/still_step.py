"""One training step on still images: a prompt, then corrective clicks into the error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.modeling.mask_decoder import NUM_MULTIMASKS, DecoderOutput
from edgetam_label.training.losses import LossWeights, mask_loss
from edgetam_label.training.prompt_sampling import PADDING, corrective_click
from edgetam_label.training.samples import TARGET_STRIDE, Batch
from edgetam_label.training.soft_edges import DrawnWindows

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# How often 0, 1, 2, 3 corrective clicks follow the prompt; each costs one more decoding.
ROUNDS_SHARE = (0.4, 0.3, 0.2, 0.1)

# Masks worse than this have nothing to correct yet; skipping that makes the first minutes cheaper.
MIN_IOU_TO_CORRECT = 0.2

# A click may be anywhere in the error this often; else at its deepest point.
RANDOM_CLICK_SHARE = 0.5

LOGIT_LIMIT = 32.0  # previous logits are clamped to this before they are fed back


@dataclass(frozen=True)
class StepResult:
    """loss: scalar with gradient. metrics: numbers for the log."""

    loss: Tensor
    metrics: dict[str, float]


def normalise(frames: Tensor) -> Tensor:
    """(…, 3, S, S) uint8 → normalised float, channels last in memory if 4-dimensional."""
    mean = torch.tensor(MEAN, device=frames.device).view(3, 1, 1) * 255
    std = torch.tensor(STD, device=frames.device).view(3, 1, 1) * 255
    images = (frames.float() - mean) / std
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def windows_of(model: EdgeTAM, frames: Tensor) -> DrawnWindows | None:
    """Of (N, 3, S, S) uint8 frames, for a model whose masks are drawn to their edges."""
    if not model.config.refine_edges:
        return None
    cells = frames.shape[-1] // 4
    return DrawnWindows.of(F.avg_pool2d(frames.float(), TARGET_STRIDE), cells)


def decode_all(
    model: EdgeTAM,
    top: Tensor,
    high_res: tuple[Tensor, Tensor],
    points: Tensor,
    labels: Tensor,
    mask_logits: Tensor | None = None,
    masked: Tensor | None = None,
) -> DecoderOutput:
    """All four masks of every prompt, so that single and ambiguous prompts share one pass.

    masked: (N,) bool, the rows whose mask_logits count; all of them by default.
    """
    sparse = model.sam_prompt_encoder.embed_points(points, labels)
    dense = model.sam_prompt_encoder.embed_dense(points, labels, mask_logits)
    if masked is not None:
        none = model.sam_prompt_encoder.embed_dense(points, labels, None)
        dense = torch.where(masked[:, None, None, None], dense, none.to(dense.dtype))
    position = model.sam_prompt_encoder.image_position()
    return model.sam_mask_decoder.all_masks(top, position, sparse, dense, high_res)


def eligible_masks(ambiguous: Tensor) -> Tensor:
    """(N,) bool → (N, 4): masks 1-3 answer an ambiguous prompt, mask 0 any other."""
    single = torch.zeros(
        len(ambiguous), 1 + NUM_MULTIMASKS, dtype=torch.bool, device=ambiguous.device
    )
    single[:, 0] = ~ambiguous
    single[:, 1:] = ambiguous[:, None]
    return single


def choose(output: DecoderOutput, eligible: Tensor) -> DecoderOutput:
    """The eligible mask of the highest predicted IoU, M = 1, with its own token."""
    pick = output.iou.masked_fill(~eligible, -1.0).argmax(dim=1)
    rows = torch.arange(len(pick), device=pick.device)
    return DecoderOutput(
        output.low_res_logits[rows, pick][:, None],
        output.iou[rows, pick][:, None],
        output.tokens[rows, pick][:, None],
        output.object_score,
    )


def corrective_points(
    logits: Tensor, targets: Tensor, rng: np.random.Generator | None
) -> tuple[Tensor, Tensor]:
    """One more click per prompt where its mask is wrong: points (N, 1, 2), labels (N, 1).

    logits: (N, 1, h, w). targets: (N, S/2, S/2) in [0, 1]. A perfect mask gets a padding point.
    rng: None for the deepest point always.
    """
    upsampled = F.interpolate(
        logits.detach().float(), targets.shape[-2:], mode="bilinear", align_corners=False
    )
    predicted: NDArray[np.bool_] = (upsampled[:, 0] > 0).cpu().numpy()
    expected: NDArray[np.bool_] = (targets > 0.5).cpu().numpy()
    points = np.zeros((len(targets), 1, 2), np.float32)
    labels = np.full((len(targets), 1), PADDING, np.int64)
    for row, (ours, truth) in enumerate(zip(predicted, expected, strict=True)):
        random = rng if rng is not None and rng.random() < RANDOM_CLICK_SHARE else None
        click = corrective_click(ours, truth, random)
        if click is not None:
            points[row, 0] = (np.array(click[:2]) + 0.5) * TARGET_STRIDE - 0.5
            labels[row, 0] = click[2]
    return torch.from_numpy(points).to(targets.device), torch.from_numpy(labels).to(targets.device)


def still_loss(
    model: EdgeTAM, batch: Batch, rng: np.random.Generator, weights: LossWeights
) -> StepResult:
    """Encode each image once; decode all of its prompts, then 0 to 3 corrective clicks for all."""
    objects = batch.targets.shape[1]
    features = model.encode_image(normalise(batch.frames[:, 0]))
    top = model.without_memory(features.top).repeat_interleave(objects, dim=0)
    s0, s1 = features.high_res
    high_res = (s0.repeat_interleave(objects, dim=0), s1.repeat_interleave(objects, dim=0))
    targets = batch.targets[:, :, 0].flatten(0, 1).float() / 255
    points, labels = batch.points.flatten(0, 1), batch.labels.flatten(0, 1)

    eligible = eligible_masks((labels != PADDING).sum(dim=1) <= 1)
    output = decode_all(model, top, high_res, points, labels)
    windows = windows_of(model, batch.frames[:, 0])
    if windows is not None:
        windows = windows[torch.arange(len(batch.frames)).repeat_interleave(objects)]
    first = mask_loss(output, eligible, targets, weights, windows)
    total, metrics = first.total, first.metrics()
    rounds = int(rng.choice(len(ROUNDS_SHARE), p=ROUNDS_SHARE))
    if metrics["iou"] < MIN_IOU_TO_CORRECT:
        rounds = 0
    for _ in range(rounds):
        previous = choose(output, eligible).low_res_logits.detach()
        more_points, more_labels = corrective_points(previous, targets, rng)
        points, labels = torch.cat((points, more_points), 1), torch.cat((labels, more_labels), 1)
        eligible = eligible_masks(torch.zeros(len(labels), dtype=torch.bool, device=labels.device))
        mask = previous.float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        output = decode_all(model, top, high_res, points, labels, mask)
        corrected = mask_loss(output, eligible, targets, weights, windows)
        total = total + corrected.total
        metrics["corrected_iou"] = corrected.metrics()["iou"]
    return StepResult(total / (1 + rounds), metrics)
