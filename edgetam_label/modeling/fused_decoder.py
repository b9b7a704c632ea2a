"""The mask decoder rearranged for a CPU: few tokens, a large map.

* Between n tokens and the map, projections stay on the tokens' side: q · (W k) = (Wᵀ q) · k, and
  the softmax lets values be projected after they are averaged. Each attention then costs two
  products with heads · n rows instead of two (or three) with the width of all heads.
* A deconvolution of stride 2 and kernel 2 is a matrix product: each cell becomes four, kept side
  by side as channels until the masks, a few channels, are put in order.
* The position of every cell is a constant.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.fused_linear import FusedLinear, linear, linear_plus
from edgetam_label.modeling.layers import MLP, LayerNorm2d
from edgetam_label.modeling.mask_decoder import (
    Attention,
    DecoderOutput,
    MaskDecoder,
    TwoWayBlock,
)
from edgetam_label.modeling.prompt_encoder import PromptEncoder


class FixedPromptEncoder(nn.Module):
    """`PromptEncoder` that computes the position of the map's cells once."""

    position: Tensor

    def __init__(self, encoder: PromptEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        position = encoder.image_position().contiguous(memory_format=torch.channels_last)
        self.register_buffer("position", position.detach(), persistent=False)

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        return self.encoder.embed_points(points, labels)  # type: ignore[no-any-return, operator]

    def embed_mask(self, mask_logits: Tensor | None, batch: int) -> Tensor:
        return self.encoder.embed_mask(mask_logits, batch)  # type: ignore[no-any-return, operator]

    def embed_dense(self, points: Tensor, labels: Tensor, mask_logits: Tensor | None) -> Tensor:
        return self.encoder.embed_dense(points, labels, mask_logits)  # type: ignore[no-any-return, operator]

    def image_position(self) -> Tensor:
        return self.position


class FusedMaskDecoder(MaskDecoder):
    """`MaskDecoder` with `all_masks` rearranged; one prompt at a time."""

    def __init__(self, decoder: MaskDecoder) -> None:
        nn.Module.__init__(self)
        self.own_tokens = nn.Parameter(
            torch.cat(
                (
                    decoder.obj_score_token.weight,
                    decoder.iou_token.weight,
                    decoder.mask_tokens.weight,
                )
            ).detach(),
            requires_grad=False,
        )
        transformer = decoder.transformer
        self.blocks = nn.ModuleList(
            _FusedBlock(cast(TwoWayBlock, block)) for block in transformer.layers
        )
        self.final = _TokensToMap(transformer.final_attn_token_to_image)
        self.final_norm = transformer.norm_final_attn
        self.upscale = _FusedUpscaling(decoder.output_upscaling)
        self.kernels = _ParallelMLPs([cast(MLP, mlp) for mlp in decoder.output_hypernetworks_mlps])
        self.iou_head = fused_mlp(decoder.iou_prediction_head)
        self.score_head = fused_mlp(decoder.pred_obj_score_head)

    def all_masks(
        self,
        image: Tensor,
        image_pos: Tensor,
        sparse: Tensor,
        dense: Tensor,
        high_res: tuple[Tensor, Tensor],
    ) -> DecoderOutput:
        """As `MaskDecoder.all_masks`."""
        position = _cells(image_pos)[0]
        side = image.shape[-1]
        rows = []
        for i, prompt in enumerate(sparse):
            own = [t[min(i, len(t) - 1)][None] for t in (image, dense, *high_res)]
            rows.append(self._one(own[0], position, prompt, own[1], own[2], own[3], side))
        return DecoderOutput(*(torch.stack(parts) for parts in zip(*rows, strict=True)))

    def _one(
        self,
        image: Tensor,
        position: Tensor,
        sparse: Tensor,
        dense: Tensor,
        s0: Tensor,
        s1: Tensor,
        side: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        token_pos = tokens = torch.cat((self.own_tokens, sparse))
        cells = _cells(image + dense)[0]  # (HW, C)
        for block in self.blocks:
            tokens, cells = block(tokens, cells, token_pos, position)
        attended = self.final(tokens + token_pos, cells + position, cells)
        tokens = self.final_norm(tokens + attended)
        mask_tokens = tokens[2:6]
        masks = self.upscale(cells, s0, s1, self.kernels(mask_tokens), side)
        return masks, self.iou_head(tokens[1]).sigmoid(), mask_tokens, self.score_head(tokens[0])


def _cells(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B, HW, C), a view where memory is channels-last."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def fused_mlp(mlp: MLP) -> nn.Sequential:
    """The MLP with ReLU applied on the way out of each product."""
    last = len(mlp.layers) - 1
    return nn.Sequential(
        *(
            FusedLinear.of(layer, then="none" if i == last else "relu")
            for i, layer in enumerate(mlp.layers)
        )
    )


class _ParallelMLPs(nn.Module):
    """Several MLPs of equal shape, each for its own row: (n, C) → (n, outputs)."""

    def __init__(self, mlps: list[MLP]) -> None:
        super().__init__()
        layers = list(zip(*(mlp.layers for mlp in mlps), strict=True))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([m.weight for m in same]).mT.contiguous()) for same in layers
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.stack([m.bias for m in same])[:, None]) for same in layers
        )
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y, last = x[:, None], len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            y = torch.baddbmm(bias, y, weight)
            if i < last:
                y = y.relu_()
        return y[:, 0]


