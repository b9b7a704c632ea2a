"""segment, track, render and export as a person runs them, on a rendered clip."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from edgetam_label.cli import cli
from edgetam_label.demo_clip import DemoClip, render_demo_clip
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.sessions import SessionStore

FRAMES = 10
LONG = 200  # enough that a signal arrives in the middle, on a fast machine too
TINY = ["--model", "tiny", "--device", "cpu"]
DOG = ["--object", "1:dog", "--click", "1,0,34,40"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> DemoClip:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return render_demo_clip(path, width=128, height=72, num_frames=FRAMES)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sessions.db"
    monkeypatch.setenv("EDGETAM_LABEL_DB", str(path))
    monkeypatch.setenv("EDGETAM_LABEL_CACHE_DIR", str(tmp_path / "cache"))
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def good(*args: object) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def one_sentence(result: Result, code: int) -> str:
    """The error as a person sees it; notices of the model may stand above it."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: "), result.stderr
    assert result.stdout == ""
    return last


def masks(db: Path, session_id: str) -> dict[tuple[int, int], tuple[RLE, float, str]]:
    with SessionStore(db) as store:
        return {
            (mask.obj_id, mask.frame_idx): (mask.rle, mask.score, mask.status)
            for mask in store.iter_masks(session_id)
        }


def test_track_stores_a_mask_for_every_frame_and_prints_the_id(clip: DemoClip, db: Path) -> None:
    result = good(
        "track", clip.path, *DOG, "--object", "2:ball", "--box", "2,3,90,40,120,70", *TINY
    )
    session_id = result.stdout.strip()
    assert "\n" not in session_id and session_id.startswith("clip-")
    stored = masks(db, session_id)
    assert {frame for obj, frame in stored if obj == 1} == set(range(FRAMES))
    assert {frame for obj, frame in stored if obj == 2} == set(range(3, FRAMES))
    assert stored[1, 0][2] == "prompted" and stored[2, 3][2] == "prompted"
    listed = json.loads(good("sessions", "list", "--json").stdout)
    assert [entry["id"] for entry in listed] == [session_id]
    assert listed[0]["source"] == str(clip.path) and listed[0]["frames"] == FRAMES
    assert [(o["id"], o["label"]) for o in listed[0]["objects"]] == [(1, "dog"), (2, "ball")]


def test_track_json(clip: DemoClip, db: Path) -> None:
    result = good("track", clip.path, *DOG, *TINY, "--json", "--direction", "both")
    report = json.loads(result.stdout)
    assert report["finished"] and report["resume"] is None
    assert report["frames"] == FRAMES
    assert report["objects"][0]["frames"] == FRAMES
    seen = report["objects"][0]["visible"] + report["objects"][0]["absent"]
    assert seen == FRAMES


def test_max_frames_then_resume_equals_one_go(clip: DemoClip, db: Path) -> None:
    whole = good("track", clip.path, *DOG, *TINY).stdout.strip()
    part = good("track", clip.path, *DOG, *TINY, "--max-frames", 4)
    session_id = part.stdout.strip()
    assert f"edgetam-label track --resume {session_id} --model tiny" in part.stderr
    assert {frame for _, frame in masks(db, session_id)} == set(range(4))
    good("track", "--resume", session_id, "--device", "cpu")  # the session knows its model
    assert masks(db, session_id) == masks(db, whole)


