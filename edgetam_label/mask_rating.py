"""Which candidate of an ambiguous click is meant: rated by how the masks look.

A click on a sleeve may mean the sleeve, the coat or the person. The decoder predicts an IoU for
each candidate from one token; here that is corrected by what can be measured: how sure the mask is
of its pixels, where in it the click lies, whether the look at the whole frame had said the same.
For models whose config says `mask_rating`.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.modeling.mask_rater import FEATURES, MaskRater
from edgetam_label.prompt_decoding import Look
from edgetam_label.prompts import Click

Values = NDArray[np.float32]


def rated(rater: MaskRater, look: Look, first: Look, click: Click) -> Look:
    """An answer to one click with the IoU of its candidates predicted anew.

    first: what the same click was answered with on the whole frame.
    """
    features = torch.from_numpy(describe(look, first, click)).to(look.output.iou.device)
    iou = rater.rate(features)[None].to(look.output.iou)
    return replace(look, output=replace(look.output, iou=iou))


def describe(look: Look, first: Look, click: Click) -> Values:
    """(M, len(FEATURES)) float32 of an answer's candidates; see `rated`."""
    logits = look.output.low_res_logits[0].float().cpu().numpy()
    before = first.logits_on(look.crop)[0].float().cpu().numpy()
    iou = look.output.iou[0].float().cpu().numpy()
    rows = []
    for number, (values, drawn) in enumerate(zip(logits, _masks(look.drawn), strict=True)):
        depth, click_depth, off_centre = _position(drawn, look, click)
        alike = [_overlap(values > 0, other > 0) for other in np.delete(logits, number, axis=0)]
        agrees = [_overlap(values > 0, one > 0) for one in before]
        named = {
            "iou": iou[number],
            "object_score": float(look.output.object_score),
            "stability_1": _overlap(values > 1, values > -1),
            "stability_3": _overlap(values > 3, values > -3),
            "certainty": _certainty(values),
            "log_area": np.log(drawn.mean() + 1e-4),
            "depth": depth,
            "click_depth": click_depth,
            "click_depth_share": click_depth / depth if depth else 0.0,
            "click_off_centre": off_centre,
            "first_agrees": agrees[first.best_index],
            "any_first_agrees": max(agrees),
            "first_iou": float(first.output.iou.max()),
            "crop_width": look.crop.width / look.crop.frame.width,
            "most_alike": max(alike, default=0.0),
            "least_alike": min(alike, default=0.0),
        }
        rows.append([named[name] for name in FEATURES])
    return np.asarray(rows, np.float32)


def _masks(drawn: Tensor) -> NDArray[np.uint8]:
    return (drawn[0] > 0).cpu().numpy().astype(np.uint8)


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """IoU, 0 where both are empty."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def _certainty(logits: Values) -> float:
    inside = logits[logits > 0]
    return float((1 / (1 + np.exp(-inside))).mean()) if len(inside) else 0.0


def _position(mask: NDArray[np.uint8], look: Look, click: Click) -> tuple[float, float, float]:
    """How deep the mask is, how deep in it the click lies, and how far from its middle."""
    rows, columns = mask.shape
    crop = look.crop
    x = min(max(0, int((click.x - crop.x0) / crop.width * columns)), columns - 1)
    y = min(max(0, int((click.y - crop.y0) / crop.height * rows)), rows - 1)
    if mask.all():  # nothing to measure a distance to
        depths = np.full(mask.shape, columns / 2)
    else:
        depths = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 5))
    ys, xs = np.nonzero(mask)
    middle = (xs.mean(), ys.mean()) if len(xs) else (x, y)
    off_centre = np.hypot(x - middle[0], y - middle[1])
    return float(depths.max() / columns), float(depths[y, x] / columns), float(off_centre / columns)
