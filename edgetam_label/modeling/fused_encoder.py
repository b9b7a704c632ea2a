"""The image encoder rearranged for inference.

* BN folded into convolutions; the 3x3, 1x1 and identity branches become one convolution.
* Strides 4 and 8 are used only through `conv_s0` and `conv_s1`, so each pair of 1x1 convolutions
  becomes one.
* Maps travel as (B, H, W, C), so that 1x1 convolutions are matrix products.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.edgetam import EdgeTAM, ImageFeatures
from edgetam_label.modeling.fused_convolution import (
    FusedConv,
    MapMLP,
    folded,
    planes,
    pointwise,
    rows_of,
)
from edgetam_label.modeling.fused_linear import FusedLinear
from edgetam_label.modeling.repvit import (
    ChannelMixer,
    Downsample,
    RepViT,
    RepViTBlock,
    SqueezeExcite,
    Stage,
    TokenMixer,
)


def merged_mixer(mixer: TokenMixer) -> nn.Conv2d:
    """All three branches of a token mixer as one depthwise 3x3 convolution."""
    merged, point = folded(mixer.conv), folded(mixer.conv1)
    assert merged.bias is not None and point.bias is not None
    with torch.no_grad():
        merged.weight[:, :, 1, 1] += point.weight[:, :, 0, 0] + 1.0
        merged.bias += point.bias
    return merged


def _then(first: nn.Conv2d, second: nn.Conv2d) -> FusedLinear:
    """Two 1x1 convolutions as one matrix product."""
    a, b = pointwise(first), pointwise(second)
    assert a.bias is not None and b.bias is not None
    return FusedLinear(b.weight @ a.weight, b.weight @ a.bias + b.bias)


def _fused_mixer(mixer: ChannelMixer) -> MapMLP:
    return MapMLP(pointwise(folded(mixer.conv1), then="gelu"), pointwise(folded(mixer.conv2)))


class _FusedBlock(nn.Module):
    def __init__(self, block: RepViTBlock) -> None:
        super().__init__()
        self.token_mixer = FusedConv(merged_mixer(block.token_mixer))
        self.gate: nn.Module | None = None
        if isinstance(block.se, SqueezeExcite):
            self.gate = nn.Sequential(
                pointwise(block.se.fc1, then="relu"), pointwise(block.se.fc2), nn.Sigmoid()
            )
        self.channel_mixer = _fused_mixer(block.channel_mixer)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        if self.gate is not None:
            x.mul_(self.gate(x.mean((1, 2), keepdim=True)))
        return self.channel_mixer(x)  # type: ignore[no-any-return]


class _FusedDownsample(nn.Module):
    def __init__(self, down: Downsample) -> None:
        super().__init__()
        self.pre_block = _FusedBlock(down.pre_block)
        self.spatial = FusedConv(folded(down.spatial_downsample))
        self.channel = pointwise(folded(down.channel_downsample))
        self.ffn = _fused_mixer(down.ffn)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.channel(self.spatial(self.pre_block(x))))  # type: ignore[no-any-return]


def _fused_stage(stage: Stage) -> nn.Sequential:
    parts: list[nn.Module] = []
    if isinstance(stage.downsample, Downsample):
        parts.append(_FusedDownsample(stage.downsample))
    parts += [_FusedBlock(cast(RepViTBlock, block)) for block in stage.blocks]
    return nn.Sequential(*parts)


class FusedEncoder(nn.Module):
    """Image → features, with the decoder's high-resolution convolutions merged in."""

    def __init__(self, model: EdgeTAM) -> None:
        super().__init__()
        body: RepViT = model.image_encoder.trunk.body
        stem = body.stem
        self.stem = nn.Sequential(
            FusedConv(folded(stem.conv1), then="gelu"), FusedConv(folded(stem.conv2))
        )
        self.stages = nn.ModuleList(
            _fused_stage(cast(Stage, body.get_submodule(f"stages_{i}"))) for i in range(4)
        )
        coarse, top, middle, fine = (
            cast(nn.Conv2d, neck.conv) for neck in model.image_encoder.neck.convs
        )
        decoder = model.sam_mask_decoder
        self.coarse, self.top = pointwise(coarse), pointwise(top)
        self.s0, self.s1 = _then(fine, decoder.conv_s0), _then(middle, decoder.conv_s1)

    def features(self, images: Tensor) -> ImageFeatures:
        """As `EdgeTAM.encode_image`; memory of the features, float32, is channels-last."""
        fine = self.stages[0](self.stem(rows_of(images)))
        middle = self.stages[1](fine)
        top = self.stages[2](middle)
        coarse = planes(self.coarse(self.stages[3](top)))
        doubled = F.interpolate(coarse, scale_factor=2.0)
        return ImageFeatures(
            planes(self.top(top, rows_of(doubled))).float(),
            (planes(self.s0(fine)).float(), planes(self.s1(middle)).float()),
        )
