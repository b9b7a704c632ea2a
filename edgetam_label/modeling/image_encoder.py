"""Trunk and feature pyramid: an image becomes maps at strides 4, 8 and 16."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.repvit import RepViT


class Trunk(nn.Module):
    """Holds the RepViT under the name that the checkpoint gives it."""

    def __init__(self, dims: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.body = RepViT(dims, depths)

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.body(x)


class Lateral(nn.Module):
    """1x1 convolution with bias to the common width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FpnNeck(nn.Module):
    """Lateral 1x1 convolutions; only stride 16 also receives the (doubled) stride-32 map."""

    def __init__(self, dims: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Lateral(dim, d_model) for dim in reversed(dims))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8, 16, 32 → maps at 4, 8, 16, each (B, d_model, ·, ·)."""
        coarse, top, middle, fine = self.convs
        doubled = F.interpolate(coarse(maps[3]), scale_factor=2.0, mode="nearest")
        return fine(maps[0]), middle(maps[1]), top(maps[2]) + doubled


class ImageEncoder(nn.Module):
    """(B, 3, S, S) normalised image → pyramid maps at strides 4, 8, 16."""

    def __init__(self, dims: Sequence[int], depths: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.trunk = Trunk(dims, depths)
        self.neck = FpnNeck(dims, d_model)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.neck(self.trunk(images))
