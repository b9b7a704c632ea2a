"""The guided filter of `edgetam_label/edges.py` as a function that gradients pass through.

A model whose masks are drawn to the picture's edges before anyone sees them is trained on the masks
that are seen. Same equations, for batches, at the size of the training targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import torch
import torch.nn.functional as F
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


def window_mean(planes: Tensor, radius: int) -> Tensor:
    """Means over windows of (2 radius + 1)², of their part inside: (..., H, W) → (..., H, W).

    OpenCV's filter reflects the border where this leaves it out: a difference of no weight.
    """
    if planes.device.type == "cpu":
        mean: Tensor = _WindowMean.apply(planes, radius)  # type: ignore[no-untyped-call]
        return mean
    flat = planes.flatten(0, -3)[:, None]
    pooled = F.avg_pool2d(flat, 2 * radius + 1, 1, radius, count_include_pad=False)
    return pooled.view_as(planes)


class _WindowMean(torch.autograd.Function):
    """On a CPU with running sums, by OpenCV: forty times as fast as average pooling."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, radius: int) -> Tensor:
        ctx.radius = radius
        return _window_sum(planes, radius) / _inside(planes, radius)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        # the matrix of the sums is symmetric
        return _window_sum(grad / _inside(grad, ctx.radius), ctx.radius), None


def _window_sum(planes: Tensor, radius: int) -> Tensor:
    flat = planes.detach().contiguous().flatten(0, -3)
    out = torch.empty_like(flat)
    side = (2 * radius + 1, 2 * radius + 1)
    for plane, sums in zip(flat.numpy(), out.numpy(), strict=True):
        cv2.boxFilter(plane, -1, side, sums, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return out.view_as(planes)


def _inside(planes: Tensor, radius: int) -> Tensor:
    """(H, W): how many pixels of the window around each one lie inside."""
    rows, columns = (
        torch.arange(side).add_(radius).clamp_(max=side - 1)
        - torch.arange(side).sub_(radius).clamp_(min=0)
        + 1
        for side in planes.shape[-2:]
    )
    return (rows[:, None] * columns).to(planes)


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


@dataclass(frozen=True)
class DrawnWindows:
    """Windows of N pictures for two looks at a mask.

    fine: at the size of the targets, for the mask that is learned from. coarse: on the grid of the
    logits, where three candidates are told apart at a quarter of the cost.
    """

    fine: Windows
    coarse: Windows

    @classmethod
    def of(cls, pictures: Tensor, cells: int) -> DrawnWindows:
        """pictures: (N, 3, H, W) in 0..255, of the targets' size. cells: of the logits' grid."""
        coarse = F.adaptive_avg_pool2d(pictures, (cells, cells))
        return cls(Windows.of(pictures, cells), Windows.of(coarse, cells))

    def __getitem__(self, rows: Tensor) -> DrawnWindows:
        return DrawnWindows(self.fine[rows], self.coarse[rows])


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
