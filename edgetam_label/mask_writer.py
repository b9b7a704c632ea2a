"""Masks on their way from the tracker to the store, encoded and written beside the model."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edgetam_label.masks import RLE
from edgetam_label.sessions import FrameMask, SessionStore

if TYPE_CHECKING:
    from edgetam_label.tracker import TrackedFrame


@dataclass(frozen=True)
class BatchLimits:
    """Masks are written when either is reached, so a crash loses at most about that much."""

    masks: int = 32
    seconds: float = 1.0


def to_row(tracked: TrackedFrame) -> FrameMask:
    """A tracked mask as the store keeps it."""
    status = "prompted" if tracked.prompted else "absent" if tracked.absent else "tracked"
    rle = RLE.encode(tracked.mask)
    return FrameMask(tracked.obj_id, tracked.frame_idx, rle, tracked.score, status)


class MaskWriter:
    """Stores masks in batches, in the order in which they are added, by a thread of its own.

    At most `waiting` masks wait to be encoded; then `add` waits. A batch moves the job's position
    in the same transaction; the first one is a single mask, so that something is there at once.
    What the store refuses is raised by the next `add`, or by `finish`. Leaving the `with` block
    after another error still stores what was added.

    on_stored: called by the thread with (masks written, first frame not complete in the store).
    frames: that masks were added for. masks: stored; settled after `finish` or the `with` block.
    """

    def __init__(
        self,
        store: SessionStore,
        session_id: str,
        job_id: str,
        direction: str,
        limits: BatchLimits,
        *,
        waiting: int = 4,
        on_stored: Callable[[int, int], None] | None = None,
    ) -> None:
        self._store, self._session_id, self._job_id = store, session_id, job_id
        self._step = 1 if direction == "forward" else -1
        self._limits, self._waiting = limits, waiting
        self._on_stored = on_stored
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mask-writer")
        self._under_way: deque[Future[None]] = deque()
        self._added: int | None = None
        self._failed = False
        # only the writer's thread touches these
        self._rows: list[FrameMask] = []
        self._last: int | None = None
        self._position: int | None = None
        self._flushed = -math.inf
        self.frames = self.masks = 0

    def add(self, tracked: TrackedFrame) -> None:
        """Hand over one mask; those of one frame come one after the other."""
        if self._added != tracked.frame_idx:
            self.frames += 1
        self._added = tracked.frame_idx
        self._under_way.append(self._thread.submit(self._encode, tracked))
        self._settle(self._waiting)

    def finish(self, *, complete: bool) -> None:
        """Write the rest. complete: no object is missing on the last frame."""
        self._under_way.append(self._thread.submit(self._write, complete))
        self._settle(0)

    def _settle(self, waiting: int) -> None:
        while len(self._under_way) > waiting:
            try:
                self._under_way.popleft().result()
            except Exception:
                self._failed = True  # later masks must not be stored without these
                raise

    def _encode(self, tracked: TrackedFrame) -> None:
        self._rows.append(to_row(tracked))
        self._last = tracked.frame_idx
        late = time.monotonic() - self._flushed >= self._limits.seconds
        if late or len(self._rows) >= self._limits.masks:
            self._write(complete=False)

    def _write(self, complete: bool) -> None:
        """The last frame may lack objects still to come unless `complete`."""
        if self._last is None:
            return
        position = self._last + (self._step if complete else 0)
        if not self._rows and (not complete or position == self._position):
            return
        written = self._store.save_masks(
            self._session_id, self._rows, job_id=self._job_id, next_frame=position
        )
        self.masks += written
        self._rows.clear()
        self._position = position
        self._flushed = time.monotonic()
        if self._on_stored is not None:
            self._on_stored(written, position)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self._failed:
                self.finish(complete=False)
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