def test_a_mode_is_kept_and_not_mixed(clip: DemoClip, db: Path) -> None:
    """The model's name says how it was tracked; going on needs no flag, and allows no other."""
    fast = ["--every", 3, "--image-size", 64, "--precision", "bfloat16"]
    part = good("track", clip.path, *DOG, *TINY, *fast, "--max-frames", 5).stdout.strip()
    shown = json.loads(good("sessions", "show", part, "--json").stdout)
    assert shown["model"]["name"] == "tiny+image-size=64+precision=bfloat16+every=3"
    good("track", "--resume", part, "--device", "cpu")
    whole = good("track", clip.path, *DOG, *TINY, *fast).stdout.strip()
    assert masks(db, part) == masks(db, whole)
    assert masks(db, whole) != masks(db, good("track", clip.path, *DOG, *TINY).stdout.strip())
    text = one_sentence(
        run("track", "--resume", part, "--every", 1, "--click", "1,4,9,9,-", *TINY), 2
    )
    assert "--every 3" in text and "start a new session" in text
    text = one_sentence(run("track", clip.path, *DOG, *TINY, "--image-size", 100), 2)
    assert "multiples of 64" in text
    text = one_sentence(run("track", clip.path, *DOG, *TINY, "--precision", "half"), 2)
    assert "--precision is 'half'; use one of 'float32' or 'bfloat16'" in text


def test_a_correction_changes_only_its_object(clip: DemoClip, db: Path) -> None:
    both = [*DOG, "--object", "2:ball", "--click", "2,0,119,58"]
    session_id = good("track", clip.path, *both, *TINY).stdout.strip()
    before = masks(db, session_id)
    good("track", "--resume", session_id, "--box", "1,5,30,20,90,70", "--device", "cpu")
    after = masks(db, session_id)
    assert after[1, 5] != before[1, 5] and after[1, 5][2] == "prompted"
    assert {k: v for k, v in after.items() if k[0] == 2} == {
        k: v for k, v in before.items() if k[0] == 2
    }
    shown = json.loads(good("sessions", "show", session_id, "--json").stdout)
    assert [(p["object"], p["frame"]) for p in shown["prompts"]] == [(1, 0), (2, 0), (1, 5)]
    assert shown["unfinished"] == []


def test_a_new_object_joins_on_resume(clip: DemoClip, db: Path) -> None:
    session_id = good("track", clip.path, *DOG, *TINY).stdout.strip()
    good("track", "--resume", session_id, "--object", "2:ball", "--click", "2,4,110,58")
    stored = masks(db, session_id)
    assert {frame for obj, frame in stored if obj == 2} == set(range(4, FRAMES))


def test_a_drawn_mask_is_the_mask(clip: DemoClip, db: Path, tmp_path: Path) -> None:
    drawn = clip.mask(2, 0)
    Image.fromarray(drawn.astype(np.uint8) * 255).save(tmp_path / "ball, drawn.png")
    flag = f"2,0,{tmp_path / 'ball, drawn.png'}"
    session_id = good(
        "track", clip.path, "--object", "2:ball", "--mask", flag, *TINY
    ).stdout.strip()
    stored = masks(db, session_id)[2, 0][0].decode()
    assert (stored & drawn).sum() / (stored | drawn).sum() > 0.5  # through logits at stride 4


