"""1x1 convolutions as products: results, gradients and names of what they replace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgetam_label.config import ModelConfig
from edgetam_label.training.fast_convolutions import ProductConv2d, ScaleConv2d, use_products
from edgetam_label.training.initialisation import new_model


def results(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    out = model(x)
    torch.manual_seed(1)
    (out * torch.randn_like(out)).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert x.grad is not None and len(gradients) == len(list(model.parameters()))
    return [out.detach(), x.grad, *gradients]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("outputs", "groups"), [(24, 1), (8, 8)])
def test_results_and_gradients_are_those_of_the_convolution(
    outputs: int, groups: int, bias: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, outputs, 1, groups=groups, bias=bias))
    quick = copy.deepcopy(plain)
    use_products(quick)
    assert type(quick[0]) is (ScaleConv2d if groups == 8 else ProductConv2d)
    x = torch.randn(2, 8, 6, 5).to(memory_format=torch.channels_last)
    for expected, ours in zip(results(plain, x), results(quick, x), strict=True):
        assert expected.shape == ours.shape and torch.allclose(expected, ours, atol=1e-5)


def test_other_convolutions_stay() -> None:
    kinds = [
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 1, groups=4),
        nn.Conv2d(8, 16, 1, groups=8),
    ]
    model = nn.ModuleList(kinds)
    use_products(model)
    assert all(type(module) is nn.Conv2d for module in model)


def test_a_whole_model_trains_to_the_same_gradients() -> None:
    torch.manual_seed(0)
    model = new_model(ModelConfig.load("edgetam_nano")).train()
    trunk = model.image_encoder.trunk
    quick = copy.deepcopy(trunk)
    use_products(quick)
    assert list(quick.state_dict()) == list(trunk.state_dict())
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    for one in (trunk, quick):
        maps = one(x)
        sum(m.float().square().mean() for m in maps).backward()
    pairs = zip(trunk.named_parameters(), quick.parameters(), strict=True)
    for (name, plain), ours in pairs:
        assert plain.grad is not None and ours.grad is not None, name
        assert (plain.grad - ours.grad).norm() <= 1e-3 * plain.grad.norm() + 1e-6, name
