from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from edgetam_label.masks import RLE, mask_to_box

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)


def by_the_library(mask: np.ndarray) -> bytes:
    return bytes(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"])


@given(arrays(bool, SHAPES))
@settings(deadline=None, max_examples=300)
def test_run_lengths_are_those_of_the_library(mask):
    rle = RLE.encode(mask)
    assert rle.counts == by_the_library(mask)
    assert np.array_equal(rle.decode(), mask)


@pytest.mark.parametrize(
    "where",
    [
        np.s_[:, :],  # all of it
        np.s_[:, 3:7],  # whole columns: one run
        np.s_[5:, 2:9],  # down to the lower edge
        np.s_[:4, 2:9],  # from the upper edge
        np.s_[2:9, 11:],  # to the last column
        np.s_[0:0, 0:0],
    ],
)
def test_runs_at_the_edges_of_the_frame(where):
    mask = np.zeros((10, 14), dtype=bool)
    mask[where] = True
    assert RLE.encode(mask).counts == by_the_library(mask)
    assert RLE.encode(mask.astype(np.uint8)).counts == by_the_library(mask)


def test_a_ragged_mask_of_a_large_frame():
    rng = np.random.default_rng(0)
    mask = np.zeros((1080, 1920), dtype=bool)
    mask[200:700, 300:1400] = rng.random((500, 1100)) > 0.5
    assert RLE.encode(mask).counts == by_the_library(mask)


@given(arrays(bool, SHAPES))
@settings(deadline=None, max_examples=100)
def test_the_box_is_tight(mask):
    ys, xs = np.nonzero(mask)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
    assert mask_to_box(mask) == expected
