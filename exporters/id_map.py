"""Overlapping masks onto one id per pixel, by a stated policy, with every cut reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.errors import ExportError
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask

from .dataset import ExportOptions, FrameOfMasks, Video

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
    ids = draw(video, frame, options, values)
    areas: dict[int, int] = {}
    pixels = np.bincount(ids.ravel(), minlength=1 << 16)
    for mask in frame.masks:
        area = int(pixels[_value(video, mask, values)])
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


def draw(
    video: Video, frame: FrameOfMasks, options: ExportOptions, values: Mapping[int, int]
) -> IdMap:
    """The (H, W) map of object ids of one frame, unaccounted."""
    ids: IdMap = np.zeros((video.height, video.width), dtype=np.uint16)
    for mask in draw_order(video, frame, options):
        box = mask.rle.box
        if box is not None:  # only its box: most masks are small beside the frame
            part = slice(box[1], box[3]), slice(box[0], box[2])
            ids[part][mask.rle.decode()[part]] = _value(video, mask, values)
    return ids


def _value(video: Video, mask: FrameMask, values: Mapping[int, int]) -> int:
    return values.get(mask.obj_id, video.by_obj_id[mask.obj_id].dataset_id)


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


def read_id_map(path: Path) -> NDArray[np.uint16]:
    """The pixel values (H, W) of a palette, 8-bit or 16-bit grey PNG.

    Raises ExportError naming the file if it is damaged or holds colours in place of ids.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "I;16", "I"):
                raise ExportError(
                    f"{path} holds colours (mode {image.mode}), not object ids; "
                    "convert it to a palette PNG whose indices are the ids."
                )
            return np.asarray(image).astype(np.uint16)
    except (OSError, SyntaxError) as error:
        raise ExportError(f"{path} cannot be read as a PNG: {error}.") from error


def masks_of_id_map(
    ids: NDArray[np.uint16], frame_idx: int, obj_ids: Mapping[int, int]
) -> Iterator[FrameMask]:
    """An approved mask for every object: `obj_ids` maps pixel value to obj_id.

    The frame is annotated, so an object without a pixel is approved to be absent there.
    """
    for value, obj_id in obj_ids.items():
        yield FrameMask(obj_id, frame_idx, RLE.encode(ids == value), status="approved")
