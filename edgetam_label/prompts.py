"""What an annotator says about one object on one frame: clicks, a box, a mask."""

from __future__ import annotations

from dataclasses import dataclass

from edgetam_label.errors import PromptError
from edgetam_label.masks import RLE


@dataclass(frozen=True)
class Click:
    """A point in pixels of the original frame, x to the right, y down from the top-left corner."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class Box:
    """A box in pixels of the original frame, x0 < x1 and y0 < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise PromptError(
                f"Box {self.x0:g},{self.y0:g},{self.x1:g},{self.y1:g} is empty; "
                "give the left, top, right and bottom edge with left < right and top < bottom."
            )


@dataclass(frozen=True)
class Prompt:
    """All that is said about one object on one frame; it replaces what was said there before.

    obj_id: the object's number, >= 1.
    frame_idx: 0-based frame index.
    clicks, box: may be combined. mask: alone; a drawn mask is taken as it is.
    correction: made on a frame that was already tracked, so it refines the mask found there
        (memory and previous logits are used). The store keeps it: a replay must treat the prompt
        the same way.
    """

    obj_id: int
    frame_idx: int = 0
    clicks: tuple[Click, ...] = ()
    box: Box | None = None
    mask: RLE | None = None
    correction: bool = False

    def __post_init__(self) -> None:
        if self.obj_id < 1:
            raise PromptError(f"Object id {self.obj_id} is not usable; object ids start at 1.")
        if self.frame_idx < 0:
            raise PromptError(f"Frame {self.frame_idx} does not exist; frame indices start at 0.")
        if self.mask is None and self.box is None and not self.clicks:
            raise PromptError(
                f"The prompt for object {self.obj_id} on frame {self.frame_idx} is empty; "
                "give at least one click, a box or a mask."
            )
        if self.mask is not None and (self.box is not None or self.clicks):
            raise PromptError(
                f"Object {self.obj_id}, frame {self.frame_idx}: a mask cannot be combined with "
                "clicks or a box; send the mask alone, then correct it with clicks."
            )

    def check_inside(self, width: int, height: int) -> None:
        """Raise PromptError unless every click and the box lie inside a width x height frame."""
        for click in self.clicks:
            if not (0 <= click.x <= width and 0 <= click.y <= height):
                raise PromptError(
                    f"Click {click.x:g},{click.y:g} on frame {self.frame_idx} lies outside the "
                    f"frame of {width}x{height} pixels; coordinates are pixels from the top left."
                )
        box = self.box
        if box is not None and (box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height):
            raise PromptError(
                f"Box {box.x0:g},{box.y0:g},{box.x1:g},{box.y1:g} on frame {self.frame_idx} lies "
                f"outside the frame of {width}x{height} pixels."
            )
        if self.mask is not None and self.mask.size != (height, width):
            raise PromptError(
                f"The mask for object {self.obj_id} is {self.mask.size[1]}x{self.mask.size[0]} "
                f"pixels, the frame {width}x{height}; give a mask of the frame's size."
            )
