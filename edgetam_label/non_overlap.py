"""Objects of a frame do not share pixels: what several claim goes to the surest of them.

Each is looked for as if it were alone. Where two meet, both may claim the same pixels, and the one
that is wrong there would be taught so by its own mask from then on. For models whose config says
`non_overlap`. What was chosen by measurement is in docs/training.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
import torch
from numpy.typing import NDArray

from edgetam_label.crops import (
    ABSENT_SCORE,
    Bounds,
    Crop,
    Drawn,
    Located,
    bounds_of,
    seen_from,
)
from edgetam_label.fusion import averaged, drawn_mask, drawn_of
from edgetam_label.masks import Mask, mask_to_box

Shares = NDArray[np.float32]  # (S, S) of a crop, each in 0..1

SUREST = 0.998  # no claim counts for more
SLIGHT = 0.05  # what is no likelier than this is not claimed at all
GIVEN = 1e12  # times the odds of a mask that a person gave
EARLIER = 1.02  # times those of an object, against the next one: so equal claims have a winner
# What was an object's on the frame before has its odds multiplied by the square of the odds that it
# was, which are bounded by those of WAS.
WAS, STANDING = 0.95, 2
STORED = 0.9  # how sure a mask is that was tracked at another time
# Of its mask an object must keep this share, or it is taken to be hidden by the others.
SEEN = 0.3
TOUCHED = 0.99  # the mask of cells of which less is left is written anew


@dataclass(frozen=True)
class _Claim:
    """An object's claim to pixels of a crop.

    drawn: how likely each is its own, of 255. was: the same of the frame before, moved here.
    bounds: of all pixels that are at all likely. weight: a factor of all odds.
    """

    drawn: Drawn
    was: Drawn | None
    crop: Crop
    bounds: Bounds
    weight: float

    def contested(self, other: _Claim) -> tuple[slice, slice] | None:
        """Rows and columns that hold all that both claim; None where they do not meet."""
        rows, columns = self.drawn.shape
        high = _cells(self.bounds[1::2], other.bounds[1::2], self.crop.y0, self.crop.height, rows)
        wide = _cells(self.bounds[::2], other.bounds[::2], self.crop.x0, self.crop.width, columns)
        return None if high is None or wide is None else (high, wide)

    def within(self, rows: slice, columns: slice) -> tuple[Shares, Shares]:
        """How likely those pixels are the object's, and the odds by which claims are compared."""
        was = None if self.was is None else self.was[rows, columns]
        return _likely_and_odds(self.drawn[rows, columns], was, self.weight)

    def seen_by(self, other: _Claim, rows: slice, columns: slice) -> tuple[Shares, Shares]:
        """The same of this object on rows and columns of another one's crop."""
        if self.crop == other.crop:
            return self.within(rows, columns)
        crop, (down, across) = other.crop, other.drawn.shape
        wide, high = crop.width / across, crop.height / down
        part = replace(
            crop,
            x0=crop.x0 + columns.start * wide, x1=crop.x0 + columns.stop * wide,
            y0=crop.y0 + rows.start * high, y1=crop.y0 + rows.stop * high,
        )  # fmt: skip
        size = (columns.stop - columns.start, rows.stop - rows.start)
        was = None if self.was is None else seen_from(self.was, self.crop, part, size)
        return _likely_and_odds(seen_from(self.drawn, self.crop, part, size), was, self.weight)


def settle(
    found: Mapping[int, Located],
    before: Mapping[int, Located],
    given: Collection[int],
    side: int,
    beside: Iterable[tuple[Crop, Drawn]] = (),
) -> dict[int, Located]:
    """The objects of a frame, each without what another has the better claim to.

    found: by object, on crops of one frame; of equal claims the first one's is the better. before:
    the masks of the last frame, moved here, on the same crops, of those that had one: what was an
    object's is the more its own. given: those whose mask is a person's; they yield nothing. side:
    pixels of a crop's side at which claims are compared. beside: what others have that are not
    settled here, and keep it.

    An object that keeps next to nothing of its mask is absent in the result: what it was taken for
    is another.
    """
    claims = {}
    for rank, (obj_id, located) in enumerate(found.items()):
        if located.absent:
            continue
        weight = EARLIER**-rank * (GIVEN if obj_id in given else 1.0)
        was = before.get(obj_id)
        drawn_before = None if was is None else drawn_of(was, side)
        claim = _claim(located.crop, drawn_of(located, side), drawn_before, weight)
        if claim is not None:
            claims[obj_id] = claim
    # what stays where it is was there before
    kept = [_claim(crop, drawn, drawn, EARLIER ** -len(found)) for crop, drawn in beside]
    standing = [claim for claim in kept if claim is not None]
    settled = dict(found)
    for obj_id, claim in claims.items():
        if obj_id not in given:
            others = [other for number, other in claims.items() if number != obj_id]
            left = _left_by([*others, *standing], claim)
            settled[obj_id] = _reduced(found[obj_id], claim, left)
    return settled


