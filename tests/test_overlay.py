"""What overlays change in a frame, and what they must leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgetam_label.errors import UsageError
from edgetam_label.label_text import LabelFont
from edgetam_label.overlay import MaskLayer, OverlayPainter
from edgetam_label.prompts import Box, Click, Prompt

GREY = np.full((120, 200, 3), 100, dtype=np.uint8)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    yy, xx = np.mgrid[0:120, 0:200]
    return (xx - x) ** 2 + (yy - y) ** 2 < radius**2


def test_a_mask_tints_its_inside_and_nothing_else() -> None:
    before = GREY.copy()
    out = OverlayPainter(120, fill=0.5).draw(GREY, [MaskLayer(disc(100, 60, 30), "#ff0000")])
    assert np.array_equal(GREY, before)
    assert tuple(out[60, 100]) == (178, 50, 50)  # halfway from 100 to the colour, 177.5 to even
    assert (out[~disc(100, 60, 33)] == 100).all()
    rim = out[60, 128:132].astype(int)
    assert (rim[:, 0] > 200).any() and (rim[:, 1] < 60).any()


def test_holes_keep_the_picture_and_get_a_contour() -> None:
    ring = disc(100, 60, 40) & ~disc(100, 60, 20)
    out = OverlayPainter(120).draw(GREY, [MaskLayer(ring, "#00ff00")])
    assert tuple(out[60, 100]) == (100, 100, 100)
    assert out[60, 119:122, 1].max() > 200


def test_objects_keep_their_own_colours_and_texts_do_not_overlap() -> None:
    painter = OverlayPainter(120)
    masks = [disc(60, 70, 15), disc(62, 72, 15), disc(64, 74, 15)]
    colors = ["#ff0000", "#00ff00", "#0000ff"]
    layers = [
        MaskLayer(mask, color, f"{i} name")
        for i, (mask, color) in enumerate(zip(masks, colors, strict=True))
    ]
    out = painter.draw(GREY, layers)
    plain = painter.draw(GREY, [MaskLayer(m, c) for m, c in zip(masks, colors, strict=True)])
    written = (out != plain).any(axis=-1)
    for color in ([255, 0, 0], [0, 255, 0], [0, 0, 255]):
        plate = written & (out == color).all(axis=-1)
        assert plate.sum() > 150, f"the plate of {color} is covered"


def test_texts_stay_inside_the_frame_and_any_edge_mask_is_drawn() -> None:
    corner = np.zeros((120, 200), dtype=bool)
    corner[:4, -4:] = True
    layer = MaskLayer(corner, "#ffff00", "a label that is longer than the frame is wide " * 3)
    assert OverlayPainter(120).draw(GREY, [layer]).shape == GREY.shape
    empty = MaskLayer(np.zeros((120, 200), dtype=bool), "#ffff00", "gone")
    assert np.array_equal(OverlayPainter(120).draw(GREY, [empty]), GREY)


@pytest.mark.parametrize("text", ["Äpfel", "мяч", "σκύλος", "größe ß"])
def test_names_of_other_scripts_have_their_own_glyphs(text: str) -> None:
    font = LabelFont(24)
    for character in set(text) - {" "}:
        assert not np.array_equal(font.draw(character), font.draw("\U000ffffe")), character
    assert font.draw(text).max() == 255 and font.draw(text).shape[1] > font.draw(text[:2]).shape[1]


@pytest.mark.parametrize("text", ["", " ", "a\nb", "\U000ffffe", "女の子"])
def test_odd_names_are_drawn_without_failing(text: str) -> None:
    out = OverlayPainter(120).draw(GREY, [MaskLayer(disc(100, 60, 20), "#ff00ff", text)])
    assert out.shape == GREY.shape


def test_clicks_and_boxes_appear_where_they_were_made() -> None:
    prompts = [
        Prompt(1, clicks=(Click(50.5, 60.5), Click(150.5, 60.5, positive=False))),
        Prompt(2, box=Box(90, 20, 110, 100)),
    ]
    out = OverlayPainter(120).draw(GREY, [], prompts, colors={2: "#12ff34"}).astype(int)
    assert out[63, 53, 1] > out[63, 53, 0] + 80, "a positive click is green"
    assert out[63, 153, 0] > out[63, 153, 1] + 80, "a negative click is red"
    assert tuple(out[60, 50]) == (255, 255, 255) == tuple(out[58, 50]), "a plus"
    assert tuple(out[60, 150]) == (255, 255, 255) and out[58, 150, 1] < 120, "a minus"
    assert out[60, 90, 1] > 200 and out[60, 110, 1] > 200
    assert tuple(out[60, 100]) == (100, 100, 100)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"shape \(2, 2\) cannot be drawn .* \(120, 200\)"):
        OverlayPainter(120).draw(GREY, [MaskLayer(np.ones((2, 2), dtype=bool), "#ffffff")])
