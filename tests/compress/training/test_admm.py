"""ADMM: the steps of the augmented Lagrangian, weights that come to a format, and runs that go on."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import Budget, Plan, apply_, plan
from tenfold.compress.plan import LayerPlan
from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.tune import tune
from tenfold.compress.training.admm import admm_
from tenfold.compress.training.alternate import Induced, Round
from tenfold.compress.training.projection import distance, holding, nearest, projected
from tenfold.compress.training.pull import Pull
from tenfold.core.errors import CheckpointError, DivergedError, LayoutError, OptionError, SelectionError
from tenfold.data import ImageBatches, ImageData, digits
from tenfold.decompose import Fit, Method
from tenfold.decompose.matrices.svd import TruncatedSVD
from tenfold.formats import LowRank
from tenfold.measure import accuracy

RANK_ONE = LayerPlan("lowrank", "o i -> o i", {"R": 1})


def single(weight: Tensor) -> nn.Module:
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False)).to(weight.dtype)
    with torch.no_grad():
        model[0].weight.copy_(weight)
    return model


def matrix(seed: int = 0) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solved(wanted: Tensor, calls: list[Pull] | None = None) -> Callable[[nn.Module, Pull, int], None]:
    """The learning step for the loss ½ ‖W - wanted‖², in closed form."""

    def learn(model: nn.Module, penalty: Pull, number: int) -> None:
        if calls is not None:
            calls.append(penalty)
        target, mu = penalty.targets["0.weight"], penalty.strength
        with torch.no_grad():
            model.get_parameter("0.weight").copy_((wanted + mu * target) / (1 + mu))

    return learn


def truncated(weight: Tensor, rank: int) -> Tensor:
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def test_the_iterates_are_those_of_the_scaled_form() -> None:
    w = wanted = matrix()
    z, u = truncated(w, 1), torch.zeros_like(w)
    for _ in range(4):
        w = (wanted + 0.7 * (z - u)) / 1.7
        z = truncated(w + u, 1)
        u = u + w - z
    model, calls = single(wanted), []
    induced = admm_(
        model, Plan({"0": {"weight": RANK_ONE}}), solved(wanted, calls), rho=0.7, growth=1.0, rounds=4, tol=0
    )
    torch.testing.assert_close(model[0].weight.detach(), w)
    assert induced.trace[-1].gap == pytest.approx(((w - z).norm() / w.norm()).item())
    assert [told.number for told in induced.trace] == list(range(5)) and len(calls) == 4
    assert induced.trace[0].gap == pytest.approx(
        ((wanted - truncated(wanted, 1)).norm() / wanted.norm()).item()
    )
    assert induced.trace[-1].stored == 9


def test_it_solves_the_nearest_low_rank_matrix() -> None:
    wanted = matrix()
    model = single(wanted + matrix(1))
    layers = Plan({"0": {"weight": RANK_ONE}})
    induced = admm_(model, layers, solved(wanted), rho=1.0, growth=1.0, rounds=60, tol=1e-7)
    torch.testing.assert_close(model[0].weight.detach(), truncated(wanted, 1), rtol=0, atol=1e-5)
    assert len(induced.trace) < 61, "it stops at the tolerance"


def test_growth_leaves_the_multipliers_as_they_are() -> None:
    calls: list[Pull] = []
    model, wanted = single(matrix()), matrix()
    admm_(
        model, Plan({"0": {"weight": RANK_ONE}}), solved(wanted, calls), rho=1.0, growth=2.0, rounds=3, tol=0
    )
    assert [call.strength for call in calls] == [1.0, 2.0, 4.0]
    # at W the slope of the loss is that of the pull, -μ (W - Z + U): the multiplier after the round
    w1 = (wanted + calls[0].targets["0.weight"]) / 2
    z1 = truncated(w1 + (truncated(wanted, 1) - calls[0].targets["0.weight"]), 1)
    multiplier = wanted - w1
    torch.testing.assert_close(2.0 * (z1 - calls[1].targets["0.weight"]), multiplier)


def test_complex_weights_are_drawn_by_both_their_parts() -> None:
    model = nn.Linear(2, 1, bias=False, dtype=torch.complex64)
    target = model.weight.detach() - (1 + 2j)
    assert Pull({"weight": target}, 3.0)(model).item() == pytest.approx(0.5 * 3.0 * 2 * 5)
    assert distance(model.weight.detach(), target) == pytest.approx(10**0.5)


def test_the_pull_is_half_the_strength_times_the_square_and_has_its_slope() -> None:
    model = single(matrix())
    target = matrix(1)
    value = Pull({"0.weight": target}, 3.0)(model)
    value.backward()
    apart = matrix() - target
    assert value.item() == pytest.approx(1.5 * apart.square().sum().item())
    torch.testing.assert_close(model[0].weight.grad, 3.0 * apart)
    assert Pull({}, 3.0)(model).item() == 0.0


@pytest.mark.parametrize(
    ("preset", "keep"), [("channel_svd", 0.5), ("tucker2", 0.5), ("tt_conv", 0.5), ("cp3", 0.3)]
)
def test_what_a_format_holds_is_its_own_nearest(preset: str, keep: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 6, 3)).double()
    layer = plan(model, Budget(params=keep), example=torch.zeros(1, 8, 5, 5).double(), preset=preset).layers
    once = nearest(model[0].weight.detach(), layer["0"]["weight"])
    assert once.shape == (6, 8, 3, 3) and (once - model[0].weight).norm() > 0.1 * once.norm()
    again = nearest(once, layer["0"]["weight"])
    assert (again - once).norm() < (0.05 if preset == "cp3" else 1e-8) * once.norm()


def test_a_fit_that_is_worse_than_the_last_one_is_not_taken() -> None:
    class Careless(Method[LowRank]):
        format = LowRank

        def _fit(self, tensor: Any, network: Any, generator: Any) -> Fit[LowRank]:
            fit = TruncatedSVD()._fit(tensor, network, generator)
            return Fit(fit.value.map(lambda f: 0 * f), 1.0)

    careless = {"w": LayerPlan("lowrank", "o i -> o i", {"R": 1}, Careless())}
    good = {"w": truncated(matrix(), 1)}
    assert projected({"w": matrix()}, careless, good, careless, 0)["w"] is good["w"]
    other = {"w": LayerPlan("lowrank", "o i -> o i", {"R": 2}, careless["w"].method)}
    assert not projected({"w": matrix()}, other, good, careless, 0)["w"].any(), "of other ranks"


def test_weights_that_are_held_come_back_even_after_an_error() -> None:
    model = single(matrix())
    with pytest.raises(KeyError), holding(model, {"0.weight": matrix(1)}):
        assert torch.equal(model[0].weight, matrix(1))
        raise KeyError
    assert torch.equal(model[0].weight, matrix())


# Digits ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> tuple[ImageData, ImageData]:
    train, test = digits()
    train = train.normalized()
    return train, test.normalized(train.mean, train.std)


def shuffled(images: tuple[ImageData, ImageData]) -> ImageBatches:
    return images[0].batches(64, shuffle=True, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained(images: tuple[ImageData, ImageData]) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for (a, b), stride in zip(pairwise((1, 32, 32, 64)), (1, 2, 1), strict=True):
        layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    tune(model, shuffled(images), epochs=4, lr=3e-3, schedule="cosine")
    return model


ROUNDS = 8
SELECT = {"0": None, "11": None}


@pytest.fixture(scope="module")
def longer(trained: nn.Module, images: tuple[ImageData, ImageData]) -> nn.Module:
    """As long in training as ADMM is."""
    model = deepcopy(trained)
    tune(model, shuffled(images), epochs=ROUNDS, lr=3e-3)
    return model


@pytest.mark.parametrize(("preset", "keep"), [("channel_svd", 0.2), ("tt_conv", 0.15)])
def test_what_is_compressed_after_admm_is_clearly_better_than_after_plain_training(
    trained: nn.Module,
    longer: nn.Module,
    images: tuple[ImageData, ImageData],
    preset: str,
    keep: float,
) -> None:
    chosen = plan(trained, Budget(params=keep), example=torch.zeros(1, 1, 8, 8), preset=preset, select=SELECT)
    model, batches = deepcopy(trained), shuffled(images)

    def learn(model: nn.Module, penalty: Pull, number: int) -> None:
        tune(model, batches, epochs=1, lr=3e-3, penalty=penalty)

    induced = admm_(model, chosen, learn, rho=0.3, growth=1.4, rounds=ROUNDS)
    assert induced.plan == chosen
    assert induced.trace[-1].gap < 0.15 < 0.6 < induced.trace[0].gap
    score = partial(accuracy, batches=images[1].batches(512))
    scores, errors = {}, {}
    for name, one in (("plain", longer), ("admm", model)):
        small = deepcopy(one)
        errors[name] = max(fit.error for fit in apply_(small, chosen))
        reestimate_batchnorm_(small, images[0].batches(512))
        scores[name] = score(small)
    assert scores["admm"] > 0.93 and scores["admm"] > scores["plain"] + 0.05
    assert errors["admm"] < 0.3 * errors["plain"]


# Going on ----------------------------------------------------------------------------------------------


class Killed(Exception):
    """What a power cut would do."""


X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
DATA = ImageData((X.reshape(48, 1, 2, 3) * 40 + 128).clamp(0, 255).byte(), X[:, :4].argmax(1))
TWO = Plan({n: {"weight": LayerPlan("lowrank", "o i -> o i", {"R": 2})} for n in ("1", "4")})


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4))


def run(model: nn.Module, kill: int | None = None, layers: Plan = TWO, **options: Any) -> Induced:
    torch.manual_seed(7)
    order = torch.Generator().manual_seed(5)
    batches = DATA.batches(16, shuffle=True, generator=order)

    def told(latest: Round) -> None:
        if latest.number == kill:
            raise Killed

    def learn(model: nn.Module, penalty: Pull, number: int) -> None:
        tune(model, batches, epochs=1, lr=0.01, penalty=penalty)

    options = {"rounds": 4, "growth": 1.5, "tol": 0.0, **options}
    return admm_(model, layers, learn, generators=[order], progress=told, **options)


def without_time(induced: Induced) -> list[tuple[float, ...]]:
    return [(t.number, t.mu, t.gap, t.moved, t.stored) for t in induced.trace]


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = net()
    expected = run(whole)
    for kill in (0, 1, 3):
        with pytest.raises(Killed):
            run(net(), kill, resume=tmp_path / "run")
    broken = net()
    induced = run(broken, resume=tmp_path / "run")
    assert without_time(induced) == without_time(expected) and induced.plan.layers == TWO.layers
    assert equal(broken, whole)
    before = (tmp_path / "run").read_bytes()
    again = net()
    assert run(again, kill=4, resume=tmp_path / "run") == induced, "a finished run is not repeated"
    assert equal(again, whole) and (tmp_path / "run").read_bytes() == before
    assert run(whole, kill=4, resume=tmp_path / "run") == induced, "also from where it ended"


def test_records_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run(net(), resume=path)
    other = Plan({"1": TWO.layers["1"]})
    with pytest.raises(CheckpointError, match=r"is of another training: layers\.4 was .* and is None"):
        run(net(), resume=path, layers=other)
    with pytest.raises(CheckpointError, match=r"schedule\.mu was 0\.1, and is 0\.2"):
        run(net(), resume=path, rho=0.2)
    with pytest.raises(CheckpointError, match="with other weights at its start"):
        run(net(1), resume=path)
    path.write_text("important")
    with pytest.raises(CheckpointError, match="is no record"):
        run(net(), resume=path)
    assert path.read_text() == "important"


# Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rho": 0.0}, "a strength > 0, got 0.0"),
        ({"growth": 0.5}, "growth >= 1, got 0.5"),
        ({"rounds": 0}, "rounds >= 1, got 0"),
        ({"tol": -1.0}, "tol >= 0, got -1.0"),
    ],
)
def test_options_out_of_range_are_an_error(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=f"needs {problem}"):
        run(net(), **options)


def test_plans_that_do_not_fit_are_an_error_before_training() -> None:
    with pytest.raises(SelectionError, match="the plan names no weight"):
        run(net(), layers=Plan({}))
    with pytest.raises(SelectionError, match=r"the plan names '9\.weight', which the model has not"):
        run(net(), layers=Plan({"9": {"weight": RANK_ONE}}))
    with pytest.raises(LayoutError, match=r"'1\.weight' has 2 axes"):
        run(net(), layers=Plan({"1": {"weight": LayerPlan("lowrank", "o i h w -> o (i h w)", {"R": 1})}}))


def test_weights_that_are_not_finite_are_named() -> None:
    def diverging(model: nn.Module, penalty: Pull, number: int) -> None:
        with torch.no_grad():
            model.get_parameter("4.weight")[0, 0] = torch.nan

    with pytest.raises(DivergedError, match=r"'4\.weight' holds entries that are NaN"):
        admm_(net(), TWO, diverging)
