"""`export --label-studio`: people's regions joined with the stored masklets, over real HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hard_fixture import FixtureVideo, make_videos, store_video
from PIL import Image
from studio_double import Studio as StudioServer
from studio_double import personal_token

from edgetam_label.backend.brush import encode_brush
from edgetam_label.cli import cli
from edgetam_label.exporters.labelstudio_join import Studio, join
from edgetam_label.exporters.labelstudio_sequence import keyframes_of_boxes
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject
from edgetam_label.sessions import SessionStore

PROJECT = "7"
BRUSH = np.zeros((40, 60), bool)
BRUSH[5:20, 10:31] = True


@dataclass
class Scene:
    server: StudioServer
    database: Path
    video: FixtureVideo


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Three tasks: a tracked video that a person corrected, an image, one without annotation."""
    video = make_videos(tmp_path)[0]
    with StudioServer(token=personal_token()) as server, SessionStore(tmp_path / "s.db") as store:
        _store_tracked(store, video, f"ls|{server.url}|{PROJECT}|1")
        buffer = io.BytesIO()
        Image.new("RGB", (60, 40), (90, 90, 90)).save(buffer, "PNG")
        server.add("/data/upload/7/photo.png", buffer.getvalue())
        tasks = [
            {
                "id": 1,
                "data": {"video": "/data/upload/7/clip.mkv"},
                "annotations": [{"id": 5, "result": _video_results(video)}],
            },
            {
                "id": 2,
                "data": {"image": "/data/upload/7/photo.png"},
                "annotations": [{"id": 6, "result": _image_results()}],
            },
            {"id": 3, "data": {"image": "/data/upload/7/late.png"}, "annotations": []},
        ]
        server.add(f"/api/projects/{PROJECT}/export", json.dumps(tasks).encode())
        yield Scene(server, tmp_path / "s.db", video)


def _store_tracked(store: SessionStore, video: FixtureVideo, key: str) -> None:
    template = store.get(store_video(store, video))
    session = store.create(template.media, model=template.model, name="task 1", key=key)
    for obj_id, region in ((1, "ring"), (2, "parts"), (4, "gone")):
        store.set_object(session.id, LabelObject(obj_id, "машина", external_id=region))
    masks = [
        FrameMask(obj_id, frame_idx, RLE.encode(mask), 3.0)
        for obj_id in (1, 2, 4)
        for frame_idx, mask in video.truth[obj_id].items()
    ]
    store.save_masks(session.id, masks)
    store.delete(template.id)


def _video_results(video: FixtureVideo) -> list[dict[str, Any]]:
    def boxes(obj_id: int, shift: int = 0, since: int = 99) -> dict[int, tuple[float, ...]]:
        found = {}
        for frame_idx, mask in video.truth[obj_id].items():
            x0, y0, x1, y1 = RLE.encode(mask).box or (0, 0, 0, 0)
            moved = shift if frame_idx >= since else 0
            found[frame_idx] = (x0 + moved, y0, x1 + moved, y1)
        return found

    return [
        _region(video, "ring", "собака", boxes(1)),  # a new label, the boxes as tracked
        _region(video, "parts", "кошка", boxes(2, shift=40, since=6)),  # corrected from frame 6
        _region(video, "drawn", "кошка", {10: (20.0, 30.0, 60.0, 70.0)}),  # never tracked
    ]


def _region(
    video: FixtureVideo, key: str, label: str, boxes: dict[int, tuple[float, ...]]
) -> dict[str, Any]:
    height, width = video.size
    sequence = [
        {
            "frame": keyframe.frame_idx + 1,
            "time": (keyframe.frame_idx + 1) / 25,
            "enabled": keyframe.enabled,
            "rotation": 0,
            "x": keyframe.box[0] / width * 100,
            "y": keyframe.box[1] / height * 100,
            "width": (keyframe.box[2] - keyframe.box[0]) / width * 100,
            "height": (keyframe.box[3] - keyframe.box[1]) / height * 100,
        }
        for keyframe in keyframes_of_boxes(boxes, range(len(video.images)))
    ]
    value = {"framesCount": 12, "duration": 0.48, "sequence": sequence, "labels": [label]}
    return {"id": key, "type": "videorectangle", "from_name": "b", "to_name": "v", "value": value}


def _image_results() -> list[dict[str, Any]]:
    size = {"original_width": 60, "original_height": 40, "image_rotation": 0}
    brush = {"format": "rle", "rle": encode_brush(BRUSH), "brushlabels": ["кошка"]}
    box = {"x": 50, "y": 25, "width": 25, "height": 50, "rotation": 0, "rectanglelabels": ["рыба"]}
    return [
        {"id": "b1", "type": "brushlabels", "value": brush, **size},
        {"id": "r1", "type": "rectanglelabels", "value": box, **size},
    ]


def masks_by_region(store: SessionStore, session_id: str) -> dict[str, dict[int, np.ndarray]]:
    session = store.get(session_id)
    found: dict[str, dict[int, np.ndarray]] = {str(o.external_id): {} for o in session.objects}
    for mask in store.iter_masks(session_id):
        if mask.rle.area:
            key = str(session.object(mask.obj_id).external_id)
            found[key][mask.frame_idx] = mask.rle.decode()
    return found


