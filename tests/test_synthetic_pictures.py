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
from edgetam_label.training.plan import Stage, TrainingPlan
from edgetam_label.training.start import TrainingRun
from edgetam_label.training.synthetic import SyntheticClips, synthetic_clip
from edgetam_label.training.synthetic_pictures import Pictures, _areas, _load

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
    assert taken is not None and max(taken.shape[:2]) == 224
    assert taken[112, 112].tolist() == [*RED, 255]  # RGB


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
