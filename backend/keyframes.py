"""Sparse keyframes of a track: as few as linear interpolation allows.

Label Studio draws a video rectangle from keyframes and interpolates x, y, width and height
linearly between them, which is the same as interpolating the four edges. A keyframe with
`enabled: false` is the last frame on which the object is seen; after a last keyframe that is
enabled the object stays to the end. Boxes here are pixels (x0, y0, x1, y1) and frames 0-based;
percent and 1-based frames are made where results are written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgetam_label.errors import UsageError

BoxXYXY = tuple[float, float, float, float]
LONGEST_STEP = 256  # frames; the search is exact for steps up to this
_BLOCK = 1024  # interpolated boxes tested at once


@dataclass(frozen=True)
class Keyframe:
    """One keyframe. frame_idx: 0-based. box: pixels. enabled: seen after this frame as well."""

    frame_idx: int
    box: BoxXYXY
    enabled: bool = True


def sparse_keyframes(
    boxes: Mapping[int, BoxXYXY],
    *,
    tolerance: float = 0.9,
    num_frames: int | None = None,
    pinned: Mapping[int, BoxXYXY] | None = None,
) -> tuple[Keyframe, ...]:
    """The smallest set of keyframes whose interpolation has IoU >= tolerance on every frame.

    boxes: the box on each frame that shows the object; frames left out do not show it.
    tolerance: least IoU between the interpolated and the true box, 0 < tolerance <= 1.
    num_frames: length of the video; an object seen on its last frame is left enabled there.
    pinned: the annotator's own keyframes: each is kept, with its box, which replaces the tracked
    one on that frame. Smallest means: no smaller subset of frames, with their own boxes and the
    pinned ones among them, reaches the tolerance by steps of at most LONGEST_STEP frames; longer
    steps are taken where joining steps allows.
    Returns keyframes by frame; no boxes, no keyframes. Raises UsageError on an impossible
    tolerance or on a box that is empty or not finite.
    """
    if not 0 < tolerance <= 1:
        raise UsageError(f"The IoU tolerance must be over 0 and at most 1, got {tolerance:g}.")
    fixed = dict(pinned or {})
    truth = {**boxes, **fixed}
    frames = sorted(truth)
    for frame in frames:
        _check_box(frame, truth[frame])
    keyframes: list[Keyframe] = []
    for span in _spans(frames):
        stays = num_frames is not None and span[-1] == num_frames - 1
        edges = np.asarray([truth[frame] for frame in span], dtype=np.float64)
        stops = sorted({0, len(span) - 1} | {frame - span[0] for frame in span if frame in fixed})
        picked = [0]
        for start, stop in pairwise(stops):
            picked += [start + i for i in _fewest(edges[start : stop + 1], tolerance)[1:]]
        for i in picked:
            keyframes.append(Keyframe(span[i], truth[span[i]], i < len(span) - 1 or stays))
    return tuple(keyframes)


def interpolate(keyframes: Sequence[Keyframe], frame_idx: int) -> BoxXYXY | None:
    """The box that Label Studio draws on a frame, None where it draws none.

    keyframes: sorted by frame.
    """
    before: Keyframe | None = None
    for keyframe in keyframes:
        if keyframe.frame_idx == frame_idx:
            return keyframe.box
        if keyframe.frame_idx > frame_idx:
            if before is None or not before.enabled:
                return None
            t = (frame_idx - before.frame_idx) / (keyframe.frame_idx - before.frame_idx)
            x0, y0, x1, y1 = (
                a + (b - a) * t for a, b in zip(before.box, keyframe.box, strict=True)
            )
            return x0, y0, x1, y1
        before = keyframe
    return before.box if before is not None and before.enabled else None


def _check_box(frame: int, box: BoxXYXY) -> None:
    if not all(math.isfinite(v) for v in box) or box[0] >= box[2] or box[1] >= box[3]:
        raise UsageError(
            f"The box {box} on frame {frame} is empty or not finite; leave out the frames "
            "that do not show the object."
        )


def _spans(frames: Sequence[int]) -> list[list[int]]:
    """Sorted frames as runs of consecutive ones."""
    spans: list[list[int]] = []
    for frame in frames:
        if spans and spans[-1][-1] == frame - 1:
            spans[-1].append(frame)
        else:
            spans.append([frame])
    return spans


def _fewest(edges: NDArray[np.float64], tolerance: float) -> list[int]:
    """Indices of a smallest chain 0 .. n-1 whose steps all interpolate within the tolerance.

    edges: (n, 4) boxes. Breadth-first over frames: the first chain to arrive is a shortest one.
    Greedy furthest steps would not be: a longer step may fail where a shorter one before it makes
    the next reach further.
    """
    n = len(edges)
    previous = np.full(n, -1)
    previous[0] = 0
    level = [0]
    while previous[n - 1] < 0:
        following: list[int] = []
        for i in reversed(level):
            wanted = np.flatnonzero(previous[i + 1 : i + 1 + LONGEST_STEP] < 0) + i + 1
            reached = _reachable(edges, i, wanted, tolerance)
            previous[reached] = i
            following += reached.tolist()
            if previous[n - 1] >= 0:
                break
        level = sorted(following)
    chain = [n - 1]
    while chain[-1] != 0:
        chain.append(int(previous[chain[-1]]))
    return _thinned(edges, chain[::-1], tolerance)


def _thinned(edges: NDArray[np.float64], chain: list[int], tolerance: float) -> list[int]:
    """Drop links that only the limit on the length of a step put there."""
    kept = chain[:1]
    for link, following in pairwise(chain[1:]):
        if following - kept[-1] <= LONGEST_STEP:
            kept.append(link)  # the search has looked at this step, and it failed
            continue
        if not len(_reachable(edges, kept[-1], np.asarray([following]), tolerance)):
            kept.append(link)
    return kept + chain[-1:] if len(chain) > 1 else kept


def _reachable(
    edges: NDArray[np.float64], i: int, wanted: NDArray[np.intp], tolerance: float
) -> NDArray[np.intp]:
    """The wanted frames j > i such that interpolating i → j fits every frame between.

    All j are tested together, a few frames between at a time: where boxes move or shake, hardly
    any j outlives the first frames.
    """
    passed: list[NDArray[np.intp]] = []
    alive, k = wanted, i + 1
    while len(alive):
        done = alive <= k
        passed.append(alive[done])
        alive = alive[~done]
        if not len(alive):
            break
        stop = min(k + max(4, _BLOCK // len(alive)), int(alive[-1]))
        alive = alive[_fits(edges, i, alive, k, stop, tolerance)]
        k = stop
    return np.concatenate(passed) if passed else wanted


def _fits(
    edges: NDArray[np.float64],
    i: int,
    ends: NDArray[np.intp],
    start: int,
    stop: int,
    tolerance: float,
) -> NDArray[np.bool_]:
    """Whether i → j has IoU >= tolerance on frames [start, stop) before j, for each end j."""
    frames = np.arange(start, stop)[:, None]
    t = (frames - i) / (ends - i)
    truth = edges[start:stop, None]
    guess = edges[i] + (edges[ends] - edges[i]) * t[:, :, None]
    inner_low = np.maximum(guess[..., :2], truth[..., :2])
    inner_high = np.minimum(guess[..., 2:], truth[..., 2:])
    size = np.maximum(inner_high - inner_low, 0)
    common = size[..., 0] * size[..., 1]
    guess_size, truth_size = guess[..., 2:] - guess[..., :2], truth[..., 2:] - truth[..., :2]
    guess_area = guess_size[..., 0] * guess_size[..., 1]
    truth_area = truth_size[..., 0] * truth_size[..., 1]
    # The slack forgives rounding, so that a box that is exactly on the line passes tolerance 1.
    fits = common >= tolerance * (guess_area + truth_area - common) - 1e-9 * truth_area
    return np.asarray((fits | (frames >= ends)).all(axis=0))
