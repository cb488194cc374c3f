"""The correction before a ReLU: what it hides does not count."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from tenfold import Budget, apply_, collect, find_sites, plan
from tenfold.compress import KroneckerFisher, correct_
from tenfold.compress.recovery.one_sided import one_sided
from tenfold.core.errors import OptionError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_the_loss_of_the_outputs_chosen_is_at_least_what_the_relu_shows(slope: float) -> None:
    y, wanted, knee = drawn(1000), drawn(1000, seed=1), drawn(1000, seed=2)
    z = one_sided(y, wanted, knee, torch.tensor(slope, dtype=torch.float64))
    through = [(slope * (v - knee)).relu() for v in (y, wanted, z)]
    bound = (slope * (y - z)).square()
    assert (bound - (through[0] - through[1]).square()).min() > -1e-12
    torch.testing.assert_close(through[2], through[1])
    hidden = (through[0] == 0) & (through[1] == 0)
    assert hidden.any() and bool((z == y)[hidden].all())


def test_regression_on_outputs_chosen_anew_each_round_finds_the_least_one_sided_loss() -> None:
    p, slope, knee = drawn(200, 5), torch.tensor([1.0, -2.0], dtype=torch.float64), drawn(200, 2, seed=3)
    wanted = drawn(200, 2, seed=1) + p[:, :2]
    w = torch.zeros(5, 2, dtype=torch.float64)
    losses = []
    for _ in range(150):
        z = one_sided(p @ w, wanted, knee, slope)
        losses.append(float((p @ w - z).square().sum()))
        w = torch.linalg.lstsq(p, z).solution
    assert all(b <= a + 1e-9 for a, b in pairwise(losses))
    w.requires_grad_()
    y = p @ w
    (y - one_sided(y.detach(), wanted, knee, slope)).square().sum().backward()
    assert w.grad.norm() < 1e-6  # convex, so that no slope is the minimum


class Block(nn.Module):
    def __init__(self, act: nn.Module, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False, groups=groups)
        self.norm1, self.norm2, self.act = nn.BatchNorm2d(8), nn.BatchNorm2d(8), act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(self.norm2(self.second(self.act(self.norm1(self.first(x))))) + x)
        return y


def net(act: nn.Module, groups: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [Block(act, groups) for _ in range(3)]
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), *blocks, nn.Flatten(), nn.Linear(512, 16), act, nn.Linear(16, 5)
    )
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_()
        for _ in range(10):
            model(torch.cat(data(count=50)))
    return model.eval()


def data(seed: int = 0, count: int = 200) -> list[torch.Tensor]:
    x = drawn(count, 3, 10, 10, seed=seed).float()
    return list((x + 0.8 * x.roll(1, -1) + x.mean(1, keepdim=True)).split(50))


def compressed(dense: nn.Module, batches: list[torch.Tensor], preset: str = "channel_svd"):  # type: ignore[no-untyped-def]
    metric, x = KroneckerFisher(), batches[0]
    stats = collect(dense, batches, find_sites(dense, x), want=metric.needs)
    found = plan(dense, Budget(params=0.4), example=x, preset=preset, metric=metric, statistics=stats)
    small = copy.deepcopy(dense)
    apply_(small, found, statistics=stats)
    return small, found, stats


def behind(model: nn.Module, name: str, batches: list[torch.Tensor]) -> torch.Tensor:
    """What the last activation of a module gives."""
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_hook(lambda m, args, y: seen.append(y))
    with torch.no_grad():
        model(torch.cat(batches))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("preset", "groups"), [("channel_svd", 1), ("channel_svd", 2), ("tucker2", 1), ("cp3", 1)]
)
def test_activations_come_nearer_than_without_rounds_on_new_data(preset: str, groups: int) -> None:
    dense, batches, fresh = net(nn.ReLU(), groups), data(), data(seed=1, count=200)
    start, found, stats = compressed(dense, batches, preset)
    wanted, errors = behind(dense, "3", fresh), []
    for rounds in (0, 3):
        small = copy.deepcopy(start)
        correct_(small, dense, found, batches, statistics=stats, ridge=1e-3, rounds=rounds)
        errors.append(float((behind(small, "3", fresh) - wanted).norm() / wanted.norm()))
    assert errors[1] < 0.97 * errors[0]


def test_passes_end_where_a_new_pass_of_the_corrected_model_does() -> None:
    """What came to each ReLU was renewed: the error of the last convolution is that of a new pass."""
    dense, batches = net(nn.ReLU()), data(count=100)
    small, found, stats = compressed(dense, batches)
    done = {d.name: d for d in correct_(small, dense, found, batches, statistics=stats)}
    last = small.get_submodule("3")
    sums = []
    for model in (small, dense):
        block, x = model.get_submodule("3"), behind(model, "2", batches)
        with torch.no_grad():
            sums.append(block.norm2(block.second(block.act(block.norm1(block.first(x))))) + x)
            y = block.second(block.act(block.norm1(block.first(x))))
            slope = (block.norm2.weight / (block.norm2.running_var + block.norm2.eps).sqrt()).reshape(
                -1, 1, 1
            )
            if model is small:
                moved = dense.get_submodule("3").norm2.running_mean - last.norm2.running_mean
                rest = sums[0] - slope * (y + moved.reshape(-1, 1, 1))
    z = one_sided(sums[0], sums[1], torch.tensor(0.0), torch.tensor(1.0))
    target = (sums[1] - rest) / slope
    whole = (target - target.mean((0, 2, 3), keepdim=True)).norm()
    assert done["3.second.weight"].after == pytest.approx(
        float(((z - sums[0]) / slope).norm() / whole), rel=1e-3
    )
    assert done["3.second.weight"].after < done["3.second.weight"].before


def test_a_batch_norm_whose_variances_were_estimated_anew_leaves_the_rounds_out() -> None:
    """The slopes of the two models then differ, so that there is no one knee."""
    dense, batches = net(nn.ReLU()), data(count=100)
    start, found, stats = compressed(dense, batches)
    for block in ("1", "2", "3"):
        for norm in ("norm1", "norm2"):
            start.get_submodule(f"{block}.{norm}").running_var.mul_(1.1)
    states = []
    for rounds in (0, 3):
        small = copy.deepcopy(start)
        correct_(small, dense, found, batches, statistics=stats, rounds=rounds)
        states.append({k: v for k, v in small.state_dict().items() if k[0] in "123"})
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_without_a_relu_rounds_change_nothing() -> None:
    dense, batches = net(nn.GELU()), data(count=100)
    start, found, stats = compressed(dense, batches)
    states = []
    for rounds in (0, 3):
        small = copy.deepcopy(start)
        correct_(small, dense, found, batches, statistics=stats, rounds=rounds)
        states.append(small.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_a_model_that_is_exact_stays_exact() -> None:
    dense, batches = net(nn.ReLU()), data(count=100)
    small, found, stats = compressed(dense, batches)
    for name in found.layers:
        dense.get_submodule(name).weight.data.copy_(small.get_submodule(name).weight.dense().detach())
    small = copy.deepcopy(dense)
    apply_(small, found, statistics=stats)
    correct_(small, dense, found, batches, statistics=stats)
    torch.testing.assert_close(behind(small, "3", batches), behind(dense, "3", batches), atol=1e-3, rtol=1e-3)


def test_a_negative_number_of_rounds_is_refused() -> None:
    dense, batches = net(nn.ReLU()), data(count=100)
    small, found, _ = compressed(dense, batches)
    with pytest.raises(OptionError, match="rounds came as -1"):
        correct_(small, dense, found, batches, rounds=-1)
