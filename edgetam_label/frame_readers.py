"""Random access and iteration over frames, for `Frames`: one reader per kind of media."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from edgetam_label.errors import MediaError
from edgetam_label.video_decoder import FrameTable, VideoDecoder
from edgetam_label.video_pixels import Display, frame_bytes

Image = NDArray[np.uint8]  # (H, W, 3) RGB


class Reader:
    """Where a handle's pixels come from."""

    def read(self, idx: int) -> Image:
        raise NotImplementedError

    def forward(self, wanted: range) -> Iterator[tuple[int, Image]]:
        return ((idx, self.read(idx)) for idx in wanted)

    def backward(self, wanted: range) -> Iterator[tuple[int, Image]]:
        return self.forward(wanted)

    def close(self) -> None:
        pass


class ImageReader(Reader):
    """Images that are loaded when asked for, all of one size."""

    def __init__(self, load: Callable[[int], Image], width: int, height: int) -> None:
        self._load = load
        self._shape = (height, width, 3)

    def read(self, idx: int) -> Image:
        image = self._load(idx)
        if image.shape != self._shape:
            raise MediaError(
                f"Image {idx} is now {image.shape[1]}x{image.shape[0]} pixels, "
                f"{self._shape[1]}x{self._shape[0]} when it was opened; was the file changed?"
            )
        return image


class VideoReader(Reader):
    """Random access over one decoder, and iterators with decoders of their own.

    Decoded frames are kept in the codec's own format, half the size of RGB, and converted on
    every read: the caller gets a fresh array and conversion is the same on every path.
    """

    def __init__(
        self, path: Path, table: FrameTable, display: Display, threaded: bool, budget: int
    ) -> None:
        self._path, self._table, self._display = path, table, display
        self._threaded, self._budget = threaded, budget
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, VideoFrame] = OrderedDict()
        self._cached_bytes = 0
        self._decoder: VideoDecoder | None = None
        self._coming: Iterator[tuple[int, VideoFrame]] = iter(())
        self._position = -1  # index that `_coming` yields next, -1 if it must be sought first

    def read(self, idx: int) -> Image:
        with self._lock:
            frame = self._cache.get(idx)
            if frame is None:
                frame = self._decode_to(idx)
            else:
                self._cache.move_to_end(idx)
            return self._display.to_rgb(frame)

    def _decode_to(self, idx: int) -> VideoFrame:
        decoder = self._decoder = self._decoder or self._new_decoder()
        if self._position < 0 or not decoder.reaches(idx, self._position):
            self._coming = decoder.frames_from(idx)
        self._position = -1  # whatever goes wrong below, seek again next time
        for at, frame in self._coming:
            self._keep(at, frame)
            if at == idx:
                self._position = at + 1
                return frame
        raise _not_decodable(self._path, idx)

    def _keep(self, idx: int, frame: VideoFrame) -> None:
        if idx in self._cache:
            return
        self._cache[idx] = frame
        self._cached_bytes += frame_bytes(frame)
        while self._cached_bytes > self._budget and len(self._cache) > 1:
            self._cached_bytes -= frame_bytes(self._cache.popitem(last=False)[1])

    def _new_decoder(self) -> VideoDecoder:
        if self._decoder is not None and self._decoder.damaged:
            self._threaded = False
        return VideoDecoder(self._path, self._table, threaded=self._threaded)

    def forward(self, wanted: range) -> Iterator[tuple[int, Image]]:
        decoder = self._new_decoder()
        try:
            for idx, frame in decoder.frames_from(wanted[0]):
                if idx >= wanted[0]:
                    yield idx, self._display.to_rgb(frame)
                if idx >= wanted[-1]:
                    return
            raise _not_decodable(self._path, wanted[-1])
        finally:
            decoder.close()

    def backward(self, wanted: range) -> Iterator[tuple[int, Image]]:
        decoder = self._new_decoder()
        top, bottom = wanted[0], wanted[-1]
        try:
            while top >= bottom:
                chunk = self._chunk_up_to(decoder, top, bottom)
                while chunk:
                    top, frame = chunk.pop()
                    yield top, self._display.to_rgb(frame)
                top -= 1
        finally:
            decoder.close()

    def _chunk_up_to(
        self, decoder: VideoDecoder, top: int, bottom: int
    ) -> deque[tuple[int, VideoFrame]]:
        """The last frames up to `top` that fit the budget and lie at or after `bottom`."""
        chunk: deque[tuple[int, VideoFrame]] = deque()
        held = 0
        for idx, frame in decoder.frames_from(top):
            if idx >= bottom:
                chunk.append((idx, frame))
                held += frame_bytes(frame)
            while held > self._budget and len(chunk) > 1:
                held -= frame_bytes(chunk.popleft()[1])
            if idx >= top:
                return chunk
        raise _not_decodable(self._path, top)

    def close(self) -> None:
        with self._lock:
            self._cache.clear()
            self._cached_bytes, self._position, self._coming = 0, -1, iter(())
            if self._decoder is not None:
                self._decoder.close()
                self._decoder = None


def _not_decodable(path: Path, idx: int) -> MediaError:
    return MediaError(
        f"Frame {idx} of {path} can no longer be decoded; was the file changed? "
        "Start a new session on it."
    )
