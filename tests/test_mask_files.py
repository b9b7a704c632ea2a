"""Masks from image editors in, PNGs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetam_label.errors import MediaError, UsageError
from edgetam_label.mask_files import read_mask, write_image, write_mask, write_whole

MASK = np.zeros((20, 30), dtype=bool)
MASK[5:9, 10:25] = True


def test_a_written_mask_is_read_back(tmp_path: Path) -> None:
    write_mask(tmp_path / "new" / "m.png", MASK)
    assert np.array_equal(read_mask(tmp_path / "new" / "m.png").decode(), MASK)
    with Image.open(tmp_path / "new" / "m.png") as image:
        assert image.mode == "L" and set(np.unique(np.asarray(image))) == {0, 255}


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "I;16"])
def test_masks_of_every_mode(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(MASK.astype(np.uint8) * 255)
    if mode == "P":
        image = Image.fromarray(MASK.astype(np.uint8))
        image.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
        image = image.convert("P") if image.mode != "P" else image
    elif mode == "I;16":
        image = Image.fromarray(MASK.astype(np.uint16) * 65535)
    else:
        image = grey.convert(mode)
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png").decode(), MASK)


def test_transparent_pixels_are_background(tmp_path: Path) -> None:
    pixels = np.full((20, 30, 4), 255, dtype=np.uint8)
    pixels[..., 3] = MASK * 255
    Image.fromarray(pixels).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png").decode(), MASK)


def test_masks_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.png does not exist"):
        read_mask(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(UsageError, match=r"text\.png cannot be read as an image"):
        read_mask(tmp_path / "text.png")
    write_mask(tmp_path / "black.png", np.zeros((5, 5), dtype=bool))
    with pytest.raises(UsageError, match="is empty; draw the object in white on black"):
        read_mask(tmp_path / "black.png")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "p.png"
    write_image(target, np.zeros((4, 4, 3), dtype=np.uint8))
    before = target.read_bytes()

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(target, fail)
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MediaError, match="is a file, not a folder"):
        write_mask(tmp_path / "out" / "m.png", MASK)
