"""The page of plots of `dataset stats`: one PNG, the same bytes for the same numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dataset_stats import DatasetStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FILL = "#22313f", "#2a7f9e"
_MOST_BARS = 20


def write_plots(stats: DatasetStats, path: Path) -> None:
    """Write the page to `path` (PNG), through a temporary file beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{stats.videos} videos, {stats.frames} frames, {len(stats.objects)} objects, "
        f"{stats.masks} masks",
        color=_INK,
    )
    axes = figure.subplots(2, 3)
    _categories(axes[0][0], stats)
    _bars(
        axes[0][1],
        "objects on a frame",
        [str(k) for k in sorted(stats.objects_per_frame)],
        [stats.objects_per_frame[k] for k in sorted(stats.objects_per_frame)],
        "frames",
    )
    _powers(axes[0][2], "mask area, share of the frame", stats.relative_area.by_power, "masks")
    _histogram(axes[1][0], "length of a masklet, frames", [o.masks for o in stats.objects])
    _histogram(axes[1][1], "length of a gap, frames", [g for o in stats.objects for g in o.gaps])
    axes[1][2].imshow(stats.centres, cmap="viridis", extent=(0, 1, 1, 0), aspect="auto")
    axes[1][2].set_title("where objects are", color=_INK, fontsize=11)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # No Software tag: it holds the version of matplotlib, and the bytes would change with it.
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _categories(axes: Axes, stats: DatasetStats) -> None:
    from matplotlib.ticker import MaxNLocator

    rows = sorted(stats.by_category().items(), key=lambda item: (-item[1]["masks"], item[0]))
    families, names = _drawable([label for label, _ in rows[:_MOST_BARS]])
    counts = [row["masks"] for _, row in rows[:_MOST_BARS]]
    title = "masks by category"
    if len(rows) > _MOST_BARS:
        title += f" (the {_MOST_BARS} largest of {len(rows)})"
    positions = list(range(len(names)))
    axes.barh(positions, counts, color=_FILL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks(positions, names, fontfamily=families)
    axes.invert_yaxis()
    axes.set_title(title, color=_INK, fontsize=11)


def _drawable(names: list[str]) -> tuple[list[str], list[str]]:
    """Font families to draw with, and the names with what no installed font has as "?"."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    wanted = ["DejaVu Sans"]
    installed = set(font_manager.get_font_names())
    for family in ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic"):
        if family in installed:
            wanted.append(family)
    covered: set[int] = set()
    for family in wanted:
        covered |= set(FT2Font(font_manager.findfont(family)).get_charmap())
    shown = []
    for number, name in enumerate(names, start=1):
        text = "".join(c if ord(c) in covered else "?" for c in name).replace("$", r"\$")
        shown.append(text if text.strip("?") else f"category {number}: no font")
    return wanted, shown


def _bars(axes: Axes, title: str, names: list[str], counts: list[int], unit: str) -> None:
    positions = list(range(len(names)))
    axes.bar(positions, counts, color=_FILL)
    axes.set_xticks(positions, names)
    axes.set_ylabel(unit)
    axes.set_title(title, color=_INK, fontsize=11)


def _powers(axes: Axes, title: str, by_power: dict[int, int], unit: str) -> None:
    """A histogram of thousandths by powers of two: bin p holds [2^(p-1), 2^p) thousandths."""
    powers = list(range(min(by_power, default=0), max(by_power, default=0) + 1))
    names = [f"<{2**p / 10:g}%" for p in powers]
    _bars(axes, title, names, [by_power.get(p, 0) for p in powers], unit)
    axes.tick_params(axis="x", labelrotation=45)


def _histogram(axes: Axes, title: str, values: list[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    if values:
        # Bins of whole width around whole numbers: a length of 2 stands over the 2.
        width = math.ceil((max(values) - min(values) + 1) / 30)
        edges = np.arange(min(values), max(values) + width + 1, width) - 0.5
        axes.hist(values, bins=edges.tolist(), color=_FILL)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
    axes.set_title(title, color=_INK, fontsize=11)
