"""The review queue on tracks with one planted fault each: the fault comes first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetam_label.exporters.review import SIGNALS, ReviewItem, _usual, review
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE
from edgetam_label.media_identity import MediaIdentity
from edgetam_label.session_types import FrameMask, LabelObject
from edgetam_label.sessions import SessionStore

HEIGHT, WIDTH, LENGTH = 120, 200, 60
EMPTY = RLE.empty(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaIdentity:
    from PIL import Image

    folder = tmp_path_factory.mktemp("frames")
    for i in range(LENGTH):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{i:05d}.png")
    with Frames.open(folder) as frames:
        return frames.identity


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "sessions.db") as opened:
        yield opened


def box(x: float, y: float, w: int = 30, h: int = 24) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[round(y) : round(y) + h, round(x) : round(x) + w] = True
    return mask


def clean_track(obj_id: int = 1) -> dict[int, FrameMask]:
    """An object that moves, grows and is scored with a little noise: nothing to review."""
    rng = np.random.default_rng(obj_id)
    return {
        t: FrameMask(
            obj_id,
            t,
            RLE.encode(box(20 + 1.5 * t, 40 + 4 * math.sin(t / 6), 30 + t // 10)),
            8 + float(rng.normal(0, 0.4)),
        )
        for t in range(LENGTH)
    }


def queue(
    store: SessionStore,
    media: MediaIdentity,
    *tracks: dict[int, FrameMask],
    other: dict[int, FrameMask] | None = None,
) -> list[ReviewItem]:
    sessions = []
    for group in (tracks, (other,) if other else ()):
        session = store.create(media)
        for masks in group:
            store.set_object(session.id, LabelObject(next(iter(masks.values())).obj_id, "thing"))
            store.save_masks(session.id, masks.values())
        sessions.append(store.get(session.id))
    return review(store, sessions[0], against=sessions[1] if other else None)


def planted(track: dict[int, FrameMask], frame: int, **changes: object) -> dict[int, FrameMask]:
    return {**track, frame: replace(track[frame], **changes)}  # type: ignore[arg-type]


def test_a_clean_track_has_nothing_to_review(store: SessionStore, media: MediaIdentity) -> None:
    assert queue(store, media, clean_track(), clean_track(2)) == []


two_parts = box(20 + 1.5 * 30, 38, 12) | box(20 + 1.5 * 30 + 20, 38, 12)
FAULTS = {
    "low score": {"score": -1.5},
    "area jump": {"rle": RLE.encode(box(20 + 1.5 * 30 - 8, 28, 50, 44))},
    "motion": {"rle": RLE.encode(box(140, 90, 33, 24))},
    "fragments": {"rle": RLE.encode(two_parts)},
    "flicker": {"rle": EMPTY, "status": "absent", "score": -6.0},
}


@pytest.mark.parametrize("kind", list(FAULTS))
def test_a_planted_fault_comes_first(store: SessionStore, media: MediaIdentity, kind: str) -> None:
    items = queue(store, media, planted(clean_track(), 30, **FAULTS[kind]), clean_track(2))
    worst = items[0]
    assert worst.obj_id == 1 and worst.first <= 30 <= worst.last
    assert abs(worst.frame_idx - 30) <= 1
    assert kind in {reason.kind for reason in worst.reasons}
    assert worst.severity > 0.4
    assert all(item.obj_id == 1 for item in items)
    assert worst.time == pytest.approx(media.time_of(worst.frame_idx))


def test_disagreement_with_the_other_direction(store: SessionStore, media: MediaIdentity) -> None:
    forward = clean_track()
    backward = planted(forward, 44, rle=RLE.encode(box(150, 80)))
    items = queue(store, media, forward, other=backward)
    assert [(i.frame_idx, [r.kind for r in i.reasons]) for i in items] == [(44, ["disagreement"])]
    assert items[0].severity == pytest.approx(1.0)
    half = {t: m for t, m in backward.items() if t >= 40}  # where only one exists: no verdict
    assert [i.frame_idx for i in queue(store, media, forward, other=half)] == [44]


@pytest.mark.parametrize("status", ["approved", "prompted"])
def test_what_a_person_said_is_no_suspect(
    store: SessionStore, media: MediaIdentity, status: str
) -> None:
    track = planted(clean_track(), 30, **{**FAULTS["motion"], "status": status})
    frames = {item.frame_idx for item in queue(store, media, track)}
    assert 30 not in frames
    assert frames  # but its neighbours do not fit it


def test_neighbouring_suspects_are_one_item(store: SessionStore, media: MediaIdentity) -> None:
    track = clean_track()
    for frame in (20, 21, 22, 23):
        track = planted(track, frame, score=-2.0 + frame / 100)
    items = [i for i in queue(store, media, track) if i.severity > 0.5]
    assert [(i.first, i.last, i.frame_idx) for i in items] == [(20, 23, 20)]


def test_the_queue_is_sorted_and_json_ready(store: SessionStore, media: MediaIdentity) -> None:
    track = planted(clean_track(), 10, score=1.0)
    track = planted(track, 40, **FAULTS["motion"])
    items = queue(store, media, track)
    assert [i.severity for i in items] == sorted((i.severity for i in items), reverse=True)
    document = items[0].to_json()
    assert document["label"] == "thing" and document["reasons"][0]["detail"]
    assert set(SIGNALS) >= {r["kind"] for i in items for r in i.to_json()["reasons"]}


def test_unknown_scores_and_single_frames(store: SessionStore, media: MediaIdentity) -> None:
    assert queue(store, media, {7: FrameMask(1, 7, RLE.encode(box(5, 5)))}) == []
    assert queue(store, media, {7: FrameMask(1, 7, EMPTY, status="approved")}) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(-50, 50), min_size=1, max_size=80))
def test_the_usual_value_is_the_median_around(values: list[float | None]) -> None:
    series = np.asarray([math.nan if v is None else v for v in values])
    found = _usual(series)
    for i in range(len(series)):
        near = series[max(0, i - 15) : i + 16]
        near = near[~np.isnan(near)]
        if len(near):
            assert found[i] == pytest.approx(float(np.median(near)))
        else:
            assert math.isnan(found[i])
