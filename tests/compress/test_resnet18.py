"""ResNet-18 lands on its budget with every preset, within minutes, and comes back from disk the same."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tenfold import Budget, compress, load, save
from tenfold.zoo import resnet18


def convolutions(model: nn.Module) -> int:
    """Elements of the convolutions' weights, factorized or not; the network has one linear layer, `fc`."""
    normal = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    named = [(n, p) for n, p in model.named_parameters() if id(p) not in normal]
    return sum(p.numel() for n, p in named if not n.startswith("fc."))


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("preset", ["cp3", "tucker2", "tt_conv", "spatial_svd"])
def test_resnet18_lands_on_its_budget(preset: str, keep: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = resnet18().eval()
    x = torch.randn(4, 3, 32, 32)
    small, plan, _ = compress(dense, Budget(params=keep), example=x, preset=preset, select={"fc": None})
    small.eval()
    share = convolutions(small) / convolutions(dense)
    assert 0.99 * keep <= share <= keep
    save(small, tmp_path / "small", plan)
    assert torch.equal(load(resnet18, tmp_path / "small")(x), small(x))
