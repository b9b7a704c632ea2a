"""Videos and images with true masks: DAVIS-2017, YouTube-VOS and COCO folders, synthetic scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgetam_label.errors import MediaError, UsageError
from edgetam_label.frames import Frames
from edgetam_label.masks import RLE, Mask

if TYPE_CHECKING:
    from edgetam_label.training.clips import Clip

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SYNTHETIC = "synthetic"
SYNTHETIC_SEED = 900_003  # scenes and textures that training never shows
SYNTHETIC_SIZE, SYNTHETIC_FRAMES, SYNTHETIC_VIDEOS = (288, 512), 24, 20

Masks = dict[int, Mask]


@dataclass(frozen=True)
class TrueVideo:
    """A video (or one image) whose masks are known on some frames.

    images: one path or (H, W, 3) RGB array per frame. read_masks: frame index -> mask per object.
    annotated: the frames that have true masks, ascending.
    """

    name: str
    images: tuple[Path, ...] | tuple[NDArray[np.uint8], ...]
    annotated: tuple[int, ...]
    read_masks: Callable[[int], Masks] = field(repr=False)

    def frames(self) -> Frames:
        """Open the images as frames."""
        return Frames.open(list(self.images))

    def masks(self, frame_idx: int) -> Masks:
        """True masks (H, W) of the objects visible on an annotated frame."""
        return {k: m for k, m in self.read_masks(frame_idx).items() if m.any()}

    def frame_name(self, frame_idx: int) -> str:
        """File name without suffix, as predictions are named."""
        image = self.images[frame_idx]
        return image.stem if isinstance(image, Path) else f"{frame_idx:05d}"

    @cached_property
    def first_seen(self) -> dict[int, int]:
        """Object id -> first annotated frame on which it is visible."""
        seen: dict[int, int] = {}
        for frame_idx in self.annotated:
            for obj_id in self.masks(frame_idx):
                seen.setdefault(obj_id, frame_idx)
        return dict(sorted(seen.items()))


def open_dataset(
    source: str | Path, *, split: str | None = None, limit: int | None = None
) -> list[TrueVideo]:
    """Read a dataset folder in whichever of the known layouts it has, or make `synthetic` scenes.

    split: a list of DAVIS (ImageSets/2017/<split>.txt) or a sub-folder of YouTube-VOS; by default
    all. limit: only the first so many videos. Raises UsageError if the layout is unknown or nothing
    is annotated.
    """
    if str(source) == SYNTHETIC:
        _refuse_split(SYNTHETIC, split)
        return synthetic_videos(min(SYNTHETIC_VIDEOS, limit or SYNTHETIC_VIDEOS))
    folder = Path(source)
    if not folder.is_dir():
        raise UsageError(
            f"Dataset {folder} is not a folder; give a DAVIS, YouTube-VOS or COCO folder, or "
            f"'{SYNTHETIC}' for held-out synthetic scenes."
        )
    if (folder / "Annotations" / "480p").is_dir():
        videos = _davis(folder, split)
    elif (folder / "Annotations").is_dir():
        _refuse_split(folder, split)
        videos = _indexed_folders(folder / "Annotations", folder / "JPEGImages")
    elif roots := sorted(p.parent for p in folder.glob("*/Annotations") if p.is_dir()):
        chosen = [r for r in roots if split is None or r.name == split]
        videos = [v for r in chosen for v in _indexed_folders(r / "Annotations", r / "JPEGImages")]
    elif files := _coco_files(folder, split):
        videos = [v for file in files for v in _coco(folder, file)]
    else:
        raise UsageError(
            f"{folder} has no known layout; expected Annotations/480p (DAVIS), Annotations or "
            "<split>/Annotations (YouTube-VOS), or annotations/*.json (COCO)."
        )
    if not videos:
        raise UsageError(
            f"{folder} holds no annotated video{f' in split {split}' if split else ''}."
        )
    return videos[:limit]


def _refuse_split(dataset: str | Path, split: str | None) -> None:
    if split is not None:
        raise UsageError(f"{dataset} has no splits, so none is called {split!r}; omit --split.")


def synthetic_videos(
    count: int = SYNTHETIC_VIDEOS,
    *,
    num_frames: int = SYNTHETIC_FRAMES,
    size: tuple[int, int] = SYNTHETIC_SIZE,
    seed: int = SYNTHETIC_SEED,
    texture_family: str = "heldout",
) -> list[TrueVideo]:
    """Synthetic scenes of textures that training never shows; the same ones every time."""
    from edgetam_label.training.synthetic import SyntheticClips

    clips = SyntheticClips(seed, size, num_frames, texture_family)  # type: ignore[arg-type]
    return [video_of_clip(f"{index:04d}", clips[index]) for index in range(count)]


def video_of_clip(name: str, clip: Clip) -> TrueVideo:
    """A synthetic clip, all of whose frames have true masks."""

    def read(frame_idx: int) -> Masks:
        return _split_ids(clip.ids[frame_idx])

    return TrueVideo(name, tuple(clip.frames), tuple(range(len(clip.frames))), read)


def read_id_map(path: Path) -> NDArray[np.uint8]:
    """(H, W) object ids of an indexed or grey PNG. Raises MediaError on anything else."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise MediaError(
                    f"{path} has mode {image.mode}; masks must be indexed PNGs whose value is the "
                    "object's id."
                )
            return np.array(image, dtype=np.uint8)
    except OSError as error:
        raise MediaError(f"Mask {path} cannot be read: {error}.") from error


