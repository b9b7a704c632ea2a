"""Open videos, shared: opening builds an index, which a second request must not pay again."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import av

from edgetam_label.errors import MediaError
from edgetam_label.frames import Frames
from edgetam_label.media_identity import MediaIdentity

from .faults import FetchFailed
from .keyed_locks import KeyedLocks
from .media import MediaCache


@dataclass
class _Handle:
    """An open video with the lease on its file. users: how many contexts are inside."""

    frames: Frames
    release: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    users: int = 0


class FramesPool:
    """Keeps up to `idle` unused videos open, the least recently used closed first."""

    def __init__(self, media: MediaCache, *, max_pixels: int, idle: int = 4) -> None:
        self._media = media
        self._max_pixels = max_pixels
        self._idle = idle
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Handle] = OrderedDict()
        self._opening = KeyedLocks()

    @contextlib.contextmanager
    def open(
        self,
        url: str,
        task_id: str,
        *,
        identity: MediaIdentity | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> Iterator[Frames]:
        """The video of a task. Raises FetchRefused, FetchFailed, or Cancelled."""
        with self._media.lease(url, task_id) as file:
            key = file.sha256
            with self._opening.hold(key):
                handle = self._take(key)
                if handle is None:
                    handle = self._load(url, task_id, identity, cancel)
                    with self._lock:
                        handle.users += 1
                        self._open[key] = handle
        try:
            yield handle.frames
        finally:
            self._give_back(handle)

    def _take(self, key: str) -> _Handle | None:
        with self._lock:
            handle = self._open.get(key)
            if handle is not None:
                handle.users += 1
                self._open.move_to_end(key)
            return handle

    def _load(
        self,
        url: str,
        task_id: str,
        identity: MediaIdentity | None,
        cancel: Callable[[], bool] | None,
    ) -> _Handle:
        stack = contextlib.ExitStack()
        file = stack.enter_context(self._media.lease(url, task_id))
        try:
            check_video(str(file.path), self._max_pixels)
            known = identity if identity is not None and identity.sha256 == file.sha256 else None
            frames = Frames.open(file.path, identity=known, cancel=cancel)
        except MediaError as error:
            stack.close()
            raise FetchFailed(str(error)) from None
        except BaseException:
            stack.close()
            raise
        stack.callback(frames.close)
        return _Handle(frames, stack)

    def _give_back(self, handle: _Handle) -> None:
        closing: list[_Handle] = []
        with self._lock:
            handle.users -= 1
            unused = [k for k, h in self._open.items() if h.users == 0]
            for key in unused[: max(0, len(unused) - self._idle)]:
                closing.append(self._open.pop(key))
        for one in closing:
            one.release.close()

    def close(self) -> None:
        with self._lock:
            handles, self._open = list(self._open.values()), OrderedDict()
        for handle in handles:
            handle.release.close()


def check_video(path: str, max_pixels: int) -> None:
    """Look at the header before a frame is decoded. Raises FetchFailed."""
    try:
        with av.open(path) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise FetchFailed("The file has no video stream; use MP4, MKV, WebM, AVI or MOV.")
            width, height = stream.codec_context.width, stream.codec_context.height
    except av.FFmpegError as error:
        raise FetchFailed(f"The video cannot be opened: {type(error).__name__}.") from None
    if width * height > max_pixels:
        raise FetchFailed(
            f"The video has {width}x{height} pixels per frame, over the limit of {max_pixels}; "
            "raise EDGETAM_LABEL_MAX_PIXELS if such files are meant."
        )
