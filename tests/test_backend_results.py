from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
import pytest
from backend_bodies import click, image_config
from numpy.typing import NDArray
from PIL import Image
from skimage.draw import ellipse, polygon2mask

from edgetam_label.backend.brush import decode_brush
from edgetam_label.backend.context import Size, image_instances
from edgetam_label.backend.contours import outlines
from edgetam_label.backend.faults import ConfigProblem
from edgetam_label.backend.label_config import LabelConfig
from edgetam_label.backend.results import image_results

Mask = NDArray[np.bool_]


def ring(height: int = 97, width: int = 161) -> Mask:
    """A disc with two holes of different sizes, and a part of its own with a hole."""
    y, x = np.mgrid[:height, :width]
    disc = (x - 60) ** 2 + (y - 48) ** 2 < 38**2
    holes = ((x - 50) ** 2 + (y - 48) ** 2 < 100) | ((x - 75) ** 2 + (y - 40) ** 2 < 36)
    part = (abs(x - 135) < 15) & (abs(y - 60) < 20) & ~((abs(x - 135) < 5) & (abs(y - 60) < 8))
    return (disc & ~holes) | part


def entries(mask: Mask, tag: str, **changes: Any) -> list[dict[str, Any]]:
    config = LabelConfig.parse(image_config(tag))
    (instance,) = image_instances(
        [click(50, 50, "Dog", to_name="i", **changes)], Size(mask.shape[1], mask.shape[0])
    )
    return image_results(instance, config.output_for("i", "Dog"), mask, 0.8)


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def filled(points: list[list[float]], shape: tuple[int, int]) -> Mask:
    """The polygon by even-odd rule, tested at pixel centres."""
    corners = np.array(points) * (shape[1] / 100, shape[0] / 100)
    return np.asarray(polygon2mask(shape, corners[:, ::-1] - 0.5), dtype=bool)


def test_brush_is_exact() -> None:
    (entry,) = entries(ring(), "BrushLabels")
    assert entry["type"] == "brushlabels" and entry["value"]["brushlabels"] == ["Dog"]
    assert (entry["original_width"], entry["original_height"]) == (161, 97)
    assert np.array_equal(decode_brush(entry["value"]["rle"], 97, 161) == 255, ring())


def test_bitmask_is_exact_in_its_alpha_channel() -> None:
    (entry,) = entries(ring(), "BitmaskLabels")
    png = base64.b64decode(entry["value"]["imageDataURL"].split(",")[1])
    alpha = np.array(Image.open(io.BytesIO(png)).convert("RGBA"))[..., 3]
    assert np.array_equal(alpha == 255, ring()) and set(np.unique(alpha)) == {0, 255}


def test_polygons_keep_holes_and_parts() -> None:
    found = entries(ring(), "PolygonLabels")
    assert [e["id"] for e in found] == [found[0]["id"], f"{found[0]['id']}-2"]
    together = np.zeros((97, 161), dtype=bool)
    for entry in found:
        assert entry["value"]["closed"] is True and entry["value"]["polygonlabels"] == ["Dog"]
        together |= filled(entry["value"]["points"], (97, 161))
    assert iou(together, ring()) > 0.95
    assert not together[48, 50] and not together[60, 135]


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0, 4.0])
def test_polygons_stay_within_the_tolerance(tolerance: float) -> None:
    mask = ring()
    edge = outlines(mask, 0.0)
    exact = np.concatenate([p for part in edge for p in (part.outer, *part.holes)])
    loops = [p for part in outlines(mask, tolerance) for p in (part.outer, *part.holes)]
    for x, y in exact:
        away = min(
            abs(cv2.pointPolygonTest(loop.astype(np.float32), (float(x), float(y)), True))
            for loop in loops
        )
        assert away <= tolerance + 1e-3
    fewer = sum(len(p.bridged()) for p in outlines(mask, tolerance))
    assert fewer < sum(len(p.bridged()) for p in edge)


def test_outlines_without_tolerance_are_exact_on_noise() -> None:
    mask = np.random.default_rng(1).random((40, 60)) < 0.6
    area = 0.0
    for part in outlines(mask, 0.0):
        for loop, sign in [(part.outer, 1), *((h, -1) for h in part.holes)]:
            x, y = loop[:, 0], loop[:, 1]
            area += sign * abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2))
    assert area == mask.sum()


def test_rectangle_is_tight() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[10:30, 40:100] = True
    (entry,) = entries(mask, "RectangleLabels")
    value = entry["value"]
    assert (value["x"], value["y"], value["width"], value["height"]) == (20, 10, 30, 20)
    assert value["rotation"] == 0


@pytest.mark.parametrize(("tall", "wide", "angle"), [(20, 50, 0), (20, 50, 30), (40, 15, 100)])
def test_ellipse_fits_an_ellipse(tall: int, wide: int, angle: int) -> None:
    mask = np.zeros((200, 300), dtype=bool)
    rows, cols = ellipse(90, 140, tall, wide, rotation=-np.radians(angle))
    mask[rows, cols] = True
    (entry,) = entries(mask, "EllipseLabels")
    v = entry["value"]
    drawn = np.zeros_like(mask)
    rows, cols = ellipse(v["y"] * 2 - 0.5, v["x"] * 3 - 0.5, v["radiusY"] * 2, v["radiusX"] * 3,
                         shape=mask.shape, rotation=-np.radians(v["rotation"]))  # fmt: skip
    drawn[rows, cols] = True
    assert iou(drawn, mask) > 0.96


def test_an_empty_mask_gives_no_region() -> None:
    assert entries(np.zeros((9, 9), dtype=bool), "BrushLabels") == []


def test_turned_images_get_turned_shapes_and_a_sentence_for_brushes() -> None:
    mask = np.zeros((100, 200), dtype=bool)
    mask[0:20, 0:40] = True
    (entry,) = entries(mask, "RectangleLabels", image_rotation=90)
    # turned clockwise, the top-left corner is at the top right
    assert entry["value"] == {
        "x": 80, "y": 0, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["Dog"]
    }  # fmt: skip
    assert (entry["original_width"], entry["original_height"]) == (200, 100)
    with pytest.raises(ConfigProblem, match="turn it back"):
        entries(mask, "BrushLabels", image_rotation=90)