def test_people_win_and_corrected_boxes_become_masks(scene: Scene, tmp_path: Path) -> None:
    asked: list[int] = []

    def fill(media, frame_idx, box):
        """A model that finds exactly the box."""
        asked.append(frame_idx)
        mask = np.zeros((media.height, media.width), bool)
        mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
        return mask

    path = tmp_path / "photo.png"
    path.write_bytes(scene.server.files["/data/upload/7/photo.png"])
    studio = Studio(
        scene.server.url,
        PROJECT,
        lambda: json.loads(scene.server.files[f"/api/projects/{PROJECT}/export"]),
        lambda url, task: path if url.endswith("photo.png") else None,
        fill,
    )
    with SessionStore(scene.database) as store, SessionStore(tmp_path / "t.db") as target:
        report = join(store, studio, target)
        assert report.tasks == {"in": 3, "joined": 2, "without_annotation": 1, "refused": 0}
        video, image = report.sessions
        labels = {o.external_id: o.label for o in target.get(video).objects}
        assert labels == {"ring": "собака", "parts": "кошка", "drawn": "кошка"}
        found = masks_by_region(target, video)
        truth = scene.video.truth
        assert found["ring"].keys() == truth[1].keys()
        assert all(np.array_equal(found["ring"][t], m) for t, m in truth[1].items())
        assert all(np.array_equal(found["parts"][t], truth[2][t]) for t in range(6))
        for frame_idx in (6, 7, 8):  # the person moved the box by 40 pixels
            x0 = np.nonzero(found["parts"][frame_idx])[1].min()
            assert x0 == np.nonzero(truth[2][frame_idx])[1].min() + 40
        assert found["drawn"][10][30:70, 20:60].all() and found["drawn"][10].sum() == 1600
        photo = masks_by_region(target, image)
        assert np.array_equal(photo["b1"][0], BRUSH)
        assert photo["r1"][0][10:30, 30:45].all() and photo["r1"][0].sum() == 300
    assert report.removed == [{"task": "1", "region": "gone", "label": "машина", "masks": 9}]
    regions = {entry["region"]: entry for entry in report.regions}
    assert regions["parts"]["frames"]["mask made from the box"]["frames"] == "6-8"
    assert regions["ring"]["frames"] == {"stored mask": {"count": 10, "frames": "0-4,7-11"}}
    assert regions["b1"]["written"] == "the region's own mask"


def run(scene: Scene, out: Path, monkeypatch, *more: str):
    monkeypatch.setenv("EDGETAM_LABEL_LABEL_STUDIO_API_KEY", personal_token())
    arguments = ["export", "--format", "coco", str(out), "--label-studio", scene.server.url]
    arguments += ["--project", PROJECT, "--db", str(scene.database), *more]
    return CliRunner().invoke(cli, arguments)


def test_export_command_accounts_for_every_region(scene: Scene, tmp_path, monkeypatch) -> None:
    result = run(scene, tmp_path / "out", monkeypatch, "--no-redraw")
    assert result.exit_code == 0, result.output
    assert "3 in the project = 2 exported + 1 without annotation + 0 refused" in result.output
    assert scene.server.refreshes == 1  # the personal token was traded, never sent as it is
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [session["id"] for session in manifest["sessions"]] == ["task 1", "task 2"]
    told = {entry["region"]: entry for entry in manifest["label_studio"]["regions"]}
    why = "refused: only a box, and making masks from boxes was turned off"
    assert told["parts"]["frames"][why]["frames"] == "6-8"
    assert told["r1"]["refused"] == why.removeprefix("refused: ")
    data = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    names = {c["id"]: c["name"] for c in data["categories"]}
    counts: dict[str, int] = {}
    for annotation in data["annotations"]:
        label = names[annotation["category_id"]]
        counts[label] = counts.get(label, 0) + 1
    assert counts == {"собака": 10, "кошка": 7}  # six of "parts", one brush


def test_same_project_gives_the_same_bytes(scene: Scene, tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b"):
        assert run(scene, tmp_path / name, monkeypatch, "--no-redraw").exit_code == 0
    for path in sorted((tmp_path / "a").rglob("*.json")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_real_model_makes_masks_of_boxes(scene: Scene, tmp_path: Path, monkeypatch) -> None:
    result = run(scene, tmp_path / "out", monkeypatch, "--model", "tiny", "--checkpoint", "random")
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    told = {entry["region"]: entry for entry in manifest["label_studio"]["regions"]}
    # Random weights may find nothing; either way each frame is told.
    assert sum(part["count"] for part in told["parts"]["frames"].values()) == 9


@pytest.mark.parametrize(
    ("more", "message", "code"),
    [
        (("--project", "x"), "--project 'x' is not a number", 2),
        (("--project", "8"), "with 404", 1),
        (("--all",), "leave the sessions and --all out", 2),
    ],
)
def test_bad_requests_are_one_sentence(scene, tmp_path, monkeypatch, more, message, code) -> None:
    result = run(scene, tmp_path / "out", monkeypatch, *more)
    assert message in result.output
    assert result.exit_code == code and len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
