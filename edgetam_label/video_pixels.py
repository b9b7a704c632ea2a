"""Decoded video frames as RGB arrays, turned the way they are shown."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from numpy.typing import NDArray


@dataclass(frozen=True)
class Display:
    """How the frames of a video are shown: their size, and what the display matrix does to them.

    width, height: pixels as shown. mirrored: left and right are swapped, first of all; then come
    `quarter_turns` counter-clockwise.
    """

    width: int
    height: int
    quarter_turns: int = 0
    mirrored: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Display:
        """Read from one frame, for all of them: reading side data ties a frame into a reference
        cycle, so that asking every frame would keep hundreds of them in memory.
        """
        turns, mirrored = _orientation(frame)
        width, height = (frame.width, frame.height)[:: -1 if turns % 2 else 1]
        return cls(width, height, turns, mirrored)

    def shown_size(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) of this frame if it were shown unscaled."""
        swapped = self.quarter_turns % 2
        return (frame.height, frame.width) if swapped else (frame.width, frame.height)

    def to_rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(height, width, 3) RGB as shown; a frame of another size is scaled."""
        width, height = (self.width, self.height)[:: -1 if self.quarter_turns % 2 else 1]
        rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
        if self.mirrored:
            rgb = rgb[:, ::-1]
        if self.quarter_turns:
            rgb = np.rot90(rgb, self.quarter_turns)
        return np.ascontiguousarray(rgb, dtype=np.uint8)


def frame_bytes(frame: VideoFrame) -> int:
    """Memory that a decoded frame holds."""
    return sum(plane.buffer_size for plane in frame.planes)


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """(counter-clockwise quarter turns, mirror first) of the display matrix, nearest right angle.

    The matrix is nine 32-bit integers; its upper-left 2x2 part (a, b; c, d) maps a stored pixel
    (x, y) to the shown (a*x + c*y, b*x + d*y) (ISO/IEC 14496-12, 6.2.2).
    """
    side_data: Any = frame.side_data  # keyed by type, though its annotation says by name
    data = side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return 0, False
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), mirrored
    return (3 if b > 0 else 1), mirrored
