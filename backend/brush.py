"""Label Studio's brush RLE: masks to byte lists and back, vectorised.

The format is rle-pack (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack), bits
most significant first, over the row-major RGBA values of an image:

    u32 number of values (4 * height * width) | u5 word size - 1 | 4 x u4 count size - 1
    then records:  1 bit is-run | 2 bits index into the count sizes | count - 1 | value(s)

A run record carries one value, a literal record `count` of them. The encoder writes the very bytes
that label-studio-sdk 2.1.2 writes (its padding included, which is a whole zero byte when the
stream is already aligned); the decoder reads every word size and every table of count sizes,
because strokes drawn in the editor come from another encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgetam_label.errors import UsageError

FOREGROUND = 255  # alpha 1 would be drawn, but nobody would see it
MAX_PIXELS = 1 << 28  # 16384 x 16384: beyond any image a browser can show as one canvas
_HEADER_BITS = 53
_WORD_SIZE = 8
_COUNT_SIZES = (3, 4, 8, 16)
_MAX_RUN = 1 << 16
_CHUNK_BYTES = 1 << 16  # bounds the memory of decoding: eight record lengths per byte


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """The `rle` list of a `brushlabels` value for a (H, W) mask; true pixels become opaque.

    Returns byte values 0..255, identical to label-studio-sdk's `mask2rle(mask * 255)`.
    Raises UsageError if the mask is not two-dimensional, is empty-sized or has over 2**28 pixels.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise UsageError(f"A brush mask must have shape (H, W) with pixels, got {mask.shape}.")
    _check_pixels(*mask.shape)
    codes, bits = _run_records(np.ascontiguousarray(mask, dtype=bool).ravel())
    ends = _HEADER_BITS + np.cumsum(bits)
    total = int(ends[-1])
    out = np.zeros(total // 8 + 1 + 8, dtype=np.uint8)
    header = mask.size * 4
    for size, value in ((5, _WORD_SIZE - 1), *((4, size - 1) for size in _COUNT_SIZES)):
        header = header << size | value
    out[:7] = np.frombuffer((header << 3).to_bytes(7, "big"), dtype=np.uint8)
    _pack(out, ends - bits, codes, bits)
    return list(out[: total // 8 + 1].tolist())


def decode_brush(rle: Sequence[int] | bytes, height: int, width: int) -> NDArray[np.uint8]:
    """The alpha channel (H, W) uint8 of a brush `rle` list; values over 255 read as 255.

    Strokes drawn by people have soft edges, so alpha takes every value; `decode_brush_mask`
    thresholds. Raises UsageError if the bytes are malformed, end early, or describe another size
    than height x width; memory stays within a few times max(len(rle), height * width).
    """
    _check_pixels(height, width)
    data = _as_bytes(rle)
    word_size, count_sizes = _read_header(data, height, width)
    starts, counts, is_run = _walk_records(data, word_size, count_sizes, 4 * height * width)
    ends = np.cumsum(counts)
    firsts = ends - counts
    # Value 4k + 3 is the alpha of pixel k: values [i, j) hold the alphas of pixels [i//4, j//4).
    pixels = ends // 4 - firsts // 4
    values = np.zeros(len(starts), dtype=np.uint8)
    values[is_run] = _read_words(data, starts[is_run], word_size)
    alpha = np.repeat(values, pixels)
    literal = ~is_run & (pixels > 0)
    if literal.any():
        n = pixels[literal]
        first_pixel = firsts[literal] // 4
        step = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
        pixel = np.repeat(first_pixel, n) + step
        offset = (pixel * 4 + 3 - np.repeat(firsts[literal], n)) * word_size
        alpha[pixel] = _read_words(data, np.repeat(starts[literal], n) + offset, word_size)
    return alpha.reshape(height, width)


def decode_brush_mask(rle: Sequence[int] | bytes, height: int, width: int) -> NDArray[np.bool_]:
    """The (H, W) bool mask of a brush `rle` list: pixels with at least half the strongest alpha.

    Half of the strongest, not of 255: programs that encode 0/1 masks write alpha 1, and dropping
    their masks silently would be worse than reading a faint stroke as a full one.
    """
    alpha = decode_brush(rle, height, width)
    return np.asarray(alpha >= max(1, (int(alpha.max()) + 1) // 2), dtype=bool)


def _run_records(flat: NDArray[np.bool_]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Code and bit length of each run record of the (H*W,) pixels, four values per pixel."""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = 4 * np.diff(edges, prepend=0, append=flat.size)
    foreground = np.zeros(len(lengths), dtype=bool)
    foreground[int(not flat[0]) :: 2] = True
    index = np.searchsorted((8, 16, 256), lengths)
    if int(lengths.max()) > _MAX_RUN:
        # Long runs are cut into whole chunks; the rest stays in the widest class, however short.
        chunks = (lengths - 1) // _MAX_RUN + 1
        last = np.cumsum(chunks) - 1
        rest = lengths - (chunks - 1) * _MAX_RUN
        lengths = np.full(int(last[-1]) + 1, _MAX_RUN)
        lengths[last] = rest
        index, foreground = np.repeat(index, chunks), np.repeat(foreground, chunks)
    count_bits = np.asarray(_COUNT_SIZES)[index]
    head = (4 | index) << count_bits | (lengths - 1)
    codes = head << _WORD_SIZE | np.where(foreground, FOREGROUND, 0)
    return codes.astype(np.uint64), 3 + count_bits + _WORD_SIZE


def _pack(
    out: NDArray[np.uint8],
    starts: NDArray[np.int64],
    codes: NDArray[np.uint64],
    bits: NDArray[np.int64],
) -> None:
    """Write each code of `bits` (14 to 27) bits at bit `starts` of `out`, in place."""
    first = starts >> 3
    shifted = codes << (40 - (starts & 7) - bits).astype(np.uint64)
    for k in range(5):
        # No two records start in the same byte (each has 14 bits or more), so in one pass every
        # byte is written once and a plain |= loses nothing.
        out[first + k] |= (shifted >> np.uint64(32 - 8 * k)).astype(np.uint8)


def _check_pixels(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise UsageError(
            f"A brush mask of {width}x{height} pixels cannot be handled; "
            f"width and height must be at least 1 and their product at most {MAX_PIXELS}."
        )


def _as_bytes(rle: Sequence[int] | bytes) -> NDArray[np.uint8]:
    """The bytes followed by eight zeros, so that a 40-bit window fits at every position."""
    if isinstance(rle, str) or not isinstance(rle, Sequence | np.ndarray):
        raise UsageError(
            f"A brush rle must be a list of bytes 0..255, got {type(rle).__name__}; "
            "send the `rle` list as Label Studio stores it."
        )
    try:
        raw = bytes(rle)
    except (TypeError, ValueError) as error:
        raise UsageError(f"A brush rle must be a list of bytes 0..255: {error}.") from error
    return np.frombuffer(raw + bytes(8), dtype=np.uint8)


def _read_header(data: NDArray[np.uint8], height: int, width: int) -> tuple[int, tuple[int, ...]]:
    if len(data) - 8 < 7:
        raise UsageError(
            f"This brush rle has {len(data) - 8} bytes, too few for its header of 7; "
            "it was cut off or is not a Label Studio brush mask."
        )
    header = int.from_bytes(data[:7].tobytes(), "big")
    claimed = header >> 24
    if claimed != 4 * height * width:
        raise UsageError(
            f"This brush rle describes {claimed} values, but {width}x{height} pixels need "
            f"{4 * height * width}; check original_width and original_height."
        )
    sizes = tuple((header >> shift & 15) + 1 for shift in (15, 11, 7, 3))
    return (header >> 19 & 31) + 1, sizes


def _walk_records(
    data: NDArray[np.uint8], word_size: int, count_sizes: tuple[int, ...], num: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """First value bit, value count and kind of each record, until `num` values are covered.

    Where a record starts depends on all before it. So the length that a record *would* have is
    computed at every bit position at once, and only the chain of starts is followed one by one.
    """
    total_bits = (len(data) - 8) * 8
    sizes = np.asarray(count_sizes)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]] = []
    position, seen = _HEADER_BITS, 0
    while seen < num and position < total_bits:
        base = position >> 3
        stop = min(base + _CHUNK_BYTES, len(data) - 8)
        windows = _windows(data, base, stop)
        run = windows >> 31 == 1
        index_bits = sizes[windows >> 29 & 3]
        counts = ((windows & 0x1FFFFFFF) >> (29 - index_bits)) + 1
        lengths = 3 + index_bits + word_size * np.where(run, 1, counts)
        offset = base * 8
        following = (np.arange(len(lengths)) + lengths).tolist()
        chain, at, end = [], position - offset, len(following)
        while at < end:
            chain.append(at)
            at = following[at]
        picked = np.asarray(chain)
        position = offset + at
        parts.append((offset + picked + 3 + index_bits[picked], counts[picked], run[picked]))
        seen += int(counts[picked].sum())
    return _trim(parts, seen, num, position, total_bits, word_size)


def _trim(
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]],
    seen: int,
    num: int,
    position: int,
    total_bits: int,
    word_size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Drop what padding looks like after `num` values; raise if they are not covered exactly."""
    if seen < num:
        raise UsageError(
            f"This brush rle ends after {seen} of {num} values; it was cut off on its way."
        )
    starts, counts, run = (np.concatenate(column) for column in zip(*parts, strict=True))
    ends = np.cumsum(counts)
    used = int(np.searchsorted(ends, num)) + 1
    if int(ends[used - 1]) != num:
        raise UsageError(
            f"The last record of this brush rle reaches value {int(ends[used - 1])} of {num}; "
            "the bytes are damaged."
        )
    last_bit = int(starts[used - 1]) + word_size * (1 if run[used - 1] else int(counts[used - 1]))
    if last_bit > total_bits:
        raise UsageError(
            f"This brush rle ends inside a record, at bit {total_bits} of {last_bit}; "
            "it was cut off on its way."
        )
    return starts[:used], counts[:used], run[:used]


def _windows(data: NDArray[np.uint8], start: int, stop: int) -> NDArray[np.int64]:
    """The 32 bits that follow each bit position of bytes [start, stop), (8 * (stop - start),)."""
    words = np.zeros(stop - start, dtype=np.int64)
    for k in range(5):
        words |= data[start + k : stop + k].astype(np.int64) << (32 - 8 * k)
    return np.asarray((words[:, None] >> (8 - np.arange(8))) & 0xFFFFFFFF).ravel()


def _read_words(
    data: NDArray[np.uint8], bits: NDArray[np.int64], word_size: int
) -> NDArray[np.uint8]:
    """The `word_size`-bit values at the given bit positions, values over 255 as 255."""
    first = bits >> 3
    words = np.zeros(len(bits), dtype=np.int64)
    for k in range(5):
        words |= data[first + k].astype(np.int64) << (32 - 8 * k)
    values = words >> (40 - word_size - (bits & 7)) & ((1 << word_size) - 1)
    return np.asarray(np.minimum(values, 255), dtype=np.uint8)
