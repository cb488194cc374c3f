"""Peak memory: what is alive at once, and nothing that was there before."""

import pytest
import torch
from torch import Tensor, nn

from tenfold.measure import peak_memory
from tenfold.measure.memory import LiveStorages


class Branches(nn.Module):
    """Holds `count` results at once."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        held = [x + number for number in range(self.count)]
        return held[-1]


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1).view(-1).relu_()


def test_a_chain_holds_two_activations_at_a_time() -> None:
    chain = nn.Sequential(*[nn.Linear(100, 100) for _ in range(6)])
    assert peak_memory(chain, torch.ones(5, 100)) == 2 * 5 * 100 * 4


@pytest.mark.parametrize("count", [1, 2, 7])
def test_results_alive_at_once_add_up(count: int) -> None:
    assert peak_memory(Branches(count), torch.ones(1000)) == count * 4000


def test_in_place_results_and_views_take_nothing() -> None:
    assert peak_memory(InPlace(), torch.ones(4, 5)) == 0


def test_memory_grows_with_the_batch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    one, four = (peak_memory(model, torch.randn(count, 3, 16, 16)) for count in (1, 4))
    assert one == 2 * 8 * 14 * 14 * 4
    assert four == 4 * one


def test_memory_takes_the_dtype_into_account() -> None:
    assert peak_memory(nn.Linear(10, 10).double(), torch.ones(1, 10).double()) == 80


def test_no_graph_is_kept_and_the_mode_is_restored() -> None:
    chain = nn.Sequential(*[nn.Tanh() for _ in range(9)])
    assert peak_memory(chain, torch.ones(10, requires_grad=True)) == 80
    assert chain.training


def test_memory_is_the_same_each_time() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    first, second = (peak_memory(layer, torch.randn(2, 5, 16)) for _ in range(2))
    assert first == second > 2 * 5 * 32 * 4


def test_a_second_name_for_a_storage_counts_once() -> None:
    with LiveStorages() as live:
        base = torch.zeros(10)
        views = [base[3:], base.view(2, 5), base.detach()]
    assert live.now == live.peak == 40
    del base
    assert live.now == 40
    views.clear()
    assert live.now == 0


@pytest.mark.gpu
def test_gpu_memory_excludes_weights_and_grows_with_the_batch() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024)).cuda()
    one, four = (peak_memory(model, torch.randn(count * 1024, 1024)) for count in (1, 4))
    assert one == 2 * 4 * 2**20
    assert four == 4 * one
