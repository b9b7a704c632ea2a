"""Random sessions through every format and back: equal wherever the format can hold them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetam_label.exporters import IMPORTERS
from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.exporters.importing import ImportOptions, import_dataset
from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.session_types import FrameMask, LabelObject
from edgetam_label.sessions import SessionStore

Scene = dict[tuple[int, int], np.ndarray]  # (obj_id, frame_idx) -> (H, W) bool
NAMES = st.text(
    st.characters(whitelist_categories=["L", "N", "Zs", "Po"], blacklist_characters="\x00"),
    min_size=1,
    max_size=12,
).filter(lambda text: text.strip())


@st.composite
def scenes(draw: st.DrawFn) -> tuple[str, dict[int, str], int, tuple[int, int], Scene]:
    """(name, labels, number of frames, (height, width), masks, some of them empty)."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 11))
    length = draw(st.integers(1, 4))
    ids = draw(st.lists(st.integers(1, 255), min_size=1, max_size=3, unique=True))
    labels = {obj_id: draw(NAMES).strip() for obj_id in ids}
    masks = {}
    for obj_id in ids:
        for frame_idx in range(length):
            if draw(st.booleans()):
                masks[obj_id, frame_idx] = draw(arrays(bool, (height, width)))
    return draw(NAMES), labels, length, (height, width), masks


def fill(store: SessionStore, scene) -> str:
    name, labels, length, (height, width), masks = scene
    media = MediaIdentity(
        source="/nowhere/frames",
        kind="folder",
        size_bytes=0,
        sha256="",
        width=width,
        height=height,
        num_frames=length,
        pts=tuple(range(length)),
        time_base=(1, 25),
        names=tuple(f"{i:05d}.jpg" for i in range(length)),
    )
    session = store.create(media, name=name)
    for obj_id, label in labels.items():
        store.set_object(session.id, LabelObject(obj_id, label))
    batch = [FrameMask(o, t, RLE.encode(m), 1.5) for (o, t), m in masks.items()]
    store.save_masks(session.id, batch)
    return session.id


def seen(store: SessionStore, session_id: str) -> Scene:
    """The non-empty masks of a session."""
    return {
        (mask.obj_id, mask.frame_idx): mask.rle.decode()
        for mask in store.iter_masks(session_id)
        if mask.rle.area
    }


def flat(scene: Scene) -> Scene:
    """What is left of the masks where the highest id takes every shared pixel."""
    result = {}
    for (obj_id, frame_idx), mask in scene.items():
        above = [m for (o, t), m in scene.items() if t == frame_idx and o > obj_id]
        kept = mask & ~np.logical_or.reduce(above) if above else mask
        if kept.any():
            result[obj_id, frame_idx] = kept
    return result


def same(first: Scene, second: Scene) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionStore]:
    """One for all examples: making one takes longer than a round trip."""
    with SessionStore(tmp_path_factory.mktemp("store") / "sessions.db") as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("coco", ExportOptions()),
        ("coco", ExportOptions(polygons=True)),
        ("ytvis", ExportOptions()),
        ("native", ExportOptions()),
        ("labelstudio", ExportOptions()),
        ("ytvos", ExportOptions()),
        ("mots", ExportOptions()),
        ("davis", ExportOptions()),
    ],
    ids=lambda value: "polygons" if getattr(value, "polygons", False) else str(value)[:11],
)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(scene=scenes())
def test_masks_come_back(store: SessionStore, name: str, options: ExportOptions, scene) -> None:
    truth = {key: mask for key, mask in scene[4].items() if mask.any()}
    session_id = fill(store, scene)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        report = export_sessions(store, ExportRequest(name, out, (session_id,), options=options))
        totals = report.manifest["totals"]["masks"]
        assert totals["in"] == len(scene[4]) == sum(totals.values()) - totals["in"]
        assert totals["absent"] == len(scene[4]) - len(truth)
        assert report.manifest["files"].keys() | {"manifest.json"} == {
            path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
        }
        assert json.loads((out / "manifest.json").read_text("utf-8")) == report.manifest
        if name == "davis" and not any(frame == 0 for _, frame in flat(truth)):
            assert totals["refused"] == len(truth)
            return
        (again,) = import_dataset(store, IMPORTERS[name], out, ImportOptions()).sessions
        found = seen(store, again.session_id)
    if name == "davis":
        # Objects of the first frame only, numbered from 1 in the order of their ids.
        order = sorted(obj_id for obj_id, frame in flat(truth) if frame == 0)
        early = {key: mask for key, mask in truth.items() if key[0] in order}
        expected = {(order.index(o) + 1, t): m for (o, t), m in flat(early).items()}
    else:
        expected = flat(truth) if IMPORTERS[name].id_map else truth
    assert same(found, expected)
