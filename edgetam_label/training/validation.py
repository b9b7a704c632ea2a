"""Held-out numbers and pictures while training: quick, in model space, on the same scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.training.clip_step import ClipWalk
from edgetam_label.training.clips import ClipSource
from edgetam_label.training.losses import LossWeights, true_iou
from edgetam_label.training.mixed_precision import autocast
from edgetam_label.training.prompt_sampling import PADDING
from edgetam_label.training.samples import Batch, SampleSpec, SampleStream, collate
from edgetam_label.training.still_step import (
    LOGIT_LIMIT,
    choose,
    corrective_points,
    decode_all,
    eligible_masks,
    normalise,
)

NUM_CLICKS = 5


@dataclass(frozen=True)
class Validator:
    """Call with a model and a step number; a contact sheet goes into `out`.

    stills, clips: held-out sources. num_stills, num_clips: how many of each are measured.
    """

    stills: ClipSource
    clips: ClipSource | None
    size: int
    out: Path
    num_stills: int = 48
    num_clips: int = 8
    clip_frames: int = 8

    def __call__(self, model: EdgeTAM, step: int) -> dict[str, float]:
        """1-click, best-of-3, box and 5-click mIoU on stills; mIoU carried through clips."""
        was_training = model.training
        model.eval()
        with torch.inference_mode(), autocast(model.device):
            numbers = self._stills(model, step)
            if self.clips is not None:
                numbers["clip_iou"] = self._clips(model)
        model.train(was_training)
        return numbers

    def _stills(self, model: EdgeTAM, step: int) -> dict[str, float]:
        totals: dict[str, list[Tensor]] = {"click": [], "best": [], "box": [], "clicks": []}
        tiles: list[NDArray[np.uint8]] = []
        for click_share in (1.0, 0.0):
            spec = SampleSpec(self.size, click_share=click_share, part_share=0.0, reuse=1, window=1)
            stream = SampleStream(self.stills, spec, seed=1)
            for start in range(0, self.num_stills, 8):
                batch = collate([stream[i] for i in range(start, start + 8)]).to(model.device)
                ious, logits = still_ious(model, batch)
                if click_share:
                    for name in ("click", "best", "clicks"):
                        totals[name].append(ious[name])
                    tiles += contact_tiles(batch, logits) if len(tiles) < 24 else []
                else:
                    totals["box"].append(ious["click"])
        self.out.mkdir(parents=True, exist_ok=True)
        rows = [np.concatenate(tiles[i : i + 6], axis=1) for i in range(0, len(tiles) // 6 * 6, 6)]
        cv2.imwrite(str(self.out / f"predictions_{step:06d}.png"), np.concatenate(rows)[..., ::-1])
        return {name: float(torch.cat(values).mean()) for name, values in totals.items()}

    def _clips(self, model: EdgeTAM) -> float:
        assert self.clips is not None
        spec = SampleSpec(self.size, self.clip_frames, 2, part_share=0.0, reuse=1, window=1)
        stream, ious = SampleStream(self.clips, spec, seed=2), []
        for index in range(self.num_clips):
            batch = collate([stream[index]]).to(model.device)
            frames = model.encode_image(normalise(batch.frames[0]))
            rows = torch.zeros(batch.targets.shape[1], dtype=torch.long, device=model.device)
            walk = ClipWalk(
                model,
                batch,
                np.random.default_rng(0),
                flow_share=1.0,
            )
            walk.prompt(frames[:1], rows, batch, by_mask=True)
            for t in range(1, self.clip_frames):
                walk.track(t, frames[slice(t, t + 1)], rows, correct=False)
            ious.append(walk.result(LossWeights()).metrics["clip_iou"])
        return float(np.mean(ious))


def still_ious(model: EdgeTAM, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """IoU of every prompt of the batch: chosen mask, best mask, after NUM_CLICKS clicks in all.

    Also the logits after the first prompt, (N, h, w).
    """
    objects = batch.targets.shape[1]
    features = model.encode_image(normalise(batch.frames[:, 0]))
    top = model.without_memory(features.top).repeat_interleave(objects, dim=0)
    high_res = tuple(x.repeat_interleave(objects, dim=0) for x in features.high_res)
    high_res = (high_res[0], high_res[1])
    targets = batch.targets[:, :, 0].flatten(0, 1).float() / 255
    points, labels = batch.points.flatten(0, 1), batch.labels.flatten(0, 1)
    ambiguous = (labels != PADDING).sum(dim=1) <= 1
    eligible = eligible_masks(ambiguous)
    output = decode_all(model, top, high_res, points, labels)
    chosen = first = choose(output, eligible)
    every = true_iou(
        _resize(output.low_res_logits, targets), targets[:, None].expand(-1, 4, -1, -1)
    )
    ious = {
        "click": true_iou(_resize(first.low_res_logits, targets)[:, 0], targets),
        "best": every.masked_fill(~eligible, 0).amax(dim=1),
    }
    if bool(ambiguous.all()):
        single = eligible_masks(torch.zeros_like(ambiguous))
        for _ in range(NUM_CLICKS - 1):
            previous = chosen.low_res_logits.float()
            more_points, more_labels = corrective_points(previous, targets, None)
            points, labels = (
                torch.cat((points, more_points), 1),
                torch.cat((labels, more_labels), 1),
            )
            mask = previous.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            chosen = choose(decode_all(model, top, high_res, points, labels, mask), single)
    ious["clicks"] = true_iou(_resize(chosen.low_res_logits, targets)[:, 0], targets)
    return ious, first.low_res_logits[:, 0].float()


def _resize(logits: Tensor, targets: Tensor) -> Tensor:
    return F.interpolate(logits.float(), targets.shape[-2:], mode="bilinear", align_corners=False)


def contact_tiles(batch: Batch, logits: Tensor) -> list[NDArray[np.uint8]]:
    """Per image: the prompt and the predicted mask (red) beside the true one (green), RGB."""
    tiles = []
    objects = batch.targets.shape[1]
    for b in range(len(batch.frames)):
        image = batch.frames[b, 0].permute(1, 2, 0).cpu().numpy()
        size = (image.shape[1], image.shape[0])
        ours = (
            cv2.resize(logits[b * objects].cpu().numpy(), size, interpolation=cv2.INTER_LINEAR) > 0
        )
        truth = (
            cv2.resize(batch.targets[b, 0, 0].cpu().numpy(), size, interpolation=cv2.INTER_LINEAR)
            > 127
        )
        pair = []
        for mask, colour in ((ours, (255, 40, 40)), (truth, (40, 220, 40))):
            tile = image.copy()
            tile[mask] = (tile[mask] * 0.45 + np.array(colour) * 0.55).astype(np.uint8)
            pair.append(tile)
        for point, label in zip(
            batch.points[b, 0].tolist(), batch.labels[b, 0].tolist(), strict=True
        ):
            if label != PADDING:
                cv2.circle(pair[0], (round(point[0]), round(point[1])), 4, (255, 255, 255), -1)
        tiles.append(np.concatenate(pair, axis=1))
    return tiles
