"""Two small videos with all that breaks exporters, and the truth about them as masks.

Odd sizes, occlusion, a late and a leaving object, an id gap, a mask with a hole, a two-part
object, a one-pixel object, overlaps (one of them total), names in Cyrillic and CJK.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.prompts import Click, Prompt
from edgetam_label.session_types import FrameMask, LabelObject, ModelIdentity
from edgetam_label.sessions import SessionStore

Masks = dict[int, dict[int, NDArray[np.bool_]]]  # obj_id -> frame_idx -> (H, W)

MODEL = ModelIdentity("tiny", "c" * 64, "d" * 64)


@dataclass(frozen=True)
class FixtureVideo:
    """truth: only non-empty masks; an object without a mask on a frame is not on it."""

    name: str
    path: Path
    images: tuple[NDArray[np.uint8], ...]
    labels: dict[int, str]
    truth: Masks

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.images[0].shape[0], self.images[0].shape[1]


def make_videos(folder: Path) -> tuple[FixtureVideo, FixtureVideo]:
    """Render both videos into `folder`, losslessly."""
    return _russian(folder), _japanese(folder)


def store_video(store: SessionStore, video: FixtureVideo) -> str:
    """A session holding the truth: tracked masks with scores, absent frames said to be absent."""
    with Frames.open(video.path) as frames:
        session = store.create(frames.identity, model=MODEL, name=video.name)
    height, width = video.size
    for obj_id, label in video.labels.items():
        store.set_object(session.id, LabelObject(obj_id, label))
        first = min(video.truth[obj_id])
        y, x = np.argwhere(video.truth[obj_id][first])[0]
        store.add_prompt(session.id, Prompt(obj_id, first, (Click(float(x), float(y)),)))
    store.save_masks(session.id, _frame_masks(video, RLE.empty(height, width)))
    return session.id


def _frame_masks(video: FixtureVideo, empty: RLE) -> list[FrameMask]:
    masks = []
    for obj_id, by_frame in video.truth.items():
        for frame_idx in range(min(by_frame), len(video.images)):
            mask = by_frame.get(frame_idx)
            if mask is None:
                masks.append(FrameMask(obj_id, frame_idx, empty, -4.5, "absent"))
            else:
                score = 9.0 - obj_id + frame_idx / 8
                status = "prompted" if frame_idx == min(by_frame) else "tracked"
                masks.append(FrameMask(obj_id, frame_idx, RLE.encode(mask), score, status))
    return masks


def _russian(folder: Path) -> FixtureVideo:
    height, width, length = 97, 161, 12
    truth: Masks = {1: {}, 2: {}, 4: {}, 7: {}}
    for t in range(length):
        ring = _ellipse(height, width, 50 + 5 * t, 48, 22, 26)
        ring &= ~_ellipse(height, width, 50 + 5 * t, 48, 8, 9)
        if t not in (5, 6):  # hidden, then seen again
            truth[1][t] = ring
        if t <= 8:  # leaves; two parts
            parts = np.zeros((height, width), bool)
            parts[5:20, 4 + 3 * t : 15 + 3 * t] = True
            parts[70:91, 2 + 2 * t : 9 + 2 * t] = True
            truth[2][t] = parts
        if t >= 3:  # late; overlaps object 1
            truth[4][t] = _ellipse(height, width, 120 - 3 * t, 60, 20, 14)
        point = np.zeros((height, width), bool)
        point[96, 160 - t] = True  # one pixel, along the last row
        truth[7][t] = point
    labels = {1: "человек", 2: "кошка", 4: "человек", 7: "猫"}
    return _video(folder / "видео.mkv", "Видео один", (height, width), length, labels, truth)


def _japanese(folder: Path) -> FixtureVideo:
    height, width, length = 133, 250, 7
    truth: Masks = {1: {}, 3: {}}
    for t in range(length):
        big = np.zeros((height, width), bool)
        big[20:110, 30 + 10 * t : 130 + 10 * t] = True
        small = _ellipse(height, width, 200 - 12 * t, 64, 18, 15)
        if t == 5:  # wholly inside the other
            small = _ellipse(height, width, 110, 64, 10, 10)
        # The larger one gets the higher id on purpose: at frame 5 it hides the smaller.
        truth[3][t], truth[1][t] = big, small
    return _video(
        folder / "動画.mkv", "動画 二", (height, width), length, {1: "人", 3: "кошка"}, truth
    )


def _ellipse(h: int, w: int, x: float, y: float, rx: float, ry: float) -> NDArray[np.bool_]:
    rows, cols = np.ogrid[:h, :w]
    return np.asarray(((cols - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1, dtype=bool)


def _video(
    path: Path,
    name: str,
    size: tuple[int, int],
    length: int,
    labels: dict[int, str],
    truth: Masks,
) -> FixtureVideo:
    rng = np.random.default_rng(len(name))
    background = rng.integers(0, 120, (*size, 3), dtype=np.uint8)
    images = []
    for t in range(length):
        image = background.copy()
        for obj_id, by_frame in truth.items():
            if t in by_frame:
                image[by_frame[t]] = (40 * obj_id % 256, 255 - 30 * obj_id, 20 * t)
        images.append(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "bgr0"
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return FixtureVideo(name, path, tuple(images), labels, truth)
