"""Label Studio's context → prompts of the core: percent to pixels, 1-based to 0-based, once.

Image regions become `Instance`s (clicks or a box, one per object), `videorectangle` regions become
`TrackRegion`s whose keyframes still count in the editor's own frames. Pure functions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetam_label.prompts import Box, Click, Prompt

from .body import brief, number, region_label
from .faults import RequestError

SLACK_PERCENT = 1.0  # a click on the very edge of the canvas may land a little outside
MAX_KEYFRAMES = 100_000
POINT_TYPES = ("keypointlabels", "keypoint")
BOX_TYPES = ("rectanglelabels", "rectangle")
TRACK_TYPE = "videorectangle"


@dataclass(frozen=True)
class Size:
    """Width and height in pixels, as displayed."""

    width: int
    height: int

    def x(self, percent: float) -> float:
        return percent * self.width / 100

    def y(self, percent: float) -> float:
        return percent * self.height / 100


@dataclass(frozen=True)
class Instance:
    """One object on one image.

    region_id: stable name of the answer, made from the first prompt that belongs to the object.
    prompt: in pixels of the displayed image. item_index: which image of a list.
    """

    region_id: str
    prompt: Prompt
    label: str | None
    from_name: str
    to_name: str
    item_index: int = 0
    rotation: int = 0


@dataclass(frozen=True)
class Keyframe:
    """One entry of a `videorectangle` sequence. frame: 1-based; x, y, width, height: percent."""

    frame: int
    x: float
    y: float
    width: float
    height: float
    enabled: bool = True
    rotation: float = 0.0

    def near(self, other: Keyframe, tolerance: float = 1e-3) -> bool:
        """The same keyframe, but for the rounding of a trip through the editor."""
        return self.enabled == other.enabled and self.same_box(other, tolerance)

    def same_box(self, other: Keyframe, tolerance: float = 1e-3) -> bool:
        """As `near`, whether switched on or off."""
        return self.frame == other.frame and all(
            abs(a - b) <= tolerance for a, b in zip(self._numbers(), other._numbers(), strict=True)
        )

    def _numbers(self) -> tuple[float, ...]:
        return self.x, self.y, self.width, self.height, self.rotation

    def to_json(self, frame_rate: float) -> dict[str, Any]:
        """As Label Studio writes it: `time` and `rotation` are needed by its own export."""
        return {
            "frame": self.frame,
            "time": self.frame / frame_rate,
            "enabled": self.enabled,
            "rotation": self.rotation,
            "x": self.x,
            "y": self.y,
            "width": self.width,
            "height": self.height,
        }


@dataclass(frozen=True)
class TrackRegion:
    """A `videorectangle` of the context. frames_count, duration: as the editor counts, or None.

    blank: the editor shows no label (a second click on a label takes it away), whatever `label`
    was found elsewhere.
    """

    region_id: str
    label: str | None
    from_name: str
    to_name: str
    keyframes: tuple[Keyframe, ...]
    frames_count: int | None = None
    duration: float | None = None
    blank: bool = False


def image_instances(
    regions: Sequence[Mapping[str, Any]], size: Size, *, scope: str = ""
) -> list[Instance]:
    """The objects that the prompts of an image ask for, each with obj_id 1, 2, … in order.

    Points of one label are one object; each box is one object; points that lie inside a box of the
    same label refine that box. scope: makes region ids differ between tasks.
    Raises RequestError on a malformed prompt.
    """
    points: dict[tuple[str, str, str | None, int], list[tuple[str, Click, int]]] = {}
    boxes: list[tuple[str, str, str, str | None, int, Box, int]] = []
    for region in regions:
        kind = region.get("type")
        if kind not in POINT_TYPES + BOX_TYPES:
            continue
        value = _value(region)
        label, item = region_label(region), _item_index(region)
        origin, target = _name(region, "from_name"), _name(region, "to_name")
        turn = _turn(region)
        name = _name(region, "id") or _digest(value)
        if kind in POINT_TYPES:
            click = unturn_click(_click(region, value, _turned(size, turn)), size, turn)
            points.setdefault((origin, target, label, item), []).append((name, click, turn))
        else:
            box = unturn_box(_box(value, _turned(size, turn)), size, turn)
            boxes.append((name, origin, target, label, item, box, turn))
    found: list[Instance] = []
    for name, origin, target, label, item, box, turn in boxes:
        inside = _take_inside(points, target, label, item, box)
        prompt = Prompt(obj_id=len(found) + 1, clicks=tuple(c for _, c, _ in inside), box=box)
        found.append(Instance(answer_id(scope, name), prompt, label, origin, target, item, turn))
    for (origin, target, label, item), clicks in points.items():
        if not clicks:
            continue
        prompt = Prompt(obj_id=len(found) + 1, clicks=tuple(c for _, c, _ in clicks))
        first, _, turn = clicks[0]
        found.append(Instance(answer_id(scope, first), prompt, label, origin, target, item, turn))
    return found


def _take_inside(
    points: dict[tuple[str, str, str | None, int], list[tuple[str, Click, int]]],
    target: str,
    label: str | None,
    item: int,
    box: Box,
) -> list[tuple[str, Click, int]]:
    taken: list[tuple[str, Click, int]] = []
    for (_, to_name, name, index), clicks in points.items():
        if (to_name, name, index) != (target, label, item):
            continue
        inside = [c for c in clicks if box.x0 <= c[1].x <= box.x1 and box.y0 <= c[1].y <= box.y1]
        taken += inside
        clicks[:] = [c for c in clicks if c not in inside]
    return taken


def track_regions(
    regions: Sequence[Mapping[str, Any]], labels: Mapping[str, str] | None = None
) -> list[TrackRegion]:
    """The `videorectangle` regions. labels: by region id, for those whose label was blanked."""
    found: list[TrackRegion] = []
    for region in regions:
        if region.get("type") != TRACK_TYPE:
            continue
        value = _value(region)
        sequence = value.get("sequence")
        if not isinstance(sequence, list) or len(sequence) > MAX_KEYFRAMES:
            raise RequestError(
                f"A videorectangle needs 'sequence', a list of keyframes, got {brief(sequence)}."
            )
        keyframes = sorted((_keyframe(raw) for raw in sequence), key=lambda k: k.frame)
        name = _name(region, "id") or _digest(value)
        count, duration = value.get("framesCount"), value.get("duration")
        found.append(
            TrackRegion(
                region_id=name,
                label=region_label(region) or (labels or {}).get(name),
                from_name=_name(region, "from_name"),
                to_name=_name(region, "to_name"),
                keyframes=tuple({k.frame: k for k in keyframes}.values()),
                frames_count=int(number(value, "framesCount")) if count is not None else None,
                duration=number(value, "duration") if duration is not None else None,
                blank=region_label(region) is None,
            )
        )
    return found


def keyframe_box(keyframe: Keyframe, size: Size) -> Box:
    """The upright box around a keyframe, clipped to the frame. Raises RequestError if empty."""
    return _pixels(keyframe.x, keyframe.y, keyframe.width, keyframe.height, keyframe.rotation, size)


def _keyframe(raw: Any) -> Keyframe:
    if not isinstance(raw, dict):
        raise RequestError(f"A keyframe must be an object, got {brief(raw)}.")
    frame = number(raw, "frame")
    if frame < 1 or frame != int(frame) or frame > 1e9:
        raise RequestError(f"A keyframe's 'frame' counts from 1 in whole numbers, got {frame:g}.")
    return Keyframe(
        frame=int(frame),
        x=number(raw, "x"),
        y=number(raw, "y"),
        width=number(raw, "width"),
        height=number(raw, "height"),
        enabled=raw.get("enabled") is not False,
        rotation=number(raw, "rotation", 0.0),
    )


def answer_id(scope: str, prompt_id: str) -> str:
    """A region id that stays the same while the first prompt of an object stays."""
    return _digest(f"{scope}\0{prompt_id}")


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()[:10]


def _value(region: Mapping[str, Any]) -> Mapping[str, Any]:
    value = region.get("value")
    if not isinstance(value, dict):
        raise RequestError(f"Region {brief(region.get('id'))} has no 'value', got {brief(value)}.")
    return value


def _name(region: Mapping[str, Any], key: str) -> str:
    raw = region.get(key)
    return raw[:256] if isinstance(raw, str) else ""


def _item_index(region: Mapping[str, Any]) -> int:
    raw = region.get("item_index")
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 1_000_000 else 0


def _turn(region: Mapping[str, Any]) -> int:
    """Quarter turns (clockwise) that the annotator gave the image in the editor."""
    raw = region.get("image_rotation", 0)
    if raw is None:
        return 0
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or raw not in (0, 90, 180, 270):
        raise RequestError(f"'image_rotation' must be 0, 90, 180 or 270, got {brief(raw)}.")
    return int(raw)


def _click(region: Mapping[str, Any], value: Mapping[str, Any], size: Size) -> Click:
    # `is_positive` lies outside `value`; other clients put it inside, as `positive`
    positive = region.get("is_positive")
    if positive is None:
        positive = value.get("is_positive", value.get("positive"))
    x, y = number(value, "x"), number(value, "y")
    for name, percent in (("x", x), ("y", y)):
        if not -SLACK_PERCENT <= percent <= 100 + SLACK_PERCENT:
            raise RequestError(
                f"A click at {name}={percent:g} lies outside the image; positions are percent, "
                "0 to 100."
            )
    x, y = min(max(x, 0.0), 100.0), min(max(y, 0.0), 100.0)
    return Click(size.x(x), size.y(y), positive is not False)


def _box(value: Mapping[str, Any], size: Size) -> Box:
    return _pixels(
        number(value, "x"),
        number(value, "y"),
        number(value, "width"),
        number(value, "height"),
        number(value, "rotation", 0.0),
        size,
    )


def _pixels(x: float, y: float, width: float, height: float, rotation: float, size: Size) -> Box:
    """Label Studio turns a box about its top-left corner, in pixels, clockwise in degrees."""
    w, h = size.x(width), size.y(height)
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    corners = [(u * cos - v * sin, u * sin + v * cos) for u in (0.0, w) for v in (0.0, h)]
    xs = [min(max(size.x(x) + u, 0.0), size.width) for u, _ in corners]
    ys = [min(max(size.y(y) + v, 0.0), size.height) for _, v in corners]
    if max(xs) - min(xs) < 1 or max(ys) - min(ys) < 1:
        raise RequestError(
            f"The box x={x:g}, y={y:g}, width={width:g}, height={height:g} (percent) covers less "
            f"than one pixel of the {size.width}x{size.height} frame; draw it around the object."
        )
    return Box(min(xs), min(ys), max(xs), max(ys))


def _turned(size: Size, turn: int) -> Size:
    return Size(size.height, size.width) if turn in (90, 270) else size


def unturn_click(click: Click, size: Size, turn: int) -> Click:
    """A click on the turned image → on the image as it is stored. size: of the stored image."""
    x, y = click.x, click.y
    if turn == 90:
        x, y = y, size.height - x
    elif turn == 180:
        x, y = size.width - x, size.height - y
    elif turn == 270:
        x, y = size.width - y, x
    return Click(x, y, click.positive)


def unturn_box(box: Box, size: Size, turn: int) -> Box:
    a = unturn_click(Click(box.x0, box.y0), size, turn)
    b = unturn_click(Click(box.x1, box.y1), size, turn)
    return Box(min(a.x, b.x), min(a.y, b.y), max(a.x, b.x), max(a.y, b.y))
