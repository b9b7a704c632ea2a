"""A session as pictures: the video with its masks drawn on it, or a sheet of some of its frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from PIL import Image as PillowImage

from edgetam_label.errors import Cancelled, ExportError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.media_identity import Cancel, Progress
from edgetam_label.overlay import Image, MaskLayer, OverlayPainter
from edgetam_label.prompts import Prompt
from edgetam_label.session_types import FrameMask, LabelObject

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
# Visually lossless enough to judge mask edges, at the speed of a preview.
_X264 = {"crf": "20", "preset": "veryfast"}
_BT709, _LIMITED = 1, 1  # ITU-T H.273: colour description of what is written


def render_video(
    frames: Frames,
    masks: Iterable[FrameMask],
    objects: Sequence[LabelObject],
    out_path: str | Path,
    *,
    prompts: Sequence[Prompt] = (),
    start: int = 0,
    stop: int | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Write frames start <= i < stop with masks, names and prompts as H.264, at their exact times.

    masks: ordered by frame_idx (`SessionStore.iter_masks` with order "frame"); read as a stream.
    progress: called with (done, total) frames. Odd sizes grow by one pixel, as H.264 demands.
    Raises Cancelled if `cancel` says so, UsageError for an unusable path, range or mask order,
    ExportError if the file cannot be written; then nothing is left behind.
    """
    out = _checked_path(out_path, VIDEO_SUFFIXES)
    stop = len(frames) if stop is None else stop
    if not 0 <= start < stop <= len(frames):
        raise UsageError(
            f"Frames {start} to {stop} cannot be rendered: the video has frames 0 to "
            f"{len(frames) - 1}; give a range inside it."
        )
    drawing = _Drawing(frames, masks, objects, prompts)
    with _replacing(out) as temporary, _Encoder(temporary, frames, start) as encoder:
        for idx, image in frames.iter(start, stop):
            if cancel is not None and cancel():
                raise Cancelled(f"Rendering {out.name} was cancelled; no file was written.")
            encoder.add(idx, drawing.draw(idx, image))
            if progress is not None:
                progress(idx - start + 1, stop - start)
    return out


