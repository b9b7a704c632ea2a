"""Memory encoder: image features and a mask are fused into one memory map (SAM 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgetam_label.modeling.layers import LayerNorm2d


class MaskDownsampler(nn.Module):
    """(B, 1, S, S) mask → (B, C, S/16, S/16): four strided convolutions, each quadrupling."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (1, 4, 16, 64):
            layers += [
                nn.Conv2d(inputs, inputs * 4, 3, stride=2, padding=1),
                LayerNorm2d(inputs * 4),
                nn.GELU(),
            ]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(256, d_model, 1))

    def forward(self, mask: Tensor) -> Tensor:
        return self.encoder(mask)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, then an MLP over channels, scaled and added (arXiv 2201.03545)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ConvNextBlock(dim) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MemoryEncoder(nn.Module):
    """Features (B, C, h, w) and mask (B, 1, S, S) → memory map (B, memory_dim, h, w)."""

    def __init__(self, d_model: int, memory_dim: int, fuser_layers: int) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(d_model)
        self.pix_feat_proj = nn.Conv2d(d_model, d_model, 1)
        self.fuser = Fuser(d_model, fuser_layers)
        self.out_proj = nn.Conv2d(d_model, memory_dim, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        fused = self.pix_feat_proj(features) + self.mask_downsampler(mask)
        return self.out_proj(self.fuser(fused))
