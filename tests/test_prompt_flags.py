"""Flags in, prompts out; every wrong form ends in a sentence that shows the right one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetam_label.errors import PromptError, UsageError
from edgetam_label.masks import RLE
from edgetam_label.prompt_flags import (
    ObjectFlag,
    check_frames,
    check_objects,
    image_prompt,
    parse_object,
    video_prompts,
)
from edgetam_label.prompts import Box, Click, Prompt


def no_mask(path: Path) -> RLE:
    raise AssertionError(f"{path} should not be read")


def test_objects() -> None:
    assert parse_object("1:dog") == ObjectFlag(1, "dog")
    assert parse_object("12: Hund: groß ") == ObjectFlag(12, "Hund: groß")


@pytest.mark.parametrize("text", ["dog", "1", "1:", "0:dog", "-1:dog", "x:dog", ":dog", "1.5:dog"])
def test_objects_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be read; write --object ID:LABEL") as error:
        parse_object(text)
    assert repr(text) in str(error.value)


def test_image_prompt() -> None:
    prompt = image_prompt(["10,20", "30.5,40,-", "1,2,+"], ["0,0,50,60"])
    assert prompt.clicks == (Click(10, 20), Click(30.5, 40, False), Click(1, 2))
    assert prompt.box == Box(0, 0, 50, 60)


@pytest.mark.parametrize(
    "click", ["", "10", "10;20", "a,b", "10,20,x", "10,20,-,-", "nan,5", "inf,5", "10,"]
)
def test_image_clicks_that_cannot_be_read(click: str) -> None:
    with pytest.raises(UsageError, match=r"^--click '.*' cannot be read; write --click X,Y or"):
        image_prompt([click], [])


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "1,2,3,x", "1 2 3 4"])
def test_image_boxes_that_cannot_be_read(box: str) -> None:
    with pytest.raises(UsageError, match=r"^--box '.*' cannot be read; write --box X0,Y0,X1,Y1"):
        image_prompt([], [box])


def test_image_prompts_that_say_nothing_or_too_much() -> None:
    with pytest.raises(PromptError, match="is empty; give at least one click"):
        image_prompt([], [])
    with pytest.raises(UsageError, match="2 boxes were given"):
        image_prompt([], ["1,2,3,4", "1,2,3,4"])
    with pytest.raises(PromptError, match="is empty; give the left, top"):
        image_prompt([], ["5,5,5,9"])


def test_video_prompts_are_gathered_per_object_and_frame() -> None:
    prompts = video_prompts(
        ["2,0,5,6", "1,7,1,2", "1,0,10,20", "1,0,30,40,-"], ["1,0,0,0,50,60"], [], no_mask
    )
    assert prompts == (
        Prompt(1, 0, (Click(10, 20), Click(30, 40, False)), Box(0, 0, 50, 60)),
        Prompt(2, 0, (Click(5, 6),)),
        Prompt(1, 7, (Click(1, 2),)),
    )


def test_mask_names_may_hold_commas() -> None:
    mask = RLE.encode(np.ones((2, 3), bool))
    seen: list[Path] = []

    def read(path: Path) -> RLE:
        seen.append(path)
        return mask

    assert video_prompts([], [], ["3,12,a,b.png"], read) == (Prompt(3, 12, mask=mask),)
    assert seen == [Path("a,b.png")]


@pytest.mark.parametrize("flag", ["1,0,5", "1,0,5,6,7", "x,0,5,6", "1,-1,5,6", "1,0.5,5,6"])
def test_video_clicks_that_cannot_be_read(flag: str) -> None:
    with pytest.raises(UsageError, match=r"^--click '.*' cannot be read; write --click ID,FRAME"):
        video_prompts([flag], [], [], no_mask)


def test_two_boxes_or_a_mask_with_clicks_are_refused() -> None:
    with pytest.raises(UsageError, match="second box for its object and frame"):
        video_prompts([], ["1,0,1,2,3,4", "1,0,1,2,3,5"], [], no_mask)
    mask = RLE.encode(np.ones((2, 3), bool))
    with pytest.raises(PromptError, match="a mask cannot be combined with clicks"):
        video_prompts(["1,0,1,1"], [], ["1,0,m.png"], lambda _: mask)


@given(st.text(max_size=20))
def test_no_text_ends_in_another_error(text: str) -> None:
    for read in (
        lambda: parse_object(text),
        lambda: image_prompt([text], []),
        lambda: video_prompts([text], [text], [], no_mask),
    ):
        try:
            read()
        except UsageError as error:
            assert str(error).endswith(".")


def test_objects_and_prompts_belong_together() -> None:
    dog = ObjectFlag(1, "dog")
    prompt = Prompt(1, 0, (Click(1, 1),))
    check_objects([prompt], [dog])
    check_objects([prompt], [], known=[1])
    with pytest.raises(UsageError, match=r"Object 2 is unknown; name it with --object 2:LABEL"):
        check_objects([Prompt(2, 0, (Click(1, 1),))], [dog])
    with pytest.raises(UsageError, match=r"Object 2 \(cat\) has no prompt; point at it with"):
        check_objects([prompt], [dog, ObjectFlag(2, "cat")])
    with pytest.raises(UsageError, match="--object 1 is given twice"):
        check_objects([prompt], [dog, dog])


def test_prompts_outside_the_video() -> None:
    check_frames([Prompt(1, 9, (Click(320, 180),))], 640, 360, 10)
    with pytest.raises(
        PromptError, match=r"Frame 10 does not exist; the video has 10 frames, 0 to"
    ):
        check_frames([Prompt(1, 10, (Click(1, 1),))], 640, 360, 10)
    with pytest.raises(PromptError, match=r"Click 700,5 .* lies outside the frame of 640x360"):
        check_frames([Prompt(1, 0, (Click(700, 5),))], 640, 360, 10)
