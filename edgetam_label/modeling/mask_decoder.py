"""Mask decoder: prompt tokens and image features exchange information, masks come out (SAM 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.layers import MLP, LayerNorm2d

NUM_MULTIMASKS = 3

# A single mask whose area changes by more than 2 % when the threshold moves by ±0.05 is unstable.
STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98


class Attention(nn.Module):
    """Multi-head attention whose inner width is d_model / downsample."""

    def __init__(self, d_model: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = d_model // downsample
        self.heads = heads
        self.q_proj = nn.Linear(d_model, inner)
        self.k_proj = nn.Linear(d_model, inner)
        self.v_proj = nn.Linear(d_model, inner)
        self.out_proj = nn.Linear(inner, d_model)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B, N, C), k and v (B, M, C) → (B, N, C)."""
        q, k, v = self.q_proj(q), self.k_proj(k), self.v_proj(v)
        split = (self.heads, q.shape[-1] // self.heads)
        q, k, v = (x.unflatten(-1, split).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self, d_model: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(d_model, heads)
        self.norm1 = nn.LayerNorm(d_model)
        self.cross_attn_token_to_image = Attention(d_model, heads, downsample=2)
        self.norm2 = nn.LayerNorm(d_model)
        self.mlp = MLP(d_model, mlp_dim, d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.norm4 = nn.LayerNorm(d_model)
        self.cross_attn_image_to_token = Attention(d_model, heads, downsample=2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pos: Tensor, image_pos: Tensor
    ) -> tuple[Tensor, Tensor]:
        """tokens (B, N, C) and image (B, HW, C), with their positions → both, updated."""
        if self.first:  # the first block has neither position nor residual here
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pos
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        k = image + image_pos
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(k, tokens + token_pos, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """A few two-way blocks and a last look of the tokens at the image."""

    def __init__(self, d_model: int, heads: int, mlp_dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(d_model, heads, mlp_dim, first=i == 0) for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(d_model, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(d_model)

    def forward(self, image: Tensor, image_pos: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """image and image_pos (B, HW, C), tokens (B, N, C) → tokens, image."""
        token_pos = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pos, image_pos)
        attended = self.final_attn_token_to_image(tokens + token_pos, image + image_pos, image)
        return self.norm_final_attn(tokens + attended), image


@dataclass(frozen=True)
class DecoderOutput:
    """Masks of one decoding, M = 3 (multimask) or 1.

    low_res_logits: (B, M, S/4, S/4). iou: (B, M), predicted. object_score: (B, 1), > 0 if visible.
    tokens: (B, M or 1, C), from which the object pointer is projected.
    """

    low_res_logits: Tensor
    iou: Tensor
    tokens: Tensor
    object_score: Tensor

    def best(self) -> DecoderOutput:
        """Keep the mask of the highest predicted IoU, and its token where there is one per mask."""
        pick = self.iou.argmax(1, keepdim=True)
        height, width = self.low_res_logits.shape[-2:]
        tokens = self.tokens
        if tokens.shape[1] > 1:
            tokens = tokens.gather(1, pick[..., None].expand(-1, -1, tokens.shape[-1]))
        return DecoderOutput(
            self.low_res_logits.gather(1, pick[..., None, None].expand(-1, -1, height, width)),
            self.iou.gather(1, pick),
            tokens,
            self.object_score,
        )


class MaskDecoder(nn.Module):
    """Four mask tokens: 0 for unambiguous prompts, 1-3 for an ambiguous one."""

    def __init__(self, d_model: int, heads: int, mlp_dim: int, depth: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(d_model, heads, mlp_dim, depth)
        self.iou_token = nn.Embedding(1, d_model)
        self.mask_tokens = nn.Embedding(1 + NUM_MULTIMASKS, d_model)
        self.obj_score_token = nn.Embedding(1, d_model)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(d_model, d_model // 4, 2, stride=2),
            LayerNorm2d(d_model // 4),
            nn.GELU(),
            nn.ConvTranspose2d(d_model // 4, d_model // 8, 2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(d_model, d_model // 8, 1)
        self.conv_s1 = nn.Conv2d(d_model, d_model // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(d_model, d_model, d_model, d_model // 8) for _ in range(1 + NUM_MULTIMASKS)
        )
        self.iou_prediction_head = MLP(d_model, d_model, d_model, 1 + NUM_MULTIMASKS)
        self.pred_obj_score_head = MLP(d_model, d_model, d_model, 1)

    def forward(
        self,
        image: Tensor,
        image_pos: Tensor,
        sparse: Tensor,
        dense: Tensor,
        high_res: tuple[Tensor, Tensor],
        multimask: bool,
    ) -> DecoderOutput:
        """image and dense (B, C, h, w), image_pos (1, C, h, w), sparse (B, N, C),

        high_res ((B, C/8, 4h, 4w), (B, C/4, 2h, 2w)). In evaluation an unstable single mask is
        replaced by the best of the three (its token, and so the object pointer, stays).
        """
        return self.select(self.all_masks(image, image_pos, sparse, dense, high_res), multimask)

    def select(self, every: DecoderOutput, multimask: bool) -> DecoderOutput:
        """Of all four masks, the three candidates or the one for an unambiguous prompt."""
        three = DecoderOutput(
            every.low_res_logits[:, 1:], every.iou[:, 1:], every.tokens[:, 1:], every.object_score
        )
        if multimask:
            return three
        single = DecoderOutput(
            every.low_res_logits[:, :1], every.iou[:, :1], every.tokens[:, :1], every.object_score
        )
        return single if self.training else _replace_unstable(single, three.best())

    def all_masks(
        self,
        image: Tensor,
        image_pos: Tensor,
        sparse: Tensor,
        dense: Tensor,
        high_res: tuple[Tensor, Tensor],
    ) -> DecoderOutput:
        """All four masks, M = 4, in token order; same inputs as `forward`."""
        own = torch.cat(
            (self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight)
        )
        tokens = torch.cat((own.expand(sparse.shape[0], -1, -1), sparse), dim=1)
        height, width = image.shape[-2:]
        keys = (image + dense).flatten(2).transpose(1, 2)
        position = image_pos.flatten(2).transpose(1, 2)
        tokens, keys = self.transformer(keys, position, tokens)
        mask_tokens = tokens[:, 2 : 3 + NUM_MULTIMASKS]

        deconv1, norm, gelu1, deconv2, gelu2 = self.output_upscaling
        s0, s1 = high_res
        upscaled = keys.transpose(1, 2).unflatten(2, (height, width))
        upscaled = gelu1(norm(deconv1(upscaled) + s1))
        upscaled = gelu2(deconv2(upscaled) + s0)  # (B, C/8, 4h, 4w)
        kernels = torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        # pixels first: channels lie last in memory in training, and gradients must come back so
        pixels = upscaled.flatten(2).transpose(1, 2) @ kernels.transpose(1, 2)  # (B, 16hw, M)
        logits = pixels.transpose(1, 2).contiguous().unflatten(2, upscaled.shape[-2:])
        return DecoderOutput(
            logits,
            self.iou_prediction_head(tokens[:, 1]).sigmoid(),
            mask_tokens,
            self.pred_obj_score_head(tokens[:, 0]),
        )


def _replace_unstable(single: DecoderOutput, best: DecoderOutput) -> DecoderOutput:
    logits = single.low_res_logits.flatten(1)
    inner = (logits > STABILITY_DELTA).sum(1, dtype=torch.float32)
    outer = (logits > -STABILITY_DELTA).sum(1, dtype=torch.float32)
    stability = torch.where(outer > 0, inner / outer, 1.0)
    stable = stability >= STABILITY_THRESHOLD
    return DecoderOutput(
        torch.where(stable[:, None, None, None], single.low_res_logits, best.low_res_logits),
        torch.where(stable[:, None], single.iou, best.iou),
        single.tokens,
        single.object_score,
    )
