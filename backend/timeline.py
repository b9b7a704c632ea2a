"""The editor's frames ↔ the file's frames, through time.

The editor does not know the file's frames: it shows frame n (1-based) by seeking the player to
(n - 1) / frameRate seconds (and a hair more), whatever the file's true rate is. So both counts
meet in time only: constant or variable rate, right or wrong frameRate, it is the same rule.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

# The editor seeks 2 ms past a frame's time (measured: frame 10 at 25 fps asks for 0.362 s), so
# that rounding cannot show the frame before.
SEEK_HAIR = 0.002


@dataclass(frozen=True)
class Timeline:
    """times: seconds of each frame of the file, from 0, ascending. frame_rate: the editor's."""

    times: tuple[float, ...]
    frame_rate: float
    frames_count: int

    @classmethod
    def of(
        cls,
        pts: Sequence[int],
        time_base: tuple[int, int],
        frame_rate: float,
        frames_count: int | None = None,
    ) -> Timeline:
        """frames_count: as the editor sent it; else the editor's own formula, over the file."""
        unit = time_base[0] / time_base[1]
        times = tuple((p - pts[0]) * unit for p in pts)
        step = (times[-1] / (len(times) - 1)) if len(times) > 1 else 1 / frame_rate
        own = max(1, round((times[-1] + step) * frame_rate))
        if frames_count is None or frames_count < 1:
            frames_count = own
        # a player may count a little more than there is (sound that goes on), not many times more
        return cls(times, frame_rate, min(frames_count, 2 * own + 1000))

    def index_of(self, frame: int) -> int:
        """0-based index of the picture that the editor shows as its frame `frame` (1-based)."""
        seconds = (frame - 1) / self.frame_rate + SEEK_HAIR
        return min(max(bisect.bisect_right(self.times, seconds) - 1, 0), len(self.times) - 1)

    def frames_of(self, frame_idx: int) -> range:
        """The editor's frames that show picture `frame_idx`; empty if it skips the picture."""
        end = self.times[frame_idx + 1] if frame_idx + 1 < len(self.times) else None
        first = self._first_at(self.times[frame_idx]) if frame_idx else 1
        last = self._first_at(end) - 1 if end is not None else self.frames_count
        return range(min(first, self.frames_count + 1), min(last, self.frames_count) + 1)

    def _first_at(self, seconds: float) -> int:
        """The first editor frame whose seek lands at `seconds` or after."""
        guess = max(1, int((seconds - SEEK_HAIR) * self.frame_rate))
        while (guess - 1) / self.frame_rate + SEEK_HAIR < seconds:
            guess += 1
        return guess
