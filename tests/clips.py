"""Small real media for tests: every frame carries its own index in its pixels.

The index is written as a row of black and white squares, large enough to survive lossy coding, in
the top-left part of the frame; a red square in the top-right corner tells rotations apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 10
SQUARE = 12
WIDTH, HEIGHT = BITS * SQUARE + 40, 96


def draw_frame(idx: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """(H, W, 3) RGB with `idx` in its pixels, over a texture that moves from frame to frame."""
    y, x = np.mgrid[0:height, 0:width]
    wave = (np.sin((x + 3 * idx) / 9.0) + np.cos((y - 2 * idx) / 7.0)) * 40 + 128
    image = np.stack([wave, np.roll(wave, 5 * idx, axis=1), 255 - wave], axis=-1).astype(np.uint8)
    image[: 2 * SQUARE, : BITS * SQUARE] = 0
    for bit in range(BITS):
        if idx >> bit & 1:
            image[: 2 * SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 255
    image[: 2 * SQUARE, -20:] = (255, 0, 0)
    return image


def read_index(image: NDArray[np.uint8]) -> int:
    """The index that `draw_frame` wrote."""
    centres = image[SQUARE, SQUARE // 2 : BITS * SQUARE : SQUARE].astype(int).mean(axis=-1)
    return sum(1 << bit for bit in range(BITS) if centres[bit] > 127)


def is_upright(image: NDArray[np.uint8]) -> bool:
    """Whether the red square is in the top-right corner."""
    red, green, blue = (int(v) for v in image[SQUARE, -8])
    return red > 180 and green < 90 and blue < 90


@dataclass(frozen=True)
class Clip:
    """How to code a clip. pts: in units of time_base, one per frame; None for constant rate."""

    name: str
    codec: str = "libx264"
    num_frames: int = 60
    size: tuple[int, int] = (WIDTH, HEIGHT)
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    time_base: Fraction = Fraction(1, 25)
    pts: Sequence[int] | None = None
    rotation: int = 0
    start_at: int = 0
    """Index of the first frame to show: the ones before are in the file but trimmed by an edit."""
    audio: bool = False

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        trims = {"avoid_negative_ts": "disabled"} if self.start_at else {}
        with av.open(str(path), "w", options=trims) as container:
            self._write_pictures(container)
        return path

    def _write_pictures(self, container: av.container.OutputContainer) -> None:
        stream = container.add_stream(self.codec, rate=25, options=self.options)
        stream.width, stream.height = self.size
        stream.pix_fmt = self.pix_fmt
        stream.codec_context.time_base = self.time_base
        if self.rotation:
            stream.set_display_rotation(self.rotation)
        for idx in range(self.num_frames):
            stored = np.rot90(draw_frame(idx, *self._shown_size()), -self.rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), "rgb24")
            frame.pts = self.pts[idx] if self.pts else idx
            frame.time_base = self.time_base
            container.mux([self._shifted(p) for p in stream.encode(frame)])
        container.mux([self._shifted(p) for p in stream.encode(None)])

    def _shown_size(self) -> tuple[int, int]:
        return self.size[::-1] if self.rotation % 180 else self.size

    def _shifted(self, packet: av.Packet) -> av.Packet:
        if self.start_at:
            shift = round(self.start_at / 25 / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
        return packet


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1024):
            wave = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_images(folder: Path, num_frames: int, pattern: str = "frame{}.png") -> list[Path]:
    """A folder of frames, numbered without leading zeros so that order must be natural."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / pattern.format(idx) for idx in range(num_frames)]
    for idx, path in enumerate(paths):
        Image.fromarray(draw_frame(idx)).save(path)
    return paths
