"""Label Studio tasks as sessions: regions with masks are approved, boxes become prompts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from edgetam_label.errors import ExportError, MediaError, UsageError
from edgetam_label.frames import Frames, MediaIdentity
from edgetam_label.masks import RLE
from edgetam_label.prompts import Prompt
from edgetam_label.session_types import FrameMask, LabelObject

from .coco_reading import load_json
from .importing import FrameFiles, ImportedVideo, ImportOptions
from .labelstudio_regions import Track, mask_of, prompt_of, track_of
from .labelstudio_sequence import from_ls_frame

Task = dict[str, Any]
Region = dict[str, Any]


def read_tasks(folder: Path, options: ImportOptions) -> Iterator[ImportedVideo]:
    """Sessions of the tasks in a JSON file, or in a folder that `export` wrote.

    Of each task the latest annotation that was not cancelled counts; without one, the first
    prediction. Raises ExportError naming the file and the task of what cannot be read.
    """
    for path in _files(folder):
        tasks = load_json(path)
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise ExportError(f"{path} is not a Label Studio JSON export: it must be a list.")
        for group in _grouped(tasks, options.split):
            yield TaskReader(path, options).read(group)


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    named = [folder / kind / "tasks.json" for kind in ("video", "image")]
    paths = [path for path in named if path.is_file()] or [
        path for path in sorted(folder.glob("*.json")) if path.name != "manifest.json"
    ]
    if not paths:
        raise UsageError(f"{folder} holds no tasks.json and no JSON export of a project.")
    return paths


def _grouped(tasks: Sequence[Task], split: str | None) -> Iterator[list[Task]]:
    """Frames of one image folder together, every other task alone, in the order of the file."""
    groups: dict[Any, list[Task]] = defaultdict(list)
    for number, task in enumerate(tasks):
        data = task.get("data") or {}
        if split is None or data.get("split") == split:
            is_frame = "session" in data and "frame" in data
            groups[data["session"] if is_frame else number].append(task)
    yield from groups.values()


def results_of(task: Task) -> list[Region]:
    """The regions that count: of the latest annotation, else of the first prediction."""
    annotations = [a for a in task.get("annotations") or () if not a.get("was_cancelled")]
    chosen = annotations[-1:] or (task.get("predictions") or [])[:1]
    return list(chosen[0].get("result") or ()) if chosen else []


@dataclass(frozen=True)
class TaskReader:
    """path: named in messages; media is looked for beside it."""

    path: Path
    options: ImportOptions

    def read(self, tasks: list[Task]) -> ImportedVideo:
        data = tasks[0].get("data") or {}
        regions = [merged_regions(results_of(task)) for task in tasks]
        is_video = any(r["type"] == "videorectangle" for rs in regions for r in rs.values())
        url = media_url(data, "video" if is_video or "video" in data else "image")
        if url is None:
            raise ExportError(f"{self.path}: task {tasks[0].get('id')} has no media in its data.")
        if is_video or "video" in data:
            return self._video(data, url, regions[0])
        return self._images(tasks, regions)

    def _video(self, data: Task, url: str, regions: Mapping[str, Region]) -> ImportedVideo:
        tracks = {key: track_of(r) for key, r in regions.items() if r["type"] == "videorectangle"}
        warnings = [
            f"{url_name(url)}: region {key} of type {r['type']} is not for video; skipped"
            for key, r in regions.items()
            if key not in tracks
        ]
        fps = float(data.get("fps") or next((t.fps for t in tracks.values()), 25.0))
        media = self._video_media(url, tracks, fps, warnings)
        objects = _objects({key: regions[key] for key in tracks})
        prompts, masks = [], []
        for key, track in tracks.items():
            warnings += [f"{url_name(url)}: region {key}: {text}" for text in track.warnings]
            obj_id = objects[key].obj_id
            for number, box, enabled in track.keyframes(media.width, media.height):
                frame_idx = from_ls_frame(media, number, fps)
                prompts.append(Prompt(obj_id, frame_idx, box=box))
                if not enabled and frame_idx + 1 < media.num_frames:
                    empty = RLE.empty(media.height, media.width)
                    masks.append(FrameMask(obj_id, frame_idx + 1, empty, status="approved"))
        return ImportedVideo(
            name=str(data.get("session") or PurePosixPath(url_name(url)).stem),
            objects=tuple(sorted(objects.values(), key=lambda item: item.obj_id)),
            masks=lambda: masks,
            prompts=tuple(prompts),
            media=media,
            warnings=tuple(warnings),
        )

    def _video_media(
        self, url: str, tracks: Mapping[str, Track], fps: float, warnings: list[str]
    ) -> MediaIdentity:
        path = self._local(url)
        if path is not None:
            try:
                with Frames.open(path) as frames:
                    return frames.identity
            except MediaError as error:
                raise ExportError(str(error)) from error
        first = next(iter(tracks.values()), None)
        if first is None or not first.width or not first.height or not first.frames_count:
            raise ExportError(
                f"{self.path}: {url} is not on this machine and its task has no region that tells "
                "its size; pass --images with the folder of the videos."
            )
        warnings.append(
            f"{url_name(url)} was not found, so its boxes can be exported but not tracked; pass "
            "--images with the folder of the videos."
        )
        step = 1 / Fraction(fps).limit_denominator(10**6)
        return MediaIdentity(
            source=url,
            kind="video",
            size_bytes=0,
            sha256="",
            width=first.width,
            height=first.height,
            num_frames=first.frames_count,
            pts=tuple(range(first.frames_count)),
            time_base=(step.numerator, step.denominator),
        )

    def _images(self, tasks: list[Task], regions: list[dict[str, Region]]) -> ImportedVideo:
        order = sorted(
            range(len(tasks)), key=lambda i: int((tasks[i].get("data") or {}).get("frame", 0))
        )
        data = [tasks[i].get("data") or {} for i in order]
        urls = [str(media_url(entry, "image")) for entry in data]
        all_regions = {key: r for i in order for key, r in regions[i].items()}
        objects = _objects(all_regions)
        size = self._size(urls[0], data[0], all_regions)
        is_still = "frame" not in data[0]
        prompts: list[Prompt] = []
        masks: list[FrameMask] = []
        warnings: list[str] = []
        for frame_idx, i in enumerate(order):
            for key, region in regions[i].items():
                obj_id = objects[key].obj_id
                mask = mask_of(region, size, f"{self.path}: region {key}")
                prompt = prompt_of(region, obj_id, frame_idx, size) if mask is None else None
                if mask is not None:
                    rle = RLE.encode(mask)
                    masks.append(FrameMask(obj_id, frame_idx, rle, status="approved"))
                elif prompt is not None:
                    prompts.append(prompt)
                else:
                    warnings.append(f"{url_name(urls[0])}: {region['type']} region {key} skipped")
        folder, names = self._files(urls, is_still)
        title = str(data[0].get("session") or PurePosixPath(names[0]).stem)
        return ImportedVideo(
            name=title,
            objects=tuple(sorted(objects.values(), key=lambda item: item.obj_id)),
            masks=lambda: masks,
            prompts=tuple(prompts),
            files=FrameFiles(
                folder=folder,
                names=names,
                width=size[1],
                height=size[0],
                fps=float(data[0].get("fps", 1.0)),
                numbers=tuple(int(entry.get("frame", i)) for i, entry in enumerate(data)),
                is_still=is_still,
            ),
            warnings=tuple(warnings),
        )

    def _files(self, urls: list[str], is_still: bool) -> tuple[Path, tuple[str, ...]]:
        local = [self._local(url) for url in urls]
        if all(path is not None for path in local):
            folders = {path.parent for path in local if path is not None}
            if len(folders) == 1:
                return folders.pop(), tuple(path.name for path in local if path is not None)
        names = tuple(url_name(url) for url in urls)
        return self.options.images or self.path.parent, names

    def _size(self, url: str, data: Task, regions: Mapping[str, Region]) -> tuple[int, int]:
        for region in regions.values():
            if region.get("original_width") and region.get("original_height"):
                return int(region["original_height"]), int(region["original_width"])
        if data.get("width") and data.get("height"):  # written by our own export
            return int(data["height"]), int(data["width"])
        path = self._local(url)
        if path is None:
            raise ExportError(
                f"{self.path}: {url} is not on this machine and its task has no region that tells "
                "its size; pass --images with the folder of the images."
            )
        with Frames.open(path) as frames:
            return frames.height, frames.width

    def _local(self, url: str) -> Path | None:
        """The media as a file here: below --images, beside the tasks, or as the path says."""
        folder = self.options.images
        candidates = [folder / url_name(url)] if folder else []
        if "://" not in url:
            candidates += [self.path.parent / url, Path(url)]
        return next((path for path in candidates if path.is_file()), None)


def merged_regions(results: Sequence[Region]) -> dict[str, Region]:
    """Regions by id; a shape and its label may come as two results with one id."""
    merged: dict[str, Region] = {}
    for number, result in enumerate(results):
        if "value" not in result:
            continue  # relations join regions and hold nothing of their own
        key = str(result.get("id") or f"region-{number}")
        value = result["value"]
        if key not in merged:
            merged[key] = {"type": "", **result, "value": dict(value)}
            continue
        known = merged[key]
        merged[key] = {
            **known,
            "type": known["type"] if known["type"] not in ("", "labels") else result["type"],
            "value": {**value, **known["value"]},
        }
    return merged


def _objects(regions: Mapping[str, Region]) -> dict[str, LabelObject]:
    """An object per region id; ids of our own export are taken back from the region id."""
    objects: dict[str, LabelObject] = {}
    taken: set[int] = set()
    for key, region in regions.items():
        own = re.fullmatch(r"object-([1-9]\d{0,8})", key)
        if own:
            objects[key] = LabelObject(int(own[1]), label_of(region), external_id=key)
            taken.add(int(own[1]))
    free = (number for number in range(1, 10**9) if number not in taken)
    for key, region in regions.items():
        if key not in objects:
            objects[key] = LabelObject(next(free), label_of(region), external_id=key)
    return objects


def label_of(region: Region) -> str:
    """The first label of a region, whatever kind of labels it carries; "object" without one."""
    value = region["value"]
    for key in sorted(value):
        if key.endswith("labels") and isinstance(value[key], list) and value[key]:
            return str(value[key][0]).strip() or "object"
    return "object"


def media_url(data: Task, preferred: str) -> str | None:
    """The media of a task: under `preferred`, else the first text that looks like a file."""
    values = [data.get(preferred), *(data[key] for key in sorted(data) if key != "session")]
    return next((v for v in values if isinstance(v, str) and PurePosixPath(v).suffix), None)


def url_name(url: str) -> str:
    """File name of a URL or path; local-storage URLs carry it in `?d=`."""
    parts = urlsplit(url)
    query = re.search(r"(?:^|&)d=([^&]+)", parts.query)
    path = query[1] if query else (parts.path if parts.scheme else url)
    return PurePosixPath(unquote(path)).name
