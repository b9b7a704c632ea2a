"""Open videos are shared, closed when too many are idle, and never leaked by a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_rig import movie
from studio_double import Studio

from edgetam_label.backend.faults import FetchFailed
from edgetam_label.backend.frames_pool import FramesPool
from edgetam_label.backend.ls_client import LabelStudioClient
from edgetam_label.backend.media import MediaCache
from edgetam_label.errors import MediaError
from edgetam_label.frames import Frames

A, B, C = "/data/a.mp4", "/data/b.mp4", "/data/c.mp4"
FRAMES = {A: 3, B: 4, C: 5}  # with how many frames


@pytest.fixture
def media(tmp_path: Path) -> Iterator[MediaCache]:
    with Studio() as studio:
        for url, count in FRAMES.items():
            studio.add(url, movie(tmp_path / "m.mp4", frames=count))
        client = LabelStudioClient(studio.url, None, allow_private=False, timeout=10)
        yield MediaCache(tmp_path, client, budget_bytes=1 << 30, max_download_bytes=1 << 20)
        client.close()


def leased(media: MediaCache) -> int:
    """How many have a file of the cache in use."""
    return sum(media._leases.values())


def pool_of(media: MediaCache, **changes: Any) -> FramesPool:
    return FramesPool(media, **{"max_pixels": 10**6, "idle": 1, **changes})


def count_opens(monkeypatch: pytest.MonkeyPatch, failing: int = 0) -> list[str]:
    """The files opened from now on; the first `failing` of them cannot be."""
    real, opened = Frames.open, []

    def slowly(source: Any, **kwargs: Any) -> Frames:
        opened.append(Path(source).name)
        time.sleep(0.05)
        if len(opened) <= failing:
            raise MediaError("The index cannot be built.")
        return real(source, **kwargs)

    monkeypatch.setattr(Frames, "open", slowly)
    return opened


def test_many_at_once_open_a_video_once(media: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, pool = count_opens(monkeypatch), pool_of(media)
    seen: list[int] = []

    def use() -> None:
        with pool.open(A, "1") as frames:
            seen.append(id(frames))
            assert frames[2].shape == (120, 160, 3)

    run(use, 6)
    assert len(opened) == 1 and len(seen) == 6 and len(set(seen)) == 1
    pool.close()
    assert leased(media) == 0


def test_a_failure_is_told_to_each_and_leaks_nothing(
    media: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait for an opening that fails try it themselves, one after the other."""
    opened, pool = count_opens(monkeypatch, failing=2), pool_of(media)
    failures: list[str] = []

    def use() -> None:
        try:
            with pool.open(A, "1") as frames:
                assert len(frames) == 3
        except FetchFailed as error:
            failures.append(str(error))

    run(use, 6)
    assert failures == ["The index cannot be built."] * 2 and len(opened) == 3
    pool.close()
    assert leased(media) == 0


def test_the_least_recently_used_idle_video_is_closed(media: MediaCache) -> None:
    pool = pool_of(media)
    with pool.open(A, "1"), pool.open(B, "2"), pool.open(C, "3"):
        assert leased(media) == 3
    assert leased(media) == 1
    with pool.open(A, "1") as first, pool.open(B, "2"):
        with pool.open(C, "3"):
            pass
        assert len(first) == 3 and leased(media) >= 2  # those in use stay open
    pool.close()
    assert leased(media) == 0


def test_a_frame_that_is_too_large_is_refused_before_it_is_decoded(media: MediaCache) -> None:
    with pytest.raises(FetchFailed, match="160x120 pixels.*EDGETAM_LABEL_MAX_PIXELS"):
        with pool_of(media, max_pixels=160 * 119).open(A, "1"):
            pass
    assert leased(media) == 0


def run(work: Any, count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
