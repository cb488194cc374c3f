"""Sequential correction against the part of the model that is already compressed."""

import copy

import pytest
import torch
from torch import nn

from tenfold import Budget, apply_, collect, find_sites, plan
from tenfold.compress import InputCovariance, correct_
from tenfold.compress.calibration.cross import CrossSums
from tenfold.compress.calibration.streams import received_by
from tenfold.compress.recovery.refit import target_weight
from tenfold.core.errors import DataError, OptionError, SelectionError


def net(seed: int = 0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    after = [nn.BatchNorm2d(8)] if norm else []
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=not norm, padding=1), *after, nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 6),
    ).eval()  # fmt: skip


def data(seed: int = 0, count: int = 400) -> list[torch.Tensor]:
    """Images whose channels are mixed, so that the moments are far from the identity."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(4, 4, generator=g)
    x = torch.einsum("nchw,dc->ndhw", torch.randn(count, 4, 10, 10, generator=g), mix)
    return list((x + 0.5 * x.roll(1, -1)).split(100))


def compressed(dense: nn.Module, batches: list[torch.Tensor], keep: float = 0.4, preset: str = "auto"):  # type: ignore[no-untyped-def]
    x = batches[0]
    stats = collect(dense, batches, find_sites(dense, x), want=InputCovariance.needs)
    found = plan(
        dense, Budget(params=keep), example=x, preset=preset, metric=InputCovariance(), statistics=stats
    )
    small = copy.deepcopy(dense)
    apply_(small, found, statistics=stats)
    return small, found, stats


@torch.no_grad()
def apart(a: nn.Module, b: nn.Module, batches: list[torch.Tensor]) -> float:
    x = torch.cat(batches)
    return float((a(x) - b(x)).norm() / b(x).norm())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("preset", ["channel_svd", "tucker2", "cp3"])
def test_outputs_come_nearer_to_the_dense_ones_on_new_data(norm: bool, preset: str) -> None:
    dense, batches, fresh = net(norm=norm), data(), data(count=200)
    small, found, stats = compressed(dense, batches, preset=preset)
    before = apart(small, dense, fresh)
    done = correct_(small, dense, found, batches, statistics=stats)
    assert [d.name for d in done] == [f"{m}.weight" for m in found.layers]
    assert apart(small, dense, fresh) < before


def test_the_error_it_reports_is_that_of_the_layer_on_its_own_inputs() -> None:
    dense, batches = net(), data()
    small, found, stats = compressed(dense, batches, preset="channel_svd")
    done = {d.name: d for d in correct_(small, dense, found, batches, statistics=stats, rounds=0)}
    with torch.no_grad():
        x = torch.cat(batches)
        given, wanted = small[:2](x), dense[:3](x)
        y, z = wanted - wanted.mean((0, 2, 3), keepdim=True), small[2](given)
        z = z - z.mean((0, 2, 3), keepdim=True)
    assert done["2.weight"].after == pytest.approx(float((z - y).norm() / y.norm()), rel=1e-3)
    assert done["2.weight"].after <= done["2.weight"].before


def test_means_are_those_of_the_dense_outputs_without_rounds() -> None:
    dense, batches = net(norm=True), data()
    small, found, stats = compressed(dense, batches, preset="channel_svd")
    correct_(small, dense, found, batches, statistics=stats, rounds=0)
    with torch.no_grad():
        x = torch.cat(batches)
        # both models behind the first norm, and behind the convolution with a bias
        for stop in (2, 4):
            torch.testing.assert_close(
                small[:stop](x).mean((0, 2, 3)), dense[:stop](x).mean((0, 2, 3)), atol=1e-4, rtol=1e-4
            )


def test_a_model_that_is_exact_stays_exact() -> None:
    dense, batches = net(), data()
    small, found, stats = compressed(dense, batches, preset="channel_svd")
    assert found.layers
    for name in found.layers:
        dense.get_submodule(name).weight.data.copy_(small.get_submodule(name).weight.dense().detach())
    small = copy.deepcopy(dense)
    apply_(small, found, statistics=stats)
    correct_(small, dense, found, batches, statistics=stats)
    assert apart(small, dense, batches) < 1e-4


def test_the_target_is_ridge_regression_in_every_group() -> None:
    g = torch.Generator().manual_seed(0)
    p, y = (torch.randn(2, n, 50, generator=g, dtype=torch.float64) for n in (5, 3))
    w = torch.randn(2, 3, 5, generator=g, dtype=torch.float64)
    pp, yp = p @ p.mT / 50, y @ p.mT / 50
    found = target_weight(w, pp, yp, ridge=0.1)
    for k in range(2):
        scale = 0.1 * pp[k].trace() / 5
        rows = torch.cat([p[k].T / 50**0.5, scale.sqrt() * torch.eye(5, dtype=torch.float64)])
        wanted = torch.cat([y[k].T / 50**0.5, scale.sqrt() * w[k].T])
        torch.testing.assert_close(found[k], torch.linalg.lstsq(rows, wanted).solution.T)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(self.body(x).relu()).relu())
        return y


def test_layers_that_run_twice_keep_their_factors() -> None:
    torch.manual_seed(0)
    dense, x = Twice(), [torch.randn(50, 6) for _ in range(3)]
    small, found, stats = compressed(dense, x, keep=0.7, preset="weight_svd")
    before = small.body.weight.dense().clone()
    assert [d.name for d in correct_(small, dense, found, x, statistics=stats)] == ["head.weight"]
    assert torch.equal(small.body.weight.dense(), before)


@pytest.mark.parametrize("norm", [False, True])
def test_layers_that_stayed_dense_make_up_for_errors_if_they_shall(norm: bool) -> None:
    dense, batches, fresh = net(norm=norm), data(), data(count=200)
    start, found, stats = compressed(dense, batches, preset="channel_svd")
    (head,) = {"5", "6"} & {n for n, m in dense.named_modules() if isinstance(m, nn.Linear)}
    assert head not in found.layers
    left, helped = copy.deepcopy(start), copy.deepcopy(start)
    correct_(left, dense, found, batches, statistics=stats)
    assert torch.equal(left.get_submodule(head).weight, dense.get_submodule(head).weight)
    done = correct_(helped, dense, found, batches, statistics=stats, dense_too=True)
    assert done[-1].name == f"{head}.weight"
    assert done[-1].after < done[-1].before
    assert apart(helped, dense, fresh) < apart(left, dense, fresh)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.head.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(x).relu())
        return y


def test_a_dense_layer_whose_weight_others_have_is_left_alone() -> None:
    torch.manual_seed(0)
    dense, x = Tied(), [torch.randn(50, 6)]
    found = plan(dense, Budget(params=0.5), example=x[0], preset="weight_svd", select={"head": None})
    small = copy.deepcopy(dense)
    apply_(small, found)
    assert [d.name for d in correct_(small, dense, found, x, dense_too=True)] == ["body.weight"]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x + self.mix(x, x, x, need_weights=False)[0])
        return y


def test_modules_of_several_layers_are_corrected_layer_by_layer() -> None:
    torch.manual_seed(0)
    dense, x = Attending().eval(), [torch.randn(40, 5, 16) for _ in range(3)]
    small, found, stats = compressed(dense, x, keep=0.5, preset="weight_svd")
    before = apart(small, dense, x)
    done = correct_(small, dense, found, x, statistics=stats, ridge=1e-3)
    assert "mix.out_proj.weight" in [d.name for d in done]
    assert apart(small, dense, x) < before
    assert isinstance(dense.mix, nn.MultiheadAttention)


def test_of_large_batches_some_positions_are_enough() -> None:
    layer, x = nn.Conv2d(3, 4, 3), data(count=100)[0][:, :3]
    with torch.no_grad():
        y = layer(x)
    whole, some = CrossSums(layer, positions=10**9), CrossSums(layer, positions=1000)
    for sums in (whole, some):
        sums.add(x, y)
    assert whole.count == 100 * 8 * 8
    assert 400 <= some.count <= 1600  # every third row and column, from a random start
    p = x.unfold(2, 3, 1).unfold(3, 3, 1).permute(1, 4, 5, 0, 2, 3).reshape(27, -1).double()
    torch.testing.assert_close(whole.moments().pp, p @ p.T / p.shape[1], atol=1e-5, rtol=1e-5)
    assert some.moments().error(layer.weight) < 1e-3


def test_bad_input_is_refused_before_anything_changes() -> None:
    dense, batches = net(), data(count=100)
    small, found, _ = compressed(dense, batches)
    state = copy.deepcopy(small.state_dict())
    with pytest.raises(OptionError, match="ridge came as 0"):
        correct_(small, dense, found, batches, ridge=0)
    with pytest.raises(SelectionError, match="no factorized layer"):
        correct_(dense, dense, found, batches)
    with pytest.raises(DataError, match="no batches"):
        correct_(small, dense, found, [])
    assert all(torch.equal(v, state[k]) for k, v in small.state_dict().items())


class Block(nn.Module):
    """Residual, with the norm before (as in GPT-2) or behind (as in BERT)."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.before, self.norm = before, nn.LayerNorm(12)
        self.wide, self.narrow, self.drop = nn.Linear(12, 24), nn.Linear(24, 12), nn.Dropout()

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.drop(self.narrow(self.wide(x).relu()))
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.body(self.norm(x)) if self.before else self.norm(x + self.body(x))
        return y


