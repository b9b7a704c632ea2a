"""Datasets of others become sessions; what cannot be read is one sentence and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetam_label.errors import EdgeTAMLabelError, ExportError, UsageError
from edgetam_label.exporters import IMPORTERS
from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.exporters.importing import ImportOptions, ImportReport, import_dataset
from edgetam_label.prompts import Box, Click
from edgetam_label.sessions import SessionStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with SessionStore(tmp_path_factory.mktemp("store") / "sessions.db") as opened:
        yield opened


def read(store: SessionStore, name: str, folder: Path, **options) -> ImportReport:
    return import_dataset(store, IMPORTERS[name], folder, ImportOptions(**options))


def masks_of(store: SessionStore, session_id: str) -> dict[tuple[int, int], np.ndarray]:
    return {
        (mask.obj_id, mask.frame_idx): mask.rle.decode()
        for mask in store.iter_masks(session_id)
        if mask.rle.area
    }


def coco(tmp_path: Path, **changes) -> Path:
    data = {
        "images": [
            {"id": 7, "file_name": "sub/café.png", "width": 6, "height": 4},
            {"id": 9, "file_name": "b.jpg", "width": 6, "height": 4},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 18,
                "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]],
                "bbox": [1, 1, 3, 2],
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 44,
                "segmentation": {"size": [4, 6], "counts": [0, 4, 20]},
                "bbox": [0, 0, 1, 4],
                "iscrowd": 1,
            },
            {"id": 3, "image_id": 9, "category_id": 18, "bbox": [2, 1, 3, 2]},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}],
    }
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")
    return tmp_path


def test_foreign_coco_keeps_ids_crowds_boxes_and_file_names(store, tmp_path: Path) -> None:
    report = read(store, "coco", coco(tmp_path / "in"))
    cafe, b = (store.get(entry.session_id) for entry in report.sessions)
    found = masks_of(store, cafe.id)
    polygon = np.zeros((4, 6), bool)
    polygon[1:3, 1:4] = True
    column = np.zeros((4, 6), bool)
    column[:, 0] = True
    assert found.keys() == {(1, 0), (2, 0)}
    assert np.array_equal(found[1, 0], polygon)
    assert np.array_equal(found[2, 0], column)
    assert [item.label for item in cafe.objects] == ["dog", "bottle"]
    assert {mask.status for mask in store.iter_masks(cafe.id)} == {"approved"}
    assert b.prompts[0].box == Box(2, 1, 5, 3)
    assert any("café.png is not there" in warning for warning in report.warnings)

    ids = tuple(entry.session_id for entry in report.sessions)
    export_sessions(store, ExportRequest("coco", tmp_path / "out", ids))
    again = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert {i["file_name"] for i in again["images"]} == {"sub/café.png", "b.jpg"}
    assert [c["id"] for c in again["categories"]] == [18, 44]
    assert [a["iscrowd"] for a in again["annotations"]] == [0, 1]


def test_images_beside_the_annotations_make_a_session_that_can_be_tracked(store, tmp_path) -> None:
    folder = coco(tmp_path / "in")
    for name in ("sub/café.png", "b.jpg"):
        path = folder / "val2017" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (9, 9, 9)).save(path)
    report = read(store, "coco", folder)
    assert report.warnings == ()
    media = store.get(report.sessions[0].session_id).media
    assert media.kind == "image" and media.sha256
    options = ExportOptions(images="png")
    ids = tuple(entry.session_id for entry in report.sessions)
    export_sessions(store, ExportRequest("coco", tmp_path / "out", ids, options=options))
    assert (tmp_path / "out/images/train/sub/café.png").is_file()
    assert (tmp_path / "out/images/train/b.png").is_file()


def test_images_of_another_size_are_refused(store, tmp_path: Path) -> None:
    folder = coco(tmp_path / "in")
    path = folder / "val2017" / "sub/café.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (7, 4)).save(path)
    with pytest.raises(ExportError, match="7x4 pixels, the dataset says 6x4"):
        read(store, "coco", folder)


def png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def test_sparse_youtube_vos_leaves_the_other_frames_open(store, tmp_path: Path) -> None:
    for stem in ("00000", "00005", "00010"):
        image = tmp_path / "train/JPEGImages/clip" / f"{stem}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4)).save(image)
    ids = np.zeros((4, 5), np.uint8)
    ids[1:3, 1] = 6
    png(tmp_path / "train/Annotations/clip/00005.png", ids)
    meta = {"videos": {"clip": {"objects": {"6": {"category": "ape", "frames": ["00005"]}}}}}
    (tmp_path / "train/meta.json").write_text(json.dumps(meta))
    (entry,) = read(store, "ytvos", tmp_path).sessions
    session = store.get(entry.session_id)
    assert session.media.names == ("00000.jpg", "00005.jpg", "00010.jpg")
    assert [(item.obj_id, item.label) for item in session.objects] == [(6, "ape")]
    found = masks_of(store, session.id)
    assert found.keys() == {(6, 1)} and np.array_equal(found[6, 1], ids == 6)


def test_davis_void_is_no_object(store, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 255], [2, 2, 255]], np.uint8)
    png(tmp_path / "Annotations/480p/seq/00000.png", ids)
    report = read(store, "davis", tmp_path)
    assert [item.obj_id for item in store.get(report.sessions[0].session_id).objects] == [1, 2]
    assert any("void" in warning for warning in report.warnings)


def test_mots_png_without_txt_and_ignore_regions(store, tmp_path: Path) -> None:
    ids = np.zeros((3, 4), np.uint16)
    ids[0, 0], ids[1, 1:3], ids[2, 3] = 1005, 2001, 10000
    png(tmp_path / "MOTS-train/seq/instances/000001.png", ids)
    report = read(store, "mots", tmp_path)
    session = store.get(report.sessions[0].session_id)
    assert {o.obj_id: o.label for o in session.objects} == {5: "car", 1: "pedestrian"}
    assert np.array_equal(masks_of(store, session.id)[1, 0], ids == 2001)
    assert any("ignore" in warning for warning in report.warnings)


def test_label_studio_regions_of_every_kind(store, tmp_path: Path) -> None:
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    whole = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    square = [[10, 20], [40, 20], [40, 60], [10, 60]]

    def region(key: str, kind: str, value: dict, **more) -> dict:
        return {"id": key, "type": kind, "value": value, **size, **more}

    results = [
        region("r", "rectanglelabels", {**whole, "rectanglelabels": ["cat"]}),
        region("p", "polygon", {"points": square, "closed": True}),
        region("p", "labels", {"points": square, "labels": ["dog"]}),
        region("k", "keypointlabels", {"x": 50, "y": 50, "keypointlabels": ["cat"]}),
        region(
            "e",
            "ellipselabels",
            {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "ellipselabels": ["cat"]},
        ),
    ]
    task = {
        "id": 4,
        "data": {"image": "/data/upload/1/some%20dog.jpg"},
        "annotations": [
            {"result": [], "was_cancelled": True},
            {"result": results},
        ],
    }
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    (entry,) = read(store, "labelstudio", path).sessions
    session = store.get(entry.session_id)
    assert session.name == "some dog"
    by_key = {item.external_id: item for item in session.objects}
    assert {key: item.label for key, item in by_key.items()} == {
        "r": "cat",
        "p": "dog",
        "k": "cat",
        "e": "cat",
    }
    prompts = {prompt.obj_id: prompt for prompt in session.prompts}
    assert prompts[by_key["r"].obj_id].box == Box(20, 20, 80, 60)
    assert prompts[by_key["k"].obj_id].clicks == (Click(100, 50),)
    found = masks_of(store, session.id)
    polygon = found[by_key["p"].obj_id, 0]
    expected = np.zeros((100, 200), bool)
    expected[20:60, 20:80] = True
    assert np.array_equal(polygon, expected)
    ellipse = found[by_key["e"].obj_id, 0]
    assert abs(ellipse.sum() - np.pi * 20 * 20) < 20


def break_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


BROKEN = {
    "coco": ("annotations/instances_a.json", '{"images": [\n{]', "line 2"),
    "ytvis": ("train/instances.json", "[]", 'no list "videos"'),
    "labelstudio": ("tasks.json", '{"a": 1}', "must be a list"),
    "native": ("sessions/a.jsonl", '{"type": "session", "version": 9}', "version 9"),
    "mots": ("MOTS-train/a/gt/gt.txt", "1 2001 2 4 5\n", "line 1"),
    "davis": ("Annotations/480p/a/00000.png", "no picture", "00000.png cannot be read"),
    "ytvos": ("train/Annotations/a/00000.png", "no picture", "00000.png cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_datasets_are_one_sentence_and_leave_no_session(store, tmp_path, name) -> None:
    path, text, message = BROKEN[name]
    break_file(tmp_path / path, text)
    before = [entry.id for entry in store.summaries()]
    with pytest.raises(EdgeTAMLabelError, match=message) as caught:
        read(store, name, tmp_path)
    assert "\n" not in str(caught.value)
    assert [entry.id for entry in store.summaries()] == before


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_folder_of_something_else_is_refused(store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read(store, name, tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no"):
        read(store, name, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "annotation 1 has category 18"),
        (
            {"annotations": [{"id": 5, "image_id": 99, "category_id": 18}]},
            "annotation 5 belongs to an image that is not listed",
        ),
        (
            {
                "annotations": [
                    {
                        "id": 5,
                        "image_id": 7,
                        "category_id": 18,
                        "segmentation": {"size": [6, 4], "counts": [24]},
                    }
                ]
            },
            r"size \[6, 4\], its image \[4, 6\]",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 9, "category_id": 18, "bbox": [3, 3, 0, 1]}]},
            "annotation 5: Box",
        ),
    ],
)
def test_bad_coco_entries_are_named(store, tmp_path: Path, changes, message) -> None:
    before = [entry.id for entry in store.summaries()]
    with pytest.raises(ExportError, match=message):
        read(store, "coco", coco(tmp_path, **changes))
    assert [entry.id for entry in store.summaries()] == before


def test_an_import_that_fails_late_takes_its_first_sessions_back(store, tmp_path: Path) -> None:
    ids = np.ones((4, 5), np.uint8)
    png(tmp_path / "train/Annotations/a/00000.png", ids)
    png(tmp_path / "train/Annotations/b/00000.png", np.zeros((4, 5, 3), np.uint8))
    before = [entry.id for entry in store.summaries()]
    with pytest.raises(ExportError, match="holds colours"):
        read(store, "ytvos", tmp_path)
    assert [entry.id for entry in store.summaries()] == before
