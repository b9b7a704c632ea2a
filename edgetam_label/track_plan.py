"""What has to be tracked again, and from where: a pure comparison of histories.

A job records which events each of its objects had when it began. Comparing them with the events in
force says where the object's masks stop being valid; the job's position says how far they reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgetam_label.session_types import JobPlan, PromptEvent, TrackingJob

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


@dataclass(frozen=True)
class TrackPass:
    """One pass to make: which objects, where the tracker joins each, and from where to write.

    drops: objects whose masks all go as this pass begins, for they start elsewhere by now.
    replay_other: the other direction was tracked before this one, so the start of its pass must be
    replayed: this one attends to its memories there.
    """

    direction: str
    histories: tuple[ObjectHistory, ...]
    write_from: Mapping[int, int]
    stop: int
    drops: frozenset[int]
    replay_other: bool

    @property
    def start(self) -> int:
        """The first frame that is written."""
        return (min if self.direction == "forward" else max)(self.write_from.values())

    @property
    def objects(self) -> tuple[int, ...]:
        return tuple(history.obj_id for history in self.histories)

    def writes(self, obj_id: int, frame_idx: int) -> bool:
        begin = self.write_from[obj_id]
        return frame_idx >= begin if self.direction == "forward" else frame_idx <= begin

    def as_job(self) -> JobPlan:
        """What is put on record, for the next plan to compare with."""
        return JobPlan(
            self.direction,
            self.start,
            self.stop,
            self.objects,
            payload={
                "write_from": {str(o): t for o, t in self.write_from.items()},
                "history": {str(h.obj_id): h.seqs for h in self.histories},
                "anchor": {str(h.obj_id): h.anchor for h in self.histories},
            },
        )


def plan_passes(
    chosen: Sequence[ObjectHistory],
    events: Mapping[int, PromptEvent],
    jobs: Sequence[TrackingJob],
    directions: Sequence[str],
    num_frames: int,
    max_frames: int | None = None,
) -> list[TrackPass]:
    """The passes that bring the masks of the chosen objects up to date; none where they are.

    events: all of the session's by seq, undone ones included. jobs: all of the session's, oldest
    first. max_frames: at most so many new frames in each direction.
    """
    standing = {h.obj_id: standing_jobs(h, jobs) for h in chosen}
    dropping = {h.obj_id for h in chosen if start_moved(h, jobs)}
    passes: list[TrackPass] = []
    for direction in dict.fromkeys(directions):
        forward = direction == "forward"
        end = num_frames if forward else -1
        starts: dict[int, int] = {}
        for history in chosen:
            same_way = [j for j in standing[history.obj_id] if j.direction == direction]
            begin = first_invalid(history, same_way[-1] if same_way else None, events, direction)
            if (begin < end) if forward else (begin > end):
                starts[history.obj_id] = begin
        if not starts:
            continue
        one = TrackPass(
            direction,
            tuple(h for h in chosen if h.obj_id in starts),
            starts,
            end,
            drops=frozenset(dropping & starts.keys()),
            replay_other=bool(passes) or any(_other_first(standing[o], direction) for o in starts),
        )
        dropping -= one.drops
        if max_frames is not None:
            limit = one.start + max_frames if forward else one.start - max_frames
            one = replace(one, stop=min(end, limit) if forward else max(end, limit))
        passes.append(one)
    return passes


def standing_jobs(history: ObjectHistory, jobs: Sequence[TrackingJob]) -> list[TrackingJob]:
    """The jobs that tracked an object from where it starts now, oldest first.

    When the start moved, all masks of the object went; what was tracked before says nothing, even
    where the start moved back again.
    """
    standing: list[TrackingJob] = []
    for job in reversed(_covering(history, jobs)):
        if _anchor(job, history.obj_id) != history.anchor:
            break
        standing.append(job)
    return standing[::-1]


def start_moved(history: ObjectHistory, jobs: Sequence[TrackingJob]) -> bool:
    """Whether the object's masks were tracked from another frame than the one it starts on now."""
    covering = _covering(history, jobs)
    anchor = _anchor(covering[-1], history.obj_id) if covering else None
    return anchor is not None and anchor != history.anchor


def _covering(history: ObjectHistory, jobs: Sequence[TrackingJob]) -> list[TrackingJob]:
    return [job for job in jobs if history.obj_id in job.objects]


def _anchor(job: TrackingJob, obj_id: int) -> int | None:
    """None for a job of the server: it keeps other records, so nothing of it can be compared."""
    anchors = job.payload.get("anchor")
    found = anchors.get(str(obj_id)) if isinstance(anchors, Mapping) else None
    return None if found is None else int(found)


def _other_first(standing: Sequence[TrackingJob], direction: str) -> bool:
    return bool(standing) and standing[0].direction != direction


def first_invalid(
    history: ObjectHistory,
    job: TrackingJob | None,
    events: Mapping[int, PromptEvent],
    direction: str,
) -> int:
    """The first frame, in the direction of travel, whose mask of this object is not valid.

    job: the latest that tracked the object in this direction from where it starts now. events: all
    of the session's by seq, undone ones included. May lie beyond the last frame: then there is
    nothing to do.
    """
    anchor = history.anchor
    assert anchor is not None
    if job is None:
        return anchor
    forward = direction == "forward"
    nearest, farthest = (min, max) if forward else (max, min)
    begun = int(job.payload["write_from"][str(history.obj_id)])
    reached = farthest(begun, job.next_frame)
    changed = set(job.payload["history"][str(history.obj_id)]) ^ set(history.seqs)
    frames = [events[seq].frame_idx for seq in changed if seq in events]
    ahead = [t for t in frames if t is not None and (t >= anchor if forward else t <= anchor)]
    return nearest([reached, *ahead])
