"""Label Studio's video rectangles: keyframes with linear interpolation, frames counted from 1."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgetam_label.media_identity import MediaIdentity
from edgetam_label.prompts import Box, Prompt

BoxEdges = tuple[float, float, float, float]


@dataclass(frozen=True)
class Keyframe:
    """box: (x0, y0, x1, y1) in pixels. enabled: False on the last frame that shows the object."""

    frame_idx: int
    box: BoxEdges
    enabled: bool = True


def keyframes_of_boxes(boxes: Mapping[int, BoxEdges], frames: Sequence[int]) -> list[Keyframe]:
    """The fewest keyframes, taken greedily, that interpolate to exactly these boxes.

    frames: the frames exported. A frame among them without a box ends a span; frames left out by
    a stride do not. The last span of an object that stays to the end stays open.
    """
    spans: list[list[int]] = []
    current: list[int] = []
    for frame_idx in frames:
        if frame_idx in boxes:
            current.append(frame_idx)
        elif current:
            spans.append(current)
            current = []
    if current:
        spans.append(current)
    keyframes = []
    for span in spans:
        kept = _sparse(span, boxes)
        ends = span[-1] != frames[-1]
        keyframes += [Keyframe(i, boxes[i], not (ends and i == span[-1])) for i in kept]
    return keyframes


def _sparse(span: Sequence[int], boxes: Mapping[int, BoxEdges]) -> list[int]:
    kept = [span[0]]
    for before, here in zip(span[1:-1], span[2:], strict=False):
        if not _is_line(kept[-1], before, here, boxes) or not all(
            _is_line(kept[-1], between, here, boxes)
            for between in span
            if kept[-1] < between < before
        ):
            kept.append(before)
    return kept if len(span) == 1 else [*kept, span[-1]]


def _is_line(first: int, middle: int, last: int, boxes: Mapping[int, BoxEdges]) -> bool:
    part = (middle - first) / (last - first)
    edges = zip(boxes[first], boxes[middle], boxes[last], strict=True)
    return all(abs(a + (c - a) * part - b) < 1e-6 for a, b, c in edges)


def keyframes_of_prompts(prompts: Sequence[Prompt], gone: Collection[int]) -> list[Keyframe]:
    """A keyframe per box prompt; `gone` are frames on which a person said the object is absent."""
    keyframes = []
    for prompt in sorted(prompts, key=lambda item: item.frame_idx):
        assert prompt.box is not None, "only prompts with a box"
        box = prompt.box
        enabled = prompt.frame_idx + 1 not in gone
        keyframes.append(Keyframe(prompt.frame_idx, (box.x0, box.y0, box.x1, box.y1), enabled))
    return keyframes


# The editor shows frame n by seeking 2 ms past (n - 1) / frameRate seconds (measured), whatever the
# true rate of the file is; so both counts meet in time, for variable frame rates too.
SEEK_HAIR = 0.002


def from_ls_frame(media: MediaIdentity, frame: int, fps: float) -> int:
    """The 0-based frame that the editor, counting at `fps`, shows as its 1-based `frame`."""
    return media.frame_at((frame - 1) / fps + SEEK_HAIR)


def to_ls_frame(media: MediaIdentity, frame_idx: int, fps: float) -> int | None:
    """The first 1-based frame by which the editor shows `frame_idx`; None if it skips it."""
    number = max(1, math.ceil((media.time_of(frame_idx) - SEEK_HAIR) * fps - 1e-6) + 1)
    return number if from_ls_frame(media, number, fps) == frame_idx else None


def interpolate(
    keyframes: Sequence[tuple[int, Box, bool]], frames_count: int
) -> Iterator[tuple[int, Box]]:
    """(frame, box) for every 1-based frame on which the editor shows the rectangle.

    Lines between keyframes; nothing after one that is not enabled; a last enabled one stays to
    the end.
    """
    for number, (frame, box, enabled) in enumerate(keyframes):
        yield frame, box
        following = keyframes[number + 1] if number + 1 < len(keyframes) else None
        if not enabled:
            continue
        if following is None:
            for later in range(frame + 1, frames_count + 1):
                yield later, box
            continue
        end, last, _ = following
        for between in range(frame + 1, end):
            yield between, _between(box, last, (between - frame) / (end - frame))


def _between(a: Box, b: Box, part: float) -> Box:
    return Box(
        a.x0 + (b.x0 - a.x0) * part,
        a.y0 + (b.y0 - a.y0) * part,
        a.x1 + (b.x1 - a.x1) * part,
        a.y1 + (b.y1 - a.y1) * part,
    )
