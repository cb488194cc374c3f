"""Gates change nothing at first, find planted ranks, and are absorbed without a trace."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress import compress, plan, tune
from tenfold.compress.absorb import absorb_gates_
from tenfold.compress.gates import gate_penalty, gate_widths, gated, insert_gates_, proximal, shrink_
from tenfold.compress.latency import LatencyTable
from tenfold.core.errors import BudgetError, OptionError, SelectionError, UnsupportedError
from tenfold.decompose import CPALS, HOOI, TTSVD, TruncatedSVD
from tenfold.nn import FactorizedConv, FactorizedLinear, FactorizedTensor
from tenfold.nn.bonds.gates import GatedTensor
from tenfold.ranks import Budget
from tenfold.ranks.lasso import Lasso

Make = Callable[[], FactorizedConv | FactorizedLinear]

MATRIX, CP3 = "o i -> o i", "o i h w -> o i (h w)"
TRAIN = "(o0=4 o1=3) (i0=2 i1=4) h w -> (h w) (o0 i0) (o1 i1)"


def conv(format: str, layout: str, rank: Any, **options: Any) -> FactorizedConv:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"format": format, "layout": layout, "rank": rank, "padding": 1} | options
    return FactorizedConv(8, 12, (3, 3), **settings, dtype=torch.float64)


LAYERS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "linear": (lambda: FactorizedLinear(8, 12, rank=5, dtype=torch.float64), (7, 8)),
    "tt_matrix": (
        lambda: FactorizedLinear(
            8,
            12,
            rank=5,
            format="tt",
            layout="(o0=4 o1=3) (i0=2 i1=4) -> (o0 i0) (o1 i1)",
            dtype=torch.float64,
        ),
        (7, 8),
    ),
    "cp3": (lambda: conv("cp", CP3, 5, stride=2), (2, 8, 6, 6)),
    "tucker2": (lambda: conv("tucker", CP3, (4, 5, None)), (2, 8, 6, 6)),
    "grouped": (
        lambda: conv("tucker", "(g=2 o) i h w -> (g o) i (h w)", (4, 3, None), groups=2),
        (2, 8, 6, 6),
    ),
    "tt_conv": (lambda: conv("tt", TRAIN, (5, 4)), (2, 8, 6, 6)),
}


def model_of(name: str) -> tuple[nn.Sequential, Tensor]:
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    return nn.Sequential(make()), torch.randn(shape, dtype=torch.float64)


def opened(model: nn.Module, seed: int = 0) -> None:
    """Gates of any sign, and the first of each bond shut."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in gated(model).values():
            for gate in weight.gates.values():
                gate.copy_(torch.randn_like(gate))
                gate[0] = 0


@pytest.mark.parametrize("name", LAYERS)
def test_open_gates_change_nothing_and_keep_the_parameters(name: str) -> None:
    model, x = model_of(name)
    before, parameters = model(x), {id(p) for p in model.parameters()}
    assert insert_gates_(model) == ("0.weight",)
    torch.testing.assert_close(model(x), before)
    assert parameters < {id(p) for p in model.parameters()}
    again = model[0].weight
    assert insert_gates_(model) == ("0.weight",) and model[0].weight is again


