"""Fair use of one accelerator: short turns, first come first served, clicks before tracks.

A track takes a turn per frame and goes to the end of the queue after each, so that two annotators'
tracks advance in step, and a click waits for one frame at most.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class Turnstile:
    """A lock with two queues, each first come first served. Not reentrant.

    An ordinary lock lets the thread that just released it take it again at once; two annotators
    on one model would then wait for each other's whole videos. `with turnstile:` is a patient turn.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = False
        self._urgent: deque[threading.Event] = deque()
        self._patient: deque[threading.Event] = deque()

    @contextlib.contextmanager
    def turn(self, *, urgent: bool) -> Iterator[None]:
        """One turn; urgent ones (a person is waiting) go first."""
        self._enter(self._urgent if urgent else self._patient)
        try:
            yield
        finally:
            self._leave()

    def in_turns(self, source: Iterator[T]) -> Iterator[T]:
        """The items of `source`, each made in a patient turn of its own."""
        while True:
            with self:
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def __enter__(self) -> None:
        self._enter(self._patient)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _enter(self, queue: deque[threading.Event]) -> None:
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            ticket = threading.Event()
            queue.append(ticket)
        ticket.wait()

    def _leave(self) -> None:
        # the turn is handed over, not freed: a newcomer cannot slip in before the queue
        with self._lock:
            queue = self._urgent or self._patient
            if queue:
                queue.popleft().set()
            else:
                self._busy = False