class _FusedAttention(nn.Module):
    """Plain multi-head attention among tokens (n, C)."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            FusedLinear.of(p)
            for p in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
        )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)[None]
            for p, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        out = F.scaled_dot_product_attention(q, k, v)[0]
        return self.out_proj(out.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]


class _HeadProjections(nn.Module):
    """Projections of an attention between tokens and map, and their weights by head."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads = attention.heads
        self.heads = heads
        self.scale = (attention.q_proj.out_features // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            FusedLinear.of(p)
            for p in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
        )

    def by_head(self, x: Tensor) -> Tensor:
        """(n, heads · width) → (heads, n, width)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)

    def weights(self, projection: FusedLinear) -> Tensor:
        """(heads, width, C) of a projection from C."""
        return projection.weight.unflatten(0, (self.heads, -1))


class _TokensToMap(_HeadProjections):
    def forward(self, tokens: Tensor, keys: Tensor, cells: Tensor) -> Tensor:
        """Tokens (n, C) attend to the map: keys and cells (HW, C) → (n, C)."""
        q = self.by_head(self.q_proj(tokens) * self.scale)
        # the bias of the keys adds the same to every score of a row: the softmax ignores it
        q = (q @ self.weights(self.k_proj)).flatten(0, 1)  # (heads · n, C)
        weights = torch.softmax(linear(q, keys), dim=-1)
        means = linear(weights, cells.t()).unflatten(0, (self.heads, -1))  # (heads, n, C)
        out = means @ self.weights(self.v_proj).mT
        return self.out_proj(out.transpose(0, 1).flatten(1) + self.v_proj.bias)  # type: ignore[no-any-return]


class _MapToTokens(_HeadProjections):
    def forward(self, keys: Tensor, cells: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """The map, keys (HW, C), attends to tokens and values (n, C); added to cells (HW, C)."""
        k = self.by_head(self.k_proj(tokens) * self.scale)
        assert self.q_proj.bias is not None
        bias = k @ self.q_proj.bias.unflatten(0, (self.heads, -1))[:, :, None]
        k = (k @ self.weights(self.q_proj)).flatten(0, 1)  # (heads · n, C)
        scores = linear(k, keys) + bias.flatten(0, 1)  # (heads · n, HW)
        weights = torch.softmax(scores.unflatten(0, (self.heads, -1)), dim=1).flatten(0, 1)
        out = self.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)
        v = (self.by_head(self.v_proj(values)) @ out).flatten(0, 1)  # (heads · n, C)
        return linear_plus(weights.t().contiguous(), cells, v.t().contiguous(), self.out_proj.bias)


class _FusedBlock(nn.Module):
    """`TwoWayBlock` for one prompt: tokens (n, C), cells (HW, C)."""

    def __init__(self, block: TwoWayBlock) -> None:
        super().__init__()
        self.first = block.first
        self.self_attn = _FusedAttention(block.self_attn)
        self.to_map = _TokensToMap(block.cross_attn_token_to_image)
        self.from_map = _MapToTokens(block.cross_attn_image_to_token)
        self.mlp = fused_mlp(block.mlp)
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.norm4 = block.norm4

    def forward(
        self, tokens: Tensor, cells: Tensor, token_pos: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pos
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        keys = cells + position
        tokens = self.norm2(tokens + self.to_map(tokens + token_pos, keys, cells))
        tokens = self.norm3(tokens + self.mlp(tokens))
        cells = self.norm4(self.from_map(keys, cells, tokens + token_pos, tokens))
        return tokens, cells


class _FusedUpscaling(nn.Module):
    """Two deconvolutions as matrix products, and the masks."""

    def __init__(self, upscaling: nn.Sequential) -> None:
        super().__init__()
        first, norm, _, second, _ = upscaling
        self.first = _quadrupling(cast(nn.ConvTranspose2d, first))
        self.second = _quadrupling(cast(nn.ConvTranspose2d, second))
        self.norm = cast(LayerNorm2d, norm)

    def forward(self, cells: Tensor, s0: Tensor, s1: Tensor, kernels: Tensor, side: int) -> Tensor:
        """cells (HW, C), s0 (1, C/8, 4H, 4W), s1 (1, C/4, 2H, 2W), kernels (M, C/8) → (M, 4H, 4W).

        A cell's descendants follow each other: (y, x, y2, x2, y4, x4), each of the last four 0, 1.
        """
        x = self.first(cells).view(side, side, 2, 2, -1)
        x += _rows(s1).view(side, 2, side, 2, -1).permute(0, 2, 1, 3, 4)
        norm = self.norm
        x = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
        x = self.second(torch.ops.aten.gelu_(x).view(-1, x.shape[-1]))
        x = x.view(side, side, 2, 2, 2, 2, -1)
        x += _rows(s0).view(side, 2, 2, side, 2, 2, -1).permute(0, 3, 1, 4, 2, 5, 6)
        x = torch.ops.aten.gelu_(x).view(-1, x.shape[-1])
        masks = linear(kernels, x).view(-1, side, side, 2, 2, 2, 2)
        return masks.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * side, 4 * side)


def _rows(x: Tensor) -> Tensor:
    """(1, C, H, W) → contiguous (H, W, C)."""
    return x[0].permute(1, 2, 0).contiguous()


def _quadrupling(deconvolution: nn.ConvTranspose2d) -> FusedLinear:
    """Channels in → (2 · 2 · channels out): the four cells that a cell becomes, by row."""
    weight, bias = deconvolution.weight, deconvolution.bias  # weight (in, out, 2, 2)
    assert bias is not None
    return FusedLinear(weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4))