@pytest.mark.parametrize("name", LAYERS)
def test_gated_layers_equal_their_dense_twins_with_all_gradients(name: str) -> None:
    model, x = model_of(name)
    insert_gates_(model)
    opened(model)
    weight = model[0].weight
    outputs, expected = model(x), model[0].to_dense()(x)
    torch.testing.assert_close(outputs, expected)
    ours = torch.autograd.grad(outputs.square().sum(), list(weight.parameters()))
    dense = weight.dense()
    at = dense.detach().requires_grad_()
    options = model[0].options if isinstance(model[0], FactorizedConv) else None
    if options is None:
        y = nn.functional.linear(x, at, model[0].bias)
    else:
        y = nn.functional.conv2d(x, at, model[0].bias, options.stride, options.padding, 1, options.groups)
    (slope,) = torch.autograd.grad(y.square().sum(), at)
    theirs = torch.autograd.grad(dense, list(weight.parameters()), slope)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_a_width_is_the_norm_of_what_the_rank_makes_alone(name: str) -> None:
    model, _ = model_of(name)
    insert_gates_(model)
    opened(model)
    weight = model[0].weight
    for bond, widths in weight.widths().items():
        kept = weight.gates[bond].detach().clone()
        for r, width in enumerate(widths):
            weight.gates[bond].data = torch.zeros_like(kept).index_fill(0, torch.tensor(r), 1.0) * kept
            torch.testing.assert_close(weight.dense().norm() / weight.scale, width)
        weight.gates[bond].data = kept


def test_no_rescaling_changes_the_widths_or_the_penalty() -> None:
    model, _ = model_of("cp3")
    insert_gates_(model)
    before, penalty = gate_widths(model), gate_penalty(model)
    weight = model[0].weight
    with torch.no_grad():
        weight.gates["R"] /= 10
        for factor, times in zip(weight.plain.factors(), (2.0, 5.0, 1.0), strict=True):
            factor *= times
    assert gate_widths(model)["0.weight"]["R"] == pytest.approx(before["0.weight"]["R"])
    torch.testing.assert_close(gate_penalty(model), penalty)


def test_the_penalty_of_low_rank_is_the_nuclear_norm_in_its_singular_basis() -> None:
    torch.manual_seed(0)
    dense = nn.Linear(8, 12, dtype=torch.float64)
    model = nn.Sequential(FactorizedLinear.from_linear(dense, TruncatedSVD(), 8))
    insert_gates_(model)
    s = torch.linalg.svdvals(dense.weight.detach())
    torch.testing.assert_close(gate_penalty(model).detach(), s.mean() / s.norm())
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    with torch.no_grad():
        left, right = model[0].weight.value.factors
        model[0].weight.set_(model[0].weight.value.with_factors([left @ rotation, rotation.T @ right]))
    assert gate_penalty(model) > s.mean() / s.norm()


