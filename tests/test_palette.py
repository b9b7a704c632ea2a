from __future__ import annotations

import itertools

import pytest

from edgetam_label.errors import UsageError
from edgetam_label.palette import PALETTE, default_color, parse_color


def test_the_palette_is_the_one_of_pascal_voc_and_davis() -> None:
    # The first and some later entries of the published colour map.
    assert PALETTE[:9] == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
        (64, 0, 0),
    )
    assert PALETTE[20:22] == ((0, 64, 128), (128, 64, 128))
    assert PALETTE[255] == (224, 224, 192)
    assert len(set(PALETTE)) == 256


def test_default_colours_are_bright_and_differ() -> None:
    colors = [parse_color(default_color(obj_id)) for obj_id in range(1, 17)]
    for one, other in itertools.combinations(colors, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) >= 120, (one, other)
    assert all(max(color) == 255 for color in colors)
    assert default_color(17) == default_color(1)


@pytest.mark.parametrize("text", ["red", "#12345", "#1234567", "#12345g", "", "#12345\n"])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="#rrggbb"):
        parse_color(text)


def test_colours_are_read_in_either_case() -> None:
    assert parse_color("#1E90ff") == (30, 144, 255)
