"""Values that are worth keeping while there is room: a cache within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    @property
    def num_bytes(self) -> int: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class ByteCache(Generic[K, V]):
    """Values by key, the least recently used dropped first. Threads may share it.

    The newest value is kept even if it alone exceeds the budget: whoever made it needs it next.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._making: dict[K, Lock] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        return self._bytes

    def get(self, key: K) -> V | None:
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
            return value

    def get_or_make(self, key: K, make: Callable[[], V]) -> tuple[V, bool]:
        """(the value, whether it was there already); those who ask meanwhile wait for one making.

        What `make` raises passes through, and nothing is kept.
        """
        value = self.get(key)
        if value is not None:
            return value, True
        with self._lock:
            making = self._making.setdefault(key, Lock())
        try:
            with making:
                value = self.get(key)
                if value is not None:
                    return value, True
                value = make()
                self._put(key, value)
                return value, False
        finally:
            with self._lock:
                self._making.pop(key, None)

    def drop(self, unwanted: Callable[[K], bool]) -> None:
        """Forget every value whose key is `unwanted`."""
        with self._lock:
            for key in [key for key in self._kept if unwanted(key)]:
                self._forget(key)

    def _put(self, key: K, value: V) -> None:
        with self._lock:
            self._forget(key)
            self._kept[key] = value
            self._bytes += value.num_bytes
            while self._bytes > self.max_bytes and len(self._kept) > 1:
                self._forget(next(iter(self._kept)))

    def _forget(self, key: K) -> None:
        value = self._kept.pop(key, None)
        if value is not None:
            self._bytes -= value.num_bytes
