"""Numbered frames of a video, from any index on, told apart by their place in a pts table.

Nothing here computes a frame number from a frame rate, and no frame count in a header is
believed: see `video_index` for how the table is made.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from av.video.frame import VideoFrame

from edgetam_label.errors import MediaError
from edgetam_label.video_stream import DamagedStream, VideoStream

_SEEK_BACK_S = (0.0, 2.0, 10.0)  # a seek may land late (MPEG-TS does): try again this much earlier
_MAX_FORWARD = 64  # frames worth decoding in order rather than seeking, when key frames are unknown


@dataclass(frozen=True)
class FrameTable:
    """The index -> pts table that numbers decoded frames.

    pts: as in `MediaIdentity`. by_pts: timestamps are real and strictly increasing, so a frame can
    be recognised after a seek; otherwise frames are counted from the beginning.
    key_frames: sorted indices at which decoding can start, () if unknown.
    """

    pts: tuple[int, ...]
    by_pts: bool
    key_frames: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.pts)

    def find(self, pts: int | None) -> int | None:
        """Index of the frame with exactly this timestamp, or None."""
        if pts is None:
            return None
        idx = bisect.bisect_left(self.pts, pts)
        return idx if idx < len(self.pts) and self.pts[idx] == pts else None

    def key_before(self, idx: int) -> int:
        """The last key frame at or before `idx`, 0 if there is none; `idx` if none is known."""
        if not self.key_frames:
            return idx
        place = bisect.bisect_right(self.key_frames, idx)
        return self.key_frames[place - 1] if place else 0


class VideoDecoder:
    """Numbered frames of one file, from any index on.

    threaded: False for a file known to be damaged. Concealed pixels depend on everything decoded
    before them, so such a file is always decoded from its beginning, in one thread.
    """

    def __init__(self, path: Path, table: FrameTable, *, threaded: bool = True) -> None:
        self._stream = VideoStream(path, threaded=threaded)
        self.table = table

    @property
    def damaged(self) -> bool:
        """Whether damage was met: from then on every access decodes from the beginning."""
        return not self._stream.threaded

    def reaches(self, target: int, position: int) -> bool:
        """Whether decoding on from `position` gets to `target` no later than a seek would."""
        if target < position:
            return False
        if self.damaged or not self.table.by_pts:
            return True
        if not self.table.key_frames:
            return target - position <= _MAX_FORWARD
        return self.table.key_before(target) <= position

    def frames_from(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """(index, frame) in order from some index <= start up to the last frame of the table.

        A frame of the table that cannot be decoded (damaged file) repeats the one before it, as a
        player would show it. Frames that the table does not know are passed over.
        """
        reached = -1
        try:
            for idx, frame in self._frames_from(start):
                yield idx, frame
                reached = idx
        except DamagedStream:
            self._stream.use_one_thread()
            again = (item for item in self._frames_from(start) if item[0] > reached)
            yield from again

    def _frames_from(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        if not self.table.by_pts:
            self._stream.restart()
            yield from zip(range(len(self.table)), self._stream.decoded(), strict=False)
            return
        for landing, frames in self._landings(start):
            if landing <= start:
                yield from self._fill(landing, frames)
                return
        raise MediaError(
            f"{self._stream.path} no longer yields the frames that were indexed; was the file "
            "changed? Start a new session on it."
        )

    def _landings(self, start: int) -> Iterator[tuple[int, Iterator[tuple[int, VideoFrame]]]]:
        """Ever earlier places to decode from: (first index that comes out, numbered frames)."""
        numerator, denominator = self._stream.time_base
        key = self.table.key_before(start)
        if key > 0 and not self.damaged:
            goal = self.table.pts[key]
            for seconds in _SEEK_BACK_S:
                pts = goal - round(seconds * denominator / numerator)
                if pts < self.table.pts[0] or not self._stream.seek(pts):
                    break
                frames = self._numbered(self._stream.decoded_after_seek())
                if (first := next(frames, None)) is not None:
                    yield first[0], _chain(first, frames)
                self._stream.restart()
        self._stream.restart()
        frames = self._numbered(self._stream.decoded())
        if (first := next(frames, None)) is not None:
            # Whatever the table holds before the first decodable frame shows that frame.
            yield 0, _chain((0, first[1]), _chain(first, frames))

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        for frame in frames:
            if (idx := self.table.find(frame.pts)) is not None:
                yield idx, frame

    def _fill(
        self, landing: int, frames: Iterator[tuple[int, VideoFrame]]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Number without gaps from `landing` to the end of the table."""
        expected, shown = landing, None
        for idx, frame in frames:
            if idx < expected:
                continue
            for missing in range(expected, idx):
                yield missing, shown if shown is not None else frame
            yield idx, frame
            expected, shown = idx + 1, frame
        if shown is not None:
            for missing in range(expected, len(self.table)):
                yield missing, shown

    def close(self) -> None:
        self._stream.close()


def _chain(
    first: tuple[int, VideoFrame], rest: Iterator[tuple[int, VideoFrame]]
) -> Iterator[tuple[int, VideoFrame]]:
    yield first
    yield from rest
