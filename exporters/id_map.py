"""Overlapping masks onto one id per pixel, by a stated policy, with every cut reported."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .dataset import ExportOptions, FrameOfMasks, Video

if TYPE_CHECKING:
    from edgetam_label.session_types import FrameMask

POLICIES = ("highest-id", "score", "z-order")
IdMap = NDArray[np.uint16]


def compose(
    video: Video,
    frame: FrameOfMasks,
    options: ExportOptions,
    values: Mapping[int, int] = MappingProxyType({}),
) -> tuple[IdMap, dict[int, int]]:
    """The (H, W) map of object ids of one frame, 0 for background, and the visible area by obj_id.

    values: pixel value by obj_id where it is not the dataset id. Objects without a pixel left are
    missing from the areas. Tells the video's ledger of each mask whether it is written whole, cut,
    or hidden altogether.
    """
    ids: IdMap = np.zeros((video.height, video.width), dtype=np.uint16)
    value_of = {
        mask.obj_id: values.get(mask.obj_id, video.by_obj_id[mask.obj_id].dataset_id)
        for mask in frame.masks
    }
    for mask in draw_order(video, frame, options):
        ids[mask.rle.decode()] = value_of[mask.obj_id]
    areas: dict[int, int] = {}
    for mask in frame.masks:
        area = int(np.count_nonzero(ids == value_of[mask.obj_id]))
        if area == mask.rle.area:
            video.written(mask)
        elif area:
            video.converted(mask, f"overlap: pixels given to another object ({options.overlap})")
        else:
            video.refused(
                mask, f"overlap: every pixel belongs to another object ({options.overlap})"
            )
        if area:
            areas[mask.obj_id] = area
    return ids, areas


def draw_order(video: Video, frame: FrameOfMasks, options: ExportOptions) -> list[FrameMask]:
    """Bottom first. Ties go to the higher id, so that the result is always the same."""

    def key(mask: FrameMask) -> tuple[float, int]:
        if options.overlap == "score":
            # An unknown score (an imported or drawn mask) is a person's word: it goes on top.
            return (np.inf if np.isnan(mask.score) else mask.score), mask.obj_id
        if options.overlap == "z-order":
            label = video.by_obj_id[mask.obj_id].label
            return options.z_order.index(label) if label in options.z_order else -1, mask.obj_id
        return 0, mask.obj_id

    return sorted(frame.masks, key=key)
