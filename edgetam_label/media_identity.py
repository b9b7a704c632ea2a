"""What a session remembers about its media: enough to find the same frame again, exactly."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgetam_label.errors import Cancelled, MediaError, UsageError

Progress = Callable[[int, int], None]
"""Called with (done, total) in the unit of the work: bytes, packets or frames."""
Cancel = Callable[[], bool]
"""Asked between steps; True stops the work with `Cancelled`."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class MediaIdentity:
    """Which media a session belongs to, and the index -> timestamp table of its frames.

    source: absolute path of the file or folder; the common folder of a list of images; "" for
        images given as arrays.
    kind: "video", "folder", "image" or "images".
    sha256: of the file; for folders and lists of the lines "<name> <sha256 of the file>\\n" in
        frame order.
    width, height: pixels of a frame after rotation metadata; pixel aspect ratio is not applied.
    pts: presentation timestamp of each frame in units of time_base; the index itself for images
        and for videos that carry no usable timestamps.
    time_base: (numerator, denominator) of seconds per unit of pts; (1, 25) for images.
    names: file names of the frames of a folder or list, () for a video.
    """

    source: str
    kind: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    num_frames: int
    pts: tuple[int, ...]
    time_base: tuple[int, int]
    names: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        """Average frames per second, for display only; 1.0 for a single frame."""
        if self.num_frames < 2 or self.pts[-1] == self.pts[0]:
            return 1.0
        return (self.num_frames - 1) / self.time_of(self.num_frames - 1)

    def time_of(self, frame_idx: int) -> float:
        """Seconds from the first frame to frame `frame_idx`. Raises UsageError if there is none."""
        self.check_index(frame_idx)
        return (self.pts[frame_idx] - self.pts[0]) * self.time_base[0] / self.time_base[1]

    def frame_at(self, seconds: float) -> int:
        """The frame that a player shows `seconds` after the first frame appeared."""
        # A time that was printed with six decimals must still find its own frame.
        units = (seconds + 1e-6) * self.time_base[1] / self.time_base[0] + self.pts[0]
        return min(max(bisect.bisect_right(self.pts, units) - 1, 0), self.num_frames - 1)

    def check_index(self, frame_idx: int) -> None:
        """Raise UsageError unless 0 <= frame_idx < num_frames."""
        if not 0 <= frame_idx < self.num_frames:
            raise UsageError(
                f"Frame {frame_idx} does not exist: {self.source or 'the list of images'} has "
                f"frames 0 to {self.num_frames - 1}."
            )


def sha256_of_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Hex digest, read in blocks; `advance` is told the bytes of each block and may raise."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                if advance is not None:
                    advance(len(block))
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


class Work:
    """Progress in bytes over one or more passes, and the question whether to go on."""

    def __init__(self, progress: Progress | None, cancel: Cancel | None) -> None:
        self._progress, self._cancel = progress, cancel
        self.total = 0  # bytes, set once it is known
        self._done = 0

    def reach(self, done: int) -> None:
        """Report that `done` bytes are through. Raises Cancelled."""
        if self._cancel is not None and self._cancel():
            raise Cancelled("Opening the media was cancelled.")
        if self._progress is not None and done > self._done:
            self._progress(done, max(self.total, done))
        self._done = max(done, self._done)

    def advance(self, count: int) -> None:
        """Report `count` more bytes. Raises Cancelled."""
        self.reach(self._done + count)