BAD = {
    "no such file": (["no.mp4", *DOG], 2, "no.mp4 does not exist"),
    "a text file": (["text.mp4", *DOG], 1, "text.mp4"),
    "an empty file": (["empty.mp4", *DOG], 1, "empty.mp4"),
    "an empty folder": (["folder", *DOG], 1, "folder"),
    "no prompt": (["CLIP"], 2, "Nothing to track; point at an object"),
    "unknown object": (["CLIP", "--click", "3,0,5,5"], 2, "Object 3 is unknown; name it with"),
    "object without prompt": (["CLIP", *DOG, "--object", "2:x"], 2, "Object 2 (x) has no prompt"),
    "outside": (
        ["CLIP", "--object", "1:a", "--click", "1,0,500,5"],
        2,
        "outside the frame of 128x72",
    ),
    "no such frame": (
        ["CLIP", "--object", "1:a", "--click", "1,10,5,5"],
        2,
        "has 10 frames, 0 to 9",
    ),
    "half a click": (["CLIP", "--object", "1:a", "--click", "1,0,5"], 2, "cannot be read"),
    "no label": (["CLIP", "--object", "1", "--click", "1,0,5,5"], 2, "write --object ID:LABEL"),
    "no mask": (["CLIP", "--object", "1:a", "--mask", "1,0,no.png"], 2, "no.png does not exist"),
    "both": (["CLIP", "--resume", "x", *DOG], 2, "one of the two"),
    "neither": ([], 2, "one of the two"),
    "no session": (["--resume", "nope"], 2, "There is no session 'nope'"),
    "zero frames": (["CLIP", *DOG, "--max-frames", "0"], 2, "--max-frames"),
    "direction": (["CLIP", *DOG, "--direction", "up"], 2, "--direction"),
    "device": (["CLIP", *DOG, "--device", "gpu"], 2, "--device is 'gpu'"),
    "model": (["CLIP", *DOG, "--model", "nope", "--checkpoint", "random"], 2, "'nope'"),
    "checkpoint": (["CLIP", *DOG, "--checkpoint", "no.pt"], 1, "no.pt does not exist"),
    "not weights": (["CLIP", *DOG, "--checkpoint", "text.mp4"], 1, "is no PyTorch file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_stores_nothing(
    case: str, clip: DemoClip, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("this is a text file\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    args, code, text = BAD[case]
    filled = [str(clip.path) if arg == "CLIP" else arg for arg in args]
    model = [] if {"--model", "--checkpoint", "--device"} & set(args) else TINY
    assert text in one_sentence(run("track", *filled, *model), code)
    with SessionStore(db) as store:
        assert store.list() == []


def test_a_locked_database(clip: DemoClip, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good("sessions", "list")
    monkeypatch.setattr(SessionStore.__init__, "__kwdefaults__", {"busy_timeout": 0.2})
    with sqlite3.connect(db, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        text = one_sentence(run("track", clip.path, *DOG, *TINY), 1)
        assert "lock" in text.lower() or "busy" in text.lower()
        other.execute("ROLLBACK")
    other.close()


def test_another_model_may_not_go_on_silently(clip: DemoClip, db: Path, tmp_path: Path) -> None:
    from edgetam_label.checkpoints import load_model
    from edgetam_label.state_dicts import save_weights

    model = load_model("tiny", device="cpu")
    save_weights(tmp_path / "other.pt", model, model.config)
    session_id = good("track", clip.path, *DOG, *TINY, "--max-frames", 3).stdout.strip()
    result = run("track", "--resume", session_id, "--model", tmp_path / "other.pt")
    assert result.exit_code == 2
    assert f"Session {session_id} was tracked with tiny" in result.stderr


def program(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edgetam_label", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_masks(db: Path, count: int) -> str:
    """The id of the first session that has so many masks."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if db.exists():
            with SessionStore(db) as store:
                for item in store.summaries():
                    if item.num_masks >= count:
                        return item.id
        time.sleep(0.02)
    raise AssertionError("no masks were stored in time")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    render_demo_clip(path, width=128, height=72, num_frames=LONG)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_any_way_it_goes_on_to_the_same_masks(
    how: signal.Signals, long_clip: Path, db: Path
) -> None:
    tool = program("track", long_clip, *DOG, *TINY)
    session_id = wait_for_masks(db, 1)
    tool.send_signal(how)
    stdout, stderr = tool.communicate(timeout=60)
    kept = masks(db, session_id)
    assert 0 < len(kept) < LONG, "the signal came too late to test anything"
    if how is signal.SIGKILL:
        assert tool.returncode == -signal.SIGKILL
    else:
        assert tool.returncode == 130
        assert "Traceback" not in stderr and stdout.strip() == session_id
        assert f"track --resume {session_id}" in stderr
    assert sqlite3.connect(db).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    good("track", "--resume", session_id, "--device", "cpu")
    after = masks(db, session_id)
    assert len(after) == LONG
    assert {key: after[key] for key in kept} == kept


def test_segment_writes_mask_overlay_and_run_lengths(
    clip: DemoClip, db: Path, tmp_path: Path
) -> None:
    with Frames.open(clip.path) as frames:
        Image.fromarray(frames[0]).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    result = good(
        "segment", tmp_path / "photo.png", "--box", "20,20,60,60", "--click", "34,40",
        "--click", "5,5,-", "--out", out, "--json", *TINY,
    )  # fmt: skip
    document = json.loads(result.stdout)
    assert document == json.loads((out / "photo.json").read_text())
    assert sorted(p.name for p in out.iterdir()) == [
        "photo.json", "photo.mask.png", "photo.overlay.png",
    ]  # fmt: skip
    mask = np.asarray(Image.open(out / "photo.mask.png")) > 0
    assert np.array_equal(RLE.from_coco(document["segmentation"]).decode(), mask)
    assert document["area"] == mask.sum() and (document["height"], document["width"]) == (72, 128)
    assert 0 <= document["predicted_iou"] <= 1
    overlay = np.asarray(Image.open(out / "photo.overlay.png"))
    assert overlay.shape == (72, 128, 3)
    assert document["model"]["name"] == "tiny"


def test_segment_of_one_frame_of_a_video(clip: DemoClip, db: Path, tmp_path: Path) -> None:
    text = one_sentence(run("segment", clip.path, "--click", "5,5", "--out", tmp_path, *TINY), 2)
    assert "has 10 frames; choose one with --frame 0 to 9" in text
    good("segment", clip.path, "--frame", 7, "--click", "5,5", "--out", tmp_path / "o", *TINY)
    assert (tmp_path / "o" / "clip.00007.mask.png").is_file()


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["no.jpg", "--click", "1,1"], 2, "no.jpg does not exist"),
        (["text.jpg", "--click", "1,1"], 1, "text.jpg"),
        (["photo.png"], 2, "give at least one click"),
        (["photo.png", "--click", "500,1"], 2, "outside the frame of 40x30"),
        (["photo.png", "--click", "1;1"], 2, "write --click X,Y"),
        (["photo.png", "--box", "9,9,1,1"], 2, "Box 9,9,1,1 is empty"),
    ],
)
def test_segment_refuses_in_one_sentence(
    args: list[str], code: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.png")
    assert text in one_sentence(run("segment", *args, "--out", "out", *TINY), code)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a file size limit")
def test_a_database_that_cannot_grow(clip: DemoClip, db: Path) -> None:
    tool = ["-P", "-m", "edgetam_label", "track", str(clip.path), *DOG, *TINY]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", sys.executable, *tool],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert limited.returncode == 1 and "Traceback" not in limited.stderr
    last = limited.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and "full" in last and str(db) in last


def test_render_and_export_follow(clip: DemoClip, db: Path, tmp_path: Path) -> None:
    session_id = good("track", clip.path, *DOG, *TINY).stdout.strip()
    out = tmp_path / "overlay.mp4"
    good("render", session_id, out)
    with Frames.open(out) as drawn:
        assert (len(drawn), drawn.width, drawn.height) == (FRAMES, 128, 72)
    good("export", "--format", "coco", "--all", tmp_path / "coco")
    good("export", "--format", "ytvos", session_id, tmp_path / "ytvos")
    assert (tmp_path / "coco" / "manifest.json").is_file()
    assert "cannot be read" in one_sentence(run("render", session_id, out, "--range", "x"), 2)
    assert run("render", session_id, tmp_path / "o.txt").exit_code == 2


def test_render_of_media_that_is_gone(clip: DemoClip, db: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(clip.path.read_bytes())
    session_id = good("track", moved, *DOG, *TINY, "--max-frames", 2).stdout.strip()
    moved.unlink()
    text = one_sentence(run("render", session_id, tmp_path / "o.mp4"), 1)
    assert "moved.mp4 does not exist" in text
    assert "moved.mp4" in one_sentence(run("track", "--resume", session_id, *TINY), 1)


def test_delete(clip: DemoClip, db: Path) -> None:
    session_id = good("track", clip.path, *DOG, *TINY, "--max-frames", 2).stdout.strip()
    result = good("sessions", "delete", session_id, "--yes")
    assert result.stdout == f"Deleted {session_id} (2 masks).\n"
    assert json.loads(good("sessions", "list", "--json").stdout) == []
