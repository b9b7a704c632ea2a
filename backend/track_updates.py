"""What an annotator changed on a track becomes prompts, and the jobs that track it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgetam_label.prompts import Prompt
from edgetam_label.sessions import LabelObject, LabelSession, SessionStore

from .body import Task
from .context import Size, TrackRegion
from .faults import RequestError
from .jobs import JobPass, JobRunner
from .label_config import LabelConfig
from .live_jobs import LiveJob
from .timeline import Timeline
from .tracks import TrackState, own_keyframes, track_prompts

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class VideoRequest:
    """What the regions of one request share. options: of the project. client: who asks."""

    task: Task
    url: str
    config: LabelConfig
    timeline: Timeline
    size: Size
    options: Mapping[str, Any]
    client: str


class TrackUpdates:
    """max_frames: that one job tracks at most in each direction."""

    def __init__(self, store: SessionStore, jobs: JobRunner, max_frames: int) -> None:
        self._store = store
        self._jobs = jobs
        self._max_frames = max_frames

    def follow(
        self, session: LabelSession, region: TrackRegion, asked: VideoRequest
    ) -> tuple[LabelObject, list[LiveJob]]:
        """Bring one object's prompts up to date; the jobs that are under way for it.

        What was asked is on record last of all: a server that ends in between does all of it when
        it is asked again. Call it with the session's lock held. Raises RequestError, TooManyJobs.
        """
        known = next((o for o in session.objects if o.external_id == region.region_id), None)
        state = TrackState.from_attributes(known.attributes) if known else None
        own = own_keyframes(region, state)
        label = region.label or (state.label if state else None)
        if (
            known is not None
            and state is not None
            and own == state.own
            and not self._failed(session.id, known.obj_id)
        ):
            if label != state.label:
                known = self._save(session.id, known, replace(state, label=label), asked.config)
            return known, self._jobs.of(session.id, known.obj_id)
        wanted = {p.frame_idx: p for p in track_prompts(own, asked.timeline, asked.size, 1)}
        if not wanted:
            raise RequestError("The track has no box of yours left; draw one, then label it.")
        replaced = self._jobs.of(session.id, known.obj_id) if known else []
        directions = _directions(asked.options.get("direction"))
        self._jobs.check_limits(asked.client, len(directions), replaced)
        item = known or self._store.add_object(
            session.id, label or UNLABELLED, external_id=region.region_id
        )
        self._jobs.supersede(replaced)
        start = self._set_prompts(session, item.obj_id, wanted)
        jobs = self._jobs.submit(
            session.id,
            [self._pass(way, start if way == "forward" else min(wanted)) for way in directions],
            objects=(item.obj_id,),
            client=asked.client,
            num_frames=session.media.num_frames,
            payload={"url": asked.url, "task": asked.task.id, "project": asked.task.project},
        )
        fresh = TrackState(
            region_id=region.region_id,
            label=label,
            from_name=region.from_name,
            to_name=region.to_name,
            frame_rate=asked.timeline.frame_rate,
            frames_count=asked.timeline.frames_count,
            own=own,
            sent=state.sent if state else (),
            client=asked.client,
        )
        return self._save(session.id, item, fresh, asked.config), jobs

    def _failed(self, session_id: str, obj_id: int) -> bool:
        """Whether the last track of an object failed in some direction; then it is tried again."""
        last = {j.direction: j for j in self._store.jobs.find(session_id) if obj_id in j.objects}
        return any(job.state == "failed" for job in last.values())

    def _pass(self, direction: str, start: int) -> JobPass:
        step = 1 if direction == "forward" else -1
        return JobPass(direction, start, start + step * self._max_frames)

    def _set_prompts(self, session: LabelSession, obj_id: int, wanted: Mapping[int, Prompt]) -> int:
        """Write the prompts that changed; drop the masks from there on. The frame to start at."""
        before = {p.frame_idx: p for p in session.prompts if p.obj_id == obj_id}
        prompts = {index: replace(p, obj_id=obj_id) for index, p in wanted.items()}
        changed = [i for i in before.keys() | prompts.keys() if before.get(i) != prompts.get(i)]
        for index in before.keys() - prompts.keys():
            self._store.clear_prompt(session.id, obj_id, index)
        for _, prompt in sorted(prompts.items()):
            self._store.add_prompt(session.id, prompt)
        first = min(changed, default=min(prompts))
        self._store.delete_masks(session.id, obj_id, range(first, session.media.num_frames))
        return max(first, min(prompts))

    def _save(
        self, session_id: str, item: LabelObject, state: TrackState, config: LabelConfig
    ) -> LabelObject:
        label = state.label or UNLABELLED
        color = _hex(config.color(label)) or item.color
        changed = replace(
            item,
            label=label,
            color=color,
            external_id=state.region_id,
            attributes={**item.attributes, **state.to_attributes()},
        )
        self._store.set_object(session_id, changed)
        return changed


def _directions(asked: Any) -> tuple[str, ...]:
    """asked: "forward" (also for anything else), "backward" or "both"."""
    return {"backward": ("backward",), "both": ("forward", "backward")}.get(
        asked if isinstance(asked, str) else "", ("forward",)
    )


def _hex(color: str | None) -> str | None:
    """ "#RGB" or "#RRGGBB" as "#rrggbb"; a named colour is left to the default."""
    if color is None or not color.startswith("#"):
        return None
    digits = color[1:].lower()
    if len(digits) == 3:
        digits = "".join(2 * d for d in digits)
    usable = len(digits) == 6 and all(d in "0123456789abcdef" for d in digits)
    return f"#{digits}" if usable else None
