"""`edgetam-label train-rater`: teach a model to rate the candidates of a click.

The model answers clicks on synthetic stills, half of them in the middle of a thing and half
anywhere on it; the rater learns what IoU candidates have that look so. Nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgetam_label.checkpoints import load_model
from edgetam_label.errors import UsageError
from edgetam_label.evaluation.click_protocol import MIN_AREA
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.mask_rating import describe
from edgetam_label.masks import Mask
from edgetam_label.modeling import EdgeTAM
from edgetam_label.modeling.mask_rater import FEATURES, MaskRater
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Click, Prompt
from edgetam_label.training.clips import Clip
from edgetam_label.training.finetune import check_target
from edgetam_label.training.prompt_sampling import deepest_point
from edgetam_label.training.scene_work import Progress, SceneWork
from edgetam_label.training.start import write_checkpoint
from edgetam_label.training.synthetic import SyntheticClips
from edgetam_label.training.synthetic_pictures import Pictures
from edgetam_label.training.synthetic_places import Places

SIZE = (288, 512)
ANYWHERE = 0.5  # share of the clicks that are not in the middle
EPOCHS, BATCH, RATE, DECAY = 40, 128, 3e-3, 1e-2
# Ratings shall be right, and the best candidate be rated best, which is what they are for:
CHOICE_WEIGHT, CHOICE_SHARPNESS = 0.3, 20.0

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """features: (N, 3, len(FEATURES)). ious: (N, 3) with the truth. middle: (N,) bool, clicks."""

    features: Values
    ious: Values
    middle: NDArray[np.bool_]

    def chosen(self, rater: MaskRater) -> Values:
        """(N,): IoU of the candidate that is rated best."""
        with torch.inference_mode():
            best = rater.rate(torch.from_numpy(self.features)).argmax(dim=1).numpy()
        chosen: Values = self.ious[np.arange(len(best)), best]
        return chosen


@dataclass(frozen=True)
class TaughtRater:
    """Held-out mIoU of one click, "middle" and "anywhere"; best: of the best candidate."""

    checkpoint: Path
    clicks: int
    before: dict[str, float]
    after: dict[str, float]
    best: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "checkpoint": str(self.checkpoint)}


def train_rater(
    base: str,
    out: Path,
    *,
    cutouts: tuple[Path, ...] = (),
    backgrounds: tuple[Path, ...] = (),
    scenes: int = 6000,
    held_out: int = 400,
    seed: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> TaughtRater:
    """Write the weights of `base` with a newly taught rater to `out`.

    scenes: synthetic stills to learn from, with things after `cutouts` and places of `backgrounds`
    as in `edgetam-label train`. held_out: stills of other textures, by which it is measured.
    progress: called with scenes answered and their number. Raises UsageError if the model rates no
    masks, or there is a file `out` already.
    """
    check_target(out, base)
    model = load_model(base, device="cpu")
    if model.mask_rater is None or not model.config.close_ups:
        raise UsageError(
            f"The model {model.config.name} does not rate masks; set mask_rating = true and "
            "close_ups = true in its config."
        )
    pictures = Pictures(cutouts) if cutouts else None
    places = Places(backgrounds) if backgrounds else None
    sources = [
        SyntheticClips(seed, SIZE, 1, "train", scenes, pictures, places),
        SyntheticClips(seed, SIZE, 1, "heldout", held_out, pictures, places),
    ]
    work = SceneWork(base, sources, answers_on_clip)
    seen, unseen = (joined(parts) for parts in work.results(processes, progress))
    rater = taught(seen, seed)
    untaught = MaskRater()
    model.mask_rater = rater
    write_checkpoint(model, out, base=base, rater_clicks=len(seen.ious))
    return TaughtRater(
        out,
        len(seen.ious),
        before=_means(unseen, unseen.chosen(untaught)),
        after=_means(unseen, unseen.chosen(rater)),
        best=_means(unseen, unseen.ious.max(axis=1)),
    )


def taught(answers: Answers, seed: int) -> MaskRater:
    """A rater that has learned from answers; the same from the same ones on one machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rater = MaskRater()
        features, ious = torch.from_numpy(answers.features), torch.from_numpy(answers.ious)
        rater.mean.copy_(features.mean(dim=(0, 1)))
        rater.scale.copy_(features.std(dim=(0, 1)) + 1e-6)
        optimizer = torch.optim.AdamW(rater.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(features)).split(BATCH):
                optimizer.zero_grad()
                _loss(rater(features[rows]), ious[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            schedule.step()
    return rater.eval().requires_grad_(False)


def _loss(ratings: Tensor, ious: Tensor) -> Tensor:
    """Of ratings (N, 3): how far from the IoUs, and what choosing by them, softly, loses."""
    shares = (ratings * CHOICE_SHARPNESS).softmax(dim=1)
    lost = ious.mean(dim=1) - (shares * ious).sum(dim=1)
    return F.mse_loss(ratings, ious) + CHOICE_WEIGHT * lost.mean()


def answers_on(
    predictor: ImagePredictor, image: NDArray[np.uint8], masks: list[Mask], rng: Generator
) -> Answers:
    """One click on each of an image's objects."""
    embedding = predictor.embed(image)
    features, ious, middle = [], [], []
    for truth in masks:
        anywhere = rng.random() < ANYWHERE
        click = _anywhere(truth, rng) if anywhere else Click(*deepest_point(truth))
        first, closer = predictor.looks(embedding, Prompt(1, clicks=(click,)))
        features.append(describe(closer, first, click))
        ious.append([region_similarity(mask, truth) for mask in closer.masks()])
        middle.append(not anywhere)
    return Answers(
        np.asarray(features, np.float32).reshape(-1, 3, len(FEATURES)),
        np.asarray(ious, np.float32).reshape(-1, 3),
        np.asarray(middle, bool),
    )


def answers_on_clip(model: EdgeTAM, clip: Clip, rng: Generator) -> Answers:
    """One click on each of the objects of a clip's first frame that are large enough."""
    ids = clip.ids[0]
    masks = [ids == k for k in np.unique(ids) if k and (ids == k).sum() >= MIN_AREA]
    return answers_on(ImagePredictor(model), clip.frames[0], masks, rng)


def _anywhere(truth: Mask, rng: Generator) -> Click:
    """Not on the rim, where there is more than a rim: nobody means to click there."""
    inner = cv2.erode(truth.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    ys, xs = np.nonzero(inner if inner.any() else truth)
    at = int(rng.integers(len(xs)))
    return Click(float(xs[at]), float(ys[at]))


def joined(parts: list[Answers]) -> Answers:
    """All of them as one, in their order."""
    return Answers(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.ious for part in parts]),
        np.concatenate([part.middle for part in parts]),
    )


def _means(answers: Answers, ious: Values) -> dict[str, float]:
    return {
        "middle": float(ious[answers.middle].mean()),
        "anywhere": float(ious[~answers.middle].mean()),
    }
