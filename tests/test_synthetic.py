"""The synthetic generator and the demo clip: truth that is true, and held-out that is held out."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edgetam_label.demo_clip import render_demo_clip
from edgetam_label.demo_scene import demo_frames
from edgetam_label.errors import UsageError
from edgetam_label.training import synthetic_scene
from edgetam_label.training.clips import Clip, ClipSource, MixedClips
from edgetam_label.training.synthetic import SyntheticClips, synthetic_clip
from edgetam_label.training.synthetic_motion import carried, crossing, make_track
from edgetam_label.training.synthetic_photos import HELDOUT_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from edgetam_label.training.synthetic_scene import HELDOUT_MAKERS, TRAIN_MAKERS, Split
from edgetam_label.training.synthetic_shapes import HELDOUT_SHAPES, TRAIN_SHAPES
from edgetam_label.training.synthetic_textures import load_textures


def assert_same(a: Clip, b: Clip) -> None:
    assert np.array_equal(a.frames, b.frames)
    assert np.array_equal(a.ids, b.ids)
    assert a.parts is not None and b.parts is not None and np.array_equal(a.parts, b.parts)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_the_seed_decides_everything(num_frames: int) -> None:
    first = synthetic_clip(11, size=96, num_frames=num_frames)
    synthetic_clip(12, size=96)  # nothing is left behind by another clip
    assert_same(first, synthetic_clip(11, size=96, num_frames=num_frames))
    other = synthetic_clip(13, size=96, num_frames=num_frames)
    assert not np.array_equal(first.frames, other.frames)


@pytest.mark.parametrize("family", ["train", "heldout"])
def test_ids_are_contiguous_and_every_object_is_seen(family: str) -> None:
    for seed in range(12):
        clip = synthetic_clip(seed, size=(80, 112), num_frames=2, texture_family=family)  # type: ignore[arg-type]
        assert clip.frames.shape == (2, 80, 112, 3) and clip.frames.dtype == np.uint8
        assert clip.ids.shape == (2, 80, 112)
        assert set(np.unique(clip.ids)) - {0} == set(range(1, clip.num_objects + 1))
        areas = clip.areas()
        assert areas.shape == (2, clip.num_objects)
        assert (areas.max(axis=0) >= 16).all()
        assert areas[0].max() >= 80 * 112 // 400  # something to click on in the first frame
        assert clip.parts is not None
        assert ((clip.parts > 0) <= (clip.ids > 0)).all()
        numbers = np.unique(clip.parts[clip.parts > 0])
        assert numbers.tolist() == list(range(1, len(numbers) + 1))


def test_each_part_lies_in_one_object() -> None:
    for seed in range(8):
        clip = synthetic_clip(seed, size=128)
        assert clip.parts is not None
        for part in range(1, int(clip.parts.max()) + 1):
            owners = np.unique(clip.ids[clip.parts == part])
            assert len(owners) == 1, f"part {part} of seed {seed} is in objects {owners}"


def test_the_mask_is_where_the_object_is() -> None:
    """Across the outline the picture changes more than it does a few pixels inside or outside."""
    stronger = 0
    for seed in range(30):
        clip = synthetic_clip(seed, size=128)
        image = clip.frames[0].astype(np.float32)
        step = np.abs(np.diff(image, axis=1)).sum(axis=2)
        edge = np.diff(clip.ids[0].astype(np.int16), axis=1) != 0
        stronger += bool(step[edge].mean() > 1.5 * step[~edge].mean())
    assert stronger >= 24


def test_objects_move_leave_and_return() -> None:
    moved = gone = returned = 0
    for seed in range(24):
        clip = synthetic_clip(seed, size=96, num_frames=8)
        visible = clip.areas() > 8
        for k in range(clip.num_objects):
            seen = visible[:, k]
            moved += bool((clip.ids[0] == k + 1)[clip.ids[-1] != k + 1].any())
            gone += bool(seen[0] and not seen.all())
            away = np.flatnonzero(~seen)
            returned += bool(seen[0] and len(away) and seen[away[0] :].any())
    assert moved > 24
    assert gone >= 3
    assert returned >= 1


@pytest.mark.parametrize("seed", range(8))
def test_a_crossing_thing_passes_another_wherever_that_goes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    passed, passing = (
        make_track(
            rng, 200, 300, 12, centre=(90.0, 120.0), radius=20.0, stands=False, fast=False,
            pace=1.0, leaves=False,
        )
        for _ in range(2)
    )  # fmt: skip
    way = crossing(rng, passing, passed).centre - passed.centre
    before, after = way[0], way[-1]
    nearest = np.linalg.norm(way, axis=1).min()
    assert before @ after < 0 and nearest < passed.scale[0]
    assert min(np.linalg.norm(before), np.linalg.norm(after)) > nearest


def test_things_that_cross_hide_others_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden_for_a_while(share: float, family: Split = "train") -> list[float]:
        """Of every object that is large enough, how little of it is left in between."""
        monkeypatch.setattr(synthetic_scene, "_CROSSING", share)
        left = []
        for index in range(20):
            for areas in SyntheticClips(5, (72, 108), 10, family)[index].areas().T:
                low = int(areas.argmin())
                full = min(areas[: low + 1].max(), areas[low:].max())
                left += [areas[low] / full] if full > 40 else []
        return left

    often, never = (np.mean(np.array(hidden_for_a_while(share)) < 0.5) for share in (1.0, 0.0))
    assert often > never * 1.2
    assert hidden_for_a_while(1.0, "heldout") == hidden_for_a_while(0.0, "heldout")


@pytest.mark.parametrize("seed", range(8))
def test_a_carried_thing_stays_with_its_bearer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bearer, thing = (
        make_track(
            rng, 200, 300, 12, centre=(90.0, 120.0), radius=radius, stands=False, fast=True,
            pace=2.0, leaves=False,
        )
        for radius in (40.0, 10.0)
    )  # fmt: skip
    held = carried(rng, thing, bearer)
    away = np.linalg.norm(held.centre - bearer.centre, axis=1) / bearer.scale
    assert (away < 1.13).all() and np.ptp(away) < 0.5
    assert np.allclose(held.scale / bearer.scale, 0.25)
    assert np.allclose(held.angle - bearer.angle, held.angle[0] - bearer.angle[0])


def test_carried_things_cover_their_bearers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_scene, "_CROSSING", 0.0)

    def inside_another(share: float, family: Split = "train") -> list[float]:
        """Of every object's neighbours across its outline, the share that is another object."""
        monkeypatch.setattr(synthetic_scene, "_CARRIED", share)
        shares = []
        for index in range(24):
            clip = SyntheticClips(5, (72, 108), 4, family)[index]
            for number in range(1, clip.num_objects + 1):
                mask = clip.mask(number, 3).astype(np.uint8)
                ring = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask
                if ring.any():
                    shares.append(float((clip.ids[3][ring] > 0).mean()))
        return shares

    always, never = (np.mean(inside_another(share)) for share in (1.0, 0.0))
    assert always > never * 1.3
    assert inside_another(1.0, "heldout") == inside_another(0.0, "heldout")


