"""The rearranged network gives what the readable one gives."""

from __future__ import annotations

import pytest
import torch

from edgetam_label.config import ModelConfig
from edgetam_label.modeling import EdgeTAM, fused_attention, fused_convolution, fused_linear
from edgetam_label.modeling.fused import fuse


@pytest.fixture(scope="module", params=["tiny", "edgetam_nano"])
def model(request):
    """Weights with batch statistics that are not the identity, so that folding is really tested."""
    torch.manual_seed(1)
    model = EdgeTAM(ModelConfig.load(request.param)).eval()
    for layer in model.memory_encoder.fuser.layers:
        torch.nn.init.uniform_(layer.gamma, 0.5, 1.5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return model


def pixels(model: EdgeTAM) -> torch.Tensor:
    size = model.config.image_size
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))


def close(ours: torch.Tensor, reference: torch.Tensor) -> bool:
    return torch.allclose(ours, reference, rtol=1e-4, atol=2e-5 * float(reference.abs().max()))


@torch.inference_mode()
def test_encoder(model):
    reference, ours = (m.encode_image(pixels(model)) for m in (model, fuse(model)))
    assert close(ours.top, reference.top)
    for a, b in zip(ours.high_res, reference.high_res, strict=True):
        assert close(a, b)


@pytest.mark.parametrize(("frames", "pointers"), [(1, 0), (3, 2), (7, 16)])
@torch.inference_mode()
def test_memory_attention(model, frames, pointers, monkeypatch):
    monkeypatch.setattr(fused_attention, "QUERY_ROWS", 24)  # rows that do not divide the map
    c = model.config
    generator = torch.Generator().manual_seed(3)
    tokens = c.num_latents + c.num_latents_2d
    maps = [
        (torch.randn(1, tokens, c.memory_dim, generator=generator), min(i, c.num_maskmem - 1))
        for i in range(frames)
    ]
    given = [torch.randn(1, c.d_model, generator=generator) for _ in range(pointers)]
    top = model.encode_image(pixels(model)).top
    results = []
    for m in (model, fuse(model)):
        memory = m.assemble_memory(maps, given)
        results.append(m.attend_memory(m.start_attention(top), memory))
    assert close(results[1], results[0])


@torch.inference_mode()
def test_decoder_and_memory_encoder(model):
    features = model.encode_image(pixels(model))
    points, labels = torch.tensor([[[20.0, 30.0]]]), torch.tensor([[1]])
    logits = torch.randn(1, 1, model.config.low_res_size, model.config.low_res_size)
    reference, ours = (
        (
            m.decode_masks(features.top, features.high_res, points, labels, multimask=True),
            m.encode_memory(features.top, logits, binarize=False),
        )
        for m in (model, fuse(model))
    )
    assert close(ours[0].low_res_logits, reference[0].low_res_logits)
    assert close(ours[0].object_score, reference[0].object_score)
    assert close(ours[1], reference[1])


@torch.inference_mode()
def test_several_prompts_and_objects_at_once(model, monkeypatch):
    monkeypatch.setattr(fused_linear, "HIDDEN_BYTES", 2**14)  # blocks also where maps are small
    c, generator = model.config, torch.Generator().manual_seed(5)
    features = model.encode_image(pixels(model))
    points = torch.tensor([[[20.0, 30.0], [90.0, 70.0]], [[64.0, 64.0], [3.0, 120.0]]])
    labels = torch.tensor([[1, 0], [2, 3]])
    previous = torch.randn(2, 1, c.low_res_size, c.low_res_size, generator=generator)
    tokens = c.num_latents + c.num_latents_2d
    maps = [(torch.randn(2, tokens, c.memory_dim, generator=generator), i) for i in range(2)]
    pointers = [torch.randn(2, c.d_model, generator=generator)]
    outputs = []
    for m in (model, fuse(model)):
        started = m.start_attention(features.top)
        attended = m.attend_memory(started, m.assemble_memory(maps, pointers))
        decoded = m.decode_masks(
            features.top, features.high_res, points, labels, previous, multimask=False
        )
        gated = m.gate_by_presence(decoded)
        memory = m.encode_memory(
            features.top.expand(2, -1, -1, -1), gated.low_res_logits, binarize=True
        )
        outputs.append((attended, decoded.low_res_logits, decoded.iou, gated.pointer, memory))
    for ours, reference in zip(outputs[1], outputs[0], strict=True):
        assert ours.shape == reference.shape and close(ours, reference)


def test_the_original_is_left_alone(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ours = fuse(model)
    assert ours.fused and not model.fused and fuse(ours) is ours
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "missing",
    [(fused_linear, "ONEDNN"), (fused_linear, "ONEDNN_PACKS"), (fused_convolution, "DIRECT")],
)
@torch.inference_mode()
def test_without_operators_of_onednn_it_still_computes_the_same(model, missing, monkeypatch):
    expected = fuse(model).encode_image(pixels(model)).top
    monkeypatch.setattr(*missing, False)
    assert close(fuse(model).encode_image(pixels(model)).top, expected)


@pytest.mark.skipif(not fused_linear.ONEDNN, reason="this PyTorch has no oneDNN")
def test_operators_of_onednn_are_there():
    assert fused_linear.ONEDNN_PACKS and fused_convolution.DIRECT
    assert not fused_linear.is_there(lambda: torch.ops.mkldnn._no_such_operator(1))
    assert not fused_linear.is_there(lambda: torch.ops.mkldnn._linear_pointwise(torch.ones(1)))


@torch.inference_mode()
def test_convolutions_in_blocks_of_unequal_size(model, monkeypatch):
    """Also for several images, whose rows share blocks, and again with weights packed before."""
    images = torch.cat([pixels(model), -pixels(model)])
    reference = model.encode_image(images).top
    monkeypatch.setattr(fused_linear, "HIDDEN_BYTES", 10_007)
    ours = fuse(model)
    for _ in range(2):
        assert close(ours.encode_image(images).top, reference)
    assert close(ours.encode_image(images[1:]).top, reference[1:])
