"""Of a mask that was asked for by clicks, what each click says: the clicked pixel is right.

A small network often answers a click near the edge of a mask with the same mask again. Where a
click is left on the wrong side, what looks like it around it follows it, as far as the mask's edge
lets expect. For models whose config says `honour_clicks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.prompts import Click

# Chosen by measurement, on other scenes than those of the model card: docs/training.md.
REACH = 3.0  # of a click, in distances to the nearest pixel that is on its side already
LEAST, MOST = 1.5, 1 / 8  # of the reach: in pixels of the drawn mask, in sides of it
ALIKE = 20.0  # difference in 8-bit Lab up to which a pixel looks like the clicked one
DOUBT = 2.0  # by which logits may be more surely wrong than where the click is
SURE, DRAWN = 4.0, 0.3  # the least that a click makes of a logit, of a value drawn to edges

Values = NDArray[np.float32]


@dataclass(frozen=True)
class _Spot:
    """A click on the grid of a drawn mask: x, y of the pixel's middle, from the first cell's."""

    x: float
    y: float
    sign: int

    @property
    def cell(self) -> tuple[int, int]:
        """Column and row."""
        return round(self.x), round(self.y)


def honour_clicks(
    low_res_logits: Tensor,
    drawn: Tensor,
    clicks: Sequence[Click],
    width: float,
    height: float,
    picture: NDArray[np.uint8] | None,
) -> tuple[Tensor, Tensor]:
    """Logits and masks on which every click is on its own side.

    low_res_logits: (1, M, h, w). drawn: (1, M, H, W), positive where the masks are as they are
    shown: drawn to the edges of a picture, or the logits themselves. clicks: in pixels of the
    width x height frame; of two that contradict each other the later one is honoured. picture:
    (S, S, 3) uint8 RGB, the frame, stretched; None: looks do not matter. Where every click is on
    its side already, what was given is returned.
    """
    rows, columns = drawn.shape[-2:]
    spots = [_spot(click, columns / width, rows / height, columns, rows) for click in clicks]
    masks = drawn[0].float().cpu().numpy()
    is_logits = drawn is low_res_logits
    level = SURE if is_logits else DRAWN
    if not any(_is_wrong(mask, spot, level) for mask in masks for spot in spots):
        return low_res_logits, drawn
    masks, logits = masks.copy(), low_res_logits[0].float().cpu().numpy().copy()
    colours = None if picture is None else _colours(picture, columns, rows)
    for mask, values in zip(masks, logits, strict=True):
        for spot in spots:
            if _is_wrong(mask, spot, level):
                region = _region(spot, _reach(spot, mask, spots), values, colours, mask.shape)
                _decide(mask, region, spot.sign, level)
                size = values.shape[::-1]
                share = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
                _decide(values, np.asarray(share, np.float32), spot.sign, SURE)
    changed = torch.from_numpy(logits)[None].to(low_res_logits)
    return changed, changed if is_logits else torch.from_numpy(masks)[None].to(drawn)


def _spot(click: Click, across: float, down: float, columns: int, rows: int) -> _Spot:
    x, y = (click.x + 0.5) * across - 0.5, (click.y + 0.5) * down - 0.5
    return _Spot(min(max(x, 0), columns - 1), min(max(y, 0), rows - 1), 1 if click.positive else -1)


def _is_wrong(mask: Values, spot: _Spot, level: float) -> bool:
    """Whether the pixel is on the wrong side when the mask is enlarged to the frame."""
    x, y = np.full((1, 1), spot.x, np.float32), np.full((1, 1), spot.y, np.float32)
    value = cv2.remap(mask, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0, 0]
    return bool(value * spot.sign <= level / 10)


def _colours(picture: NDArray[np.uint8], columns: int, rows: int) -> Values:
    seen = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGB2LAB), np.float32)


def _reach(spot: _Spot, mask: Values, spots: Sequence[_Spot]) -> float:
    """How far around a click pixels may follow it: at most half-way to one of the other kind."""
    (x, y), wrong = spot.cell, (mask * spot.sign <= 0).astype(np.uint8)
    away = cv2.distanceTransform(wrong, cv2.DIST_L2, 5)
    reach: float = min(max(LEAST, REACH * float(away[y, x])), MOST * max(mask.shape))
    for other in spots:
        if other.sign != spot.sign:
            reach = min(reach, max(LEAST, hypot(other.x - spot.x, other.y - spot.y) / 2))
    return reach


def _region(
    spot: _Spot, reach: float, logits: Values, colours: Values | None, shape: tuple[int, ...]
) -> Values:
    """(H, W) of 0 and 1: what follows a click, being near, alike and not more surely wrong."""
    rows, columns = shape
    x, y = spot.cell
    down, across = np.ogrid[:rows, :columns]
    near = (across - x) ** 2 + (down - y) ** 2 <= reach**2
    sided = cv2.resize(logits * spot.sign, (columns, rows), interpolation=cv2.INTER_LINEAR)
    follows = sided >= sided[y, x] - DOUBT
    beside = np.s_[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
    if colours is not None:
        clicked = colours[beside].reshape(-1, 3).mean(0)
        follows &= ((colours - clicked) ** 2).sum(-1) <= ALIKE**2
    follows[beside] = True
    _, parts = cv2.connectedComponents((near & follows).astype(np.uint8), connectivity=8)
    return np.asarray(parts == parts[y, x], np.float32)


def _decide(values: Values, share: Values, sign: int, level: float) -> None:
    """Move values to one side, as far as they are within a share."""
    values += share * (sign * np.maximum(values * sign, level) - values)
