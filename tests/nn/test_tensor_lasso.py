"""The lasso counts each gate once, and takes out just the ranks whose gates are shut."""

import copy
from typing import Any

import pytest
import torch
from bond_cases import FEW, LAYERS, case, linear
from torch import Tensor, nn

from tenfold.compress import to_dense_
from tenfold.core.errors import OptionError, SelectionError, UnsupportedError
from tenfold.formats import formats
from tenfold.nn import (
    TRL,
    ComplexPairs,
    FactorizedLinear,
    FactorizedLSTM,
    FactorizedTensor,
    GatedTensor,
    TensorizedTensor,
    in_pairs_,
    joint_random,
    tensor_dropout,
    tensor_lasso,
)
from tenfold.nn.bonds.dropout import DroppedTensor
from tenfold.nn.tensor.shared_factors import SharingTensor
from tenfold.testing.layers import check_copies, check_dense_twin, check_export, check_state_dict


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Every case compiles the same functions; torch stops after eight."""
    torch.compiler.reset()


def shut_one(weight: GatedTensor, value: float = 0.0) -> None:
    """Gates of any sign; one on each bond of several ranks at `value`."""
    torch.manual_seed(2)
    with torch.no_grad():
        for gate in weight.gates.values():
            gate.copy_(torch.randn_like(gate).sign() * (0.5 + torch.rand_like(gate)))
            if len(gate) > 1:
                gate[1] = value


@pytest.mark.parametrize("name", LAYERS)
def test_gates_of_one_change_nothing_and_each_counts_once(name: str) -> None:
    layer, x = case(name)
    before, parameters = layer(x), list(layer.parameters())
    lasso = tensor_lasso(layer, penalty=0.1)
    torch.testing.assert_close(layer(x), before)
    assert [p for p in layer.parameters() if any(p is q for q in parameters)] == parameters
    count = sum(layer.weight.ranks.values())
    assert lasso.loss.item() == pytest.approx(0.1 * count)
    (slopes,) = {
        tuple(g.unique().tolist()) for g in torch.autograd.grad(lasso.loss, layer.weight.gates.values())
    }
    assert slopes == (pytest.approx(0.1),)


@pytest.mark.parametrize("name", LAYERS)
def test_every_gate_acts_on_the_output_and_a_negative_one_too(name: str) -> None:
    layer, x = case(name)
    tensor_lasso(layer)
    shut_one(layer.weight, -0.5)
    y = layer(x)
    for gate, slope in zip(
        layer.weight.gates.values(),
        torch.autograd.grad(y.square().sum(), layer.weight.gates.values()),
        strict=True,
    ):
        assert (slope != 0).all()
        kept = gate.detach().clone()
        gate.data[-1] = -gate.data[-1]
        assert not torch.allclose(layer(x), y)
        gate.data.copy_(kept)
    gates = list(layer.weight.gates.values())
    assert tensor_lasso(layer, penalty=2.0).loss.item() == pytest.approx(
        2 * sum(g.abs().sum().item() for g in gates)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_shrinking_removes_shut_ranks_and_not_a_digit_of_the_output(name: str) -> None:
    layer, x = case(name)
    model = nn.Sequential(layer)
    lasso = tensor_lasso(model)
    shut_one(layer.weight)
    before, ranks, stored = model(x), layer.weight.ranks, layer.weight.numel()
    open_ranks = lasso.ranks()["0.weight"]
    assert open_ranks == {b: n - (n > 1) for b, n in ranks.items()}
    assert lasso.shrink_() is model
    small = model[0]
    assert type(small) is type(layer) and type(small.weight) is FactorizedTensor
    assert all(small.weight.ranks[b] <= n for b, n in open_ranks.items())
    assert small.weight.numel() < stored == layer.weight.numel()
    torch.testing.assert_close(model(x), before)
    check_dense_twin(small, x)
    with pytest.raises(SelectionError, match="no factorized layer with gates"):
        lasso.loss  # noqa: B018


@pytest.mark.parametrize("format", list(formats))
def test_shrinking_changes_the_weight_by_what_the_narrow_gates_let_through(format: str) -> None:
    layer = linear(format)
    lasso = tensor_lasso(layer, threshold=0.01)
    shut_one(layer.weight, -0.01)
    before = layer.weight.dense()
    with torch.no_grad():
        for gate in layer.weight.gates.values():
            gate[gate.abs() <= 0.01] = 0
    expected = layer.weight.dense()
    shut_one(layer.weight, -0.01)
    small = lasso.shrink_()
    assert isinstance(small, FactorizedLinear) and small is not layer
    torch.testing.assert_close(small.weight.dense(), expected)
    assert not torch.equal(expected, before)


def test_the_widest_gate_of_a_bond_stays_when_all_are_shut() -> None:
    layer = linear("tucker", (3, 3, 3, 3))
    lasso = tensor_lasso(layer, threshold=5.0)
    shut_one(layer.weight)
    assert lasso.ranks()["weight"] == dict.fromkeys(layer.weight.gates, 1)
    zero = linear("cp")
    lasso = tensor_lasso(zero)
    zero.weight.gates["R"].data.zero_()
    small = lasso.shrink_()
    assert small.weight.ranks == {"R": 1} and not small.weight.dense().any()


@pytest.mark.parametrize("format", list(formats))
def test_removing_the_lasso_leaves_the_weight_with_the_gates_in_it(format: str) -> None:
    layer = linear(format)
    parameters = list(layer.weight.parameters())
    lasso = tensor_lasso(layer)
    shut_one(layer.weight)
    before = layer.weight.dense()
    assert lasso.remove_() is layer and type(layer.weight) is FactorizedTensor
    torch.testing.assert_close(layer.weight.dense(), before)
    assert all(p is q for p, q in zip(layer.weight.parameters(), parameters, strict=True))
    assert not any("gates" in key or "scale" in key for key in layer.state_dict())


@pytest.mark.parametrize("name", [f"linear {f}" for f in FEW] + [n for n in LAYERS if "linear" not in n])
def test_gated_layers_obey_the_laws(name: str) -> None:
    layer, x = case(name)
    keys = list(layer.state_dict())
    tensor_lasso(layer)
    shut_one(layer.weight)
    assert [k for k in layer.state_dict() if "gates" not in k and "scale" not in k] == keys
    for law in (check_copies, check_state_dict, check_export):
        law(layer, x)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    dense, weight = layer.to_dense(), layer.dense_weight()
    expected = torch.func.functional_call(dense, {"weight": weight}, (x,))
    upstream = torch.randn_like(expected)
    parameters = list(layer.weight.parameters())
    wanted = torch.autograd.grad(expected, parameters, upstream)
    for y in (layer(x), compiled(x)):
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(torch.autograd.grad(y, parameters, upstream), wanted)
    torch.testing.assert_close(compiled(torch.cat([x, x])), torch.cat([expected, expected]))


def test_a_tensor_by_itself_shrinks() -> None:
    tensor = FactorizedTensor.new((8, 6, 5), 4, "cp", dtype=torch.float64)
    lasso = tensor_lasso(tensor)
    assert isinstance(tensor, GatedTensor)
    shut_one(tensor)
    small = lasso.shrink_()
    assert small.ranks == {"R": 3} and small.numel() < tensor.numel()
    torch.testing.assert_close(small.dense(), tensor.dense())

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = FactorizedTensor.new((8, 6, 5), 4, "cp")

    holder = Holder()
    lasso = tensor_lasso(holder)
    shut_one(holder.inner)
    assert lasso.shrink_() is holder and holder.inner.ranks == {"R": 3}


def test_a_planned_weight_outside_of_a_layer_is_refused_before_anything_is_changed() -> None:
    model = nn.Sequential(FactorizedLinear(8, 6, rank=3), FactorizedLinear(8, 6, rank=3).weight)
    lasso = tensor_lasso(model)
    shut_one(model[0].weight)
    with pytest.raises(UnsupportedError, match="'1' is a planned weight outside"):
        lasso.shrink_()
    assert isinstance(model[0].weight, GatedTensor)


def test_shared_weights_are_shared_afterwards_and_count_once() -> None:
    first, second = (FactorizedLinear(12, 12, rank=5) for _ in "ab")
    second.weight = first.weight
    model, x = nn.Sequential(first, second, first), torch.randn(3, 12)
    lasso = tensor_lasso(model, 1.0)
    assert lasso.loss.item() == 5
    shut_one(first.weight)
    before = model(x)
    lasso.shrink_()
    assert model[0].weight is model[1].weight and model[0] is model[2] is not model[1]
    torch.testing.assert_close(model(x), before)


def test_dropout_modes_and_frozen_weights_stay() -> None:
    model = nn.Sequential(tensor_dropout(linear("cp", 6), 0.3, 2, 2), linear("tt")).eval()
    model[1].weight.requires_grad_(False)
    x = torch.randn(2, 18, dtype=torch.float64)
    lasso = tensor_lasso(model)
    assert not any(g.requires_grad for g in model[1].weight.gates.values())
    shut_one(model[0].weight)
    before = model[0](x)
    lasso.shrink_()
    assert isinstance(model[0].weight, DroppedTensor) and model[0].weight.settings == (0.3, 2, 2)
    assert not model.training and not model[0].weight.training and not model[1].weight.requires_grad
    torch.testing.assert_close(model[0](x), before)


@pytest.mark.parametrize("format", list(formats))
def test_complex_weights_have_real_gates_and_widths(format: str) -> None:
    layer = linear(format, dtype=torch.complex128)
    weight = layer.weight
    lasso = tensor_lasso(layer)
    shut_one(weight)
    for bond, widths in weight.widths().items():
        assert not weight.gates[bond].is_complex() and not widths.is_complex()
        kept = weight.gates[bond].detach().clone()
        weight.gates[bond].data = torch.zeros_like(kept)
        weight.gates[bond].data[0] = kept[0]
        torch.testing.assert_close((weight.dense().norm() / weight.scale).real, widths[0])
        weight.gates[bond].data = kept
    before = weight.dense()
    torch.testing.assert_close(lasso.shrink_().weight.dense(), before)


def test_tensors_stay_of_their_class() -> None:
    makes = (
        lambda: TensorizedTensor.new(((4, 3), (2, 5)), 3, "tt"),
        lambda: ComplexPairs.new((8, 6, 5), 3, "tt"),
        lambda: in_pairs_(FactorizedLinear(8, 6, rank=3, dtype=torch.complex64)),
    )
    for make in makes:
        module = make()
        weight = module if isinstance(module, FactorizedTensor) else module.weight
        kind, dtypes = type(weight), [p.dtype for p in module.parameters()]
        lasso = tensor_lasso(tensor_dropout(module, 0.3))
        shut_one(weight)
        before = weight.dense()
        small = lasso.shrink_()
        weight = small if isinstance(small, FactorizedTensor) else small.weight
        assert type(weight.plain) is kind and isinstance(weight, DroppedTensor)
        assert [p.dtype for p in small.parameters()] == dtypes
        torch.testing.assert_close(weight.dense(), before)


def test_composites_shrink_inside() -> None:
    torch.manual_seed(0)
    model = FactorizedLSTM(10, 12, num_layers=2, rank=4, hidden_rank=5)
    x, count = torch.randn(5, 3, 10), sum(p.numel() for p in model.parameters())
    tensor_dropout(model, 0.5)
    assert not torch.equal(model(x)[0], model(x)[0])
    lasso = tensor_lasso(model)
    for name in lasso.ranks():
        shut_one(model.get_submodule(name))
    before = model.eval()(x)[0]
    assert lasso.shrink_() is model and sum(p.numel() for p in model.parameters()) < count
    torch.testing.assert_close(model(x)[0], before)


# Layers of a joint tensor -----------------------------------------------------------------------------------


def family(format: str) -> tuple[nn.ModuleList, Tensor]:
    torch.manual_seed(0)
    layouts = {
        "lowrank": "o i -> (o i)",
        "sliced_lowrank": "o i -> o i",
        "kronecker": "(o0=3 o1) i -> o0 o1 i",
    }
    dense = [nn.Linear(18, 12, dtype=torch.float64) for _ in range(4)]
    layers = joint_random(dense, 3, format, layouts.get(format, "o (i0=3 i1) -> o i0 i1"))
    return layers, torch.randn(5, 18, dtype=torch.float64)


@pytest.mark.parametrize("format", list(formats))
def test_layers_of_a_joint_tensor_shrink_together_and_stay_joint(format: str) -> None:
    layers, x = family(format)
    lasso = tensor_lasso(layers, 1.0)
    assert layers[0].weight.gates is layers[3].weight.gates
    assert lasso.loss.item() == sum(layers[0].weight.ranks.values())
    shut_one(layers[0].weight)
    before, count = [layer(x) for layer in layers], sum(p.numel() for p in layers.parameters())
    copied, reloaded = copy.deepcopy(layers), family(format)[0]
    tensor_lasso(reloaded)
    reloaded.load_state_dict(layers.state_dict())
    for twin in (copied, reloaded):
        assert twin[0].weight.gates is twin[2].weight.gates
        torch.testing.assert_close([layer(x) for layer in twin], before)
    lasso.shrink_()
    torch.testing.assert_close([layer(x) for layer in layers], before)
    assert all(type(layer.weight) is SharingTensor for layer in layers)
    assert len({id(layer.weight.shared) for layer in layers}) == 1
    assert sum(p.numel() for p in layers.parameters()) < count
    tensor_lasso(copied).remove_()
    torch.testing.assert_close([layer(x) for layer in copied], before)


def orthonormal(factor: Tensor) -> Tensor:
    """The shorter axis, the bond, gets vectors of norm 1 that are orthogonal."""
    return torch.linalg.qr(factor)[0] if factor.shape[0] >= factor.shape[1] else orthonormal(factor.T).T


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_lasso_finds_the_rank_of_a_regression(seed: int) -> None:
    torch.manual_seed(seed)
    teacher, student = (TRL((6, 5), (2, 3), rank=r, format="cp") for r in (2, 6))
    teacher.weight.set_(teacher.weight.value.map(orthonormal))  # two terms of one size
    lasso = tensor_lasso(student, 0.05, threshold=0.05)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        x = torch.randn(32, 6, 5)
        y = teacher(x).detach()
        loss = (student(x) - y).square().mean() / y.var() + lasso.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert lasso.ranks() == {"linear.weight": {"R": 2}}
    before = student(x)
    assert lasso.shrink_() is student and student.weight.ranks == {"R": 2}
    assert (student(x) - before).square().mean() < 1e-3 * y.var()
    assert (student(x) - y).square().mean() < 1e-2 * y.var()


def test_gated_models_become_dense() -> None:
    model = nn.Sequential(linear("cp"))
    tensor_lasso(model)
    shut_one(model[0].weight)
    x = torch.randn(3, 18, dtype=torch.float64)
    before = model(x)
    to_dense_(model)
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize(
    "options",
    [{"penalty": -1.0}, {"penalty": True}, {"penalty": float("inf")}, {"threshold": "x"}],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    layer = linear("cp")
    with pytest.raises(OptionError, match=f"{next(iter(options))} came as"):
        tensor_lasso(layer, **options)
    assert type(layer.weight) is FactorizedTensor


def test_modules_without_factorized_weights_are_refused() -> None:
    with pytest.raises(SelectionError, match="Linear has no factorized weight"):
        tensor_lasso(nn.Linear(3, 3))
