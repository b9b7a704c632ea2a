"""The hard fixture in a store and exported in every format, once for all tests of dataset tools."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hard_fixture import make_videos, store_video

from edgetam_label.exporters import EXPORTERS
from edgetam_label.exporters.dataset import ExportOptions
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.sessions import SessionStore


@dataclass(frozen=True)
class Rig:
    """folders: the exported dataset by format, with images; never changed, copy them first."""

    db: Path
    store: SessionStore
    sessions: tuple[str, ...]
    folders: dict[str, Path]

    def copy(self, name: str, out: Path) -> Path:
        """A copy to damage, without the manifest that would report every change."""
        shutil.copytree(self.folders[name], out)
        (out / "manifest.json").unlink()
        return out


def make_rig(folder: Path) -> Rig:
    videos = make_videos(folder)
    db = folder / "sessions.db"
    store = SessionStore(db)
    sessions = tuple(store_video(store, video) for video in videos)
    folders = {}
    for name in EXPORTERS:
        folders[name] = folder / name
        options = ExportOptions(images="jpeg")
        export_sessions(store, ExportRequest(name, folders[name], sessions, options))
    return Rig(db, store, sessions, folders)


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Read, change in place (or take what `change` returns), write back ASCII."""
    content = json.loads(path.read_text(encoding="utf-8"))
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed), encoding="ascii")
