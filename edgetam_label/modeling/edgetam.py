"""EdgeTAM: the network as one stateless module (arXiv 2501.07256; SAM 2, arXiv 2408.00714).

Parameter names and shapes equal the official checkpoint's. State lives in `memory.py` and
`tracker.py`; nothing here remembers a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.config import ModelConfig
from edgetam_label.modeling.image_encoder import ImageEncoder
from edgetam_label.modeling.layers import MLP, sine_position
from edgetam_label.modeling.mask_decoder import DecoderOutput, MaskDecoder
from edgetam_label.modeling.mask_fuser import MaskFuser
from edgetam_label.modeling.mask_rater import MaskRater
from edgetam_label.modeling.memory_attention import Memory, MemoryAttention
from edgetam_label.modeling.memory_encoder import MemoryEncoder
from edgetam_label.modeling.perceiver import SpatialPerceiver
from edgetam_label.modeling.point_labels import NO_POINT
from edgetam_label.modeling.prompt_encoder import PromptEncoder

if TYPE_CHECKING:
    from edgetam_label.session_types import ModelIdentity

NO_OBJECT_LOGIT = -1024.0  # logits of a frame on which the object is absent
MEMORY_SCALE, MEMORY_BIAS = 20.0, -10.0  # mask probabilities enter the memory as p · 20 − 10


@dataclass(frozen=True)
class ImageFeatures:
    """What is kept of an encoded image batch.

    top: (B, C, S/16, S/16). high_res: ((B, C/8, S/4, S/4), (B, C/4, S/8, S/8)).
    """

    top: Tensor
    high_res: tuple[Tensor, Tensor]

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.top, *self.high_res))

    def __getitem__(self, rows: Tensor | slice | list[int]) -> ImageFeatures:
        return ImageFeatures(self.top[rows], (self.high_res[0][rows], self.high_res[1][rows]))


@dataclass(frozen=True)
class ObjectMask:
    """One mask per object, gated by the object score.

    low_res_logits: (B, 1, S/4, S/4), −1024 where the object is absent. iou, object_score:
    (B, 1). pointer: (B, C).
    """

    low_res_logits: Tensor
    iou: Tensor
    object_score: Tensor
    pointer: Tensor


class EdgeTAM(nn.Module):
    """Built with a `ModelConfig`; weights come by `load_state_dict(strict=True)`.

    identity: which weights these are, as sessions record it; set by `load_model`.
    """

    fused = False  # True for the copies that modeling/fused.py makes
    identity: ModelIdentity | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.image_encoder = ImageEncoder(c.trunk_dims, c.trunk_depths, c.d_model)
        self.memory_attention = MemoryAttention(
            c.d_model, c.memory_dim, c.memory_attention_mlp_dim, c.memory_attention_layers
        )
        self.memory_encoder = MemoryEncoder(c.d_model, c.memory_dim, c.fuser_layers)
        self.spatial_perceiver = SpatialPerceiver(
            c.memory_dim, c.perceiver_depth, c.perceiver_mlp_ratio, c.num_latents, c.num_latents_2d
        )
        self.sam_prompt_encoder = PromptEncoder(c.d_model, c.image_size, draws=c.drawn_prompts)
        self.sam_mask_decoder = MaskDecoder(
            c.d_model, c.decoder_heads, c.decoder_mlp_dim, c.decoder_depth
        )
        self.obj_ptr_proj = MLP(c.d_model, c.d_model, c.d_model, c.d_model)
        self.mask_rater = MaskRater() if c.mask_rating else None
        self.mask_fuser = MaskFuser() if c.learned_fusion else None
        self.mask_downsample = nn.Conv2d(1, 1, 4, stride=4)
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(c.num_maskmem, 1, 1, c.memory_dim))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, c.d_model))
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, c.d_model))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, c.d_model))
        for parameter in (
            self.maskmem_tpos_enc, self.no_mem_embed, self.no_mem_pos_enc, self.no_obj_ptr,
        ):  # fmt: skip
            nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """images (B, 3, S, S), normalised RGB → features; conv_s0 and conv_s1 are applied here."""
        fine, middle, top = self.image_encoder(images)
        decoder = self.sam_mask_decoder
        return ImageFeatures(top, (decoder.conv_s0(fine), decoder.conv_s1(middle)))

    def without_memory(self, top: Tensor) -> Tensor:
        """Features of a frame that has no memory to attend to, (B, C, h, w)."""
        return top + self.no_mem_embed.reshape(1, -1, 1, 1)

    def decode_masks(
        self,
        top: Tensor,
        high_res: tuple[Tensor, Tensor],
        points: Tensor | None = None,
        labels: Tensor | None = None,
        mask_logits: Tensor | None = None,
        *,
        multimask: bool,
    ) -> DecoderOutput:
        """Prompts → masks.

        top (B, C, h, w) with or without memory; points (B, N, 2) in input pixels (x, y) with labels
        (B, N): 1 positive, 0 negative, 2 and 3 the corners of a box, −1 none; mask_logits
        (B, 1, S/4, S/4). Features of batch 1 serve every prompt of the batch.
        """
        sparse, dense = self._embed_prompts(top, points, labels, mask_logits)
        return self.sam_mask_decoder(
            top, self.sam_prompt_encoder.image_position(), sparse, dense, high_res, multimask
        )

    def _embed_prompts(
        self, top: Tensor, points: Tensor | None, labels: Tensor | None, mask_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if points is None or labels is None:
            batch = len(top) if mask_logits is None else len(mask_logits)
            points = top.new_zeros(batch, 1, 2)
            labels = torch.full((batch, 1), NO_POINT, device=top.device)
            dense = self.sam_prompt_encoder.embed_mask(mask_logits, batch)
        else:
            dense = self.sam_prompt_encoder.embed_dense(points, labels, mask_logits)
        return self.sam_prompt_encoder.embed_points(points, labels), dense

    def gate_by_presence(self, output: DecoderOutput) -> ObjectMask:
        """Keep the best mask; an object whose score is ≤ 0 loses its mask and its pointer."""
        best = output.best()
        present = output.object_score > 0
        logits = torch.where(
            present[:, :, None, None], best.low_res_logits.float(), NO_OBJECT_LOGIT
        )
        pointer = self.obj_ptr_proj(best.tokens[:, 0])
        pointer = torch.where(present, pointer, self.no_obj_ptr)
        return ObjectMask(logits, best.iou, output.object_score, pointer)

    def mask_as_output(self, features: ImageFeatures, mask: Tensor) -> ObjectMask:
        """A given mask (B, 1, S, S) of 0 and 1 is the answer; the decoder only gives a pointer."""
        logits = mask * MEMORY_SCALE + MEMORY_BIAS
        side = self.config.low_res_size
        low_res = F.interpolate(logits, (side, side), mode="bilinear", antialias=True)
        pointer = self.gate_by_presence(
            self.decode_masks(
                features.top,
                features.high_res,
                mask_logits=self.mask_downsample(mask),
                multimask=False,
            )  # fmt: skip
        ).pointer
        present = mask.flatten(1).any(dim=1, keepdim=True)
        pointer = torch.where(present, pointer, self.no_obj_ptr)
        score = torch.where(present, 1.0, 0.0) * MEMORY_SCALE + MEMORY_BIAS
        return ObjectMask(low_res, torch.ones_like(score), score, pointer)

    def encode_memory(self, top: Tensor, low_res_logits: Tensor, *, binarize: bool) -> Tensor:
        """Raw features (B, C, h, w) and logits (B, 1, S/4, S/4) → memory tokens (B, L, D).

        binarize: for prompted frames, whose mask is certain; elsewhere probabilities are kept.
        """
        size = self.config.image_size
        logits = F.interpolate(low_res_logits, (size, size), mode="bilinear", align_corners=False)
        mask = (logits > 0).to(logits.dtype) if binarize else logits.sigmoid()
        memory = self.memory_encoder(top, mask * MEMORY_SCALE + MEMORY_BIAS)
        return self.spatial_perceiver(memory)

    def assemble_memory(
        self, maps: Sequence[tuple[Tensor, int]], pointers: Sequence[Tensor]
    ) -> Memory:
        """Frame memories with their temporal index, and object pointers, in attention order.

        maps: (tokens (B, L, D), index), index = distance − 1, or num_maskmem − 1 for a conditioning
        frame. pointers: (B, C) each, cut into C / D tokens that carry no position.
        """
        c = self.config
        spatial = self.latent_positions()
        tokens = [tokens.to(spatial.dtype) for tokens, _ in maps]
        positions = [spatial + self.maskmem_tpos_enc[index, 0, 0] for _, index in maps]
        for pointer in pointers:
            tokens.append(pointer.unflatten(1, (c.pointer_tokens, c.memory_dim)))
            positions.append(spatial.new_zeros(c.pointer_tokens, c.memory_dim))
        return Memory(
            torch.cat(tokens, dim=1), torch.cat(positions)[None],
            len(maps), len(spatial), c.latent_grid,
        )  # fmt: skip

    def latent_positions(self) -> Tensor:
        """Positions of a memory's tokens, (L, D); global tokens have no place."""
        c = self.config
        grid = sine_position(c.memory_dim, c.latent_grid, c.latent_grid, self.device)
        return torch.cat((grid.new_zeros(c.num_latents, c.memory_dim), grid.flatten(1).t()))

    def start_attention(self, top: Tensor) -> Tensor:
        """The part of memory attention that every object of a frame shares: (B, N, C)."""
        position = sine_position(top.shape[1], top.shape[2], top.shape[3], top.device)
        return self.memory_attention.start(top, position)

    def attend_memory(self, started: Tensor, memory: Memory) -> Tensor:
        """`start_attention`'s result and one object's memory → features (B, C, h, w)."""
        return self.memory_attention.finish(started, memory)
