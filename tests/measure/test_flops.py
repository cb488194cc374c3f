"""FLOPs agree with the formulas, for fused layers too."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.cost import dense_flops
from tenfold.measure import flops
from tenfold.measure.unfused import unfused_kernels, unfused_layers


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Product(nn.Module):
    """The input times a fixed tensor, and something added to it."""

    def __init__(self, other: Tensor, added: Tensor | None = None) -> None:
        super().__init__()
        self.other = other
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.other if self.added is None else torch.addmv(self.added, x, self.other)


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Linear(10, 20), (3, 10), 2 * 3 * 10 * 20),
        (nn.Linear(10, 20, bias=False), (10,), 2 * 10 * 20),
        (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 8, 8), 2 * 2 * 64 * 6 * 4 * 9),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2), (1, 4, 9, 9), 2 * 16 * 8 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 5), 2 * 25 * 4 * 6 * 4),
        (nn.LSTM(8, 16), (5, 3, 8), 2 * 5 * 3 * 4 * 16 * (8 + 16)),
        (nn.GRU(8, 16), (5, 3, 8), 2 * 5 * 3 * 3 * 16 * (8 + 16)),
        (nn.ReLU(), (5, 5), 0),
        (Product(torch.ones(7)), (5, 7), 2 * 5 * 7),
        (Product(torch.ones(7)), (7,), 2 * 7),
        (Product(torch.ones(7), torch.ones(5)), (5, 7), 2 * 5 * 7),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_flops_are_two_for_each_multiplication(
    model: nn.Module, shape: tuple[int, ...], expected: int
) -> None:
    assert flops(model, torch.randn(shape)) == expected


def test_flops_of_attention_are_its_two_products() -> None:
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8), torch.randn(2, 4, 7, 8)
    assert flops(Attention(), (q, k, v)) == 2 * (2 * 2 * 4 * 5 * 7 * 8)


def test_flops_of_a_transformer_layer_are_those_of_its_steps() -> None:
    width, hidden, batch, length = 16, 32, 2, 5
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True)
    linear = batch * length * (4 * width * width + 2 * width * hidden)
    attention = 2 * batch * length * length * width
    assert flops(layer, torch.randn(batch, length, width)) == 2 * (linear + attention)


def test_flops_take_named_arguments() -> None:
    tensors = {name: torch.randn(1, 1, 5, 8) for name in "qkv"}
    assert flops(Attention(), tensors) == flops(Attention(), tuple(tensors.values()))


def test_flops_are_the_same_on_the_meta_device() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10))
    example = torch.randn(2, 3, 8, 8)
    assert flops(model, example) == flops(model.to("meta"), example)


def test_counting_leaves_model_and_settings_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout().eval())
    before = model[0].running_mean.clone()
    flops(model, torch.randn(8, 4))
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.equal(model[0].running_mean, before)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("unfused", [unfused_layers, unfused_kernels])
def test_settings_come_back_after_an_error(unfused: Callable[[], AbstractContextManager[None]]) -> None:
    before = torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled
    with pytest.raises(KeyError), unfused():
        raise KeyError
    assert torch.backends.mha.get_fastpath_enabled()
    assert (torch.backends.cudnn.enabled, torch.backends.mkldnn.enabled) == before


@pytest.mark.parametrize("batch", [(2,), (2, 3), ()], ids=str)
def test_flops_of_a_bilinear_layer_are_those_of_the_plan(batch: tuple[int, ...]) -> None:
    layer = nn.Bilinear(5, 6, 7)
    found = flops(layer, (torch.ones(*batch, 5), torch.ones(*batch, 6)))
    assert found == dense_flops(layer, (*batch, 5)) == math.prod(batch) * 2 * (5 * 6 * 7 + 6 * 7)


def test_flops_of_products_that_torch_does_not_count() -> None:
    class Called(nn.Module):
        def forward(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
            return function(*inputs)

    z = torch.ones(4, dtype=torch.complex64)
    assert flops(Called(), (torch.vdot, z, z)) == 2 * 4
    added = (torch.ones(3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5))
    assert flops(Called(), (torch.addbmm, *added)) == 2 * 2 * 3 * 4 * 5
