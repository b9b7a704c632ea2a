"""Masks of a small network, drawn to the edges of the picture that they were made from.

A network of 320 px answers with logits on an 80 x 80 grid: on a frame of 1080p, one value for 24
pixels. The guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013) explains the mask
around every pixel by a linear function of the colours there, so that it changes where they do.
For models whose config says `refine_edges`; what a track remembers is left as the network drew it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.masks import mask_to_box

RADIUS = 4  # of the windows, in cells of the logits' grid; chosen by measurement, docs/training.md
EVENNESS = 1e-5  # variance of colours in 0..1 below which a window counts as even
# Where colours explain less than this share of a mask's variance there is no edge to follow, and
# the filter would but blur the mask; it fades out there.
EXPLAINED = 0.25
FAINT = 0.02  # probability below which a pixel is too far from the mask to matter
FLAT = 1e-6  # variance of a mask that does not change within a window
LOGIT_RANGE = 16.0  # beyond it a probability is 0 or 1 as far as the filter can see

# Doubles: in a grey picture all channels are one, and the covariance is all but singular.
Planes = NDArray[np.float64]


def refine_edges(low_res_logits: Tensor, picture: NDArray[np.uint8]) -> Tensor:
    """Logits (1, M, h, w) → (1, M, S, S) values in about ±0.5, positive where each mask now is.

    picture: (S, S, 3) uint8, as the network saw it, stretched.
    """
    side = picture.shape[0]
    half = side // 2  # the lines are fitted there (He and Sun, "Fast Guided Filter", 2015)
    radius = max(1, round(RADIUS * half / low_res_logits.shape[-1]))
    logits = low_res_logits[0].float().clamp(-LOGIT_RANGE, LOGIT_RANGE).cpu().numpy()
    large = [cv2.resize(one, (half, half), interpolation=cv2.INTER_LINEAR) for one in logits]
    probabilities = 1 / (1 + np.exp(-np.stack(large)))
    refined = np.full((len(logits), side, side), -0.5, dtype=np.float32)
    seen = mask_to_box((probabilities > FAINT).any(axis=0))
    if seen is not None:
        x0, y0 = (max(0, low - 2 * radius - 1) for low in seen[:2])
        x1, y1 = (min(half, high + 2 * radius + 1) for high in seen[2:])
        fine = np.s_[2 * y0 : 2 * y1, 2 * x0 : 2 * x1]
        size = (2 * (x1 - x0), 2 * (y1 - y0))
        small = cv2.resize(picture[fine], (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        windows = _Windows.of(np.divide(small, 255.0), radius)
        colours = cv2.split(picture[fine] * np.float32(1 / 255))
        for one, out in zip(probabilities[:, y0:y1, x0:x1], refined, strict=True):
            values = one.astype(np.float64)
            fitted = (*windows.lines(values), values)
            r, g, b, offset, trust, own = (_enlarged(plane, size) for plane in fitted)
            line = r * colours[0] + g * colours[1] + b * colours[2] + offset
            out[fine] = own + trust * (line - own) - 0.5
    return torch.from_numpy(refined)[None].to(low_res_logits.device)


@dataclass(frozen=True)
class _Windows:
    """What the windows around all pixels hold of colours, whatever the mask.

    colours, means: three planes (H, W). inverse: of the windows' covariances, the planes of rr, rg,
    rb, gg, gb and bb.
    """

    colours: tuple[Planes, ...]
    means: tuple[Planes, ...]
    inverse: tuple[Planes, ...]
    radius: int

    @classmethod
    def of(cls, picture: Planes, radius: int) -> _Windows:
        """picture: (H, W, 3) in 0..1."""
        r, g, b = colours = tuple(np.ascontiguousarray(c) for c in np.moveaxis(picture, -1, 0))
        mr, mg, mb = means = tuple(_mean(c, radius) for c in colours)
        rr, gg, bb = (
            _mean(c * c, radius) - m * m + EVENNESS for c, m in zip(colours, means, strict=True)
        )
        rg, rb = _mean(r * g, radius) - mr * mg, _mean(r * b, radius) - mr * mb
        gb = _mean(g * b, radius) - mg * mb
        return cls(colours, means, symmetric_inverse(rr, rg, rb, gg, gb, bb), radius)

    def lines(self, values: Planes) -> tuple[Planes, ...]:
        """`values` (H, W) as locally linear functions of the colours: equations 19 to 21.

        Planes (H, W): three slopes, the offset, and how far to trust them, 0..1.
        """
        radius = self.radius
        mv, vv = _mean(values, radius), _mean(values * values, radius)
        vr, vg, vb = (
            _mean(c * values, radius) - m * mv
            for c, m in zip(self.colours, self.means, strict=True)
        )
        ar, ag, ab = symmetric_product(self.inverse, vr, vg, vb)
        mr, mg, mb = self.means
        offset = mv - ar * mr - ag * mg - ab * mb
        explained = (ar * vr + ag * vg + ab * vb) / (vv - mv * mv + FLAT)
        trust = np.clip(_mean(explained, radius) / EXPLAINED, 0, 1)
        return (*(_mean(plane, radius) for plane in (ar, ag, ab, offset)), trust)


def symmetric_inverse(rr: Any, rg: Any, rb: Any, gg: Any, gb: Any, bb: Any) -> tuple[Any, ...]:
    """The same six elements of the inverse of symmetric 3 x 3 matrices, by their cofactors.

    Planes of one matrix per pixel, arrays or tensors.
    """
    xx, xy, xz = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    yy, yz, zz = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    scale = 1 / (rr * xx + rg * xy + rb * xz)
    return tuple(cofactor * scale for cofactor in (xx, xy, xz, yy, yz, zz))


def symmetric_product(matrix: Iterable[Any], r: Any, g: Any, b: Any) -> tuple[Any, Any, Any]:
    """Matrices as `symmetric_inverse` gives them, times the vectors (r, g, b)."""
    xx, xy, xz, yy, yz, zz = matrix
    return (
        xx * r + xy * g + xz * b,
        xy * r + yy * g + yz * b,
        xz * r + yz * g + zz * b,
    )


def _mean(plane: Planes, radius: int) -> Planes:
    window = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.boxFilter(plane, -1, window, borderType=cv2.BORDER_REFLECT))


def _enlarged(plane: Planes, size: tuple[int, int]) -> NDArray[np.float32]:
    small = plane.astype(np.float32)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
