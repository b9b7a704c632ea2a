"""Masks, names and prompts drawn on a frame. Pure functions on arrays; no video, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.errors import UsageError
from edgetam_label.label_text import LabelFont
from edgetam_label.masks import Mask, mask_to_box
from edgetam_label.palette import Color, default_color, parse_color
from edgetam_label.prompts import Box, Click, Prompt

Image = NDArray[np.uint8]  # (H, W, 3) RGB
Rect = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive

_POSITIVE: Color = (38, 190, 70)
_NEGATIVE: Color = (228, 50, 45)
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)


@dataclass(frozen=True)
class MaskLayer:
    """One object on one frame. mask: (H, W) bool. text: drawn next to it, "" for none."""

    mask: Mask
    color: str
    text: str = ""


@dataclass(frozen=True)
class OverlayPainter:
    """How overlays look on frames of one height; line widths and letters scale with it.

    height: pixels of the frames, more for what will be shown smaller than drawn.
    fill: opacity of a mask's colour, 0 to 1.
    """

    height: int
    fill: float = 0.42
    font: LabelFont = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "font", LabelFont(max(11, round(self.height / 36))))

    @property
    def line(self) -> int:
        """Width of contours and boxes in pixels."""
        return max(1, round(self.height / 320))

    def draw(
        self,
        image: Image,
        layers: Sequence[MaskLayer],
        prompts: Sequence[Prompt] = (),
        *,
        colors: Mapping[int, str] | None = None,
        caption: str = "",
    ) -> Image:
        """A copy of `image` with masks, their contours and texts, clicks, boxes and a caption.

        colors: of the boxes in `prompts`, by obj_id; the default colour of the id otherwise.

        Later layers lie above earlier ones; texts lie above all masks and do not cover each other
        while there is room. Raises UsageError for a mask that is not of the image's size.
        """
        canvas = np.ascontiguousarray(image).copy()
        shown = [
            (layer, box) for layer in layers if (box := _checked_box(layer, image)) is not None
        ]
        for layer, box in shown:
            self._fill(canvas, layer, box)
        for layer, box in shown:
            self._contour(canvas, layer, box)
        for prompt in prompts:
            color = (colors or {}).get(prompt.obj_id) or default_color(prompt.obj_id)
            self._prompt(canvas, prompt, parse_color(color))
        taken: list[Rect] = []
        if caption:
            taken.append(self._text(canvas, caption, (0, 0), _BLACK, taken))
        for layer, box in shown:
            if layer.text:
                corner = self._corner(layer.mask, box)
                taken.append(
                    self._text(canvas, layer.text, corner, parse_color(layer.color), taken)
                )
        return canvas

    def _fill(self, canvas: Image, layer: MaskLayer, box: Rect) -> None:
        x0, y0, x1, y1 = box
        part, inside = canvas[y0:y1, x0:x1], layer.mask[y0:y1, x0:x1]
        color = np.array(parse_color(layer.color), dtype=np.float32)
        mixed = part[inside] * np.float32(1 - self.fill) + color * np.float32(self.fill)
        part[inside] = np.rint(mixed).astype(np.uint8)

    def _contour(self, canvas: Image, layer: MaskLayer, box: Rect) -> None:
        x0, y0, x1, y1 = box
        # A rim of background, so that contours close along the edge of the box.
        inside = np.pad(layer.mask[y0:y1, x0:x1], 1).astype(np.uint8)
        contours, _ = cv2.findContours(
            inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x0 - 1, y0 - 1)
        )
        color = parse_color(layer.color)
        if self.line > 1:
            cv2.drawContours(canvas, contours, -1, _BLACK, self.line + 2, cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, color, self.line, cv2.LINE_AA)

    def _prompt(self, canvas: Image, prompt: Prompt, color: Color) -> None:
        if prompt.box is not None:
            self._box(canvas, prompt.box, color)
        for click in prompt.clicks:
            self._click(canvas, click)

    def _box(self, canvas: Image, box: Box, color: Color) -> None:
        corners = (round(box.x0), round(box.y0)), (round(box.x1), round(box.y1))
        cv2.rectangle(canvas, *corners, _BLACK, self.line + 2, cv2.LINE_AA)
        cv2.rectangle(canvas, *corners, color, self.line, cv2.LINE_AA)

    def _click(self, canvas: Image, click: Click) -> None:
        """A disc with a plus or a minus: told apart without colours as well."""
        # Coordinates count from the corner of the first pixel, cv2 counts from its centre.
        x, y = round(click.x - 0.5), round(click.y - 0.5)
        radius = max(4, round(self.height / 75))
        arm, pen = max(2, round(radius * 0.55)), max(1, radius // 4)
        cv2.circle(canvas, (x, y), radius + pen, _WHITE, -1, cv2.LINE_AA)
        cv2.circle(
            canvas, (x, y), radius, _POSITIVE if click.positive else _NEGATIVE, -1, cv2.LINE_AA
        )
        cv2.line(canvas, (x - arm, y), (x + arm, y), _WHITE, pen)
        if click.positive:
            cv2.line(canvas, (x, y - arm), (x, y + arm), _WHITE, pen)

    def _corner(self, mask: Mask, box: Rect) -> tuple[int, int]:
        """Where a label starts: above the topmost point of the mask."""
        x0, y0, x1, _ = box
        top = int(np.flatnonzero(mask[y0, x0:x1]).mean()) + x0
        return top, y0 - self._pill_height() - self.line

    def _pill_height(self) -> int:
        ascent_descent = self.font.draw(" ").shape[0]
        return int(ascent_descent) + 2 * self._padding()

    def _padding(self) -> int:
        return max(1, self.font.size // 6)

    def _text(
        self, canvas: Image, text: str, corner: tuple[int, int], back: Color, taken: list[Rect]
    ) -> Rect:
        """Draw text on a plate of colour `back` near `corner`; returns the plate's rectangle."""
        coverage = self.font.draw(text)
        pad = self._padding()
        size = coverage.shape[1] + 4 * pad, coverage.shape[0] + 2 * pad
        rect = _free_rect(corner, size, (canvas.shape[1], canvas.shape[0]), taken)
        x0, y0, x1, y1 = rect
        plate = canvas[y0:y1, x0:x1]
        plate[:] = back
        ink = _WHITE if _luminance(back) < 140 else _BLACK
        area = plate[pad : pad + coverage.shape[0], 2 * pad : 2 * pad + coverage.shape[1]]
        alpha = coverage[: area.shape[0], : area.shape[1], None].astype(np.float32) / 255
        area[:] = np.rint(area * (1 - alpha) + np.array(ink, np.float32) * alpha).astype(np.uint8)
        return rect


def _free_rect(
    corner: tuple[int, int], size: tuple[int, int], frame: tuple[int, int], taken: list[Rect]
) -> Rect:
    """The rectangle nearest below `corner` inside the frame that covers none of `taken`."""
    width, height = min(size[0], frame[0]), min(size[1], frame[1])
    x = min(max(corner[0], 0), frame[0] - width)
    y = first = min(max(corner[1], 0), frame[1] - height)
    while hit := next((r for r in taken if _overlap((x, y, x + width, y + height), r)), None):
        y = hit[3]
        if y + height > frame[1]:  # no room: better on top of another label than nowhere
            y = first
            break
    return x, y, x + width, y + height


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _luminance(color: Color) -> float:
    """Rec. 601 luma, 0 to 255."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def _checked_box(layer: MaskLayer, image: Image) -> Rect | None:
    if layer.mask.shape != image.shape[:2]:
        raise UsageError(
            f"A mask of shape {layer.mask.shape} cannot be drawn on an image of shape "
            f"{image.shape[:2]}; give masks of the frame's size."
        )
    return mask_to_box(layer.mask)
