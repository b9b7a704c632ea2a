"""Places from photographs and panoramas of the user's own, or of those who give them away.

What lies in real places besides things (grass, gravel, foliage, walls, the blur of distance) no
formula of ours has. A picture is kept as light, so that every look at it has its own exposure, as
frames of different cameras have.
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

from edgetam_label.errors import UsageError

Image = NDArray[Any]  # OpenCV declares its results less closely

PANORAMAS = (".hdr",)  # Radiance RGBE, light as it was; a whole turn from left to right
SUFFIXES = (*PANORAMAS, ".jpg", ".jpeg", ".png", ".webp")
LONGEST_SIDE = 1024  # pixels that are kept of a picture
CACHED = 64  # pictures kept by each process, 2.5 MB each for a panorama

#: Rows of a panorama that are shown; beyond, near zenith and nadir, it is stretched too much.
UPRIGHT = (0.06, 0.94)
SHADE = 14  # powers of two below white that are told apart
FINENESS = 65535 / (SHADE + 6)  # steps per power of two; six are left above white


@dataclass(frozen=True)
class Places:
    """Pictures in some folders and all that is below them: `.hdr` panoramas, JPEG, PNG, WebP.

    Raises UsageError for a folder without any.
    """

    folders: tuple[Path, ...]

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not _files(folder):
                raise UsageError(
                    f"No picture ({', '.join(SUFFIXES)}) lies in {folder} or below it; "
                    "--backgrounds takes folders of photographs and panoramas."
                )

    def look(self, rng: Generator, height: int, width: int) -> Image:
        """(height, width, 3) uint8 RGB: a piece of one of them as some camera shows it.

        Raises UsageError for a file that is no picture.
        """
        files = [file for folder in self.folders for file in _files(folder)]
        file = files[int(rng.integers(len(files)))]
        light = _load(file)
        turns = file.suffix.lower() in PANORAMAS
        rows, columns = light.shape[:2]
        whole = rows / height if turns else min(columns / width, rows / height)
        part = rng.uniform(0.7, 1.0)
        angle, mirror = rng.normal(0, 0.05), -1.0 if rng.random() < 0.5 else 1.0
        c, s = np.cos(angle) * whole * part, np.sin(angle) * whole * part
        linear = np.array([[mirror * c, -s], [mirror * s, c]])
        seen = np.array([width * c + height * abs(s), height * c + width * abs(s)])
        room = np.maximum(np.array([columns, rows]) - seen, 0) / 2
        centre = np.array([columns, rows]) / 2 + rng.uniform(-1, 1, 2) * room
        shift = centre - linear @ np.array([width / 2, height / 2])
        piece = cv2.warpAffine(
            light, np.column_stack([linear, shift]).astype(np.float32), (width, height),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_WRAP if turns else cv2.BORDER_REFLECT_101,
        )  # fmt: skip
        return _develop(piece, rng, enlarged=1 / (whole * part))


@lru_cache
def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES))


@lru_cache(CACHED)
def _load(file: Path) -> Image:
    """(h, w, 3) uint16 RGB, logarithm of the light."""
    image = cv2.imread(str(file), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if image is None:
        raise UsageError(f"{file} cannot be read as a picture; mend it or take it out.")
    if image.dtype == np.float32:
        light = image
    else:
        white = 255 if image.dtype == np.uint8 else 65535
        light = (image.astype(np.float32) / white) ** 2.2
    scale = min(1.0, LONGEST_SIDE / max(light.shape[:2]))
    light = cv2.resize(light, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if file.suffix.lower() in PANORAMAS:
        top, bottom = (round(share * len(light)) for share in UPRIGHT)
        light = light[top:bottom]
    levels = np.log2(np.maximum(light[..., ::-1], 2.0**-SHADE)) + SHADE
    return np.clip(levels * FINENESS, 0, 65535).astype(np.uint16)


def _develop(piece: Image, rng: Generator, enlarged: float) -> Image:
    """Light to what a camera shows: exposure after the brighter parts, a white balance, gamma.

    A picture that was enlarged is sharpened, or things would stand out as the sharper ones.
    """
    levels = piece.astype(np.float32) / FINENESS
    if enlarged > 1:
        soft = cv2.GaussianBlur(levels, (0, 0), float(enlarged))
        levels += (levels - soft) * float(rng.uniform(0.2, 1.0) * min(1.0, enlarged - 0.6))
    bright = np.percentile(levels[::8, ::8].max(-1), rng.uniform(65, 97))
    exposure = np.log2(rng.uniform(0.5, 1.0)) - bright + rng.normal(0, 0.12, 3)
    shown = np.exp2((levels + exposure.astype(np.float32)) / 2.2)
    return np.asarray(np.clip(shown * 255, 0, 255), np.uint8)
