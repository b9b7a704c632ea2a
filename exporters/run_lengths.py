"""COCO's uncompressed run lengths, for readers that take no strings."""

from __future__ import annotations

import numpy as np

from edgetam_label.masks import RLE


def run_lengths(rle: RLE) -> list[int]:
    """Lengths of the runs of a mask read column by column, background first (perhaps 0).

    The string holds each length in groups of five bits, lowest first, above 48; the sixth bit says
    that another group follows, the highest bit of the last group is the sign. From the fourth
    length on, the difference to the one before the last is stored (pycocotools, `rleToString`).
    """
    groups = np.frombuffer(rle.counts, dtype=np.uint8).astype(np.int64) - 48
    if groups.size == 0:
        return []
    last = np.flatnonzero(groups & 0x20 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    shift = 5 * (np.arange(groups.size) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((groups & 0x1F) << shift, first)
    negative = groups[last] & 0x10 != 0
    values -= np.where(negative, np.int64(1) << (5 * (last - first + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    lengths: list[int] = values.tolist()
    return lengths
