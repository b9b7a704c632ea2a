"""The hard fixture through every format: files, exact masks, account, and back again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hard_fixture import FixtureVideo, make_videos, store_video

from edgetam_label.exporters import EXPORTERS, IMPORTERS
from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportReport, ExportRequest, export_sessions
from edgetam_label.exporters.importing import ImportOptions, import_dataset
from edgetam_label.sessions import SessionStore


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[FixtureVideo, FixtureVideo]:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, videos):
    with SessionStore(tmp_path_factory.mktemp("store") / "sessions.db") as opened:
        for video in videos:
            store_video(opened, video)
        yield opened


def everything(store: SessionStore) -> tuple[str, ...]:
    return tuple(session.id for session in store.list())


def write(store: SessionStore, name: str, out: Path, **choices) -> ExportReport:
    return export_sessions(store, ExportRequest(name, out, everything(store), **choices))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.mark.parametrize("name", EXPORTERS)
def test_same_store_gives_the_same_bytes(store, tmp_path, name) -> None:
    write(store, name, tmp_path / "a")
    write(store, name, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first, second = ((tmp_path / x / "manifest.json").read_bytes() for x in "ab")
    assert first == second


@pytest.mark.parametrize("images", [None, "png"])
@pytest.mark.parametrize("name", IMPORTERS)
def test_export_import_export_is_identical(store, tmp_path, name, images) -> None:
    options = ExportOptions(images=images, annotations=name == "labelstudio")
    write(store, name, tmp_path / "a", options=options)
    with SessionStore(tmp_path / "again.db") as again:
        report = import_dataset(again, IMPORTERS[name], tmp_path / "a", ImportOptions())
        assert len(report.sessions) == 2
        write(again, name, tmp_path / "b", options=options)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []
