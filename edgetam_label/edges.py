"""Masks of a small network, drawn to the edges of the picture that they were made from.

A network of 320 px answers with logits on an 80 x 80 grid: on a frame of 1080p, one value for 24
pixels. The guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013) explains the mask
around every pixel by a linear function of the colours there, so that it changes where they do.
For models whose config says `refine_edges`: both what a person sees and what a track remembers.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.masks import mask_to_box

RADIUS = 4  # of the windows, in cells of the logits' grid; chosen by measurement, docs/training.md
EVENNESS = 1e-5  # variance of colours in 0..1 below which a window counts as even
# Where colours explain less than this share of a mask's variance there is no edge to follow, and
# the filter would but blur the mask; it fades out there.
EXPLAINED = 0.25
BLEND = 0.5  # share of the refined mask in what is remembered
FAINT = 0.02  # probability below which a pixel is too far from the mask to matter
CERTAIN = 1e-3  # a refined probability is kept that far from 0 and 1
FLAT = 1e-6  # variance of a mask that does not change within a window
LOGIT_RANGE = 16.0  # beyond it a probability is 0 or 1 as far as the filter can see

# Doubles: in a grey picture all channels are one, and the covariance is all but singular.
Planes = NDArray[np.float64]


def refine_edges(low_res_logits: Tensor, picture: NDArray[np.uint8]) -> Tensor:
    """Logits (1, 1, h, w) → (1, 1, S, S) values in about ±0.5, positive where the mask now is.

    picture: (S, S, 3) uint8, as the network saw it, stretched.
    """
    side = picture.shape[0]
    radius = max(1, round(RADIUS * side / low_res_logits.shape[-1]))
    logits = low_res_logits[0, 0].float().clamp(-LOGIT_RANGE, LOGIT_RANGE).cpu().numpy()
    large = cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)
    probability = 1 / (1 + np.exp(-large.astype(np.float64)))
    refined = np.full((side, side), -0.5, dtype=np.float32)
    seen = mask_to_box(probability > FAINT)
    if seen is not None:
        x0, y0 = (max(0, low - 2 * radius - 1) for low in seen[:2])
        x1, y1 = (high + 2 * radius + 1 for high in seen[2:])
        part = np.s_[y0:y1, x0:x1]
        refined[part] = _filter(probability[part], picture[part] / 255.0, radius) - 0.5
    return torch.from_numpy(refined)[None, None].to(low_res_logits.device)


def sharpen(low_res_logits: Tensor, picture: NDArray[np.uint8]) -> Tensor:
    """Logits (1, 1, h, w) → the same size, half way to what `refine_edges` makes of them."""
    size = low_res_logits.shape[-2:]
    refined = refine_edges(low_res_logits, picture)
    probability = F.interpolate(refined, size, mode="area") + 0.5
    refined = torch.logit(probability.clamp(CERTAIN, 1 - CERTAIN))
    return torch.lerp(low_res_logits.float(), refined, BLEND)


def _filter(values: Planes, colours: Planes, radius: int) -> Planes:
    """`values` (H, W) as a locally linear function of `colours` (H, W, 3): equations 19 to 21,

    weighed against the values themselves by how much of their variance the colours explain.
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
    trust = np.clip(explained / EXPLAINED, 0, 1)
    filtered: Planes = values + trust * (ar * r + ag * g + ab * b + offset - values)
    return filtered
