from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from edgetam_label.byte_cache import ByteCache


@dataclass(frozen=True)
class Value:
    num_bytes: int


def filled(max_bytes: int, *sizes: int) -> ByteCache[int, Value]:
    cache: ByteCache[int, Value] = ByteCache(max_bytes)
    for key, size in enumerate(sizes):
        assert cache.get_or_make(key, lambda size=size: Value(size)) == (Value(size), False)
    return cache


def test_the_least_recently_used_goes_first():
    cache = filled(10, 4, 4)
    assert cache.get(0) == Value(4)
    cache.get_or_make(2, lambda: Value(4))
    assert [cache.get(key) is not None for key in range(3)] == [True, False, True]
    assert cache.num_bytes == 8 and len(cache) == 2


def test_a_large_value_stays_until_the_next():
    cache = filled(10, 3, 50)
    assert len(cache) == 1 and cache.get(1) == Value(50)
    assert cache.get_or_make(1, lambda: Value(1)) == (Value(50), True)
    cache.get_or_make(2, lambda: Value(5))
    assert cache.get(1) is None and cache.num_bytes == 5


def test_drop_takes_what_is_unwanted():
    cache = filled(10, 1, 2, 3)
    cache.drop(lambda key: key != 1)
    assert len(cache) == 1 and cache.num_bytes == 2


def test_what_fails_is_not_kept():
    cache = filled(10)

    def fail() -> Value:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        cache.get_or_make(0, fail)
    assert cache.get(0) is None
    assert cache.get_or_make(0, lambda: Value(1)) == (Value(1), False)


def test_threads_that_ask_for_one_key_wait_for_one_making():
    cache, made, started = filled(10), [], threading.Event()
    release = threading.Event()

    def slow() -> Value:
        made.append(1)
        started.set()
        assert release.wait(30)
        return Value(1)

    answers: list[tuple[Value, bool]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(cache.get_or_make(7, slow)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    # another key does not wait for it
    assert cache.get_or_make(8, lambda: Value(2)) == (Value(2), False)
    release.set()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and sorted(there for _, there in answers) == [False, True, True, True]