@pytest.mark.parametrize("name", LAYERS)
def test_penalty_has_the_gradient_of_finite_differences_and_is_finite_at_shut_gates(name: str) -> None:
    model, _ = model_of(name)
    insert_gates_(model)
    opened(model)
    parameters = list(model[0].weight.parameters())
    slopes = torch.autograd.grad(gate_penalty(model), parameters)
    assert all(slope.isfinite().all() for slope in slopes)
    for p, slope in zip(parameters, slopes, strict=True):
        step = 1e-6 * torch.randn_like(p)
        step[p == 0] = 0
        values = []
        for sign in (1, -1):
            p.data += sign * step
            values.append(gate_penalty(model).item())
            p.data -= sign * step
        assert (values[0] - values[1]) / 2 == pytest.approx((slope * step).sum().item(), rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_shrinking_is_soft_thresholding_of_one_bond_after_the_other(name: str) -> None:
    model, _ = model_of(name)
    insert_gates_(model)
    opened(model)
    weight, amount = model[0].weight, 0.2
    first = next(iter(weight.gates))
    before = weight.width(first).detach()
    gates = weight.gates[first].detach().clone()
    shrink_(model, amount)
    after = gates.abs() * before.clamp_min(amount).sub(amount) / before.where(before > 0, 1)
    torch.testing.assert_close(weight.gates[first].detach().abs(), after)
    assert (weight.gates[first].sign() * gates.sign() >= 0).all()


def test_gates_that_would_all_be_shut_leave_the_widest_and_frozen_ones_stay() -> None:
    model, _ = model_of("tucker2")
    insert_gates_(model)
    widest = {b: int(w.argmax()) for b, w in model[0].weight.widths().items()}
    shrink_(model, 1e9)
    assert {b: gate.nonzero().tolist() for b, gate in model[0].weight.gates.items()} == {
        b: [[k]] for b, k in widest.items()
    }
    frozen, _ = model_of("tucker2")
    frozen.requires_grad_(False)
    insert_gates_(frozen)
    shrink_(frozen, 1e9)
    assert all((gate == 1).all() and not gate.requires_grad for gate in frozen[0].weight.gates.values())


@pytest.mark.parametrize("name", LAYERS)
def test_absorbed_gates_leave_the_same_function_and_fewer_ranks(name: str) -> None:
    model, x = model_of(name)
    insert_gates_(model)
    opened(model)
    before, ranks = model(x), model[0].weight.ranks
    left = absorb_gates_(model)["0.weight"]
    assert left == model[0].weight.ranks and type(model[0].weight) is FactorizedTensor
    assert all(left[b] <= n - 1 for b, n in ranks.items())
    torch.testing.assert_close(model(x), before)
    assert left == model[0].weight.network.clipped().ranks, "no bond is larger than it can carry"
    assert not any("gates" in name for name in model.state_dict())


def test_bonds_that_lose_their_partners_are_cut_to_what_they_carry() -> None:
    torch.manual_seed(0)
    layer = FactorizedConv(8, 12, (1, 1), rank=(4, 4, None), format="tucker", layout=CP3, dtype=torch.float64)
    model, x = nn.Sequential(layer), torch.randn(2, 8, 4, 4, dtype=torch.float64)
    insert_gates_(model)
    with torch.no_grad():
        model[0].weight.gates["R1"][1:] = 0
    before = model(x)
    assert absorb_gates_(model) == {"0.weight": {"R0": 1, "R1": 1}}
    torch.testing.assert_close(model(x), before)


def several() -> tuple[nn.Sequential, Tensor]:
    """Two convolutions and a linear layer, of ranks that pay."""
    torch.manual_seed(2)
    model = nn.Sequential(
        FactorizedConv(3, 24, (3, 3), rank=9, format="cp", layout=CP3),
        nn.ReLU(),
        FactorizedConv(24, 16, (3, 3), rank=(10, 12, None), format="tucker", layout=CP3),
        nn.Flatten(),
        FactorizedLinear(64, 30, rank=18),
    )
    return model, torch.randn(4, 3, 6, 6)


DENSE = 24 * 27 + 24 * 16 * 9 + 64 * 30


@pytest.mark.parametrize("keep", [0.1, 0.2, 0.35])
def test_a_budget_shuts_the_narrowest_gates_of_all_layers(keep: float) -> None:
    model, x = several()
    insert_gates_(model)
    widths = gate_widths(model)
    ranks = absorb_gates_(model, Budget(params=keep, floor=0))
    stored = sum(model[k].weight.numel() for k in (0, 2, 4))
    assert 0.7 * keep * DENSE < stored <= keep * DENSE
    shut = [w for n, bs in widths.items() for b, ws in bs.items() for w in sorted(ws)[: -ranks[n][b]]]
    left = [
        min(sorted(ws)[-ranks[n][b] :]) for n, bs in widths.items() for b, ws in bs.items() if ranks[n][b] > 1
    ]
    assert max(shut) <= min(left)
    assert model(x).shape == (4, 30)


@pytest.mark.parametrize("unit", ["flops", "bytes", "latency"])
def test_budgets_of_gates_have_every_unit(unit: str) -> None:
    model, _ = several()
    insert_gates_(model)
    table = LatencyTable(
        clock=lambda models, x: {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}
    )
    absorb_gates_(model, Budget(**{unit: 0.3}), latencies=table)
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) < 0.6 * DENSE


def test_a_layer_whose_factors_do_not_pay_becomes_dense() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(FactorizedLinear(30, 20, rank=15), FactorizedLinear(20, 20, rank=4))
    x = torch.randn(5, 30)
    insert_gates_(model)
    before = model(x)
    assert absorb_gates_(model, Budget(params=1.0)) == {"0.weight": None, "1.weight": {"R": 4}}
    assert type(model[0]) is nn.Linear
    torch.testing.assert_close(model(x), before)


