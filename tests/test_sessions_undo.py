"""Undo and redo over random histories equal a model that a reader can check by eye."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_samples import media, rle

from edgetam_label.errors import PromptError
from edgetam_label.prompts import Box, Click, Prompt
from edgetam_label.sessions import LabelObject, SessionStore

Step = tuple[object, ...]

objects = st.integers(1, 3)
frames = st.integers(0, 2)
numbers = st.floats(0, 40, allow_nan=False)
clicks = st.lists(st.builds(Click, numbers, numbers, st.booleans()), min_size=1, max_size=3)
prompts = st.one_of(
    st.builds(Prompt, objects, frames, clicks=clicks.map(tuple), correction=st.booleans()),
    st.builds(Prompt, objects, frames, clicks=clicks.map(tuple), box=st.just(Box(1, 2, 3.5, 4))),
    st.builds(Prompt, objects, frames, mask=st.integers(0, 5).map(rle)),
)
steps = st.one_of(
    st.tuples(st.just("prompt"), prompts),
    st.tuples(st.just("clear"), objects, frames),
    st.tuples(st.just("set"), st.builds(LabelObject, objects, st.sampled_from(["cat", "dog"]))),
    st.tuples(st.just("remove"), objects),
    st.tuples(st.just("undo")),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
    st.tuples(st.just("reopen")),
)


@dataclass(frozen=True)
class Picture:
    """What is in force: objects by id, prompts in the order they were given."""

    objects: dict[int, LabelObject] = field(default_factory=dict)
    prompts: tuple[Prompt, ...] = ()

    def without(self, obj_id: int, frame_idx: int | None = None) -> tuple[Prompt, ...]:
        return tuple(
            p
            for p in self.prompts
            if p.obj_id != obj_id or (frame_idx is not None and p.frame_idx != frame_idx)
        )


class Reference:
    """A list of pictures and a position in it: the plainest undo there is."""

    def __init__(self) -> None:
        self.pictures = [Picture()]
        self.position = 0

    @property
    def now(self) -> Picture:
        return self.pictures[self.position]

    def apply(self, step: Step) -> bool:
        kind = step[0]
        if kind in ("undo", "redo"):
            wanted = self.position + (1 if kind == "redo" else -1)
            possible = 0 <= wanted < len(self.pictures)
            self.position = wanted if possible else self.position
            return possible
        new = self._changed(kind, *step[1:])
        if new == self.now:
            return False
        self.pictures[self.position + 1 :] = [new]
        self.position += 1
        return True

    def _changed(self, kind: object, *args: object) -> Picture:
        now = self.now
        if kind == "prompt":
            prompt = args[0]
            assert isinstance(prompt, Prompt)
            if prompt in now.prompts:
                return now
            named = now.objects.get(
                prompt.obj_id, LabelObject(prompt.obj_id, f"object {prompt.obj_id}")
            )
            rest = now.without(prompt.obj_id, prompt.frame_idx)
            return Picture({**now.objects, prompt.obj_id: named}, (*rest, prompt))
        if kind == "clear":
            return replace(now, prompts=now.without(*args))  # type: ignore[arg-type]
        if kind == "set":
            assert isinstance(args[0], LabelObject)
            return replace(now, objects={**now.objects, args[0].obj_id: args[0]})
        assert kind == "remove" and isinstance(args[0], int)
        left = {obj_id: item for obj_id, item in now.objects.items() if obj_id != args[0]}
        return Picture(left, now.without(args[0]))


def apply(store: SessionStore, session_id: str, step: Step) -> bool:
    kind, *args = step
    if kind == "remove":
        try:
            store.remove_object(session_id, *args)  # type: ignore[arg-type]
        except PromptError:
            return False
        return True
    method = {
        "prompt": store.add_prompt,
        "clear": store.clear_prompt,
        "set": store.set_object,
        "undo": store.undo,
        "redo": store.redo,
    }[str(kind)]
    return bool(method(session_id, *args))  # type: ignore[operator]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undo") / "sessions.db"


@settings(max_examples=50, deadline=None)
@given(history=st.lists(steps, max_size=20))
def test_random_histories_equal_the_reference(database: Path, history: list[Step]) -> None:
    store = SessionStore(database)
    try:
        session_id = store.create(media(10)).id
        reference = Reference()
        for step in history:
            if step[0] == "reopen":
                store.close()
                store = SessionStore(database)
                continue
            assert apply(store, session_id, step) == reference.apply(step), step
            session = store.get(session_id)
            assert session.prompts == reference.now.prompts
            assert {o.obj_id: o for o in session.objects} == reference.now.objects
            assert store.summaries()[-1].num_objects == len(session.objects)
        while apply(store, session_id, ("undo",)):
            assert reference.apply(("undo",))
        assert store.get(session_id).prompts == () and store.get(session_id).objects == ()
        while apply(store, session_id, ("redo",)):
            assert reference.apply(("redo",))
        assert store.get(session_id).prompts == reference.now.prompts
    finally:
        store.close()


def test_undo_and_redo_work_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    one, two = Prompt(1, 0, (Click(1, 1),)), Prompt(1, 4, (Click(9, 9, False),))
    with SessionStore(path) as store:
        session_id = store.create(media()).id
        store.add_prompt(session_id, one)
        store.add_prompt(session_id, two)
    with SessionStore(path) as store:
        assert store.undo(session_id)
        assert store.get(session_id).prompts == (one,)
    with SessionStore(path) as store:
        assert store.redo(session_id) and not store.redo(session_id)
        assert store.get(session_id).prompts == (one, two)