def write_contact_sheet(
    frames: Frames,
    masks: Iterable[FrameMask],
    objects: Sequence[LabelObject],
    out_path: str | Path,
    *,
    count: int = 12,
    columns: int = 4,
    tile_width: int = 480,
    prompts: Sequence[Prompt] = (),
) -> Path:
    """Write a PNG of `count` evenly spaced frames with masks and frame numbers, row by row.

    masks: ordered by frame_idx; read as a stream. Raises UsageError and ExportError as
    `render_video` does.
    """
    out = _checked_path(out_path, (".png",))
    if min(count, columns, tile_width) < 1:
        raise UsageError(
            f"A contact sheet of {count} frames in {columns} columns of {tile_width} pixels is "
            "impossible; give numbers of at least 1."
        )
    picks = sorted({round(i) for i in np.linspace(0, len(frames) - 1, min(count, len(frames)))})
    drawing = _Drawing(frames, masks, objects, prompts, shrink=frames.width / tile_width)
    height = max(1, round(frames.height * tile_width / frames.width))
    columns = min(columns, len(picks))
    rows = -(-len(picks) // columns)
    sheet = np.full((rows * height, columns * tile_width, 3), 24, dtype=np.uint8)
    for place, idx in enumerate(picks):
        drawn = drawing.draw(
            idx, frames[idx], caption=f"{idx}  {frames.identity.time_of(idx):.2f} s"
        )
        tile = PillowImage.fromarray(drawn).resize(
            (tile_width, height), PillowImage.Resampling.LANCZOS
        )
        y, x = place // columns * height, place % columns * tile_width
        sheet[y : y + height, x : x + tile_width] = np.asarray(tile)
    return write_png(sheet, out)


def write_png(image: Image, out_path: str | Path) -> Path:
    """Write (H, W, 3) RGB, (H, W) grey or bool, all or nothing. Raises UsageError, ExportError."""
    out = _checked_path(out_path, (".png",))
    pixels = image.astype(np.uint8) * 255 if image.dtype == bool else image
    with _replacing(out) as temporary:
        PillowImage.fromarray(pixels).save(temporary, format="PNG")
    return out


class _Drawing:
    """Draws the masks of a stream on the frames they belong to, asked for in order."""

    def __init__(
        self,
        frames: Frames,
        masks: Iterable[FrameMask],
        objects: Sequence[LabelObject],
        prompts: Sequence[Prompt],
        shrink: float = 1.0,
    ) -> None:
        # What will be shown smaller is written larger.
        self._painter = OverlayPainter(round(frames.height * max(1.0, shrink)))
        self._masks = _by_frame(masks)
        self._next = next(self._masks, None)
        self._objects: Mapping[int, LabelObject] = {o.obj_id: o for o in objects}
        self._prompts = prompts

    def draw(self, frame_idx: int, image: Image, caption: str = "") -> Image:
        masks = sorted(self._masks_on(frame_idx), key=lambda mask: mask.obj_id)
        layers = [self._layer(mask) for mask in masks if mask.rle.area]
        prompts = [prompt for prompt in self._prompts if prompt.frame_idx == frame_idx]
        colors = {obj_id: known.color for obj_id, known in self._objects.items()}
        return self._painter.draw(image, layers, prompts, colors=colors, caption=caption)

    def _masks_on(self, frame_idx: int) -> Sequence[FrameMask]:
        while self._next is not None and self._next[0] < frame_idx:
            self._next = next(self._masks, None)
        return self._next[1] if self._next is not None and self._next[0] == frame_idx else ()

    def _layer(self, mask: FrameMask) -> MaskLayer:
        known = self._objects.get(mask.obj_id) or LabelObject(mask.obj_id, "object")
        return MaskLayer(mask.rle.decode(), known.color, f"{known.obj_id} {known.label}")


def _by_frame(masks: Iterable[FrameMask]) -> Iterator[tuple[int, list[FrameMask]]]:
    last = -1
    for frame_idx, group in groupby(masks, key=lambda mask: mask.frame_idx):
        if frame_idx < last:
            raise UsageError(
                f"Masks must come in frame order, but frame {frame_idx} follows frame {last}; "
                "read them with order 'frame'."
            )
        last = frame_idx
        yield frame_idx, list(group)


class _Encoder:
    """An H.264 file that gets frames one by one, each with its own timestamp."""

    def __init__(self, path: Path, frames: Frames, start: int) -> None:
        self._identity = frames.identity
        self._first = frames.identity.pts[start]
        self._last = -1
        self._time_base = Fraction(*frames.identity.time_base)
        suffix = path.suffixes[-2]  # ".mp4" of "name.mp4.part"
        format_name = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}[suffix]
        options = {} if suffix == ".mkv" else {"movflags": "faststart"}
        self._container = av.open(f"file:{path}", "w", format=format_name, options=options)
        self._stream = self._new_stream(frames)

    def _new_stream(self, frames: Frames) -> Any:
        rate = Fraction(frames.fps).limit_denominator(1001)
        stream: Any = self._container.add_stream("libx264", rate=max(rate, Fraction(1, 1001)))
        stream.width, stream.height = (side + side % 2 for side in (frames.width, frames.height))
        stream.pix_fmt = "yuv420p"
        stream.options = dict(_X264)
        stream.codec_context.time_base = self._time_base
        stream.codec_context.color_range = _LIMITED
        stream.codec_context.colorspace = _BT709
        stream.codec_context.color_primaries = _BT709
        stream.codec_context.color_trc = _BT709
        return stream

    def add(self, idx: int, image: Image) -> None:
        odd = (0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)
        even = np.pad(image, odd, mode="edge") if odd[0][1] or odd[1][1] else image
        frame = VideoFrame.from_ndarray(even, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709
        )
        # Two frames of a damaged file may carry one timestamp; an encoder takes it only once.
        self._last = max(self._identity.pts[idx] - self._first, self._last + 1)
        frame.pts, frame.time_base = self._last, self._time_base
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def _checked_path(out_path: str | Path, suffixes: tuple[str, ...]) -> Path:
    out = Path(out_path).expanduser().absolute()
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"{out} has no usable ending; name the file *{' or *'.join(suffixes)}.")
    if not out.parent.is_dir():
        raise UsageError(f"Folder {out.parent} does not exist; create it or choose another.")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; give the name of a file.")
    return out


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A temporary file beside `out` that takes its place on success and vanishes otherwise."""
    temporary = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix.lower()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:  # av's errors about files are OSErrors as well
        raise ExportError(
            f"{out} could not be written ({error.strerror or error}); free space or choose another "
            "place and run again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
