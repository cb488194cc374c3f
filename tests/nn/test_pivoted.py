"""Matrices of low rank that are stored without what the choice of their factors leaves free."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tenfold import Budget, Lagrangian, apply_, collect, find_sites, load, plan, save
from tenfold.compress import (
    InputCovariance,
    LayerPlan,
    Plan,
    absorb_gates_,
    compress,
    correct_,
    insert_gates_,
    pivot_,
    unpivot_,
)
from tenfold.core.errors import CheckpointError, RankError, UnsupportedError
from tenfold.decompose import TruncatedSVD
from tenfold.formats import CP, LowRank
from tenfold.nn import FactorizedEmbedding, FactorizedLinear, FactorizedTensor, PivotedTensor, tensor_dropout
from tenfold.nn.tensor.pivoted import least, pivoted
from tenfold.ranks import Candidate
from tenfold.ranks.predicted import predicted

PRESETS = ("weight_svd", "channel_svd", "spatial_svd")


def matrix(m: int, n: int, rank: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> LowRank:
    g = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(m, rank, generator=g, dtype=dtype), torch.randn(rank, n, generator=g, dtype=dtype)
    )


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, stride=2), nn.ReLU(),
        nn.Conv2d(16, 20, 1), nn.Flatten(), nn.Linear(180, 12),
    ).eval()  # fmt: skip


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 8, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("m", "n", "rank"), [(9, 6, 4), (6, 9, 6), (9, 6, 6), (7, 7, 1), (5, 5, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_weight_is_that_of_the_factors(m: int, n: int, rank: int, dtype: torch.dtype) -> None:
    value = matrix(m, n, rank, dtype=dtype)
    tensor = PivotedTensor(value)
    assert torch.allclose(tensor.dense(), value.dense(), atol=1e-12)
    assert tensor.shape == (m, n) and tensor.ranks == {"R": rank}
    assert sum(p.numel() for p in tensor.parameters()) == rank * (m + n - rank)
    assert tensor.numel() == rank * (m + n - rank) + m


@pytest.mark.parametrize("lost", [1, 3])
def test_a_matrix_of_less_rank_and_a_zero_one(lost: int) -> None:
    value = matrix(9, 6, 4)
    value.left[:, :lost] = value.left[:, -lost:]
    assert torch.allclose(PivotedTensor(value).dense(), value.dense(), atol=1e-12)
    zero = LowRank(torch.zeros(9, 4), torch.randn(4, 6))
    assert torch.equal(PivotedTensor(zero).dense(), torch.zeros(9, 6))


def test_entries_stay_small_where_the_first_rows_are_nearly_alike() -> None:
    value = matrix(200, 50, 20)
    value.left[1:40] = value.left[0] + 1e-9 * value.left[1:40]
    _, rest, _ = pivoted(value.left, value.right)
    assert rest.abs().max() < 10
    float32 = LowRank(value.left.float(), value.right.float())
    apart = PivotedTensor(float32).dense() - value.dense().float()
    assert apart.norm() < 1e-6 * value.dense().norm()


def test_half_precision_loses_what_its_digits_do() -> None:
    value = matrix(64, 48, 16)
    half = LowRank(value.left.bfloat16(), value.right.bfloat16())
    tensor = PivotedTensor(half)
    assert tensor.dtype == torch.bfloat16
    assert (tensor.dense().double() - value.dense()).norm() < 0.03 * value.dense().norm()


def test_what_has_no_two_factors_is_refused() -> None:
    with pytest.raises(RankError, match="cannot be pivoted"):
        PivotedTensor(CP.random((4, 5), 2, like=torch.zeros(())))
    with pytest.raises(RankError, match="no more than its rows"):
        PivotedTensor(matrix(3, 9, 4))
    with pytest.raises(UnsupportedError, match="is pivoted and has no slices"):
        plan(net(), Budget(params=0.5), example=images(), preset="pivoted_channel_svd/2")


@pytest.mark.parametrize("preset", PRESETS)
def test_layers_give_what_plain_factors_of_these_ranks_give(preset: str) -> None:
    small = compress(net(), Budget(params=0.5), example=images(), preset=f"pivoted_{preset}").model
    found = Plan.of(small)
    assert found.layers and any(ps["weight"].pivoted for ps in found.layers.values())
    plain = net()
    apply_(plain, Plan({m: {p: replace(e) for p, e in ps.items()} for m, ps in found.layers.items()}))
    assert not any(isinstance(m, PivotedTensor) for m in plain.modules())
    assert torch.allclose(small(images()), plain(images()), atol=1e-5)


def replace(layer):  # type: ignore[no-untyped-def]
    return type(layer)(layer.format, layer.layout, layer.ranks, example=layer.example)


@pytest.mark.parametrize("rule", [None, Lagrangian()])
def test_the_budget_counts_what_is_stored_and_buys_higher_ranks(rule: Lagrangian | None) -> None:
    dense, x = net(), images()
    whole = sum(p.numel() for p in dense.parameters() if p.ndim > 1)
    kinds = ("channel_svd", "weight_svd"), ("pivoted_channel_svd", "pivoted_weight_svd")
    plans = [plan(dense, Budget(params=0.5), example=x, preset=kind, rule=rule) for kind in kinds]
    for found in plans:
        shapes = {m: tuple(dense.get_submodule(m).weight.shape) for m in found.layers}
        counted = sum(ps["weight"].numel(shapes[m]) for m, ps in found.layers.items())
        left = sum(dense.get_parameter(n).numel() for n in found.dense)
        assert 0.45 * whole < counted + left <= 0.5 * whole
    small = copy.deepcopy(dense)
    fits = apply_(small, plans[1])
    for fit in fits:
        weight = small.get_submodule(fit.name.removesuffix(".weight")).weight
        assert fit.stored == weight.numel() == fit.plan.numel(fit.shape)
    plain, higher = (sum(sum(ps["weight"].ranks.values()) for ps in p.layers.values()) for p in plans)
    assert higher > plain


def test_what_costs_as_much_as_the_weight_stays_dense() -> None:
    found = plan(
        net(), Budget(params=0.999), example=images(), preset="pivoted_weight_svd", rule=Lagrangian()
    )
    assert found.layers and found.dense
    for module, ps in found.layers.items():
        shape = tuple(net().get_parameter(f"{module}.weight").shape)
        assert ps["weight"].numel(shape) < torch.Size(shape).numel()


@pytest.mark.parametrize("shape", [(12,), (1, 12), (0, 12), (2, 1, 12), (50, 12), (3, 0, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_few_and_many_inputs_give_the_same(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = FactorizedLinear.from_linear(nn.Linear(12, 9, bias), TruncatedSVD(), 6)
    layer.weight = PivotedTensor.of(layer.weight)
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    wanted = nn.functional.linear(x, layer.weight.dense(), layer.bias)
    assert y.shape == wanted.shape and torch.allclose(y, wanted, atol=1e-6)
    slopes = (torch.autograd.grad(z.square().sum(), [x, *layer.parameters()]) for z in (y, wanted))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*slopes, strict=True))


def test_training_moves_every_parameter_and_keeps_the_picked_rows() -> None:
    torch.manual_seed(0)
    layer = FactorizedLinear.from_linear(nn.Linear(12, 9), TruncatedSVD(), 4)
    layer.weight = PivotedTensor.of(layer.weight)
    before = copy.deepcopy(layer)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    layer(torch.randn(20, 12)).square().sum().backward()
    optimizer.step()
    for (name, p), old in zip(layer.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(p, old), name
    picked = layer.weight.rows.argsort()[:4]
    assert torch.allclose(layer.weight.dense()[picked], layer.weight.right.reshape(4, 12))


def test_gradients_are_those_of_numbers() -> None:
    tensor = PivotedTensor(matrix(5, 4, 2))
    x = torch.randn(3, 4, dtype=torch.float64)

    def outputs(rest: Tensor, right: Tensor) -> Tensor:
        return torch.func.functional_call(Product(tensor), {"weight.rest": rest, "weight.right": right}, (x,))

    free = [p.detach().clone().requires_grad_() for p in (tensor.rest, tensor.right)]
    assert torch.autograd.gradcheck(outputs, free)


class Product(nn.Module):
    def __init__(self, weight: FactorizedTensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.dense().mT


def test_new_values_replace_rows_and_factors() -> None:
    tensor, other = PivotedTensor(matrix(9, 6, 4)), matrix(9, 6, 4, seed=1)
    parameters = list(tensor.parameters())
    tensor.set_(other)
    assert torch.allclose(tensor.dense(), other.dense(), atol=1e-12)
    assert all(a is b for a, b in zip(parameters, tensor.parameters(), strict=True))


@pytest.mark.parametrize("preset", PRESETS)
def test_checkpoints_and_plans_come_back(preset: str, tmp_path: Path) -> None:
    result = compress(net(), Budget(params=0.5), example=images(), preset=f"pivoted_{preset}")
    assert Plan.from_json(result.plan.to_json()).layers == result.plan.layers
    save(result.model, tmp_path / "small", result.plan)
    again = load(net(), tmp_path / "small")
    assert any(isinstance(m, PivotedTensor) for m in again.modules())
    assert torch.equal(again(images()), result.model(images()))


def test_copies_pickles_and_states_keep_the_rows() -> None:
    small = compress(net(), Budget(params=0.5), example=images(), preset="pivoted_weight_svd").model
    wanted = small(images())
    assert torch.equal(copy.deepcopy(small)(images()), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(small))(images()), wanted)
    other = compress(net().requires_grad_(False), Budget(params=0.5), example=images(),
                     preset="pivoted_weight_svd").model  # fmt: skip
    assert not any(p.requires_grad for name, p in other.named_parameters() if "weight" in name)
    for module in other.modules():
        if isinstance(module, PivotedTensor):
            turned = module.value.map(lambda f: f.flip(0))
            module.set_(turned)
    assert not torch.equal(other(images()), wanted)
    other.load_state_dict(small.state_dict())
    assert torch.equal(other(images()), wanted)


def test_gates_act_on_the_bond_and_what_they_leave_is_pivoted() -> None:
    small = compress(net(), Budget(params=0.5), example=images(), preset="pivoted_channel_svd").model
    wanted = small(images())
    names = insert_gates_(small)
    assert torch.allclose(small(images()), wanted, atol=1e-6)
    with torch.no_grad():
        for name in names:
            small.get_parameter(f"{name}.gates.R")[-2:] = 0
    closed, before = small(images()), {name: small.get_submodule(name).ranks["R"] for name in names}
    left = absorb_gates_(small)
    for name in names:
        weight = small.get_submodule(name)
        assert type(weight) is PivotedTensor
        assert left[name] == weight.ranks == {"R": before[name] - 2}
    assert torch.allclose(small(images()), closed, atol=1e-5)


def test_dropout_of_ranks_acts_in_training_alone() -> None:
    layer = FactorizedLinear.from_linear(nn.Linear(12, 9), TruncatedSVD(), 6)
    layer.weight = PivotedTensor.of(layer.weight)
    x = torch.randn(5, 12)
    wanted = layer(x)
    tensor_dropout(layer, 0.5)
    torch.manual_seed(0)
    assert not torch.allclose(layer(x), wanted)
    assert torch.allclose(layer.eval()(x), wanted, atol=1e-6)


@pytest.mark.parametrize("preset", ["pivoted_spatial_svd", "pivoted_weight_svd"])
def test_exported_models_give_the_same_for_any_number_of_samples(preset: str) -> None:
    small = compress(net(), Budget(params=0.5), example=images(), preset=preset).model
    batch = torch.export.Dim("batch", min=2, max=512)
    exported = torch.export.export(small, (images(),), dynamic_shapes=({0: batch},)).module()
    for count in (2, 4, 300):
        assert torch.allclose(exported(images(count)), small(images(count)), atol=1e-5)


def test_correction_fits_pivoted_factors_anew() -> None:
    dense, batches = net(), [images(50, seed=k) for k in range(6)]
    stats = collect(dense, batches, find_sites(dense, batches[0]), want=InputCovariance.needs)
    found = plan(dense, Budget(params=0.4), example=batches[0], preset="pivoted_channel_svd",
                 metric=InputCovariance(), statistics=stats)  # fmt: skip
    small = copy.deepcopy(dense)
    apply_(small, found, statistics=stats)
    fresh = images(200, seed=9)
    with torch.no_grad():
        before = (small(fresh) - dense(fresh)).norm()
        correct_(small, dense, found, batches, statistics=stats)
        assert (small(fresh) - dense(fresh)).norm() < before
    assert all(isinstance(m.weight, PivotedTensor) for m in small if hasattr(m, "program"))


def test_models_change_between_plain_and_pivoted_factors() -> None:
    small = compress(net(), Budget(params=0.5), example=images(), preset="pivoted_weight_svd").model
    wanted, stored = small(images()), {k: v.shape for k, v in small.state_dict().items()}
    names = unpivot_(small)
    assert names and not any(isinstance(m, PivotedTensor) for m in small.modules())
    assert torch.allclose(small(images()), wanted, atol=1e-5)
    weight = small.get_submodule(names[0])
    left, right = (f.flatten(1) for f in weight.factors())
    assert left.norm().item() == pytest.approx(right.norm().item(), rel=1e-4)
    assert pivot_(small) == names and pivot_(small) == ()
    assert {k: v.shape for k, v in small.state_dict().items()} == stored
    assert torch.allclose(small(images()), wanted, atol=1e-5)


def test_tied_layers_share_what_is_pivoted_and_small_ranks_stay_plain() -> None:
    first = FactorizedLinear.from_linear(nn.Linear(20, 20), TruncatedSVD(), 8)
    second = FactorizedLinear.from_linear(nn.Linear(20, 20), TruncatedSVD(), 8)
    second.weight = first.weight
    dense, full = nn.Linear(40, 20), FactorizedLinear(40, 20, rank=20)
    wide = FactorizedLinear.from_dense(
        dense, matrix(20, 40, 30), FactorizedLinear.bound(dense, "o i -> o i"), None
    )
    thin = FactorizedLinear.from_linear(nn.Linear(20, 20), TruncatedSVD(), 4)
    model = nn.Sequential(first, second, thin, wide, full)
    assert pivot_(model) == ("0.weight", "4.weight")
    assert full.weight.rest.shape == (0, 20) and full.weight.numel() == 20 * 40 + 20
    assert first.weight is second.weight and type(thin.weight) is FactorizedTensor
    rows = nn.Sequential(FactorizedEmbedding(50, 40, rank=30))
    assert pivot_(rows) == ()


def test_bytes_count_the_indices_and_parts_of_the_network_are_priced_one_by_one() -> None:
    candidate = Candidate("fc", LowRank, (20, 30), (), lambda: torch.eye(20, 30), itemsize=2, stored=least)
    assert candidate.cost({"R": 10}) == 10 * (20 + 30 - 10) + 20
    assert candidate.cost({"R": 10}, "bytes") == 2 * candidate.cost({"R": 10})
    points = predicted(candidate, Budget(params=0.9))
    assert [cost for cost, _, _, _ in points] == [min(50 * r, r * (50 - r) + 20) for r in range(1, 19)]


@pytest.mark.parametrize("rows", [[0, 0, 1], [0, 1, 3], [0, 1], [-1, 0, 1]])
def test_rows_that_are_no_order_are_refused(rows: list[int]) -> None:
    tensor = PivotedTensor(matrix(3, 4, 2))
    state = tensor.state_dict() | {"rows": torch.tensor(rows, dtype=torch.int32)}
    with pytest.raises(RuntimeError, match="where each of 3 rows stands"):
        tensor.load_state_dict(state)


@pytest.mark.parametrize("change", [{"pivoted": "yes"}, {"pivoted": True, "format": "cp"}])
def test_plans_that_pivot_something_else_are_refused(change: dict[str, object]) -> None:
    data = {"format": "lowrank", "layout": "o i -> o i", "ranks": {"R": 2}}
    assert not LayerPlan.from_dict(data).pivoted and LayerPlan.from_dict(data | {"pivoted": True}).pivoted
    with pytest.raises(CheckpointError, match="pivoted="):
        LayerPlan.from_dict(data | change)
