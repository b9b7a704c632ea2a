"""Photographs and panoramas of the user's as places of synthetic scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgetam_label.cli import cli
from edgetam_label.errors import UsageError
from edgetam_label.training.synthetic import SyntheticClips
from edgetam_label.training.synthetic_places import Places


def write_panorama(folder: Path, light: np.ndarray, name: str = "place.hdr") -> Places:
    """light: (h, w, 3) float32 RGB."""
    folder.mkdir(exist_ok=True)
    assert cv2.imwrite(str(folder / name), light[..., ::-1].astype(np.float32))
    return Places((folder,))


def checkers(height: int = 128, width: int = 256) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] // 8
    light = np.where((rows + columns) % 2, 4.0, 0.5)[..., None] * np.array([1.0, 0.6, 0.3])
    return light.astype(np.float32)


def test_a_look_is_a_picture_of_the_size_asked_for_with_the_places_colours(tmp_path: Path) -> None:
    places = write_panorama(tmp_path / "p", checkers())
    look = places.look(np.random.default_rng(1), 90, 140)
    assert look.shape == (90, 140, 3) and look.dtype == np.uint8
    red, green, blue = look.reshape(-1, 3).mean(axis=0)
    assert red > green > blue
    assert look.std() > 20  # the checkers are there


def test_exposure_follows_the_light_not_its_unit(tmp_path: Path) -> None:
    dim = write_panorama(tmp_path / "dim", checkers() * 0.01)
    bright = write_panorama(tmp_path / "bright", checkers() * 10)
    for seed in range(3):
        one = dim.look(np.random.default_rng(seed), 60, 90).astype(int)
        two = bright.look(np.random.default_rng(seed), 60, 90).astype(int)
        assert np.abs(one - two).mean() < 3  # Radiance files keep eight bits of a colour


def test_a_panorama_goes_on_across_its_left_and_right_edge(tmp_path: Path) -> None:
    """A picture that is one colour on both sides of the seam shows no line there."""
    columns = np.cos(np.linspace(0, 2 * np.pi, 256, endpoint=False))
    light = np.broadcast_to((2 + columns)[None, :, None], (128, 256, 3)).astype(np.float32)
    places = write_panorama(tmp_path / "p", light)
    for seed in range(8):
        look = places.look(np.random.default_rng(seed), 60, 90).astype(int)
        assert np.abs(np.diff(look, axis=1)).max() < 12


def test_photographs_are_looked_at_too(tmp_path: Path) -> None:
    photograph = np.full((80, 120, 3), (30, 90, 200), np.uint8)
    cv2.imwrite(str(tmp_path / "wall.jpg"), photograph)
    look = Places((tmp_path,)).look(np.random.default_rng(0), 64, 64)
    red, _, blue = look.reshape(-1, 3).mean(axis=0)
    assert red > 2 * blue


def test_looks_are_decided_by_the_generator(tmp_path: Path) -> None:
    places = write_panorama(tmp_path / "p", checkers())
    looks = [places.look(np.random.default_rng(seed), 48, 64) for seed in (3, 3, 4)]
    assert np.array_equal(looks[0], looks[1])
    assert not np.array_equal(looks[0], looks[2])


def test_scenes_play_in_places(tmp_path: Path) -> None:
    """Half of the scenes, and the things in them may be of their stuff."""
    green = np.zeros((128, 256, 3), np.float32)
    green[..., 1] = 1.0
    places = write_panorama(tmp_path / "p", green)
    plain, placed = SyntheticClips(5, 64), SyntheticClips(5, 64, places=places)

    def is_green(clip_source: SyntheticClips, index: int) -> bool:
        clip = clip_source[index]
        behind = clip.frames[0][clip.ids[0] == 0].astype(int)
        return bool((behind[:, 1] > 2 * behind[:, [0, 2]].max(axis=1) + 20).mean() > 0.5)

    assert sum(is_green(placed, i) for i in range(16)) >= 4
    assert sum(is_green(plain, i) for i in range(16)) == 0
    again = SyntheticClips(5, 64, places=places)[3]
    assert np.array_equal(placed[3].frames, again.frames)


def test_without_places_scenes_are_what_they_were() -> None:
    one, two = SyntheticClips(5, 64)[2], SyntheticClips(5, 64, places=None)[2]
    assert np.array_equal(one.frames, two.frames)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(UsageError, match=r"No picture .* lies in .*--backgrounds takes"):
        Places((tmp_path,))
    result = CliRunner().invoke(
        cli, ["train", "--out", str(tmp_path / "run"), "--backgrounds", str(tmp_path)]
    )
    assert result.exit_code != 0 and "No picture" in result.output
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(UsageError, match=r"broken\.jpg cannot be read as a picture"):
        Places((tmp_path,)).look(np.random.default_rng(0), 32, 32)
