"""What a person types after --click, --box, --mask and --object, read into prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgetam_label.errors import PromptError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.prompts import Box, Click, Prompt

T = TypeVar("T")

IMAGE_CLICK = "--click X,Y or X,Y,- (pixels from the top-left corner; the minus marks background)"
IMAGE_BOX = "--box X0,Y0,X1,Y1 (left, top, right, bottom edge in pixels)"
CLICK = "--click ID,FRAME,X,Y or ID,FRAME,X,Y,- (frames count from 0; the minus marks background)"
BOX = "--box ID,FRAME,X0,Y0,X1,Y1 (frames count from 0)"
MASK = "--mask ID,FRAME,PNG (frames count from 0; a picture of the frame's size, object white)"
OBJECT = "--object ID:LABEL (the id is a whole number from 1)"


@dataclass(frozen=True)
class ObjectFlag:
    """`--object 3:dog`."""

    obj_id: int
    label: str


def parse_object(text: str) -> ObjectFlag:
    """`ID:LABEL`; the label may hold any character, colons too."""
    number, colon, label = text.partition(":")
    if not colon or not number.strip().isdecimal() or not label.strip() or int(number) < 1:
        raise UsageError(f"--object {text!r} cannot be read; write {OBJECT}.")
    return ObjectFlag(int(number), label.strip())


def image_prompt(clicks: Sequence[str], boxes: Sequence[str]) -> Prompt:
    """One object on one image. Raises UsageError naming the flag and the form it should have."""
    if len(boxes) > 1:
        raise UsageError(f"{len(boxes)} boxes were given; an object has one --box.")
    return Prompt(
        obj_id=1,
        clicks=tuple(_click(text, text.split(","), IMAGE_CLICK) for text in clicks),
        box=_box(boxes[0], boxes[0].split(","), IMAGE_BOX) if boxes else None,
    )


def video_prompts(
    clicks: Sequence[str],
    boxes: Sequence[str],
    masks: Sequence[str],
    read_mask: Callable[[Path], RLE],
) -> tuple[Prompt, ...]:
    """All that was said, gathered per object and frame, by frame then object.

    Raises UsageError naming the flag and the form it should have; PromptError for what a `Prompt`
    refuses (an empty box, a mask together with clicks).
    """
    gathered: dict[tuple[int, int], _Gathered] = {}

    def at(text: str, count: int, form: str) -> tuple[_Gathered, list[str]]:
        obj_id, frame_idx, rest = _place(text, count, form)
        return gathered.setdefault((frame_idx, obj_id), _Gathered()), rest

    for text in clicks:
        place, rest = at(text, -1, CLICK)
        place.clicks.append(_click(text, rest, CLICK))
    for text in boxes:
        place, rest = at(text, -1, BOX)
        if place.box is not None:
            raise UsageError(
                f"--box {text!r} is the second box for its object and frame; give one."
            )
        place.box = _box(text, rest, BOX)
    for text in masks:
        place, rest = at(text, 2, MASK)
        if place.mask is not None:
            raise UsageError(f"--mask {text!r} is the second mask for its object and frame.")
        place.mask = read_mask(Path(rest[0]))
    return tuple(
        Prompt(obj_id, frame_idx, tuple(place.clicks), place.box, place.mask)
        for (frame_idx, obj_id), place in sorted(gathered.items(), key=lambda item: item[0])
    )


def check_objects(
    prompts: Sequence[Prompt], given: Sequence[ObjectFlag], known: Sequence[int] = ()
) -> None:
    """Every prompt belongs to an object, every new object has a prompt, no id comes twice.

    known: objects that the session already has. Raises UsageError.
    """
    ids = [item.obj_id for item in given]
    for obj_id in ids:
        if ids.count(obj_id) > 1:
            raise UsageError(f"--object {obj_id} is given twice; ids are unique.")
    prompted = {prompt.obj_id for prompt in prompts}
    for obj_id in sorted(prompted - set(ids) - set(known)):
        raise UsageError(f"Object {obj_id} is unknown; name it with --object {obj_id}:LABEL.")
    for item in given:
        if item.obj_id not in prompted and item.obj_id not in known:
            raise UsageError(
                f"Object {item.obj_id} ({item.label}) has no prompt; point at it with "
                f"--click {item.obj_id},FRAME,X,Y, --box or --mask."
            )


def check_frames(prompts: Sequence[Prompt], width: int, height: int, num_frames: int) -> None:
    """Every prompt lies on a frame that exists and inside it. Raises PromptError."""
    for prompt in prompts:
        if prompt.frame_idx >= num_frames:
            raise PromptError(
                f"Frame {prompt.frame_idx} does not exist; the video has {num_frames} frames, "
                f"0 to {num_frames - 1}."
            )
        prompt.check_inside(width, height)


@dataclass
class _Gathered:
    clicks: list[Click]
    box: Box | None
    mask: RLE | None

    def __init__(self) -> None:
        self.clicks, self.box, self.mask = [], None, None


def _place(text: str, parts: int, form: str) -> tuple[int, int, list[str]]:
    """Object id, frame index and what follows them; a PNG's name may hold commas."""
    fields = text.split(",", parts) if parts > 0 else text.split(",")
    if len(fields) < 3 or not all(field.strip().isdecimal() for field in fields[:2]):
        raise _unreadable(text, form)
    return int(fields[0]), int(fields[1]), fields[2:]


def _click(text: str, fields: Sequence[str], form: str) -> Click:
    sign = fields[2].strip() if len(fields) == 3 else "+"
    if len(fields) not in (2, 3) or sign not in ("+", "-"):
        raise _unreadable(text, form)
    x, y = _numbers(text, fields[:2], form)
    return Click(x, y, positive=sign == "+")


def _box(text: str, fields: Sequence[str], form: str) -> Box:
    if len(fields) != 4:
        raise _unreadable(text, form)
    x0, y0, x1, y1 = _numbers(text, fields, form)
    return Box(x0, y0, x1, y1)


def _numbers(text: str, fields: Sequence[str], form: str) -> list[float]:
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        raise _unreadable(text, form) from None
    if not all(math.isfinite(number) for number in numbers):
        raise _unreadable(text, form)
    return numbers


def _unreadable(text: str, form: str) -> UsageError:
    flag, _, rest = form.partition(" ")
    return UsageError(f"{flag} {text!r} cannot be read; write {flag} {rest}.")
