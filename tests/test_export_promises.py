"""What an export promises: nothing half written, nothing dropped silently, the very frames."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hard_fixture import FixtureVideo, make_videos, store_video
from PIL import Image

from edgetam_label.errors import ExportError, UsageError
from edgetam_label.exporters import EXPORTERS
from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportReport, ExportRequest, export_sessions
from edgetam_label.exporters.manifest import Ledger, Outcome
from edgetam_label.exporters.selection import FrameSelection, assign_splits, parse_split
from edgetam_label.session_types import LabelObject
from edgetam_label.sessions import SessionStore

Hard = tuple[SessionStore, tuple[FixtureVideo, FixtureVideo], tuple[str, str]]


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("hard")
    videos = make_videos(folder)
    with SessionStore(folder / "sessions.db") as store:
        ids = tuple(store_video(store, video) for video in videos)
        yield store, videos, ids


def write(hard: Hard, name: str, out: Path, **choices) -> ExportReport:
    return export_sessions(hard[0], ExportRequest(name, out, hard[2], **choices))


# -- the account ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTERS)
def test_manifest_accounts_for_every_mask_frame_and_file(hard: Hard, tmp_path, name) -> None:
    manifest = write(
        hard, name, tmp_path / "out", selection=FrameSelection(start=1, stride=2)
    ).manifest
    for session, video in zip(manifest["sessions"], hard[1], strict=True):
        stored = list(hard[0].iter_masks(session["id"]))
        frames = session["frames"]
        assert frames["in"] == len(video.images)
        left_out = sum(entry["count"] for entry in frames["left_out"].values())
        assert frames["written"]["count"] + left_out == frames["in"]
        for entry in session["objects"]:
            assert entry["label"] == video.labels[entry["obj_id"]]
            account = entry["masks"]
            mine = [mask.frame_idx for mask in stored if mask.obj_id == entry["obj_id"]]
            told = [account["written"], account["absent"]]
            for outcome in ("converted", "left_out", "refused"):
                told += account[outcome].values()
            assert account["in"] == len(mine) == sum(part["count"] for part in told)
            assert sorted(mine) == sorted(i for part in told for i in expand(part["frames"]))
        assert session["media"]["sha256"] == sha256(video.path)
        assert session["model"]["checkpoint_sha256"] == "c" * 64
    for path, entry in manifest["files"].items():
        assert sha256(tmp_path / "out" / path) == entry["sha256"]
        assert (tmp_path / "out" / path).stat().st_size == entry["bytes"]


def expand(ranges: str) -> list[int]:
    found: list[int] = []
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("overlap", "options", "winner"),
    [
        ("highest-id", {}, 3),
        ("score", {}, 1),  # the fixture gives lower ids higher scores
        ("z-order", {"z_order": ("кошка", "人")}, 1),
        ("z-order", {"z_order": ("人", "кошка")}, 3),
    ],
)
def test_overlap_policy_decides_and_is_reported(hard, tmp_path, overlap, options, winner) -> None:
    chosen = ExportOptions(overlap=overlap, **options)
    report = write(hard, "ytvos", tmp_path / "out", options=chosen)
    truth = hard[1][1].truth
    frame = 3
    both = truth[1][frame] & truth[3][frame]
    assert both.any()
    path = tmp_path / "out/train/Annotations/動画 二" / f"{frame:05d}.png"
    assert set(np.unique(np.asarray(Image.open(path))[both])) == {winner}
    loser = next(
        entry["masks"]
        for entry in report.manifest["sessions"][1]["objects"]
        if entry["obj_id"] == 4 - winner
    )
    assert frame in expand(
        loser["converted"][f"overlap: pixels given to another object ({overlap})"]["frames"]
    )


def test_ledger_notices_what_went_missing() -> None:
    ledger = Ledger()
    account = ledger.account("s", 1)
    account.taken = 2
    account.add(Outcome.WRITTEN, "", 0)
    with pytest.raises(ExportError, match="2 masks went in but 1 are accounted for"):
        ledger.check("s", 2)
    account.add(Outcome.REFUSED, "too round", 1)
    ledger.check("s", 2)
    with pytest.raises(ExportError, match="held 3 masks when the export began and 2 were read"):
        ledger.check("s", 3)


def test_removed_objects_are_not_exported_and_nothing_is_missed(hard: Hard, tmp_path) -> None:
    store, videos, _ = hard
    session_id = store_video(store, videos[0])
    store.remove_object(session_id, 4)
    request = ExportRequest("coco", tmp_path / "out", (session_id,))
    manifest = export_sessions(store, request).manifest
    assert [o["obj_id"] for o in manifest["sessions"][0]["objects"]] == [1, 2, 7]
    assert manifest["totals"]["masks"]["written"] == 31
    store.delete(session_id)


# -- frames -----------------------------------------------------------------------------------


def test_png_images_are_the_very_frames(hard: Hard, tmp_path: Path) -> None:
    selection = FrameSelection(start=1, stop=11, stride=3)
    write(hard, "coco", tmp_path / "out", options=ExportOptions(images="png"), selection=selection)
    for video in hard[1]:
        folder = tmp_path / "out/images/train" / video.name
        wanted = [i for i in (1, 4, 7, 10) if i < len(video.images)]
        assert sorted(path.name for path in folder.iterdir()) == [f"{i:05d}.png" for i in wanted]
        for i in wanted:
            found = np.asarray(Image.open(folder / f"{i:05d}.png"))
            assert np.array_equal(found, video.images[i])


def test_jpeg_quality_is_kept(hard: Hard, tmp_path: Path) -> None:
    sizes = {}
    for quality in (30, 95):
        options = ExportOptions(images="jpeg", jpeg_quality=quality)
        out = tmp_path / str(quality)
        write(hard, "ytvos", out, options=options)
        path = out / "train/JPEGImages/Видео один/00003.jpg"
        sizes[quality] = path.stat().st_size
        error = np.asarray(Image.open(path)).astype(int) - hard[1][0].images[3]
        assert np.abs(error).mean() < 40
    assert sizes[30] < sizes[95]


def test_keyframes_are_the_touched_frames(hard: Hard, tmp_path: Path) -> None:
    report = write(hard, "coco", tmp_path / "out", selection=FrameSelection(keyframes=True))
    written = [s["frames"]["written"]["frames"] for s in report.manifest["sessions"]]
    assert written == ["0,3", "0"]  # where the fixture's prompts are


def test_another_video_under_the_same_name_is_refused(hard: Hard, tmp_path: Path) -> None:
    copy = make_videos(tmp_path / "copy")[0]
    with SessionStore(tmp_path / "s.db") as store:
        session_id = store_video(store, copy)
        copy.path.write_bytes(hard[1][1].path.read_bytes())
        request = ExportRequest(
            "coco", tmp_path / "out", (session_id,), options=ExportOptions(images="jpeg")
        )
        with pytest.raises(ExportError, match="without --images"):
            export_sessions(store, request)
    assert not (tmp_path / "out").exists()


# -- ids --------------------------------------------------------------------------------------


def test_ids_beyond_255_are_refused_with_the_way_out(hard: Hard, tmp_path: Path) -> None:
    store, videos, _ = hard
    session_id = store_video(store, videos[1])
    store.set_object(session_id, LabelObject(300, "far"))
    request = ExportRequest("ytvos", tmp_path / "out", (session_id,))
    with pytest.raises(UsageError, match=r"object id 300.*up to 255.*--renumber"):
        export_sessions(store, request)
    renumbered = ExportRequest(
        "ytvos", tmp_path / "out", (session_id,), options=ExportOptions(renumber=True)
    )
    entry = export_sessions(store, renumbered).manifest["sessions"][0]
    assert {o["obj_id"]: o["dataset_id"] for o in entry["objects"]} == {1: 1, 3: 2, 300: 3}
    for obj_id in range(4, 260):
        store.set_object(session_id, LabelObject(obj_id, "many"))
    with pytest.raises(UsageError, match="coco or ytvis"):
        export_sessions(store, ExportRequest("ytvos", tmp_path / "many", (session_id,)))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    store.delete(session_id)


def test_davis_numbers_the_objects_of_the_first_frame_and_refuses_late_ones(hard, tmp_path) -> None:
    report = write(hard, "davis", tmp_path / "out")
    objects = {o["obj_id"]: o for o in report.manifest["sessions"][0]["objects"]}
    assert {i: o["dataset_id"] for i, o in objects.items()} == {1: 1, 2: 2, 4: None, 7: 3}
    (reason,) = objects[4]["masks"]["refused"]
    assert "first frame" in reason
    assert objects[4]["masks"]["refused"][reason]["frames"] == "3-11"
    first = np.asarray(Image.open(tmp_path / "out/Annotations/480p/Видео один/00000.png"))
    assert set(np.unique(first)) == {0, 1, 2, 3}  # no gap, highest = number of objects
    assert (tmp_path / "out/ImageSets/2017/val.txt").read_text("utf-8").split("\n") == [
        "Видео один",
        "動画 二",
        "",
    ]


# -- categories and splits --------------------------------------------------------------------


def test_category_map_renames_merges_and_leaves_out(hard: Hard, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    person = {"id": 5, "name": "person"}
    labels = {"человек": person, "人": person, "кошка": 9, "猫": None}
    path.write_text(json.dumps(labels), encoding="utf-8")
    report = write(hard, "coco", tmp_path / "out", category_map=path)
    assert report.manifest["categories"] == [person, {"id": 9, "name": "кошка"}]
    left_out = report.manifest["sessions"][0]["objects"][3]["masks"]["left_out"]
    assert left_out["label left out by the category map"]["count"] == 12
    data = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert {a["category_id"] for a in data["annotations"]} == {5, 9}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"человек": 1}', "does not mention 'кошка', '人', '猫'"),
        ('{"человек": 0}', "ids are whole numbers from 1"),
        ('{"a": 1, "b": 1}', "gives id 1 to both 'a' and 'b'"),
        ('{"a": 1,\n oops}', "line 2"),
        ("[1]", "must be an object"),
        ("a\na\n", "names a label twice"),
    ],
)
def test_bad_category_maps_are_one_sentence(hard: Hard, tmp_path, text, message) -> None:
    path = tmp_path / "map.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        write(hard, "coco", tmp_path / "out", category_map=path)
    assert not (tmp_path / "out").exists()


def test_splits_are_whole_videos_stratified_and_repeatable() -> None:
    videos = {f"v{i:02d}": ["dog"] if i < 10 else ["cat"] for i in range(20)}
    videos |= {f"w{i}": ["fox"] for i in range(5)}
    fractions = parse_split("train=0.6,val=0.2,test=0.2")
    chosen = assign_splits(videos, fractions, seed=3)
    assert chosen == assign_splits(dict(reversed(videos.items())), fractions, seed=3)
    assert chosen != assign_splits(videos, fractions, seed=4)
    for label, total in (("dog", 10), ("cat", 10), ("fox", 5)):
        counts = [
            sum(chosen[v] == split for v, labels in videos.items() if label in labels)
            for split in ("train", "val", "test")
        ]
        assert counts == [total * 0.6, total * 0.2, total * 0.2]


@pytest.mark.parametrize("text", ["train=0.5", "train=a", "train", "a=0.5,a=0.5", "a=2,b=-1", ""])
def test_bad_splits_are_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="--split"):
        parse_split(text)


def test_split_exports_both_sides(hard: Hard, tmp_path: Path) -> None:
    report = write(hard, "yoloseg", tmp_path / "out", split=parse_split("train=0.5,val=0.5"))
    assert sorted(s["split"] for s in report.manifest["sessions"]) == ["train", "val"]
    assert {p.name for p in (tmp_path / "out/labels").iterdir()} == {"train", "val"}


# -- the folder -------------------------------------------------------------------------------


def test_existing_folder_is_refused_and_overwritten_on_request(hard: Hard, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(hard, "coco", out)
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(UsageError, match="--overwrite"):
        write(hard, "ytvos", out)
    assert (out / "mine.txt").read_text() == "keep me"
    write(hard, "ytvos", out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "train"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failing_export_leaves_nothing(hard: Hard, tmp_path: Path) -> None:
    def full_disk(done: int, total: int) -> None:
        if done > 20:
            raise OSError(28, "No space left on device")

    for overwrite in (False, True):
        request = ExportRequest("ytvos", tmp_path / "out", hard[2], overwrite=overwrite)
        with pytest.raises(OSError, match="No space"):
            export_sessions(hard[0], request, full_disk)
        assert not list(tmp_path.iterdir())


KILLED = """
import sys, time
from pathlib import Path
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.sessions import SessionStore

