"""One open video file, decoded in order; frames are told apart by their place in a pts table.

Nothing here computes a frame number from a frame rate, and no frame count in a header is
believed: see `video_index` for how the table is made.
"""

from __future__ import annotations

import bisect
import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from edgetam_label.errors import MediaError

logger = logging.getLogger(__name__)

# Demuxers of single local files. Playlists, image patterns and network protocols are left out:
# a crafted file must not make the decoder open other files or addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,ogg,asf,gif,apng,h264,hevc,"
    "m4v,ivf,obu,av1,vvc,mxf,nut,mjpeg,yuv4mpegpipe,rm,dv,wtv,gxf,swf,amr,mp3,wav,flac,aac,ac3"
)
_SEEK_BACK_S = (0.0, 2.0, 10.0)  # a seek may land late (MPEG-TS does): try again this much earlier
_MAX_FORWARD = 64  # frames worth decoding in order rather than seeking, when key frames are unknown


class DamagedStream(Exception):
    """A packet or frame turned out damaged while several threads were decoding."""


@dataclass(frozen=True)
class FrameTable:
    """The index -> pts table that numbers decoded frames.

    pts: as in `MediaIdentity`. by_pts: timestamps are real and strictly increasing, so a frame can
    be recognised after a seek; otherwise frames are counted from the beginning.
    key_frames: sorted indices at which decoding can start, () if unknown.
    """

    pts: tuple[int, ...]
    by_pts: bool
    key_frames: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.pts)

    def find(self, pts: int | None) -> int | None:
        """Index of the frame with exactly this timestamp, or None."""
        if pts is None:
            return None
        idx = bisect.bisect_left(self.pts, pts)
        return idx if idx < len(self.pts) and self.pts[idx] == pts else None

    def decodes_through(self, position: int, target: int) -> bool:
        """Whether decoding on from `position` reaches `target` no later than a seek would."""
        if target < position:
            return False
        if not self.by_pts:
            return True
        if not self.key_frames:
            return target - position <= _MAX_FORWARD
        return self.key_frames[bisect.bisect_right(self.key_frames, target) - 1] <= position


class VideoStream:
    """The picture track of one file: packets and decoded frames in order, and seeking.

    damaged: a packet or frame could not be decoded; from then on one thread decodes, because
    frame threads may lose intact neighbours of a damaged frame.
    """

    def __init__(self, path: Path, *, threaded: bool = True) -> None:
        self.path = path
        self.threaded = threaded
        self.damaged = False
        self.position = 0  # bytes of the file read so far, for progress
        self._open()

    def _open(self) -> None:
        self.container = open_container(self.path)
        stream = picture_stream(self.container)
        if stream is None:
            self.container.close()
            raise MediaError(
                f"{self.path} has no picture track; give a file with video, not sound alone."
            )
        stream.thread_type = "AUTO" if self.threaded else "NONE"
        if not self.threaded:
            stream.codec_context.thread_count = 1
        self.stream: Any = stream

    @property
    def time_base(self) -> tuple[int, int]:
        base = self.stream.time_base
        return (base.numerator, base.denominator) if base else (1, 25)

    def restart(self) -> None:
        """Back to the first packet, with a fresh decoder."""
        self.container.close()
        self._open()

    def use_one_thread(self) -> None:
        """Start over, decoding in one thread from now on."""
        self.threaded = False
        self.restart()

    def seek(self, pts: int) -> bool:
        """Move to a packet from which the frame at `pts` may be decodable; False if impossible."""
        try:
            self.container.seek(pts, stream=self.stream, backward=True, any_frame=False)
        except (av.error.FFmpegError, OverflowError):
            return False
        return True

    def packets(self) -> Iterator[Any]:
        """Packets up to the end or to the point where the file breaks off; the last is a flush."""
        try:
            for packet in self.container.demux(self.stream):
                self.position = max(self.position, packet.pos or 0)
                yield packet
        except (av.error.FFmpegError, EOFError) as error:
            logger.debug("%s breaks off while reading: %s", self.path, error)
            self.damaged = True

    def decoded(self) -> Iterator[VideoFrame]:
        """Frames in presentation order from the present position.

        Raises DamagedStream at the first damage if several threads decode, since what they lose
        is not reproducible; with one thread, damaged packets are passed over.
        """
        for packet in self.packets():
            if packet.is_corrupt:
                self._note_damage()
            try:
                frames = self.stream.codec_context.decode(packet)
            except EOFError:
                return
            except (av.error.InvalidDataError, av.error.UndefinedError, av.error.PatchWelcomeError):
                self._note_damage()
                continue
            except av.error.FFmpegError as error:
                raise MediaError(
                    f"{self.path} cannot be decoded ({error.strerror}); convert it with "
                    f"`ffmpeg -i {self.path.name} -c:v libx264 out.mp4`."
                ) from error
            yield from frames

    def _note_damage(self) -> None:
        self.damaged = True
        if self.threaded:
            raise DamagedStream

    def close(self) -> None:
        self.container.close()


