"""Masks of a small network, drawn to the edges of the picture that they were made from.

A network of 320 px answers with logits on an 80 x 80 grid: on a frame of 1080p, one value for 24
pixels. The guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013) explains the mask
around every pixel by a linear function of the colours there, so that it changes where they do.
For models whose config says `refine_edges`; what a track remembers is left as the network drew it.
"""

from __future__ import annotations

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
    """Logits (1, 1, h, w) → (1, 1, S, S) values in about ±0.5, positive where the mask now is.

    picture: (S, S, 3) uint8, as the network saw it, stretched.
    """
    side = picture.shape[0]
    half = side // 2  # the lines are fitted there (He and Sun, "Fast Guided Filter", 2015)
    radius = max(1, round(RADIUS * half / low_res_logits.shape[-1]))
    logits = low_res_logits[0, 0].float().clamp(-LOGIT_RANGE, LOGIT_RANGE).cpu().numpy()
    large = cv2.resize(logits, (half, half), interpolation=cv2.INTER_LINEAR)
    probability = 1 / (1 + np.exp(-large))
    refined = np.full((side, side), -0.5, dtype=np.float32)
    seen = mask_to_box(probability > FAINT)
    if seen is not None:
        x0, y0 = (max(0, low - 2 * radius - 1) for low in seen[:2])
        x1, y1 = (min(half, high + 2 * radius + 1) for high in seen[2:])
        coarse, fine = np.s_[y0:y1, x0:x1], np.s_[2 * y0 : 2 * y1, 2 * x0 : 2 * x1]
        small = cv2.resize(picture[fine], (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
        values = probability[coarse].astype(np.float64)
        fitted = np.dstack((_lines(values, np.divide(small, 255.0), radius), values))
        size = (2 * (x1 - x0), 2 * (y1 - y0))
        lines = cv2.resize(fitted.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        colours, own = picture[fine] * np.float32(1 / 255), lines[..., 5]
        line = (lines[..., :3] * colours).sum(axis=-1) + lines[..., 3]
        refined[fine] = own + lines[..., 4] * (line - own) - 0.5
    return torch.from_numpy(refined)[None, None].to(low_res_logits.device)


def _lines(values: Planes, colours: Planes, radius: int) -> Planes:
    """`values` (H, W) as locally linear functions of `colours` (H, W, 3): equations 19 to 21.

    (H, W, 5): three slopes, the offset, and how far to trust them, 0..1.
    """

    def mean(planes: Planes) -> Planes:
        window = (2 * radius + 1, 2 * radius + 1)
        return np.asarray(cv2.boxFilter(planes, -1, window, borderType=cv2.BORDER_REFLECT))

    r, g, b = np.moveaxis(colours, -1, 0)
    mr, mg, mb = np.moveaxis(mean(colours), -1, 0)
    products = mean(np.dstack((r * r, r * g, r * b, g * g, g * b, b * b)))
    rr, rg, rb, gg, gb, bb = np.moveaxis(products, -1, 0)
    rr, gg, bb = rr - mr * mr + EVENNESS, gg - mg * mg + EVENNESS, bb - mb * mb + EVENNESS
    rg, rb, gb = rg - mr * mg, rb - mr * mb, gb - mg * mb
    # the inverse of the symmetric 3 x 3 covariance of every window, by its cofactors
    xx, xy, xz = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    yy, yz, zz = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    determinant = rr * xx + rg * xy + rb * xz

    means = mean(np.dstack((r * values, g * values, b * values, values, values * values)))
    vr, vg, vb, mv, vv = np.moveaxis(means, -1, 0)
    vr, vg, vb = vr - mr * mv, vg - mg * mv, vb - mb * mv
    ar = (xx * vr + xy * vg + xz * vb) / determinant
    ag = (xy * vr + yy * vg + yz * vb) / determinant
    ab = (xz * vr + yz * vg + zz * vb) / determinant
    offset = mv - ar * mr - ag * mg - ab * mb
    explained = (ar * vr + ag * vg + ab * vb) / (vv - mv * mv + FLAT)
    smooth = mean(np.dstack((ar, ag, ab, offset, explained)))
    ar, ag, ab, offset, explained = np.moveaxis(smooth, -1, 0)
    lines: Planes = np.dstack((ar, ag, ab, offset, np.clip(explained / EXPLAINED, 0, 1)))
    return lines
