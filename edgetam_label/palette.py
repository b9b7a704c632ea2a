"""Colours of objects: one fixed colour per object id, the same in overlays, PNGs and pages.

The order is the bit-reversal colour map that PASCAL VOC's development kit introduced and DAVIS
uses for its indexed PNGs: bit k of the id, taken three at a time, sets the k-th highest bit of
red, green and blue. Index 0 is the background, black.
"""

from __future__ import annotations

import re

from edgetam_label.errors import UsageError

Color = tuple[int, int, int]

# Of the map's first 22 entries those that stay readable over footage: the near-black ones
# (64, 0, 0) and alike vanish in shadows. Brightness is lifted so that thin outlines can be seen.
_READABLE = (1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 17, 19, 20, 21)
_LIFT = 255 / 192


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
    red, green, blue = (min(255, round(channel * _LIFT)) for channel in base)
    return f"#{red:02x}{green:02x}{blue:02x}"


def parse_color(text: str) -> Color:
    """(red, green, blue) of "#rrggbb". Raises UsageError on anything else."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise UsageError(f"Color {text!r} is not usable; write it as #rrggbb, for example #1e90ff.")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
