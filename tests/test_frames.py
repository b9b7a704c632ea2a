"""Random access equals sequential decoding, on real clips that carry their index in the pixels."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import HEIGHT, WIDTH, Clip, draw_frame, is_upright, read_index, write_sound

from edgetam_label.errors import Cancelled, MediaError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.video_index import build_index

GOP = {"g": "12", "bf": "2", "sc_threshold": "0"}
VFR = [i * 40 + (i * i * 7) % 39 for i in range(60)]  # milliseconds, uneven steps
OPEN_GOP = "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"
CLIPS = [
    Clip("constant.mp4", options={"g": "12", "bf": "0"}),
    Clip("bframes.mp4", options=GOP),
    Clip("one-group.mp4"),
    Clip("vfr.mp4", options=GOP, time_base=Fraction(1, 1000), pts=VFR),
    Clip("vfr.mkv", options=GOP, time_base=Fraction(1, 1000), pts=VFR),
    Clip("offset.mkv", options=GOP, time_base=Fraction(1, 1000), pts=[p + 2360 for p in VFR]),
    Clip("stream.ts", options=GOP),
    Clip("mpeg2.ts", codec="mpeg2video", options={"g": "12", "bf": "2"}),
    Clip("edited.mp4", options=GOP, start_at=17),
    Clip("open.mp4", options={"x264-params": OPEN_GOP}),
    Clip("open.ts", options={"x264-params": OPEN_GOP}),
    Clip("refresh.mp4", options={"x264-params": "intra-refresh=1:keyint=24:bframes=0"}),
    Clip("vp9.webm", codec="libvpx-vp9", options={"g": "12", "deadline": "realtime"}),
    Clip("vp8.webm", codec="libvpx", options={"g": "12", "auto-alt-ref": "1"}),
    Clip("packed.avi", codec="mpeg4", options={"g": "12", "bf": "2"}),
    Clip("bare.264", options=GOP),
    Clip("right.mp4", options=GOP, rotation=-90, size=(HEIGHT, WIDTH)),
    Clip("left.mp4", options=GOP, rotation=90, size=(HEIGHT, WIDTH)),
    Clip("down.mp4", options=GOP, rotation=180),
    Clip("odd.mkv", codec="ffv1", size=(WIDTH + 1, HEIGHT + 3), pix_fmt="yuv444p"),
    Clip("deep.mp4", pix_fmt="yuv420p10le", options=GOP),
    Clip("full.mp4", pix_fmt="yuvj444p", options=GOP),
    Clip("alpha.mkv", codec="ffv1", pix_fmt="yuva420p"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


def written(clip: Clip, folder: Path) -> Path:
    """The clip's file, coded once for all tests of this module."""
    path = folder / clip.name
    return path if path.exists() else clip.write(folder)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda c: c.name)
def test_random_access_is_sequential_decoding(clip: Clip, folder: Path) -> None:
    path = written(clip, folder)
    with Frames.open(path) as frames:
        straight = {idx: image for idx, image in frames.iter()}
        assert (
            list(straight) == list(range(clip.num_frames - clip.start_at)) == [*range(len(frames))]
        )
        assert [read_index(i) for i in straight.values()] == [
            *range(clip.start_at, clip.num_frames)
        ]
        assert all(is_upright(image) for image in straight.values())
        assert straight[0].shape == (frames.height, frames.width, 3)
        order = [int(i) for i in np.random.default_rng(0).permutation(len(frames))]
        for idx in order[:25]:
            assert np.array_equal(frames[idx], straight[idx]), f"frame {idx} after a seek"
        backward = list(frames.iter(step=-1))
        assert [idx for idx, _ in backward] == [*reversed(straight)]
        assert all(np.array_equal(image, straight[idx]) for idx, image in backward)
    # A stored identity opens the same frames, with nothing cached and no key frames known.
    for idx in (*order[:4], len(straight) - 1):
        with Frames.open(path, identity=frames.identity, cache_bytes=1) as again:
            assert np.array_equal(again[idx], straight[idx]), f"frame {idx}, reopened"
            assert again.identity == frames.identity


@pytest.mark.parametrize("clip", CLIPS, ids=lambda c: c.name)
def test_index_from_packets_equals_index_from_decoding(clip: Clip, folder: Path) -> None:
    path = written(clip, folder)
    quick, full = build_index(path), build_index(path, "decode")
    assert full.decoded
    assert (quick.table.pts, quick.time_base) == (full.table.pts, full.time_base)
    assert quick.display == full.display