def slow(done, total):
    if done == 30:
        print("half", flush=True)
        time.sleep(60)

with SessionStore(sys.argv[1]) as store:
    ids = tuple(s.id for s in store.summaries())
    export_sessions(store, ExportRequest("ytvos", Path(sys.argv[2]), ids), slow)
"""


def test_killed_export_leaves_no_dataset_and_the_next_one_cleans_up(hard: Hard, tmp_path) -> None:
    out = tmp_path / "out"
    database = hard[0].url.removeprefix("sqlite:///")
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, database, str(out)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == [f".out.partial-{child.pid}"]
    (tmp_path / ".out.mine-1").mkdir()
    write(hard, "ytvos", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.mine-1", "out"]


def test_progress_reaches_the_end(hard: Hard, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    export_sessions(
        hard[0],
        ExportRequest("coco", tmp_path / "out", hard[2]),
        lambda done, total: steps.append((done, total)),
    )
    assert steps[-1] == (59, 59)
    assert [done for done, _ in steps] == list(range(1, 60))


def test_names_that_collide_or_escape_are_made_safe(hard: Hard, tmp_path: Path) -> None:
    store, videos, _ = hard
    made = []
    for name in ("../../etc", "A", "a", "a", "con:1"):
        session_id = store_video(store, videos[1])
        session = store.get(session_id)
        made.append(store.create(session.media, name=name).id)
        store.set_object(made[-1], LabelObject(1, "x"))
        store.delete(session_id)
    report = export_sessions(store, ExportRequest("ytvos", tmp_path / "out", tuple(made)))
    names = sorted(entry["dataset_name"] for entry in report.manifest["sessions"])
    assert names == ["A", "_.._etc", "a-2", "a-3", "con_1"]
    assert sorted(p.name for p in (tmp_path / "out/train/Annotations").iterdir()) == names
    for session_id in made:
        store.delete(session_id)
