"""What a pass computes once per frame, for all objects: the image's features and its picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.byte_cache import ByteCache
from edgetam_label.frames import Frames
from edgetam_label.modeling import EdgeTAM, ImageFeatures
from edgetam_label.preprocess import frame_to_input, input_to_picture

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class EncodedFrame:
    """picture: (S, S, 3), what the network saw, where masks are refined by it."""

    features: ImageFeatures
    picture: Picture | None

    @property
    def num_bytes(self) -> int:
        return self.features.num_bytes + (0 if self.picture is None else self.picture.nbytes)


class FrameFeatures:
    """Frames encoded when they are asked for, the recent ones kept within `max_bytes`."""

    def __init__(self, model: EdgeTAM, frames: Frames, max_bytes: int, *, pictures: bool) -> None:
        self._model, self._frames, self._with_pictures = model, frames, pictures
        self._kept: ByteCache[int, EncodedFrame] = ByteCache(max_bytes)

    def __len__(self) -> int:
        return len(self._kept)

    def of(
        self, frame_idx: int, image: Tensor | None = None, picture: Picture | None = None
    ) -> EncodedFrame:
        """A frame, encoded; `image`, `picture`: what the network sees, if made already."""
        return self._kept.get_or_make(frame_idx, lambda: self._encode(frame_idx, image, picture))[0]

    @torch.inference_mode()
    def _encode(
        self, frame_idx: int, image: Tensor | None, picture: Picture | None
    ) -> EncodedFrame:
        if image is None:
            size = self._model.config.image_size
            image = frame_to_input(self._frames[frame_idx], size, self._model.device)
        if picture is None and self._with_pictures:
            picture = input_to_picture(image)
        return EncodedFrame(self._model.encode_image(image), picture)
