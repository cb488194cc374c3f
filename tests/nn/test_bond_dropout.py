"""Dropout on bonds leaves ranks out, keeps the mean of the weight, and changes nothing in evaluation."""

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bond_cases import ALL_LAWS, LAYERS, case, linear
from torch import nn

from tenfold.core.errors import OptionError, SelectionError
from tenfold.formats import formats
from tenfold.nn import (
    FactorizedEmbedding,
    FactorizedLinear,
    FactorizedTensor,
    GatedTensor,
    remove_tensor_dropout,
    tensor_dropout,
    tensor_lasso,
)
from tenfold.nn.bonds.dropout import DroppedTensor, chance_to_stay, resting, stays
from tenfold.testing import check_layer
from tenfold.testing.layers import check_compile, check_copies, check_export, check_state_dict


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Every case compiles the same functions; torch stops after eight."""
    torch.compiler.reset()


@pytest.mark.parametrize("size, p, least", [(1, 0.5, 1), (4, 0.3, 1), (4, 0.9, 2), (5, 1.0, 2), (3, 0.0, 1)])
def test_the_chance_to_stay_is_that_of_all_draws(size: int, p: float, least: int) -> None:
    total = 0.0
    for kept in itertools.product((0, 1), repeat=size):
        n = sum(kept)
        total += max(n, least) * (1 - p) ** n * p ** (size - n)
    assert chance_to_stay(size, p, least) == pytest.approx(total / size)


@pytest.mark.parametrize("size, p, least", [(6, 0.5, 1), (6, 0.9, 3), (6, 1.0, 2), (2, 0.99, 1), (6, 0.0, 1)])
def test_ranks_stay_as_often_as_the_chance_says_and_never_fewer_than_the_least(
    size: int, p: float, least: int
) -> None:
    torch.manual_seed(0)
    drawn = torch.stack([stays(size, p, least, torch.device("cpu")) for _ in range(20_000)]).double()
    assert drawn.sum(1).min() >= least
    expected = torch.full((size,), chance_to_stay(size, p, least), dtype=torch.float64)
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0, atol=0.015)


@pytest.mark.parametrize("format", list(formats))
@pytest.mark.parametrize("p, least", [(0.4, 1), (1.0, 2)])
def test_the_mean_over_all_draws_is_the_weight(format: str, p: float, least: int) -> None:
    """Exactly: the sum over what can be drawn on every bond, each with its probability."""
    weight = tensor_dropout(linear(format, rank=2).weight, p, min_values=least)
    options = {b: _draws(n, p, left, chance) for b, n, left, chance in weight.drops}
    assert options, "nothing is dropped"
    mean: Any = 0.0
    for choice in itertools.product(*options.values()):
        probability = 1.0
        for chance, _ in choice:
            probability *= chance
        numbers = {b: number for b, (_, number) in zip(options, choice, strict=True)}
        weight.drawn = lambda like, numbers=numbers: numbers
        mean = mean + probability * weight.sampled().dense().detach()
    torch.testing.assert_close(mean, weight.dense().detach())


def _draws(size: int, p: float, least: int, chance: float) -> list[tuple[float, torch.Tensor]]:
    """(probability, numbers) for every set of ranks that can stay; where too few would, `least` at random."""
    sets = list(itertools.product((0.0, 1.0), repeat=size))
    found: dict[tuple[float, ...], float] = dict.fromkeys(sets, 0.0)
    for kept in sets:
        n = int(sum(kept))
        above = [s for s in sets if sum(s) == least and all(a <= b for a, b in zip(kept, s, strict=True))]
        for s in [kept] if n >= least else above:
            found[s] += (1 - p) ** n * p ** (size - n) / (1 if n >= least else len(above))
    return [(q, torch.tensor(s, dtype=torch.float64) / chance) for s, q in found.items() if q > 0]


@pytest.mark.parametrize("format", list(formats))
@pytest.mark.slow
def test_what_is_drawn_is_a_weight_of_fewer_ranks(format: str) -> None:
    weight = tensor_dropout(linear(format).weight, 0.5)
    torch.manual_seed(3)
    sample = weight.sampled()
    torch.manual_seed(3)
    numbers = weight.drawn(weight.plain.factors()[0])
    value = weight.value
    for bond, each in numbers.items():
        value = value.with_factors(_scaled_once(value, bond, each))
    torch.testing.assert_close(sample.dense(), weight.layout.to_weight(value.dense()))
    assert any((each == 0).any() for each in numbers.values())


def _scaled_once(value: Any, bond: str, each: torch.Tensor) -> list[Any]:
    """The slots with `each` multiplied into the last factor on the bond."""
    factors = list(value.factors)
    k = max(n for n, axes in enumerate(value.network.factors) if bond in axes)
    axes = value.network.factors[k]
    factors[k] = factors[k] * each.view([-1 if a == bond else 1 for a in axes])
    feed = iter(factors)
    return [None if slot is None else next(feed) for slot in value.slots]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_drop_in_training_and_not_in_evaluation(name: str) -> None:
    layer, x = case(name)
    before, keys, parameters = layer(x), list(layer.state_dict()), list(layer.parameters())
    assert tensor_dropout(layer, 0.5) is layer
    assert list(layer.state_dict()) == keys
    assert all(a is b for a, b in zip(layer.parameters(), parameters, strict=True))
    outputs = [layer(x) for _ in range(4)]
    assert any(not torch.equal(y, outputs[0]) for y in outputs)
    outputs[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    torch.testing.assert_close(layer.eval()(x), before)
    torch.testing.assert_close(layer.train().to_dense()(x), before)
    remove_tensor_dropout(layer)
    assert type(layer.weight) is FactorizedTensor
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_output_of_a_linear_map_is_that_without_dropout(name: str) -> None:
    layer, x = case(name)
    before = layer(x).detach()
    tensor_dropout(layer, 0.2)
    torch.manual_seed(0)
    with torch.no_grad():
        outputs = torch.stack([layer(x) for _ in range(3000)])
    error = outputs.std(0) / len(outputs) ** 0.5
    assert ((outputs.mean(0) - before).abs() < 6 * error + 1e-9).all()


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.startswith("linear")])
@pytest.mark.slow
def test_layers_with_dropout_are_copied_saved_compiled_and_exported(name: str) -> None:
    layer, x = case(name)
    tensor_dropout(layer, 0.5).eval()
    for law in (check_copies, check_state_dict, check_compile, check_export):
        law(layer, x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert isinstance(twin.weight, DroppedTensor) and twin.weight.settings == layer.weight.settings
        twin.train()
        assert any(not torch.equal(twin(x), layer(x)) for _ in range(3))


@pytest.mark.parametrize("format", ALL_LAWS)
def test_every_law_holds_in_evaluation(format: str) -> None:
    check_layer(tensor_dropout(linear(format), 0.5).eval(), torch.randn(3, 18, dtype=torch.float64))


@pytest.mark.parametrize("name", ["linear cp", "tucker2", "tt embedding"])
@pytest.mark.slow
def test_compiled_layers_draw_anew_in_one_graph_and_follow_the_mode(name: str) -> None:
    layer, x = case(name)
    tensor_dropout(layer, 0.5)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    outputs = [compiled(x) for _ in range(6)]
    assert any(not torch.equal(y, outputs[0]) for y in outputs)
    layer.eval()
    torch.testing.assert_close(compiled(x), layer(x))


def test_states_go_to_and_from_layers_without_dropout_in_any_memory_order() -> None:
    layer, x = case("tucker2")
    other = tensor_dropout(case("tucker2")[0], 0.3)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict({k: v.contiguous() for k, v in layer.state_dict().items()}, assign=True)
    torch.testing.assert_close(other.eval()(x), layer(x))
    for a, b in zip(other.parameters(), layer.parameters(), strict=True):
        assert a.stride() == b.stride()
    layer.load_state_dict(other.state_dict())


def test_saved_tensors_come_back_with_their_dropout() -> None:
    tensor = tensor_dropout(FactorizedTensor.new((4, 5, 6), 3, "cp"), 0.25, min_dim=2, min_values=2)
    file = io.BytesIO()
    torch.save(tensor, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.settings == (0.25, 2, 2) and torch.equal(again.dense(), tensor.dense())
    assert "dropout=0.25" in repr(again)


def test_a_weight_of_two_layers_has_dropout_in_both() -> None:
    first, second = (FactorizedLinear(8, 8, rank=5) for _ in "ab")
    second.weight = first.weight
    model = tensor_dropout(nn.Sequential(first, second), 0.5)
    assert model[0].weight is model[1].weight and isinstance(first.weight, DroppedTensor)
    x = torch.randn(3, 8)
    assert not torch.equal(model(x), model(x))
    remove_tensor_dropout(model)
    assert type(second.weight) is FactorizedTensor


def test_a_tensor_by_itself_drops_where_functions_of_torch_take_it() -> None:
    torch.manual_seed(0)
    tensor, x = tensor_dropout(FactorizedTensor.new((8, 8), 6, "lowrank"), 0.5), torch.randn(3, 8)
    for function in (
        lambda: F.linear(x, tensor),
        lambda: torch.exp(tensor),
        lambda: torch.matmul(x, tensor),
        lambda: x @ tensor,
        lambda: tensor @ x.T,
    ):
        assert len({function().sum().item() for _ in range(5)}) > 1
        tensor.eval()
        assert len({function().sum().item() for _ in range(5)}) == 1
        tensor.train()
    assert torch.equal(tensor.dense(), tensor.dense()), "the weight itself is not random"
    torch.testing.assert_close(F.linear(x, tensor.eval()), x @ tensor.dense().T)


def test_asking_for_properties_draws_no_random_numbers() -> None:
    tensor = tensor_dropout(FactorizedTensor.new((8, 8), 6, "lowrank"), 0.5)
    state = torch.get_rng_state()
    assert tensor.requires_grad and tensor.dtype == torch.float32 and tensor.device.type == "cpu"
    tensor.set_(tensor.value)
    repr(tensor)
    pairs = zip(resting(tensor).factors(), tensor.parameters(), strict=True)
    assert all(factor is p for factor, p in pairs)
    assert torch.equal(torch.get_rng_state(), state)


def test_setting_factors_goes_to_the_parameters() -> None:
    tensor = tensor_dropout(FactorizedTensor.new((4, 5), 3, "lowrank"), 0.5)
    other = FactorizedTensor.new((4, 5), 3, "lowrank")
    tensor.set_(other.value)
    assert torch.equal(tensor.dense(), other.dense())


def test_short_bonds_are_left_alone() -> None:
    tensor = tensor_dropout(FactorizedTensor.new((8, 8, 8), (2, 5, 4), "tucker"), 0.5, min_dim=4)
    assert [b for b, *_ in tensor.drops] == ["R1"]
    assert tensor_dropout(FactorizedTensor.new((8, 8), 1, "lowrank"), 1.0).drops == ()


def test_a_second_call_changes_the_settings_and_zero_drops_nothing() -> None:
    tensor = tensor_dropout(tensor_dropout(FactorizedTensor.new((8, 8), 6, "lowrank"), 0.5), 0.0)
    torch.testing.assert_close(torch.sum(tensor), tensor.dense().sum())


@pytest.mark.parametrize("first", ["gates", "dropout"])
def test_gates_and_dropout_act_on_one_weight_in_any_order_of_coming(first: str) -> None:
    layer, x = case("linear tucker")
    before = layer(x)
    if first == "gates":
        tensor_lasso(layer)
        tensor_dropout(layer, 0.5)
    else:
        tensor_dropout(layer, 0.5)
        tensor_lasso(layer)
    weight = layer.weight
    assert isinstance(weight, GatedTensor) and isinstance(weight, DroppedTensor)
    torch.testing.assert_close(layer.eval()(x), before)
    with torch.no_grad():
        weight.gates["R0"][0] = 0
    widths = weight.train().widths()
    assert torch.equal(widths["R1"], weight.widths()["R1"]) and widths["R0"][0] == 0
    assert torch.equal(weight.dense(), weight.dense()) and not torch.equal(
        weight.dense(), weight.plain.dense()
    )
    assert any(not torch.equal(layer(x), layer(x)) for _ in range(3))
    twin = pickle.loads(pickle.dumps(layer))
    assert torch.equal(twin.eval()(x), layer.eval()(x)) and type(twin.weight) is type(weight)
    remove_tensor_dropout(layer)
    assert type(layer.weight) is GatedTensor
    assert not torch.equal(layer(x), before)


def test_sparse_embeddings_keep_sparse_gradients() -> None:
    layer = FactorizedEmbedding(5, 40, rank=3, sparse=True)
    tensor_dropout(layer, 0.5)
    layer(torch.tensor([1, 2])).sum().backward()
    assert [p.grad.is_sparse for p in layer.weight.parameters()] == [True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.complex64])
def test_dropout_keeps_the_dtype(dtype: torch.dtype) -> None:
    tensor = tensor_dropout(FactorizedTensor.new((6, 5, 4), 3, "cp", dtype=dtype), 0.5)
    assert all(f.dtype == dtype for f in tensor.factors())


def test_meta_tensors_and_functional_calls_take_it() -> None:
    layer, x = case("linear tt")
    tensor_dropout(layer, 0.5)
    assert copy.deepcopy(layer).to("meta")(x.to("meta")).shape == (5, 12)
    states = {k: torch.stack([v, 2 * v]) for k, v in layer.named_parameters()}
    f = torch.func.vmap(lambda state: torch.func.functional_call(layer, state, (x,)), randomness="different")
    assert f(states).shape == (2, 5, 12)


@pytest.mark.parametrize(
    "options", [{"p": -0.1}, {"p": 1.5}, {"p": True}, {"p": float("nan")}, {"p": "half"},
                {"p": 0.5, "min_dim": -1}, {"p": 0.5, "min_values": 0}, {"p": 0.5, "min_values": 1.5}],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    layer = FactorizedLinear(6, 4, rank=2)
    with pytest.raises(OptionError, match=f"{list(options)[-1]} came as"):
        tensor_dropout(layer, **options)
    assert type(layer.weight) is FactorizedTensor


def test_modules_without_factorized_weights_are_refused() -> None:
    with pytest.raises(SelectionError, match="Linear has no factorized weight"):
        tensor_dropout(nn.Linear(3, 3), 0.5)
    with pytest.raises(SelectionError, match="no weight with dropout"):
        remove_tensor_dropout(FactorizedLinear(6, 4, rank=2))
