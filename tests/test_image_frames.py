"""Folders and lists of images as frames."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from clips import HEIGHT, WIDTH, draw_frame, read_index, write_images
from PIL import Image

from edgetam_label.errors import MediaError, UsageError
from edgetam_label.frames import Frames


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 12)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_bytes(b"")
    with Frames.open(tmp_path) as frames:
        assert [read_index(image) for image in frames] == [*range(12)]
        assert [(i, read_index(x)) for i, x in frames.iter(9, 2, -1)] == [
            (i, i) for i in range(9, 2, -1)
        ]
        identity = frames.identity
        assert identity.kind == "folder" and identity.names[9:11] == ("frame9.png", "frame10.png")
        assert (identity.width, identity.height, len(frames)) == (WIDTH, HEIGHT, 12)
        assert identity.size_bytes == sum(path.stat().st_size for path in paths)
        assert np.array_equal(frames[7], draw_frame(7))
    assert Frames.open(tmp_path, identity=identity).identity == identity
    as_list = Frames.open(paths)
    assert as_list.identity.sha256 == identity.sha256 and as_list.identity.kind == "images"
    with pytest.raises(MediaError, match="not the media of this session any more"):
        Frames.open(paths[::-1], identity=identity)


def test_arrays_are_frames_and_stay_the_callers(tmp_path: Path) -> None:
    images = [draw_frame(idx) for idx in range(3)]
    frames = Frames.open(images)
    frames[1][:] = 0
    assert [read_index(image) for image in frames] == [0, 1, 2]
    assert (frames.identity.source, frames.identity.kind) == ("", "images")
    assert frames.identity.sha256 != Frames.open(images[::-1]).identity.sha256
    with pytest.raises(UsageError, match=r"Image 1 .* 20x10 pixels, image 0 is"):
        Frames.open([images[0], np.zeros((10, 20, 3), np.uint8)])
    with pytest.raises(UsageError, match=r"Image 0 .* \(5, 5\).*RGB arrays"):
        Frames.open([np.zeros((5, 5), np.uint8)])
    with pytest.raises(UsageError, match="list of images is empty"):
        Frames.open([])
    with pytest.raises(UsageError, match="mixes image files and arrays"):
        Frames.open([images[0], write_images(tmp_path, 1)[0]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_pixels(orientation: int, tmp_path: Path) -> None:
    shown = draw_frame(5)
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.swapaxes(0, 1),
        6: np.rot90(shown, 1),
        7: shown[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(shown, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    frames = Frames.open(path)
    assert frames.identity.kind == "image"
    assert (frames.width, frames.height) == (WIDTH, HEIGHT)
    assert np.array_equal(frames[0], shown)


def test_every_kind_of_picture_becomes_rgb(tmp_path: Path) -> None:
    grey = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.array_equal(Frames.open(tmp_path / "deep.png")[0][..., 1], grey >> 8)
    colours = draw_frame(2)
    Image.fromarray(colours).quantize(64).save(tmp_path / "palette.png")
    assert read_index(Frames.open(tmp_path / "palette.png")[0]) == 2
    alpha = np.dstack([colours, np.full(colours.shape[:2], 7, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.webp", lossless=True, exact=True)
    assert np.array_equal(Frames.open(tmp_path / "alpha.webp")[0], colours)
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "print.jpg")
    assert read_index(Frames.open(tmp_path / "print.jpg")[0]) == 2
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(MediaError, match="32-bit samples"):
        Frames.open(tmp_path / "float.tif")[0]


def test_images_of_two_sizes_are_refused_by_name(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    Image.fromarray(draw_frame(3, WIDTH + 2)).save(tmp_path / "frame3.png")
    with pytest.raises(
        MediaError, match=rf"frame3.png has {WIDTH + 2}x{HEIGHT} pixels, frame0.png"
    ):
        Frames.open(tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1)[0]
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(MediaError, match=r"frame0.png is damaged .* copy it again"):
        Frames.open(tmp_path)[0]


def _png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 10_000)])
def test_a_decompression_bomb_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_that_claims(*size))
    with pytest.raises(MediaError, match="more than 89,478,485 pixels; scale it down"):
        Frames.open(path)
