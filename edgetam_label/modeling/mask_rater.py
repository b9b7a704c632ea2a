"""A second opinion on the predicted IoU of candidate masks, from how they look.

Not part of the official network: only models whose config says `mask_rating` have it. It begins as
the decoder's own opinion, so that a model whose rater was never taught answers as one without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES = (
    "iou",  # predicted by the decoder
    "object_score",
    "stability_1",  # IoU of the mask at logits above +1 and above -1
    "stability_3",
    "certainty",  # mean probability within the mask
    "log_area",  # of its share of the crop
    "depth",  # of the deepest pixel, in sides of the crop
    "click_depth",
    "click_depth_share",  # of the deepest pixel's
    "click_off_centre",  # from the mask's middle, in sides of the crop
    "first_agrees",  # IoU with the answer on the whole frame
    "any_first_agrees",  # with the candidate there that is most like it
    "first_iou",  # predicted, of the answer there
    "crop_width",  # share of the frame's
    "most_alike",  # IoU with the other candidate that is most like it
    "least_alike",
)
HIDDEN = 32
# What another candidate must be rated above the decoder's choice to be preferred: near-ties are
# decided as well by one as by the other, and the decoder has seen more.
MARGIN = 0.05


class MaskRater(nn.Module):
    """Features of candidates (…, len(FEATURES)) → their IoU (…), not clamped."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        count = len(FEATURES)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        correction = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(correction.weight)
        nn.init.zeros_(correction.bias)
        self.layers = nn.Sequential(
            nn.Linear(count, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), correction
        )

    def forward(self, features: Tensor) -> Tensor:
        rated: Tensor = features[..., 0] + self.layers((features - self.mean) / self.scale)[..., 0]
        return rated

    def rate(self, features: Tensor) -> Tensor:
        """Of the candidates of each answer (…, M, len(FEATURES)), their IoU (…, M) in 0..1.

        The highest is that of the candidate to choose.
        """
        ratings: Tensor = self(features).clamp(0, 1)
        own = features[..., 0].argmax(dim=-1, keepdim=True)
        best, at_most = ratings.gather(-1, own), ratings.amax(dim=-1, keepdim=True)
        below = torch.minimum(ratings, best - 1e-4).scatter(-1, own, best)
        return torch.where(at_most > best + MARGIN, ratings, below)
