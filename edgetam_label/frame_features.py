"""What a pass computes once per frame, for all objects: the image's features and its picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.byte_cache import ByteCache
from edgetam_label.flipping import both_ways
from edgetam_label.frames import Frames
from edgetam_label.modeling import EdgeTAM, ImageFeatures
from edgetam_label.preprocess import frame_to_picture, picture_to_input
from edgetam_label.target_model import colours_of

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class EncodedFrame:
    """What is known of a picture.

    picture: (S, S, 3), what the network saw, where masks are refined by it. colours: the same
    (1, 3, S/4, S/4), where looks are learned.
    """

    features: ImageFeatures
    picture: Picture | None
    colours: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        colours = 0 if self.colours is None else self.colours.nbytes
        picture = 0 if self.picture is None else self.picture.nbytes
        return self.features.num_bytes + picture + colours


class FrameFeatures:
    """Frames encoded when they are asked for, the recent ones kept within `max_bytes`.

    pictures, colours: whether an `EncodedFrame` has them.
    """

    def __init__(
        self, model: EdgeTAM, frames: Frames, max_bytes: int, *, pictures: bool, colours: bool
    ) -> None:
        self._model, self._frames = model, frames
        self._with_pictures, self._with_colours = pictures, colours
        self._kept: ByteCache[int, EncodedFrame] = ByteCache(max_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    def of(
        self,
        frame_idx: int,
        picture: Callable[[], Picture | None] = lambda: None,
        image: Tensor | None = None,
    ) -> EncodedFrame:
        """A frame, encoded.

        picture, image: as the network sees it, if that needs no reading; not asked for where the
        frame is kept.
        """

        def make() -> EncodedFrame:
            known = picture()
            if known is None:
                known = self._shrunk(self._frames[frame_idx])
            return self._encode(known, image)

        return self._kept.get_or_make(frame_idx, make)[0]

    def of_pixels(self, pixels: Picture, *, flipped: bool = False) -> EncodedFrame:
        """A crop, (h, w, 3), encoded; it is not kept. flipped: with its mirror image, B = 2."""
        picture = self._shrunk(pixels)
        image = picture_to_input(picture, self._model.device)
        return self._encode(picture, both_ways(image) if flipped else image)

    def _shrunk(self, pixels: Picture) -> Picture:
        return frame_to_picture(pixels, self._model.config.image_size)

    @torch.inference_mode()
    def _encode(self, picture: Picture, image: Tensor | None) -> EncodedFrame:
        if image is None:
            image = picture_to_input(picture, self._model.device)
        colours = colours_of(image) if self._with_colours else None
        kept = picture if self._with_pictures else None
        return EncodedFrame(self._model.encode_image(image), kept, colours)
