"""Image files or arrays as the frames of a video: their identity and their reader."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgetam_label.errors import MediaError, UsageError
from edgetam_label.frame_readers import Image, ImageReader
from edgetam_label.image_files import check_array, image_size, read_image
from edgetam_label.media_identity import MediaIdentity, Work, sha256_of_file


def images_from_files(
    paths: list[Path], kind: str, source: str, work: Work
) -> tuple[MediaIdentity, ImageReader]:
    sizes = [path.stat().st_size for path in paths]
    work.total = sum(sizes)
    width, height = image_size(paths[0])
    lines = []
    for path in paths:
        seen = image_size(path)
        if seen != (width, height):
            raise MediaError(
                f"{path} has {seen[0]}x{seen[1]} pixels, {paths[0].name} has {width}x{height}; "
                "all frames must have one size: scale them, or open images one by one."
            )
        lines.append((path.name, sha256_of_file(path, work.advance)))
    sha256 = lines[0][1] if kind == "image" else _digest_of_lines(lines)
    names = tuple(path.name for path in paths)
    identity = MediaIdentity(
        source, kind, sum(sizes), sha256, width, height, *_count_table(len(paths)), names
    )
    return identity, ImageReader(lambda idx: read_image(paths[idx]), width, height)


def images_from_arrays(arrays: list[Image], work: Work) -> tuple[MediaIdentity, ImageReader]:
    images = [check_array(array, i) for i, array in enumerate(arrays)]
    height, width = images[0].shape[:2]
    work.total = sum(image.nbytes for image in images)
    lines = []
    for i, image in enumerate(images):
        if image.shape != images[0].shape:
            raise UsageError(
                f"Image {i} of the list is {image.shape[1]}x{image.shape[0]} pixels, image 0 is "
                f"{width}x{height}; all frames must have one size."
            )
        lines.append((f"{i:05d}", hashlib.sha256(image.tobytes()).hexdigest()))
        work.advance(image.nbytes)
    names = tuple(name for name, _ in lines)
    identity = MediaIdentity(
        "",
        "images",
        work.total,
        _digest_of_lines(lines),
        width,
        height,
        *_count_table(len(images)),
        names,
    )
    return identity, ImageReader(lambda idx: images[idx].copy(), width, height)


def _count_table(count: int) -> tuple[int, tuple[int, ...], tuple[int, int]]:
    """num_frames, pts and time base of images: 25 per second, as frame folders usually are."""
    return count, tuple(range(count)), (1, 25)


def _digest_of_lines(lines: list[tuple[str, str]]) -> str:
    text = "".join(f"{name} {digest}\n" for name, digest in lines)
    return hashlib.sha256(text.encode()).hexdigest()
