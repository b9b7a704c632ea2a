"""Masks and tracks → the `result` entries that Label Studio's editor accepts. Pure functions."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.masks import mask_to_box

from .brush import encode_brush
from .context import Instance, Keyframe, Size
from .contours import outlines
from .faults import ConfigProblem
from .label_config import ControlTag

Mask = NDArray[np.bool_]
DEFAULT_TOLERANCE = 1.0  # pixels that a polygon may leave the mask's edge
MIN_PART_SHARE = 0.005  # polygon parts below this share of the mask's area are specks

# control tag → (result type, key of the labels inside `value`)
RESULT_TYPES: Mapping[str, tuple[str, str]] = {
    "BrushLabels": ("brushlabels", "brushlabels"),
    "Brush": ("brush", "labels"),
    "BitmaskLabels": ("bitmasklabels", "bitmasklabels"),
    "Bitmask": ("bitmask", "labels"),
    "PolygonLabels": ("polygonlabels", "polygonlabels"),
    "Polygon": ("polygon", "labels"),
    "RectangleLabels": ("rectanglelabels", "rectanglelabels"),
    "Rectangle": ("rectangle", "labels"),
    "EllipseLabels": ("ellipselabels", "ellipselabels"),
    "Ellipse": ("ellipse", "labels"),
}


def image_results(
    instance: Instance,
    control: ControlTag,
    mask: Mask,
    score: float,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
) -> list[dict[str, Any]]:
    """Entries for one object: one, but for polygons one per part; none for an empty mask.

    mask: (H, W) of the stored image. tolerance: pixels, for polygons only.
    Raises ConfigProblem where the annotator turned the image and the tag cannot follow.
    """
    if not mask.any():
        return []
    kind, key = RESULT_TYPES[control.tag]
    if instance.rotation:
        if control.tag.startswith(("Brush", "Bitmask")):
            raise ConfigProblem(
                f"The image is turned by {instance.rotation} degrees in the editor, and "
                f"<{control.tag}> masks cannot follow; turn it back, then click again."
            )
        mask = np.rot90(mask, k=-(instance.rotation // 90))
    height, width = mask.shape
    values = _values(control.tag, mask, tolerance)
    stored = (height, width) if instance.rotation in (0, 180) else (width, height)
    entries = []
    for i, value in enumerate(values):
        if instance.label is not None:
            value[key] = [instance.label]
        entry = {
            "id": instance.region_id if i == 0 else f"{instance.region_id}-{i + 1}",
            "type": kind,
            "from_name": control.name,
            "to_name": control.to_name,
            "original_width": stored[1],
            "original_height": stored[0],
            "image_rotation": instance.rotation,
            "origin": "manual",
            "score": probability(score),
            "value": value,
        }
        if instance.item_index:
            entry["item_index"] = instance.item_index
        entries.append(entry)
    return entries


def probability(score: float) -> float:
    """A score as a number in 0..1 that JSON can hold."""
    return min(max(float(score), 0.0), 1.0) if math.isfinite(score) else 0.0


def _values(tag: str, mask: Mask, tolerance: float) -> list[dict[str, Any]]:
    if tag.startswith("Brush"):
        return [{"format": "rle", "rle": encode_brush(mask)}]
    if tag.startswith("Bitmask"):
        return [{"imageDataURL": bitmask_url(mask)}]
    if tag.startswith("Polygon"):
        return polygon_values(mask, tolerance)
    if tag.startswith("Ellipse"):
        return [ellipse_value(mask)]
    return [rectangle_value(mask)]


def bitmask_url(mask: Mask) -> str:
    """A PNG data URL of the mask's size whose alpha channel is the mask.

    One bit per pixel with black transparent: ten times quicker to write than RGBA.
    """
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG", compress_level=1, transparency=0)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")


def polygon_values(mask: Mask, tolerance: float) -> list[dict[str, Any]]:
    """One closed polygon per part of the mask, in percent; holes are cut in over bridges."""
    height, width = mask.shape
    percent = np.array([100 / width, 100 / height])
    smallest = max(tolerance**2, MIN_PART_SHARE * float(mask.sum()))
    return [
        {"points": (part.bridged() * percent).tolist(), "closed": True}
        for part in outlines(mask, tolerance, smallest)
    ]


def rectangle_value(mask: Mask) -> dict[str, Any]:
    box = mask_to_box(mask)
    assert box is not None, "empty masks are answered before"
    return {**box_percent(box, Size(mask.shape[1], mask.shape[0])), "rotation": 0}


def box_percent(box: Sequence[float], size: Size) -> dict[str, float]:
    """Box xyxy in pixels → x, y, width, height in percent."""
    x0, y0, x1, y1 = box
    return {
        "x": x0 * 100 / size.width,
        "y": y0 * 100 / size.height,
        "width": (x1 - x0) * 100 / size.width,
        "height": (y1 - y0) * 100 / size.height,
    }


def ellipse_value(mask: Mask) -> dict[str, Any]:
    """The ellipse with the mask's centroid and second moments, in Label Studio's percent."""
    height, width = mask.shape
    m = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    area = m["m00"]
    pixel = 1 / 12  # a pixel has an extent of its own
    spread = np.array([[m["mu20"], m["mu11"]], [m["mu11"], m["mu02"]]]) / area + np.eye(2) * pixel
    variances, axes = np.linalg.eigh(spread)
    radii = 2 * np.sqrt(variances[::-1])  # of a filled ellipse, the longer first
    angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
    return {
        "x": (m["m10"] / area + 0.5) * 100 / width,
        "y": (m["m01"] / area + 0.5) * 100 / height,
        "radiusX": float(radii[0] * 100 / width),
        "radiusY": float(radii[1] * 100 / height),
        "rotation": angle % 180,
    }


def track_result(
    region_id: str,
    label: str | None,
    from_name: str,
    to_name: str,
    keyframes: Sequence[Keyframe],
    *,
    frames_count: int,
    frame_rate: float,
    score: float,
) -> dict[str, Any]:
    """A `videorectangle` entry; the same id updates the region in place."""
    value: dict[str, Any] = {
        "framesCount": frames_count,
        "duration": frames_count / frame_rate,
        "sequence": [k.to_json(frame_rate) for k in keyframes],
    }
    if label is not None:
        value["labels"] = [label]
    return {
        "id": region_id,
        "type": "videorectangle",
        "from_name": from_name,
        "to_name": to_name,
        "origin": "manual",
        "score": probability(score),
        "value": value,
    }
