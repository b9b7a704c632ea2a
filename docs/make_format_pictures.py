"""Draw docs/images/format-*.png: what is in the store (left) and in the exported files (right).

    python docs/make_format_pictures.py

The scene is that of tests/hard_fixture.py; each format's files are written and then read as a
consumer reads them, so the pictures show what a format really keeps.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from hard_fixture import FixtureVideo, make_videos, store_video  # noqa: E402

from edgetam_label.exporters import EXPORTERS, IMPORTERS  # noqa: E402
from edgetam_label.exporters.dataset import ExportOptions  # noqa: E402
from edgetam_label.exporters.exporting import ExportRequest, export_sessions  # noqa: E402
from edgetam_label.exporters.importing import ImportOptions, import_dataset  # noqa: E402
from edgetam_label.palette import default_color, parse_color  # noqa: E402
from edgetam_label.sessions import SessionStore  # noqa: E402

FRAME, SCALE = 7, 2
Masks = dict[int, NDArray[np.bool_]]
Picture = NDArray[np.uint8]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        video = make_videos(Path(folder))[0]
        with SessionStore(Path(folder) / "sessions.db") as store:
            session_id = store_video(store, video)
            for name in EXPORTERS:
                out = Path(folder) / name
                options = ExportOptions(polygons=name == "coco")
                export_sessions(store, ExportRequest(name, out, (session_id,), options=options))
                right = DRAWERS.get(name, draw_masks)(name, out, video, store)
                truth = {o: m[FRAME] for o, m in video.truth.items() if FRAME in m}
                save(name, overlay(video, truth), right)


def overlay(video: FixtureVideo, masks: Masks) -> Picture:
    image = scaled(background(video))
    for obj_id, mask in sorted(masks.items()):
        color = np.array(parse_color(default_color(obj_id)))
        big = scaled(mask.astype(np.uint8)).astype(bool)
        image[big] = (0.35 * image[big] + 0.65 * color).astype(np.uint8)
        edges, _ = cv2.findContours(big.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, edges, -1, color.tolist(), 1)
    return image


def background(video: FixtureVideo) -> Picture:
    """The frame without its colours and dimmed, so that only the masks are coloured."""
    grey = video.images[FRAME].mean(axis=2, keepdims=True) * 0.5
    return np.repeat(grey.astype(np.uint8), 3, axis=2)


def scaled(image: NDArray) -> Picture:
    return image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def draw_masks(name: str, out: Path, video: FixtureVideo, store: SessionStore) -> Picture:
    """What an import finds."""
    report = import_dataset(store, IMPORTERS[name], out, ImportOptions())
    found = store.iter_masks(report.sessions[0].session_id, start=FRAME, stop=FRAME + 1)
    return overlay(video, {mask.obj_id: mask.rle.decode() for mask in found if mask.rle.area})


def draw_polygons(name: str, out: Path, video: FixtureVideo, store: SessionStore) -> Picture:
    data = json.loads((out / "annotations/instances_train.json").read_text())
    image = scaled(background(video))
    for annotation in data["annotations"]:
        if annotation["image_id"] == FRAME + 1:
            color = parse_color(default_color(annotation["track_id"]))
            for ring in annotation["segmentation"]:
                points = (np.array(ring).reshape(-1, 2) * SCALE).astype(np.int32)
                cv2.polylines(image, [points], True, color, 1)
    return image


def draw_rings(name: str, out: Path, video: FixtureVideo, store: SessionStore) -> Picture:
    (path,) = (out / "labels/train").glob(f"*/{FRAME:05d}.txt")
    image = scaled(background(video))
    height, width = video.size
    for row in path.read_text().splitlines():
        number, *points = row.split()
        ring = np.array(points, float).reshape(-1, 2) * (width * SCALE, height * SCALE)
        color = parse_color(default_color(int(number) + 1))
        cv2.polylines(image, [ring.astype(np.int32)], True, color, 1)
    return image


def draw_files(name: str, out: Path, video: FixtureVideo, store: SessionStore) -> Picture:
    """One black-and-white PNG per object, side by side, at half size."""
    tiles = [
        np.asarray(Image.open(path).convert("RGB"))
        for path in sorted((out / "train/masks").glob(f"*/*/{FRAME:05d}.png"))
    ]
    blank = np.full_like(tiles[0], 40)
    tiles += [blank] * (4 - len(tiles))
    grid = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:4])])
    grid[tiles[0].shape[0]], grid[:, tiles[0].shape[1]] = 90, 90
    return grid


def draw_boxes(name: str, out: Path, video: FixtureVideo, store: SessionStore) -> Picture:
    (task,) = json.loads((out / "video/tasks.json").read_text())
    image = scaled(background(video))
    height, width = video.size
    for region in task["predictions"][0]["result"]:
        percent = box_at(region["value"]["sequence"], FRAME + 1)
        if percent is None:
            continue
        x, y, w, h = (
            p / 100 * full * SCALE for p, full in zip(percent, (width, height) * 2, strict=True)
        )
        far = (x + w, y + h)
        color = parse_color(default_color(int(region["id"].removeprefix("object-"))))
        corners = [(int(x), int(y)), (int(far[0]) - 1, int(far[1]) - 1)]
        cv2.rectangle(image, corners[0], corners[1], color, 1)
    return image


def box_at(sequence: list[dict], frame: int) -> list[float] | None:
    """x, y, width, height in percent as the editor shows them; None where it shows no box."""
    before = [k for k in sequence if k["frame"] <= frame]
    after = [k for k in sequence if k["frame"] > frame]
    if not before or (not before[-1]["enabled"] and before[-1]["frame"] < frame):
        return None
    first, last = before[-1], (after or before)[0 if after else -1]
    span = last["frame"] - first["frame"]
    part = (frame - first["frame"]) / span if span else 0.0
    return [first[k] + (last[k] - first[k]) * part for k in ("x", "y", "width", "height")]


def save(name: str, left: Picture, right: Picture) -> None:
    gap, top = 8, 16
    height, width = left.shape[:2]
    canvas = Image.new("RGB", (2 * width + gap, height + top), (250, 250, 250))
    canvas.paste(Image.fromarray(left), (0, top))
    canvas.paste(Image.fromarray(right), (width + gap, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((2, 2), "in the store", fill=(30, 30, 30))
    draw.text((width + gap + 2, 2), f"in {name} files", fill=(30, 30, 30))
    path = ROOT / "docs" / "images" / f"format-{name}.png"
    path.parent.mkdir(exist_ok=True)
    canvas.quantize(128).save(path, optimize=True)


DRAWERS = {
    "coco": draw_polygons,
    "yoloseg": draw_rings,
    "masks": draw_files,
    "labelstudio": draw_boxes,
}

if __name__ == "__main__":
    main()
