"""What is stored comes back, equal; what must not change does not."""

from __future__ import annotations

import math
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_samples import MODEL, mask, media, rle, sql

from edgetam_label import session_masks
from edgetam_label.errors import PromptError, SessionNotFound, UsageError
from edgetam_label.masks import RLE
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.sessions import FrameMask, LabelObject, ModelIdentity, SessionStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    with SessionStore(tmp_path / "deep" / "folder" / "sessions.db") as opened:
        yield opened


@pytest.fixture(params=["native", "portable"])
def each_upsert(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the database's own upsert, once with the plain SQL that MySQL gets."""
    if request.param == "portable":
        monkeypatch.setattr(
            session_masks,
            "_upsert",
            lambda c, rows: session_masks.upsert_portably(c, rows[0]["session_pk"], rows),
        )


def all_masks(store: SessionStore, session_id: str) -> list[FrameMask]:
    return list(store.iter_masks(session_id))


def test_a_session_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    given = media(source="/видео/улица 東京.mp4")
    prompts = (
        Prompt(1, 3, clicks=(Click(0.1 + 0.2, 1 / 3), Click(5, 6, False)), box=Box(1, 2, 30, 40)),
        Prompt(2, 0, mask=rle(9)),
        Prompt(1, 7, clicks=(Click(1, 1),), correction=True),
    )
    with SessionStore(path) as store:
        session_id = store.create(given, model=MODEL, name="Улица", key="task 1").id
        store.set_object(session_id, LabelObject(2, "кот", "#102030", "r-1", {"iscrowd": 0}))
        for prompt in prompts:
            store.add_prompt(session_id, prompt)
        store.save_masks(session_id, [mask(1, 3), mask(2, 0)])
        before = store.get(session_id)
    with SessionStore(f"sqlite:///{path}") as store:
        after = store.get(session_id)
        assert after == before == store.find("task 1") == store.list()[0]
    assert after.media == given
    assert (after.name, after.key, after.model) == ("Улица", "task 1", MODEL)
    assert after.prompts == prompts
    assert after.objects == (
        LabelObject(1, "object 1"),
        LabelObject(2, "кот", "#102030", "r-1", {"iscrowd": 0}),
    )
    assert after.num_masks == 2
    assert after.updated_at >= after.created_at and after.created_at.tzinfo is not None


def test_a_long_video_costs_little(store: SessionStore, tmp_path: Path) -> None:
    given = media(100_000)
    session = store.create(given)
    assert session.media == given
    size = sql(tmp_path / "deep" / "folder" / "sessions.db", "SELECT length(pts) FROM media")[0][0]
    assert isinstance(size, int) and size < 10_000


def test_folder_media_keep_their_names(store: SessionStore) -> None:
    from dataclasses import replace

    given = replace(media(3), kind="folder", names=("а.png", "b.png", "日.png"), pts=(0, 1, 2))
    assert store.get(store.create(given).id).media == given


def test_ids_are_readable_and_unique(store: SessionStore) -> None:
    ids = {store.create(media(2, f"/x/My Clip ({i % 2}).mp4")).id for i in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"my-clip-[01]-[0-9a-z]{6}", session_id) for session_id in ids)
    assert store.create(media(2, "/x/街.mp4")).id.startswith("session-")


def test_listings_agree_and_keep_the_order_of_creation(store: SessionStore) -> None:
    ids = [store.create(media(10), key=f"host/{i % 2}/{i}").id for i in range(4)]
    store.set_object(ids[1], LabelObject(1, "cat"))
    store.set_object(ids[1], LabelObject(2, "dog"))
    store.save_masks(ids[1], [mask(1, 0), mask(2, 0), mask(2, 1)])
    store.remove_object(ids[1], 1)
    assert [s.id for s in store.list()] == ids
    assert [s.id for s in store.list(key_prefix="host/1/")] == [ids[1], ids[3]]
    for line, session in zip(store.summaries(), store.list(), strict=True):
        assert (line.id, line.key, line.name) == (session.id, session.key, session.name)
        assert (line.num_objects, line.num_masks) == (len(session.objects), session.num_masks)
        assert (line.source, line.num_frames) == (session.media.source, session.media.num_frames)
    assert (store.summaries()[1].num_objects, store.summaries()[1].num_masks) == (1, 2)


