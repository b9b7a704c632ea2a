"""Fine-tuning: continue from any checkpoint on the user's own masklets, and show what it gained."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgetam_label.checkpoints import load_model
from edgetam_label.errors import UsageError
from edgetam_label.evaluation.datasets import TrueVideo, open_dataset
from edgetam_label.modeling.edgetam import EdgeTAM
from edgetam_label.training.clip_step import clip_loss
from edgetam_label.training.folders import FolderData
from edgetam_label.training.losses import LossWeights
from edgetam_label.training.mixed_precision import attention_kernel, autocast
from edgetam_label.training.samples import SampleSpec, SampleStream, collate
from edgetam_label.training.start import write_checkpoint
from edgetam_label.training.still_step import still_loss
from edgetam_label.training.trainer import make_optimizer, set_batch_statistics
from edgetam_label.training.validation import Validator

# Which modules each part trains. Batch statistics and the trunk's stem of knowledge stay put
# unless `all` is asked for.
PARTS: dict[str, tuple[str, ...] | None] = {
    "decoder": ("sam_mask_decoder", "sam_prompt_encoder"),
    "memory": (
        "memory_attention", "memory_encoder", "spatial_perceiver", "obj_ptr_proj",
        "mask_downsample", "maskmem_tpos_enc", "no_mem_embed", "no_mem_pos_enc", "no_obj_ptr",
    ),
    "all": None,
}  # fmt: skip


@dataclass(frozen=True)
class FineTuning:
    """What `finetune` may be told; the defaults suit a few dozen masklets.

    part: decoder, memory or all. steps: at most so many; it stops early when the held-out score has
    not risen for `patience` measurements, which come every `check_every` steps.
    holdout: share of the videos (of the frames, if there is one video) kept out of training.
    """

    part: str = "decoder"
    steps: int = 300
    rate: float = 1e-4
    batch: int = 4
    objects: int = 2
    clip_frames: int = 4
    holdout: float = 0.2
    check_every: int = 25
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise UsageError(f"Part {self.part!r} is unknown; use {', '.join(PARTS)}.")
        if not 0 < self.holdout < 1:
            raise UsageError(f"A held-out share of {self.holdout:g} is not between 0 and 1.")


@dataclass(frozen=True)
class FineTuned:
    """before, after: held-out metrics in 0..1 (click, best, box, clicks, clip_iou).

    kept_step: the step whose weights were written; 0 means that nothing beat the base.
    """

    checkpoint: Path
    before: dict[str, float]
    after: dict[str, float]
    kept_step: int
    steps: int
    seconds: float
    train_videos: int
    held_out_videos: int

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "checkpoint": str(self.checkpoint)}


Report = Callable[[int, dict[str, float]], None]


def finetune(
    data: str | Path,
    base: str | Path,
    out: Path,
    options: FineTuning | None = None,
    *,
    config: str = "auto",
    device: str = "auto",
    report: Report | None = None,
) -> FineTuned:
    """Continue from `base` (a checkpoint file or known name) on a dataset folder; write `out`.

    report: called with (step, held-out metrics) at every measurement.
    Raises UsageError if `out` is the base or exists, or if nothing is left to hold out.
    """
    options = options or FineTuning()
    check_target(out, base)
    model = load_model(config, base, device)
    train, held_out = split_videos(open_dataset(data), options.holdout)
    size = model.config.image_size
    unseen = FolderData(tuple(held_out), size)
    validator = Validator(
        unseen.stills, unseen.clips, size, out.with_suffix(".predictions"),
        num_stills=min(16, 8 * -(-len(unseen.stills) // 8)), num_clips=min(6, len(unseen.clips)),
    )  # fmt: skip
    started = time.monotonic()
    before = validator(model, 0)
    if report is not None:
        report(0, before)
    best, kept_step, steps = _train(model, FolderData(tuple(train), size), validator, before,
                                    options, report)  # fmt: skip
    after = validator(best, kept_step)
    write_checkpoint(best, out, half=False, base=str(base), part=options.part, step=kept_step)
    return FineTuned(
        out, before, after, kept_step, steps, time.monotonic() - started, len(train), len(held_out)
    )  # fmt: skip


def check_target(out: Path, base: str | Path) -> None:
    """Raise UsageError if writing `out` would destroy the base or any other file."""
    if out.exists():
        what = "the base itself" if Path(base).exists() and out.samefile(base) else "a file"
        raise UsageError(f"{out} is {what}, which is never overwritten. Give another --out.")


def split_videos(
    videos: list[TrueVideo], holdout: float
) -> tuple[list[TrueVideo], list[TrueVideo]]:
    """Training and held-out videos, evenly spread; a single video is cut in time.

    Raises UsageError if there is only one annotated frame.
    """
    if len(videos) > 1:
        every = max(2, round(1 / holdout))
        held = [v for i, v in enumerate(videos) if i % every == every - 1] or videos[-1:]
        names = {id(v) for v in held}
        return [v for v in videos if id(v) not in names], held
    video = videos[0]
    if len(video.annotated) < 2:
        raise UsageError(
            f"{video.name} is the only annotated frame; fine-tuning needs at least two, to hold "
            "one out."
        )
    cut = min(len(video.annotated) - 1, max(1, round(len(video.annotated) * (1 - holdout))))
    first, second = video.annotated[:cut], video.annotated[cut:]
    return [TrueVideo(video.name, video.images, first, video.read_masks)], [
        TrueVideo(video.name, video.images, second, video.read_masks)
    ]


def held_out_score(metrics: dict[str, float], part: str) -> float:
    """The number that early stopping watches."""
    stills = (metrics["click"] + metrics["box"] + metrics["clicks"]) / 3
    carried = metrics["clip_iou"]
    return {"decoder": 0.7 * stills + 0.3 * carried, "memory": carried}.get(
        part, (stills + carried) / 2
    )


def choose_parameters(model: nn.Module, part: str) -> None:
    """Leave gradients on for one part only."""
    prefixes = PARTS[part]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(prefixes is None or name.startswith(prefixes))


def _train(
    model: EdgeTAM,
    data: FolderData,
    validator: Validator,
    before: dict[str, float],
    options: FineTuning,
    report: Report | None,
) -> tuple[EdgeTAM, int, int]:
    """The best model on held-out data, the step it is from, and the steps that were made."""
    best, kept_step = copy.deepcopy(model), 0
    best_score, waited, step = held_out_score(before, options.part), 0, 0
    choose_parameters(model, options.part)
    optimizer = make_optimizer(model, weight_decay=0.01)
    size, device = model.config.image_size, model.device
    stills = SampleStream(
        data.stills, SampleSpec(size, num_objects=options.objects, part_share=0.0), options.seed
    )
    clip_spec = SampleSpec(size, options.clip_frames, options.objects, part_share=0.0)
    clips = SampleStream(data.clips, clip_spec, options.seed + 1)
    small = max(1, options.batch // options.clip_frames)
    for step in range(1, options.steps + 1):
        model.train()
        set_batch_statistics(model, live=False)
        on_clips = options.part == "memory" or step % 2 == 0
        source, count = (clips, small) if on_clips else (stills, options.batch)
        batch = collate([source[step * count + i] for i in range(count)]).to(device)
        rng = np.random.default_rng([options.seed, step])
        loss_of = clip_loss if on_clips else still_loss
        with autocast(device), attention_kernel(device):
            loss = loss_of(model, batch, rng, LossWeights()).loss
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, step / 20)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        if step % options.check_every == 0 or step == options.steps:
            metrics = validator(model.eval(), step)
            if report is not None:
                report(step, metrics)
            score = held_out_score(metrics, options.part)
            waited += 1
            if score > best_score:
                best, best_score, kept_step, waited = copy.deepcopy(model), score, step, 0
            if waited >= options.patience:
                break
    return best.eval(), kept_step, step
