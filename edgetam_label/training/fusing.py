"""`edgetam-label train-fuser`: teach a model how to fuse a tracked mask with the one before.

The model tracks the things of synthetic clips, whose true masks are known; the fuser learns to make
of what is seen on each frame (`learned_fusion.Sight`) the true mask. Nothing else changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgetam_label.checkpoints import load_model
from edgetam_label.errors import UsageError
from edgetam_label.evaluation.datasets import video_of_clip
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.evaluation.video_protocols import carry_by_model
from edgetam_label.finding import Fusion
from edgetam_label.fusion import Plane, drawn_mask
from edgetam_label.learned_fusion import FAINT, Sight, corrected, fuse_as_learned
from edgetam_label.masks import Mask
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.mask_fuser import STRIDE, MaskFuser
from edgetam_label.training.clips import Clip
from edgetam_label.training.ema import Ema
from edgetam_label.training.finetune import check_target
from edgetam_label.training.poor_footage import POOR_SHARE, as_poor_footage
from edgetam_label.training.scene_work import Progress, SceneWork
from edgetam_label.training.start import write_checkpoint
from edgetam_label.training.synthetic import SyntheticClips
from edgetam_label.training.synthetic_pictures import Pictures
from edgetam_label.training.synthetic_places import Places
from edgetam_label.training.synthetic_scene import Split

SIZE, LARGER = (288, 512), (432, 768)  # of the clips, of which LARGER_SHARE are larger
LARGER_SHARE = 0.4
FRAMES = 20
KEPT_SHARE = 0.4  # of the frames: neighbours are much alike
WINDOW, SLACK = 192, 24  # side of what is learned from at a time, and how far it may be off, pixels
BATCH, RATE, DECAY, WARMUP = 16, 2e-3, 1e-2, 50
AVERAGE = 0.995  # of the moving average of the weights
SMALLEST = 30  # pixels of a crop; a smaller truth does not count when measured
# Of the loss: errors are counted in units of the thing's area, of at least so many pixels, and a
# mask that is all wrong counts no more than WORST.
LEAST_AREA, WORST, OUTLINE_WEIGHT, EVEN_OUT = 400, 5.0, 0.5, 50

_COARSE = ("answer_logits", "moved_logits", "alike")


@dataclass(frozen=True)
class Sample:
    """sight: what was seen. share: by the rule, (S, S) in 0..1. truth: (S, S) uint8, of 255."""

    sight: Sight
    share: Plane
    truth: NDArray[np.uint8]

    def packed(self) -> bytes:
        """In a few tens of kilobytes, so that thousands fit into memory."""
        sight, file = self.sight, io.BytesIO()
        values = {f.name: getattr(sight, f.name) for f in fields(sight)}
        values |= {name: values[name].astype(np.float16) for name in _COARSE}
        values["trust"] = np.rint(sight.trust * 255).astype(np.uint8)
        share = np.rint(self.share * 65535).astype(np.uint16)
        np.savez_compressed(file, share=share, truth=self.truth, **values)
        return file.getvalue()

    @classmethod
    def unpacked(cls, packed: bytes) -> Sample:
        with np.load(io.BytesIO(packed)) as file:
            values: dict[str, Any] = {name: file[name] for name in file.files}
        values |= {name: values[name].astype(np.float32) for name in _COARSE}
        values["trust"] = values["trust"].astype(np.float32) / 255
        share, truth = values.pop("share").astype(np.float32) / 65535, values.pop("truth")
        whole = {name: float(value) for name, value in values.items() if value.ndim == 0}
        return cls(Sight(**(values | whole)), share, truth)

    def iou(self, drawn: NDArray[np.uint8]) -> float:
        """Of a mask with the truth, both where more than half of a pixel is taken."""
        return region_similarity(drawn > 127, self.truth > 127)


@dataclass(frozen=True)
class TaughtFuser:
    """Held-out mIoU of tracked frames, given the frames before as they were tracked.

    before: of the base. after: with the fuser taught. answer, moved: of each mask alone.
    """

    checkpoint: Path
    samples: int
    before: float
    after: float
    answer: float
    moved: float

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "checkpoint": str(self.checkpoint)}


def train_fuser(
    base: str,
    out: Path,
    *,
    cutouts: tuple[Path, ...] = (),
    backgrounds: tuple[Path, ...] = (),
    scenes: int = 400,
    held_out: int = 40,
    steps: int = 2400,
    seed: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
    step_progress: Progress | None = None,
) -> TaughtFuser:
    """Write the weights of `base` with its fuser taught further to `out`.

    scenes: synthetic clips to learn from, half of them without `cutouts` and `backgrounds`, which
    are as in `edgetam-label train`. held_out: clips of other textures, by which it is measured.
    progress: called with clips tracked and their number; step_progress: with steps of learning.
    Raises UsageError if the model does not fuse masks so, or there is a file `out` already.
    """
    check_target(out, base)
    model = load_model(base, device="cpu")
    if model.mask_fuser is None:
        raise UsageError(
            f"The model {model.config.name} does not fuse masks as it has learned; set "
            "learned_fusion = true in its config."
        )
    pictures = Pictures(cutouts) if cutouts else None
    places = Places(backgrounds) if backgrounds else None
    sources = [
        *_sources("train", scenes, seed, pictures, places),
        *_sources("heldout", held_out, seed, pictures, places),
    ]
    work = SceneWork(base, sources, samples_of_clip, chunk=2)
    found: dict[str, list[bytes]] = {"train": [], "heldout": []}
    for source, clips in zip(sources, work.results(processes, progress), strict=True):
        found[source.texture_family] += [sample for clip in clips for sample in clip]
    seen, unseen = found["train"], found["heldout"]
    if not seen:
        raise UsageError(
            f"Nothing was fused in {scenes} clips, so there is nothing to learn from; give more "
            "--scenes, or a base that can track."
        )
    fuser = taught(model.mask_fuser, seen, seed=seed, steps=steps, progress=step_progress)
    before = measured(model.mask_fuser, unseen)
    after = measured(fuser, unseen)
    model.mask_fuser = fuser
    write_checkpoint(model, out, base=base, fuser_samples=len(seen))
    return TaughtFuser(
        out, len(seen), before["fused"], after["fused"], before["answer"], before["moved"]
    )


def _sources(
    family: Split, scenes: int, seed: int, pictures: Pictures | None, places: Places | None
) -> list[SyntheticClips]:
    """Clips of both sizes, half of them with pictures and places."""
    sources: list[SyntheticClips] = []
    for size, share in ((SIZE, 1 - LARGER_SHARE), (LARGER, LARGER_SHARE)):
        for made in ((None, None), (pictures, places)):
            count = max(1, round(scenes * share / 2))
            sources.append(SyntheticClips(seed + len(sources), size, FRAMES, family, count, *made))
    return sources


def samples_of_clip(model: EdgeTAM, clip: Clip, rng: Generator) -> list[bytes]:
    """Every object tracked from its first true mask; what was fused on some of the frames."""
    samples: list[bytes] = []
    if rng.random() < POOR_SHARE:
        clip = replace(clip, frames=as_poor_footage(clip.frames, rng))
    video = video_of_clip("clip", clip)
    nothing: Mask = np.zeros(clip.ids.shape[1:], dtype=bool)

    def keep(fusion: Fusion) -> None:
        if rng.random() < KEPT_SHARE:
            truth = video.masks(fusion.frame_idx).get(fusion.obj_id, nothing)
            drawn = drawn_mask(truth, fusion.crop, len(fusion.sight.answer))
            samples.append(Sample(fusion.sight, fusion.share, drawn).packed())

    if video.first_seen:
        for _ in carry_by_model(model, keep)(video, video.first_seen):
            pass
    return samples


def taught(
    base: MaskFuser,
    samples: Sequence[bytes],
    *,
    seed: int,
    steps: int,
    progress: Progress | None = None,
) -> MaskFuser:
    """A fuser that begins as `base` and has learned from packed samples."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fuser = MaskFuser()
    if base.is_taught:
        fuser.load_state_dict(base.state_dict())
    fuser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(fuser.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(steps))
    average = Ema(fuser, AVERAGE)
    waiting: list[int] = []
    for step in range(steps):
        while len(waiting) < BATCH:
            waiting += rng.permutation(len(samples)).tolist()
        rows = [_window(Sample.unpacked(samples[waiting.pop()]), rng) for _ in range(BATCH)]
        fine, coarse, whole, share, truth = (torch.stack(part) for part in zip(*rows, strict=True))
        changes = fuser(fine, coarse, whole)
        answer, moved = ((fine[:, channel] + 1) / 2 for channel in (3, 4))
        _, logits = corrected(share, answer, moved, changes)
        optimizer.zero_grad()
        loss_of(logits, truth).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(fuser.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= WARMUP:
            average.update(fuser)
        if progress is not None:
            progress(step + 1, steps)
    return average.model if steps > WARMUP else fuser.eval().requires_grad_(False)


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Of masks (B, h, w): what is wrong of each, in its areas, and what it lacks of IoU 1."""
    wrong = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum((1, 2))
    wrong = wrong / truth.sum((1, 2)).clamp(min=LEAST_AREA)
    shares = logits.sigmoid()
    both = (shares * truth).sum((1, 2))
    either = shares.sum((1, 2)) + truth.sum((1, 2)) - both
    lacking = 1 - (both + EVEN_OUT) / (either + EVEN_OUT)
    return (OUTLINE_WEIGHT * wrong.clamp(max=WORST) + lacking).mean()


def measured(fuser: MaskFuser, samples: Sequence[bytes]) -> dict[str, float]:
    """mIoU of the fused mask, of the network's answer and of the moved mask; 0 of no samples."""
    ious: list[tuple[float, float, float]] = []
    for sample in map(Sample.unpacked, samples):
        if int((sample.truth > 127).sum()) >= SMALLEST:
            fused = fuse_as_learned(fuser, sample.sight, sample.share).drawn
            drawn = (fused, sample.sight.answer, sample.sight.moved)
            ious.append((sample.iou(drawn[0]), sample.iou(drawn[1]), sample.iou(drawn[2])))
    means = np.mean(ious, axis=0) if ious else np.zeros(3)
    return dict(zip(("fused", "answer", "moved"), means.tolist(), strict=True))


def _window(sample: Sample, rng: Generator) -> tuple[Tensor, ...]:
    """Inputs, share and truth of a window about an object, perhaps mirrored, in other light."""
    sight, side = sample.sight, len(sample.truth)
    either = np.maximum(np.maximum(sight.answer, sight.moved), sample.truth) > FAINT
    ys, xs = np.nonzero(either)
    rows, columns = _placed(ys, side, rng), _placed(xs, side, rng)
    fine, coarse, whole = (values[0] for values in sight.inputs(rows, columns))
    share = torch.from_numpy(sample.share[rows, columns])
    truth = torch.from_numpy(sample.truth[rows, columns].astype(np.float32) / 255)
    fine[:3] = fine[:3] * float(rng.uniform(0.7, 1.3)) + float(rng.uniform(-0.15, 0.15))
    flips = [axis for axis, chance in ((-1, 0.5), (-2, 0.3)) if rng.random() < chance]
    fine, coarse, share, truth = (one.flip(flips) for one in (fine, coarse, share, truth))
    return fine, coarse, whole, share, truth


def _placed(taken: NDArray[np.intp], side: int, rng: Generator) -> slice:
    """WINDOW of `side` pixels, which holds those that are taken, or lies within them."""
    length = min(WINDOW, side)
    first, last = (int(taken.min()), int(taken.max())) if len(taken) else (0, side - 1)
    low, high = sorted((first, last + 1 - length))
    start = int(rng.integers(low - SLACK, high + SLACK + 1))
    start = min(max(start, 0), side - length) // STRIDE * STRIDE
    return slice(start, start + length)


def _schedule(steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * float(np.cos(np.pi * step / steps)))

    return factor
