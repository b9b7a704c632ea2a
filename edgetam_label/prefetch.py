"""Looking ahead: what an iterator gives next is made in a thread while the last is being used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from edgetam_label.closing import Closing

T = TypeVar("T")

_END: Any = object()


class Prefetch(Closing, Generic[T]):
    """The items of `source` in order, at most `ahead` of them made before they are asked for.

    One thread runs `source`; its errors are raised where the item is asked for. `close`, or leaving
    the `with` block, waits for the item in the making and ends thread and source.

    Example:
        with Prefetch(frames.iter()) as ahead:
            for frame_idx, image in ahead:
                ...
    """

    def __init__(self, source: Iterator[T], ahead: int = 2) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: deque[Future[T]] = deque()
        for _ in range(ahead):
            self._order()

    def _order(self) -> None:
        self._coming.append(self._thread.submit(next, self._source, _END))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if not self._coming:
            raise StopIteration
        item = self._coming.popleft().result()
        if item is _END:
            self._coming.clear()
            raise StopIteration
        self._order()
        return item

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        close = getattr(self._source, "close", None)  # generators have one, other iterators not
        if close is not None:
            close()
