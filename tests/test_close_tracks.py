"""Close tracks: an object is tracked through a crop that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_video import HEIGHT, WIDTH, in_pieces, same_tracks, tiny_frames, tiny_images, tiny_model

from edgetam_label.config import ModelConfig
from edgetam_label.crops import Crop
from edgetam_label.flow import FlowBetween, carry, grey_picture
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE, Mask
from edgetam_label.preprocess import frame_to_picture
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.tracker import TrackerSettings, VideoTracker


def square(t: int) -> Mask:
    """Where the square of `tiny_images` is on frame t."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:44, 8 + 3 * t : 32 + 3 * t] = True
    return mask


def small(t: int) -> Mask:
    """A corner of it, small enough for a crop."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[22:32, 12 + 3 * t : 24 + 3 * t] = True
    return mask


def tracker(close: bool | None = True, **settings: int) -> VideoTracker:
    chosen = TrackerSettings(close_tracks=close, **settings)  # type: ignore[arg-type]
    found = VideoTracker(tiny_model(), tiny_frames(12), chosen)
    found.add_prompt(Prompt(1, 0, mask=RLE.encode(small(0))))
    found.add_prompt(Prompt(2, 0, clicks=(Click(20, 32),)))
    return found


def crops(found: VideoTracker, obj_id: int) -> list[Crop]:
    memories = [found.memory(obj_id, t) for t in range(12)]
    return [memory.located().crop for memory in memories if memory is not None]


def test_the_config_decides_unless_the_settings_do() -> None:
    assert not ModelConfig.load("edgetam").close_tracks  # official tracks are official
    whole, close = list(tracker(False).propagate()), list(tracker(True).propagate())
    assert not same_tracks(whole, close)
    assert same_tracks(whole, list(tracker(None).propagate()))
    asked = VideoTracker(tiny_model(close_tracks=True), tiny_frames(12))
    asked.add_prompt(Prompt(1, 0, mask=RLE.encode(small(0))))
    asked.add_prompt(Prompt(2, 0, clicks=(Click(20, 32),)))
    assert same_tracks(close, list(asked.propagate()))


def test_a_given_mask_is_remembered_closely_and_shown_as_it_is() -> None:
    found = tracker()
    answer = found.add_prompt(Prompt(3, 4, mask=RLE.encode(small(4))))
    assert answer is not None and np.array_equal(answer.mask, small(4))
    memory = found.memory(3, 4)
    assert memory is not None
    crop = memory.located().crop
    assert not crop.is_whole
    ys, xs = np.nonzero(small(4))
    assert crop.x0 <= xs.min() and xs.max() < crop.x1 and crop.y0 <= ys.min() < crop.y1


def test_something_large_is_tracked_on_whole_frames() -> None:
    found = VideoTracker(tiny_model(), tiny_frames(12), TrackerSettings(close_tracks=True))
    wide = np.zeros((HEIGHT, WIDTH), dtype=bool)
    wide[4:60, 8:80] = True
    found.add_prompt(Prompt(1, 0, mask=RLE.encode(wide)))
    assert crops(found, 1)[0].is_whole


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_pass_in_pieces_equals_a_whole_one(direction: str) -> None:
    start = 0 if direction == "forward" else 11
    whole, pieces = tracker(), tracker()
    for t in (whole, pieces):
        t.remove_object(1)
        t.remove_object(2)
        t.add_prompt(Prompt(1, start, mask=RLE.encode(small(start))))
        t.add_prompt(Prompt(2, start, box=Box(8, 20, 32, 44)))
    expected = list(whole.propagate(direction=direction))
    assert same_tracks(in_pieces(pieces, direction), expected)
    assert crops(pieces, 1) == crops(whole, 1)


def test_memories_outside_the_window_keep_their_crops() -> None:
    found = tracker()
    list(found.propagate())
    kept = crops(found, 1)
    assert len(kept) == 12  # most of them from the file
    assert all(crop.frame == Crop.whole(WIDTH, HEIGHT) for crop in kept)


def test_a_correction_on_a_tracked_frame() -> None:
    found = tracker()
    list(found.propagate())
    before = found.memory(1, 6)
    assert before is not None
    inside = before.located().crop
    x, y = (inside.x0 + inside.x1) / 2, (inside.y0 + inside.y1) / 2
    for click in (Click(x, y), Click(1, 1, positive=False)):  # within its crop, and outside
        answer = found.add_prompt(Prompt(1, 6, clicks=(click,)))
        assert answer is not None and answer.prompted and answer.mask.shape == (HEIGHT, WIDTH)
    assert len(list(found.propagate())) == 12


def test_it_goes_with_skipped_frames() -> None:
    assert len(list(tracker(every=3).propagate())) == 24


def test_a_lost_object_is_looked_for_around(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tracker()
    decode = found.model.decode_masks

    def gone(*args: object, **options: object) -> object:
        output = decode(*args, **options)  # type: ignore[arg-type]
        return replace(output, object_score=torch.full_like(output.object_score, -1.0))

    monkeypatch.setattr(found.model, "decode_masks", gone)
    tracked = list(found.propagate(objects=[1]))
    assert [t.absent for t in tracked] == [False] + [True] * 11
    seen = crops(found, 1)
    widths = [crop.width for crop in seen[1:]]
    assert not seen[1].is_whole and seen[-1].is_whole and widths == sorted(widths)


PRESENT, ABSENT = 5.0, -1.0


@pytest.mark.parametrize(
    ("answers", "absent"),
    [
        # unsure, but never lost; lost, and not recognised; not sure enough, nor recognised; back
        (
            [(PRESENT, 0.3), (ABSENT, 0.9), (PRESENT, 0.6), (PRESENT, 0.5), (PRESENT, 0.6),
             (PRESENT, 0.7), (PRESENT, 0.1)],
            [False, False, True, True, False, False],
        ),
        # lost, but recognised; lost, and surely not there; lost, but recognised
        (
            [(ABSENT, 0.9), (PRESENT, 0.7), (ABSENT, 0.2), (ABSENT, 0.9), (PRESENT, 0.5),
             (PRESENT, 0.7)],
            [False, False, True, False],
        ),
    ],
)  # fmt: skip
def test_a_lost_object_comes_back_only_if_it_is_sure(
    answers: list[tuple[float, float]], absent: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """answers: object score and predicted IoU with all memory, then, if absent, with prompts'."""
    found = tracker()
    decode = found.model.decode_masks
    left = iter(answers)

    def planned(*args: object, **options: object) -> object:
        output = decode(*args, **options)  # type: ignore[arg-type]
        score, iou = next(left)
        return replace(
            output,
            low_res_logits=torch.full_like(output.low_res_logits, 8.0),
            object_score=torch.full_like(output.object_score, score),
            iou=torch.full_like(output.iou, iou),
        )

    assemble, remembered = found.model.assemble_memory, list[tuple[int, int]]()

    def counted(maps: list[object], pointers: list[object]) -> object:
        remembered.append((len(maps), len(pointers)))
        return assemble(maps, pointers)  # type: ignore[arg-type]

    monkeypatch.setattr(found.model, "decode_masks", planned)
    monkeypatch.setattr(found.model, "assemble_memory", counted)
    tracked = list(found.propagate(objects=[1], max_frames=len(absent)))
    assert [t.absent for t in tracked] == absent
    assert next(left, None) is None
    # after the first tracked frame there is more to remember than what was prompted
    second_hearings = len(answers) - (len(absent) - 1)
    assert remembered[1:].count((1, 1)) == second_hearings


