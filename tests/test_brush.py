"""The brush codec: recorded SDK bytes, a plain bit-by-bit encoder, and fuzz."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import make_brush_corpus as corpus
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sdk_oracle import ask, needs_sdk

from edgetam_label.backend.brush import decode_brush, decode_brush_mask, encode_brush
from edgetam_label.errors import UsageError

golden = json.loads(corpus.GOLDEN.read_text(encoding="utf-8"))["masks"]


@pytest.mark.parametrize("name", list(corpus.MASKS))
def test_bytes_are_those_of_the_sdk(name: str) -> None:
    mask = corpus.MASKS[name]()
    rle = encode_brush(mask)
    assert corpus.record(rle) == golden[name]
    alpha = decode_brush(rle, *mask.shape)
    assert alpha.dtype == np.uint8
    np.testing.assert_array_equal(alpha, mask * np.uint8(255))


def test_every_mask_has_a_recorded_encoding() -> None:
    assert set(golden) == set(corpus.MASKS)


@pytest.mark.consumers
@needs_sdk
def test_the_sdk_reads_and_writes_the_same(tmp_path: Path) -> None:
    masks = {name: make() for name, make in corpus.MASKS.items() if "1080p" not in name}
    rng = np.random.default_rng(8)
    for i in range(60):
        shape = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        masks[f"random {i}"] = rng.random(shape) < rng.choice([0.02, 0.3, 0.9])
    question = {
        name: {"height": mask.shape[0], "width": mask.shape[1], "rle": encode_brush(mask)}
        for name, mask in masks.items()
    }
    for name, answer in ask("brush", question, tmp_path).items():
        assert answer["rle"] == question[name]["rle"], name
        read = np.asarray([list(row) for row in answer["rows"]]) == "1"
        np.testing.assert_array_equal(read, masks[name])


def write_bits(fields: Iterable[tuple[int, int]]) -> list[int]:
    """(value, bits) fields to bytes, most significant bit first: the format, spelled out."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def header(
    num: int, word_size: int = 8, sizes: tuple[int, ...] = (3, 4, 8, 16)
) -> list[tuple[int, int]]:
    return [(num, 32), (word_size - 1, 5), *((size - 1, 4) for size in sizes)]


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70)))
def test_masks_round_trip(mask: np.ndarray) -> None:
    rle = encode_brush(mask)
    np.testing.assert_array_equal(decode_brush_mask(rle, *mask.shape), mask)
    np.testing.assert_array_equal(decode_brush(bytes(rle), *mask.shape) > 0, mask)


