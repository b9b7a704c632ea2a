"""The guided filter of `edgetam_label/edges.py` as a function that gradients pass through.

A model whose masks are drawn to the picture's edges before anyone sees them is trained on the masks
that are seen. Same equations, for batches, at the size of the training targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from edgetam_label.edges import (
    EVENNESS,
    EXPLAINED,
    FLAT,
    RADIUS,
    symmetric_inverse,
    symmetric_product,
)

# A refined value of 0.5 ± 0.5 as a logit: ±4, so that a mask far from its limit is not pushed on.
STEEPNESS = 8.0


@cache
def window_matrix(side: int, radius: int) -> Tensor:
    """(side, side): row i averages 2 radius + 1 neighbours of pixel i, reflected at both ends.

    The border pixel itself is not repeated, as it is by OpenCV's filter: a difference of no weight.
    """
    pixels = torch.arange(-radius, side + radius).abs()
    pixels = torch.where(pixels >= side, 2 * (side - 1) - pixels, pixels)
    around = pixels.unfold(0, 2 * radius + 1, 1)
    counts = torch.zeros(side, side, dtype=torch.float64)
    counts.scatter_add_(1, around, torch.ones_like(around, dtype=torch.float64))
    return counts / (2 * radius + 1)


def window_mean(planes: Tensor, radius: int) -> Tensor:
    """Means over (2 radius + 1)² windows, borders reflected: (..., H, W) → (..., H, W).

    Two matrix products: many more sums than running ones, and yet several times faster to train.
    """
    height, width = planes.shape[-2:]
    with torch.autocast(planes.device.type, enabled=False):
        rows = window_matrix(height, radius).to(planes)
        columns = window_matrix(width, radius).to(planes)
        return rows @ planes @ columns.T


@dataclass(frozen=True)
class Windows:
    """What the windows of N pictures hold of colours, whatever the mask.

    colours, means: (N, 3, H, W). inverse: (N, 6, H, W), of the covariances. radius: pixels.
    """

    colours: Tensor
    means: Tensor
    inverse: Tensor
    radius: int

    @classmethod
    @torch.no_grad()
    def of(cls, pictures: Tensor, cells: int) -> Windows:
        """pictures: (N, 3, H, W) in 0..255. cells: side of the grid of the logits to refine."""
        radius = max(1, round(RADIUS * pictures.shape[-1] / cells))
        colours = pictures.double() / 255  # a grey picture's covariance is all but singular
        means = window_mean(colours, radius)
        r, g, b = colours.unbind(1)
        mr, mg, mb = means.unbind(1)
        rr = window_mean(r * r, radius) - mr * mr + EVENNESS
        gg = window_mean(g * g, radius) - mg * mg + EVENNESS
        bb = window_mean(b * b, radius) - mb * mb + EVENNESS
        rg, rb = window_mean(r * g, radius) - mr * mg, window_mean(r * b, radius) - mr * mb
        gb = window_mean(g * b, radius) - mg * mb
        inverse = torch.stack(symmetric_inverse(rr, rg, rb, gg, gb, bb), 1)
        return cls(colours.float(), means.float(), inverse.float(), radius)

    def __getitem__(self, rows: Tensor) -> Windows:
        return Windows(self.colours[rows], self.means[rows], self.inverse[rows], self.radius)


def soft_edges(logits: Tensor, windows: Windows) -> Tensor:
    """Logits (N, M, H, W) → logits of the masks as they will be drawn; N pictures, M masks each."""
    w = windows
    v = logits.float().sigmoid()
    colours, means = w.colours[:, None], w.means[:, None]
    planes = torch.cat([v[:, :, None], v[:, :, None] ** 2, colours * v[:, :, None]], 2)
    mean = window_mean(planes, w.radius)
    mv, vv = mean[:, :, 0], mean[:, :, 1]
    with_colours = mean[:, :, 2:] - means * mean[:, :, :1]
    vr, vg, vb = with_colours.unbind(2)
    slopes = torch.stack(symmetric_product(w.inverse[:, None].unbind(2), vr, vg, vb), 2)
    offset = mv - (slopes * means).sum(2)
    with torch.no_grad():
        explained = (slopes * with_colours).sum(2) / (vv - mv * mv + FLAT)
        trust = (window_mean(explained, w.radius) / EXPLAINED).clamp(0, 1)
    smooth = window_mean(torch.cat([slopes, offset[:, :, None]], 2), w.radius)
    line = (smooth[:, :, :3] * colours).sum(2) + smooth[:, :, 3]
    return STEEPNESS * (v + trust * (line - v) - 0.5)
