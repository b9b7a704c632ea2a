"""Poor footage: soft, noisy and compressed pictures of the same scene, in training only."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.training.poor_footage import as_poor_footage
from edgetam_label.training.samples import SampleSpec, SampleStream
from edgetam_label.training.synthetic import SyntheticClips

SOURCE = SyntheticClips(31, (96, 128), 6, length=4)


def fine_detail(frames: NDArray[np.uint8]) -> float:
    """Mean squared Laplacian."""
    laplacians = [cv2.Laplacian(frame, cv2.CV_32F) for frame in frames]
    return float(np.mean(np.square(laplacians)))


def test_poor_footage_shows_the_same_scene_with_less_detail() -> None:
    grain = np.random.default_rng(0).integers(0, 255, (3, 96, 128, 3), dtype=np.uint8)
    softer = 0
    for seed in range(20):
        poor = as_poor_footage(grain, np.random.default_rng(seed))
        assert poor.shape == grain.shape and poor.dtype == np.uint8
        softer += fine_detail(poor) < 0.7 * fine_detail(grain)
    assert softer >= 14  # the others are recorded almost as large as they are shown

    scene = SOURCE[0].frames
    for seed in range(20):
        poor = as_poor_footage(scene, np.random.default_rng(seed))
        assert abs(float(poor.mean()) - float(scene.mean())) < 8
        blurred = [cv2.blur(frames[0], (16, 16)).astype(int) for frames in (scene, poor)]
        assert np.abs(blurred[0] - blurred[1]).mean() < 12  # nothing is moved or recoloured


def test_the_same_seed_makes_the_same_footage() -> None:
    frames = SOURCE[1].frames
    first, second = (as_poor_footage(frames, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, as_poor_footage(frames, np.random.default_rng(6)))


def test_a_codec_repeats_blocks_that_hardly_change() -> None:
    still = np.full((8, 64, 64, 3), 90, np.uint8)
    moving = still.copy()
    moving[4:, :32] = 220
    repeated = 0
    for seed in range(30):
        poor = as_poor_footage(moving, np.random.default_rng(seed)).astype(int)
        assert (poor[3, :24].mean() < 120) and (poor[4, :24].mean() > 180)  # a change is shown
        repeated += int(np.array_equal(poor[5, 48:], poor[6, 48:]))
    assert 5 <= repeated < 30


def test_samples_are_poor_as_often_as_told_and_have_the_same_truth() -> None:
    spec = SampleSpec(64, num_frames=2, num_objects=2)
    clean = SampleStream(SOURCE, spec, seed=3)
    half = SampleStream(SOURCE, replace(spec, poor_share=0.5), seed=3)
    changed = 0
    for index in range(40):
        one, other = clean[index], half[index]
        assert np.array_equal(one.targets, other.targets)
        assert np.array_equal(one.windows, other.windows)
        for prompt, same in zip(one.prompts, other.prompts, strict=True):
            assert np.array_equal(prompt.points, same.points)
        changed += not np.array_equal(one.frames, other.frames)
    assert 10 <= changed <= 30
