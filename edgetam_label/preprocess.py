"""Pixels to the network's input and logits back to pixels: the only place where sizes change.

The network sees RGB, normalised with ImageNet's mean and deviation, **stretched** to S x S.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from edgetam_label.errors import MediaError
from edgetam_label.masks import Mask, mask_to_box
from edgetam_label.modeling.point_labels import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    POSITIVE,
)
from edgetam_label.prompts import Box, Click

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def image_to_input(image: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """A still image: antialiased bilinear resize in float. (H, W, 3) uint8 → (1, 3, size, size)."""
    check_rgb(image)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels.float() / 255, (size, size), mode="bilinear", antialias=True)
    return _normalise(resized)


def frame_to_input(frame: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """A video frame: bicubic resize of the 8-bit pixels. (H, W, 3) uint8 → (1, 3, size, size).

    Upstream resizes video frames with Pillow and images with torch; the rounding to 8 bits in
    between is visible in the logits, so each way is kept.
    """
    return picture_to_input(frame_to_picture(frame, size), device)


def frame_to_picture(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A video frame as the network sees it, before normalisation: (H, W, 3) → (size, size, 3)."""
    check_rgb(frame)
    resized = Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def picture_to_input(picture: NDArray[np.uint8], device: torch.device) -> Tensor:
    """What `frame_to_picture` gave, (S, S, 3) → (1, 3, S, S)."""
    # looked up rather than computed: this runs beside the network, whose threads torch would take
    pixels = cv2.LUT(picture, _normalised_bytes())
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]


@cache
def _normalised_bytes() -> NDArray[np.float32]:
    """(1, 256, 3): every 8-bit value of each channel as the network wants it."""
    values = torch.arange(256.0)[None, None, None].expand(1, 3, 1, 256)
    table: NDArray[np.float32] = _normalise(values / 255)[0, :, 0].T[None].contiguous().numpy()
    return table


def input_to_picture(image: Tensor) -> NDArray[np.uint8]:
    """What the network sees as a picture again: (1, 3, S, S) normalised → (S, S, 3) uint8 RGB."""
    mean, std = (np.array(values, dtype=np.float32) for values in (MEAN, STD))
    pixels = image[0].permute(1, 2, 0).cpu().numpy() * std + mean
    return np.asarray(np.rint(pixels * 255).clip(0, 255), dtype=np.uint8)


def _normalise(pixels: Tensor) -> Tensor:
    mean = pixels.new_tensor(MEAN)[:, None, None]
    std = pixels.new_tensor(STD)[:, None, None]
    return (pixels - mean) / std


def check_rgb(image: NDArray[np.uint8]) -> None:
    """Raises MediaError unless the image is (H, W, 3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise MediaError(
            f"An image must be RGB, shape (H, W, 3) of uint8; got shape {image.shape}, "
            f"{image.dtype}. Convert it first, for example with PIL's convert('RGB')."
        )


def prompt_points(
    clicks: Sequence[Click],
    box: Box | None,
    width: float,
    height: float,
    size: int,
    device: torch.device,
) -> tuple[Tensor, Tensor] | None:
    """Clicks and box in pixels of a width x height frame → points (1, N, 2) in input pixels and

    labels (1, N); a box comes first, as its two corners. None if there is neither.
    """
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    if box is not None:
        points += [(box.x0, box.y0), (box.x1, box.y1)]
        labels += [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    points += [(click.x, click.y) for click in clicks]
    labels += [POSITIVE if click.positive else NEGATIVE for click in clicks]
    if not points:
        return None
    # divided before scaled, in float32: the same rounding as upstream's normalised coordinates
    scale = torch.tensor([width, height], dtype=torch.float32)
    xy = torch.tensor(points, dtype=torch.float32) / scale * size
    return xy[None].to(device), torch.tensor(labels, dtype=torch.int32)[None].to(device)


def mask_to_input(mask: NDArray[np.bool_], size: int, device: torch.device) -> Tensor:
    """A drawn mask (H, W) → (1, 1, size, size) of 0 and 1."""
    pixels = torch.from_numpy(np.ascontiguousarray(mask)).to(device)[None, None].float()
    if mask.shape != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        pixels = (pixels >= 0.5).float()
    return pixels


def logits_to_size(low_res_logits: Tensor, height: int, width: int) -> Tensor:
    """(B, M, h, w) → (B, M, height, width), bilinear; a mask is where the result is > 0."""
    return F.interpolate(low_res_logits, (height, width), mode="bilinear", align_corners=False)


def logits_to_mask(
    low_res_logits: Tensor, height: int, width: int, *, exactly: bool = False
) -> Mask:
    """(1, 1, h, w) → (height, width) bool: where `logits_to_size` is > 0, up to its rounding.

    On a CPU only the part of the frame that can be foreground is computed: an interpolated value
    is positive only beside a positive logit. exactly: with the very rounding of `logits_to_size`;
    it decides where logits have two values, as a drawn mask's do, and 0 lies halfway.
    """
    if exactly or low_res_logits.device.type != "cpu":
        full: Mask = (logits_to_size(low_res_logits, height, width)[0, 0] > 0).cpu().numpy()
        return full
    logits = low_res_logits[0, 0].float().numpy()
    mask = np.zeros((height, width), dtype=bool)
    box = mask_to_box(logits > 0)
    if box is None:
        return mask
    rows, columns = logits.shape
    x0, x1 = _reach(box[0], box[2], columns, width)
    y0, y1 = _reach(box[1], box[3], rows, height)
    # one direction after the other; a part cannot be resized by itself, its grid would be another
    wide = cv2.resize(logits, (width, rows), interpolation=cv2.INTER_LINEAR)
    part = np.ascontiguousarray(wide[:, x0:x1])
    tall = cv2.resize(part, (x1 - x0, height), interpolation=cv2.INTER_LINEAR)
    np.greater(tall[y0:y1], 0, out=mask[y0:y1, x0:x1])
    return mask


def _reach(first: int, end: int, count: int, size: int) -> tuple[int, int]:
    """Pixels of `size` to which samples first ≤ i < end of `count` contribute, and a few more."""
    return max(0, (first - 1) * size // count), min(size, -(-(end + 1) * size // count))
