"""What one object looks like against what is around it, learned while it is tracked.

A network that was trained on other pictures may not tell an object from what it happens to lie on.
Its features mostly can: a ridge regression from them to the masks so far, solved anew for every
frame, says of each place how much it looks like the object. After the target models of Robinson et
al. 2020 (Learning Fast and Robust Target Models for Video Object Segmentation), in closed form. For
models whose config says `target_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetam_label.modeling import ImageFeatures, ObjectMask

P = ParamSpec("P")
T = TypeVar("T")

RIDGE = 0.01  # of a feature's own second moment
RENEWED = 0.1  # share of a tracked frame in what is known from tracking
PROMPTED = 0.5  # share of prompted frames in what is known
SURE = 0.5  # predicted IoU from which a tracked mask is learned from
ANSWER_SHARE = 0.8  # of the likeness, which is added to the network's answer
CLEAREST = 0.95  # no place is likelier to be the object, or not to be


@dataclass(frozen=True)
class Appearance:
    """Features of R objects and of their surroundings, summed up.

    products: (R, C, C), sums: (R, C) float32: weighted means of x xᵀ and of x y over the places of
    a frame, where y is 1 on the object and -1 around it, which weigh the same. All zero for an
    object that was not seen.
    """

    products: Tensor
    sums: Tensor

    def towards(self, other: Appearance, share: float | Tensor) -> Appearance:
        """The mean of both. share: of the other, one for all or (R,)."""
        shares = torch.as_tensor(share).to(self.sums)
        return Appearance(
            self.products + shares.reshape(-1, 1, 1) * (other.products - self.products),
            self.sums + shares.reshape(-1, 1) * (other.sums - self.sums),
        )


def known_so_far(
    prompted: Sequence[Appearance], learned: Appearance | None
) -> tuple[Appearance, Appearance]:
    """All that is known of an object's looks, and what tracking has taught of it.

    prompted: from each prompted frame, at least one. learned: None where tracking begins, which
    then begins with what was prompted.
    """
    first = Appearance(
        torch.stack([one.products for one in prompted]).mean(0),
        torch.stack([one.sums for one in prompted]).mean(0),
    )
    if learned is None:
        return first, first
    return learned.towards(first, PROMPTED), learned


def colours_of(image: Tensor) -> Tensor:
    """The network's input (R, 3, S, S) → (R, 3, S/4, S/4), on the grid of the logits."""
    return F.avg_pool2d(image.float(), 4)


def _exactly(function: Callable[P, T]) -> Callable[P, T]:
    """In float32 and without gradients, also within a training step."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            with torch.autocast("cuda", enabled=False):
                return function(*args, **kwargs)

    return run


@_exactly
def observe(
    features: ImageFeatures, colours: Tensor, low_res_logits: Tensor, *, binarize: bool = False
) -> Appearance:
    """What a frame shows of R objects, given their logits (R, 1, S/4, S/4).

    features, colours: of the frame, without memory; for each object (R, …) or once for all (1, …).
    Places that the logits are not sure of count less; binarize: as if they were sure of all.
    """
    described = _levels(features, colours)
    size = features.high_res[1].shape[-2:]
    x = torch.cat([_at_size(level, size) for level in described], dim=1)
    x = x.flatten(2).expand(len(low_res_logits), -1, -1)  # (R, C, N), at stride 8
    logits = low_res_logits.float()
    shares = torch.heaviside(logits, logits.new_tensor(0.5)) if binarize else logits.sigmoid()
    shares = F.avg_pool2d(shares, 2).flatten(1)
    signs = shares * 2 - 1
    inside, outside = signs.clamp(min=0), (-signs).clamp(min=0)
    seen = (inside.sum(1, keepdim=True) >= 1).float()
    weights = (_of_one(inside) + _of_one(outside)) * seen / 2
    weighted = x * weights[:, None]
    return Appearance(
        weighted @ x.transpose(1, 2), (weighted @ torch.sign(signs)[:, :, None])[..., 0]
    )


def renewed(
    learned: Appearance, features: ImageFeatures, colours: Tensor, tracked: ObjectMask
) -> Appearance:
    """What tracking has taught with one frame more, of R objects: where their masks are sure."""
    sure = (tracked.object_score[:, 0] > 0) & (tracked.iou.amax(dim=1) > SURE)
    if not bool(sure.any()):
        return learned
    seen = observe(features, colours, tracked.low_res_logits)
    return learned.towards(seen, RENEWED * sure.float())


@_exactly
def likeness(known: Appearance, features: ImageFeatures, colours: Tensor) -> Tensor:
    """(R, 1, S/4, S/4): logit of how much every place of a frame looks like each object.

    Zero everywhere for one that was never seen.
    """
    ridge = torch.diag_embed(RIDGE * known.products.diagonal(dim1=1, dim2=2) + 1e-6)
    weights = torch.linalg.solve(known.products + ridge, known.sums)
    size = features.high_res[0].shape[-2:]
    scores = weights.new_zeros(len(weights), 1, *size)
    begin = 0
    for level in _levels(features, colours):  # linear, so each at its own size
        part = weights[:, begin : begin + level.shape[1]]
        begin += level.shape[1]
        score = torch.einsum("rc,rchw->rhw", part, level.expand(len(part), -1, -1, -1))
        scores = scores + _at_size(score[:, None], size)
    return torch.logit(((scores + 1) / 2).clamp(1 - CLEAREST, CLEAREST))


def _levels(features: ImageFeatures, colours: Tensor) -> tuple[Tensor, ...]:
    """What is known of every place, (R, c, h, w) float32, each at its size: first the colour.

    Colours come with their squares and products, so that a range of them can be told from others.
    """
    red, green, blue = colours.unbind(1)
    products = torch.stack([red * green, green * blue, blue * red], dim=1)
    constant = torch.ones_like(colours[:, :1])
    colour = torch.cat([constant, colours, colours**2, products], dim=1)
    return (colour, *(level.float() for level in (*features.high_res, features.top)))


def _at_size(level: Tensor, size: Sequence[int]) -> Tensor:
    """Averaged or interpolated to (h, w)."""
    rows = level.shape[-2]
    if rows > size[0]:
        return F.avg_pool2d(level, rows // size[0])
    if rows < size[0]:
        return F.interpolate(level, tuple(size), mode="bilinear")
    return level


def _of_one(weights: Tensor) -> Tensor:
    """(R, N), each row divided by its sum."""
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6)