def residual(before: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), *[Block(before) for _ in range(4)], nn.LayerNorm(12)).eval()


@pytest.mark.parametrize("before", [False, True])
def test_sites_make_up_for_errors_in_the_residual_stream(before: bool) -> None:
    dense = residual(before)
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    batches, fresh = ([torch.randn(200, 6) @ mix for _ in range(n)] for n in (4, 2))
    small, found, stats = compressed(dense, batches, keep=0.6, preset="weight_svd")
    alone = copy.deepcopy(small)
    receivers = received_by(dense, found.layers, batches[0])
    assert any(
        layer.endswith("narrow") and receiver.endswith("norm") for layer, receiver in receivers.items()
    )
    correct_(small, dense, found, batches, statistics=stats, ridge=1e-3)
    assert apart(small, dense, fresh) < apart(alone, dense, fresh)


def inputs_and_outputs(model: nn.Module, layer: str, receiver: str, x: torch.Tensor) -> list[torch.Tensor]:
    """The output of a layer, and the first input of another."""
    seen: list[torch.Tensor] = []
    hooks = [
        model.get_submodule(layer).register_forward_hook(lambda m, args, y: seen.append(y)),
        model.get_submodule(receiver).register_forward_pre_hook(lambda m, args: seen.append(args[0])),
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_passes_in_step_end_where_a_new_pass_of_the_corrected_model_does() -> None:
    """What went into the stream is renewed: the error reported for the last site is that of a new pass."""
    dense, batches = residual(True), [torch.randn(300, 6)]
    small, found, stats = compressed(dense, batches, keep=0.6, preset="weight_svd")
    last = correct_(small, dense, found, batches, statistics=stats)[-1]
    assert last.name == "4.narrow.weight"
    y, total = inputs_and_outputs(small, "4.narrow", "5", batches[0])
    _, wanted = inputs_and_outputs(dense, "4.narrow", "5", batches[0])
    target = wanted - (total - y)
    gap, target = (z - z.mean(0) for z in (wanted - total, target))
    assert last.after == pytest.approx(float(gap.norm() / target.norm()), rel=1e-3)
