"""One prompt, one view of a frame, one answer: the decoding that images and tracks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.clicked_parts import keep_clicked_parts
from edgetam_label.crops import Bounds, Crop, bounds_of, move_logits
from edgetam_label.edges import refine_edges
from edgetam_label.flipping import both_ways, merged, points_both_ways
from edgetam_label.honoured_clicks import honour_clicks
from edgetam_label.masks import Mask
from edgetam_label.modeling import EdgeTAM, ImageFeatures
from edgetam_label.modeling.mask_decoder import DecoderOutput
from edgetam_label.preprocess import prompt_points
from edgetam_label.prompts import Click, Prompt

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """A crop of a frame as the network sees it.

    features: ready for the decoder: with memory, or with the embedding that says there is none. Of
    two pictures, B = 2, where the mirror image is asked as well (`flip_test`).
    picture: (S, S, 3) uint8, stretched, where masks are refined by it.
    """

    crop: Crop
    features: ImageFeatures
    picture: Picture | None

    @property
    def num_bytes(self) -> int:
        return self.features.num_bytes + (0 if self.picture is None else self.picture.nbytes)


@dataclass(frozen=True)
class Look:
    """An answer to a prompt, on the crop where it was asked for.

    output: M candidates. drawn: (1, M, h, w), positive where they are shown, which is where their
    logits are, or at the edges of the picture near there.
    """

    crop: Crop
    output: DecoderOutput
    drawn: Tensor

    @property
    def num_bytes(self) -> int:
        tensors = (self.drawn, self.output.low_res_logits, self.output.tokens)
        return sum(t.numel() * t.element_size() for t in tensors)

    @property
    def best_index(self) -> int:
        return int(self.output.iou[0].argmax())

    def best(self) -> Look:
        """The candidate of the highest predicted IoU alone."""
        index = self.best_index
        return Look(self.crop, self.output.best(), self.drawn[:, index : index + 1])

    def masks(self) -> list[Mask]:
        """Every candidate, at the frame's size."""
        return [self.crop.mask(one[None, None]) for one in self.drawn[0]]

    def logits_on(self, crop: Crop) -> Tensor:
        """Logits of all candidates on another crop, (1, M, S/4, S/4)."""
        return move_logits(self.output.low_res_logits.float(), self.crop, crop)

    def best_logits_on(self, crop: Crop) -> Tensor:
        """Logits of the best candidate, (1, 1, S/4, S/4)."""
        best = self.best_index
        return self.logits_on(crop)[:, best : best + 1]

    def bounds(self) -> Bounds | None:
        """Box of the best candidate in pixels of the frame, None where there is nothing."""
        return bounds_of((self.drawn[0, self.best_index] > 0).cpu().numpy(), self.crop)


@dataclass(frozen=True)
class ClickRules:
    """What is done to an answer to clicks, beyond what the network says.

    parts: drop parts that nobody clicked. honour: where a clicked pixel is on the wrong side of the
    mask, move it and what looks like it there.
    """

    parts: bool
    honour: bool


def decode_prompt(
    model: EdgeTAM,
    view: View,
    prompt: Prompt,
    mask_logits: Tensor | None,
    *,
    multimask: bool,
    rules: ClickRules,
) -> Look:
    """Ask for a prompt's masks. mask_logits: (1, 1, S/4, S/4) on the view's crop, to start from."""
    crop = view.crop
    clicks = crop.clicks(prompt.clicks)
    if rules.honour and mask_logits is not None:
        # the mask to start from must not contradict the clicks either
        mask_logits, _ = honour_clicks(
            mask_logits, mask_logits, clicks, crop.width, crop.height, view.picture
        )
    given = prompt_points(
        clicks, crop.box(prompt.box), crop.width, crop.height,
        model.config.image_size, model.device,
    )  # fmt: skip
    points, labels = given if given is not None else (None, None)
    flipped = len(view.features.top) == 2
    asked = mask_logits
    if flipped:
        if points is not None and labels is not None:
            points, labels = points_both_ways(points, labels, model.config.image_size)
        asked = None if mask_logits is None else both_ways(mask_logits)
    output = model.decode_masks(
        view.features.top,
        view.features.high_res,
        points,
        labels,
        asked,
        multimask=multimask,
    )
    if flipped:
        output = merged(output)
    look = drawn_look(crop, output, view.picture)
    if rules.parts and clicks and prompt.box is None:
        logits = output.low_res_logits
        kept = keep_clicked_parts(logits, look.drawn, clicks, crop.width, crop.height, mask_logits)
        if kept is not logits:
            look = drawn_look(crop, replace(output, low_res_logits=kept), view.picture)
    return honoured(look, prompt.clicks, view.picture) if rules.honour else look


def honoured(look: Look, clicks: Sequence[Click], picture: Picture | None) -> Look:
    """An answer on which every click, in pixels of the frame, is on its own side."""
    logits, crop = look.output.low_res_logits, look.crop
    new, drawn = honour_clicks(
        logits, look.drawn, crop.clicks(clicks), crop.width, crop.height, picture
    )
    if new is logits:
        return look
    return Look(crop, replace(look.output, low_res_logits=new), drawn)


def drawn_look(crop: Crop, output: DecoderOutput, picture: Picture | None) -> Look:
    """An answer drawn to the edges of the picture, if there is one."""
    logits = output.low_res_logits
    return Look(crop, output, logits if picture is None else refine_edges(logits, picture))
