"""ImagePredictor: embed an image once, then ask for masks with clicks, boxes and earlier logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.clicked_parts import keep_clicked_parts
from edgetam_label.edges import refine_edges
from edgetam_label.errors import PromptError
from edgetam_label.masks import Mask, clean_mask
from edgetam_label.modeling import EdgeTAM, ImageFeatures
from edgetam_label.modeling.fused import fuse
from edgetam_label.preprocess import (
    image_to_input,
    input_to_picture,
    logits_to_mask,
    mask_to_input,
    prompt_points,
)
from edgetam_label.prompts import Prompt

LOGIT_LIMIT = 32.0  # low-resolution logits are clamped to ± this before they are fed back


@dataclass(frozen=True)
class ImageEmbedding:
    """An encoded image: features with the no-memory embedding added, and the image's own size.

    picture: (S, S, 3) uint8, what the network saw, where its masks are refined by it.
    """

    features: ImageFeatures
    width: int
    height: int
    picture: NDArray[np.uint8] | None = None

    @property
    def num_bytes(self) -> int:
        return self.features.num_bytes + (0 if self.picture is None else self.picture.nbytes)


@dataclass(frozen=True)
class MaskPrediction:
    """Answers to one prompt, M = 3 for an ambiguous prompt, else 1.

    masks: (M, H, W) bool at the image's size. iou: (M,) predicted quality in 0..1.
    low_res_logits: (M, S/4, S/4), clamped to ±32; feed one back to refine with more clicks.
    object_score: a logit, > 0 if the prompt points at something.
    """

    masks: NDArray[np.bool_]
    iou: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]
    object_score: float

    @property
    def best_index(self) -> int:
        return int(self.iou.argmax())

    @property
    def best(self) -> Mask:
        """(H, W) bool: the mask with the highest predicted IoU."""
        mask: Mask = self.masks[self.best_index]
        return mask


class ImagePredictor:
    """Stateless apart from the model: an embedding is a value that the caller keeps.

    Example:
        predictor = ImagePredictor(load_model())
        embedding = predictor.embed(image)
        prediction = predictor.predict(embedding, Prompt(1, clicks=(Click(120, 80),)))
        Image.fromarray(prediction.best)
    """

    def __init__(self, model: EdgeTAM) -> None:
        self.model = fuse(model)

    @torch.inference_mode()
    def embed(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """image: (H, W, 3) uint8 RGB. Raises MediaError on anything else."""
        size = self.model.config.image_size
        pixels = image_to_input(image, size, self.model.device)
        features = self.model.encode_image(pixels)
        features = ImageFeatures(self.model.without_memory(features.top), features.high_res)
        picture = input_to_picture(pixels) if self.model.config.refine_edges else None
        return ImageEmbedding(features, image.shape[1], image.shape[0], picture)

    def predict(
        self,
        embedding: ImageEmbedding,
        prompt: Prompt,
        *,
        low_res_logits: NDArray[np.float32] | None = None,
        multimask: bool | None = None,
        max_hole_area: int = 0,
        max_speck_area: int = 0,
    ) -> MaskPrediction:
        """Masks for one prompt; see `predict_batch`.

        low_res_logits: (S/4, S/4), an earlier answer's, to refine it.
        """
        logits = None if low_res_logits is None else [low_res_logits]
        return self.predict_batch(
            embedding,
            [prompt],
            low_res_logits=logits,
            multimask=multimask,
            max_hole_area=max_hole_area,
            max_speck_area=max_speck_area,
        )[0]

    @torch.inference_mode()
    def predict_batch(
        self,
        embedding: ImageEmbedding,
        prompts: Sequence[Prompt],
        *,
        low_res_logits: Sequence[NDArray[np.float32]] | None = None,
        multimask: bool | None = None,
        max_hole_area: int = 0,
        max_speck_area: int = 0,
    ) -> list[MaskPrediction]:
        """Independent masks for several prompts on one image.

        multimask: three candidate masks instead of one; None decides: three for a single click.
        max_hole_area, max_speck_area: clean-up of the masks, in pixels of the image.
        Raises PromptError for a prompt outside the image.
        """
        if low_res_logits is not None and len(low_res_logits) != len(prompts):
            raise PromptError(
                f"{len(prompts)} prompts came with {len(low_res_logits)} earlier logits; "
                "give one for each prompt or none at all."
            )
        answers = []
        for i, prompt in enumerate(prompts):
            # one decoder call each: prompts of different lengths must not see each other's padding
            output = self._decode(
                embedding, prompt, None if low_res_logits is None else low_res_logits[i], multimask
            )
            low_res, drawn, iou, score = output
            height, width = embedding.height, embedding.width
            array = np.stack([logits_to_mask(one[None, None], height, width) for one in drawn[0]])
            if max_hole_area or max_speck_area:
                array = np.stack([clean_mask(m, max_hole_area, max_speck_area) for m in array])
            answers.append(
                MaskPrediction(
                    array,
                    iou[0].float().cpu().numpy(),
                    low_res[0].float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT).cpu().numpy(),
                    float(score),
                )
            )
        return answers

    def _decode(
        self,
        embedding: ImageEmbedding,
        prompt: Prompt,
        low_res_logits: NDArray[np.float32] | None,
        multimask: bool | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits, the masks as they are drawn, predicted IoU, object score."""
        model, size = self.model, self.model.config.image_size
        prompt.check_inside(embedding.width, embedding.height)
        mask_logits = None
        if low_res_logits is not None:
            mask_logits = self._check_logits(low_res_logits)
        elif prompt.mask is not None:
            mask = mask_to_input(prompt.mask.decode(), model.config.low_res_size, model.device)
            mask_logits = mask * 20 - 10
        given = prompt_points(
            prompt.clicks, prompt.box, embedding.width, embedding.height, size, model.device
        )
        points, labels = given if given is not None else (None, None)
        if multimask is None:
            multimask = prompt.box is None and len(prompt.clicks) == 1 and mask_logits is None
        output = model.decode_masks(
            embedding.features.top,
            embedding.features.high_res,
            points,
            labels,
            mask_logits,
            multimask=multimask,
        )
        low_res, picture = output.low_res_logits, embedding.picture
        drawn = low_res if picture is None else refine_edges(low_res, picture)
        if model.config.clicked_parts and prompt.clicks and prompt.box is None:
            kept = keep_clicked_parts(
                low_res, drawn, prompt.clicks, embedding.width, embedding.height, mask_logits
            )
            if kept is not low_res:
                low_res = kept
                drawn = kept if picture is None else refine_edges(kept, picture)
        return low_res, drawn, output.iou, output.object_score

    def _check_logits(self, logits: NDArray[np.float32]) -> Tensor:
        side = self.model.config.low_res_size
        if logits.shape != (side, side):
            raise PromptError(
                f"Earlier logits have shape {logits.shape}, this model needs ({side}, {side}); "
                "pass one row of MaskPrediction.low_res_logits from the same model."
            )
        return torch.from_numpy(np.asarray(logits, dtype=np.float32)).to(self.model.device)[
            None, None
        ]