def test_a_budget_that_no_gates_meet_changes_nothing() -> None:
    model, _ = several()
    insert_gates_(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BudgetError, match="the smallest plan stores"):
        absorb_gates_(model, Budget(params=0.01))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_shared_factors_share_their_gates_and_stay_shared() -> None:
    torch.manual_seed(0)
    first, second = (FactorizedLinear(12, 12, rank=5) for _ in "ab")
    second.weight = first.weight
    model, x = nn.Sequential(first, second, first), torch.randn(3, 12)
    assert insert_gates_(model) == ("0.weight",)
    assert model[0].weight is model[1].weight
    opened(model)
    before = model(x)
    assert absorb_gates_(model) == {"0.weight": {"R": 4}}
    assert model[0].weight is model[1].weight and model[0] is model[2] and model[0] is not model[1]
    torch.testing.assert_close(model(x), before)


def test_absorbing_keeps_modes_frozen_parameters_and_dtype() -> None:
    model = nn.Sequential(FactorizedLinear(12, 8, rank=3, dtype=torch.bfloat16)).eval()
    model[0].weight.requires_grad_(False)
    insert_gates_(model)
    assert gate_widths(model)["0.weight"]["R"][0] > 0
    absorb_gates_(model)
    assert not model[0].training and not model[0].weight.requires_grad and model[0].bias.requires_grad
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_gated_models_are_copied_and_their_states_loaded() -> None:
    model, x = several()
    insert_gates_(model)
    opened(model)
    copy, (other, _) = deepcopy(model), several()
    insert_gates_(other)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy(x), model(x))
    torch.testing.assert_close(other(x), model(x))
    shrink_(copy, 0.1)
    assert gate_widths(copy) != gate_widths(model) == gate_widths(other)


def test_tune_with_a_proximal_optimizer_shuts_gates_and_with_a_penalty_narrows_them() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 10)
    data = list(zip(inputs.split(32), (inputs[:, 0] > 0).long().split(32), strict=True))
    made = [nn.Sequential(FactorizedLinear(10, 16, rank=8), nn.ReLU(), nn.Linear(16, 2)) for _ in "ab"]
    for model in made:
        insert_gates_(model)
    before = gate_widths(made[1])["0.weight"]["R"]
    tune(made[0], data, epochs=8, lr=1e-2, optimizer=proximal(made[0], 1.0))
    tune(made[1], data, epochs=8, lr=1e-2, penalty=lambda m: 3 * gate_penalty(m))
    assert sum(w > 0 for w in gate_widths(made[0])["0.weight"]["R"]) < 8
    assert sum(gate_widths(made[1])["0.weight"]["R"]) < 0.8 * sum(before)
    for model in made:
        expected = model(inputs)
        absorb_gates_(model)
        torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-5)
        assert (expected.argmax(1) == (inputs[:, 0] > 0)).float().mean() > 0.9


def test_the_rule_gives_a_plan_for_the_dense_model_the_ranks_of_the_gates() -> None:
    torch.manual_seed(0)
    dense, x = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 20)), torch.randn(4, 30)
    small = compress(dense, Budget(params=0.7), example=x, preset="weight_svd").model
    insert_gates_(small)
    opened(small)
    rule = Lasso(gate_widths(small))
    found = plan(dense, Budget(params=0.4), example=x, preset="weight_svd", rule=rule)
    ranks = {f"{m}.weight": layers["weight"].ranks for m, layers in found.layers.items()}
    assert ranks == {n: r for n, r in absorb_gates_(small, Budget(params=0.4)).items() if r}


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.Sequential(FactorizedLinear(4, 4, rank=1))])
def test_a_model_without_gates_is_refused(model: nn.Module) -> None:
    for function in (
        gate_widths,
        gate_penalty,
        absorb_gates_,
        lambda m: shrink_(m, 0.1),
        lambda m: proximal(m, 0.1),
    ):
        with pytest.raises(SelectionError, match="no factorized layer with gates"):
            function(model)
    with pytest.raises(SelectionError, match="no factorized layer"):
        insert_gates_(nn.Linear(3, 3))


