"""`Frames`: a video file, a folder of images or a list of images, indexed by exact frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetam_label.closing import Closing
from edgetam_label.errors import MediaError, UsageError
from edgetam_label.frame_readers import Image, Reader, VideoReader
from edgetam_label.image_files import is_image, list_images
from edgetam_label.image_frames import images_from_arrays, images_from_files
from edgetam_label.media_identity import (
    Cancel,
    MediaIdentity,
    Progress,
    Work,
    sha256_of_file,
)
from edgetam_label.video_index import IndexMode, build_index, known_index

__all__ = ["Frames", "MediaIdentity"]

logger = logging.getLogger(__name__)

Source = str | Path | Sequence[str | Path | Image]

CACHE_BYTES = 192 << 20
"""Default budget for decoded frames that a handle keeps, and for a chunk of backward iteration."""


class Frames(Closing):
    """Frames of a video or of images by exact index: (H, W, 3) RGB uint8, original display size.

    `frames[i]` is the same pixels however it was reached. Memory is bounded by `cache_bytes` and
    the integers of the index, whatever the length of the video. One handle may be shared by
    threads; every iterator decodes on its own.

    warnings: sentences about damage or oddities that a person should read, () normally.
    """

    def __init__(
        self, identity: MediaIdentity, reader: Reader, warnings: tuple[str, ...] = ()
    ) -> None:
        self.identity = identity
        self.warnings = warnings
        self._reader = reader

    @classmethod
    def open(
        cls,
        source: Source,
        *,
        identity: MediaIdentity | None = None,
        index: IndexMode = "auto",
        cache_bytes: int = CACHE_BYTES,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Frames:
        """Open a video file, an image, a folder of images, or a list of image paths or RGB arrays.

        identity: what a session stored about this media: the index pass is skipped after the
            content was found unchanged (by its SHA-256).
        index: "decode" builds the index of a video by decoding all of it even where its packets
            are known to give the same index.
        progress: called with (done, total) bytes. cancel: polled; True raises Cancelled.
        Raises UsageError for a source of the wrong kind, MediaError if it cannot be read or is
        not the media that `identity` describes.
        """
        work = Work(progress, cancel)
        if not isinstance(source, (str, Path)):
            opened = _open_list(list(source), work)
        else:
            path = _local_path(source)
            if path.is_dir():
                opened = _open_folder(path, work)
            elif is_image(path):
                opened = cls(*images_from_files([path], "image", str(path), work))
            else:
                opened = _open_video(path, identity, index, cache_bytes, work)
        if identity is not None:
            _check_same(identity, opened.identity)
        for sentence in opened.warnings:
            logger.warning("%s", sentence)
        return opened

    @property
    def width(self) -> int:
        return self.identity.width

    @property
    def height(self) -> int:
        return self.identity.height

    @property
    def fps(self) -> float:
        """Average frames per second, for display only."""
        return self.identity.fps

    def __len__(self) -> int:
        return self.identity.num_frames

    def __getitem__(self, frame_idx: int) -> Image:
        """(H, W, 3) RGB, the caller's own copy. Raises UsageError outside 0 <= frame_idx < len."""
        self.identity.check_index(frame_idx)
        return self._reader.read(frame_idx)

    def __iter__(self) -> Iterator[Image]:
        return (image for _, image in self.iter())

    def iter(
        self, start: int | None = None, stop: int | None = None, step: int = 1
    ) -> Iterator[tuple[int, Image]]:
        """(frame_idx, image) for range(start, stop, step), decoded as they are asked for.

        step: 1, or -1 for backward; `stop` is exclusive, as in range(). Left out, start and stop
        are the ends of the video. Memory is bounded in both directions.
        Raises UsageError for an index outside the video or another step.
        """
        if step not in (1, -1):
            raise UsageError(f"Frames can be iterated by step 1 or -1, not {step}.")
        first, end = (0, len(self)) if step == 1 else (len(self) - 1, -1)
        start, stop = first if start is None else start, end if stop is None else stop
        wanted = range(start, stop, step)
        if not wanted:
            return iter(())
        self.identity.check_index(wanted[0])
        self.identity.check_index(wanted[-1])
        return self._reader.forward(wanted) if step == 1 else self._reader.backward(wanted)

    def close(self) -> None:
        """Release the file and the cache; iterators under way keep their own handle."""
        self._reader.close()


def _local_path(source: str | Path) -> Path:
    if "://" in str(source):
        raise UsageError(
            f"{source} is an address, not a file; download it and give the file's path."
        )
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise MediaError(f"{path} does not exist; check the path.")
    if not path.is_file() and not path.is_dir():
        raise MediaError(f"{path} is not a regular file; copy the video to a file first.")
    return path


def _open_video(
    path: Path, known: MediaIdentity | None, mode: IndexMode, budget: int, work: Work
) -> Frames:
    size_bytes = path.stat().st_size
    if known is not None and known.size_bytes != size_bytes:
        raise _changed(known, str(path), f"{size_bytes} bytes", f"{known.size_bytes} bytes")
    work.total = size_bytes * (1 if known else 2)
    sha256 = sha256_of_file(path, work.advance)
    if known is not None:
        found = known_index(path, known.pts, known.time_base, (known.width, known.height))
        identity = replace(known, source=str(path), sha256=sha256)
    else:
        found = build_index(path, mode, lambda position: work.reach(size_bytes + position))
        work.reach(2 * size_bytes)
        shown, pts = found.display, found.table.pts
        identity = MediaIdentity(
            str(path),
            "video",
            size_bytes,
            sha256,
            shown.width,
            shown.height,
            len(pts),
            pts,
            found.time_base,
        )
    reader = VideoReader(path, found.table, found.display, not found.damaged, budget)
    return Frames(identity, reader, found.warnings)


def _open_folder(folder: Path, work: Work) -> Frames:
    return Frames(*images_from_files(list_images(folder), "folder", str(folder), work))


def _open_list(items: list[str | Path | Image], work: Work) -> Frames:
    if not items:
        raise UsageError("The list of images is empty; give at least one image.")
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if not arrays:
        paths = [_local_path(item) for item in items if not isinstance(item, np.ndarray)]
        parents = {path.parent for path in paths}
        source = str(parents.pop()) if len(parents) == 1 else str(paths[0])
        return Frames(*images_from_files(paths, "images", source, work))
    if len(arrays) != len(items):
        raise UsageError("The list mixes image files and arrays; give one kind only.")
    return Frames(*images_from_arrays(arrays, work))


def _check_same(known: MediaIdentity, found: MediaIdentity) -> None:
    if known.kind != found.kind and not {known.kind, found.kind} <= {"folder", "images"}:
        raise _changed(known, found.source, f"a {found.kind}", f"a {known.kind}")
    if known.sha256 != found.sha256:
        seen, wanted = (f"SHA-256 {sha[:12]}…" for sha in (found.sha256, known.sha256))
        raise _changed(known, found.source, seen, wanted)


def _changed(known: MediaIdentity, source: str, seen: str, wanted: str) -> MediaError:
    return MediaError(
        f"{source or 'The list of images'} is not the media of this session any more: it has "
        f"{seen}, the session was made on {known.source or 'images'} with {wanted}. "
        "Restore the original, or start a new session."
    )
