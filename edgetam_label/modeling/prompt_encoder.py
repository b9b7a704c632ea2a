"""Prompts as embeddings: points and box corners as sparse tokens, a mask as a dense map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.drawn_prompts import CELL, draw_boxes, draw_prompts
from edgetam_label.modeling.layers import LayerNorm2d
from edgetam_label.modeling.point_labels import NO_POINT


class RandomFourier(nn.Module):
    """Positions in [0, 1]² as random Fourier features (SAM, arXiv 2304.02643, appendix A)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, xy: Tensor) -> Tensor:
        """(…, 2) in [0, 1] → (…, 2 · features)."""
        with torch.autocast(xy.device.type, enabled=False):  # half precision would blur positions
            angle = (2 * xy.float() - 1) @ self.positional_encoding_gaussian_matrix.float()
        return torch.cat(((2 * math.pi * angle).sin(), (2 * math.pi * angle).cos()), dim=-1)

    def grid(self, size: int) -> Tensor:
        """Encoding of every pixel centre of a size x size map: (1, C, size, size)."""
        matrix = self.positional_encoding_gaussian_matrix
        centre = (torch.arange(size, device=matrix.device, dtype=matrix.dtype) + 0.5) / size
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        return self(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """image_size: side of the model's input; points are given in its pixels.

    draws: clicks and boxes are drawn into the dense map as well.
    """

    def __init__(self, d_model: int, image_size: int, *, draws: bool = False) -> None:
        super().__init__()
        self.image_size, self.draws = image_size, draws
        self.pe_layer = RandomFourier(d_model // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, d_model) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, d_model)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, d_model, 1),
        )
        self.no_mask_embed = nn.Embedding(1, d_model)

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """points (B, N, 2) in input pixels, labels (B, N) → (B, N + 1, C).

        One padding token always follows, as in training without boxes.
        """
        points = F.pad(points + 0.5, (0, 0, 0, 1))
        labels = F.pad(labels, (0, 1), value=NO_POINT)
        position = self.pe_layer(points / self.image_size)
        kinds = torch.cat([self.not_a_point_embed.weight, *self.point_embeddings.parameters()])
        is_point = (labels != NO_POINT)[..., None]
        return position * is_point + kinds[labels.long() + 1]

    def embed_mask(self, mask_logits: Tensor | None, batch: int) -> Tensor:
        """mask_logits (B, 1, S/4, S/4) or None → (B, C, S/16, S/16)."""
        if mask_logits is not None:
            return self.mask_downscaling(mask_logits)
        side = self.image_size // 16
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, side, side)

    def embed_dense(self, points: Tensor, labels: Tensor, mask_logits: Tensor | None) -> Tensor:
        """The dense map of a whole prompt, (B, C, S/16, S/16); shapes as in the other methods."""
        batch = points.shape[0]  # len() would be a constant in an exported graph
        if not self.draws:
            return self.embed_mask(mask_logits, batch)
        if mask_logits is not None:
            return self.embed_mask(draw_prompts(points, labels, mask_logits), batch)
        side = self.image_size // CELL
        empty = points.new_zeros(1, 1, side, side)
        drawn = draw_prompts(points, labels, draw_boxes(points, labels, empty))
        # where nothing is drawn, that there is no mask must remain what the decoder is told
        change = self.mask_downscaling(drawn) - self.mask_downscaling(empty[..., :4, :4])
        return self.embed_mask(None, batch) + change

    def image_position(self) -> Tensor:
        """Position of every stride-16 cell, (1, C, S/16, S/16)."""
        return self.pe_layer.grid(self.image_size // 16)
