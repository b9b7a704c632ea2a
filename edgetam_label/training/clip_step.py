"""One training step on clips: the first frame is prompted, memory carries the object on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgetam_label.modeling.edgetam import EdgeTAM, ImageFeatures, ObjectMask
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.training.losses import LossWeights, mask_loss
from edgetam_label.training.prompt_sampling import PADDING
from edgetam_label.training.samples import Batch
from edgetam_label.training.still_step import (
    LOGIT_LIMIT,
    StepResult,
    choose,
    corrective_points,
    decode_all,
    eligible_masks,
    normalise,
)

MASK_PROMPT_SHARE = 0.5  # clips whose first frame is prompted by its mask, as in `vos`
CORRECTION_SHARE = 0.3  # clips with one corrective click on a later frame


class _Bank:
    """The memories of all rows of a batch, in the order in which the tracker gives them."""

    def __init__(self, model: EdgeTAM) -> None:
        self.model = model
        self.conditioning: list[tuple[int, Tensor, Tensor]] = []
        self.tracked: list[tuple[int, Tensor, Tensor]] = []

    def attend(self, started: Tensor, frame: int) -> Tensor:
        """`start_attention` of a frame → features that know the objects."""
        newest = self.model.config.num_maskmem - 1
        maps = [(tokens, newest) for _, tokens, _ in self.conditioning]
        recent = [m for m in self.tracked if frame - m[0] <= newest]
        maps += [(tokens, frame - at - 1) for at, tokens, _ in recent]
        pointers = [pointer for _, _, pointer in self.conditioning]
        pointers += [pointer for _, _, pointer in reversed(self.tracked)]
        return self.model.attend_memory(started, self.model.assemble_memory(maps, pointers))


def clip_loss(
    model: EdgeTAM, batch: Batch, rng: np.random.Generator, weights: LossWeights
) -> StepResult:
    """Encode all frames at once, then walk through time; gradients flow through the memory."""
    clips, frames, objects = len(batch.frames), batch.frames.shape[1], batch.targets.shape[1]
    encoded = model.encode_image(normalise(batch.frames.flatten(0, 1)))
    by_time = [encoded[slice(t, None, frames)] for t in range(frames)]
    rows = torch.arange(clips, device=batch.frames.device).repeat_interleave(objects)
    targets = batch.targets.flatten(0, 1).float() / 255  # (rows, T, S/2, S/2)

    walk = ClipWalk(model, targets, rng)
    by_mask = rng.random() < MASK_PROMPT_SHARE
    walk.prompt(by_time[0], rows, batch, by_mask)
    corrected = int(rng.integers(1, frames)) if rng.random() < CORRECTION_SHARE else 0
    for t in range(1, frames):
        walk.track(t, by_time[t], rows, correct=t == corrected)
    return walk.result(weights)


class ClipWalk:
    """Walks a batch of clips through time and gathers everything that the loss compares."""

    def __init__(self, model: EdgeTAM, targets: Tensor, rng: np.random.Generator) -> None:
        self.model, self.targets, self.rng = model, targets, rng
        self.bank = _Bank(model)
        self.outputs: list[tuple[DecoderOutput, Tensor, int]] = []

    def prompt(self, features: ImageFeatures, rows: Tensor, batch: Batch, by_mask: bool) -> None:
        """Frame 0: by its mask, or by the sampled clicks and boxes."""
        model, here = self.model, features[rows]
        if by_mask:
            size = model.config.image_size
            mask = F.interpolate(self.targets[:, None, 0], (size, size), mode="bilinear")
            answer = model.mask_as_output(here, (mask > 0.5).float())
        else:
            points, labels = batch.points.flatten(0, 1), batch.labels.flatten(0, 1)
            eligible = eligible_masks((labels != PADDING).sum(dim=1) <= 1)
            output = decode_all(
                model, model.without_memory(here.top), here.high_res, points, labels
            )
            answer = self._answer(output, eligible, 0)
        self._remember(0, here.top, answer, conditioning=True)

    def track(self, t: int, features: ImageFeatures, rows: Tensor, correct: bool) -> None:
        """Frame t by memory alone, then perhaps with a click into the error."""
        model, here = self.model, features[rows]
        top = self.bank.attend(model.start_attention(features.top)[rows], t)
        points, labels = top.new_zeros(len(rows), 1, 2), rows.new_full((len(rows), 1), PADDING)
        ambiguous = eligible_masks(torch.ones_like(rows, dtype=torch.bool))
        output = decode_all(model, top, here.high_res, points, labels)
        answer = self._answer(output, ambiguous, t)
        if correct:
            previous = choose(output, ambiguous).low_res_logits.detach().float()
            points, labels = corrective_points(previous, self.targets[:, t], self.rng)
            mask = previous.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            output = decode_all(model, top, here.high_res, points, labels, mask)
            answer = self._answer(output, ambiguous, t)
        self._remember(t, here.top, answer, conditioning=correct)

    def result(self, weights: LossWeights) -> StepResult:
        every = DecoderOutput(
            torch.cat([o.low_res_logits for o, _, _ in self.outputs]),
            torch.cat([o.iou for o, _, _ in self.outputs]),
            torch.cat([o.tokens for o, _, _ in self.outputs]),
            torch.cat([o.object_score for o, _, _ in self.outputs]),
        )
        eligible = torch.cat([e for _, e, _ in self.outputs])
        targets = torch.cat([self.targets[:, t] for _, _, t in self.outputs])
        loss = mask_loss(every, eligible, targets, weights)
        right = (every.object_score[:, 0] > 0) == loss.present
        metrics = {f"clip_{name}": value for name, value in loss.metrics().items()}
        return StepResult(loss.total, {**metrics, "presence": float(right.float().mean())})

    def _answer(self, output: DecoderOutput, eligible: Tensor, t: int) -> ObjectMask:
        self.outputs.append((output, eligible, t))
        return self.model.gate_by_presence(choose(output, eligible))

    def _remember(self, t: int, top: Tensor, answer: ObjectMask, *, conditioning: bool) -> None:
        tokens = self.model.encode_memory(top, answer.low_res_logits.float(), binarize=conditioning)
        bank = self.bank.conditioning if conditioning else self.bank.tracked
        bank.append((t, tokens, answer.pointer))
