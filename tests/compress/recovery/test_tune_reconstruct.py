"""Repair without labels: blocks come nearer to the dense ones, and the network recovers."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress import compress
from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.reconstruct import Inputs, Rebuilt, reconstruct_
from tenfold.compress.recovery.tune import tune
from tenfold.core.errors import DataError, DivergedError, ModelError, OptionError, SelectionError, ShapeError
from tenfold.data import ImageData, digits
from tenfold.measure import accuracy
from tenfold.ranks import Budget
from tenfold.testing.compare import assert_equal
from tenfold.zoo import digits_cnn


@pytest.fixture(scope="module")
def images() -> tuple[ImageData, ImageData]:
    train, test = digits()
    train = train.normalized()
    return train, test.normalized(train.mean, train.std)


@pytest.fixture(scope="module")
def dense(images: tuple[ImageData, ImageData]) -> nn.Module:
    torch.manual_seed(0)
    model = digits_cnn()
    order = torch.Generator().manual_seed(0)
    tune(model, images[0].batches(64, shuffle=True, generator=order), epochs=2, lr=2e-3, schedule="cosine")
    return model.eval()


@pytest.fixture
def small(dense: nn.Module) -> nn.Module:
    return compress(dense, Budget(params=0.1), example=torch.randn(1, 1, 8, 8))[0]


def test_new_statistics_repair_a_compressed_network(
    small: nn.Module, images: tuple[ImageData, ImageData]
) -> None:
    train, test = images
    before = accuracy(small, test.batches(512))
    reestimate_batchnorm_(small, train.batches(256), samples=512)
    assert accuracy(small, test.batches(512)) > before + 0.1


def test_a_compressed_network_recovers_without_labels(
    small: nn.Module, dense: nn.Module, images: tuple[ImageData, ImageData]
) -> None:
    train, test = images
    inputs = [batch for batch, _ in train.batches(32)][:16]
    before = accuracy(small, test.batches(512))
    (block,) = reconstruct_(small, dense, inputs, ["features"], epochs=12, lr=5e-3)
    assert block.after < 0.5 * block.before
    reestimate_batchnorm_(small, inputs)
    assert accuracy(small, test.batches(512)) > max(0.9, before + 0.2)


def chain(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)]
    return nn.Sequential(*blocks, nn.Dropout(0.5)).double()


def points() -> list[Tensor]:
    return list(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).double().split(24))


def error(small: nn.Module, dense: nn.Module, x: Tensor) -> float:
    return ((small(x) - dense(x)).norm() / dense(x).norm()).item()


@pytest.mark.parametrize("inputs", ["dense", "small"])
def test_stored_inputs_and_outputs_teach_the_same_in_one_pass_a_block(inputs: Inputs) -> None:
    def blocks(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(*(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)) for _ in range(3)))

    dense, passes = blocks(1), []
    dense.register_forward_pre_hook(lambda *_: passes.append(1))
    given = [x.float() for x in points()]
    small, other = blocks(0), blocks(0)
    expected = reconstruct_(small, dense, given, ["0", "2"], epochs=5, inputs=inputs)
    passes.clear()
    assert reconstruct_(other, dense, given, ["0", "2"], epochs=5, inputs=inputs, stored=True) == expected
    assert len(passes) == 2 * len(given)
    for p, q in zip(small.parameters(), other.parameters(), strict=True):
        assert_equal(q, p, "learnt from what is stored")


def test_errors_are_the_true_ones_over_all_batches() -> None:
    small, dense, x = chain(0), chain(1), torch.cat(points())
    at_start = error(small[0], dense[0], x)
    (first, second) = reconstruct_(small, dense, points(), ["0", "1"], epochs=20, lr=0.05)
    assert first.before == pytest.approx(at_start) and first.name == "0"
    assert first.after == pytest.approx(error(small[0], dense[0], x)) and first.after < 0.1 * first.before
    assert second.after == pytest.approx(error(small[1], dense[1], dense[0](x)))


def test_on_its_own_inputs_a_block_makes_up_for_those_before_it() -> None:
    dense, x = chain(1), torch.cat(points())
    ends: dict[str, float] = {}
    for inputs in ("dense", "small"):
        small = chain(1)
        with torch.no_grad():
            small[0][0].weight.mul_(0.5)
        (block,) = reconstruct_(small, dense, points(), ["1"], epochs=40, lr=0.05, inputs=inputs)  # type: ignore[arg-type]
        ends[inputs] = error(small[:2], dense[:2], x)
    assert block.after == pytest.approx(ends["small"]) and ends["small"] < 0.5 * ends["dense"]


def test_other_blocks_modes_and_the_dense_model_stay() -> None:
    small, dense = chain(0).train(), chain(1).train()
    before, twin = deepcopy(small), deepcopy(dense)
    reconstruct_(small, dense, points(), {"1": "2"}, epochs=3)
    assert all(torch.equal(a, b) for a, b in zip(dense.parameters(), twin.parameters(), strict=True))
    for name, value in small.named_parameters():
        assert torch.equal(value, before.get_parameter(name)) != name.startswith("1.")
        assert value.grad is None
    assert all(module.training for module in (*small.modules(), *dense.modules()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())


def test_the_error_never_rises() -> None:
    small, dense = chain(0), chain(1)
    before = deepcopy(small)
    (block,) = reconstruct_(small, dense, points(), ["0"], epochs=1, lr=1e3)
    assert block.after == block.before
    assert torch.equal(small[0][0].weight, before[0][0].weight)


def test_an_infinite_error_is_an_error_and_the_weights_stay() -> None:
    small, dense, bad = chain(0)[0], chain(1)[0], [torch.full((2, 4), torch.nan).double()]
    before = small[0].weight.clone()
    with pytest.raises(DivergedError, match=r"block '0' became nan\.\nUse a smaller learning rate"):
        reconstruct_(small, dense, bad, ["0"], epochs=1)
    assert torch.equal(small[0].weight, before)


class Attention(nn.Module):
    """A block with an argument by name, which changes its input in place and returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Scaled()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0, scale=2.0)[0]


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).double()

    def forward(self, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        return self.linear(x.mul_(scale)), x


def test_blocks_may_take_names_work_in_place_and_return_more() -> None:
    torch.manual_seed(0)
    small, dense, x = Attention(), Attention(), torch.cat(points())
    (block,) = reconstruct_(small, dense, points(), ["inner"], epochs=60, lr=0.05)
    assert block.after < 0.2 * block.before
    assert error(small, dense, x) == pytest.approx(block.after)


def test_progress_sees_every_block() -> None:
    seen: list[tuple[int, int, Rebuilt]] = []
    done = reconstruct_(
        chain(0), chain(1), points(), ["0", "2"], epochs=1, progress=lambda *news: seen.append(news)
    )
    assert seen == [(1, 2, done[0]), (2, 2, done[1])]


def test_what_cannot_be_rebuilt_is_an_error() -> None:
    small, dense = chain(0), chain(1)
    with pytest.raises(SelectionError, match="has no module '7'"):
        reconstruct_(small, dense, points(), ["7"])
    with pytest.raises(SelectionError, match="There are no blocks to rebuild"):
        reconstruct_(small, dense, points(), [])
    with pytest.raises(SelectionError, match="Block '0' does not run when Sequential is called"):
        reconstruct_(small, dense, points(), ["0"], forward=lambda model, batch: model[1](batch))
    with pytest.raises(ModelError, match="Block '3' has no parameter to train"):
        reconstruct_(small, dense, points(), ["0", "3"])
    with pytest.raises(ShapeError, match=r"'0' gives \(24, 4\), but \(24, 2\) is wanted"):
        reconstruct_(small, nn.Sequential(nn.Linear(4, 2).double()), points(), ["0"])
    batches: Iterator[Tensor] = iter(points())
    with pytest.raises(DataError, match="no batches to rebuild blocks on"):
        reconstruct_(small, dense, batches, ["0"])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"epochs": 0}, "epochs >= 1, got 0"),
        ({"lr": -1.0}, "lr > 0"),
        ({"inputs": "x"}, "dense or small, got 'x'"),
    ],
)
def test_options_out_of_range_are_an_error(options: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        reconstruct_(chain(0), chain(1), points(), ["0"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mixed", [False, True])
def test_wanted_outputs_that_are_all_0_count_by_the_absolute_error(mixed: bool) -> None:
    small, dense = nn.Sequential(nn.Linear(2, 2, bias=False)), nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        small[0].weight.copy_(torch.eye(2))
        dense[0].weight.copy_(torch.diag(torch.tensor([1.0, 0.0])))
    inputs = [torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.0]])][: 1 + mixed]
    (block,) = reconstruct_(small, dense, inputs, ["0"], epochs=20, lr=0.1)
    assert block.before == pytest.approx(0.5)
    assert block.after < 0.1