def moved(before: Crop, now: Crop, side: int = 32) -> np.ndarray:
    """The square of frame 0, on one crop, carried to frame 2 on another."""
    images = tiny_images(3)
    flow = FlowBetween()(grey_picture(images[2]), grey_picture(images[0]))
    logits = torch.from_numpy(_on(before, square(0), side) * 20 - 10)[None, None]
    return carry(logits, flow, before, now)[0, 0].numpy() > 0


def _on(crop: Crop, mask: Mask, side: int) -> np.ndarray:
    x = np.floor(crop.x0 + (np.arange(side) + 0.5) / side * crop.width).astype(int)
    y = np.floor(crop.y0 + (np.arange(side) + 0.5) / side * crop.height).astype(int)
    return mask[np.ix_(y, x)].astype(np.float32)


WHOLE = Crop.whole(WIDTH, HEIGHT)
LEFT, RIGHT = Crop(0, 8, 48, 56, WIDTH, HEIGHT), Crop(12, 8, 60, 56, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("before", "now"), [(WHOLE, WHOLE), (LEFT, LEFT), (LEFT, RIGHT), (WHOLE, RIGHT), (LEFT, WHOLE)]
)
def test_a_mask_is_carried_from_crop_to_crop(before: Crop, now: Crop) -> None:
    expected = _on(now, square(2), 32) > 0
    found = moved(before, now)
    overlap = (found & expected).sum() / (found | expected).sum()
    assert overlap > 0.75
    if before == now:
        still = _on(now, square(0), 32) > 0
        assert overlap > (still & expected).sum() / (still | expected).sum()


