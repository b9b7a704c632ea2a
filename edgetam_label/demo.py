"""The whole path in one call: render a clip, track, store, draw, export, measure against truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetam_label.demo_clip import DemoClip, render_demo_clip
from edgetam_label.evaluation.metrics import region_similarity
from edgetam_label.exporters.exporting import ExportRequest, export_sessions
from edgetam_label.frames import Frames
from edgetam_label.labeler import Labeler, Progress
from edgetam_label.modeling import EdgeTAM
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Click, Prompt
from edgetam_label.render import render_video, write_contact_sheet
from edgetam_label.sessions import LabelObject, LabelSession, SessionStore
from edgetam_label.training.prompt_sampling import POSITIVE, corrective_click

EXPORTS = ("coco", "ytvos")
SHEET_FRAMES = 6
GOOD_ENOUGH = 0.9  # IoU of a first answer that nobody would click on again

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ObjectScore:
    """One object against the rendered truth.

    iou: mean IoU over the frames where the object is in the truth or in the masks; without the
        prompted frame. worst: the lowest of them and its frame.
    """

    label: str
    iou: float
    worst: float
    worst_frame: int


@dataclass(frozen=True)
class DemoReport:
    """files: what was made, by name. seconds: of tracking. model: config name of the model used."""

    session_id: str
    model: str
    frames: int
    seconds: float
    scores: tuple[ObjectScore, ...]
    files: dict[str, Path]

    @property
    def mean_iou(self) -> float:
        return float(np.mean([score.iou for score in self.scores]))


def run_demo(
    out: Path,
    model: EdgeTAM,
    *,
    num_frames: int = 48,
    width: int = 640,
    height: int = 360,
    tell: Tell = lambda text: None,
    progress: Progress | None = None,
) -> DemoReport:
    """Everything under `out`; products of an earlier demo there are replaced.

    tell: gets a sentence at every step. progress: gets (frames done, frames to do) of tracking.
    """
    files = _files(out)
    for stale in (files["database"], *(out / f"sessions.db-{kind}" for kind in ("wal", "shm"))):
        stale.unlink(missing_ok=True)
    tell(f"Rendering {num_frames} frames with known truth")
    clip = render_demo_clip(files["clip"], width=width, height=height, num_frames=num_frames)
    with SessionStore(files["database"]) as store, Frames.open(clip.path) as frames:
        session = _prompted_session(model, store, clip, frames)
        tell(f"Tracking {len(clip.objects)} objects from one or two clicks each")
        start = time.monotonic()
        Labeler(model, store).track(session.id, frames, progress=progress)
        seconds = time.monotonic() - start
        tell("Drawing and exporting")
        session = store.get(session.id)
        _draw(store, session, frames, files)
        for name in EXPORTS:
            request = ExportRequest(name, files[name], (session.id,), overwrite=True)
            export_sessions(store, request)
        scores = tuple(_score(store, session.id, clip, item.id, item.name) for item in clip.objects)
    return DemoReport(session.id, model.config.name, num_frames, seconds, scores, files)


def _files(out: Path) -> dict[str, Path]:
    return {
        "clip": out / "clip.mp4",
        "database": out / "sessions.db",
        "overlay": out / "overlay.mp4",
        "sheet": out / "overlay.png",
        **{name: out / name for name in EXPORTS},
    }


def _prompted_session(
    model: EdgeTAM, store: SessionStore, clip: DemoClip, frames: Frames
) -> LabelSession:
    labeler, predictor = Labeler(model, store), ImagePredictor(model)
    session = labeler.create_session(frames, name="demo")
    embedding = predictor.embed(frames[0])
    for item in clip.objects:
        store.set_object(session.id, LabelObject(item.id, item.name))
        clicks: tuple[Click, ...] = (Click(*item.click),)
        answer = predictor.predict(embedding, Prompt(item.id, 0, clicks=clicks))
        # as a person who looks would: a second click where the first answer is most wrong, if it is
        truth = clip.mask(item.id, 0)
        wrong = corrective_click(answer.best, truth)
        if wrong is not None and region_similarity(answer.best, truth) < GOOD_ENOUGH:
            clicks = (*clicks, Click(wrong[0], wrong[1], wrong[2] == POSITIVE))
        labeler.add_prompt(session.id, Prompt(item.id, 0, clicks=clicks))
    return session


def _draw(
    store: SessionStore, session: LabelSession, frames: Frames, files: dict[str, Path]
) -> None:
    render_video(
        frames,
        store.iter_masks(session.id),
        session.objects,
        files["overlay"],
        prompts=session.prompts,
    )
    write_contact_sheet(
        frames,
        store.iter_masks(session.id),
        session.objects,
        files["sheet"],
        count=SHEET_FRAMES,
        columns=3,
        prompts=session.prompts,
    )


def _score(
    store: SessionStore, session_id: str, clip: DemoClip, obj_id: int, label: str
) -> ObjectScore:
    masklet = store.masklet(session_id, obj_id)
    ious: dict[int, float] = {}
    for frame_idx in range(1, len(clip.ids)):
        truth = clip.mask(obj_id, frame_idx)
        rle = masklet.frames.get(frame_idx)
        found = rle.decode() if rle is not None else np.zeros_like(truth)
        union = int((truth | found).sum())
        if union:
            ious[frame_idx] = int((truth & found).sum()) / union
    worst = min(ious, key=lambda frame_idx: ious[frame_idx])
    return ObjectScore(label, float(np.mean(list(ious.values()))), ious[worst], worst)
