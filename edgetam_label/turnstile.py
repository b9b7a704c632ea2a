"""A fair lock: whoever asked first goes first, so that no track starves another."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turnstile:
    """`with turnstile:` around one frame's work. Not reentrant.

    An ordinary lock lets the thread that just released it take it again at once; two annotators
    on one model would then wait for each other's whole videos.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = False
        self._queue: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            turn = threading.Event()
            self._queue.append(turn)
        turn.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()  # handed over: stays busy
            else:
                self._busy = False
