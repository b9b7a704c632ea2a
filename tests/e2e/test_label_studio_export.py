"""Our tasks in a real Label Studio, and its project back in our formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hard_fixture import make_videos, store_video
from real_studio import LabelStudio

from edgetam_label.cli import cli
from edgetam_label.exporters import IMPORTERS
from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.exporters.importing import ImportOptions, import_dataset
from edgetam_label.sessions import SessionStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", ["video", "image"])
def test_label_studio_takes_our_tasks_and_gives_them_back(
    studio: LabelStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    video = make_videos(tmp_path)[0]
    database = tmp_path / "sessions.db"
    with SessionStore(database) as store:
        session_id = store_video(store, video)
        options = ExportOptions(
            annotations=True, images="png" if kind == "image" else None, media_url="/data/local"
        )
        request = ExportRequest("labelstudio", tmp_path / "ours", (session_id,), options=options)
        export_sessions(store, request)
    folder = tmp_path / "ours" / kind
    project = studio.project(f"ours {kind}", (folder / "label_config.xml").read_text("utf-8"))
    tasks = json.loads((folder / "tasks.json").read_text())
    answer = studio.api("POST", f"/api/projects/{project}/import", json=tasks).json()
    assert answer["annotation_count"] == len(tasks) == (1 if kind == "video" else 12)

    # Label Studio's own interpolation answers 500 where a keyframe lacks a field.
    query = "exportType=JSON&interpolate_key_frames=true"
    interpolated = studio.api("GET", f"/api/projects/{project}/export?{query}").json()
    exported = studio.api("GET", f"/api/projects/{project}/export?exportType=JSON").json()
    (tmp_path / "theirs.json").write_text(json.dumps(exported))

    truth = {(o, t): mask for o, frames in video.truth.items() for t, mask in frames.items()}
    if kind == "video":
        shown = {
            (int(region["id"].removeprefix("object-")), keyframe["frame"] - 1)
            for region in interpolated[0]["annotations"][0]["result"]
            for keyframe in region["value"]["sequence"]
        }
        assert truth.keys() <= shown
        return
    with SessionStore(tmp_path / "again.db") as again:
        options = ImportOptions(images=folder / "files" / video.name)
        report = import_dataset(again, IMPORTERS["labelstudio"], tmp_path / "theirs.json", options)
        (entry,) = report.sessions
        found = {
            (mask.obj_id, mask.frame_idx): mask.rle.decode()
            for mask in again.iter_masks(entry.session_id)
            if mask.rle.area
        }
    assert found.keys() == truth.keys()
    assert all(np.array_equal(found[key], truth[key]) for key in truth)

    monkeypatch.setenv("EDGETAM_LABEL_LABEL_STUDIO_API_KEY", studio.token)
    command = ["export", "--format", "coco", str(tmp_path / "coco"), "--db", str(database)]
    command += ["--label-studio", studio.url, "--project", str(project), "--no-redraw"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "coco/manifest.json").read_text())
    assert manifest["totals"]["masks"]["written"] == len(truth)
    assert manifest["label_studio"]["tasks"]["joined"] == 12
