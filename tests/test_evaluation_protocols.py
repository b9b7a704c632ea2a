"""Every protocol, both baselines and every dataset layout, on footage with exact truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from true_dataset import FRAMES, VIDEOS, masks_of, write_coco, write_davis, write_youtube_vos

from edgetam_label.config import ModelConfig
from edgetam_label.errors import EdgeTAMLabelError, UsageError
from edgetam_label.evaluation.commands import evaluate
from edgetam_label.evaluation.datasets import open_dataset, read_id_map
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.evaluation.run import run_evaluation
from edgetam_label.evaluation.scoring import score_folder, score_sequence
from edgetam_label.evaluation.video_protocols import run_pvs
from edgetam_label.modeling import EdgeTAM
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.start import write_checkpoint


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_davis(tmp_path_factory.mktemp("davis"))


@pytest.fixture(scope="module")
def youtube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_youtube_vos(tmp_path_factory.mktemp("youtube"))


@pytest.fixture(scope="module")
def model() -> EdgeTAM:
    torch.manual_seed(1)
    network = new_model(ModelConfig.load("tiny")).eval()
    with torch.no_grad():  # a random network that believes in its objects
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    return network


def run(*arguments: object) -> dict:
    done = CliRunner().invoke(evaluate, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_layouts_hold_the_same_truth(davis: Path, youtube: Path) -> None:
    ours, theirs = open_dataset(davis), open_dataset(youtube)
    assert [v.name for v in ours] == [v.name for v in theirs] == list(VIDEOS)
    assert theirs[0].annotated == (0, 2, 4, 6) and len(theirs[0].images) == FRAMES
    assert ours[1].first_seen == {1: 1, 2: 3}
    assert theirs[1].first_seen == {1: 2, 2: 4}
    for t in theirs[1].annotated:
        for obj_id, mask in masks_of("late", t).items():
            assert (theirs[1].masks(t)[obj_id] == mask).all()
    assert [v.name for v in open_dataset(davis, split="val")] == ["ball"]


def test_flow_carries_masks_far_better_than_leaving_them(davis: Path) -> None:
    found = run(davis, "--baseline", "flow")
    left = [
        score_sequence(v, lambda i, v=v: {k: v.masks(s)[k] for k, s in v.first_seen.items()})
        for v in open_dataset(davis)
    ]
    lazy = 50 * float(np.mean([s.j + s.f for q in left for s in q.objects.values()]))
    assert found["subject"] == "flow" and found["objects"] == 4
    assert found["frames"] == 2 * FRAMES
    assert found["J&F"] > 75 > lazy + 25
    assert found["J&F"] == pytest.approx((found["J"] + found["F"]) / 2, abs=1e-3)


def test_grabcut_finds_bodies_from_boxes(tmp_path: Path) -> None:
    found = run(write_coco(tmp_path / "coco"), "--protocol", "clicks", "--baseline", "grabcut")
    assert found["objects"] == 2 and found["frames"] == 1  # the crowd region does not count
    assert set(found["mIoU"]) == {"1 click", "box"}
    assert found["mIoU"]["box"] > 75
    assert 5 < found["mIoU"]["1 click"] <= 100


@pytest.mark.parametrize("layout", ["davis", "youtube"])
def test_predictions_on_disk_score_as_they_did_in_memory(
    layout: str, request: pytest.FixtureRequest, model: EdgeTAM, tmp_path: Path
) -> None:
    root: Path = request.getfixturevalue(layout)
    direct = run_evaluation(root, "vos", model=model, out=tmp_path)
    assert 0 < direct.j < 1
    for video in VIDEOS:
        assert len(list((tmp_path / video).glob("*.png"))) == FRAMES
    assert not read_id_map(tmp_path / "late" / "00000.png").any()
    again = score_folder(open_dataset(root), tmp_path, "disk")
    assert again.j == pytest.approx(direct.j) and again.f == pytest.approx(direct.f)
    document = run(root, "--predictions", tmp_path)
    assert document["J"] == pytest.approx(100 * direct.j, abs=1e-3)
    assert document["sequences"].keys() == set(VIDEOS)


def test_given_first_masks_come_back_as_given(davis: Path, model: EdgeTAM, tmp_path: Path) -> None:
    """DAVIS leaves the first frame out of the score; it must still be the prompt itself."""
    run_evaluation(davis, "vos", model=model, out=tmp_path, split="val")
    ids = read_id_map(tmp_path / "ball" / "00000.png")
    for obj_id, mask in masks_of("ball", 0).items():
        assert region_similarity(ids == obj_id, mask) > 0.95


def test_offline_clicks_repeat_the_pass_and_online_ones_do_not(davis: Path, model: EdgeTAM) -> None:
    video = open_dataset(davis)[1]
    rounds = 3
    left = sum(FRAMES - start for start in video.first_seen.values())
    offline, curves, tracked = run_pvs(video, model, online=False, num_frames=rounds)
    assert tracked == rounds * left
    assert [len(c) for c in curves] == [rounds, rounds]
    assert all(0 <= v <= 1 for c in curves for v in c)
    assert {k: s.frames for k, s in offline.objects.items()} == {1: 6, 2: 4}
    _, online_curves, online_tracked = run_pvs(video, model, online=True, num_frames=rounds)
    assert [len(c) for c in online_curves] == [rounds, rounds]
    assert online_tracked >= tracked
    assert [c[0] for c in online_curves] == [c[0] for c in curves]  # one clicked frame: the same


@pytest.mark.slow
def test_every_protocol_runs_from_the_command(davis: Path, model: EdgeTAM, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    write_checkpoint(model, weights, half=False)
    common = (davis, "--split", "val", "--model", "tiny", "--checkpoint", weights)
    vos = run(*common)
    assert vos["subject"] == "tiny" and vos["objects"] == 2
    assert vos["sequences"]["ball"]["objects"].keys() == {"1", "2"}
    clicks = run(*common, "--protocol", "clicks", "--stride", 3)
    assert clicks["frames"] == 3 and clicks["objects"] == 6
    assert list(clicks["mIoU"]) == ["1 click", *(f"{i} clicks" for i in range(2, 6)), "box"]
    pvs = run(*common, "--protocol", "pvs")
    assert {k: len(c) for k, c in pvs["curves"].items()} == {"offline": 8, "online": 8}
    assert pvs["J&F"] == pytest.approx(pvs["curves"]["offline"][-1], abs=1e-3)


@pytest.mark.slow
def test_held_out_scenes_need_no_folder(model: EdgeTAM, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    write_checkpoint(model, weights, half=False)
    found = run("synthetic", "--limit", 1, "--protocol", "clicks", "--checkpoint", weights)
    again = run("synthetic", "--limit", 1, "--protocol", "clicks", "--checkpoint", weights)
    assert found["mIoU"] == again["mIoU"] and found["subject"] == "tiny"
    flow = run("synthetic", "--limit", 1, "--baseline", "flow")
    assert flow["frames"] == 24 and flow["J&F"] > 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is not a folder; give a DAVIS"),
        (["."], "no known layout"),
        (["{davis}", "--split", "test"], "no list ImageSets/2017/test.txt"),
        (["{youtube}", "--split", "test"], "no annotated video in split test"),
        (["synthetic", "--split", "val"], "no splits"),
        (["{davis}", "--baseline", "grabcut"], "does not go with protocol vos"),
        (["{davis}", "--protocol", "pvs", "--baseline", "flow"], "does not go with protocol pvs"),
        (["{davis}", "--protocol", "clicks", "--out", "x"], "clicks writes none"),
        (["{davis}", "--predictions", ".", "--baseline", "flow"], "leave out"),
        (["{davis}", "--predictions", "."], "is missing; write one PNG"),
        (["{davis}", "--checkpoint", "gone.pt"], "gone.pt"),
    ],
)
def test_wrong_input_gets_a_sentence(
    arguments: list[str], sentence: str, davis: Path, youtube: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    filled = [a.format(davis=davis, youtube=youtube) for a in arguments]
    error = CliRunner().invoke(evaluate, filled).exception
    assert isinstance(error, EdgeTAMLabelError)
    assert sentence in str(error)


def test_images_have_no_time_to_carry_masks_through(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 frame only"):
        run_evaluation(write_coco(tmp_path / "coco"), "vos", baseline="flow")


def test_masks_in_colour_are_refused(davis: Path, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "ball" / "00001.png"
    path.parent.mkdir()
    Image.new("RGB", (176, 120)).save(path)
    with pytest.raises(EdgeTAMLabelError, match="mode RGB; masks must be indexed"):
        score_folder(open_dataset(davis), tmp_path, "coloured")
