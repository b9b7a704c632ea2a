"""manifest.json of an export, put together from the ledger and the videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .dataset import Dataset, Video
from .dataset_writer import DatasetWriter
from .manifest import FrameRanges, Ledger

if TYPE_CHECKING:
    from .exporting import ExportRequest

MANIFEST_VERSION = 1


def build_manifest(
    request: ExportRequest,
    dataset: Dataset,
    videos: Sequence[Video],
    ledger: Ledger,
    writer: DatasetWriter,
) -> dict[str, Any]:
    """Everything that went in and what became of it, ready for JSON."""
    sessions = [_session_entry(video, ledger, request.names) for video in videos]
    frames_in = sum(entry["frames"]["in"] for entry in sessions)
    frames_out = sum(entry["frames"]["written"]["count"] for entry in sessions)
    return {
        "manifest_version": MANIFEST_VERSION,
        "tool": {"name": "edgetam-label", "version": _version()},
        "format": request.format,
        "options": {
            **asdict(request.options),
            "z_order": list(request.options.z_order),
            **asdict(request.selection),
            "split": {name: fraction for name, fraction in request.split},
            "seed": request.seed,
        },
        "categories": [{"id": c.id, "name": c.name} for c in dataset.categories],
        "totals": {
            "sessions": len(sessions),
            "objects": sum(len(entry["objects"]) for entry in sessions),
            "frames": {"in": frames_in, "written": frames_out, "left_out": frames_in - frames_out},
            "masks": ledger.totals(),
        },
        "sessions": sessions,
        **request.extra,
        "files": writer.files(),
    }


def _session_entry(video: Video, ledger: Ledger, names: Mapping[str, str]) -> dict[str, Any]:
    session, media = video.session, video.session.media
    left_out: dict[str, FrameRanges] = {}
    for frame_idx, reason in video.left_out.items():
        left_out.setdefault(reason, FrameRanges()).add(frame_idx)
    written = FrameRanges()
    for frame_idx in video.frames:
        written.add(frame_idx)
    labels = {entry.obj_id: entry.label for entry in session.objects}
    categories = {entry.obj_id: entry.category.id for entry in video.objects}
    return {
        "id": names.get(session.id, session.id),
        "name": session.name,
        "dataset_name": video.name,
        "split": video.split if video.frames else None,
        "media": {
            "source": media.source,
            "kind": media.kind,
            "size_bytes": media.size_bytes,
            "sha256": media.sha256,
            "width": media.width,
            "height": media.height,
            "num_frames": media.num_frames,
        },
        "model": asdict(session.model) if session.model else None,
        "prompts": len(session.prompts),
        "frames": {
            "in": media.num_frames,
            "written": written.to_json(),
            "left_out": {reason: ranges.to_json() for reason, ranges in sorted(left_out.items())},
        },
        "objects": [
            {
                "obj_id": obj_id,
                "dataset_id": ledger.account(session.id, obj_id).dataset_id,
                "label": labels.get(obj_id),
                "category_id": categories.get(obj_id),
                "masks": ledger.account(session.id, obj_id).to_json(),
            }
            for obj_id in sorted({*labels, *ledger.obj_ids(session.id)})
        ],
        "notes": ledger.notes(session.id),
    }


def _version() -> str:
    try:
        return metadata.version("edgetam-label")
    except metadata.PackageNotFoundError:
        return "unknown"
