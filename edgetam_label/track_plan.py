"""What has to be tracked again, and from where: a pure comparison of histories.

A job records which events each of its objects had when it began. Comparing them with the events in
force says where the object's masks stop being valid; the job's position says how far they reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgetam_label.session_types import PromptEvent, TrackingJob

PROMPTING = ("prompt", "clear_prompt")


@dataclass(frozen=True)
class ObjectHistory:
    """The prompt events of one object that are in force, oldest first."""

    obj_id: int
    events: tuple[PromptEvent, ...]

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]

    @property
    def anchor(self) -> int | None:
        """The first frame with a prompt that is no correction; None without any prompt."""
        prompts = {}
        for event in self.events:
            prompts[event.frame_idx] = event.prompt
        given = [p for p in prompts.values() if p is not None]
        frames = [p.frame_idx for p in given if not p.correction] or [p.frame_idx for p in given]
        return min(frames, default=None)


def histories(events: Iterable[PromptEvent]) -> dict[int, ObjectHistory]:
    """Objects that have a prompt, by id, from a session's events in force."""
    by_object: dict[int, list[PromptEvent]] = {}
    for event in events:
        if event.kind in PROMPTING:
            by_object.setdefault(event.obj_id, []).append(event)
        elif event.kind == "remove_object":
            by_object.pop(event.obj_id, None)
    found = {obj_id: ObjectHistory(obj_id, tuple(rows)) for obj_id, rows in by_object.items()}
    return {obj_id: history for obj_id, history in found.items() if history.anchor is not None}


def latest_job(jobs: Sequence[TrackingJob], obj_id: int, direction: str) -> TrackingJob | None:
    """The last job that tracked an object in a direction; `jobs` are a session's, oldest first."""
    covering = [job for job in jobs if job.direction == direction and obj_id in job.objects]
    return covering[-1] if covering else None


def moved(history: ObjectHistory, job: TrackingJob) -> bool:
    """Whether the object's first prompted frame changed since `job`: nothing of it holds then."""
    return int(job.payload["anchor"][str(history.obj_id)]) != history.anchor


def first_invalid(
    history: ObjectHistory,
    job: TrackingJob | None,
    events: Mapping[int, PromptEvent],
    direction: str,
) -> int:
    """The first frame, in the direction of travel, whose mask of this object is not valid.

    job: the latest that tracked the object in this direction. events: all of the session's by seq,
    undone ones included. May lie beyond the last frame: then there is nothing to do.
    """
    anchor = history.anchor
    assert anchor is not None
    if job is None or moved(history, job):
        return anchor
    forward = direction == "forward"
    nearest, farthest = (min, max) if forward else (max, min)
    begun = int(job.payload["write_from"][str(history.obj_id)])
    reached = farthest(begun, job.next_frame)
    changed = set(job.payload["history"][str(history.obj_id)]) ^ set(history.seqs)
    frames = [events[seq].frame_idx for seq in changed if seq in events]
    ahead = [t for t in frames if t is not None and (t >= anchor if forward else t <= anchor)]
    return nearest([reached, *ahead])