def _split_ids(ids: NDArray[Any]) -> Masks:
    """Masks by id; 255 marks pixels nobody labelled, unless it is the only value (DAVIS-2016)."""
    values = [int(v) for v in np.unique(ids) if v > 0]
    if values == [255]:
        return {1: ids == 255}
    return {v: ids == v for v in values if v != 255}


def _davis(folder: Path, split: str | None) -> list[TrueVideo]:
    names: list[str] | None = None
    lists = sorted((folder / "ImageSets" / "2017").glob(f"{split or '*'}.txt"))
    if lists:
        names = sorted({n for p in lists for n in p.read_text(encoding="utf-8").split()})
    elif split is not None:
        raise UsageError(f"{folder} has no list ImageSets/2017/{split}.txt; leave out --split.")
    return _indexed_folders(folder / "Annotations/480p", folder / "JPEGImages/480p", names)


def _indexed_folders(
    annotations: Path, images: Path, names: Sequence[str] | None = None
) -> list[TrueVideo]:
    videos = []
    for folder in sorted(p for p in annotations.iterdir() if p.is_dir()):
        if names is not None and folder.name not in names:
            continue
        pictures = [p for p in _files(images / folder.name) if p.suffix.lower() in IMAGE_SUFFIXES]
        labels = {p.stem: p for p in _files(folder) if p.suffix.lower() == ".png"}
        by_frame = {i: labels[p.stem] for i, p in enumerate(pictures) if p.stem in labels}
        if not by_frame:
            raise UsageError(
                f"No annotation in {folder} has the name of an image in {images / folder.name}; "
                "both folders must use the same file names."
            )

        def read(frame_idx: int, files: dict[int, Path] = by_frame) -> Masks:
            return _split_ids(read_id_map(files[frame_idx]))

        videos.append(TrueVideo(folder.name, tuple(pictures), tuple(by_frame), read))
    return videos


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []


def _coco_files(folder: Path, split: str | None) -> list[Path]:
    found = sorted(folder.glob("annotations/*.json")) or sorted(folder.glob("*.json"))
    return [p for p in found if split is None or split in p.stem]


def _coco(folder: Path, file: Path) -> list[TrueVideo]:
    """Every image of a COCO file as a video of one frame; crowd regions are left out."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        images, annotations = content["images"], content["annotations"]
    except (ValueError, KeyError, TypeError):
        return []  # a manifest or another file, not COCO instances
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        if annotation.get("segmentation") and not annotation.get("iscrowd"):
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    videos = []
    for image in images:
        mine = by_image.get(image["id"], [])
        if mine:
            size = (int(image["height"]), int(image["width"]))

            def read(
                _: int, mine: list[dict[str, Any]] = mine, size: tuple[int, int] = size
            ) -> Masks:
                return {i: _coco_mask(a, size) for i, a in enumerate(mine, start=1)}

            path = _find_image(folder, image["file_name"])
            videos.append(TrueVideo(Path(image["file_name"]).stem, (path,), (0,), read))
    return videos


def _coco_mask(annotation: dict[str, Any], size: tuple[int, int]) -> Mask:
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, dict):
        return RLE.from_coco(segmentation).decode()
    from pycocotools import mask as coco_mask

    polygons = coco_mask.frPyObjects(segmentation, *size)
    return np.asarray(coco_mask.decode(coco_mask.merge(polygons)), dtype=bool)


def _find_image(folder: Path, name: str) -> Path:
    for place in (folder / name, folder / "images" / name):
        if place.is_file():
            return place
    found = next(folder.glob(f"**/{Path(name).name}"), None)
    if found is None:
        raise UsageError(
            f"Image {name} of {folder} was not found; put the images below that folder "
            "(export with --images)."
        )
    return found
