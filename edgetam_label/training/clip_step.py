"""One training step on clips: the first frame is prompted, memory carries the object on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgetam_label.crops import move_logits, seen_from
from edgetam_label.flow import SIDE, FlowBetween, agreement, carry, grey_picture
from edgetam_label.fusion import BEYOND_DOUBT, KEPT, SUREST, averaged, logits_of_shares
from edgetam_label.modeling.edgetam import EdgeTAM, ImageFeatures, ObjectMask
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.target_model import (
    ANSWER_SHARE,
    Appearance,
    colours_of,
    known_so_far,
    likeness,
    observe,
    renewed,
)
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
    windows_of,
)
from edgetam_label.training.windows import from_shares

MASK_PROMPT_SHARE = 0.5  # clips whose first frame is prompted by its mask, as in `vos`
CORRECTION_SHARE = 0.3  # clips with one corrective click on a later frame
# Frames whose decoder is shown the mask of the frame before, where the model's config asks for it;
# without it on the others, since a track that begins anew has none.
FLOW_SHARE = 0.8


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
        latest = self.tracked[: -self.model.config.max_object_pointers : -1]
        pointers += [pointer for _, _, pointer in latest]
        return self.model.attend_memory(started, self.model.assemble_memory(maps, pointers))


class _Looks:
    """What is known of how all rows of a batch look, learned as the tracker learns it."""

    def __init__(self) -> None:
        self.prompted: list[Appearance] = []
        self.learned: Appearance | None = None  # from tracking

    def known(self) -> Appearance:
        return known_so_far(self.prompted, self.learned)[0]

    def learn(
        self, here: ImageFeatures, colours: Tensor, answer: ObjectMask, prompted: bool
    ) -> None:
        if prompted:
            self.prompted.append(observe(here, colours, answer.low_res_logits, binarize=True))
            self.learned = None
            return
        learned = known_so_far(self.prompted, self.learned)[1]
        self.learned = renewed(learned, here, colours, answer)


def clip_loss(
    model: EdgeTAM,
    batch: Batch,
    rng: np.random.Generator,
    weights: LossWeights,
    lead: int = 0,
) -> StepResult:
    """Walk through time; gradients flow through the memory.

    lead: so many of the clip's first frames only set the stage for the others: they are walked
    without gradients and not compared.
    """
    clips, objects = len(batch.frames), batch.targets.shape[1]
    frames = batch.frames.shape[1]
    rows = torch.arange(clips, device=batch.frames.device).repeat_interleave(objects)
    walk = ClipWalk(model, batch, rng)
    by_mask = rng.random() < MASK_PROMPT_SHARE
    corrected = int(rng.integers(1, frames)) if rng.random() < CORRECTION_SHARE else 0

    def go(start: int, stop: int) -> None:
        encoded = model.encode_image(normalise(batch.frames[:, start:stop].flatten(0, 1)))
        for t in range(start, stop):
            features = encoded[slice(t - start, None, stop - start)]
            if t == 0:
                walk.prompt(features, rows, batch, by_mask)
            else:
                walk.track(t, features, rows, correct=t == corrected)

    if lead:
        with torch.no_grad():
            go(0, lead)
        walk.outputs.clear()
        torch.clear_autocast_cache()  # weights rounded without gradients would be used again
    go(lead, frames)
    return walk.result(weights)


class ClipWalk:
    """Walks a batch of clips through time and gathers everything that the loss compares."""

    def __init__(
        self,
        model: EdgeTAM,
        batch: Batch,
        rng: np.random.Generator,
        flow_share: float = FLOW_SHARE,
    ) -> None:
        self.model, self.rng, self.frames, self.windows = model, rng, batch.frames, batch.windows
        self.targets = batch.targets.flatten(0, 1).float() / 255  # (rows, T, S/2, S/2)
        self.flow_share = flow_share if model.config.flow_prompt else 0.0
        self.bank = _Bank(model)
        self.flow_between = FlowBetween()
        self.looks = _Looks() if model.config.target_model else None
        self.newest: Tensor | None = None  # logits of the frame before, (rows, 1, S/4, S/4)
        self.expected: Tensor | None = None  # their IoU, (rows,)
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
        self._remember(0, here, answer, conditioning=True)

    def track(self, t: int, features: ImageFeatures, rows: Tensor, correct: bool) -> None:
        """Frame t by memory alone, then perhaps with a click into the error."""
        model, here = self.model, features[rows]
        top = self.bank.attend(model.start_attention(features.top)[rows], t)
        points, labels = top.new_zeros(len(rows), 1, 2), rows.new_full((len(rows), 1), PADDING)
        ambiguous = eligible = eligible_masks(torch.ones_like(rows, dtype=torch.bool))
        moved: tuple[Tensor, Tensor] | None = None
        if self.rng.random() < self.flow_share:
            carried, trust = self._carried(t)
            masked = (carried > 0).flatten(1).any(dim=1)
            eligible = eligible_masks(~masked)
            alike = torch.zeros_like(carried)
            if self.looks is not None:  # where the tracker has no mask to show, it has no guide
                alike = likeness(self.looks.known(), here, self._colours(t))
                alike = alike * masked[:, None, None, None]
            output = decode_all(model, top, here.high_res, points, labels, carried + alike, masked)
            seen = output.low_res_logits + ANSWER_SHARE * alike
            output = replace(output, low_res_logits=seen)
            moved = carried, trust * masked[:, None, None, None]
        else:
            output = decode_all(model, top, here.high_res, points, labels)
        answer = self._answer(output, eligible, t)
        if correct:
            previous = choose(output, eligible).low_res_logits.detach().float()
            points, labels = corrective_points(previous, self.targets[:, t], self.rng)
            mask = previous.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            output = decode_all(model, top, here.high_res, points, labels, mask)
            answer = self._answer(output, ambiguous, t)
        elif moved is not None and model.config.fuse_flow:
            answer = self._fused(answer, *moved)
        self._remember(t, here, answer, conditioning=correct)

    def _colours(self, t: int) -> Tensor:
        """Of frame t for every row, (rows, 3, S/4, S/4)."""
        colours = colours_of(normalise(self.frames[:, t]))
        return colours.repeat_interleave(len(self.targets) // len(colours), dim=0)

    def _fused(self, answer: ObjectMask, moved: Tensor, trust: Tensor) -> ObjectMask:
        """`fuse_with_flow` of all rows, on the grid of the logits.

        moved, trust: (rows, 1, S/4, S/4), the mask of the frame before where it is by the flow, and
        how far the picture bears that out.
        """
        assert self.expected is not None
        seen, expected = answer.iou.detach().amax(dim=1).float(), self.expected * KEPT
        odds = _odds(expected)[:, None, None, None] * trust
        odds = odds * (answer.object_score.detach() > 0)[..., None, None]
        share = odds / (odds + _odds(seen)[:, None, None, None])
        before = torch.sigmoid(moved)
        shown = logits_of_shares(before)
        logits = answer.low_res_logits.float()
        fused = (1 - share) * logits.clamp(-BEYOND_DOUBT, BEYOND_DOUBT) + share * shown
        fused = torch.where(share > 0, fused, logits)
        inside = ((share * before).sum((1, 2, 3)) / before.sum((1, 2, 3)).clamp(min=1))[:, None]
        iou = inside * expected[:, None] + (1 - inside) * seen[:, None]
        return replace(answer, low_res_logits=fused, iou=iou)

    def _carried(self, t: int) -> tuple[Tensor, Tensor]:
        """The answer of frame t - 1 moved along the optical flow, and how far to trust that.

        Both (rows, 1, S/4, S/4).
        """
        assert self.newest is not None
        pictures = self.frames[:, t - 1 : t + 1].permute(0, 1, 3, 4, 2).cpu().numpy()
        windows = self.windows[:, t - 1 : t + 1].tolist()
        moved, trusts = [], []
        for clip, shares, rows in zip(
            pictures, windows, self.newest.chunk(len(pictures)), strict=True
        ):
            before, now = (grey_picture(frame) for frame in clip)
            source, target = (from_shares(share) for share in shares)
            if source != target:
                before = seen_from(before, source, target, (SIDE, SIDE))
                rows = move_logits(rows, source, target)
            flow = self.flow_between(now, before)
            moved += [carry(row[None], flow) for row in rows]
            trust = averaged(agreement(now, before, flow), rows[:1])
            trusts.append(trust.expand(len(rows), -1, -1, -1))
        return torch.cat(moved), torch.cat(trusts)

    def result(self, weights: LossWeights) -> StepResult:
        every = DecoderOutput(
            torch.cat([o.low_res_logits for o, _, _ in self.outputs]),
            torch.cat([o.iou for o, _, _ in self.outputs]),
            torch.cat([o.tokens for o, _, _ in self.outputs]),
            torch.cat([o.object_score for o, _, _ in self.outputs]),
        )
        eligible = torch.cat([e for _, e, _ in self.outputs])
        targets = torch.cat([self.targets[:, t] for _, _, t in self.outputs])
        clips = len(self.frames)
        rows = torch.arange(clips).repeat_interleave(len(self.targets) // clips)
        windows = windows_of(self.model, self.frames.flatten(0, 1))
        if windows is not None:
            length = self.frames.shape[1]
            windows = windows[torch.cat([rows * length + t for _, _, t in self.outputs])]
        loss = mask_loss(every, eligible, targets, weights, windows)
        right = (every.object_score[:, 0] > 0) == loss.present
        metrics = {f"clip_{name}": value for name, value in loss.metrics().items()}
        return StepResult(loss.total, {**metrics, "presence": float(right.float().mean())})

    def _answer(self, output: DecoderOutput, eligible: Tensor, t: int) -> ObjectMask:
        self.outputs.append((output, eligible, t))
        return self.model.gate_by_presence(choose(output, eligible))

    def _remember(
        self, t: int, here: ImageFeatures, answer: ObjectMask, *, conditioning: bool
    ) -> None:
        self.newest = answer.low_res_logits.detach().float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        self.expected = answer.iou.detach().amax(dim=1).float()
        if self.looks is not None:
            clear = replace(answer, low_res_logits=self.newest)
            self.looks.learn(here, self._colours(t), clear, conditioning)
        logits = answer.low_res_logits.float()
        tokens = self.model.encode_memory(here.top, logits, binarize=conditioning)
        bank = self.bank.conditioning if conditioning else self.bank.tracked
        bank.append((t, tokens, answer.pointer))


def _odds(iou: Tensor) -> Tensor:
    bounded = iou.clamp(1 - SUREST, SUREST)
    return bounded / (1 - bounded)