def test_delete_takes_everything_and_only_its_own(store: SessionStore, tmp_path: Path) -> None:
    kept, gone = store.create(media(50)).id, store.create(media(50)).id
    for session_id in (kept, gone):
        store.add_prompt(session_id, Prompt(1, 0, (Click(1, 1),)))
        store.save_masks(session_id, [mask(1, f) for f in range(50)])
        store.jobs.start(session_id, direction="forward", start=0)
    store.delete(gone)
    with pytest.raises(SessionNotFound, match=gone):
        store.get(gone)
    assert store.get(kept).num_masks == 50
    path = tmp_path / "deep" / "folder" / "sessions.db"
    for table, rows in [("masks", 50), ("media", 1), ("events", 1), ("objects", 1), ("jobs", 1)]:
        assert sql(path, f"SELECT count(*) FROM {table}") == [(rows,)]


def test_deleting_gives_the_disk_its_space_back(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with SessionStore(path) as store:
        session_id = store.create(media(500)).id
        store.set_object(session_id, LabelObject(1, "cat"))
        big = RLE((HEIGHT_OF_BIG, 4), b"x" * 4000)
        store.save_masks(session_id, [FrameMask(1, f, big) for f in range(500)])
    full = path.stat().st_size
    with SessionStore(path) as store:
        store.delete(session_id)
    assert full > 2_000_000 and path.stat().st_size < full / 10


HEIGHT_OF_BIG = 8


def test_unknown_sessions_and_keys(store: SessionStore) -> None:
    assert store.find("no such key") is None
    for action in (
        lambda: store.get("nope"),
        lambda: store.delete("nope"),
        lambda: store.undo("nope"),
        lambda: store.save_masks("nope", []),
        lambda: store.iter_masks("nope"),
    ):
        with pytest.raises(SessionNotFound, match="'nope'"):
            action()


def test_one_session_per_key(store: SessionStore) -> None:
    first = store.create(media(), key="k")
    with pytest.raises(UsageError, match=first.id):
        store.create(media(), key="k")
    assert store.find_or_create("k", media(5)).id == first.id
    with pytest.raises(UsageError, match="255"):
        store.create(media(), key="k" * 300)


def test_many_threads_asking_for_a_key_get_one_session(store: SessionStore) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(store.find_or_create("k", media(5)).id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8 and len(set(ids)) == 1


def test_objects_have_labels_and_colours(store: SessionStore) -> None:
    session_id = store.create(media()).id
    assert store.set_object(session_id, LabelObject(3, "cat"))
    assert not store.set_object(session_id, LabelObject(3, "cat"))
    assert store.set_object(session_id, LabelObject(3, "dog", "#0a0b0c"))
    assert store.get(session_id).object(3) == LabelObject(3, "dog", "#0a0b0c")
    with pytest.raises(UsageError, match="no object 4; its objects: 3"):
        store.get(session_id).object(4)
    with pytest.raises(UsageError, match="#rrggbb"):
        LabelObject(1, "cat", "red")
    with pytest.raises(UsageError, match="empty label"):
        LabelObject(1, " ")
    with pytest.raises(UsageError, match="Object id 0"):
        LabelObject(0, "cat")


def test_add_object_gives_out_each_id_once(store: SessionStore) -> None:
    session_id = store.create(media()).id
    assert store.add_object(session_id, "cat", external_id="r1").obj_id == 1
    assert store.add_object(session_id, "dog", external_id="r2").obj_id == 2
    again = store.add_object(session_id, "puma", external_id="r1")
    assert (again.obj_id, again.label) == (1, "puma")
    store.remove_object(session_id, 2)
    assert store.add_object(session_id, "dog", external_id="r2").obj_id == 3
    assert [o.obj_id for o in store.get(session_id).objects] == [1, 3]


def test_threads_adding_objects_get_different_ids(store: SessionStore) -> None:
    session_id = store.create(media()).id
    ids: list[int] = []
    threads = [
        threading.Thread(target=lambda: ids.append(store.add_object(session_id, "cat").obj_id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == list(range(1, 9))


def test_a_prompt_outside_the_media_is_refused_and_leaves_no_event(store: SessionStore) -> None:
    session_id = store.create(media(10)).id
    with pytest.raises(PromptError, match="frames 0 to 9"):
        store.add_prompt(session_id, Prompt(1, 10, (Click(1, 1),)))
    with pytest.raises(PromptError, match="64x48"):
        store.add_prompt(session_id, Prompt(1, 0, (Click(65, 1),)))
    with pytest.raises(PromptError, match="no object 5"):
        store.remove_object(session_id, 5)
    assert store.events(session_id) == () and store.get(session_id).objects == ()


def test_history_keeps_undone_events(store: SessionStore) -> None:
    session_id = store.create(media()).id
    first, second = Prompt(1, 0, (Click(1, 1),)), Prompt(1, 0, (Click(2, 2),))
    store.add_prompt(session_id, first)
    assert not store.add_prompt(session_id, first)  # said already: no event, nothing to undo
    store.undo(session_id)
    store.add_prompt(session_id, second)
    assert not store.redo(session_id)
    assert store.get(session_id).prompts == (second,)
    events = [(e.seq, e.parent, e.kind, e.prompt) for e in store.events(session_id)]
    assert events == [(1, 0, "prompt", first), (2, 0, "prompt", second)]
    assert [e.seq for e in store.history(session_id)] == [2]
    store.add_prompt(session_id, first)
    assert [e.seq for e in store.history(session_id)] == [2, 3]
    store.undo(session_id)
    store.undo(session_id)
    assert store.history(session_id) == () and len(store.events(session_id)) == 3


# -- masks ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("each_upsert")
def test_masks_are_replaced_but_never_approved_ones(store: SessionStore) -> None:
    session_id = store.create(media(), model=MODEL).id
    store.set_object(session_id, LabelObject(1, "cat"))
    human, machine, new = rle(1), rle(2), rle(3)
    first = [FrameMask(1, 0, machine, -2.5), FrameMask(1, 1, human, 0.0, "approved")]
    assert store.save_masks(session_id, first) == 2
    second = [FrameMask(1, f, new, 4.0, "prompted") for f in range(3)]
    assert store.save_masks(session_id, second) == 2
    assert all_masks(store, session_id) == [second[0], first[1], second[2]]
    corrected = FrameMask(1, 1, new, 0.0, "approved")
    assert store.save_masks(session_id, [corrected]) == 1
    assert all_masks(store, session_id)[1] == corrected
    assert store.mask_models(session_id) == {MODEL: 2, None: 1}


@pytest.mark.usefixtures("each_upsert")
def test_a_batch_may_name_a_place_twice(store: SessionStore) -> None:
    session_id = store.create(media()).id
    store.set_object(session_id, LabelObject(1, "cat"))
    approved = FrameMask(1, 0, rle(1), 1.0, "approved")
    batch = [FrameMask(1, 0, rle(2)), approved, FrameMask(1, 0, rle(3))]
    assert store.save_masks(session_id, batch) == 1
    assert all_masks(store, session_id) == [approved]


def test_a_bad_batch_changes_nothing(store: SessionStore) -> None:
    session_id = store.create(media(10)).id
    store.set_object(session_id, LabelObject(1, "cat"))
    with pytest.raises(UsageError, match="object 9"):
        store.save_masks(session_id, [mask(1, 0), mask(9, 0)])
    with pytest.raises(UsageError, match="frame 10.*0 to 9"):
        store.save_masks(session_id, [mask(1, 0), mask(1, 10)])
    with pytest.raises(UsageError, match="no tracking job 'x'"):
        store.save_masks(session_id, [mask(1, 0)], job_id="x", next_frame=1)

    def broken() -> Iterator[FrameMask]:
        yield mask(1, 0)
        raise RuntimeError("the tracker failed")

    with pytest.raises(RuntimeError):
        store.save_masks(session_id, broken())
    assert all_masks(store, session_id) == []
    with pytest.raises(UsageError, match="'wrong'.*tracked"):
        mask(1, 0, status="wrong")


def test_scores_keep_infinities_and_unknowns(store: SessionStore) -> None:
    session_id = store.create(media()).id
    store.set_object(session_id, LabelObject(1, "cat"))
    scores = [math.inf, -math.inf, 1 / 3, math.nan]
    store.save_masks(session_id, [mask(1, f, score=s) for f, s in enumerate(scores)])
    read = [m.score for m in store.iter_masks(session_id)]
    assert read[:3] == scores[:3] and math.isnan(read[3])


def test_masks_come_in_order_whatever_the_order_of_writing(store: SessionStore) -> None:
    session_id = store.create(media()).id
    for obj_id in (1, 2, 10):
        store.set_object(session_id, LabelObject(obj_id, "cat"))
    frames = [*range(299, -1, -2), *range(0, 300, 2)]  # more than one page
    written = [mask(obj_id, f) for obj_id in (10, 1, 2) for f in frames if f % 7 or obj_id != 2]
    store.save_masks(session_id, written)

    def by_frame(m: FrameMask) -> tuple[int, int]:
        return m.frame_idx, m.obj_id

    def by_object(m: FrameMask) -> tuple[int, int]:
        return m.obj_id, m.frame_idx

    assert all_masks(store, session_id) == sorted(written, key=by_frame)
    read = list(store.iter_masks(session_id, order="object"))
    assert read == sorted(written, key=by_object)
    for order, key in (("frame", by_frame), ("object", by_object)):
        part = list(store.iter_masks(session_id, start=20, stop=170, order=order))
        assert part == sorted((m for m in written if 20 <= m.frame_idx < 170), key=key)
        one = list(store.iter_masks(session_id, obj_id=2, start=5, order=order))
        assert one == sorted(
            (m for m in written if m.obj_id == 2 and m.frame_idx >= 5), key=by_frame
        )
    with pytest.raises(UsageError, match="'size'"):
        store.iter_masks(session_id, order="size")
    masklet = store.masklet(session_id, 10)
    assert list(masklet.frames) == list(range(300)) and masklet.label == "cat"
    assert masklet.frames[7] == mask(10, 7).rle and masklet.scores[7] == 1.5
    with pytest.raises(UsageError, match="no object 4"):
        store.masklet(session_id, 4)


def test_iterating_takes_bounded_memory(store: SessionStore) -> None:
    session_id = store.create(media(4000)).id
    store.set_object(session_id, LabelObject(1, "cat"))
    for start in range(0, 4000, 500):
        batch = [FrameMask(1, f, RLE((8, 4), bytes(5000))) for f in range(start, start + 500)]
        store.save_masks(session_id, batch)
    tracemalloc.start()
    try:
        for order in ("frame", "object"):
            assert sum(1 for _ in store.iter_masks(session_id, order=order)) == 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000  # 20 MB of masks


def test_an_open_iterator_stops_no_writer(store: SessionStore, tmp_path: Path) -> None:
    session_id = store.create(media()).id
    store.set_object(session_id, LabelObject(1, "cat"))
    store.save_masks(session_id, [mask(1, f) for f in range(600)])
    reading = store.iter_masks(session_id)
    assert next(reading).frame_idx == 0
    with SessionStore(tmp_path / "deep" / "folder" / "sessions.db", busy_timeout=0.1) as other:
        other.save_masks(session_id, [mask(1, 600)])
        # A checkpoint that reports 0 met no reader and no writer: the iterator holds nothing.
        path = tmp_path / "deep" / "folder" / "sessions.db"
        assert sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
    assert [m.frame_idx for m in reading] == list(range(1, 601))
    iterator = store.iter_masks(session_id)
    next(iterator)
    store.delete(session_id)
    store.create(media())
    assert len(list(iterator)) == 255  # the rest of the page that was read, then nothing


def test_deleting_masks_spares_approved_ones(store: SessionStore) -> None:
    session_id = store.create(media(2000)).id
    for obj_id in (1, 2):
        store.set_object(session_id, LabelObject(obj_id, "cat"))
    store.save_masks(session_id, [mask(o, f) for o in (1, 2) for f in range(1200)])
    store.save_masks(session_id, [mask(1, 5, "approved")])
    assert store.delete_masks(session_id, 1, range(10)) == 9
    assert store.delete_masks(session_id, 1, range(20, 9, -1)) == 11
    assert store.delete_masks(session_id, 1, range(0)) == 0
    assert store.delete_masks(session_id, 2, {f for f in range(1200) if f % 2}) == 600
    assert store.delete_masks(session_id, 1) == 1200 - 21
    assert [m.frame_idx for m in store.iter_masks(session_id, obj_id=1)] == [5]
    assert store.delete_masks(session_id, include_approved=True) == 601
    assert store.get(session_id).num_masks == 0


def test_a_removed_objects_masks_hide_and_come_back(store: SessionStore) -> None:
    session_id = store.create(media()).id
    for obj_id in (1, 2):
        store.set_object(session_id, LabelObject(obj_id, "cat"))
    masks = [mask(1, 0, "approved"), mask(2, 0)]
    store.save_masks(session_id, masks)
    store.remove_object(session_id, 1)
    assert (
        all_masks(store, session_id)
        == masks[1:]
        == list(store.iter_masks(session_id, order="object"))
    )
    assert list(store.iter_masks(session_id, obj_id=1)) == []
    store.undo(session_id)
    assert all_masks(store, session_id) == masks
    store.redo(session_id)
    store.set_object(session_id, LabelObject(1, "another cat"))
    assert all_masks(store, session_id) == masks[1:]


def test_masks_remember_their_model(store: SessionStore) -> None:
    session_id = store.create(media(), model=MODEL).id
    store.set_object(session_id, LabelObject(1, "cat"))
    finer = ModelIdentity("tiny", "e" * 64, "b" * 64)
    store.save_masks(session_id, [mask(1, 0), mask(1, 1)])
    store.set_model(session_id, finer)
    store.save_masks(session_id, [mask(1, 1), mask(1, 2), mask(1, 3)])
    store.save_masks(session_id, [mask(1, 3)], model=MODEL)
    assert store.get(session_id).model == finer
    assert store.mask_models(session_id) == {MODEL: 2, finer: 2}


def test_threads_write_and_read_at_once(store: SessionStore) -> None:
    session_id = store.create(media()).id
    for obj_id in range(1, 5):
        store.set_object(session_id, LabelObject(obj_id, "cat"))
    failures: list[BaseException] = []

    def run(work: object, *args: int) -> None:
        try:
            work(*args)  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    def write(obj_id: int) -> None:
        for start in range(0, 200, 10):
            store.save_masks(session_id, [mask(obj_id, f) for f in range(start, start + 10)])
            store.add_prompt(session_id, Prompt(obj_id, start, (Click(1, 1),)))

    def read() -> None:
        for _ in range(10):
            places = [(m.frame_idx, m.obj_id) for m in store.iter_masks(session_id)]
            assert places == sorted(set(places))
            assert len(store.get(session_id).objects) == 4

    threads = [threading.Thread(target=run, args=(write, o)) for o in range(1, 5)]
    threads += [threading.Thread(target=run, args=(read,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.get(session_id).num_masks == 800
    assert [e.seq for e in store.events(session_id)] == list(range(1, 4 + 80 + 1))
    assert len(store.get(session_id).prompts) == 80


def test_memory_databases_serve_threads(tmp_path: Path) -> None:
    with SessionStore("sqlite://") as store:
        session_id = store.create(media()).id
        store.set_object(session_id, LabelObject(1, "cat"))
        thread = threading.Thread(target=lambda: store.save_masks(session_id, [mask(1, 0)]))
        thread.start()
        thread.join()
        assert store.get(session_id).num_masks == 1
