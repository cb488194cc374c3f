"""Thinned positions: nothing changes below the cap, the scale is kept above it; products by blocks."""

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress.calibration.calibrate import collect
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.calibration.sums import ROWS, Sums
from tenfold.compress.calibration.thinning import Thinning
from tenfold.compress.sites import find_sites
from tenfold.core.errors import OptionError

WANT = ("input_covariance", "patch_moment", "output_covariance", "gradient_covariance")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Pooled(nn.Module):
    """A convolution, the mean over its positions, and a linear layer."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", groups=groups)
        self.fc = nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).tanh().mean((2, 3)))


def gather(model: nn.Module, x: Tensor, **options: object) -> Statistics:
    labels = torch.arange(len(x)) % 3
    return collect(model, [(x, labels)], find_sites(model, x), want=WANT, **options)  # type: ignore[arg-type]


def assert_same(a: SiteStatistics, b: SiteStatistics, rtol: float) -> None:
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        torch.testing.assert_close(tensor, b.tensors()[name], rtol=rtol, atol=1e-12, msg=name)


def test_calls_below_the_cap_are_looked_at_whole() -> None:
    model, x = Pooled(), normal(5, 2, 12, 12)
    whole, default = gather(model, x, positions=None), gather(model, x)
    for site in whole:
        assert_same(whole[site], default[site], rtol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_thinning_changes_nothing_where_all_positions_are_alike(groups: int) -> None:
    model, x = Pooled(groups), normal(6, 2, 1, 1).expand(6, 2, 17, 19)
    whole, thin = gather(model, x, positions=None), gather(model, x, positions=40)
    assert_same(whole["conv.weight"], thin["conv.weight"], rtol=1e-10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_thinned_moments_are_near_those_of_all_positions(layout: torch.memory_format) -> None:
    model, x = Pooled(), normal(64, 2, 32, 32).contiguous(memory_format=layout)
    whole = gather(model, x, positions=None)["conv.weight"].tensors()
    thin = gather(model, x, positions=4096)["conv.weight"].tensors()
    for name, tensor in whole.items():
        assert 0 < float((tensor - thin[name]).norm()) < 0.1 * float(tensor.norm()) + 0.1, name


def test_the_same_seed_looks_at_the_same_positions() -> None:
    model, x = Pooled(), normal(8, 2, 24, 24)
    first, again, other = (gather(model, x, positions=100, seed=s)["conv.weight"] for s in (0, 0, 5))
    assert_same(first, again, rtol=0)
    assert not torch.equal(first.the("patch_moment"), other.the("patch_moment"))


def test_counts_are_those_of_all_positions() -> None:
    seen = gather(Pooled(), normal(8, 2, 24, 24), positions=100)["conv.weight"]
    assert (seen.count, seen.output_count) == (8 * 24 * 24, 8 * 24 * 24)


@pytest.mark.parametrize("rows", [1, 40])
def test_a_moment_keeps_eight_positions_a_row(rows: int) -> None:
    slices = Thinning(1).slices((4096,), 1, rows)
    assert len(range(4096)[slices[0]]) == pytest.approx(8 * rows, rel=0.05)


def test_positions_of_tokens_are_thinned_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = normal(1, 1, 3).expand(5, 200, 3)
    labels = torch.zeros(5, 200, dtype=torch.long)
    found = [
        collect(model, [(x, labels)], find_sites(model, x), want=WANT, positions=n)["0.weight"]
        for n in (None, 50)
    ]
    assert_same(*found, rtol=1e-10)


def test_no_positions_at_all_are_refused() -> None:
    with pytest.raises(OptionError, match="positions came as 0"):
        gather(Pooled(), normal(2, 2, 4, 4), positions=0)


@pytest.mark.parametrize("rows", [1, ROWS, ROWS + 1, 3 * ROWS - 5])
@pytest.mark.parametrize("stack", [(), (2,)])
def test_products_by_blocks_are_the_whole_product(rows: int, stack: tuple[int, ...]) -> None:
    a, b, sums = normal(*stack, rows, 7), normal(*stack, rows, 3, seed=1), Sums()
    sums.add_gram("x", a)
    sums.add_gram("x", b, weight=3.0)
    found = sums.mean_(10)["x"]
    torch.testing.assert_close(found, (a @ a.mT + 3 * b @ b.mT) / 10)
    torch.testing.assert_close(found, found.mT)


class Branches(nn.Module):
    """Two layers on one input, one of which is changed in place, and a third behind them."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=inplace)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.c(self.relu(self.a(x)) + self.b(x)))


@pytest.mark.parametrize("asks", [False, True])
def test_changes_in_place_and_inputs_with_gradients_hide_no_gradient(asks: bool) -> None:
    x = normal(9, 3).requires_grad_(asks)
    found = [gather(Branches(inplace), x) for inplace in (False, True)]
    for site in ("a.weight", "b.weight", "c.weight"):
        assert_same(found[0][site], found[1][site], rtol=1e-12)
        assert found[0][site].the("gradient_covariance").norm() > 0
    assert x.grad is None
