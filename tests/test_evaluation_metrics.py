"""J and F against their definition and against two independent implementations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgetam_label.errors import UsageError
from edgetam_label.evaluation.datasets import open_dataset
from edgetam_label.evaluation.metrics import contour, contour_accuracy, region_similarity
from edgetam_label.evaluation.scoring import score_folder
from edgetam_label.evaluation.video_protocols import write_palette_png

HERE = Path(__file__).parent
SCORERS = HERE.parent / ".venv-consumers" / "scorers"
HEIGHT, WIDTH, FRAMES = 120, 213, 9

needs_scorers = pytest.mark.skipif(
    not SCORERS.is_dir(), reason="run tests/consumers/install.sh first"
)


def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(canvas, (round(x), round(y)), (round(a), round(b)), 20, 0, 360, 1, -1)
    return canvas > 0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A DAVIS folder with two videos and predictions that are wrong in different ways."""
    root = tmp_path_factory.mktemp("davis")
    truth, ours = root / "DAVIS", root / "predictions"
    rng = np.random.default_rng(0)
    for name, late in (("first", 0), ("second", 3)):
        for t in range(FRAMES):
            image = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            path = truth / "JPEGImages/480p" / name / f"{t:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image)
            masks = {1: ellipse(50 + 6 * t, 50, 30, 18)}
            found = {1: ellipse(50 + 5 * t, 52 + t, 30 + t, 18)}
            if t >= late:
                masks[2] = ellipse(120 + 4 * t, 80, 14, 20)  # runs out of the image
                found[2] = ellipse(121 + 4 * t, 79, 14, 20) if t != 5 else masks[2] & False
            stem = f"{name}/{t:05d}.png"
            size = (HEIGHT, WIDTH)
            write_palette_png(truth / "Annotations/480p" / stem, masks, size)
            write_palette_png(ours / stem, found if t > 0 else masks, size)
    return truth, ours


def test_j_and_f_of_known_masks() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    half = mask.copy()
    half[:, 30:] = False
    empty = mask & False
    assert region_similarity(mask, mask) == 1.0
    assert region_similarity(half, mask) == 0.5
    assert region_similarity(empty, empty) == 1.0
    assert contour_accuracy(mask, mask) == 1.0
    assert contour_accuracy(empty, mask) == 0.0
    assert contour_accuracy(mask, empty) == 0.0
    assert contour_accuracy(empty, empty) == 1.0
    assert (
        contour(mask).sum() == 80
    )  # top, left, right, bottom: 20 + 1 corner + 20 + 20 + 20 - 1 shared
    assert not contour(~empty).any()  # the image's edge is no contour


def test_f_tolerates_what_lies_within_the_radius() -> None:
    mask = np.zeros((100, 100), bool)
    mask[30:60, 30:60] = True
    near, far = np.roll(mask, 2, axis=1), np.roll(mask, 3, axis=1)
    assert contour_accuracy(near, mask) == 1.0  # radius: 0.008 · 141 px, rounded up to 2
    assert contour_accuracy(far, mask) < 1.0


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(4, 5\).*\(4, 6\)"):
        region_similarity(np.zeros((4, 5), bool), np.zeros((4, 6), bool))


@pytest.fixture(scope="module")
def theirs(dataset: tuple[Path, Path]) -> dict[str, dict]:
    """What vos-benchmark and TrackEval say of the same predictions, in an environment of theirs."""
    truth, ours = dataset
    done = subprocess.run(
        [SCORERS / "bin/python", HERE / "consumers/score_j_and_f.py",
         truth / "Annotations/480p", ours],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.consumers
@needs_scorers
def test_scores_agree_with_vos_benchmark(
    dataset: tuple[Path, Path], theirs: dict[str, dict]
) -> None:
    result = score_folder(open_dataset(dataset[0]), dataset[1], "ours")
    for sequence in result.sequences:
        scores = theirs[sequence.name]["vos-benchmark"]
        assert {str(k) for k in sequence.objects} == scores.keys()
        for obj_id, score in sequence.objects.items():
            assert [score.j, score.f] == pytest.approx(scores[str(obj_id)], abs=1e-3)


@pytest.mark.consumers
@needs_scorers
def test_scores_agree_with_trackeval(dataset: tuple[Path, Path], theirs: dict[str, dict]) -> None:
    """On the sequence whose objects are all there from the start, as in DAVIS."""
    video = next(v for v in open_dataset(dataset[0]) if v.name == "first")
    result = score_folder([video], dataset[1], "ours")
    scores = theirs["first"]["trackeval"]
    assert 0.5 < result.j_and_f < 0.95
    assert result.j == pytest.approx(scores["J-Mean"], abs=1e-3)
    assert result.f == pytest.approx(scores["F-Mean"], abs=1e-3)
    assert result.j_and_f == pytest.approx(scores["J&F"], abs=1e-3)


def test_the_command_scores_predictions_made_elsewhere(dataset: tuple[Path, Path]) -> None:
    from edgetam_label.evaluation.commands import evaluate

    truth, ours = dataset
    done = CliRunner().invoke(
        evaluate, [str(truth), "--predictions", str(ours), "--json"], catch_exceptions=False
    )
    document = json.loads(done.output)
    assert 50 < document["J"] < 90
    assert document["J&F"] == pytest.approx((document["J"] + document["F"]) / 2, abs=1e-3)
    assert set(document["sequences"]) == {"first", "second"}


def test_a_missing_prediction_is_named(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="00001.png is missing"):
        score_folder(open_dataset(dataset[0]), tmp_path, "nobody")
