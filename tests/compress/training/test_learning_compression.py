"""Learning-compression: ranks that weigh loss against cost, and weights that come to them."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold import Budget, Plan, apply_, find_sites, plan
from tenfold.compress.recovery.tune import tune
from tenfold.compress.training.alternate import Round
from tenfold.compress.training.learning_compression import learning_compression_
from tenfold.compress.training.price import priced
from tenfold.compress.training.pull import Pull
from tenfold.core.errors import CheckpointError, OptionError, SelectionError
from tenfold.ranks import Lagrangian

X = torch.randn(256, 12, generator=torch.Generator().manual_seed(0))


def planted(rank: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(10, rank, generator=generator) @ torch.randn(rank, 12, generator=generator)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 10, bias=False))


def learner(wanted: Tensor) -> Any:
    data = [(X, X @ wanted.T)]

    def learn(model: nn.Module, penalty: Pull, number: int) -> None:
        tune(model, data, epochs=30, lr=0.1, loss=F.mse_loss, penalty=penalty)

    return learn


def rank_of(found: Plan) -> int:
    return found.layers["0"]["weight"].ranks["R"]


@pytest.mark.parametrize("rank", [1, 3])
def test_it_learns_the_rank_of_what_it_is_to_learn(rank: int) -> None:
    model, wanted = net(), planted(rank)
    choose = priced(model, 1.0, example=X, preset="weight_svd")
    learned = learning_compression_(model, choose, learner(wanted), growth=1.3, rounds=20, tol=1e-3)
    assert rank_of(learned.plan) == rank
    assert learned.trace[-1].gap < 0.02 < 0.3 < learned.trace[0].gap
    apply_(model, learned.plan)
    assert (model[0].weight.dense() - wanted).norm() < 0.05 * wanted.norm()


def test_the_chosen_rank_is_that_of_the_least_sum_of_price_and_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 30))
    choose = partial(priced(model, 2.0, example=torch.zeros(1, 30), preset="weight_svd"), model)
    for mu in (0.5, 2.0, 8.0):
        found = choose(mu)
        for name in ("0", "1"):
            s = torch.linalg.svdvals(model.get_parameter(f"{name}.weight").detach().double()).numpy()
            tails = np.append(np.cumsum(s[::-1] ** 2)[::-1], 0)
            sums = [2.0 * 50 * r / 1200 + 0.5 * mu * tails[r] for r in range(1, 12)]
            best = int(np.argmin(sums)) + 1
            if sums[best - 1] < 2.0 * 600 / 1200:
                assert found.layers[name]["weight"].ranks == {"R": best}
            else:
                assert found.dense[f"{name}.weight"] == "ranks would cost more than they are worth"


def conv() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 16, 3, padding=1), nn.MaxPool2d(4), nn.Conv2d(16, 16, 3, padding=1)]
    return nn.Sequential(*layers), torch.zeros(1, 8, 16, 16)


def stored(found: Plan, model: nn.Module) -> int:
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return sum(layers["weight"].numel(shapes[f"{n}.weight"]) for n, layers in found.layers.items())


@pytest.mark.parametrize("preset", ["channel_svd", "pivoted_channel_svd", "tucker2", "cp3"])
def test_a_higher_price_buys_fewer_elements(preset: str) -> None:
    model, x = conv()
    dense = sum(site.numel for site in find_sites(model, x))
    counts = []
    for alpha in (1.0, 3.0, 10.0, 100.0):
        found = priced(model, alpha, example=x, preset=preset)(model, 1.0)
        rest = sum(s.numel for s in find_sites(model, x) if s.name in found.dense)
        counts.append(stored(found, model) + rest)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 0.1 * dense < counts[0]


def test_flops_are_saved_where_they_are_spent() -> None:
    model, x = conv()  # the first convolution has 16 times the positions of the second
    ranks = {}
    for unit in ("params", "flops"):
        found = priced(model, 8.0, example=x, preset="channel_svd", unit=unit)(model, 1.0)
        ranks[unit] = [found.layers[n]["weight"].ranks["R"] if n in found.layers else 99 for n in ("0", "2")]
    assert ranks["flops"][0] < ranks["params"][0] and ranks["flops"][1] > ranks["params"][1]


def test_of_several_presets_each_site_gets_the_cheaper_one() -> None:
    model, x = conv()
    alone = {
        preset: stored(priced(model, 10.0, example=x, preset=preset)(model, 1.0), model)
        for preset in ("channel_svd", "spatial_svd")
    }
    both = priced(model, 10.0, example=x, preset=("channel_svd", "spatial_svd"))(model, 1.0)
    assert set(both.layers) == {"0", "2"}
    assert stored(both, model) <= max(alone.values())


def test_a_weight_that_stays_dense_is_not_drawn() -> None:
    model, calls = net(), []
    choose = priced(model, 1e-6, example=X, preset="weight_svd")

    def learn(model: nn.Module, penalty: Pull, number: int) -> None:
        calls.append(dict(penalty.targets))

    learned = learning_compression_(model, choose, learn, rounds=3)
    assert calls == [{}] and learned.plan.layers == {}
    assert learned.trace[-1].gap == 0.0


def test_with_a_budget_every_round_is_within_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))
    budget = Budget(params=0.4)

    def choose(model: nn.Module, mu: float) -> Plan:
        return plan(model, budget, example=X, preset="weight_svd", rule=Lagrangian())

    learned = learning_compression_(model, choose, learner(planted(2)), growth=1.4, rounds=8, tol=0.0)
    assert len(learned.trace) == 9
    assert all(told.stored <= 0.4 * (12 * 16 + 16 * 10) for told in learned.trace)
    assert learned.trace[-1].gap < 0.2 * learned.trace[0].gap


class Killed(Exception):
    """What a power cut would do."""


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    def run(kill: int | None = None, **options: Any) -> tuple[list[tuple[float, ...]], Plan, Tensor]:
        model, wanted = net(), planted(2)

        def told(latest: Round) -> None:
            if latest.number == kill:
                raise Killed

        choose = priced(model, 1.0, example=X, preset="weight_svd")
        options = {"growth": 1.3, "rounds": 4, "tol": 0.0, **options}
        learned = learning_compression_(model, choose, learner(wanted), progress=told, **options)
        return [(t.gap, t.stored, t.moved) for t in learned.trace], learned.plan, model[0].weight

    expected = run()
    for kill in (1, 2):
        with pytest.raises(Killed):
            run(kill, resume=tmp_path / "run")
    found = run(resume=tmp_path / "run")
    assert found[0] == expected[0] and found[1].layers == expected[1].layers
    assert torch.equal(found[2], expected[2])
    with pytest.raises(CheckpointError, match=r"schedule\.growth was 1\.3, and is 1\.5"):
        run(resume=tmp_path / "run", growth=1.5)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"alpha": float("nan")}, {"alpha": 1.0, "unit": "latency"}]
)
def test_prices_out_of_range_are_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"alpha=.* and unit='.*' came"):
        priced(net(), example=X, **options)


def test_nothing_to_choose_for_is_an_error() -> None:
    with pytest.raises(SelectionError, match="nothing is left to compress"):
        priced(net(), 1.0, example=X, preset="spatial_svd")
