"""Decoded video frames as RGB arrays, turned the way they are shown."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def display_size(frame: VideoFrame) -> tuple[int, int]:
    """(width, height) after the frame's display matrix."""
    turns, _ = _orientation(frame)
    return (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)


def frame_bytes(frame: VideoFrame) -> int:
    """Memory that a decoded frame holds."""
    return sum(plane.buffer_size for plane in frame.planes)


def to_rgb(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB after the display matrix; a frame of another size is scaled."""
    turns, flip = _orientation(frame)
    coded = (height, width) if turns % 2 else (width, height)
    rgb = frame.reformat(width=coded[0], height=coded[1], format="rgb24").to_ndarray()
    if flip:
        rgb = rgb[:, ::-1]
    if turns:
        rgb = np.rot90(rgb, turns)
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """(counter-clockwise quarter turns, mirror first) of the display matrix, nearest right angle.

    The matrix is nine 32-bit integers; its upper-left 2x2 part (a, b; c, d) maps a stored pixel
    (x, y) to the shown (a*x + c*y, b*x + d*y) (ISO/IEC 14496-12, 6.2.2).
    """
    side_data: Any = frame.side_data  # keyed by type, though its annotation says by name
    data = side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return 0, False
    a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
    flip = a * d - b * c < 0
    if flip:
        a, b = -a, -b
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), flip
    return (3 if b > 0 else 1), flip
