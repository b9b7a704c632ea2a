"""Validators: silent on what we export, and each rule fires on the damage that it is for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_rig import Rig, edit_json, make_rig
from PIL import Image

from edgetam_label.errors import UsageError
from edgetam_label.exporters import EXPORTERS
from edgetam_label.exporters.dataset_findings import Problem, checked_rle, run_lengths
from edgetam_label.exporters.dataset_validate import COMMON_RULES, rules_of, validate
from edgetam_label.exporters.run_lengths import run_lengths as exported_runs
from edgetam_label.masks import RLE


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = make_rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.store.close()


@pytest.mark.parametrize("name", list(EXPORTERS))
def test_what_we_export_is_valid(rig: Rig, name: str) -> None:
    report = validate(name, rig.folders[name])
    assert [str(f) for f in report.findings if f.severity == "error"] == []
    # A one-pixel object is a ring that encloses nothing; YOLO can hold it no other way.
    assert {f.rule for f in report.findings} <= {"yoloseg.area"}


Damage = Callable[[Path], None]
CASES: list[tuple[str, str, str, Damage]] = []


def damages(name: str, rule: str, message: str) -> Callable[[Damage], Damage]:
    """Registers a damage to an exported folder that must raise `rule` with this message."""

    def register(damage: Damage) -> Damage:
        CASES.append((name, rule, message, damage))
        return damage

    return register


def in_json(
    name: str, file: str, rule: str, message: str
) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """The same for one JSON file."""

    def register(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        CASES.append((name, rule, message, lambda folder: edit_json(folder / file, change)))
        return change

    return register


def rewrite(folder: Path, pattern: str, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Change the pixel values of the first PNG that fits, its palette and mode kept."""
    path = sorted(folder.glob(pattern))[0]
    with Image.open(path) as image:
        values, palette = np.asarray(image).copy(), image.getpalette()
    changed = change(values)
    out = Image.fromarray(values if changed is None else changed)
    if palette is not None:
        out.putpalette(palette)
    out.save(path)


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


# -- COCO -------------------------------------------------------------------------------------

COCO = "annotations/instances_train.json"


