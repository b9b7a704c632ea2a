"""bfloat16 products: nearly the same masks, opted in, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rendered_scenes import picture, truth, write_movie

from edgetam_label import checkpoints
from edgetam_label.checkpoints import load_model
from edgetam_label.config import PRECISIONS, ModelConfig
from edgetam_label.errors import ConfigError
from edgetam_label.frames import Frames
from edgetam_label.masks import mask_to_box
from edgetam_label.modeling import EdgeTAM, fused, fused_linear
from edgetam_label.predictor import ImagePredictor
from edgetam_label.prompts import Box, Prompt
from edgetam_label.tracker import VideoTracker

FRAMES = 12


@pytest.fixture(scope="module")
def models() -> dict[str, EdgeTAM]:
    """The shipped weights in both precisions."""
    return {p: load_model("edgetam_nano", device="cpu", precision=p) for p in PRECISIONS}


def apart(ours: torch.Tensor, reference: torch.Tensor) -> float:
    assert ours.dtype == reference.dtype == torch.float32
    return float((ours - reference).norm() / reference.norm())


def parts(model: EdgeTAM) -> dict[str, torch.Tensor]:
    """What the parts that bfloat16 reaches give, each on the same inputs."""
    ours = fused.fuse(model)
    side, generator = model.config.image_size, torch.Generator().manual_seed(1)
    image = torch.randn(1, 3, side, side, generator=generator)
    tokens = model.config.num_latents + model.config.num_latents_2d
    maps = [
        (torch.randn(1, tokens, model.config.memory_dim, generator=generator), i) for i in (2, 1, 0)
    ]
    pointers = [torch.randn(1, model.config.d_model, generator=generator)]
    low = torch.randn(1, 1, side // 4, side // 4, generator=generator) * 8
    top = torch.randn(1, model.config.d_model, side // 16, side // 16, generator=generator)
    started, encoded = ours.start_attention(top), ours.encode_image(image)
    return {
        "encoder": encoded.top,
        "fine": encoded.high_res[0],
        "attention": ours.attend_memory(started, ours.assemble_memory(maps, pointers)),
        "memory": ours.encode_memory(top, low, binarize=False),
    }


@torch.inference_mode()
def test_every_part_differs_by_rounding_alone(models):
    exact, rounded = (parts(models[p]) for p in PRECISIONS)
    for name in exact:
        assert 1e-5 < apart(rounded[name], exact[name]) < 0.03, name


@torch.inference_mode()
def test_without_onednn_it_rounds_the_same(models, monkeypatch):
    expected = parts(models["bfloat16"])
    monkeypatch.setattr(fused_linear, "ONEDNN_BFLOAT16", False)
    for name, value in parts(models["bfloat16"]).items():
        assert apart(value, expected[name]) < 0.02, name


@torch.inference_mode()
def test_autocast_as_other_devices_use_it(models):
    """There the readable parts run; on a CPU autocast rounds the same products."""
    model = models["float32"]
    top = torch.randn(1, model.config.d_model, *[model.config.feature_size] * 2)
    exact = model.start_attention(top)
    rounded = fused._autocast(model.start_attention, "cpu")(top)
    assert 1e-5 < apart(rounded, exact) < 0.02


def test_the_original_keeps_its_weights(models):
    model = load_model("edgetam_nano", device="cpu", precision="bfloat16")
    fused.fuse(model)
    weights = models["float32"].state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_masks_are_nearly_the_same(models, tmp_path):
    """A box on a rendered disc, then a track: the same object within a pixel of its edge."""
    box = mask_to_box(truth(0)["disc"])
    assert box is not None
    prompt = Prompt(1, 0, box=Box(*box))
    write_movie(tmp_path / "movie.mp4", FRAMES)
    clicked, tracked, scores = [], [], []
    for model in models.values():
        predictor = ImagePredictor(model)
        clicked.append(predictor.predict(predictor.embed(picture(0)), prompt).best)
        with Frames.open(tmp_path / "movie.mp4") as frames:
            tracker = VideoTracker(model, frames)
            tracker.add_prompt(prompt)
            answers = list(tracker.propagate())
            tracked.append(np.stack([t.mask for t in answers]))
            scores.append([t.score for t in answers])
    for exact, rounded in (clicked, tracked):
        assert (exact & rounded).sum() / (exact | rounded).sum() > 0.98
    assert scores[0] != scores[1], "bfloat16 was not used"


def test_the_name_says_it(models):
    exact, rounded = (models[p].identity for p in PRECISIONS)
    assert rounded.name == "edgetam_nano+precision=bfloat16"
    assert exact.name == "edgetam_nano" and exact.config_sha256 != rounded.config_sha256
    assert exact.checkpoint_sha256 == rounded.checkpoint_sha256


def test_a_processor_without_it_is_named(monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "has_bfloat16", lambda: False)
    load_model("tiny", "random", "cpu", precision="bfloat16")
    assert "no instructions for bfloat16" in caplog.text
    caplog.clear()
    load_model("tiny", "random", "cpu")
    assert "bfloat16" not in caplog.text


def test_an_unknown_precision_names_the_known_ones():
    with pytest.raises(ConfigError, match="precision = 'half' must be one of float32, bfloat16"):
        load_model("tiny", "random", "cpu", precision="half")
    assert ModelConfig.load("edgetam").precision == "float32"
