"""RepViT trunk (arXiv 2307.09283) in its training form: every branch is a convolution with BN.

Parameter names follow timm's "legacy" RepViT-M1, which the EdgeTAM checkpoint uses.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation; `same` padding for odd kernels."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))


class TokenMixer(nn.Module):
    """Depthwise 3x3 and 1x1 branches plus identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, 3, groups=dim)
        self.conv1 = ConvNorm(dim, dim, 1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.conv1(x) + x


class SqueezeExcite(nn.Module):
    """Channel gates from the global mean; the hidden width is a quarter, rounded to 8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = max(8, int(dim / 4 + 4) // 8 * 8)
        if hidden < 0.9 * dim / 4:
            hidden += 8
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class ChannelMixer(nn.Module):
    """1x1 convolutions C → 2C → C with GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, 2 * dim)
        self.conv2 = ConvNorm(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(x)))


class RepViTBlock(nn.Module):
    """Token mixer, optional squeeze-excite, residual channel mixer."""

    def __init__(self, dim: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.token_mixer = TokenMixer(dim)
        self.se = SqueezeExcite(dim) if squeeze_excite else nn.Identity()
        self.channel_mixer = ChannelMixer(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class Downsample(nn.Module):
    """Halve the resolution between two stages and change the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pre_block = RepViTBlock(inputs, squeeze_excite=False)
        self.spatial_downsample = ConvNorm(inputs, inputs, 3, stride=2, groups=inputs)
        self.channel_downsample = ConvNorm(inputs, outputs)
        self.ffn = ChannelMixer(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class Stem(nn.Module):
    """Two strided convolutions: (B, 3, H, W) → (B, dim, H/4, W/4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, dim // 2, 3, stride=2)
        self.conv2 = ConvNorm(dim // 2, dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(x)))


class Stage(nn.Module):
    """Blocks at one resolution; every second block, from the first, has squeeze-excite."""

    def __init__(self, inputs: int, dim: int, depth: int, downsample: bool) -> None:
        super().__init__()
        self.downsample = Downsample(inputs, dim) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(RepViTBlock(dim, i % 2 == 0) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class RepViT(nn.Module):
    """(B, 3, H, W) → four maps at strides 4, 8, 16, 32 with the widths `dims`."""

    def __init__(self, dims: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.stem = Stem(dims[0])
        inputs = (dims[0], *dims[:-1])
        for i, (previous, dim, depth) in enumerate(zip(inputs, dims, depths, strict=True)):
            self.add_module(f"stages_{i}", Stage(previous, dim, depth, downsample=i > 0))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        x = self.stem(x)
        for i in range(4):
            x = self.get_submodule(f"stages_{i}")(x)
            maps.append(x)
        return maps
