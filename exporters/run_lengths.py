"""COCO's uncompressed run lengths, for readers that take no strings."""

from __future__ import annotations

import numpy as np

from edgetam_label.masks import RLE


def run_lengths(rle: RLE) -> list[int]:
    """Lengths of the runs of a mask read column by column, background first (perhaps 0)."""
    flat = rle.decode().ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=flat.size).tolist()
    return [0, *runs] if flat[0] else list(runs)
