"""`dataset stats`, its page of plots, and `dataset preview`, on the hard fixture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dataset_rig import Rig, make_rig
from PIL import Image

from edgetam_label.errors import UsageError
from edgetam_label.exporters import EXPORTERS
from edgetam_label.exporters.dataset_plots import write_plots
from edgetam_label.exporters.dataset_preview import SheetOptions, write_previews
from edgetam_label.exporters.dataset_source import Source, folder_source, store_source
from edgetam_label.exporters.dataset_stats import dataset_stats, gaps_of
from edgetam_label.palette import parse_color


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = make_rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.store.close()


@pytest.fixture
def stored(rig: Rig) -> Source:
    return store_source(rig.store, rig.sessions, "store")


def test_the_counts_are_those_of_the_fixture(stored: Source) -> None:
    found = dataset_stats(stored)
    assert (found.videos, found.frames, found.frames_with_masks) == (2, 19, 19)
    assert len(found.objects) == 6
    assert found.masks == 10 + 9 + 9 + 12 + 7 + 7
    assert found.sizes == {"161x97": 1, "250x133": 1}
    table = found.by_category()
    assert {label: row["masks"] for label, row in table.items()} == {
        "кошка": 16,
        "человек": 19,
        "人": 7,
        "猫": 12,
    }
    hidden = next(o for o in found.objects if o.video == "Видео один" and o.obj_id == 1)
    assert (hidden.first, hidden.last, hidden.gaps) == (0, 11, (2,))
    late = next(o for o in found.objects if o.video == "Видео один" and o.obj_id == 4)
    assert (late.first, late.last, late.gaps) == (3, 11, ())
    assert table["猫"]["area"] == {"count": 12, "mean": 1.0, "min": 1, "max": 1}
    assert sum(map(sum, found.centres)) == found.masks
    assert sum(found.objects_per_frame.values()) == 19


@pytest.mark.parametrize("name", ["coco", "ytvis", "masks", "native", "labelstudio"])
def test_a_dataset_has_the_counts_of_its_sessions(rig: Rig, stored: Source, name: str) -> None:
    ours, theirs = dataset_stats(stored), dataset_stats(folder_source(rig.folders[name]))
    assert theirs.by_category() == ours.by_category()
    assert [o.to_json() for o in theirs.objects] == [o.to_json() for o in ours.objects]


def test_yolo_counts_classes(rig: Rig) -> None:
    found = dataset_stats(folder_source(rig.folders["yoloseg"]))
    assert {(o.video, o.label) for o in found.objects} == {
        ("Видео один", "человек"),
        ("Видео один", "кошка"),
        ("Видео один", "猫"),
        ("動画 二", "人"),
        ("動画 二", "кошка"),
    }


def test_gaps_are_the_holes_between_frames() -> None:
    assert gaps_of([]) == gaps_of([4]) == gaps_of([4, 5, 6]) == ()
    assert gaps_of([1, 4, 5, 9]) == (2, 3)


def test_the_plots_are_one_page_with_the_same_bytes_each_time(
    stored: Source, tmp_path: Path
) -> None:
    found = dataset_stats(stored)
    write_plots(found, tmp_path / "a.png")
    write_plots(found, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert pixels.shape == (800, 1300) and pixels.std() > 20
    assert b"Software" not in (tmp_path / "a.png").read_bytes()
    empty = dataset_stats(Source("empty", lambda: iter(())))
    write_plots(empty, tmp_path / "empty.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "empty.png"]


def test_a_sheet_shows_frames_and_masks(stored: Source, tmp_path: Path) -> None:
    options = SheetOptions(every=3, columns=3, tile_width=322)
    sheets = write_previews(stored, tmp_path, options)
    assert [(s.path.name, s.tiles, s.without_images) for s in sheets] == [
        ("Видео один.png", 4, False),
        ("動画 二.png", 3, False),
    ]
    sheet = np.asarray(Image.open(sheets[0].path))
    assert sheet.shape == (2 * (194 + 6) + 6, 3 * (322 + 6) + 6, 3)
    # The second tile is frame 3, twice as large: object 4 is an ellipse around (111, 60) there,
    # tinted with its colour; (10, 90) is background.
    left, top = 6 + 328, 6
    entry = next(o for o in next(stored.videos()).objects if o.obj_id == 4)
    colour = np.asarray(parse_color(entry.color), dtype=float)
    inside = sheet[top + 2 * 60, left + 2 * 111].astype(float)
    outside = sheet[top + 2 * 90, left + 2 * 10].astype(float)
    assert np.linalg.norm(inside - colour) < np.linalg.norm(outside - colour)


@pytest.mark.parametrize("name", [n for n in EXPORTERS if n != "labelstudio"])
def test_every_format_can_be_previewed(rig: Rig, tmp_path: Path, name: str) -> None:
    sheets = write_previews(folder_source(rig.folders[name]), tmp_path, SheetOptions(every=6))
    assert [sheet.tiles for sheet in sheets] == [2, 2]
    assert not any(sheet.without_images for sheet in sheets)


def test_masks_without_their_frames_lie_on_grey(rig: Rig, tmp_path: Path) -> None:
    folder = rig.copy("coco", tmp_path / "coco")
    (folder / "images").rename(tmp_path / "moved")
    sheets = write_previews(folder_source(folder), tmp_path / "out", SheetOptions(every=6))
    assert all(sheet.without_images for sheet in sheets)


def test_options_that_cannot_work_are_refused(stored: Source, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several videos"):
        write_previews(stored, tmp_path / "one.png", SheetOptions())
    with pytest.raises(UsageError, match="--every must be at least 1, got 0"):
        SheetOptions(every=0)
    with pytest.raises(UsageError, match="--width"):
        SheetOptions(tile_width=5)
    with pytest.raises(UsageError, match="try --every 50"):
        SheetOptions(every=1).frames(10_000)
    assert len(SheetOptions().frames(10_000)) == 20
    (tmp_path / "file").write_bytes(struct.pack("b", 1))
    with pytest.raises(UsageError, match="is a file"):
        write_previews(stored, tmp_path / "file", SheetOptions())
