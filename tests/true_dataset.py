"""Small datasets with exact truth, on disk as other programs lay them out.

Two textured bodies move over a textured ground: what optical flow and GrabCut are made for.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from edgetam_label.evaluation.video_protocols import write_palette_png

HEIGHT, WIDTH, FRAMES = 120, 176, 7
VIDEOS = ("ball", "late")  # in "late" the first frame is empty and object 2 comes on frame 3
Masks = dict[int, NDArray[np.bool_]]


def masks_of(video: str, t: int) -> Masks:
    """Visible objects of a frame."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    disc = (cols - 40 - 6 * t) ** 2 + (rows - 40 - 2 * t) ** 2 < 20**2
    block = (abs(cols - 140 + 5 * t) < 18) & (abs(rows - 88) < 14) & ~disc
    if video == "ball":
        return {1: disc, 2: block}
    return {k: m for k, m, since in ((1, disc, 1), (2, block, 3)) if t >= since}


def picture(video: str, t: int) -> NDArray[np.uint8]:
    """(H, W, 3): dark ground, bodies whose texture moves with them."""
    rng = np.random.default_rng(7)
    ground = cv2.resize(rng.integers(20, 110, (30, 44, 3)).astype(np.uint8), (WIDTH, HEIGHT))
    image = np.asarray(ground, np.uint8)
    for obj_id, mask in masks_of(video, t).items():
        low, shift = ((150, (6 * t, 2 * t)), (110, (-5 * t, 0)))[obj_id - 1]
        texture = cv2.resize(rng.integers(low, 255, (40, 58, 3)).astype(np.uint8), (WIDTH, HEIGHT))
        texture[..., obj_id] //= 3
        image[mask] = np.roll(texture, shift, axis=(1, 0))[mask]
    return image


def write_davis(root: Path) -> Path:
    """Annotations/480p, JPEGImages/480p, ImageSets/2017/val.txt (only the first video)."""
    for video in VIDEOS:
        _write_video(root, "480p", video, range(FRAMES))
    lists = root / "ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text(f"{VIDEOS[0]}\n")
    (lists / "train.txt").write_text(f"{VIDEOS[1]}\n")
    return root


def write_youtube_vos(root: Path) -> Path:
    """valid/Annotations and valid/JPEGImages; every second frame is annotated."""
    for video in VIDEOS:
        _write_video(root / "valid", "", video, range(0, FRAMES, 2))
    return root


def write_coco(root: Path) -> Path:
    """annotations/instances_val.json with one RLE and one polygon object on one image."""
    (root / "images").mkdir(parents=True)
    Image.fromarray(picture("ball", 0)).save(root / "images/one.png")
    masks = masks_of("ball", 0)
    rle = coco_mask.encode(np.asfortranarray(masks[1], np.uint8))
    outline, _ = cv2.findContours(masks[2].astype(np.uint8), cv2.RETR_EXTERNAL, 2)
    document = {
        "images": [{"id": 1, "file_name": "one.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
             "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}},
            {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 0,
             "segmentation": [outline[0].ravel().tolist()]},
            {"id": 3, "image_id": 1, "category_id": 1, "iscrowd": 1,
             "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}},
        ],
    }  # fmt: skip
    (root / "annotations").mkdir()
    (root / "annotations/instances_val.json").write_text(json.dumps(document))
    return root


def _write_video(root: Path, resolution: str, video: str, annotated: range) -> None:
    images = root / "JPEGImages" / resolution / video
    images.mkdir(parents=True)
    for t in range(FRAMES):
        Image.fromarray(picture(video, t)).save(images / f"{t:05d}.jpg", quality=95)
        if t in annotated:
            path = root / "Annotations" / resolution / video / f"{t:05d}.png"
            write_palette_png(path, masks_of(video, t), (HEIGHT, WIDTH))
