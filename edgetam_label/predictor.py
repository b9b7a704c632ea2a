"""ImagePredictor: embed an image once, then ask for masks with clicks, boxes and earlier logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetam_label.close_ups import CloserLook, SeenCloser
from edgetam_label.crops import Crop
from edgetam_label.errors import PromptError
from edgetam_label.flipping import both_ways
from edgetam_label.framing import enough_pixels
from edgetam_label.masks import Mask, clean_mask
from edgetam_label.modeling import EdgeTAM, ImageFeatures
from edgetam_label.modeling.fused import fuse
from edgetam_label.preprocess import check_rgb, image_to_input, input_to_picture, mask_to_input
from edgetam_label.prompt_decoding import ClickRules, Look, View, decode_prompt
from edgetam_label.prompts import Prompt

LOGIT_LIMIT = 32.0  # low-resolution logits are clamped to ± this before they are fed back


@dataclass(frozen=True)
class ImageEmbedding:
    """An encoded image: features with the no-memory embedding added, and the image's own size.

    picture: (S, S, 3) uint8, what the network saw, where its masks are refined by it.
    closer: pixels for close-ups, for a model that makes them.
    """

    features: ImageFeatures
    width: int
    height: int
    picture: NDArray[np.uint8] | None = None
    closer: SeenCloser | None = None

    @property
    def view(self) -> View:
        """All of the image, as prompts are decoded on it."""
        return View(Crop.whole(self.width, self.height), self.features, self.picture)

    @property
    def num_bytes(self) -> int:
        return self.view.num_bytes + (0 if self.closer is None else self.closer.num_bytes)


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
        self._refines = model.config.refine_edges
        self._rules = ClickRules(model.config.clicked_parts, model.config.honour_clicks)

    @torch.inference_mode()
    def embed(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """image: (H, W, 3) uint8 RGB. Raises MediaError on anything else."""
        check_rgb(image)
        height, width = image.shape[:2]
        view = self._see(image, Crop.whole(width, height), flipped=False)
        closer = None
        if self.model.config.close_ups:
            closer = SeenCloser(enough_pixels(image, self.model.config.image_size))
        return ImageEmbedding(view.features, width, height, view.picture, closer)

    @torch.inference_mode()
    def _see(self, pixels: NDArray[np.uint8], crop: Crop, *, flipped: bool) -> View:
        """The view of a crop, given the pixels within it. flipped: with its mirror image."""
        image = image_to_input(pixels, self.model.config.image_size, self.model.device)
        features = self.model.encode_image(both_ways(image) if flipped else image)
        features = ImageFeatures(self.model.without_memory(features.top), features.high_res)
        return View(crop, features, input_to_picture(image) if self._refines else None)

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
            earlier = None if low_res_logits is None else low_res_logits[i]
            look = self._look(embedding, prompt, earlier, multimask)
            masks = look.masks()
            if max_hole_area or max_speck_area:
                masks = [clean_mask(m, max_hole_area, max_speck_area) for m in masks]
            logits = look.logits_on(embedding.view.crop)
            answers.append(
                MaskPrediction(
                    np.stack(masks),
                    look.output.iou[0].float().cpu().numpy(),
                    logits[0].clamp(-LOGIT_LIMIT, LOGIT_LIMIT).cpu().numpy(),
                    float(look.output.object_score),
                )
            )
        return answers

    def _look(
        self,
        embedding: ImageEmbedding,
        prompt: Prompt,
        low_res_logits: NDArray[np.float32] | None,
        multimask: bool | None,
    ) -> Look:
        prompt.check_inside(embedding.width, embedding.height)
        mask_logits = None
        if low_res_logits is not None:
            mask_logits = self._check_logits(low_res_logits)
        elif prompt.mask is not None:
            side = self.model.config.low_res_size
            mask = mask_to_input(prompt.mask.decode(), side, self.model.device)
            mask_logits = mask * 20 - 10
        ambiguous = prompt.box is None and len(prompt.clicks) == 1 and mask_logits is None
        wanted = ambiguous if multimask is None else multimask
        seen = embedding.closer
        if seen is None or prompt.mask is not None or wanted != ambiguous:
            return self._decode(embedding.view, prompt, mask_logits, wanted)
        closer = self._closer_look(embedding.view, seen)
        if mask_logits is None:
            return closer.answer(prompt)
        return closer.again(prompt, self._decode(embedding.view, prompt, mask_logits, wanted))

    @torch.inference_mode()
    def looks(self, embedding: ImageEmbedding, prompt: Prompt) -> tuple[Look, Look]:
        """What a single click or a box is answered with at first, and then on a close-up, unrated.

        For a model that makes close-ups; `mask_rating.describe` compares the two.
        """
        assert embedding.closer is not None, "a model without close-ups looks once"
        return self._closer_look(embedding.view, embedding.closer).looks(prompt)

    def _closer_look(self, whole: View, seen: SeenCloser) -> CloserLook:
        flips = self.model.config.flip_test
        see = partial(self._see, flipped=flips)
        return CloserLook(whole, seen, see, self._decode, flips=flips, rater=self.model.mask_rater)

    def _decode(
        self, view: View, prompt: Prompt, mask_logits: Tensor | None, multimask: bool
    ) -> Look:
        return decode_prompt(
            self.model, view, prompt, mask_logits,
            multimask=multimask, rules=self._rules,
        )  # fmt: skip

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
