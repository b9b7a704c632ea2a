"""Colours of objects: the indexed PNGs' palette, and one readable colour per object id.

The palette is the bit-reversal colour map that PASCAL VOC's development kit introduced and DAVIS
uses for its indexed PNGs: bit k of the id, taken three at a time, sets the k-th highest bit of
red, green and blue. Index 0 is the background, black. On footage its colours are too dark, so
outlines and overlays take a few of its hues at full brightness.
"""

from __future__ import annotations

import re

from edgetam_label.errors import UsageError

Color = tuple[int, int, int]

# Palette entries that stay apart from each other, and from shadows, at full brightness: pure blue
# does not, greys look like footage.
_READABLE = (1, 2, 20, 3, 5, 6, 17, 34, 33, 10, 28, 14, 12, 57, 23, 21)


def _voc_color(index: int) -> Color:
    red = green = blue = 0
    for bit in range(8):
        red |= (index & 1) << (7 - bit)
        green |= (index >> 1 & 1) << (7 - bit)
        blue |= (index >> 2 & 1) << (7 - bit)
        index >>= 3
    return red, green, blue


PALETTE: tuple[Color, ...] = tuple(_voc_color(index) for index in range(256))
"""256 RGB colours for indexed PNGs (mode P), as DAVIS and YouTube-VOS annotations carry them."""


def default_color(obj_id: int) -> str:
    """Colour "#rrggbb" of an object that was given none; repeats after 16 objects."""
    base = PALETTE[_READABLE[(obj_id - 1) % len(_READABLE)]]
    red, green, blue = (round(channel * 255 / max(base)) for channel in base)
    return f"#{red:02x}{green:02x}{blue:02x}"


def parse_color(text: str) -> Color:
    """(red, green, blue) of "#rrggbb". Raises UsageError on anything else."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise UsageError(f"Color {text!r} is not usable; write it as #rrggbb, for example #1e90ff.")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
