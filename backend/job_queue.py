"""Jobs that wait for a worker, some of them until a later time."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class JobQueue(Generic[T]):
    """First come first served among those whose time has come; for any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, T]] = []
        self._number = itertools.count()
        self._closed = False

    def put(self, job: T, delay: float = 0.0) -> None:
        """delay: seconds before which nobody gets it."""
        with self._changed:
            heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._number), job))
            self._changed.notify()

    def get(self) -> T | None:
        """Waits for a job; None once the queue is closed, whatever still waits in it."""
        with self._changed:
            while not self._closed:
                seconds = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if seconds is not None and seconds <= 0:
                    job = heapq.heappop(self._waiting)[2]
                    self._changed.notify()  # somebody else must await the next one's time
                    return job
                self._changed.wait(seconds)
            return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