def counted(found: VideoTracker, run: Callable[[], object]) -> int:
    """How often a picture is encoded while `run` runs."""
    calls, encode = [], found.model.encode_image

    def counting(image: torch.Tensor) -> object:
        calls.append(1)
        return encode(image)

    found.model.encode_image = counting  # type: ignore[assignment, method-assign]
    try:
        run()
    finally:
        del found.model.encode_image
    return len(calls)


def test_whole_frames_are_not_encoded_where_nobody_looks_at_them() -> None:
    found = VideoTracker(tiny_model(), tiny_frames(6), TrackerSettings(close_tracks=True))
    found.add_prompt(Prompt(1, 0, mask=RLE.encode(small(0))))
    list(found.propagate(max_frames=1))  # the given mask is encoded here
    tracked = counted(found, lambda: list(found.propagate(1, max_frames=3, objects=[1])))
    assert tracked == 3


def test_whole_frames_are_made_smaller_only_where_somebody_looks_at_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen_whole: list[bool] = []

    def counting(frame: np.ndarray, size: int) -> np.ndarray:
        seen_whole.append(frame.shape[1] == WIDTH)
        return frame_to_picture(frame, size)

    for module in ("tracker", "frame_features"):
        monkeypatch.setattr(f"edgetam_label.{module}.frame_to_picture", counting)
    wide = np.zeros((HEIGHT, WIDTH), dtype=bool)
    wide[4:60, 8:80] = True
    tracks, counts = [], []
    for made_ahead in (False, True):
        found = tracker()
        list(found.propagate(max_frames=1))
        found._looks_at_whole = made_ahead
        seen_whole.clear()
        alone = list(found.propagate(1, max_frames=5, objects=[1]))
        counts.append(sum(seen_whole))
        # a large one beside it is looked at on whole frames, from the middle of the pass on
        found.add_prompt(Prompt(3, 4, mask=RLE.encode(wide)))
        found._looks_at_whole = made_ahead
        tracks.append(alone + list(found.propagate(1)))
    assert same_tracks(*tracks)
    assert counts[0] == 0 < counts[1] <= 3  # no further than the thread looks ahead


def test_upright_frames() -> None:
    tall = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in tiny_images(4)]
    found = VideoTracker(tiny_model(), Frames.open(tall), TrackerSettings(close_tracks=True))
    found.add_prompt(Prompt(1, 0, mask=RLE.encode(np.ascontiguousarray(small(0).T))))
    assert all(t.mask.shape == (WIDTH, HEIGHT) for t in found.propagate())
