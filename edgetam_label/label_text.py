"""Text of any script as a coverage mask, for labels drawn on frames."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Families that cover what DejaVu Sans lacks (Chinese, Japanese, Korean, Indic, Thai ...), as the
# usual systems name their files.
_WIDE_FAMILIES = tuple(
    "NotoSansCJK NotoSansSC NotoSansJP NotoSansKR SourceHanSans wqy DroidSans NotoSans unifont "
    "Unifont ArialUnicode PingFang Hiragino AppleSDGothic msyh meiryo malgun YuGoth simsun Nirmala "
    "LeelawUI FreeSans".split()
)
_FONT_SUFFIXES = frozenset({".ttf", ".ttc", ".otf"})
_NO_CHARACTER = "\U000ffffe"  # never assigned: draws the font's own sign for a missing glyph


class LabelFont:
    """Draws one line of text; a character that the built-in font lacks comes from a system font.

    size: height of the letters in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._built_in = ImageFont.truetype(str(_built_in_font()), size)
        self._wide: list[ImageFont.FreeTypeFont] | None = None
        self.draw = lru_cache(maxsize=512)(self._draw)
        """(h, w) uint8 coverage of a line of text, 0 to 255; do not write to it."""

    def _draw(self, text: str) -> NDArray[np.uint8]:
        runs = self._runs(" ".join(text.split()) or " ")
        widths = [max(1, round(font.getlength(run))) for font, run in runs]
        ascent = max(font.getmetrics()[0] for font, _ in runs)
        descent = max(font.getmetrics()[1] for font, _ in runs)
        line = Image.new("L", (sum(widths), ascent + descent))
        pen = ImageDraw.Draw(line)
        left = 0
        for (font, run), width in zip(runs, widths, strict=True):
            pen.text((left, ascent), run, fill=255, font=font, anchor="ls")
            left += width
        return np.asarray(line)

    def _runs(self, text: str) -> list[tuple[ImageFont.FreeTypeFont, str]]:
        """Neighbouring characters of one font, in order."""
        runs: list[tuple[ImageFont.FreeTypeFont, str]] = []
        for character in text:
            font = self._font_for(character)
            if runs and runs[-1][0] is font:
                runs[-1] = (font, runs[-1][1] + character)
            else:
                runs.append((font, character))
        return runs

    def _font_for(self, character: str) -> ImageFont.FreeTypeFont:
        if character.isascii() or _has_glyph(self._built_in, character):
            return self._built_in
        if self._wide is None:
            self._wide = [_load(path, self.size) for path in _system_fonts()]
        return next((f for f in self._wide if _has_glyph(f, character)), self._built_in)


def _load(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _has_glyph(font: ImageFont.FreeTypeFont, character: str) -> bool:
    if character.isspace():
        return True
    drawn, missing = font.getmask(character), font.getmask(_NO_CHARACTER)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _built_in_font() -> Path:
    """DejaVu Sans (Latin, Greek, Cyrillic, Arabic, Hebrew ...), which Matplotlib ships."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations, "matplotlib is a dependency"
    return (
        Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    )


def _system_fonts() -> list[Path]:
    found: list[Path] = []
    for folder in _font_folders():
        if folder.is_dir():
            found += [p for p in folder.rglob("*") if p.suffix.lower() in _FONT_SUFFIXES]
    wide = [p for p in found if p.name.startswith(_WIDE_FAMILIES) and "Bold" not in p.name]
    return sorted(wide, key=lambda p: (_rank(p.name), p.name))


def _rank(name: str) -> int:
    return next(i for i, family in enumerate(_WIDE_FAMILIES) if name.startswith(family))


def _font_folders() -> tuple[Path, ...]:
    if sys.platform == "darwin":
        return (Path("/System/Library/Fonts"), Path("/Library/Fonts"))
    if sys.platform == "win32":
        return (Path("C:/Windows/Fonts"),)
    return (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
