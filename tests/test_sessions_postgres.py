"""The store on a real PostgreSQL server, started for these tests when the machine has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from session_samples import MODEL, mask, media, rle

from edgetam_label.errors import PromptError, StoreError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.prompts import Click, Prompt
from edgetam_label.sessions import ExternalAnnotation, FrameMask, LabelObject, SessionStore

pytestmark = pytest.mark.slow
pytest.importorskip("psycopg", reason="takes psycopg, the PostgreSQL driver")


def _server_folder() -> Path:
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), shutil.which("initdb")]
    programs = [Path(path) for path in found if path]
    if not programs:
        pytest.skip("takes a PostgreSQL server (initdb)")
    return programs[0].parent


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of the server without a database; it listens on a socket in its own folder only."""
    programs = _server_folder()
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # The server refuses to run as root.
    user = {"user": 65534} if os.getuid() == 0 else {}
    if user:
        os.chown(folder, 65534, -1)
    run: Callable[..., object] = lambda *words: subprocess.run(  # noqa: E731
        words, check=True, capture_output=True, cwd=folder, **user
    )
    data = str(folder / "data")
    run(str(programs / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    control = str(programs / "pg_ctl")
    run(control, "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    yield f"postgresql+psycopg://tester@/{{}}?host={folder}"
    run(control, "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A fresh database."""
    import psycopg

    name = request.node.name.lower()
    address = server.format("postgres").replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.format(name)


def test_all_that_a_session_holds(url: str) -> None:
    prompts = (Prompt(1, 3, clicks=(Click(0.1 + 0.2, 1 / 3),)), Prompt(2, 0, mask=rle(9)))
    given = media(5000, source="/видео/東京.mp4")
    with SessionStore(url) as store:
        session_id = store.create(given, model=MODEL, key="task").id
        store.set_object(session_id, LabelObject(2, "кот", external_id="r", attributes={"a": 1}))
        for prompt in prompts:
            store.add_prompt(session_id, prompt)
        with pytest.raises(PromptError):
            store.add_prompt(session_id, Prompt(1, 5000, clicks=(Click(1, 1),)))
        with pytest.raises(UsageError, match="already used"):
            store.create(given, key="task")
        job = store.jobs.start(session_id, direction="forward", start=0)
        approved = FrameMask(1, 1, rle(1), float("-inf"), "approved")
        batch = [mask(o, f) for f in range(400) for o in (2, 1)]
        store.save_masks(session_id, [approved])
        assert store.save_masks(session_id, batch, job_id=job.id, next_frame=400) == 799
        assert store.annotations.put(ExternalAnnotation("task", "1", {"result": [{"id": "r"}]}))
    with SessionStore(url) as store:
        session = store.get(session_id)
        assert (session.media, session.model, session.prompts) == (given, MODEL, prompts)
        assert session.object(2).attributes == {"a": 1} and session.num_masks == 800
        masks = list(store.iter_masks(session_id))
        assert [(m.frame_idx, m.obj_id) for m in masks] == [
            (f, o) for f in range(400) for o in (1, 2)
        ]
        assert masks[2] == approved
        assert list(store.iter_masks(session_id, order="object")) == sorted(
            masks, key=lambda m: (m.obj_id, m.frame_idx)
        )
        assert store.mask_models(session_id) == {MODEL: 799, None: 1}
        assert store.summaries()[0].num_masks == 800
        assert store.undo(session_id) and store.undo(session_id) and store.redo(session_id)
        assert store.get(session_id).prompts == prompts[:1]
        assert store.jobs.get(job.id).next_frame == 400
        assert store.jobs.claim(job.id, "a", -1) and store.jobs.claim(job.id, "b")
        assert not store.jobs.claim(job.id, "a")
        assert [a.regions for a in store.annotations.under("ta")] == [({"id": "r"},)]
        assert store.delete_masks(session_id, 1, range(0, 400, 2)) == 200
        store.delete(session_id)
        assert store.summaries() == ()


def test_stores_opened_together_share_the_work(url: str) -> None:
    failures: list[BaseException] = []
    ids: list[str] = []

    def work(obj_id: int) -> None:
        try:
            with SessionStore(url) as store:
                session_id = store.find_or_create("k", media(100), model=MODEL).id
                ids.append(session_id)
                for frame in range(0, 100, 5):
                    store.add_prompt(session_id, Prompt(obj_id, frame, clicks=(Click(1, 1),)))
                    batch = [FrameMask(obj_id, f, RLE.empty(48, 64)) for f in range(frame + 5)]
                    store.save_masks(session_id, batch)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(obj_id,)) for obj_id in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(set(ids)) == 1
    with SessionStore(url) as store:
        session = store.get(ids[0])
        assert session.num_masks == 500 and len(session.prompts) == 100
        assert [e.seq for e in store.events(ids[0])] == list(range(1, 101))


def test_a_server_that_is_not_there(server: str) -> None:
    with pytest.raises(StoreError, match="refused|cannot be reached") as caught:
        SessionStore(server.format("no_such_database"))
    assert "\n" not in str(caught.value)