def test_a_single_layer_cannot_be_replaced_in_place() -> None:
    layer = FactorizedLinear(4, 4, rank=2)
    assert insert_gates_(layer) == ("weight",)
    with pytest.raises(UnsupportedError, match="single layer"):
        absorb_gates_(layer)
    assert isinstance(layer.weight, GatedTensor)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "much", True])
def test_strengths_out_of_range_are_refused(value: Any) -> None:
    model, _ = several()
    insert_gates_(model)
    with pytest.raises(OptionError, match="an amount of"):
        shrink_(model, value)
    with pytest.raises(OptionError, match="a strength of"):
        proximal(model, value)


# Planted ranks --------------------------------------------------------------------------------------------

PLANTED: dict[str, tuple[Any, str, Any, dict[str, int]]] = {
    "linear": (TruncatedSVD(), MATRIX, 8, {"R": 3}),
    "cp3": (CPALS(max_steps=200), CP3, 6, {"R": 3}),
    "tucker2": (HOOI(), CP3, (6, 6, None), {"R0": 3, "R1": 2}),
    "tt_conv": (TTSVD(), TRAIN, (6, 6), {"R1": 2, "R2": 3}),
}


def planted(name: str, seed: int) -> tuple[nn.Module, nn.Sequential]:
    """A teacher of the planted ranks, and a student of larger ones that is fitted to a noisy teacher."""
    method, layout, ranks, truth = PLANTED[name]
    torch.manual_seed(seed)
    given: Any = (*truth.values(), None) if name == "tucker2" else tuple(truth.values())
    if name == "linear":
        teacher = FactorizedLinear(12, 16, rank=given).to_dense()
    else:
        form = {"cp3": "cp", "tucker2": "tucker", "tt_conv": "tt"}[name]
        teacher = FactorizedConv(8, 12, (3, 3), rank=given, format=form, layout=layout, padding=1).to_dense()
    noisy = deepcopy(teacher)
    weight = noisy.get_parameter("weight")
    weight.data += 0.2 * weight.std() * torch.randn_like(weight)
    kind = FactorizedLinear if name == "linear" else FactorizedConv
    return teacher.requires_grad_(False), nn.Sequential(kind.decomposed(noisy, method, ranks, layout))


def batches(teacher: nn.Module, count: int) -> list[tuple[Tensor, Tensor]]:
    linear = isinstance(teacher, nn.Linear)
    shape = (64, 12) if linear else (8, 8, 5, 5)
    inputs = [torch.randn(shape) for _ in range(count)]
    return [(x, teacher(x)) for x in inputs]


@pytest.mark.parametrize(
    ("name", "strength"), [("linear", 0.1), ("linear", 1.0), ("cp3", 0.4), ("tucker2", 0.4), ("tt_conv", 0.4)]
)
def test_the_gates_find_planted_ranks_and_the_loss_goes_to_zero(name: str, strength: float) -> None:
    teacher, student = planted(name, seed=0)
    insert_gates_(student)
    optimizer = proximal(student, strength)(student.parameters(), lr=1e-2)
    for x, y in batches(teacher, 25) * 8:
        loss = (student(x) - y).square().mean() / y.var()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = {b: sum(w > 0 for w in ws) for b, ws in gate_widths(student)["0.weight"].items()}
    assert found == PLANTED[name][3]
    assert loss.item() < 1e-2
    ((x, y),) = batches(teacher, 1)
    before = student(x).detach()
    assert absorb_gates_(student) == {"0.weight": found}
    torch.testing.assert_close(student(x), before, rtol=1e-4, atol=1e-4)
