"""The index -> pts table of a video: exactly the frames that decoding yields, in their order.

Decoding everything is the definition. Where one packet is one frame and nothing in the file says
otherwise, the packets alone give the same table hundreds of times faster; both ends of such a table
are then checked against decoded frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

from av.video.frame import VideoFrame

from edgetam_label.errors import MediaError
from edgetam_label.image_files import MAX_PIXELS
from edgetam_label.video_decoder import FrameTable
from edgetam_label.video_pixels import Display
from edgetam_label.video_stream import DamagedStream, VideoStream

IndexMode = Literal["auto", "decode"]
Tick = Callable[[int], None]
"""Told the bytes of the file read so far; may raise to stop the work."""

# Containers that stamp every packet, and codecs in which a packet is always one shown frame.
_STAMPED_FORMATS = frozenset({"mov", "matroska"})
_ONE_TO_ONE_CODECS = frozenset(
    {"h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg", "prores", "ffv1"}
)
_HEAD_FRAMES = 16
_SLACK_S = 0.5  # a header may promise a little more than the frames last


@dataclass(frozen=True)
class VideoIndex:
    """What indexing found out.

    display: as the first frame says. damaged: decode with one thread, from the beginning.
    decoded: the whole file was decoded (and not only its packets read).
    warnings: sentences for people, () for a sound file.
    """

    table: FrameTable
    time_base: tuple[int, int]
    display: Display
    damaged: bool
    decoded: bool
    warnings: tuple[str, ...] = ()


def build_index(path: Path, mode: IndexMode = "auto", tick: Tick | None = None) -> VideoIndex:
    """Index the video at `path`.

    mode: "auto" takes the packets' word where that is provably the same; "decode" never does.
    Raises MediaError if there is no decodable frame, and whatever `tick` raises.
    """
    tick = tick or (lambda _: None)
    stream = VideoStream(path)
    try:
        if mode == "auto" and (index := _index_from_packets(stream, tick)) is not None:
            return index
        stream.restart()
        try:
            return _index_from_frames(stream, tick)
        except DamagedStream:
            stream.use_one_thread()
            return _index_from_frames(stream, tick)
    finally:
        stream.close()


def known_index(
    path: Path, pts: tuple[int, ...], time_base: tuple[int, int], size: tuple[int, int]
) -> VideoIndex:
    """The index of a video from the table of an earlier one, decoding the first frame only.

    size: (width, height) as shown. Raises MediaError if the file shows something else.
    """
    stream = VideoStream(path)
    try:
        first = _first_frame(stream)
        display = _checked_display(stream, first)
        if (display.width, display.height) != size:
            raise MediaError(
                f"{path} shows {display.width}x{display.height} pixels, not {size[0]}x{size[1]} as "
                "before; was it decoded with other software? Start a new session on it."
            )
        # A table of counted frames has another time base than the stream (see `_counted_base`).
        table = FrameTable(pts, time_base == stream.time_base and _increases(pts))
        return VideoIndex(table, time_base, display, damaged=stream.damaged, decoded=False)
    finally:
        stream.close()


def _first_frame(stream: VideoStream) -> VideoFrame:
    try:
        first = next(stream.decoded(), None)
    except DamagedStream:
        stream.use_one_thread()
        first = next(stream.decoded(), None)
    if first is None:
        raise MediaError(f"{stream.path} holds no frame that can be decoded; fetch it again.")
    return first


def _increases(pts: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(pts))


def _index_from_packets(stream: VideoStream, tick: Tick) -> VideoIndex | None:
    """The table by packets alone, or None wherever decoding could yield anything else."""
    formats = set(stream.container.format.name.split(","))
    if not formats & _STAMPED_FORMATS or stream.stream.codec_context.name not in _ONE_TO_ONE_CODECS:
        return None
    rows: list[tuple[int, bool]] = []
    for packet in stream.packets():
        if packet.size == 0 and packet.pts is None:
            continue  # the flush at the end
        if packet.pts is None or packet.size == 0 or packet.is_corrupt or packet.is_discard:
            return None
        rows.append((packet.pts, packet.is_keyframe))
        tick(stream.position)
    # Pictures shown before the first key frame miss their references and may not come out.
    if stream.damaged or not rows or not rows[0][1] or min(rows)[0] != rows[0][0]:
        return None
    rows.sort()
    table = FrameTable(
        tuple(r[0] for r in rows), True, tuple(i for i, r in enumerate(rows) if r[1])
    )
    if not _increases(table.pts) or _promised(stream) > _lasts(table.pts, stream.time_base):
        return None
    return _checked_at_both_ends(stream, table)


def _checked_at_both_ends(stream: VideoStream, table: FrameTable) -> VideoIndex | None:
    try:
        stream.restart()
        head = list(islice(stream.decoded(), _HEAD_FRAMES))
        last_key = table.key_frames[-1]
        stream.restart()
        if last_key and not stream.seek(table.pts[last_key]):
            return None
        frames = stream.decoded_after_seek() if last_key else stream.decoded()
        tail = [frame.pts for frame in frames]
    except DamagedStream:
        return None
    expected = list(table.pts[last_key:])
    if [f.pts for f in head] != list(table.pts[: len(head)]) or tail[-len(expected) :] != expected:
        return None
    if not head or any((f.width, f.height) != (head[0].width, head[0].height) for f in head):
        return None
    display = _checked_display(stream, head[0])
    return VideoIndex(table, stream.time_base, display, damaged=False, decoded=False)


def _index_from_frames(stream: VideoStream, tick: Tick) -> VideoIndex:
    """The table by decoding everything."""
    stamps: list[int | None] = []
    keys: list[int] = []
    sizes: dict[tuple[int, int], int] = {}
    display: Display | None = None
    for frame in stream.decoded():
        display = display or _checked_display(stream, frame)
        sizes.setdefault(display.shown_size(frame), len(stamps))
        if frame.key_frame:
            keys.append(len(stamps))
        stamps.append(frame.pts)
        tick(stream.position)
    if display is None:
        raise MediaError(
            f"{stream.path} holds no frame that can be decoded; the recording or download may be "
            "cut off: fetch it again."
        )
    _, *others = sizes
    table, time_base = _table(stream, stamps, tuple(keys))
    found = _damage_sentences(stream, table)
    if others:
        found += (
            f"{stream.path.name} changes its size to {others[0][0]}x{others[0][1]} at frame "
            f"{sizes[others[0]]}; such frames are scaled to {display.width}x{display.height}.",
        )
    return VideoIndex(
        table, time_base, display, damaged=stream.damaged, decoded=True, warnings=found
    )


def _table(
    stream: VideoStream, stamps: list[int | None], keys: tuple[int, ...]
) -> tuple[FrameTable, tuple[int, int]]:
    known = tuple(p for p in stamps if p is not None)
    if len(known) == len(stamps) and all(a <= b for a, b in pairwise(known)):
        return FrameTable(known, _increases(known), keys), stream.time_base
    return FrameTable(tuple(range(len(stamps))), False), _counted_base(stream)


def _counted_base(stream: VideoStream) -> tuple[int, int]:
    """Seconds per frame where timestamps are missing: display only, never used to find a frame."""
    rate = stream.stream.average_rate or stream.stream.guessed_rate or 25
    base = (rate.denominator, rate.numerator)
    # Unequal to the stream's own base, so that a stored table is recognised as a counted one.
    return (base[0] * 1000, base[1] * 1000) if base == stream.time_base else base


def _damage_sentences(stream: VideoStream, table: FrameTable) -> tuple[str, ...]:
    frames = f"{len(table)} frame" + ("" if len(table) == 1 else "s")
    lasts, promised = _lasts(table.pts, stream.time_base), _promised(stream)
    if table.by_pts and promised > lasts:
        return (
            f"{stream.path.name} is cut off: its header promises {promised:.2f} s, {frames} "
            f"({lasts - _SLACK_S:.2f} s) can be decoded and are used.",
        )
    if stream.damaged:
        return (f"{stream.path.name} is damaged in places; {frames} can be decoded and are used.",)
    return ()


def _lasts(pts: tuple[int, ...], time_base: tuple[int, int]) -> float:
    """Seconds up to the end of the last frame, and the slack that headers are given."""
    last_frame = (pts[-1] - pts[0]) / (len(pts) - 1) if len(pts) > 1 else 0
    return (pts[-1] - pts[0] + last_frame) * time_base[0] / time_base[1] + _SLACK_S


def _promised(stream: VideoStream) -> float:
    """Seconds of picture that the header promises, 0.0 where it says nothing about this track."""
    if stream.stream.duration:
        return float(stream.stream.duration * stream.time_base[0] / stream.time_base[1])
    if stream.container.duration and len(stream.container.streams) == 1:
        return float(stream.container.duration / 1_000_000)
    return 0.0


def _checked_display(stream: VideoStream, frame: VideoFrame) -> Display:
    display = Display.of(frame)
    if display.width * display.height > MAX_PIXELS:
        raise MediaError(
            f"{stream.path} has frames of {display.width}x{display.height} pixels, more than "
            f"{MAX_PIXELS:,}; scale it down."
        )
    return display
