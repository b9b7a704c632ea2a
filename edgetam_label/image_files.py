"""Image files as frames: which files, in which order, and their pixels as RGB."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgetam_label.errors import MediaError, UsageError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
)
MAX_PIXELS = 89_478_485  # Pillow's own line between a large picture and a decompression bomb

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes each EXIF orientation (Exif 2.3, tag 0x0112)
_SIDES_SWAPPED = frozenset({5, 6, 7, 8})


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which frame2.jpg comes before frame10.jpg; ties fall to the plain text."""
    parts = re.split(r"([0-9]+)", name)
    key = tuple((0, int(p), "") if p.isdigit() else (1, 0, p.casefold()) for p in parts if p)
    return (*key, (2, 0, name))


def list_images(folder: Path) -> list[Path]:
    """Image files directly inside `folder`, in natural order; hidden files are left out.

    Raises MediaError if there are none.
    """
    try:
        entries = [p for p in folder.iterdir() if is_image(p) and not p.name.startswith(".")]
    except OSError as error:
        raise MediaError(f"Folder {folder} cannot be read: {error.strerror}.") from error
    images = sorted((p for p in entries if p.is_file()), key=lambda p: natural_key(p.name))
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise MediaError(f"Folder {folder} holds no images ({suffixes}); give a folder of frames.")
    return images


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise MediaError(f"{path} does not exist; check the path.") from error
    except UnidentifiedImageError as error:
        raise MediaError(
            f"{path} is not an image that can be read; convert it to PNG or JPEG."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(_too_large(path)) from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error}.") from error
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(_too_large(path))
    return image


def _too_large(path: Path) -> str:
    return f"{path} has more than {MAX_PIXELS:,} pixels; scale it down before labelling."


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 from the header; 1 where there is none."""
    # Asked for the EXIF of a PNG that has none, Pillow decodes the whole picture to look behind it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(_EXIF_ORIENTATION, 1))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) after EXIF orientation, from the header alone. Raises MediaError."""
    with _open(path) as image:
        swapped = _orientation(image) in _SIDES_SWAPPED
        return (image.height, image.width) if swapped else (image.width, image.height)


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB after EXIF orientation; alpha is dropped, 16 bits per channel scaled to 8.

    Raises MediaError if the file is absent, damaged, too large or of 32-bit samples.
    """
    with _open(path) as image:
        try:
            turn = _UPRIGHT.get(_orientation(image))
            image.load()
            return _to_rgb(image if turn is None else image.transpose(turn), path)
        except (OSError, SyntaxError, ValueError) as error:
            raise MediaError(
                f"{path} is damaged ({error}); copy it again from its source."
            ) from error


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode in {"I", "F"}:
        raise MediaError(
            f"{path} has 32-bit samples (mode {image.mode}); save it with 8 or 16 bits per channel."
        )
    if image.mode.startswith("I;16"):
        # Pillow clips 16-bit grey when it converts; the high byte is the 8-bit value.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def check_array(image: NDArray[np.uint8], position: int) -> NDArray[np.uint8]:
    """Return `image` if it is (H, W, 3) uint8; raise UsageError naming its place in the list."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UsageError(
            f"Image {position} of the list has shape {image.shape} and type {image.dtype}; "
            "give RGB arrays of shape (H, W, 3) and type uint8."
        )
    return image