def test_usual_files_are_indexed_without_decoding_and_edited_ones_are_not(folder: Path) -> None:
    usual = ("constant.mp4", "bframes.mp4", "vfr.mkv", "vp9.webm")
    clips = {clip.name: clip for clip in CLIPS}
    assert [build_index(written(clips[name], folder)).decoded for name in usual] == [False] * 4
    edited = written(clips["edited.mp4"], folder)
    with av.open(str(edited)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert container.streams.video[0].frames == 60 > 43
    assert len(packets) > 43
    assert build_index(edited).decoded and len(Frames.open(edited)) == 43


def test_variable_rate_keeps_exact_times(folder: Path) -> None:
    path = Clip("times.mkv", options=GOP, time_base=Fraction(1, 1000), pts=VFR).write(folder)
    identity = Frames.open(path).identity
    assert identity.pts == tuple(VFR) and identity.time_base == (1, 1000)
    assert identity.time_of(7) == pytest.approx(VFR[7] / 1000)
    assert [identity.frame_at(identity.time_of(i)) for i in range(60)] == [*range(60)]
    assert identity.frame_at(VFR[7] / 1000 + 0.001) == 7 and identity.frame_at(99) == 59
    assert identity.frame_at(-1) == 0
    assert identity.fps == pytest.approx(59 / (VFR[59] / 1000))


def test_times_start_at_the_first_frame(folder: Path) -> None:
    clip = next(clip for clip in CLIPS if clip.name == "offset.mkv")
    identity = Frames.open(clip.write(folder)).identity
    assert identity.pts[0] == 2360 and identity.time_of(0) == 0.0


def test_partial_iteration_both_ways_with_a_tiny_budget(folder: Path) -> None:
    path = written(CLIPS[1], folder)
    frames = Frames.open(path, cache_bytes=60_000)  # two decoded frames
    for wanted in (range(20, 31), range(31, 8, -1), range(59, 57, -1)):
        got = frames.iter(wanted.start, wanted.stop, wanted.step)
        assert [(idx, read_index(image)) for idx, image in got] == [(i, i) for i in wanted]
    assert list(frames.iter(5, 5)) == []
    assert [read_index(image) for image in frames][-1] == 59
    for wrong in ((0, 61, 1), (-1, 4, 1), (60, 3, -1)):
        with pytest.raises(UsageError, match="has frames 0 to 59"):
            frames.iter(*wrong)
    with pytest.raises(UsageError, match="step 1 or -1, not 2"):
        frames.iter(step=2)


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
def test_mirrored_displays_are_shown_mirrored(
    matrix: tuple[int, int, int, int], folder: Path
) -> None:
    """(a, b, c, d) maps a stored pixel (x, y) to the shown (a x + c y, b x + d y)."""
    a, b, c, d = matrix
    path = folder / f"mirror{a}{b}{c}{d}.mp4"
    stored = draw_frame(9)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        one = 1 << 16
        stream.set_display_matrix([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        container.mux(stream.encode(None))
    shown = Frames.open(path)[0].astype(int)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.zeros_like(shown)
    expected[to_y - to_y.min(), to_x - to_x.min()] = stored
    assert np.abs(shown - expected).mean() < 12


@pytest.mark.parametrize("name", ["with space.mp4", "100%03d.mp4", "name#1?.mp4", "видео.mp4"])
def test_any_file_name_is_taken_literally(name: str, folder: Path) -> None:
    assert read_index(Frames.open(Clip(name, num_frames=3).write(folder))[2]) == 2


@pytest.mark.parametrize("step", [1, -1])
def test_frames_that_were_handed_out_are_freed_at_once(folder: Path, step: int) -> None:
    frames = Frames.open(written(CLIPS[1], folder), cache_bytes=60_000)  # two decoded frames
    gc.collect()
    gc.disable()  # what only the collector could free would pile up in a long video
    try:
        most = 0
        for _ in frames.iter(step=step):
            most = max(most, sum(issubclass(type(o), av.VideoFrame) for o in gc.get_objects()))
        for idx in range(0, 60, 7):
            frames[idx]
        assert max(most, sum(issubclass(type(o), av.VideoFrame) for o in gc.get_objects())) < 12
    finally:
        gc.enable()


def test_images_belong_to_the_caller(folder: Path) -> None:
    frames = Frames.open(written(CLIPS[0], folder))
    frames[3][:] = 0
    assert read_index(frames[3]) == 3


def test_one_handle_serves_many_threads(folder: Path) -> None:
    frames = Frames.open(written(CLIPS[1], folder), cache_bytes=200_000)
    wrong: list[int] = []

    def work(seed: int) -> None:
        picks = np.random.default_rng(seed).integers(0, 60, 25)
        wrong.extend(int(i) for i in picks if read_index(frames[int(i)]) != i)
        wrong.extend(i for i, image in frames.iter(seed, seed + 20) if read_index(image) != i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_colours_follow_the_matrix_and_range_of_the_file(folder: Path) -> None:
    for name, fmt in (("limited.mkv", "yuv444p"), ("jpeg.mkv", "yuvj444p"), ("grey.mkv", "gray")):
        clip = Clip(name, codec="ffv1" if "j4" not in fmt else "mjpeg", pix_fmt=fmt, num_frames=2)
        corner = Frames.open(clip.write(folder))[0][6, -6].astype(int)
        expected = (76, 76, 76) if fmt == "gray" else (255, 0, 0)  # 0.299 * 255
        assert np.abs(corner - expected).max() <= 6, (name, corner)


@pytest.mark.parametrize("index", ["auto", "decode"])
def test_progress_reaches_its_total_and_cancel_stops(folder: Path, index: str) -> None:
    path = written(CLIPS[6], folder)
    seen: list[tuple[int, int]] = []
    Frames.open(path, index=index, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (2 * path.stat().st_size,) * 2
    calls = iter(range(100_000))
    with pytest.raises(Cancelled):
        Frames.open(path, index=index, cancel=lambda: next(calls) > 10)


def test_another_file_is_refused_for_a_known_identity(folder: Path) -> None:
    path = written(CLIPS[0], folder)
    known = Frames.open(path).identity
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    copy = folder / "changed.mp4"
    copy.write_bytes(changed)
    with pytest.raises(MediaError, match="not the media of this session any more.*SHA-256"):
        Frames.open(copy, identity=known)
    copy.write_bytes(changed[:-1])
    with pytest.raises(MediaError, match=f"{known.size_bytes - 1} bytes.*Restore the original"):
        Frames.open(copy, identity=known)
    moved = folder / "moved.mp4"
    moved.write_bytes(path.read_bytes())
    assert Frames.open(moved, identity=known).identity == replace(known, source=str(moved))


def test_cut_off_file_keeps_what_decodes_and_says_so(folder: Path) -> None:
    whole = Clip("whole.mp4", options=GOP)
    with av.open(str(folder / "fast.mp4"), "w", options={"movflags": "faststart"}) as container:
        whole._write_pictures(container)
    data = (folder / "fast.mp4").read_bytes()
    cut = folder / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    frames = Frames.open(cut)
    assert 20 < len(frames) < 60
    assert f"{len(frames)} frames" in frames.warnings[0] and "cut off" in frames.warnings[0]
    straight = [image for _, image in frames.iter()]
    assert [read_index(image) for image in straight[:-1]] == [*range(len(frames) - 1)]
    for idx in (len(frames) - 1, 3, 17):
        assert np.array_equal(frames[idx], straight[idx])


@pytest.mark.parametrize("name", ["h.mp4", "h.mkv", "h.ts"])
def test_damage_in_the_middle_looks_the_same_however_it_is_reached(name: str, folder: Path) -> None:
    data = bytearray(Clip(name, options=GOP).write(folder).read_bytes())
    random = np.random.default_rng(5)
    for at in random.integers(len(data) // 5, len(data) * 4 // 5, 6):
        data[at : at + 20] = random.bytes(20)
    path = folder / f"damaged-{name}"
    path.write_bytes(data)
    frames = Frames.open(path)
    straight = [image for _, image in frames.iter()]
    assert len(straight) == len(frames) > 40
    for idx in np.random.default_rng(0).permutation(len(frames))[:12]:
        assert np.array_equal(frames[int(idx)], straight[idx]), idx
        with Frames.open(path, identity=frames.identity) as fresh:
            assert np.array_equal(fresh[int(idx)], straight[idx]), idx


def test_a_size_change_inside_the_video_is_scaled_and_reported(folder: Path) -> None:
    small = Clip("a.ts", num_frames=12, options={"bf": "0"}).write(folder).read_bytes()
    large = Clip("b.ts", num_frames=12, size=(WIDTH * 2, HEIGHT * 2), options={"bf": "0"})
    path = folder / "two-sizes.ts"
    path.write_bytes(small + large.write(folder).read_bytes())
    frames = Frames.open(path)
    assert len(frames) == 24 and {image.shape for image in frames} == {(HEIGHT, WIDTH, 3)}
    assert any(f"{WIDTH * 2}x{HEIGHT * 2} at frame 12" in w for w in frames.warnings)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


BAD_FILES = {
    "absent": (lambda d: d / "no-such.mp4", "does not exist; check the path"),
    "empty": (lambda d: _write(d / "empty.mp4", b""), r"is empty \(0 bytes\)"),
    "text": (lambda d: _write(d / "t.mp4", b"dear diary\n" * 99), "is a text file, not a video"),
    "no moov": (
        lambda d: _write(d / "m.mp4", written(CLIPS[0], d).read_bytes()[:3000]),
        r"MP4 without its index \(moov\).*Fetch it again",
    ),
    "noise": (
        lambda d: _write(d / "n.mp4", np.random.default_rng(1).bytes(9000)),
        "not a video that can be read.*convert it with",
    ),
    "sound only": (lambda d: write_sound(d / "s.mp4"), "has no picture track"),
    "playlist": (
        lambda d: _write(d / "p.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        "is a text file, not a video",
    ),
    "no images": (lambda d: _made(d / "none"), "holds no images"),
    "bad image": (lambda d: _write(d / "i.png", b"no picture"), "not an image that can be read"),
}


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_get_one_clear_sentence(case: str, folder: Path) -> None:
    make, sentence = BAD_FILES[case]
    path = make(folder)
    with pytest.raises(MediaError, match=sentence) as caught:
        Frames.open(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_frames_outside_the_video_and_addresses_are_refused(folder: Path) -> None:
    frames = Frames.open(written(CLIPS[0], folder))
    for idx in (-1, 60):
        with pytest.raises(UsageError, match=f"Frame {idx} does not exist"):
            frames[idx]
    with pytest.raises(UsageError, match="is an address, not a file"):
        Frames.open("https://example.org/a.mp4")
