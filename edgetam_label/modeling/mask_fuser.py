"""How to fuse a tracked mask with the one before, moved along the flow: pixel by pixel, learned.

Not part of the official network: only models whose config says `learned_fusion` have it. It begins
as the rule that it corrects (`edgetam_label/fusion.py`), so that a model whose fuser was never
taught tracks as one without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FINE = ("red", "green", "blue", "answer", "moved", "trust")  # on the grid of the network's input
COARSE = ("answer_logits", "moved_logits", "likeness")  # on that of its logits, four times coarser
WHOLE = ("predicted_iou", "expected_iou", "object_score", "crop_width")  # one number each
WIDTHS = (16, 32, 48, 64)  # channels at strides 2, 4, 8 and 16
STRIDE = 16  # windows are multiples of it


class MaskFuser(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) over a window of a crop.

    forward: fine (B, len(FINE), h, w), coarse (B, len(COARSE), h/4, w/4) and whole (B, len(WHOLE)),
    all in about -1..1 → (B, 2, h, w): what to add to the logit of the moved mask's share, and then
    to the logit of the mask.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.stem = nn.Conv2d(len(FINE), first, 4, stride=2, padding=1)
        self.down0 = _Correction(first)
        self.to1 = nn.Conv2d(first + len(COARSE) + len(WHOLE), second, 3, padding=1)
        self.down1 = _DeepCorrection(second)
        self.to2 = nn.Conv2d(second, third, 2, stride=2)
        self.down2 = _DeepCorrection(third)
        self.to3 = nn.Conv2d(third, fourth, 2, stride=2)
        self.middle = _DeepCorrection(fourth)
        self.from3 = nn.Conv2d(fourth, third, 1)
        self.up2 = _DeepCorrection(third)
        self.from2 = nn.Conv2d(third, second, 1)
        self.up1 = _DeepCorrection(second)
        self.from1 = nn.Conv2d(second, first, 1)
        self.up0 = _Correction(first)
        self.head = nn.Conv2d(first, 2 * 4, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    @property
    def is_taught(self) -> bool:
        """Whether it corrects anything."""
        return bool(self.head.weight.any()) or bool(self.head.bias.any())  # type: ignore[union-attr]

    def forward(self, fine: Tensor, coarse: Tensor, whole: Tensor) -> Tensor:
        planes = whole[:, :, None, None].expand(-1, -1, *coarse.shape[-2:])
        at2 = self.down0(self.stem(fine.contiguous(memory_format=torch.channels_last)))
        at4 = self.down1(self.to1(torch.cat([F.avg_pool2d(at2, 2), coarse, planes], dim=1)))
        at8 = self.down2(self.to2(F.relu(at4)))
        at16 = self.middle(self.to3(F.relu(at8)))
        at8 = self.up2(at8 + _twice(self.from3(at16)))
        at4 = self.up1(at4 + _twice(self.from2(at8)))
        at2 = self.up0(at2 + _twice(self.from1(at4)))
        changes: Tensor = F.pixel_shuffle(self.head(F.relu(at2)), 2)
        return changes


class _Correction(nn.Module):
    """x + what one convolution makes of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.conv.weight, std=0.02)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        corrected: Tensor = x + self.conv(F.relu(x))
        return corrected


class _DeepCorrection(nn.Module):
    """x + what two convolutions make of it; nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        corrected: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return corrected


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
