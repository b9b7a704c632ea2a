"""Masks and pictures as PNG files, written whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgetam_label.errors import MediaError, UsageError
from edgetam_label.masks import RLE, Mask


def read_mask(path: Path) -> RLE:
    """A mask drawn in any image editor: what is not black (or palette index 0) is the object.

    Transparent pixels count as background. Raises UsageError for a file that is absent or no
    image, and for a mask without a single pixel.
    """
    try:
        with Image.open(path) as image:
            mask = _foreground(image)
    except FileNotFoundError:
        raise UsageError(f"Mask {path} does not exist.") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise UsageError(f"Mask {path} cannot be read as an image: {error}.") from None
    if not mask.any():
        raise UsageError(f"Mask {path} is empty; draw the object in white on black.")
    return RLE.encode(mask)


def _foreground(image: Image.Image) -> Mask:
    if image.mode in ("RGBA", "LA", "PA"):
        alpha = np.asarray(image.getchannel("A")) > 0
        colour = np.asarray(image.convert("RGB")).any(axis=2)
        return np.asarray(alpha & colour, dtype=bool)
    if image.mode not in ("1", "L", "P", "I", "I;16", "F"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0, dtype=bool)


def write_mask(path: Path, mask: Mask) -> None:
    """mask: (H, W) bool -> 8-bit grey PNG, object 255."""
    write_image(path, mask.astype(np.uint8) * 255)


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """pixels: (H, W) or (H, W, 3) RGB uint8; the format follows the name."""
    write_whole(path, lambda part: Image.fromarray(pixels).save(part))


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; nothing stays on failure.

    Raises MediaError when the folder cannot be made; a full disk passes as the OSError it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise MediaError(f"{path.parent} is a file, not a folder; choose another place.") from None
    replace_whole(path, write)


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write_whole` in a folder that is there; errors pass as they are."""
    part = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