@st.composite
def foreign_streams(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    """A stream of runs and literals with any word size and size table, and its true alpha."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    word_size = draw(st.integers(1, 32))
    sizes = tuple(draw(st.lists(st.integers(1, 16), min_size=4, max_size=4)))
    num = 4 * height * width
    values: list[int] = []
    fields = header(num, word_size, sizes)
    while len(values) < num:
        index = draw(st.integers(0, 3))
        count = draw(st.integers(1, min(2 ** sizes[index], num - len(values))))
        run = draw(st.booleans())
        words = draw(
            st.lists(
                st.integers(0, 2**word_size - 1),
                min_size=1 if run else count,
                max_size=1 if run else count,
            )
        )
        fields += [(int(run), 1), (index, 2), (count - 1, sizes[index])]
        fields += [(word, word_size) for word in words]
        values += words * count if run else words
    alpha = np.minimum(np.asarray(values, dtype=np.int64)[3::4], 255).reshape(height, width)
    return write_bits(fields), alpha.astype(np.uint8)


@settings(max_examples=200, deadline=None)
@given(foreign_streams())
def test_strokes_of_other_encoders_are_read(stream: tuple[list[int], np.ndarray]) -> None:
    rle, alpha = stream
    np.testing.assert_array_equal(decode_brush(rle, *alpha.shape), alpha)


def test_soft_edges_are_cut_at_half_and_faint_masks_are_kept() -> None:
    soft = [(0, 1), (3, 2), (11, 16), *[(v, 8) for v in (0, 0, 0, 127, 9, 9, 9, 128, 0, 0, 0, 255)]]
    assert decode_brush_mask(write_bits(header(12) + soft), 1, 3).tolist() == [[False, True, True]]
    faint = [(1, 1), (0, 2), (3, 3), (0, 8), (1, 1), (0, 2), (3, 3), (1, 8)]
    assert decode_brush_mask(write_bits(header(8) + faint), 1, 2).tolist() == [[False, True]]


def test_a_literal_longer_than_a_decoding_chunk() -> None:
    rng = np.random.default_rng(3)
    alpha = rng.integers(0, 256, (150, 160), dtype=np.uint8)
    rgba = np.repeat(alpha.ravel(), 4)
    fields = header(rgba.size)
    for start in range(0, rgba.size, 65536):
        part = rgba[start : start + 65536]
        fields += [(0, 1), (3, 2), (len(part) - 1, 16), *((int(v), 8) for v in part)]
    rle = write_bits(fields)
    np.testing.assert_array_equal(decode_brush(rle, 150, 160), alpha)
    with pytest.raises(UsageError, match="cut off"):
        decode_brush(rle[:-40], 150, 160)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([], "0 bytes"),
        ([0, 0, 1], "3 bytes"),
        ([0] * 7, "describes 0 values"),
        (encode_brush(np.ones((4, 4), dtype=bool)), "describes 64 values"),
        (encode_brush(np.ones((5, 5), dtype=bool))[:7], "of 100 values; it was cut off"),
        (
            write_bits([*header(100), (1, 1), (2, 2), (100, 8), (255, 8)]),
            "reaches value 101 of 100",
        ),
        (write_bits([*header(100), (1, 1), (2, 2), (99, 8)]), "cut off"),
        (write_bits([*header(100), (0, 1), (2, 2), (99, 8), (1, 8)]), "cut off"),
        ([256] * 9, "0..255"),
        ([-1] * 9, "0..255"),
        ([1.5] * 9, "0..255"),
        (["a"] * 9, "0..255"),
        ([[1]] * 9, "0..255"),
        ("abcdefghij", "list of bytes"),
        (10**12, "list of bytes"),
        (None, "list of bytes"),
        ({"rle": []}, "list of bytes"),
    ],
)
def test_malformed_streams_say_what_is_wrong(rle: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decode_brush(rle, 5, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, -1), (1 << 20, 1 << 20)])
def test_impossible_sizes_are_refused_before_memory_is_taken(height: int, width: int) -> None:
    with pytest.raises(UsageError, match="cannot be handled"):
        decode_brush([0xFF] * 20, height, width)


def test_encoding_refuses_what_is_not_a_mask() -> None:
    with pytest.raises(UsageError, match=r"\(2, 3, 4\)"):
        encode_brush(np.zeros((2, 3, 4), dtype=bool))
    with pytest.raises(UsageError, match=r"\(0, 7\)"):
        encode_brush(np.zeros((0, 7), dtype=bool))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_random_bytes_never_crash(noise: bytes, height: int, width: int, fix_size: bool) -> None:
    if fix_size:
        noise = (4 * height * width).to_bytes(4, "big") + noise
    try:
        alpha = decode_brush(noise, height, width)
    except UsageError:
        return
    assert alpha.shape == (height, width)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_encodings_never_crash(data: st.DataObject) -> None:
    mask = corpus.MASKS["ring"]()
    rle = encode_brush(mask)
    for _ in range(data.draw(st.integers(1, 4))):
        rle[data.draw(st.integers(4, len(rle) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert (
            decode_brush(rle[: data.draw(st.integers(4, len(rle)))], *mask.shape).shape
            == mask.shape
        )
    except UsageError:
        pass


def test_a_bomb_is_refused_quickly() -> None:
    """Few bytes that claim a huge image: seconds or gigabytes here would stop the server."""
    side = 16384
    bomb = (4 * side * side).to_bytes(4, "big") + bytes([57, 27, 252]) + bytes(50_000)
    start = time.perf_counter()
    with pytest.raises(UsageError, match="cut off"):
        decode_brush(bomb, side, side)
    assert time.perf_counter() - start < 5
