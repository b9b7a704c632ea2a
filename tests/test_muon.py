"""Muon: what it does to a gradient, and which parameters it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from averaging import SharedMuon, moved_weights
from torch import nn

from edgetam_label.config import ModelConfig
from edgetam_label.training.initialisation import new_model
from edgetam_label.training.muon import RMS, Muon, orthogonalise
from edgetam_label.training.parallel import Ranks, run_ranks
from edgetam_label.training.trainer import make_optimizer


@pytest.mark.parametrize("shape", [(3, 40, 70), (2, 70, 40), (1, 16, 16)])
def test_singular_values_end_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape) * 1e-4))
    # square random matrices have singular values of almost nothing, which five steps do not lift
    assert values.max() < 1.3 and values.quantile(0.1) > 0.5


def test_directions_stay_and_rare_ones_count_as_much() -> None:
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(32, 32))
    v, _ = torch.linalg.qr(torch.randn(48, 32))
    sizes = torch.logspace(0, -2, 32)
    moved = u.T @ orthogonalise((u * sizes @ v.T)[None])[0] @ v
    assert moved.diagonal().min() > 0.6 and moved.diagonal().max() < 1.3
    assert (moved - torch.diag(moved.diagonal())).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(64, 32), (32, 16, 3, 3)])
def test_an_update_is_as_large_as_one_of_adamw(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape) * 1e3
    optimizer = Muon([{"params": [weight]}], lr=1e-2)
    optimizer.step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(RMS * 1e-2, rel=0.25)
    assert torch.sum(weight.detach() * weight.grad) < 0


def test_weights_decay_and_what_has_no_gradient_stays() -> None:
    decayed, still = nn.Parameter(torch.ones(16, 16)), nn.Parameter(torch.ones(16, 16))
    decayed.grad = torch.zeros(16, 16)
    Muon([{"params": [decayed, still], "weight_decay": 0.5}], lr=0.1).step()
    assert torch.allclose(decayed, torch.full((16, 16), 0.95))
    assert torch.equal(still, torch.ones(16, 16))


def test_every_parameter_has_one_optimizer() -> None:
    model = new_model(ModelConfig.load("edgetam_nano"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, 0.02)
    given = [names[p] for group in optimizer.param_groups for p in group["params"]]
    assert sorted(given) == sorted(names.values())
    by_muon = {names[p] for group in optimizer.muon.param_groups for p in group["params"]}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(sizes[name] for name in by_muon) > 0.9 * sum(sizes.values())
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[parameter]
            assert group["trunk"] == name.startswith("image_encoder.trunk"), name
            assert (group["weight_decay"] == 0) == (parameter.ndim < 2), name
    assert "image_encoder.trunk.body.stages_3.blocks.0.channel_mixer.conv1.c.weight" in by_muon
    assert "image_encoder.trunk.body.stages_3.blocks.0.token_mixer.conv.c.weight" not in by_muon
    assert not any("embed" in name for name in by_muon if name.startswith("sam_prompt_encoder.p"))


@pytest.mark.slow
def test_two_processes_that_share_the_work_move_weights_as_one_does(tmp_path: Path) -> None:
    run_ranks(2, SharedMuon(tmp_path))
    alone = moved_weights(Ranks())
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for expected, ours, theirs in zip(alone, first, second, strict=True):
        assert torch.equal(ours, theirs), "processes would drift apart"
        assert torch.allclose(ours, expected, atol=1e-6)
