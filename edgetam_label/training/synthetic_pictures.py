"""Things from pictures with a transparent background: clip art, or cut-outs of your own.

Their outlines and what lies where inside them are drawn by people after the world, which no formula
of ours is. Their flat colours are not the world's, so many are dressed in materials: each colour of
a picture becomes a texture, and the whole is lit like everything else. What an animated picture
shows moves in clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageSequence

from edgetam_label.errors import UsageError
from edgetam_label.training.synthetic_sprites import Sprite, shade
from edgetam_label.training.synthetic_textures import random_color
from edgetam_label.training.synthetic_things import Thing, Workshop

Image = NDArray[Any]  # uint8; OpenCV declares its results less closely

SIDE = 224  # pixels of the longest side that are kept of a picture
MAX_BYTES = 300_000  # of a frame: larger ones take longer to read than a scene to paint
TRIES = 12  # pictures looked at until one shows one solid thing
CACHED = 256  # pictures kept by each process, 0.2 MB for each of their frames at most
MOVING = 0.6  # share of animated pictures among the things of clips, where there are any
ANIMATED = b"acTL"  # the chunk that says so, which stands before the first frame's data
HEAD = 1024  # bytes of a file in which it is looked for

AS_IT_IS = 0.65  # share of things that keep the picture's own colours
RECOLOURED = 0.3  # share of the materials whose colour is not the picture's
LINE_COLOUR = 70  # brightness below which a thin colour is a drawn outline, which the world lacks


@dataclass(frozen=True)
class Pictures:
    """PNG files in some folders and all that is below them, animated or not.

    Raises UsageError for a folder without any.
    """

    folders: tuple[Path, ...]

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not _files(folder):
                raise UsageError(
                    f"No .png file lies in {folder} or below it; --cutouts takes folders of "
                    "pictures with a transparent background."
                )

    def pick(self, rng: Generator, *, moving: bool = False) -> tuple[Image, ...] | None:
        """Frames (h, w, 4) uint8 RGBA of one solid thing, cut to it; None if none was met.

        moving: for a clip, in which animated pictures are preferred.
        """
        files = [file for folder in self.folders for file in _files(folder)]
        if moving and rng.random() < MOVING:
            files = [file for folder in self.folders for file in _animated(folder)] or files
        for _ in range(TRIES):
            picture = _load(files[int(rng.integers(len(files)))])
            if picture is not None:
                return picture
        return None


@lru_cache
def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(folder.rglob("*.png")))


@lru_cache
def _animated(folder: Path) -> tuple[Path, ...]:
    return tuple(file for file in _files(folder) if _is_animated(file))


def _is_animated(file: Path) -> bool:
    with file.open("rb") as opened:
        return ANIMATED in opened.read(HEAD)


@lru_cache(CACHED)
def _load(file: Path) -> tuple[Image, ...] | None:
    """The frames if they can be read and show one solid thing, not a border, a text or a swarm."""
    frames = _read(file)
    if not frames:
        return None
    seen = np.max([frame[..., 3] for frame in frames], axis=0)
    x, y, w, h = cv2.boundingRect((seen > 127).astype(np.uint8))
    if min(w, h) < 40:
        return None
    if not all(_is_one_thing(frame) for frame in frames):
        return None
    factor = min(1.0, SIDE / max(w, h))
    size = (max(1, round(w * factor)), max(1, round(h * factor)))
    cut = [frame[y : y + h, x : x + w] for frame in frames]
    small = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in cut]
    return tuple(np.ascontiguousarray(frame, np.uint8) for frame in small)


def _read(file: Path) -> list[Image]:
    """(h, w, 4) RGBA of every frame; [] for what has no transparency, is broken or too large."""
    if not _is_animated(file):
        if file.stat().st_size > MAX_BYTES:
            return []
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.dtype != np.uint8 or picture.shape[2:] != (4,):
            return []
        return [picture[..., [2, 1, 0, 3]]]
    try:
        with PillowImage.open(file) as opened:
            count = int(getattr(opened, "n_frames", 1))
            if opened.mode != "RGBA" or file.stat().st_size > MAX_BYTES * count:
                return []
            return [np.asarray(frame, np.uint8) for frame in ImageSequence.Iterator(opened)]
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for a broken PNG
        return []


def _is_one_thing(picture: Image) -> bool:
    alpha = (picture[..., 3] > 127).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(alpha)
    alpha = alpha[y : y + h, x : x + w]
    if not alpha.size or alpha.sum() > 0.93 * w * h:
        return False
    _, _, stats, _ = cv2.connectedComponentsWithStats(alpha)
    outlines, _ = cv2.findContours(alpha, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(alpha), outlines, -1, 1, -1)
    largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    return bool(largest >= 0.9 * alpha.sum() and alpha.sum() >= 0.75 * filled.sum())


def picture_thing(shop: Workshop, pictures: Pictures, *, moving: bool = False) -> Thing | None:
    """A thing after a picture, or None where the folders hold none that would do.

    moving: in a clip, where animated pictures are preferred.
    """
    rng = shop.rng
    frames = pictures.pick(rng, moving=moving)
    if frames is None:
        return None
    if rng.random() < 0.5:
        frames = tuple(frame[:, ::-1] for frame in frames)
    half = max(frames[0].shape[:2]) / 2
    scale = min(shop.pixels_per_unit / half, 1.5)
    small = [_scaled(frame, scale) for frame in frames]
    # materials would not keep their places on a body that moves
    if len(frames) > 1 or rng.random() < AS_IT_IS:
        gain = np.diag(rng.uniform(0.6, 1.15) * np.exp(rng.normal(0, 0.1, 3)))
        colours = [np.asarray(cv2.transform(rgb, gain), np.uint8) for rgb, _ in small]
    else:
        colours = [_dressed(shop, rgb, alpha) for rgb, alpha in small]
    height, width = small[0][1].shape
    unit = 1 / (scale * half)
    to_object = np.array([[unit, 0, -width / 2 * unit], [0, unit, -height / 2 * unit], [0, 0, 1]])
    bump = float(rng.uniform(0.1, 1))
    sprites = []
    for rgb, (_, alpha) in zip(colours, small, strict=True):
        lit = shade(rgb, alpha, shop.light, bump)
        lit = cv2.multiply(lit, cv2.merge([alpha] * 3), scale=1 / 255)
        sprites.append(Sprite(np.dstack([lit, alpha]), (alpha > 0).astype(np.uint8), to_object))
    stands = bool(rng.random() < 0.5)
    elastic = float(rng.uniform(0, 1.2)) if len(frames) == 1 else 0.0
    bones = (-1,) * len(sprites)
    return Thing(
        "picture", tuple(sprites), bones, None, 1, stands=stands, elastic=elastic,
        film=len(sprites) > 1,
    )  # fmt: skip


def _scaled(picture: Image, scale: float) -> tuple[Image, Image]:
    """RGB and alpha of a picture at another size, with a transparent margin."""
    size = tuple(max(4, round(side * scale)) for side in picture.shape[1::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.copyMakeBorder(
        cv2.resize(picture, size, interpolation=way), 2, 2, 2, 2, cv2.BORDER_CONSTANT
    )
    return np.ascontiguousarray(small[..., :3]), np.ascontiguousarray(small[..., 3])


def _dressed(shop: Workshop, rgb: Image, alpha: Image) -> Image:
    """Every colour of a picture as a material."""
    rng, (height, width) = shop.rng, alpha.shape
    areas, colours = _areas(rgb, alpha, int(rng.integers(2, 7)), rng)
    dressed: Image = np.zeros_like(rgb)
    for number, colour in enumerate(colours):
        if shop.hide is not None or rng.random() < RECOLOURED:
            colour = random_color(rng, shop.hide)
        material = shop.material(np.clip(colour, 3, 250).astype(np.float32))
        piece = material.render(height, width, pixels_per_unit=shop.pixels_per_unit)
        cv2.copyTo(piece, (areas == number).astype(np.uint8), dressed)
    return np.asarray(cv2.GaussianBlur(dressed, (0, 0), 0.6), np.uint8)


def _areas(
    rgb: Image, alpha: Image, count: int, rng: Generator
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(h, w) number of the colour that every pixel is nearest to, and the colours, (n, 3).

    Thin dark lines are given to what lies beside them; so is what is outside of the thing.
    """
    inside = alpha > 200
    pixels = rgb[inside].astype(np.float32)
    if len(pixels) < 32:
        return np.zeros(alpha.shape, np.intp), np.array([[128, 128, 128]], np.float32)
    colours = pixels[rng.integers(0, len(pixels), count)]
    sample = pixels[rng.integers(0, len(pixels), 512)]
    for _ in range(4):  # k-means
        nearest = ((sample[:, None] - colours) ** 2).sum(-1).argmin(1)
        for number in range(count):
            if (nearest == number).any():
                colours[number] = sample[nearest == number].mean(0)
    areas = ((rgb[..., None, :].astype(np.float32) - colours) ** 2).sum(-1).argmin(-1)
    unsure = ~inside
    kernel = np.ones((3, 3), np.uint8)
    for number in range(count):
        area = (inside & (areas == number)).astype(np.uint8)
        core = cv2.erode(area, kernel)
        if colours[number].mean() < LINE_COLOUR and core.sum() < 0.4 * area.sum():
            unsure |= area > 0
    if unsure.all():
        return areas, colours
    _, labels = cv2.distanceTransformWithLabels(
        unsure.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    sure = ~unsure
    table = np.zeros(int(labels.max()) + 1, np.intp)
    table[labels[sure]] = areas[sure]
    return table[labels], colours
