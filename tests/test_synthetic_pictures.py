"""Things from pictures with a transparent background: what is taken, and what becomes of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgetam_label.config import ModelConfig
from edgetam_label.errors import UsageError
from edgetam_label.training.commands import train
from edgetam_label.training.figures.cutout import write_png
from edgetam_label.training.plan import Stage, TrainingPlan
from edgetam_label.training.start import TrainingRun
from edgetam_label.training.synthetic import SyntheticClips, synthetic_clip
from edgetam_label.training.synthetic_pictures import (
    MOVING,
    Pictures,
    _areas,
    _load,
    picture_thing,
)
from edgetam_label.training.synthetic_shapes import TRAIN_SHAPES
from edgetam_label.training.synthetic_sprites import Light
from edgetam_label.training.synthetic_textures import load_textures
from edgetam_label.training.synthetic_things import FILM_PACE, Workshop

RED, LINE = (200, 40, 30), (10, 10, 10)


def save(path: Path, rgba: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), rgba[..., [2, 1, 0, 3]])
    return path


def disc(size: int = 200) -> np.ndarray:
    """A red disc with a thin black outline."""
    rgba = np.zeros((size, size, 4), np.uint8)
    middle = (size // 2, size // 2)
    cv2.circle(rgba, middle, size // 3, (*RED, 255), -1)
    cv2.circle(rgba, middle, size // 3, (*LINE, 255), 2)
    return rgba


def test_one_solid_thing_is_taken_and_cut_out(tmp_path: Path) -> None:
    taken = _load(save(tmp_path / "disc.png", disc(900)))
    assert taken is not None and len(taken) == 1 and max(taken[0].shape[:2]) == 224
    assert taken[0][112, 112].tolist() == [*RED, 255]  # RGB


@pytest.mark.parametrize("what", ["opaque", "grey", "ring", "two", "speck", "broken"])
def test_what_is_not_one_thing_is_left_out(tmp_path: Path, what: str) -> None:
    rgba = disc()
    if what == "opaque":
        rgba[..., 3] = 255
    elif what == "ring":
        cv2.circle(rgba, (100, 100), 60, (0, 0, 0, 0), -1)
    elif what == "two":
        rgba = np.concatenate([rgba, rgba], axis=1)
    elif what == "speck":
        rgba = cv2.resize(rgba, (40, 40))
    path = save(tmp_path / "one.png", rgba)
    if what == "grey":
        cv2.imwrite(str(path), rgba[..., 0])
    elif what == "broken":
        path.write_bytes(path.read_bytes()[:60])
    assert _load(path) is None


def test_drawn_outlines_go_to_what_they_enclose() -> None:
    rgba = disc()
    areas, colours = _areas(rgba[..., :3], rgba[..., 3], 2, np.random.default_rng(0))
    used = {int(number) for number in np.unique(areas[rgba[..., 3] > 200])}
    assert len(used) == 1
    assert np.abs(colours[used.pop()] - RED).max() < 30


def test_scenes_show_them_and_follow_their_seed(tmp_path: Path) -> None:
    save(tmp_path / "below" / "disc.png", disc())
    pictures = Pictures((tmp_path,))
    changed = 0
    for seed in range(6):
        clip = synthetic_clip(seed, size=96, pictures=pictures)
        again = synthetic_clip(seed, size=96, pictures=pictures)
        assert np.array_equal(clip.frames, again.frames) and np.array_equal(clip.ids, again.ids)
        changed += not np.array_equal(clip.frames, synthetic_clip(seed, size=96).frames)
    assert changed >= 2
    source = SyntheticClips(1, 64, pictures=pictures)
    copy = pickle.loads(pickle.dumps(source))  # loader processes get one
    assert np.array_equal(source[3].frames, copy[3].frames)


def film(path: Path, frames: int = 4) -> Path:
    """A red disc that grows, as an animated picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [np.zeros((200, 200, 4), np.uint8) for _ in range(frames)]
    for number, image in enumerate(images):
        cv2.circle(image, (100, 100), 40 + 15 * number, (*RED[::-1], 255), -1)
    write_png(path, images)
    return path


