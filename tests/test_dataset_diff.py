"""`dataset diff` and `dataset agreement` on datasets whose differences are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_rig import Rig, edit_json, make_rig
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetam_label.errors import UsageError
from edgetam_label.evaluation.metrics import mean_score
from edgetam_label.exporters import EXPORTERS
from edgetam_label.exporters.dataset_agreement import agreement
from edgetam_label.exporters.dataset_compare import (
    match_objects,
    ranges,
    score,
    volume_ious,
)
from edgetam_label.exporters.dataset_diff import DatasetDiff, ObjectDiff, diff
from edgetam_label.exporters.dataset_source import (
    Source,
    SourceVideo,
    detect_format,
    folder_source,
    store_source,
)
from edgetam_label.masks import RLE
from edgetam_label.session_types import FrameMask, LabelObject


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = make_rig(tmp_path_factory.mktemp("rig"))
    yield made
    made.store.close()


Masks = dict[int, dict[int, np.ndarray]]
SIZE = (40, 50)


def box(x: int, y: int, size: int = 10) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + size, x : x + size] = True
    return mask


def source(
    masks: Masks, labels: dict[int, str] | None = None, title: str = "made", frames: int = 6
) -> Source:
    """A source of one video held in memory."""
    objects = tuple(LabelObject(i, (labels or {}).get(i, "thing")) for i in sorted(masks))

    def stream() -> Iterator[FrameMask]:
        for obj_id, by_frame in masks.items():
            for frame, mask in by_frame.items():
                yield FrameMask(obj_id, frame, RLE.encode(mask))

    stems = tuple(f"{i:05d}" for i in range(frames))
    video = SourceVideo("clip", *SIZE, stems, tuple(range(frames)), objects, stream)
    return Source(title, lambda: iter([video]))


def track(x: int, y: int, frames: int = 6) -> dict[int, np.ndarray]:
    return {t: box(x + t, y) for t in range(frames)}


def only(report: DatasetDiff) -> dict[int, ObjectDiff]:
    return {entry.obj_id: entry for video in report.videos for entry in video.objects}


EXACT = ("coco", "ytvis", "masks", "labelstudio", "native")


@pytest.mark.parametrize("name", EXACT)
def test_exact_formats_equal_the_store(rig: Rig, name: str) -> None:
    report = diff(store_source(rig.store, rig.sessions, "store"), folder_source(rig.folders[name]))
    assert not report.differs
    assert report.counts() == {"same": 6}


@pytest.mark.parametrize("name", list(EXPORTERS))
def test_the_format_is_told_from_the_files(rig: Rig, tmp_path: Path, name: str) -> None:
    assert detect_format(rig.folders[name]) == name
    assert detect_format(rig.copy(name, tmp_path / "bare")) == name
    with pytest.raises(UsageError, match="cannot be told"):
        detect_format(tmp_path)


def test_overlaps_lost_in_id_maps_are_found(rig: Rig) -> None:
    report = diff(folder_source(rig.folders["coco"]), folder_source(rig.folders["ytvos"]))
    assert report.counts() == {"changed": 2, "same": 4}
    assert report.differs
    assert not diff(folder_source(rig.folders["mots"]), folder_source(rig.folders["ytvos"])).differs


def test_an_object_lost_new_relabelled_or_swapped(rig: Rig, tmp_path: Path) -> None:
    a = {1: track(0, 0), 2: track(20, 0), 3: track(0, 20), 4: track(20, 20)}
    b = {1: track(20, 0), 2: track(0, 0), 3: track(0, 20), 5: track(35, 25)}
    report = diff(source(a, {3: "cat"}), source(b, {3: "dog"}), tolerance=0.5)
    found = only(report)
    assert {i: entry.state for i, entry in found.items()} == {
        1: "swapped",
        2: "swapped",
        3: "relabelled",
        4: "lost",
        5: "new",
    }
    assert found[1].swaps[0].other_id == 2 and found[1].swaps[0].frames == "00000-00005"
    assert found[3].labels == ("cat", "dog")
    assert report.differs


def test_ids_swapped_halfway_are_told_with_their_frames() -> None:
    a = {1: track(0, 0), 2: track(20, 20)}
    b = {
        1: {t: (a[1] if t < 3 else a[2])[t] for t in range(6)},
        2: {t: (a[2] if t < 3 else a[1])[t] for t in range(6)},
    }
    swaps = {i: entry.swaps for i, entry in only(diff(source(a), source(b))).items()}
    assert [(s.other_id, s.frames, s.count) for s in swaps[1]] == [(2, "00003-00005", 3)]
    assert [(s.other_id, s.frames, s.count) for s in swaps[2]] == [(1, "00003-00005", 3)]


def test_the_tolerance_is_a_gate() -> None:
    a = {1: track(5, 5)}
    b = {1: {**track(5, 5), 2: box(7, 6)}}  # one frame a pixel lower
    loss = 1 - (only(diff(source(a), source(b)))[1].score or pytest.fail("no score")).j_and_f
    assert 0 < loss < 0.1
    assert diff(source(a), source(b), tolerance=loss / 2).differs
    assert not diff(source(a), source(b), tolerance=loss * 1.01).differs
    worst = only(diff(source(a), source(b)))[1].score
    assert worst is not None and [name for name, _ in worst.worst] == ["00002"]
    with pytest.raises(UsageError, match="from 0 to 1"):
        diff(source(a), source(b), tolerance=2)


def test_videos_of_one_side_and_of_another_size(rig: Rig, tmp_path: Path) -> None:
    folder = rig.copy("coco", tmp_path / "coco")

    def shrink(data: dict) -> None:
        data["videos"] = data["videos"][:1]
        data["images"] = [i for i in data["images"] if i["video_id"] == 1]
        kept = {i["id"] for i in data["images"]}
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]

    edit_json(folder / "annotations/instances_train.json", shrink)
    report = diff(folder_source(rig.folders["coco"]), folder_source(folder))
    assert [video.state for video in report.videos] == ["both", "lost"]
    other = source({1: track(0, 0)})
    small = next(other.videos())
    resized = Source("resized", lambda: iter([replace(small, height=41)]))
    assert [v.state for v in diff(other, resized).videos] == ["resized"]
    with pytest.raises(UsageError, match="without object identities"):
        diff(folder_source(folder), folder_source(rig.folders["yoloseg"]))


def test_scores_are_the_j_and_f_of_the_evaluation() -> None:
    rng = np.random.default_rng(1)
    a = {t: box(int(rng.integers(0, 8)), 5, 15) for t in range(5)}
    b = {t: box(int(rng.integers(0, 8)), 8, 15) for t in range(5)}
    expected = mean_score(list(b.values()), list(a.values()))
    found = score(
        {t: RLE.encode(m) for t, m in a.items()},
        {t: RLE.encode(m) for t, m in b.items()},
        tuple("abcde"),
    )
    assert found.j == pytest.approx(expected.j) and found.f == pytest.approx(expected.f)
    union = sum(int((a[t] | b[t]).sum()) for t in range(5))
    assert found.iou == pytest.approx(sum(int((a[t] & b[t]).sum()) for t in range(5)) / union)


def test_frames_without_either_object_do_not_count() -> None:
    a, b = {0: RLE.encode(box(0, 0))}, {0: RLE.encode(box(0, 0)), 3: RLE.encode(box(9, 9))}
    found = score(a, b, tuple("abcdef"))
    assert (found.frames, found.j, found.f) == (2, 0.5, 0.5)
    assert score({}, {}, ()).j_and_f == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.permutations([1, 2, 3, 4]))
def test_agreement_matches_objects_whatever_their_numbers(seed: int, ids: list[int]) -> None:
    rng = np.random.default_rng(seed)
    spots = [(0, 0), (25, 0), (0, 20), (25, 20)]
    masks = {
        i + 1: {t: RLE.encode(box(x + int(rng.integers(0, 4)), y)) for t in range(4)}
        for i, (x, y) in enumerate(spots)
    }
    renamed = {ids[i - 1]: by_frame for i, by_frame in masks.items()}
    assert match_objects(volume_ious(masks, renamed)) == dict(zip(masks, ids, strict=True))


def test_agreement_of_three_annotators() -> None:
    anna = source({1: track(0, 0), 2: track(20, 20)}, {1: "cat", 2: "dog"}, "anna")
    boris = source({7: track(20, 20), 9: track(0, 0)}, {7: "dog", 9: "fox"}, "boris")
    chen = source({1: track(0, 0)}, {1: "cat"}, "chen")
    report = agreement([anna, boris, chen])
    pairs = {(pair.first, pair.second): pair for pair in report.pairs}
    assert pairs["anna", "boris"].j_and_f == 1
    assert pairs["anna", "boris"].labels == 0.5
    assert pairs["anna", "chen"].j_and_f == 0.5  # the dog that only Anna saw counts as 0
    assert {o.ids for o in pairs["boris", "chen"].objects} == {(7, None), (9, 1)}
    assert report.j_and_f == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert set(report.by_label()) == {"cat", "dog", "fox"}
    by_id = agreement([anna, boris], by_id=True).pairs[0]
    assert {o.ids for o in by_id.objects} == {(1, None), (2, None), (None, 7), (None, 9)}
    assert by_id.j_and_f == 0
    with pytest.raises(UsageError, match="at least two"):
        agreement([anna])


def test_agreement_needs_the_same_media(rig: Rig) -> None:
    stored = store_source(rig.store, rig.sessions, "store")
    same = agreement([stored, folder_source(rig.folders["native"])])
    assert same.j_and_f == 1 and not same.pairs[0].videos_missing

    def renamed(videos: Callable[[], Iterator[SourceVideo]]) -> Iterator[SourceVideo]:
        return (replace(video, name=f"other {video.name}") for video in videos())

    stranger = Source("stranger", lambda: renamed(stored.videos))
    with pytest.raises(UsageError, match="share no video"):
        agreement([stored, stranger])


def test_ranges_follow_the_order_of_the_video() -> None:
    order = ("a", "b", "c", "d", "e")
    assert ranges(["a", "b", "d"], order) == "a-b, d"
    assert ranges(["e"], order) == "e"
    assert ranges([], order) == ""
