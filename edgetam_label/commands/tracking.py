"""What `track` does around the library: gather, create, run with a bar, stop politely, report."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import click

from edgetam_label.checkpoints import AUTO, RANDOM, load_model
from edgetam_label.frames import Frames
from edgetam_label.labeler import Labeler, TrackSummary
from edgetam_label.options import progress_bar
from edgetam_label.prompt_flags import ObjectFlag, check_frames, check_objects
from edgetam_label.prompts import Prompt
from edgetam_label.sessions import LabelObject, LabelSession, SessionStore
from edgetam_label.settings import Settings
from edgetam_label.track_mode import TrackMode
from edgetam_label.tracker import TrackerSettings

BOTH = ("forward", "backward")


@dataclass(frozen=True)
class Request:
    """What was typed.

    directions, every, image_size: None where it was not said. flags: (name, value) to repeat when
    going on; the mode need not be, a session keeps to its own.
    """

    objects: tuple[ObjectFlag, ...]
    prompts: tuple[Prompt, ...]
    directions: tuple[str, ...] | None
    max_frames: int | None
    flags: tuple[tuple[str, str | None], ...] = ()
    every: int | None = None
    image_size: int | None = None

    def resume_command(self, session_id: str) -> str:
        """The command that goes on with the session."""
        words = ["edgetam-label", "track", "--resume", session_id]
        for flag, value in self.flags:
            words += [flag, value] if value is not None else []
        return shlex.join(words)


@dataclass(frozen=True)
class Outcome:
    """What was done. interrupted: by Ctrl-C; what is done is kept."""

    session: LabelSession
    summary: TrackSummary
    interrupted: bool
    seconds: float


def open_frames(session: LabelSession | None, source: str | None) -> Frames:
    """The media of a new session (`source`) or of an existing one, with a bar for the index."""
    with progress_bar("Reading", "B", scaled=True) as progress:
        if session is not None:
            return Frames.open(session.media.source, identity=session.media, progress=progress)
        assert source is not None
        return Frames.open(source, progress=progress)


def labeler_for(
    store: SessionStore, settings: Settings, session: LabelSession | None, request: Request
) -> Labeler:
    """With the model that was asked for; a session goes on with its own unless told otherwise."""
    name, checkpoint, mode = settings.model, settings.checkpoint, TrackMode()
    if session is not None and session.model is not None:
        own, mode = TrackMode.of(session.model)
        if (name, checkpoint) == (AUTO, None):
            name = own
            if session.model.checkpoint_sha256.startswith(RANDOM):
                checkpoint = RANDOM
    model = load_model(
        name,
        checkpoint,
        settings.device,
        checkpoint_dir=settings.checkpoint_dir,
        image_size=request.image_size or mode.image_size,
        precision=settings.precision or mode.precision,
    )
    return Labeler(model, store, settings=TrackerSettings(every=request.every or mode.every))


def track_new(
    store: SessionStore, settings: Settings, source: str, name: str | None, request: Request
) -> Outcome:
    """A new session on `source`. Nothing is stored unless every prompt can be used."""
    check_objects(request.prompts, request.objects)
    with open_frames(None, source) as frames:
        _check(request, frames)
        labeler = labeler_for(store, settings, None, request)
        session = labeler.create_session(frames, name=name)
        return _run(labeler, session, frames, request)


def track_on(store: SessionStore, settings: Settings, session_id: str, request: Request) -> Outcome:
    """Go on with a session, after more prompts if there are any."""
    session = store.get(session_id)
    known = [item.obj_id for item in session.objects]
    check_objects(request.prompts, request.objects, known)
    with open_frames(session, None) as frames:
        _check(request, frames)
        labeler = labeler_for(store, settings, session, request)
        return _run(labeler, session, frames, request)


def _check(request: Request, frames: Frames) -> None:
    check_frames(request.prompts, frames.width, frames.height, len(frames))


def _run(labeler: Labeler, session: LabelSession, frames: Frames, request: Request) -> Outcome:
    store = labeler.store
    start = time.monotonic()
    try:
        for item in request.objects:
            store.set_object(session.id, LabelObject(item.obj_id, item.label))
        for prompt in request.prompts:
            labeler.add_prompt(session.id, prompt)
        directions = request.directions or _directions_so_far(store, session.id)
        with _until_interrupted() as interrupted, progress_bar("Tracking", "frame") as progress:
            summary = labeler.track(
                session.id,
                frames,
                directions=directions,
                max_frames=request.max_frames,
                cancel=interrupted,
                progress=progress,
            )
            stopped = interrupted()
    except BaseException:
        click.echo(
            f"What is done is kept in session {session.id}; go on with: "
            f"{request.resume_command(session.id)}",
            err=True,
        )
        raise
    return Outcome(store.get(session.id), summary, stopped, time.monotonic() - start)


def _directions_so_far(store: SessionStore, session_id: str) -> tuple[str, ...]:
    ran = {job.direction for job in store.jobs.find(session_id)}
    return tuple(direction for direction in BOTH if direction in ran) or BOTH[:1]


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) lets the frame in hand be stored; the second ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals belong to the main thread
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        click.echo("Stopping after this frame; once more to stop at once.", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def object_report(store: SessionStore, session: LabelSession) -> list[dict[str, Any]]:
    """Per object: on how many frames it is visible, absent, or approved by a person."""
    kinds: dict[int, Counter[str]] = {}
    for mask in store.iter_masks(session.id):
        kinds.setdefault(mask.obj_id, Counter())[mask.status] += 1
    report = []
    for item in session.objects:
        counts = kinds.get(item.obj_id, Counter())
        report.append(
            {
                "id": item.obj_id,
                "label": item.label,
                "frames": sum(counts.values()),
                "visible": counts["tracked"] + counts["prompted"],
                "absent": counts["absent"],
                "approved": counts["approved"],
            }
        )
    return report
