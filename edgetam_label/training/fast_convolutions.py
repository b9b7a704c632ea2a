"""1x1 convolutions as what they are, products: the same results, trained faster on a CPU.

On one thread torch hands them to a kernel that walks over groups one by one, which for a depthwise
1x1 convolution means one call per channel, and that copies pictures out of channels-last order.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ProductConv2d(nn.Conv2d):
    """A 1x1 convolution without stride or padding: a matrix product at every pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, D, H, W), both channels last in memory."""
        out = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
        return out.permute(0, 3, 1, 2)


class ScaleConv2d(nn.Conv2d):
    """A depthwise 1x1 convolution: one factor per channel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        out = x * self.weight[None, :, 0, 0, 0, None, None].to(x.dtype)
        return out if self.bias is None else out + self.bias[:, None, None].to(x.dtype)


def use_products(model: nn.Module) -> None:
    """Change the 1x1 convolutions of `model`, in place; parameters and their names stay."""
    for module in model.modules():
        if type(module) is not nn.Conv2d or module.kernel_size != (1, 1):
            continue
        if module.stride != (1, 1) or module.padding != (0, 0):
            continue
        if module.groups == 1:
            module.__class__ = ProductConv2d
        elif module.groups == module.in_channels == module.out_channels:
            module.__class__ = ScaleConv2d
