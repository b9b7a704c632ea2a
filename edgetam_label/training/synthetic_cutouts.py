"""Real objects: outlines drawn by hand on the free photographs, used as sprites.

The outlines are ours; the photographs are those of `synthetic_photos`.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.training.synthetic_sprites import Sprite
from edgetam_label.training.synthetic_things import Thing, Workshop

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely
_Outline = tuple[str, tuple[int, int], tuple[tuple[int, int], ...]]

#: name -> photograph, its (width, height) when the outline was drawn, and the outline in pixels
OUTLINES: dict[str, _Outline] = {
    "astronaut": (
        "astronaut.png",
        (512, 512),
        (
            (156, 75), (165, 45), (185, 27), (215, 17), (250, 18), (278, 30), (295, 55), (301, 85),
            (295, 112), (280, 128), (268, 135), (262, 160), (255, 176), (275, 190), (293, 212),
            (303, 240), (340, 262), (356, 300), (364, 345), (330, 362), (300, 390), (285, 425),
            (278, 470), (285, 511), (20, 511), (22, 470), (20, 430), (25, 380), (30, 330),
            (45, 290), (65, 265), (90, 245), (118, 235), (112, 205), (118, 180), (135, 160),
            (160, 150), (185, 155), (182, 140), (176, 122), (165, 115), (156, 95),
        ),
    ),
    "helmet": (
        "astronaut.png",
        (512, 512),
        (
            (280, 470), (283, 430), (298, 392), (322, 365), (355, 350), (395, 345), (430, 350),
            (462, 368), (485, 400), (496, 440), (505, 460), (511, 480), (511, 511), (285, 511),
        ),
    ),
    "shuttle": (
        "astronaut.png",
        (512, 512),
        (
            (365, 205), (382, 180), (385, 60), (389, 40), (398, 42), (400, 10), (410, 0), (436, 0),
            (438, 40), (446, 40), (452, 60), (453, 180), (462, 225), (460, 240), (440, 245),
            (438, 270), (455, 284), (375, 284), (390, 270), (370, 240),
        ),
    ),
    "cat": (
        "chelsea.png",
        (451, 300),
        (
            (40, 0), (35, 50), (45, 120), (20, 170), (0, 200), (0, 299), (290, 299), (335, 255),
            (352, 205), (358, 140), (356, 70), (385, 30), (392, 0),
        ),
    ),
    "cup": (
        "coffee.png",
        (600, 400),
        (
            (173, 110), (180, 70), (205, 38), (250, 20), (300, 18), (345, 28), (385, 55), (405, 90),
            (408, 125), (400, 165), (385, 215), (368, 255), (335, 278), (290, 286), (262, 280),
            (240, 295), (222, 308), (205, 305), (197, 290), (200, 265), (205, 250), (190, 215),
            (176, 165),
        ),
    ),
    "cup on saucer": (
        "coffee.png",
        (600, 400),
        (
            (77, 210), (85, 165), (110, 120), (150, 85), (180, 68), (205, 38), (250, 20), (300, 18),
            (345, 28), (385, 55), (400, 72), (412, 66), (424, 72), (424, 95), (450, 125),
            (472, 170), (480, 220), (470, 275), (440, 325), (395, 358), (340, 380), (280, 387),
            (215, 378), (155, 350), (110, 310), (85, 265),
        ),
    ),
    "cameraman": (
        "camera.png",
        (512, 512),
        (
            (160, 105), (125, 120), (90, 140), (60, 165), (40, 190), (25, 220), (15, 240), (0, 255),
            (0, 511), (90, 511), (100, 447), (134, 511), (150, 511), (150, 470), (145, 420),
            (140, 380), (165, 355), (190, 320), (207, 293), (230, 310), (250, 312), (280, 305),
            (300, 280), (303, 262), (290, 250), (305, 245), (307, 215), (325, 210), (332, 190),
            (328, 170), (310, 178), (290, 195), (262, 195), (245, 185), (250, 150), (265, 135),
            (270, 115), (262, 95), (240, 75), (205, 65), (180, 72), (165, 92),
        ),
    ),
    "tripod": (
        "camera.png",
        (512, 512),
        (
            (262, 145), (275, 140), (325, 140), (325, 170), (312, 178), (305, 195), (300, 200),
            (300, 310), (312, 315), (335, 300), (338, 306), (315, 325), (390, 475), (398, 490),
            (405, 511), (395, 511), (383, 485), (308, 345), (298, 350), (299, 480), (290, 480),
            (288, 350), (280, 345), (245, 490), (245, 511), (233, 511), (232, 487), (275, 330),
            (278, 315), (288, 310), (289, 200), (275, 195), (273, 180), (262, 175),
        ),
    ),
    "rocket": (
        "rocket.jpg",
        (640, 427),
        (
            (322, 127), (332, 145), (334, 180), (335, 300), (355, 370), (352, 405), (290, 405),
            (292, 370), (310, 365), (309, 180), (312, 145),
        ),
    ),
}  # fmt: skip


#: outlines that contain another one
NESTING = frozenset({"cup on saucer"})


def cutout(shop: Workshop) -> Thing | None:
    """A photographed object, recoloured, or None when no photograph of it is at hand."""
    rng, photographs = shop.rng, shop.textures.photographs
    names = [name for name, (file, _, _) in OUTLINES.items() if file in photographs.names]
    if not names:
        return None
    file, (width, _), outline = OUTLINES[names[int(rng.integers(len(names)))]]
    photo = photographs.images[photographs.names.index(file)]
    points = np.asarray(outline, np.float64) * (photo.shape[1] / width)
    low, high = points.min(axis=0), points.max(axis=0)
    half = float((high - low).max()) / 2
    scale = min(shop.pixels_per_unit / half, 1.5)
    matrix = np.array([[scale, 0, 2 - low[0] * scale], [0, scale, 2 - low[1] * scale]])
    w, h = (int(v) for v in np.ceil((high - low) * scale) + 4)
    flags = cv2.INTER_AREA if scale < 0.7 else cv2.INTER_LINEAR
    small = cv2.GaussianBlur(photo, (0, 0), 0.35 / scale) if scale < 0.7 else photo
    piece = cv2.warpAffine(small, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    rgb = _recolour(shop, piece)
    alpha: Image = np.zeros((h, w), np.uint8)
    fixed = np.round((points * scale + matrix[:, 2]) * 16).astype(np.int32)
    cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, 4)
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.7)
    rgb = cv2.multiply(rgb, cv2.merge([alpha] * 3), scale=1 / 255)
    centre = (low + high) / 2
    unit = 1 / (scale * half)
    to_object = np.array(
        [
            [unit, 0, (low[0] - centre[0]) / half - 2 * unit],
            [0, unit, (low[1] - centre[1]) / half - 2 * unit],
            [0, 0, 1],
        ]
    )
    parts = (alpha > 0).astype(np.uint8)
    sprite = Sprite(np.dstack([rgb, alpha]), parts, to_object)
    return Thing("cutout", (sprite,), (-1,), None, 1, elastic=float(rng.uniform(0, 1.2)))


def scene_things(background: Image, outlines: tuple[NDArray[np.float64], ...]) -> list[Thing]:
    """Things cut from the background at their own place: real objects in their real scene.

    Their sprites' object units are background pixels.
    """
    height, width = background.shape[:2]
    things = []
    for outline in outlines:
        x0, y0 = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 1, 0)
        x1, y1 = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 2, (width, height))
        if x1 - x0 < 4 or y1 - y0 < 4:
            continue
        alpha: Image = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = np.round((outline - (x0, y0)) * 16).astype(np.int32)
        cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, 4)
        rgb = cv2.multiply(background[y0:y1, x0:x1], cv2.merge([alpha] * 3), scale=1 / 255)
        parts = (alpha > 0).astype(np.uint8)
        place = np.array([[1, 0, x0], [0, 1, y0], [0, 0, 1]], np.float64)
        sprite = Sprite(np.dstack([rgb, alpha]), parts, place)
        things.append(Thing("scene", (sprite,), (-1,), None, 1))
    return things


def _recolour(shop: Workshop, piece: Image) -> Image:
    """New exposure and tint; grey photographs get a palette, colours sometimes swap channels."""
    rng = shop.rng
    if piece.ndim == 2:
        dark, bright = rng.uniform(0, 60, 3), rng.uniform(150, 255, 3)
        levels = np.linspace(0, 1, 256)[:, None]
        table = (dark * (1 - levels) + bright * levels).astype(np.uint8)[:, None, :]
        return np.asarray(cv2.applyColorMap(piece, np.ascontiguousarray(table)), np.uint8)
    mix = np.eye(3)
    if rng.random() < 0.4:
        mix = mix[rng.permutation(3)]
    grey = rng.uniform(0, 0.7)
    mix = ((1 - grey) * mix + grey / 3) * rng.uniform(0.6, 1.2) * np.exp(rng.normal(0, 0.1, (3, 1)))
    return np.asarray(cv2.transform(piece, mix), np.uint8)
