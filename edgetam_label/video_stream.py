"""One open video file: its packets and frames in order, with what to do when it is damaged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

from edgetam_label.errors import MediaError

logger = logging.getLogger(__name__)

# Demuxers of single local files. Playlists, image patterns and network protocols are left out:
# a crafted file must not make the decoder open other files or addresses.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,flv,ogg,asf,gif,apng,h264,hevc,"
    "m4v,ivf,obu,av1,vvc,mxf,nut,mjpeg,yuv4mpegpipe,rm,dv,wtv,gxf,swf,amr,mp3,wav,flac,aac,ac3"
)


class DamagedStream(Exception):
    """A packet or frame turned out damaged while several threads were decoding."""


class VideoStream:
    """The picture track of one file: packets and decoded frames in order, and seeking.

    damaged: a packet or frame could not be decoded; from then on one thread decodes, because
    frame threads may lose intact neighbours of a damaged frame.
    """

    def __init__(self, path: Path, *, threaded: bool = True) -> None:
        self.path = path
        self.threaded = threaded
        self.position = 0  # bytes of the file read so far, for progress
        self._open()

    def _open(self) -> None:
        self.damaged = False
        self.container = open_container(self.path)
        stream = picture_stream(self.container)
        if stream is None:
            self.container.close()
            raise MediaError(
                f"{self.path} has no picture track; give a file with video, not sound alone."
            )
        if self.threaded:
            stream.thread_type = "AUTO"
            # Report damage instead of painting over it: what is painted depends on what was
            # decoded before, so it must always be decoded from the beginning.
            stream.codec_context.options = {"err_detect": "explode"}
        else:
            stream.thread_type = "NONE"
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
        self.damaged = True

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
        """Frames in presentation order from the beginning.

        Raises DamagedStream at the first damage if several threads decode, since what they lose
        is not reproducible; with one thread, damaged packets are passed over.
        """
        for packet in self.packets():
            yield from self._decode(packet, expect_damage=False)

    def decoded_after_seek(self) -> Iterator[VideoFrame]:
        """Frames in presentation order from the first key frame after a seek, all of them clean.

        In an open group of pictures some frames follow the key frame in the file but are shown
        before it: they lack their references here, and are left out or come out as errors.
        Raises DamagedStream as `decoded` does.
        """
        key: Any | None = None
        leading = clean = False
        for packet in self.packets():
            if key is None and not packet.is_keyframe:
                continue
            key = key or packet
            leading = leading or _shown_before(packet, key)
            for frame in self._decode(packet, expect_damage=leading and not clean):
                clean = clean or (frame.key_frame and not frame.is_corrupt)
                if clean:
                    yield frame

    def _decode(self, packet: Any, *, expect_damage: bool) -> list[VideoFrame]:
        if packet.is_corrupt:
            self._note_damage()
        try:
            return list(self.stream.codec_context.decode(packet))
        except EOFError:
            return []
        except (av.error.InvalidDataError, av.error.UndefinedError, av.error.PatchWelcomeError):
            if not expect_damage:
                self._note_damage()
            return []
        except av.error.FFmpegError as error:
            raise MediaError(
                f"{self.path} cannot be decoded ({error.strerror}); convert it with "
                f"`ffmpeg -i {self.path.name} -c:v libx264 out.mp4`."
            ) from error

    def _note_damage(self) -> None:
        self.damaged = True
        if self.threaded:
            raise DamagedStream

    def close(self) -> None:
        self.container.close()


def _shown_before(packet: Any, key: Any) -> bool:
    return packet.pts is not None and key.pts is not None and packet.pts < key.pts


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
