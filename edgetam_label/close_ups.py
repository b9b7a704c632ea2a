"""Close-ups: small things are looked at again through a crop around the first answer.

A network of 320 px sees something of 2 % of a frame in a handful of its cells. For models whose
config says `close_ups`, an answer to a prompt comes from a crop around it: half the frame or less,
seen with all of the network's pixels. Clicks that follow go on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.byte_cache import ByteCache
from edgetam_label.crops import Crop
from edgetam_label.framing import PROMPTED
from edgetam_label.mask_rating import rated
from edgetam_label.modeling.mask_rater import MaskRater
from edgetam_label.prompt_decoding import Look, View
from edgetam_label.prompts import Box, Click, Prompt

CUT_CELLS = 4  # cells of an answer on an edge of its crop, beyond which it goes on outside

Decode = Callable[[View, Prompt, Tensor | None, bool], Look]
See = Callable[[NDArray[np.uint8], Crop], View]


@dataclass(frozen=True)
class SeenCloser:
    """A frame's pixels, and the close-ups and answers so far: clicks come one after the other.

    pixels: (h, w, 3) uint8 RGB, as `enough_pixels` keeps them. What the caches hold can be made
    again from the frame; they may be emptied at any time.
    """

    pixels: NDArray[np.uint8]
    views: ByteCache[Crop, View] = field(default_factory=lambda: ByteCache(6 * 2**20))
    looks: ByteCache[tuple[Box | None, tuple[Click, ...]], Look] = field(
        default_factory=lambda: ByteCache(3 * 2**20)
    )

    @property
    def num_bytes(self) -> int:
        """With room for what is to come."""
        return self.pixels.nbytes + self.views.max_bytes + self.looks.max_bytes


class CloserLook:
    """Answers prompts on one frame; the state is the caller's `SeenCloser`."""

    def __init__(
        self,
        whole: View,
        seen: SeenCloser,
        see: See,
        decode: Decode,
        *,
        flips: bool = False,
        rater: MaskRater | None = None,
    ) -> None:
        """whole: the frame, without memory; for `again`, what was looked at, whatever it is.

        see: the view of a crop, from its pixels. flips: it shows the mirror image too, so that even
        all of the frame is worth another look. rater: has the last word on which of the candidates
        of a single click is the best.
        """
        self.whole, self.seen, self._see, self._decode = whole, seen, see, decode
        self._flips, self._rater = flips, rater

    def answer(self, prompt: Prompt) -> Look:
        """A box or a click, then every further click as a correction of the answer before it.

        The same prompt has the same answer, whether its clicks come at once or one by one.
        """
        first = 0 if prompt.box is not None else 1
        done, look = self._known(prompt, first)
        for count in range(done, len(prompt.clicks) + 1):
            clicks = prompt.clicks[:count]
            step = replace(prompt, clicks=clicks)
            look = self._first(step) if look is None else self._next(step, look)
            kept = look
            self.seen.looks.get_or_make((prompt.box, clicks), lambda kept=kept: kept)  # type: ignore[misc]
        assert look is not None  # Prompt forbids neither click nor box
        return look

    def again(self, prompt: Prompt, first: Look) -> Look:
        """A close-up of an answer on the whole frame, which it starts from."""
        crop = self._crop(prompt, first)
        if crop.is_whole:
            return first
        return self._decode(self.view(crop), prompt, first.best_logits_on(crop), False)

    def _known(self, prompt: Prompt, first: int) -> tuple[int, Look | None]:
        for count in range(len(prompt.clicks), first - 1, -1):
            look = self.seen.looks.get((prompt.box, prompt.clicks[:count]))
            if look is not None:
                return count + 1, look
        return first, None

    def looks(self, prompt: Prompt) -> tuple[Look, Look]:
        """What a box or a single click is answered with on the whole frame, and then closer."""
        look = self._decode(self.whole, prompt, None, prompt.box is None)
        closer = self._again(self._crop(prompt, look), prompt, look)
        if not self._is_cut(closer):
            return look, closer
        # larger than it had seemed
        return look, self._again(self._crop(prompt, closer), prompt, look)

    def _first(self, prompt: Prompt) -> Look:
        whole, closer = self.looks(prompt)
        if self._rater is None or prompt.box is not None or not prompt.clicks[0].positive:
            return closer
        return rated(self._rater, closer, whole, prompt.clicks[0])

    def _again(self, crop: Crop, prompt: Prompt, first: Look) -> Look:
        """The answer on a crop, or the first one where that has nothing new to show."""
        view = self.view(crop)
        if view is self.whole:
            return first
        return self._decode(view, prompt, None, prompt.box is None)

    def _next(self, prompt: Prompt, before: Look) -> Look:
        crop = before.crop
        if not crop.is_whole and (not crop.holds(prompt.clicks[-1]) or self._is_cut(before)):
            crop = self._crop(prompt, before)
        return self._decode(self.view(crop), prompt, before.best_logits_on(crop), False)

    def _crop(self, prompt: Prompt, look: Look) -> Crop:
        """What holds a prompt and its answer: all of the frame if that is nothing, or large."""
        xs = [c.x for c in prompt.clicks if c.positive]
        ys = [c.y for c in prompt.clicks if c.positive]
        if prompt.box is not None:  # says where all of the thing is
            xs += [prompt.box.x0, prompt.box.x1]
            ys += [prompt.box.y0, prompt.box.y1]
        elif (found := look.bounds()) is not None:
            xs += [found[0], found[2]]
            ys += [found[1], found[3]]
        frame = self.whole.crop.frame
        if not xs:
            return frame
        bounds = (min(xs), min(ys), max(xs), max(ys))
        return PROMPTED.around(bounds, frame, self.seen.pixels)

    def view(self, crop: Crop) -> View:
        """The one that was given or that of a close-up, encoded if it has to be."""
        if crop == self.whole.crop and not self._flips:
            return self.whole
        return self.seen.views.get_or_make(
            crop, lambda: self._see(crop.cut(self.seen.pixels), crop)
        )[0]

    def _is_cut(self, look: Look) -> bool:
        """Whether the best candidate runs out of its crop into the frame."""
        crop, frame = look.crop, look.crop.frame
        shown = look.drawn[0, look.best_index] > 0
        cells = look.drawn.shape[-1] * CUT_CELLS // 320 + 1
        edges = (
            (crop.x0 > 0, shown[:, 0]),
            (crop.y0 > 0, shown[0]),
            (crop.x1 < frame.x1, shown[:, -1]),
            (crop.y1 < frame.y1, shown[-1]),
        )
        return any(inner and int(edge.sum()) > cells for inner, edge in edges)
