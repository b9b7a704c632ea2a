"""Programs that we did not write load our exports and find the truth in them.

`tests/consumers/install.sh` makes their environments. What they are compared with is the fixture's
own masks, never a second reading of our files.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hard_fixture import FixtureVideo, make_videos, store_video

from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.sessions import SessionStore

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".venv-consumers"
NUM_MASKS = 54  # non-empty ones in the fixture

pytestmark = [
    pytest.mark.consumers,
    pytest.mark.skipif(
        not (ENVIRONMENTS / "readers").is_dir(), reason="run tests/consumers/install.sh first"
    ),
]


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("hard")
    videos = make_videos(folder)
    save_truth(videos, folder)
    with SessionStore(folder / "sessions.db") as store:
        ids = tuple(store_video(store, video) for video in videos)
        yield store, ids, folder


def save_truth(videos: tuple[FixtureVideo, ...], folder: Path) -> None:
    arrays, entries = {}, []
    for video in videos:
        for obj_id, by_frame in video.truth.items():
            for frame, mask in by_frame.items():
                key = f"m{len(arrays)}"
                arrays[key] = mask
                entries.append({"video": video.name, "obj_id": obj_id, "frame": frame, "key": key})
    described = [
        {
            "name": video.name,
            "height": video.size[0],
            "width": video.size[1],
            "length": len(video.images),
            "labels": video.labels,
        }
        for video in videos
    ]
    np.savez(folder / "truth.npz", **arrays)
    text = json.dumps({"videos": described, "masks": entries}, ensure_ascii=False)
    (folder / "truth.json").write_text(text, encoding="utf-8")


def write(hard, name: str, out: Path, category_map: Path | None = None, **options) -> Path:
    store, ids, _ = hard
    request = ExportRequest(
        name, out, ids, options=ExportOptions(**options), category_map=category_map
    )
    export_sessions(store, request)
    return out


def run(environment: str, script: str, *arguments: object) -> dict:
    python = ENVIRONMENTS / environment / "bin" / "python"
    command = [str(python), str(HERE / "consumers" / script), *map(str, arguments)]
    # vos-benchmark waits for ever on a missing frame: only a timeout ends it.
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_and_cocoeval(hard, tmp_path: Path, polygons: bool) -> None:
    out = write(hard, "coco", tmp_path / "out", polygons=polygons)
    found = run("readers", "read_coco.py", out / "annotations/instances_train.json", hard[2])
    assert found["matched"] == found["expected"] == NUM_MASKS
    assert found["wrong"] == 0
    for kind in ("segm", "bbox"):
        assert found[kind] == {"AP": 1.0, "AR": 1.0}


def test_supervision_reads_coco(hard, tmp_path: Path) -> None:
    out = write(hard, "coco", tmp_path / "out", images="png")
    found = run("readers", "read_supervision.py", "coco", out, hard[2])
    assert found["masks"] == found["exact"] == found["labels_right"] == NUM_MASKS
    assert found["images"] == 19


def test_supervision_reads_yolo_with_the_loss_that_the_manifest_states(hard, tmp_path) -> None:
    out = write(hard, "yoloseg", tmp_path / "out", images="png")
    found = run("readers", "read_supervision.py", "yolo", out, hard[2])
    totals = json.loads((out / "manifest.json").read_text())["totals"]["masks"]
    assert found["masks"] == found["labels_right"] == NUM_MASKS
    assert found["exact"] == totals["written"]
    assert totals["converted"] == NUM_MASKS - found["exact"] == 9  # the two-part object
    assert found["worst_iou"] > 0.85


def test_datumaro_reads_coco(hard, tmp_path: Path) -> None:
    out = write(hard, "coco", tmp_path / "out", images="png")
    found = run("datumaro", "read_datumaro.py", "coco_instances", out, hard[2])
    assert found["masks"] == found["exact"] == found["labels_right"] == NUM_MASKS
    assert found["items"] == 19


def test_trackeval_davis(hard, tmp_path: Path) -> None:
    out = write(hard, "davis", tmp_path / "out")
    found = run("scorers", "score_trackeval.py", "davis", out, hard[2], tmp_path / "trackers")
    assert found["sequences"] == 2
    assert found["scores"] and set(found["scores"].values()) == {1.0}


def test_trackeval_youtube_vis(hard, tmp_path: Path) -> None:
    out = write(hard, "ytvis", tmp_path / "out")
    found = run("scorers", "score_trackeval.py", "ytvis", out, hard[2], tmp_path / "trackers")
    assert found["sequences"] == 2
    scores = found["scores"].values()
    assert scores and min(scores) > 1 - 1e-12  # TrackMAP sums to 1 - 2e-16


def test_trackeval_youtube_vis_results(hard, tmp_path: Path) -> None:
    # The ground truth is the one that the truth was found equal to above.
    out = write(hard, "ytvis", tmp_path / "out")
    results = write(hard, "ytvis", tmp_path / "results", results=True) / "train" / "results.json"
    found = run(
        "scorers", "score_trackeval.py", "ytvis", out, hard[2], tmp_path / "trackers", results
    )
    assert found["scores"] and min(found["scores"].values()) > 1 - 1e-12


def test_trackeval_mots(hard, tmp_path: Path) -> None:
    # TrackEval scores class 2 alone, so every label becomes a pedestrian.
    labels = {label: {"id": 2, "name": "pedestrian"} for label in ("человек", "кошка", "猫", "人")}
    (tmp_path / "map.json").write_text(json.dumps(labels))
    out = write(hard, "mots", tmp_path / "out", category_map=tmp_path / "map.json")
    found = run("scorers", "score_trackeval.py", "mots", out, hard[2], tmp_path / "trackers")
    assert found["sequences"] == 2
    counts = {k: v for k, v in found["scores"].items() if k.endswith("CLR_TP")}
    ratios = {k: v for k, v in found["scores"].items() if not k.endswith("CLR_TP")}
    assert set(counts.values()) == {NUM_MASKS - 2.0}  # two masks lie wholly under another
    assert ratios and set(ratios.values()) == {1.0}


def test_vos_benchmark_reads_youtube_vos(hard, tmp_path: Path) -> None:
    out = write(hard, "ytvos", tmp_path / "out")
    annotations = out / "train" / "Annotations"
    found = run("scorers", "score_vos_benchmark.py", annotations, hard[2], tmp_path / "pred")
    assert found["J"] == [100.0]
    assert found["J&F"] == [100.0]


@pytest.mark.parametrize(
    ("kind", "images", "regions"), [("image", "png", NUM_MASKS), ("video", None, 6)]
)
def test_label_studio_sdk(hard, tmp_path: Path, kind: str, images, regions: int) -> None:
    out = write(hard, "labelstudio", tmp_path / "out", images=images, annotations=True)
    found = run("readers", "read_labelstudio.py", kind, out, hard[2])
    assert found["regions"] == found["exact"] == found["labels"] == regions
    assert found["valid"] == found["tasks"] == (19 if images else 2)
