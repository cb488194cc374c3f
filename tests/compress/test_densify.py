"""The way back to dense layers: the same function, the same ties, the same flags."""

import pytest
import torch
from torch import nn

from tenfold import Budget, compress
from tenfold.compress.densify import to_dense_
from tenfold.core.errors import UnsupportedError
from tenfold.nn import FactorizedLayer, FactorizedLinear


class Net(nn.Module):
    """Convolutions with many settings, layers that share a weight, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=2, dilation=2, padding_mode="reflect")
        self.grouped = nn.Conv2d(16, 16, 3, padding="same", groups=2, bias=False)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 10)
        self.alias = self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.grouped(self.stem(x)).mean((2, 3)))))


X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    net = Net().double().eval()
    net.first.weight.requires_grad_(False)
    net.stem.bias.requires_grad_(False)
    select = {"Linear": "weight_svd"}
    return compress(net, Budget(params=0.5), example=X, preset="tucker2", select=select).model


def test_the_dense_model_computes_what_the_factorized_one_did(small: nn.Module) -> None:
    before, names = small(X), [n for n, m in small.named_modules() if isinstance(m, FactorizedLayer)]
    assert to_dense_(small) == tuple(names) and len(names) == 5
    torch.testing.assert_close(small(X), before)
    kinds = [type(small.get_submodule(name)) for name in names]
    assert kinds == [nn.Conv2d, nn.Conv2d, nn.Linear, nn.Linear, nn.Linear]
    assert all(not module.training for module in small.modules())


def test_ties_and_training_flags_stay(small: nn.Module) -> None:
    to_dense_(small)
    assert small.second.weight is small.first.weight and small.second.bias is not small.first.bias
    assert small.alias is small.head
    assert not small.first.weight.requires_grad and small.first.bias.requires_grad
    assert small.stem.weight.requires_grad and not small.stem.bias.requires_grad
    assert all(p.is_contiguous() for p in small.parameters())


def test_what_is_dense_stays_the_same_object() -> None:
    model = nn.Sequential(nn.Linear(4, 4), FactorizedLinear(4, 4, rank=1))
    first = model[0]
    assert to_dense_(model) == ("1",)
    assert model[0] is first
    assert to_dense_(model) == ()


def test_compressing_the_projection_to_its_ranks_loses_nothing(small: nn.Module) -> None:
    before = small(X)
    to_dense_(small)
    again = compress(
        small, Budget(params=0.5), example=X, preset="tucker2", select={"Linear": "weight_svd"}
    ).model
    torch.testing.assert_close(again(X), before, rtol=1e-4, atol=1e-6)


def test_a_single_layer_cannot_be_replaced_in_place() -> None:
    with pytest.raises(UnsupportedError, match=r"a single factorized layer.*\nTake layer\.to_dense\(\)"):
        to_dense_(FactorizedLinear(4, 4, rank=1))
