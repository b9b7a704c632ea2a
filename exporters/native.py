"""Our own format: one JSON-lines file per session, without loss.

    sessions/<video>.jsonl   images/<video>/<stem>.jpg with --images

The first line is the session (media with its pts table, model), then one line per object, per
prompt in force and per mask, absent ones with their scores too. Not in it: the session's id and
times (they are in the manifest) and events that were undone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetam_label.errors import EdgeTAMLabelError, ExportError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.session_types import FrameMask, LabelObject, ModelIdentity

from .dataset import Dataset, Video, is_absent
from .dataset_writer import DatasetWriter
from .importing import ImportedVideo, ImportOptions

VERSION = 1


def export(dataset: Dataset, writer: DatasetWriter) -> None:
    """Splits are told in the session line, not by folders."""
    for video in dataset.videos:
        with writer.open(f"sessions/{video.name}.jsonl") as file:
            for record in _records(video):
                file.write(json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n")


def image_path(video: Video, frame_idx: int) -> str:
    """Where `--images` puts a frame."""
    return f"images/{video.name}/{video.frame_file(frame_idx)}"


def _records(video: Video) -> Iterator[dict[str, Any]]:
    session = video.session
    yield {
        "type": "session",
        "version": VERSION,
        "name": session.name,
        "split": video.split,
        "media": asdict(session.media),
        "model": asdict(session.model) if session.model else None,
    }
    for entry in video.objects:
        yield {
            "type": "object",
            "obj_id": entry.dataset_id,
            "label": entry.category.name,
            "color": entry.color,
            "external_id": entry.external_id,
            "attributes": dict(entry.attributes),
        }
    for prompt in session.prompts:
        if prompt.obj_id in video.by_obj_id:
            yield _prompt(prompt, video.by_obj_id[prompt.obj_id].dataset_id)
    for frame in video.frames_of_masks(absent=True):
        for mask in frame.masks:
            if not is_absent(mask):
                video.written(mask)
            yield {
                "type": "mask",
                "obj_id": video.by_obj_id[mask.obj_id].dataset_id,
                "frame_idx": mask.frame_idx,
                "status": mask.status,
                "score": None if math.isnan(mask.score) else mask.score,
                "rle": mask.rle.to_coco(),
            }


def _prompt(prompt: Prompt, obj_id: int) -> dict[str, Any]:
    box = prompt.box
    return {
        "type": "prompt",
        "obj_id": obj_id,
        "frame_idx": prompt.frame_idx,
        "clicks": [[click.x, click.y, click.positive] for click in prompt.clicks],
        "box": [box.x0, box.y0, box.x1, box.y1] if box else None,
        "mask": prompt.mask.to_coco() if prompt.mask else None,
    }


def read(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """The sessions of `sessions/*.jsonl`, or of one such file."""
    paths = [folder] if folder.is_file() else sorted((folder / "sessions").glob("*.jsonl"))
    if not paths:
        raise UsageError(f"{folder} holds no sessions/*.jsonl.")
    for path in paths:
        video = _read_file(path, options)
        if video is not None:
            yield video


def _read_file(path: Path, options: ImportOptions) -> ImportedVideo | None:
    objects: list[LabelObject] = []
    prompts: list[Prompt] = []
    head: dict[str, Any] | None = None
    for number, record in _lines(path):
        try:
            kind = record["type"]
            if kind == "session":
                head = record
                _check_version(path, record)
            elif kind == "object":
                objects.append(LabelObject(**{k: v for k, v in record.items() if k != "type"}))
            elif kind == "prompt":
                prompts.append(_read_prompt(record))
            elif kind == "mask":
                break
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ExportError(f"{path}, line {number}: {error}") from error
    if head is None:
        raise ExportError(f"{path} does not begin with a session; it was cut off or edited.")
    if options.split not in (None, head.get("split")):
        return None
    model = head["model"]
    return ImportedVideo(
        name=head["name"],
        objects=tuple(objects),
        masks=lambda: _read_masks(path),
        media=_read_media(path, head["media"]),
        model=ModelIdentity(**model) if model else None,
        prompts=tuple(prompts),
    )


def _check_version(path: Path, record: dict[str, Any]) -> None:
    if record.get("version") != VERSION:
        raise ExportError(
            f"{path} has version {record.get('version')!r}; this program reads {VERSION}, "
            "so it was written by another release: install that one."
        )


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ExportError(f"{path}, line {number}: not JSON ({error.msg}).") from error
                if not isinstance(record, dict):
                    raise ExportError(f"{path}, line {number}: not an object.")
                yield number, record
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}.") from error


def _read_media(path: Path, raw: dict[str, Any]) -> MediaIdentity:
    lists = {key: tuple(raw.get(key) or ()) for key in ("pts", "time_base", "names")}
    try:
        return MediaIdentity(**{**raw, **lists})
    except TypeError as error:
        raise ExportError(f"{path}: the media of the session is damaged ({error}).") from error


def _read_prompt(record: dict[str, Any]) -> Prompt:
    return Prompt(
        obj_id=record["obj_id"],
        frame_idx=record["frame_idx"],
        clicks=tuple(Click(x, y, positive) for x, y, positive in record["clicks"]),
        box=Box(*record["box"]) if record["box"] else None,
        mask=RLE.from_coco(record["mask"]) if record["mask"] else None,
    )


def _read_masks(path: Path) -> Iterator[FrameMask]:
    for number, record in _lines(path):
        if record.get("type") != "mask":
            continue
        try:
            score = record["score"]
            yield FrameMask(
                record["obj_id"],
                record["frame_idx"],
                RLE.from_coco(record["rle"]),
                float("nan") if score is None else float(score),
                record["status"],
            )
        except (KeyError, TypeError, ValueError, EdgeTAMLabelError) as error:
            raise ExportError(f"{path}, line {number}: {error}") from error