def test_animated_pictures_keep_their_frames_in_place(tmp_path: Path) -> None:
    frames = _load(film(tmp_path / "film.png"))
    assert frames is not None and [frame.shape for frame in frames] == [(171, 171, 4)] * 4
    areas = [(frame[..., 3] > 127).sum() for frame in frames]
    radii = np.sqrt(np.array(areas) / np.pi)
    np.testing.assert_allclose(radii, [40, 55, 70, 85], atol=1)
    assert frames[0][85, 85].tolist() == [*RED, 255]  # RGB


@pytest.mark.parametrize("what", ["two", "cut short"])
def test_animated_pictures_of_something_else_are_left_out(tmp_path: Path, what: str) -> None:
    path = film(tmp_path / "film.png")
    if what == "two":
        first = np.zeros((200, 200, 4), np.uint8)
        second = first.copy()
        cv2.circle(first, (100, 100), 60, (0, 0, 255, 255), -1)
        for x in (50, 150):
            cv2.circle(second, (x, 100), 30, (0, 0, 255, 255), -1)
        write_png(path, [first, second])
    else:
        path.write_bytes(path.read_bytes()[:-200])
    assert _load(path) is None


def test_clips_show_them_moving_and_stills_may_show_any(tmp_path: Path) -> None:
    film(tmp_path / "film.png")
    pictures = Pictures((tmp_path,))
    shop = Workshop(
        np.random.default_rng(1), load_textures("train"),
        Light(np.array([0, -0.6, 0.8], np.float32), 0.5, 0.0), TRAIN_SHAPES, 60.0, None,
    )  # fmt: skip
    thing = picture_thing(shop, pictures, moving=True)
    assert thing is not None and thing.film
    beats = np.arange(13) / FILM_PACE
    numbers = {id(sprite): number for number, sprite in enumerate(thing.sprites)}
    shown = [numbers[id(thing.shown(float(beat))[0][0])] for beat in beats]
    assert shown == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    sizes = set()
    for seed in range(8):
        clip = synthetic_clip(seed, size=96, num_frames=4, pictures=pictures, max_objects=1)
        again = synthetic_clip(seed, size=96, num_frames=4, pictures=pictures, max_objects=1)
        assert np.array_equal(clip.frames, again.frames)
        sizes.add(tuple(clip.areas()[:, 0]))
    assert len(sizes) > 4


def test_animated_pictures_are_preferred_in_clips_only(tmp_path: Path) -> None:
    film(tmp_path / "film.png")
    for number in range(9):
        save(tmp_path / f"disc{number}.png", disc())
    pictures, rng = Pictures((tmp_path,)), np.random.default_rng(0)

    def share(moving: bool) -> float:
        picked = [pictures.pick(rng, moving=moving) for _ in range(300)]
        return sum(len(frames) > 1 for frames in picked if frames is not None) / len(picked)

    assert share(False) == pytest.approx(0.1, abs=0.06)
    assert share(True) == pytest.approx(MOVING + (1 - MOVING) * 0.1, abs=0.09)


def test_nothing_that_would_do_is_no_error(tmp_path: Path) -> None:
    save(tmp_path / "opaque.png", np.full((60, 60, 4), 255, np.uint8))
    assert Pictures((tmp_path,)).pick(np.random.default_rng(0)) is None
    assert synthetic_clip(1, size=64, pictures=Pictures((tmp_path,))).num_objects > 0


def test_a_folder_without_pictures_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="No .png file lies in .*empty"):
        Pictures((tmp_path / "empty",))
    out = tmp_path / "run"
    result = CliRunner().invoke(train, ["--cutouts", str(tmp_path / "empty"), "--out", str(out)])
    assert isinstance(result.exception, UsageError)
    assert not out.exists()


def test_a_run_trains_on_them_and_is_measured_without(tmp_path: Path) -> None:
    save(tmp_path / "disc.png", disc())
    plan = TrainingPlan((Stage("stills", steps=1),))
    run = TrainingRun("tiny", plan, tmp_path / "run", cutouts=(tmp_path,))
    config = ModelConfig.load("tiny")
    data, validator = run._data(config), run._validator(config)
    assert isinstance(data.stills, SyntheticClips) and data.stills.pictures is not None
    assert isinstance(data.clips, SyntheticClips) and data.clips.pictures is not None
    assert validator is not None
    assert isinstance(validator.stills, SyntheticClips) and validator.stills.pictures is None
