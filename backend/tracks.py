"""What an annotator changed on a track, and the sparse keyframes that go back. Pure functions.

The editor sends back our own keyframes among the annotator's. Which is whose is told by what was
sent before: a keyframe that we did not send, or that was moved, is the annotator's word, and stays.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetam_label.prompts import Prompt

from .context import Keyframe, Size, TrackRegion, keyframe_box
from .faults import RequestError
from .keyframes import BoxXYXY, sparse_keyframes
from .timeline import Timeline

ATTRIBUTE = "label_studio"
MAX_SENT = 5000
MAX_OWN = 1000  # each is a prompt, which costs a run of the model


@dataclass(frozen=True)
class TrackState:
    """What is kept with an object of the session: its region in Label Studio.

    own: the annotator's keyframes. sent: the keyframes of all answers so far, the latest last: an
    editor may hold an older answer than the last one (a second annotator, an answer that got lost).
    client: who changed it last; a pushed prediction holds the tracks of one annotator.
    """

    region_id: str
    label: str | None
    from_name: str
    to_name: str
    frame_rate: float
    frames_count: int
    own: tuple[Keyframe, ...]
    sent: tuple[Keyframe, ...] = ()
    client: str = ""

    def to_attributes(self) -> dict[str, Any]:
        return {
            ATTRIBUTE: {
                "region_id": self.region_id,
                "label": self.label,
                "from_name": self.from_name,
                "to_name": self.to_name,
                "frame_rate": self.frame_rate,
                "frames_count": self.frames_count,
                "own": [_pack(k) for k in self.own],
                "sent": [_pack(k) for k in self.sent],
                "client": self.client,
            }
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> TrackState | None:
        """None for an object that did not come from here."""
        raw = attributes.get(ATTRIBUTE)
        if not isinstance(raw, Mapping):
            return None
        return cls(
            region_id=raw["region_id"],
            label=raw["label"],
            from_name=raw["from_name"],
            to_name=raw["to_name"],
            frame_rate=raw["frame_rate"],
            frames_count=raw["frames_count"],
            own=tuple(_unpack(k) for k in raw["own"]),
            sent=tuple(_unpack(k) for k in raw["sent"]),
            client=raw.get("client", ""),
        )

    def with_sent(self, keyframes: Sequence[Keyframe]) -> TrackState:
        """Remember an answer."""
        known = _by_frame(self.sent)
        new = tuple(k for k in keyframes if not any(k.near(s) for s in known.get(k.frame, ())))
        return replace(self, sent=(self.sent + new)[-MAX_SENT:])


def _by_frame(keyframes: Iterable[Keyframe]) -> dict[int, list[Keyframe]]:
    found: dict[int, list[Keyframe]] = {}
    for keyframe in keyframes:
        found.setdefault(keyframe.frame, []).append(keyframe)
    return found


def _pack(k: Keyframe) -> list[Any]:
    return [k.frame, k.x, k.y, k.width, k.height, k.enabled, k.rotation]


def _unpack(raw: Sequence[Any]) -> Keyframe:
    return Keyframe(*raw)


def own_keyframes(region: TrackRegion, known: TrackState | None) -> tuple[Keyframe, ...]:
    """The annotator's keyframes among those of a region."""
    if known is None:
        return region.keyframes
    sent = _by_frame(known.sent)
    own = {k.frame: k for k in known.own}
    found: list[Keyframe] = []
    for keyframe in region.keyframes:
        before = own.get(keyframe.frame)
        untouched = any(keyframe.near(ours) for ours in sent.get(keyframe.frame, ()))
        if before is not None and (
            untouched and keyframe.same_box(before) or keyframe.near(before)
        ):
            found.append(before)  # as it was drawn, not as the track switched it off
        elif not untouched:
            found.append(keyframe)
    return tuple(found)


def track_prompts(
    own: Iterable[Keyframe], timeline: Timeline, size: Size, obj_id: int
) -> tuple[Prompt, ...]:
    """One box prompt per picture. Where two editor frames show one picture, the later counts.

    Raises RequestError for a box that covers no pixel.
    """
    own = tuple(own)
    if len(own) > MAX_OWN:
        raise RequestError(
            f"The track has {len(own)} boxes that were not made here, more than the {MAX_OWN} "
            "that are taken as prompts; delete most of them, or draw the track anew."
        )
    by_index = {timeline.index_of(k.frame): k for k in sorted(own, key=lambda k: k.frame)}
    return tuple(
        Prompt(obj_id=obj_id, frame_idx=index, box=keyframe_box(k, size))
        for index, k in by_index.items()
    )


def merged_keyframes(
    own: Sequence[Keyframe],
    boxes: Mapping[int, BoxXYXY],
    timeline: Timeline,
    size: Size,
    tolerance: float,
) -> tuple[Keyframe, ...]:
    """The annotator's keyframes and as few of ours as keep to the tracked boxes.

    boxes: by 0-based index of the picture, pixels. tolerance: IoU, see `sparse_keyframes`.
    """
    pinned = {k.frame - 1: _corners(k) for k in own}
    ordered = sorted(own, key=lambda k: k.frame)
    starts = [k.frame for k in ordered]
    shown: dict[int, BoxXYXY] = {}
    for index, box in boxes.items():
        for frame in timeline.frames_of(index):
            last = bisect.bisect_left(starts, frame) - 1
            # the annotator may have ended the object before this frame
            if last < 0 or ordered[last].enabled:
                shown[frame - 1] = _percent(box, size)
    sparse = sparse_keyframes(
        shown, tolerance=tolerance, num_frames=timeline.frames_count, pinned=pinned
    )
    drawn = {k.frame: k for k in own}
    return tuple(_keyframe(s.frame_idx + 1, s.box, s.enabled, drawn) for s in sparse)


def _keyframe(frame: int, box: BoxXYXY, enabled: bool, drawn: Mapping[int, Keyframe]) -> Keyframe:
    own = drawn.get(frame)
    if own is not None:
        # its box stays as drawn; that nothing follows must still be said, or it would never end
        return Keyframe(
            frame, own.x, own.y, own.width, own.height, own.enabled and enabled, own.rotation
        )
    x0, y0, x1, y1 = box
    return Keyframe(frame, x0, y0, x1 - x0, y1 - y0, enabled)


def _corners(keyframe: Keyframe) -> BoxXYXY:
    return (
        keyframe.x,
        keyframe.y,
        keyframe.x + max(keyframe.width, 1e-6),
        keyframe.y + max(keyframe.height, 1e-6),
    )


def _percent(box: BoxXYXY, size: Size) -> BoxXYXY:
    return (
        box[0] * 100 / size.width,
        box[1] * 100 / size.height,
        box[2] * 100 / size.width,
        box[3] * 100 / size.height,
    )