def kept_beside(mask: Mask, side: int) -> tuple[Crop, Drawn] | None:
    """A mask (H, W) of an object that is not tracked now, as `settle` takes it; None if empty."""
    box = mask_to_box(mask)
    if box is None:
        return None
    height, width = mask.shape
    crop = Crop(*box, width, height)
    drawn = drawn_mask(mask, crop, side)
    return crop, np.rint(drawn * np.float32(STORED)).astype(np.uint8)


def _claim(crop: Crop, drawn: Drawn, was: Drawn | None, weight: float) -> _Claim | None:
    bounds = bounds_of(drawn > 255 * SLIGHT, crop)
    if bounds is None:
        return None
    # large things swallow small ones, a person a bag, more readily than the other way round
    size = float(drawn.mean()) * crop.width * crop.height / (crop.frame_width * crop.frame_height)
    return _Claim(drawn, was, crop, bounds, weight / size)


def _cells(
    own: Sequence[float], other: Sequence[float], start: float, length: float, count: int
) -> slice | None:
    """Which of `count` cells along a crop's side lie in both spans, (first, last) each."""
    scale = count / length
    first = max(0, floor((max(own[0], other[0]) - start) * scale))
    last = min(count, ceil((min(own[1], other[1]) - start) * scale))
    return slice(first, last) if first < last else None


def _likely_and_odds(drawn: Drawn, was: Drawn | None, weight: float) -> tuple[Shares, Shares]:
    likely = _bounded(drawn, SUREST)
    odds = np.float32(weight) * likely / (1 - likely)
    if was is not None:
        before = _bounded(was, WAS)
        odds *= (before / (1 - before)) ** STANDING
    return likely, odds


def _bounded(drawn: Drawn, most: float) -> Shares:
    return np.clip(drawn / np.float32(255), np.float32(1 - most), np.float32(most))


def _left_by(others: Iterable[_Claim], claim: _Claim) -> Shares | None:
    """The share of every pixel of a claim that the others leave; None where they leave all.

    The better claim stands; of the worse one as much is left as the better one may be wrong.
    """
    left: Shares | None = None
    for other in others:
        contested = claim.contested(other)
        if contested is None:
            continue
        own_likely, own_odds = claim.within(*contested)
        likely, odds = other.seen_by(claim, *contested)
        better = (likely > 0.5) & (own_likely > SLIGHT) & (odds > own_odds)
        if better.any():
            if left is None:
                left = np.ones(claim.drawn.shape, np.float32)
            left[contested] *= np.where(better, 1 - likely, np.float32(1))
    return left


def _reduced(located: Located, claim: _Claim, left: Shares | None) -> Located:
    """An object without what was taken from it."""
    if left is None:
        return located
    mask, drawn = located.mask, located.drawn
    logits, score = mask.low_res_logits, mask.object_score
    shares = averaged(left, logits)
    reduced = torch.logit((logits.sigmoid() * shares).clamp(1e-4, 1 - 1e-4))
    logits = torch.where(shares < TOUCHED, reduced, logits)
    kept = np.rint(claim.drawn * left).astype(np.uint8)
    if np.count_nonzero(kept > 127) < SEEN * np.count_nonzero(claim.drawn > 127):
        score = score.clamp(max=ABSENT_SCORE)
    if drawn is not None:
        drawn = kept
    return Located(replace(mask, low_res_logits=logits, object_score=score), located.crop, drawn)