def coco(rule: str, message: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    return in_json("coco", COCO, rule, message)


@damages("coco", "coco.layout", "no instances_")
def _(folder: Path) -> None:
    (folder / COCO).rename(folder / "annotations/train.json")


@damages("coco", "coco.ascii", "beyond ASCII")
def _(folder: Path) -> None:
    edit_text(folder / COCO, '"edgetam-label"', '"этикетка"')


@coco("coco.sections", "no list categories")
def _(data: Any) -> None:
    del data["categories"]


@coco("coco.ids", "id 0, want 1 or more")
def _(data: Any) -> None:
    data["categories"][0]["id"] = 0


@coco("coco.ids", "repeats an id")
def _(data: Any) -> None:
    data["annotations"][1]["id"] = data["annotations"][0]["id"]


@coco("coco.references", "image_id 999")
def _(data: Any) -> None:
    data["annotations"][0]["image_id"] = 999


@coco("coco.references", "video_id 77")
def _(data: Any) -> None:
    data["images"][0]["video_id"] = 77


@coco("coco.references", "category_id 50")
def _(data: Any) -> None:
    data["annotations"][2]["category_id"] = 50


@coco("coco.image", "file_name")
def _(data: Any) -> None:
    data["images"][1]["file_name"] = data["images"][0]["file_name"]


@coco("coco.frame_id", "repeats frame_id 0")
def _(data: Any) -> None:
    data["images"][1]["frame_id"] = 0


@coco("coco.rle", r"want \[height, width\] = \[97, 161\]")
def _(data: Any) -> None:
    data["annotations"][0]["segmentation"]["size"].reverse()


@coco("coco.rle", "add up to 6")
def _(data: Any) -> None:
    data["annotations"][0]["segmentation"]["counts"] = [1, 2, 3]


@coco("coco.rle", "end inside a number")
def _(data: Any) -> None:
    data["annotations"][0]["segmentation"]["counts"] += "o"


@coco("coco.polygon", "3 points or more")
def _(data: Any) -> None:
    data["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]


@coco("coco.polygon", "outside its 161x97 image")
def _(data: Any) -> None:
    data["annotations"][0]["segmentation"] = [[1, 2, 500, 4, 5, 5]]


@coco("coco.area", "want 1566|has area 1")
def _(data: Any) -> None:
    data["annotations"][0]["area"] = 1


@coco("coco.bbox", r"has bbox .* covers")
def _(data: Any) -> None:
    data["annotations"][0]["bbox"][2] += 1


@coco("coco.bbox", "row by row")
def _(data: Any) -> None:
    entry = data["annotations"][0]
    mask = RLE.from_coco(entry["segmentation"]).decode()
    height, width = mask.shape
    entry["segmentation"] = RLE.encode(mask.ravel().reshape(width, height).T).to_coco()


@coco("coco.iscrowd", "evaluation ignores it")
def _(data: Any) -> None:
    data["annotations"][0]["iscrowd"] = 1


@coco("coco.track", "track_id 1 and instance_id None")
def _(data: Any) -> None:
    del data["annotations"][0]["instance_id"]


@coco("coco.track", "second mask of track")
def _(data: Any) -> None:
    data["annotations"].append({**data["annotations"][0], "id": 9999})


@damages("coco", "coco.files", "is not in images/train")
def _(folder: Path) -> None:
    sorted((folder / "images").rglob("*.jpg"))[0].unlink()


@damages("coco", "readable", "line 2: Expecting value")
def _(folder: Path) -> None:
    edit_text(folder / COCO, '"images":[', '"images":[,')


# -- YouTube-VOS ------------------------------------------------------------------------------

META = "train/meta.json"
VIDEO = "Видео один"


def ytvos(rule: str, message: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    return in_json("ytvos", META, rule, message)


@damages("ytvos", "ytvos.layout", "is missing")
def _(folder: Path) -> None:
    (folder / META).unlink()


@ytvos("ytvos.meta", "no object videos")
def _(data: Any) -> None:
    data["videos"] = []


@ytvos("ytvos.meta", "category text")
def _(data: Any) -> None:
    del data["videos"][VIDEO]["objects"]["1"]["category"]


@ytvos("ytvos.ids", "object key '300'")
def _(data: Any) -> None:
    objects = data["videos"][VIDEO]["objects"]
    objects["300"] = objects.pop("1")


@ytvos("ytvos.frames", "lists '00099', which has no PNG")
def _(data: Any) -> None:
    data["videos"][VIDEO]["objects"]["1"]["frames"].append("00099")


@ytvos("ytvos.pixels", "pixels on frame '00011', not listed")
def _(data: Any) -> None:
    data["videos"][VIDEO]["objects"]["1"]["frames"].pop()


@ytvos("ytvos.pixels", "lists frame '00005' but has no pixel")
def _(data: Any) -> None:
    frames = data["videos"][VIDEO]["objects"]["1"]["frames"]
    frames.append("00005")
    frames.sort()


@damages("ytvos", "ytvos.pixels", "holds id 9, which meta.json lacks")
def _(folder: Path) -> None:
    rewrite(folder, "train/Annotations/*/*.png", lambda v: v.__setitem__((0, 0), 9))


@ytvos("ytvos.videos", "Annotations/ does not")
def _(data: Any) -> None:
    data["videos"]["elsewhere"] = {"objects": {}}


@damages("ytvos", "ytvos.png", "mode RGB, want P")
def _(folder: Path) -> None:
    path = sorted(folder.glob("train/Annotations/*/*.png"))[0]
    Image.open(path).convert("RGB").save(path)


@damages("ytvos", "ytvos.png", "the first of its video is")
def _(folder: Path) -> None:
    path = sorted(folder.glob(f"train/Annotations/{VIDEO}/*.png"))[1]
    image = Image.open(path)
    image.crop((0, 0, 161, 90)).save(path)


@damages("ytvos", "ytvos.images", "has no image")
def _(folder: Path) -> None:
    sorted((folder / "train/JPEGImages").rglob("*.jpg"))[0].unlink()


# -- YouTube-VIS ------------------------------------------------------------------------------


def ytvis(rule: str, message: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    return in_json("ytvis", "train/instances.json", rule, message)


@damages("ytvis", "ytvis.layout", "holds no")
def _(folder: Path) -> None:
    (folder / "train/instances.json").unlink()


@ytvis("ytvis.sections", "no list videos")
def _(data: Any) -> None:
    del data["videos"]


@ytvis("ytvis.ids", "id 0")
def _(data: Any) -> None:
    data["annotations"][0]["id"] = 0


@ytvis("ytvis.video", "length 12 but 11 different")
def _(data: Any) -> None:
    data["videos"][0]["file_names"].pop()


@ytvis("ytvis.references", "video_id 88")
def _(data: Any) -> None:
    data["annotations"][0]["video_id"] = 88


@ytvis("ytvis.lengths", "its video has 12 frames")
def _(data: Any) -> None:
    data["annotations"][0]["bboxes"].pop()


@ytvis("ytvis.nulls", "not in all")
def _(data: Any) -> None:
    data["annotations"][0]["bboxes"][0] = None


@ytvis("ytvis.rle", "negative run")
def _(data: Any) -> None:
    data["annotations"][0]["segmentations"][0]["counts"][:2] = [-5, 5]


@ytvis("ytvis.uncompressed", "as a string")
def _(data: Any) -> None:
    segments = data["annotations"][0]["segmentations"]
    segments[0] = RLE.from_coco(segments[0]).to_coco()


@ytvis("ytvis.area", "has area 3")
def _(data: Any) -> None:
    data["annotations"][0]["areas"][0] = 3


@ytvis("ytvis.bbox", "covers")
def _(data: Any) -> None:
    data["annotations"][0]["bboxes"][0][0] += 1


@ytvis("ytvis.iscrowd", "iscrowd None")
def _(data: Any) -> None:
    del data["annotations"][0]["iscrowd"]


@ytvis("ytvis.score", "as only results have")
def _(data: Any) -> None:
    data["annotations"][0]["score"] = 0.5


@damages("ytvis", "ytvis.compressed", "as a list, want a string")
def _(folder: Path) -> None:
    def to_results(data: Any) -> Any:
        keys = ("video_id", "category_id", "segmentations")
        return [{"score": 1.0, **{k: a[k] for k in keys}} for a in data["annotations"]]

    path = folder / "train/results.json"
    path.write_bytes((folder / "train/instances.json").read_bytes())
    edit_json(path, to_results)


@damages("ytvis", "ytvis.images", "cannot be read as an image")
def _(folder: Path) -> None:
    sorted((folder / "train/JPEGImages").rglob("*.jpg"))[0].write_bytes(b"no jpeg")


# -- DAVIS ------------------------------------------------------------------------------------


@damages("davis", "davis.layout", "is missing")
def _(folder: Path) -> None:
    (folder / "Annotations").rename(folder / "annotations")


@damages("davis", "davis.list", "has no annotations")
def _(folder: Path) -> None:
    with (folder / "ImageSets/2017/val.txt").open("a", encoding="utf-8") as file:
        file.write("ghost\n")


@damages("davis", "davis.png", "cannot be read as a PNG")
def _(folder: Path) -> None:
    path = sorted((folder / "Annotations").rglob("*.png"))[0]
    path.write_bytes(path.read_bytes()[:60])


@damages("davis", "davis.first", "object 9, which the first frame does not show")
def _(folder: Path) -> None:
    rewrite(folder, f"Annotations/480p/{VIDEO}/00004.png", lambda v: v.__setitem__((0, 0), 9))


@damages("davis", "davis.ids", "counted as perfect")
def _(folder: Path) -> None:
    rewrite(
        folder,
        f"Annotations/480p/{VIDEO}/00000.png",
        lambda v: np.where(v == 2, 5, v).astype(np.uint8),
    )


@damages("davis", "davis.names", "'first', want a number")
def _(folder: Path) -> None:
    path = folder / f"Annotations/480p/{VIDEO}/00000.png"
    path.rename(path.with_name("first.png"))


@damages("davis", "davis.images", "has no image")
def _(folder: Path) -> None:
    sorted((folder / "JPEGImages").rglob("*.jpg"))[0].unlink()


# -- MOTS -------------------------------------------------------------------------------------

SEQUENCE = f"MOTS-train/{VIDEO}"
GT = f"{SEQUENCE}/gt/gt.txt"


def first_row(folder: Path, change: Callable[[list[str]], None]) -> None:
    lines = (folder / GT).read_text(encoding="utf-8").splitlines()
    fields = lines[0].split(" ")
    change(fields)
    (folder / GT).write_text("\n".join([" ".join(fields), *lines[1:]]) + "\n", encoding="utf-8")


@damages("mots", "mots.layout", "holds no sequence")
def _(folder: Path) -> None:
    (folder / "MOTS-train").rename(folder / "elsewhere-train")


@damages("mots", "mots.seqinfo", "seqLength")
def _(folder: Path) -> None:
    edit_text(folder / SEQUENCE / "seqinfo.ini", "seqLength=12\n", "")


@damages("mots", "mots.seqmap", "want the header")
def _(folder: Path) -> None:
    edit_text(folder / "seqmaps/MOTS-train.txt", "name\n", "")


@damages("mots", "mots.row", "is not `frame id")
def _(folder: Path) -> None:
    first_row(folder, lambda fields: fields.pop(2))


@damages("mots", "mots.id", "id // 1000 = class")
def _(folder: Path) -> None:
    first_row(folder, lambda fields: fields.__setitem__(2, "7"))


@damages("mots", "mots.class", "class 70, want 1 to 65")
def _(folder: Path) -> None:
    first_row(folder, lambda fields: fields.__setitem__(slice(1, 3), ["70001", "70"]))


@damages("mots", "mots.frame", "frame 0, the sequence has 1 to 12")
def _(folder: Path) -> None:
    first_row(folder, lambda fields: fields.__setitem__(0, "0"))


@damages("mots", "mots.rle", "is 161x96, seqinfo.ini says 161x97")
def _(folder: Path) -> None:
    first_row(folder, lambda fields: fields.__setitem__(3, "96"))


@damages("mots", "mots.overlap", "second mask of")
def _(folder: Path) -> None:
    text = (folder / GT).read_text(encoding="utf-8")
    (folder / GT).write_text(text.splitlines()[0] + "\n" + text, encoding="utf-8")


@damages("mots", "mots.overlap", "in more than one of the masks")
def _(folder: Path) -> None:
    lines = (folder / GT).read_text(encoding="utf-8").splitlines()
    fields = lines[0].split(" ")
    fields[1:3] = ["64999", "64"]
    (folder / GT).write_text("\n".join([*lines, " ".join(fields)]) + "\n", encoding="utf-8")


@damages("mots", "mots.png", "lacks 1 frames from 1")
def _(folder: Path) -> None:
    (folder / SEQUENCE / "instances/000001.png").unlink()


@damages("mots", "mots.agree", "differs from its mask in gt.txt")
def _(folder: Path) -> None:
    def shave(values: np.ndarray) -> None:
        rows, columns = np.nonzero(values)
        values[rows[0], columns[0]] = 0

    rewrite(folder, f"{SEQUENCE}/instances/000001.png", shave)


@damages("mots", "mots.images", "has 11 images, seqLength is 12")
def _(folder: Path) -> None:
    sorted((folder / SEQUENCE / "img1").iterdir())[0].unlink()


# -- YOLO -------------------------------------------------------------------------------------

LABELS = f"labels/train/{VIDEO}/00000.txt"


@damages("yoloseg", "yoloseg.layout", "is missing")
def _(folder: Path) -> None:
    (folder / "data.yaml").unlink()


@damages("yoloseg", "yoloseg.yaml", "has no val")
def _(folder: Path) -> None:
    edit_text(folder / "data.yaml", "val:", "vali:")


@damages("yoloseg", "yoloseg.row", "not a number")
def _(folder: Path) -> None:
    (folder / LABELS).write_text("0 0.1 0.2 0.3 x 0.2 0.2\n", encoding="utf-8")


@damages("yoloseg", "yoloseg.class", "class 9, data.yaml names 4")
def _(folder: Path) -> None:
    (folder / LABELS).write_text("9 0.1 0.2 0.3 0.3 0.2 0.5\n", encoding="utf-8")


@damages("yoloseg", "yoloseg.points", "4 coordinates")
def _(folder: Path) -> None:
    (folder / LABELS).write_text("0 0.1 0.2 0.3 0.3\n", encoding="utf-8")


@damages("yoloseg", "yoloseg.range", "coordinate 1.3")
def _(folder: Path) -> None:
    (folder / LABELS).write_text("0 0.1 0.2 1.3 0.3 0.2 0.5\n", encoding="utf-8")


@damages("yoloseg", "yoloseg.area", "encloses nothing")
def _(folder: Path) -> None:
    (folder / LABELS).write_text("0 0.1 0.1 0.2 0.2 0.3 0.3\n", encoding="utf-8")


@damages("yoloseg", "yoloseg.images", "has no image at the same path")
def _(folder: Path) -> None:
    (folder / f"images/train/{VIDEO}/00000.jpg").unlink()


# -- plain masks ------------------------------------------------------------------------------


@damages("masks", "masks.layout", "is missing")
def _(folder: Path) -> None:
    (folder / "train/objects.json").unlink()


@in_json("masks", "train/objects.json", "masks.objects", "no label for 1")
def _(data: Any) -> None:
    del data[VIDEO]["1"]


@damages("masks", "masks.png", "is a JPEG, want a PNG")
def _(folder: Path) -> None:
    path = sorted((folder / "train/masks").rglob("*.png"))[0]
    image = sorted((folder / "train/images").rglob("*.jpg"))[0]
    path.write_bytes(image.read_bytes())


@damages("masks", "masks.values", "want 0 and 255")
def _(folder: Path) -> None:
    rewrite(folder, "train/masks/*/1/*.png", lambda v: (v // 255).astype(np.uint8))


@damages("masks", "masks.images", "has no image")
def _(folder: Path) -> None:
    (folder / f"train/images/{VIDEO}/00000.jpg").unlink()


# -- Label Studio -----------------------------------------------------------------------------

TASKS = "image/tasks.json"


def region(data: Any) -> Any:
    return next(t for t in data if t["predictions"][0]["result"])["predictions"][0]["result"][0]


def studio(rule: str, message: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    return in_json("labelstudio", TASKS, rule, message)


@damages("labelstudio", "labelstudio.layout", "holds no .json")
def _(folder: Path) -> None:
    (folder / TASKS).unlink()


@studio("labelstudio.task", "has no data")
def _(data: Any) -> None:
    del data[0]["data"]


@studio("labelstudio.region", "lacks from_name")
def _(data: Any) -> None:
    del region(data)["from_name"]


@studio("labelstudio.ids", "two regions of one type")
def _(data: Any) -> None:
    results = next(t for t in data if len(t["predictions"][0]["result"]) > 1)["predictions"][0]
    results["result"][1]["id"] = results["result"][0]["id"]


@studio("labelstudio.labels", "has no label")
def _(data: Any) -> None:
    region(data)["value"]["brushlabels"] = []


@studio("labelstudio.brush", "cut off")
def _(data: Any) -> None:
    del region(data)["value"]["rle"][30:]


@studio("labelstudio.polygon", "fewer than three points")
def _(data: Any) -> None:
    region(data)["value"] = {"points": [[1, 2]], "labels": ["a"]}


def keyframes(*changes: dict[str, Any], **value: Any) -> Callable[[Any], None]:
    """Turns a region into a video rectangle of these keyframes."""
    whole = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "time": 0, "enabled": True}

    def change(data: Any) -> None:
        sequence = [
            {k: v for k, v in {"frame": i + 1, **whole, **c}.items() if v is not None}
            for i, c in enumerate(changes)
        ]
        region(data).update(
            type="videorectangle",
            value={"framesCount": 12, "duration": 0.5, "sequence": sequence, "labels": ["a"]}
            | value,
        )

    return change


studio("labelstudio.video", "framesCount None")(keyframes({}, framesCount=None))
studio("labelstudio.video", "has no keyframe")(keyframes())
studio("labelstudio.keyframe", "lacks rotation")(keyframes({"rotation": None}))
studio("labelstudio.frames", "want a frame from 1 to 12")(keyframes({"frame": 13}))
studio("labelstudio.frames", "comes after frame 5")(keyframes({"frame": 5}, {"frame": 2}))
studio("labelstudio.percent", "outside 0 to 100 percent")(keyframes({"x": 99}))


# -- our own ----------------------------------------------------------------------------------


def in_line(rule: str, message: str, old: str, new: str, kind: str) -> None:
    """Replaces a text in the first line of a type."""

    def damage(folder: Path) -> None:
        path = folder / f"sessions/{VIDEO}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        at = next(i for i, line in enumerate(lines) if f'"type":"{kind}"' in line)
        assert old in lines[at], lines[at][:300]
        lines[at] = lines[at].replace(old, new, 1)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    CASES.append(("native", rule, message, damage))


@damages("native", "native.layout", "holds no .jsonl")
def _(folder: Path) -> None:
    (folder / "sessions").rename(folder / "elsewhere")


in_line("native.line", "is not JSON", '"type"', "type", "mask")
in_line("native.session", "wants version 1", '"version":1', '"version":2', "session")
in_line("native.object", "obj_id 0", '"obj_id":1', '"obj_id":0', "object")
in_line("native.reference", "belongs to object 99", '"obj_id":1', '"obj_id":99', "mask")
in_line("native.frame", "frame 500 of 12", '"frame_idx":0', '"frame_idx":500', "mask")
in_line("native.order", "comes after frame 11", '"frame_idx":0', '"frame_idx":11', "mask")
in_line("native.mask", "status 'guessed'", '"status":"prompted"', '"status":"guessed"', "mask")
in_line("native.absent", "is absent but has", '"status":"prompted"', '"status":"absent"', "mask")
in_line("native.prompt", "outside the frame", '"clicks":[[', '"clicks":[[-5.0,3,true],[', "prompt")


@pytest.mark.parametrize(
    ("name", "rule", "message", "damage"),
    CASES,
    ids=[f"{rule}-{i}" for i, (_, rule, _, _) in enumerate(CASES)],
)
def test_each_rule_fires(
    rig: Rig, tmp_path: Path, name: str, rule: str, message: str, damage: Damage
) -> None:
    folder = rig.copy(name, tmp_path / "damaged")
    damage(folder)
    report = validate(name, folder)
    fired = [finding for finding in report.findings if finding.rule == rule]
    assert fired, [str(finding) for finding in report.findings]
    assert any(re.search(message, f.message) for f in fired), [str(finding) for finding in fired]
    assert all(finding.where for finding in fired)


def test_every_rule_has_a_damage_that_proves_it() -> None:
    proved = {rule for _, rule, _, _ in CASES}
    unproved = {rule for name in EXPORTERS for rule in rules_of(name)} - proved
    assert unproved == {"manifest.json", "manifest.files"}


def test_the_manifest_tells_of_changed_and_lost_files(rig: Rig, tmp_path: Path) -> None:
    folder = rig.copy("davis", tmp_path / "davis")
    manifest = folder / "manifest.json"
    manifest.write_bytes((rig.folders["davis"] / "manifest.json").read_bytes())
    pngs = sorted((folder / "Annotations").rglob("*.png"))
    images = sorted((folder / "JPEGImages").rglob("*.jpg"))
    pngs[0].write_bytes(pngs[1].read_bytes())
    images[0].unlink()
    messages = [f.message for f in validate("davis", folder).findings]
    assert any("is listed in manifest.json but missing" in m for m in messages)
    assert any("manifest.json" in m and "missing" not in m for m in messages)
    manifest.write_text("{", encoding="utf-8")
    assert "manifest.json" in {f.rule for f in validate("davis", folder).findings}


def test_findings_are_counted_beyond_the_limit(rig: Rig, tmp_path: Path) -> None:
    folder = rig.copy("coco", tmp_path / "coco")
    edit_json(folder / COCO, lambda d: [a.update(area=0) for a in d["annotations"]] and None)
    report = validate("coco", folder, limit=5)
    assert len(report.findings) == 5 and report.errors == 54


def test_an_unknown_format_or_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown format 'voc'"):
        validate("voc", tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        validate("coco", tmp_path / "nowhere")
    assert set(COMMON_RULES) <= set(rules_of("coco"))


def test_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(5)
    for share in (0, 0.01, 0.5, 0.99, 1):
        for height, width in ((1, 1), (7, 13), (300, 401)):
            rle = RLE.encode(rng.random((height, width)) < share)
            counts = rle.counts.decode("ascii")
            assert run_lengths(counts).tolist() == exported_runs(rle)
            assert checked_rle(rle.to_coco(), height, width) == rle


@pytest.mark.parametrize(
    "counts", ["", "~~~", "ooooooooooooooo0", [1.5], ["1"], None, "é", [2**70]]
)
def test_malformed_counts_are_a_problem_not_a_crash(counts: Any) -> None:
    with pytest.raises((Problem, OverflowError)):
        checked_rle({"size": [5, 5], "counts": counts}, 5, 5)


JUNK: list[Any] = [None, True, -1, 0, 1.5, float("nan"), 2**70, "x", "", [], {}, [1, 2], {"id": 1}]
DOCUMENTS = {
    "coco": COCO,
    "ytvis": "train/instances.json",
    "ytvos": META,
    "labelstudio": TASKS,
    "masks": "train/objects.json",
    "native": f"sessions/{VIDEO}.jsonl",
}


def spoiled(value: Any, rng: np.random.Generator) -> Any:
    """A copy with junk in place of one value somewhere."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(rng.integers(len(keys)))]
    inner = value[key]
    copied = dict(value) if isinstance(value, dict) else list(value)
    deeper = isinstance(inner, dict | list) and len(inner) > 0 and rng.random() < 0.85
    copied[key] = spoiled(inner, rng) if deeper else JUNK[int(rng.integers(len(JUNK)))]
    return copied


@pytest.mark.parametrize("name", list(DOCUMENTS))
def test_no_junk_makes_a_validator_crash(rig: Rig, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    target = folder / DOCUMENTS[name]
    target.parent.mkdir(parents=True)
    original = (rig.folders[name] / DOCUMENTS[name]).read_text(encoding="utf-8")
    if name in ("ytvos", "masks"):
        part = {"ytvos": "train/Annotations", "masks": "train/masks"}[name]
        (folder / part / VIDEO / "1").mkdir(parents=True)
    lines = name == "native"
    value = [json.loads(line) for line in original.splitlines()] if lines else json.loads(original)
    for seed in range(120):
        changed = spoiled(value, np.random.default_rng(seed))
        text = "\n".join(map(json.dumps, changed)) if lines else json.dumps(changed)
        target.write_text(text, encoding="utf-8")
        assert validate(name, folder, limit=3).rules
