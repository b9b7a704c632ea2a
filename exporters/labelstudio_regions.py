"""One Label Studio region, in percent, as a mask or a prompt in pixels."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from edgetam_label.backend.brush import decode_brush_mask
from edgetam_label.errors import EdgeTAMLabelError, ExportError, PromptError
from edgetam_label.masks import RLE, Mask
from edgetam_label.prompts import Box, Click, Prompt

Region = dict[str, Any]


def mask_of(region: Region, size: tuple[int, int], where: str) -> Mask | None:
    """The (H, W) mask of a brush, bitmask, polygon or ellipse region; None for other kinds.

    size: (height, width) of the image. where: for the message of the ExportError that a damaged
    region raises.
    """
    value, kind = region["value"], region["type"].removesuffix("labels")
    try:
        if "rle" in value:
            return np.asarray(decode_brush_mask(value["rle"], *size), dtype=bool)
        if "imageDataURL" in value:
            return _bitmask(str(value["imageDataURL"]), size)
        if kind == "polygon" or "points" in value:
            return _polygon(value["points"], size)
        if kind == "ellipse" or "radiusX" in value:
            return _ellipse(value, size)
    except (EdgeTAMLabelError, KeyError, TypeError, ValueError, OSError) as error:
        raise ExportError(f"{where} cannot be read: {error}") from error
    return None


def prompt_of(region: Region, obj_id: int, frame_idx: int, size: tuple[int, int]) -> Prompt | None:
    """A rectangle or key point as a prompt; None for other kinds and for empty rectangles."""
    value, (height, width) = region["value"], size
    if "width" in value and "height" in value:
        box = box_of(value, width, height)
        return Prompt(obj_id, frame_idx, box=box) if box else None
    if "x" in value and "y" in value:
        positive = bool(region.get("is_positive", True))
        click = Click(value["x"] / 100 * width, value["y"] / 100 * height, positive)
        return Prompt(obj_id, frame_idx, (click,))
    return None


def box_of(value: dict[str, Any], width: int, height: int) -> Box | None:
    """The upright box around a rectangle, which Label Studio turns about its top left corner.

    Cut to the image; None if nothing is left.
    """
    x, y = float(value["x"]) / 100 * width, float(value["y"]) / 100 * height
    w, h = float(value["width"]) / 100 * width, float(value["height"]) / 100 * height
    angle = math.radians(float(value.get("rotation") or 0))
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(a * cos - b * sin, a * sin + b * cos) for a, b in ((0, 0), (w, 0), (0, h), (w, h))]
    xs, ys = [x + dx for dx, _ in corners], [y + dy for _, dy in corners]
    try:
        return Box(max(0.0, min(xs)), max(0.0, min(ys)), min(width, max(xs)), min(height, max(ys)))
    except PromptError:
        return None


@dataclass(frozen=True)
class Track:
    """A video rectangle: its keyframes by Label Studio's 1-based frame, and what it says of the
    video. width, height, frames_count: 0 where the region does not tell."""

    sequence: tuple[dict[str, Any], ...]
    width: int
    height: int
    frames_count: int
    fps: float

    def keyframes(self, width: int, height: int) -> Iterator[tuple[int, Box, bool]]:
        """(frame, box, enabled) in order; rectangles without area are left out."""
        for keyframe in sorted(self.sequence, key=lambda item: int(item["frame"])):
            box = box_of(keyframe, width, height)
            if box is not None:
                yield int(keyframe["frame"]), box, bool(keyframe.get("enabled", True))

    @property
    def warnings(self) -> tuple[str, ...]:
        turned = any(float(keyframe.get("rotation") or 0) % 360 for keyframe in self.sequence)
        return ("turned rectangles became upright boxes around them",) if turned else ()


def track_of(region: Region) -> Track:
    """The track of a `videorectangle` region."""
    value = region["value"]
    count = int(value.get("framesCount") or 0)
    sequence = tuple(value.get("sequence") or ())
    return Track(
        sequence,
        int(region.get("original_width") or 0),
        int(region.get("original_height") or 0),
        count,
        _frame_rate(sequence, count, float(value.get("duration") or 0)),
    )


def _frame_rate(sequence: tuple[dict[str, Any], ...], count: int, duration: float) -> float:
    """The editor's rate: keyframes say time = frame / rate; framesCount is rounded, so it comes
    second."""
    timed = [k for k in sequence if float(k.get("time") or 0) > 0]
    if timed:
        last = max(timed, key=lambda k: float(k["time"]))
        return round(int(last["frame"]) / float(last["time"]), 3)
    return count / duration if count and duration > 0 else 25.0


def _bitmask(url: str, size: tuple[int, int]) -> Mask:
    """The alpha channel of a PNG data URL is the mask."""
    try:
        raw = base64.b64decode(url.partition("base64,")[2], validate=True)
    except binascii.Error as error:
        raise ValueError(f"imageDataURL is not base64 ({error})") from error
    with Image.open(io.BytesIO(raw)) as image:
        if (image.height, image.width) != size:
            raise ValueError(f"bitmask of {image.width}x{image.height} on {size[1]}x{size[0]}")
        return np.asarray(image.convert("RGBA"))[:, :, 3] >= 128


def _polygon(points: list[list[float]], size: tuple[int, int]) -> Mask:
    """Pixels inside the polygon, drawn along pixel edges: 0 % is the left edge of the first."""
    height, width = size
    ring = [float(v) for x, y in points for v in (x / 100 * width, y / 100 * height)]
    if len(ring) < 6:
        raise ValueError(f"a polygon of {len(points)} points has no inside")
    return RLE.from_coco(coco_mask.merge(coco_mask.frPyObjects([ring], height, width))).decode()


def _ellipse(value: dict[str, Any], size: tuple[int, int]) -> Mask:
    height, width = size
    rows, cols = np.mgrid[:height, :width]
    dx = cols + 0.5 - float(value["x"]) / 100 * width
    dy = rows + 0.5 - float(value["y"]) / 100 * height
    angle = math.radians(float(value.get("rotation") or 0))
    along = dx * math.cos(angle) + dy * math.sin(angle)
    across = dy * math.cos(angle) - dx * math.sin(angle)
    rx = float(value["radiusX"]) / 100 * width
    ry = float(value["radiusY"]) / 100 * height
    return np.asarray((along / rx) ** 2 + (across / ry) ** 2 <= 1, dtype=bool)