def test_heldout_shares_no_texture_photograph_or_outline_with_train() -> None:
    train, heldout = load_textures("train"), load_textures("heldout")
    assert len(heldout.fields) >= 3
    assert not set(train.fields) & set(heldout.fields)
    assert not set(TRAIN_PHOTOGRAPHS) & set(HELDOUT_PHOTOGRAPHS)
    assert not set(train.photographs.names) & set(heldout.photographs.names)
    assert not set(TRAIN_SHAPES) & set(HELDOUT_SHAPES)
    assert len(set(HELDOUT_MAKERS) - set(TRAIN_MAKERS)) >= 3
    same_seed = synthetic_clip(3, size=64), synthetic_clip(3, size=64, texture_family="heldout")
    assert not np.array_equal(same_seed[0].frames, same_seed[1].frames)


def test_without_photographs_there_are_still_scenes() -> None:
    """scikit-image is a development dependency: a user who trains may not have it."""
    program = (
        "import sys; sys.modules['skimage'] = None\n"
        "from edgetam_label.training.synthetic import synthetic_clip\n"
        "from edgetam_label.training.synthetic_textures import load_textures\n"
        "print(len(load_textures('train').photographs.images),"
        " min(synthetic_clip(seed, size=64).num_objects for seed in range(20)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    images, least = (int(word) for word in done.stdout.split())
    assert images == 0
    assert least >= 1


def test_a_source_is_addressed_by_number_and_survives_pickling() -> None:
    source = SyntheticClips(seed=5, size=64, num_frames=2, length=9)
    assert isinstance(source, ClipSource)
    assert len(source) == 9
    twin = pickle.loads(pickle.dumps(source))
    assert_same(source[4], twin[4])
    assert not np.array_equal(source[4].frames, source[5].frames)
    assert not np.array_equal(
        source[4].frames, SyntheticClips(seed=6, size=64, num_frames=2)[4].frames
    )
    with pytest.raises(IndexError):
        source[9]


def test_mixed_sources_keep_their_proportions() -> None:
    still, moving = SyntheticClips(1, size=48, length=60), SyntheticClips(2, size=48, num_frames=2)
    mixed = MixedClips((still, moving), (3.0, 1.0), seed=1)
    lengths = [len(mixed[index]) for index in range(40)]
    assert 4 <= lengths.count(2) <= 18
    assert lengths == [len(mixed[index]) for index in range(40)]


def test_the_demo_clip_tells_a_story_with_occlusion(tmp_path: Path) -> None:
    path = tmp_path / "demo.mp4"
    demo = render_demo_clip(path, width=320, height=180, num_frames=24)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rendered, ids = demo_frames(width=320, height=180, num_frames=24)
    assert len(frames) == 24 and frames[0].shape == (180, 320, 3)
    assert np.array_equal(ids, demo.ids)
    error = np.abs(frames[12].astype(int) - rendered[12].astype(int)).mean()
    assert error < 6, "the encoded video is not the rendered one"
    assert [thing.name for thing in demo.objects] == ["dog", "ball"]
    for thing in demo.objects:
        x, y = thing.click
        assert demo.mask(thing.id, 0)[int(y), int(x)]
        assert (demo.ids == thing.id).any(axis=(1, 2)).all()
    dog = (demo.ids == 1).sum(axis=(1, 2))
    assert dog.min() < 0.97 * dog.max()  # the ball hides a part of it
    assert [p.name for p in tmp_path.iterdir()] == ["demo.mp4"]


def test_the_demo_clip_refuses_what_it_cannot_encode(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="641x360.*even"):
        render_demo_clip(tmp_path / "demo.mp4", width=641)
    assert not list(tmp_path.iterdir())
