"""Rendered videos and sheets, read back."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import HEIGHT, WIDTH, Clip, read_index
from PIL import Image

from edgetam_label.errors import Cancelled, ExportError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.render import render_video, write_contact_sheet, write_png
from edgetam_label.session_types import FrameMask, LabelObject

OBJECTS = (LabelObject(1, "мяч", "#00ff00"), LabelObject(2, "dog", "#ff00ff"))
STEPS = [i * 40 + (i * i * 7) % 39 for i in range(30)]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frames]:
    clip = Clip("in.mkv", num_frames=30, time_base=Fraction(1, 1000), pts=STEPS)
    with Frames.open(clip.write(tmp_path_factory.mktemp("render"))) as opened:
        yield opened


def square(frame_idx: int, obj_id: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH)) -> FrameMask:
    mask = np.zeros(size, dtype=bool)
    mask[50:90, 10 + 2 * frame_idx : 40 + 2 * frame_idx] = True
    return FrameMask(obj_id, frame_idx, RLE.encode(mask))


def test_a_rendered_video_has_every_frame_at_its_time(frames: Frames, tmp_path: Path) -> None:
    masks = (square(idx) for idx in range(30) if idx != 12)
    done: list[tuple[int, int]] = []
    out = render_video(
        frames, masks, OBJECTS, tmp_path / "o.mp4", progress=lambda *step: done.append(step)
    )
    assert done == [(i, 30) for i in range(1, 31)]
    with Frames.open(out) as seen:
        assert [read_index(image) for image in seen] == [*range(30)]
        times = [seen.identity.time_of(i) for i in range(30)]
        assert times == pytest.approx([step / 1000 for step in STEPS], abs=1e-4)
        for idx in (0, 12, 29):
            tint = seen[idx].astype(int) - frames[idx].astype(int)
            green = tint[60:80, 20 + 2 * idx : 32 + 2 * idx].mean(axis=(0, 1))
            if idx == 12:
                assert np.abs(green).max() < 8, "no mask on this frame, no tint"
            else:
                assert green[1] > 20 > 0 > green[0] and green[2] < 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_part_of_a_video_starts_at_time_zero(frames: Frames, tmp_path: Path) -> None:
    masks = (square(idx) for idx in range(30))
    with Frames.open(render_video(frames, masks, (), tmp_path / "p.mkv", start=7, stop=11)) as seen:
        assert [read_index(image) for image in seen] == [7, 8, 9, 10]
        assert seen.identity.time_of(1) == pytest.approx((STEPS[8] - STEPS[7]) / 1000, abs=1e-3)
    for start, stop in ((5, 5), (0, 31), (-1, 4)):
        with pytest.raises(UsageError, match="the video has frames 0 to 29"):
            render_video(frames, [], (), tmp_path / "q.mp4", start=start, stop=stop)


def test_odd_sizes_and_images_are_rendered(tmp_path: Path) -> None:
    images = [np.full((51, 33, 3), 40 * i, dtype=np.uint8) for i in range(4)]
    out = render_video(Frames.open(images), [], (), tmp_path / "odd.mp4")
    with Frames.open(out) as seen:
        assert (seen.width, seen.height, len(seen)) == (34, 52, 4)
        assert seen.fps == pytest.approx(25)
        assert [int(image.mean() + 5) // 10 * 10 for image in seen] == [0, 40, 80, 120]


def test_cancel_and_failure_leave_what_was_there(frames: Frames, tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    out.write_bytes(b"older")
    calls = iter(range(99))
    with pytest.raises(Cancelled, match="no file was written"):
        render_video(frames, [], (), out, cancel=lambda: next(calls) == 5)
    with pytest.raises(Cancelled):
        render_video(frames, [], (), out, cancel=lambda: True)
    with pytest.raises(UsageError, match="frame 3 follows frame 8; read them with order 'frame'"):
        render_video(frames, [square(2), square(8), square(3)], (), out)
    with pytest.raises(UsageError, match="cannot be drawn"):
        render_video(frames, [square(0, size=(200, 200))], (), out)
    assert out.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1


def test_impossible_outputs_are_refused(frames: Frames, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no usable ending; name the file \*.mp4 or"):
        render_video(frames, [], (), tmp_path / "o.avi")
    with pytest.raises(UsageError, match="Folder .*nowhere does not exist"):
        render_video(frames, [], (), tmp_path / "nowhere" / "o.mp4")
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        render_video(frames, [], (), tmp_path / "d.mp4")


def test_a_place_that_refuses_files_is_named(frames: Frames) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs a file system that refuses new files even from root")
    for write in (
        lambda: write_png(frames[0], "/proc/x.png"),
        lambda: render_video(frames, [], (), "/proc/x.mp4"),
    ):
        with pytest.raises(ExportError, match="/proc/x.* could not be written .* free space"):
            write()


@pytest.mark.parametrize("name", ["big.mp4", "big.mkv", "big.png"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    name: str, frames: Frames, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))  # writing on fails as a full disk does
    try:
        with pytest.raises(ExportError, match=f"{name} could not be written .* free space"):
            if name == "big.png":
                noise = np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)
                write_png(noise, tmp_path / name)
            else:
                render_video(frames, [], (), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_contact_sheet_shows_evenly_spaced_frames(frames: Frames, tmp_path: Path) -> None:
    masks = (square(idx, obj_id) for idx in range(30) for obj_id in (1, 2))
    out = write_contact_sheet(
        frames, masks, OBJECTS, tmp_path / "sheet.png", count=5, columns=3, tile_width=WIDTH
    )
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (2 * HEIGHT, 3 * WIDTH, 3)
    for place, idx in enumerate((0, 7, 14, 22, 29)):
        y, x = place // 3 * HEIGHT, place % 3 * WIDTH
        tile = sheet[y : y + HEIGHT, x : x + WIDTH].astype(int) - frames[idx]
        inside = tile[60:80, 20 + 2 * idx : 32 + 2 * idx].mean(axis=(0, 1))
        assert inside[1] < 0 < inside[0], "the last object lies on top"
    assert (sheet[HEIGHT:, 2 * WIDTH :] == 24).all()
    with pytest.raises(UsageError, match="of 0 frames"):
        write_contact_sheet(frames, [], (), tmp_path / "s.png", count=0)


def test_masks_are_read_as_a_stream(frames: Frames, tmp_path: Path) -> None:
    taken: list[int] = []

    def masks() -> Iterator[FrameMask]:
        for idx in range(30):
            taken.append(idx)
            yield square(idx)

    ahead: list[int] = []
    render_video(
        frames, masks(), (), tmp_path / "o.mp4", progress=lambda i, _: ahead.append(taken[-1] - i)
    )
    assert max(ahead) <= 2


def test_png_of_a_mask_is_black_and_white(tmp_path: Path) -> None:
    mask = square(3).rle.decode()
    written = np.asarray(Image.open(write_png(mask, tmp_path / "m.png")))
    assert np.array_equal(written, mask * np.uint8(255))
