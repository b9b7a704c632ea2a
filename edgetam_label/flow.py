"""Optical flow between neighbouring frames: carries a mask to the next frame.

Over frames that the network skips the carried mask is the answer; a model that was trained with it
takes it as a mask prompt (`flow_prompt` of its config).

Dense Inverse Search (Kroeger et al. 2016) on small grey pictures: a few milliseconds a frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.crops import Crop, Drawn, Located, seen_from
from edgetam_label.fusion import KEPT
from edgetam_label.predictor import LOGIT_LIMIT

# Side of the grey pictures, which are stretched as the network's input is. With 640, and without
# smoothing the flow afterwards, masks arrive better than with less and OpenCV's presets: smoothing
# drags a moving thing's edge along with what lies behind it (docs/training.md).
SIDE = 640
PATCH_STRIDE = 4

DIFFERS = 10.0  # grey levels between a pixel and where it came from that halve the trust in it
AROUND = 2.5  # pixels around it that are asked too (standard deviation)

Flow = NDArray[np.float32]
Grey = NDArray[np.uint8]


def grey_picture(frame: NDArray[np.uint8]) -> Grey:
    """(H, W, 3) uint8 RGB → (SIDE, SIDE) uint8."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


class FlowCarrier:
    """The masks of a pass on the frame before, moved to where they are now.

    Call `arrive` for every frame, then `carried` or `show` for each object.
    """

    def __init__(self) -> None:
        self._flow_between = FlowBetween()
        self._before: Grey | None = None
        self._now: Grey | None = None
        self._flow: Flow | None = None
        self._trust: NDArray[np.float32] | None = None
        self._shown: dict[int, Located] = {}
        self._old: dict[int, Located] = {}
        # an object is first moved on its old crop, to see where it is, and then on the new one
        self._moved: dict[tuple[int, Crop], Located] = {}

    def arrive(self, grey: Grey, flow: Flow | None = None) -> None:
        """Go on to the next frame of a pass. flow: from it to the one before, if known already."""
        self._before, self._now, self._flow, self._trust = self._now, grey, flow, None
        self._old, self._shown, self._moved = self._shown, {}, {}

    def show(self, obj_id: int, located: Located) -> None:
        """What an object's mask is on this frame."""
        # rounded as memories are, so that a pass that begins from one goes on in the same way
        mask = located.mask
        logits = mask.low_res_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).half().float()
        self._shown[obj_id] = replace(located, mask=replace(mask, low_res_logits=logits))

    def before(self, obj_id: int) -> Located | None:
        """What an object's mask was on the frame before, None if there was none."""
        return None if self._before is None else self._old.get(obj_id)

    def carried(self, obj_id: int, crop: Crop) -> Located | None:
        """An object's mask moved here from the frame before, on a crop of this frame.

        Its `iou` is what is to be expected of it after the move.
        """
        old = self.before(obj_id)
        if old is None or self._now is None:
            return None
        if old.absent:
            return replace(old, crop=crop)
        if (obj_id, crop) not in self._moved:
            self._moved[obj_id, crop] = self._move(old, crop)
        return self._moved[obj_id, crop]

    def _move(self, old: Located, crop: Crop) -> Located:
        assert self._now is not None
        if self._flow is None:  # once for all objects
            assert self._before is not None
            self._flow = self._flow_between(self._now, self._before)
        logits = carry(old.mask.low_res_logits, self._flow, old.crop, crop)
        drawn = None if old.drawn is None else _carry_drawn(old.drawn, self._flow, old.crop, crop)
        return Located(
            replace(old.mask, low_res_logits=logits, iou=old.mask.iou * KEPT), crop, drawn
        )

    def trust(self, crop: Crop, side: int) -> NDArray[np.float32]:
        """(side, side) of a crop, 0..1: how far this frame looks as the flow to it says.

        Little where something has come before an object, or the flow has lost it. Ones where no
        flow was given or has been asked for.
        """
        if self._flow is None or self._now is None or self._before is None:
            return np.ones((side, side), np.float32)
        if self._trust is None:
            self._trust = agreement(self._now, self._before, self._flow)
        return seen_from(self._trust, crop.frame, crop, (side, side))


class FlowBetween:
    """The flow from one grey picture to another."""

    def __init__(self) -> None:
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._dis.setPatchStride(PATCH_STRIDE)
        self._dis.setVariationalRefinementIterations(0)

    def __call__(self, now: Grey, before: Grey) -> Flow:
        """(SIDE, SIDE, 2): what is at p in `now` was at p + flow[p] in `before`."""
        flow: Flow = self._dis.calc(now, before, None)
        return flow


def carry(
    low_res_logits: Tensor, flow: Flow, before: Crop | None = None, now: Crop | None = None
) -> Tensor:
    """Logits (1, 1, h, w) of the frame before, moved along what `FlowBetween` gave.

    before, now: the crops that they lie on and shall lie on; None stands for the whole frame.
    """
    logits = low_res_logits[0, 0].float().cpu().numpy()
    height, width = logits.shape
    if (before is None or before.is_whole) and (now is None or now.is_whole):
        scale = np.array([width / SIDE, height / SIDE], dtype=np.float32)
        steps = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * scale
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        x, y = x + steps[..., 0], y + steps[..., 1]
    else:
        assert before is not None and now is not None
        x, y = _cells_before(flow, before, now, height, width)
    moved = cv2.remap(logits, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(moved)[None, None].to(low_res_logits.device)


def agreement(now: Grey, before: Grey, flow: Flow) -> NDArray[np.float32]:
    """(SIDE, SIDE) in 0..1: how far `now` looks as `before` and the flow between them say."""
    x, y = np.meshgrid(*[np.arange(SIDE, dtype=np.float32)] * 2)
    moved = cv2.remap(
        before,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    differs = cv2.GaussianBlur(cv2.absdiff(moved, now).astype(np.float32), (0, 0), AROUND)
    return np.asarray(1 / (1 + (differs / DIFFERS) ** 2), np.float32)


def _carry_drawn(drawn: Drawn, flow: Flow, before: Crop, now: Crop) -> Drawn:
    x, y = _cells_before(flow, before, now, *drawn.shape)
    moved = cv2.remap(drawn, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _cells_before(
    flow: Flow, before: Crop, now: Crop, height: int, width: int
) -> tuple[Flow, Flow]:
    """x and y, (height, width): where the cells of one crop were on the other's grid."""
    across, down = now.frame_width / SIDE, now.frame_height / SIDE  # pixels of the frame per step
    x = now.x0 + (np.arange(width, dtype=np.float32) + 0.5) * np.float32(now.width / width)
    y = now.y0 + (np.arange(height, dtype=np.float32) + 0.5) * np.float32(now.height / height)
    x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    steps = cv2.remap(
        flow,
        np.asarray(x / across - 0.5, np.float32),
        np.asarray(y / down - 0.5, np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    x = (x + steps[..., 0] * across - before.x0) * (width / before.width) - 0.5
    y = (y + steps[..., 1] * down - before.y0) * (height / before.height) - 0.5
    return np.asarray(x, np.float32), np.asarray(y, np.float32)
