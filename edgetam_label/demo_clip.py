"""The demo: a short rendered video with known truth, for `make demo`, the README and tests.

A dog trots across a lawn while a ball rolls the other way, passing in front of it; a second ball
lies in the grass and is nobody's object. Drawn from fixed numbers: every run makes the same clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.demo_scene import BALL, DOG, demo_frames
from edgetam_label.errors import UsageError


@dataclass(frozen=True)
class DemoObject:
    """id: number in the truth; name; click: (x, y) pixels, deep inside it in frame 0."""

    id: int
    name: str
    click: tuple[float, float]


@dataclass(frozen=True)
class DemoClip:
    """path: the video; fps; ids: (T, H, W) uint8 truth, 0 background; objects: what is in it."""

    path: Path
    fps: int
    ids: NDArray[np.uint8]
    objects: tuple[DemoObject, ...]

    def mask(self, object_id: int, frame_idx: int) -> NDArray[np.bool_]:
        """(H, W) bool: the visible pixels of an object."""
        mask: NDArray[np.bool_] = self.ids[frame_idx] == object_id
        return mask


def render_demo_clip(
    path: str | Path, *, width: int = 640, height: int = 360, num_frames: int = 48, fps: int = 24
) -> DemoClip:
    """Render and encode the demo clip (H.264, mp4).

    Args:
        path: where the video goes; replaced if it exists, and never half-written.
        width, height: pixels, even.
        num_frames: 2 or more; the story is stretched over them.
        fps: frames per second.

    Raises:
        UsageError: odd or tiny size, or fewer than two frames.
    """
    if width % 2 or height % 2 or width < 64 or height < 64 or num_frames < 2:
        raise UsageError(
            f"cannot render a demo clip of {width}x{height} with {num_frames} frames: "
            "use even sides of at least 64 pixels and at least 2 frames"
        )
    frames, ids = demo_frames(width=width, height=height, num_frames=num_frames)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        _encode(part, frames, fps)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    objects = tuple(
        DemoObject(number, name, _deepest(ids[0] == number))
        for number, name in ((DOG, "dog"), (BALL, "ball"))
    )
    return DemoClip(target, fps, ids, objects)


def _deepest(mask: NDArray[np.bool_]) -> tuple[float, float]:
    padded = np.pad(mask.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x), float(y)


def _encode(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.options = {"crf": "18", "preset": "medium", "threads": "1"}
        for image in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
