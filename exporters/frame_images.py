"""`--images`: the very frames that the masks belong to, by index, checked against the media."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgetam_label.errors import ExportError, MediaError, UsageError
from edgetam_label.frames import Frames

from .dataset import ExportOptions, Video
from .dataset_writer import DatasetWriter


def write_images(
    video: Video,
    path_of: Callable[[Video, int], str],
    options: ExportOptions,
    writer: DatasetWriter,
) -> int:
    """Write every selected frame of `video`; returns how many.

    Raises ExportError if the media is gone or is no longer the media that was annotated.
    """
    with _open(video) as frames:
        dense = len(video.frames) * 4 > video.frames[-1] - video.frames[0]
        wanted = frozenset(video.frames)
        if dense:
            for frame_idx, image in frames.iter(video.frames[0], video.frames[-1] + 1):
                if frame_idx in wanted:
                    writer.write_bytes(path_of(video, frame_idx), encode(image, options))
        else:
            for frame_idx in video.frames:
                image = frames[frame_idx]
                writer.write_bytes(path_of(video, frame_idx), encode(image, options))
    return len(video.frames)


def encode(image: NDArray[np.uint8], options: ExportOptions) -> bytes:
    """JPEG or PNG bytes of a (H, W, 3) RGB image."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if options.images == "png":
        ok, data = cv2.imencode(".png", bgr)
    else:
        ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, options.jpeg_quality])
    if not ok:
        raise ExportError(f"OpenCV could not encode an image of shape {image.shape}.")
    return bytes(data)


def _open(video: Video) -> Frames:
    media = video.session.media
    source: str | list[Path] = media.source
    if media.kind == "images":
        source = [Path(media.source) / name for name in media.names]
    try:
        # An imported dataset without its images has no hash to compare with.
        return Frames.open(source, identity=media if media.sha256 else None)
    except (MediaError, UsageError) as error:
        raise ExportError(
            f"Session {video.session.id}: {error} "
            "Put the original media back, or export without --images."
        ) from error
