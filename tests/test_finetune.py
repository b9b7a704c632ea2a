"""Fine-tuning on a small YouTube-VOS folder: it learns, it measures, it spares its base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from edgetam_label.checkpoints import load_model
from edgetam_label.config import ModelConfig
from edgetam_label.errors import UsageError
from edgetam_label.evaluation.datasets import open_dataset
from edgetam_label.evaluation.video_protocols import write_palette_png
from edgetam_label.training.finetune import (
    PARTS,
    FineTuning,
    check_target,
    choose_parameters,
    finetune,
    split_videos,
)
from edgetam_label.training.folders import FolderData, flatten_masks, open_folder, warp_still
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.start import write_checkpoint
from edgetam_label.training.synthetic import synthetic_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic videos in YouTube-VOS layout."""
    root = tmp_path_factory.mktemp("ytvos")
    for v in range(4):
        clip = synthetic_clip(v, size=(96, 128), num_frames=5)
        for t in range(5):
            image = root / f"train/JPEGImages/{v:03d}/{t:05d}.jpg"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(clip.frames[t]).save(image)
            masks = {k: clip.mask(k, t) for k in range(1, clip.num_objects + 1)}
            target = root / f"train/Annotations/{v:03d}/{t:05d}.png"
            write_palette_png(target, masks, (96, 128))
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "base.pt"
    write_checkpoint(new_model(ModelConfig.load("tiny")), path, half=False)
    return path


def test_folders_become_stills_and_clips(folder: Path) -> None:
    data = open_folder(folder, size=64)
    assert len(data.stills) == 20
    still, clip = data.stills[3], data.clips[1]
    assert still.frames.shape[0] == 1 and still.ids.max() == still.num_objects
    assert len(clip) == 10  # five frames, there and back
    assert (clip.frames[0] != clip.frames[4]).any()
    assert (clip.frames[5] == clip.frames[3]).all()
    video = open_dataset(folder)[1]
    assert (clip.ids[0] > 0).sum() == sum(m.sum() for m in video.masks(0).values())


def test_single_images_become_moving_clips(folder: Path) -> None:
    video = open_dataset(folder)[0]
    with video.frames() as frames:
        image = frames[0]
    ids = flatten_masks(video.masks(0), image.shape[:2])
    clip = warp_still(image, ids, np.random.default_rng(0))
    assert (clip.frames[0] == image).all()
    assert (clip.ids[0] > 0).sum() == (ids > 0).sum()
    assert (clip.frames[9] != image).any() and (clip.ids[9] != clip.ids[0]).any()


def test_the_split_keeps_videos_whole(folder: Path) -> None:
    train, held_out = split_videos(open_dataset(folder), 0.25)
    assert [v.name for v in held_out] == ["003"]
    assert {v.name for v in train} == {"000", "001", "002"}
    one_train, one_held = split_videos(open_dataset(folder)[:1], 0.4)
    assert one_train[0].annotated == (0, 1, 2) and one_held[0].annotated == (3, 4)


@pytest.mark.parametrize("part", list(PARTS))
def test_only_the_chosen_part_learns(part: str) -> None:
    model = new_model(ModelConfig.load("tiny"))
    choose_parameters(model, part)
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    known = PARTS[part]
    assert trained == (
        set(known) if known else {n.split(".")[0] for n, _ in model.named_parameters()}
    )


@pytest.mark.slow
def test_it_measures_held_out_videos_and_writes_a_normal_checkpoint(
    folder: Path, base: Path, tmp_path: Path
) -> None:
    out, before_bytes = tmp_path / "mine.pt", base.read_bytes()
    options = FineTuning(part="all", steps=4, check_every=2, holdout=0.25, patience=9)
    reported: list[int] = []
    result = finetune(
        folder, base, out, options, device="cpu", report=lambda step, _: reported.append(step)
    )
    assert reported == [0, 2, 4]
    assert result.train_videos == 3 and result.held_out_videos == 1
    assert set(result.before) == {"click", "best", "box", "clicks", "clip_iou"}
    assert result.kept_step in (0, 2, 4)
    if result.kept_step == 0:  # nothing beat the base: its weights are what was written
        assert result.after == result.before
    assert base.read_bytes() == before_bytes
    assert load_model(out, device="cpu").config.name == "tiny"


def test_it_never_overwrites(folder: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="the base itself"):
        finetune(folder, base, base)
    with pytest.raises(UsageError, match="never overwritten"):
        check_target(folder / "train/JPEGImages/000/00000.jpg", base)


def test_nothing_to_hold_out_is_said(folder: Path) -> None:
    video = open_dataset(folder)[0]
    single = type(video)(video.name, video.images, (0,), video.read_masks)
    with pytest.raises(UsageError, match="only annotated frame"):
        split_videos([single], 0.2)
    assert FolderData((single,), 64).clips[0].frames.shape[0] == 10


def test_the_command_names_what_is_missing(tmp_path: Path, base: Path) -> None:
    from edgetam_label.training.commands import finetune as command

    result = CliRunner().invoke(
        command, ["--data", str(tmp_path), "--base", str(base), "--out", str(tmp_path / "x.pt")]
    )
    assert isinstance(result.exception, UsageError)
    assert "no known layout" in str(result.exception)