class VideoDecoder:
    """Numbered frames of one file, from any index on."""

    def __init__(self, path: Path, table: FrameTable, *, threaded: bool = True) -> None:
        self._stream = VideoStream(path, threaded=threaded)
        self.table = table

    def frames_from(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        """(index, frame) in order from some index <= start up to the last frame of the table.

        A frame of the table that cannot be decoded (damaged file) repeats the one before it, as a
        player would show it. Frames that the table does not know are passed over.
        """
        reached = -1
        try:
            for idx, frame in self._frames_from(start):
                yield idx, frame
                reached = idx
        except DamagedStream:
            self._stream.use_one_thread()
            again = (item for item in self._frames_from(start) if item[0] > reached)
            yield from again

    def _frames_from(self, start: int) -> Iterator[tuple[int, VideoFrame]]:
        if not self.table.by_pts:
            self._stream.restart()
            yield from zip(range(len(self.table)), self._stream.decoded(), strict=False)
            return
        for landing, frames in self._landings(start):
            if landing <= start:
                yield from self._fill(landing, frames)
                return
        raise MediaError(
            f"{self._stream.path} no longer yields the frames that were indexed; was the file "
            "changed? Start a new session on it."
        )

    def _landings(self, start: int) -> Iterator[tuple[int, Iterator[tuple[int, VideoFrame]]]]:
        """Ever earlier places to decode from: (first index that comes out, numbered frames)."""
        numerator, denominator = self._stream.time_base
        goal = self.table.pts[start]
        if start > 0:
            for seconds in _SEEK_BACK_S:
                pts = goal - round(seconds * denominator / numerator)
                if pts < self.table.pts[0] or not self._stream.seek(pts):
                    break
                frames = self._numbered(after_seek=True)
                if (first := next(frames, None)) is not None:
                    yield first[0], _chain(first, frames)
                self._stream.restart()
        self._stream.restart()
        frames = self._numbered(after_seek=False)
        if (first := next(frames, None)) is not None:
            # Whatever the table holds before the first decodable frame shows that frame.
            yield 0, _chain((0, first[1]), _chain(first, frames))

    def _numbered(self, *, after_seek: bool) -> Iterator[tuple[int, VideoFrame]]:
        # After a seek into an open group of pictures, frames that come out before the key frame
        # lack their references; only from the key frame on are pixels those of in-order decoding.
        clean = not after_seek
        for frame in self._stream.decoded():
            clean = clean or (frame.key_frame and not frame.is_corrupt)
            idx = self.table.find(frame.pts)
            if clean and idx is not None:
                yield idx, frame

    def _fill(
        self, landing: int, frames: Iterator[tuple[int, VideoFrame]]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Number without gaps from `landing` to the end of the table."""
        expected, shown = landing, None
        for idx, frame in frames:
            if idx < expected:
                continue
            for missing in range(expected, idx):
                yield missing, shown if shown is not None else frame
            yield idx, frame
            expected, shown = idx + 1, frame
        if shown is not None:
            for missing in range(expected, len(self.table)):
                yield missing, shown

    def close(self) -> None:
        self._stream.close()


def _chain(
    first: tuple[int, VideoFrame], rest: Iterator[tuple[int, VideoFrame]]
) -> Iterator[tuple[int, VideoFrame]]:
    yield first
    yield from rest


def open_container(path: Path) -> Any:
    """Open a local media file for reading. Raises MediaError with what to do."""
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        return av.open(f"file:{path}", mode="r", options=options)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise MediaError(_why_unreadable(path, error)) from error


def picture_stream(container: Any) -> Any | None:
    """The best video stream that is not cover art, or None."""
    streams = [s for s in container.streams.video if not _is_cover(s)]
    best = container.streams.best("video")
    return best if best in streams else (streams[0] if streams else None)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _why_unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path} does not exist; check the path."
    if path.stat().st_size == 0:
        return f"{path} is empty (0 bytes); copy or download it again."
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as denied:
        return f"{path} cannot be read: {denied.strerror}."
    if head[4:8] == b"ftyp":
        return (
            f"{path} is an MP4 without its index (moov): the recording or download was cut off. "
            "Fetch it again, or repair it with the camera's software."
        )
    if b"\0" not in head:
        return f"{path} is a text file, not a video; give a video file or a folder of images."
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"{path} is not a video that can be read ({reason}); convert it with "
        f"`ffmpeg -i {path.name} -c:v libx264 out.mp4`."
    )


def display_size(frame: VideoFrame) -> tuple[int, int]:
    """(width, height) after the frame's display matrix."""
    turns, _ = _orientation(frame)
    return (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)


def frame_bytes(frame: VideoFrame) -> int:
    """Memory that a decoded frame holds."""
    return sum(plane.buffer_size for plane in frame.planes)


def to_rgb(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB after the display matrix; a frame of another size is scaled."""
    turns, flip = _orientation(frame)
    coded = (height, width) if turns % 2 else (width, height)
    rgb = frame.reformat(width=coded[0], height=coded[1], format="rgb24").to_ndarray()
    if flip:
        rgb = rgb[:, ::-1]
    if turns:
        rgb = np.rot90(rgb, turns)
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """(counter-clockwise quarter turns, mirror first) of the display matrix, nearest right angle.

    The matrix is nine 32-bit integers; its upper-left 2x2 part (a, b; c, d) maps a stored pixel
    (x, y) to the shown (a*x + c*y, b*x + d*y) (ISO/IEC 14496-12, 6.2.2).
    """
    side_data: Any = frame.side_data  # keyed by type, though its annotation says by name
    data = side_data.get(SideDataType.DISPLAYMATRIX)
    if data is None:
        return 0, False
    a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
    flip = a * d - b * c < 0
    if flip:
        a, b = -a, -b
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), flip
    return (3 if b > 0 else 1), flip
