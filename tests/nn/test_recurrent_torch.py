"""Recurrent layers under torch's tools: compile, export, function transforms, autocast, copies, hooks."""

import copy
import io
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, grad, jvp, vmap

from tenfold.export import fold, to_native
from tenfold.nn import FactorizedGRU, FactorizedLinear, FactorizedLSTM, FactorizedRNN
from tenfold.nn.bonds.dropout import tensor_dropout
from tenfold.nn.composite import opening
from tenfold.nn.recurrent import prepared
from tenfold.nn.recurrent.module import FactorizedRecurrent
from tenfold.nn.recurrent.prepared import affine
from tenfold.testing.compare import assert_equal

KINDS = [FactorizedRNN, FactorizedLSTM, FactorizedGRU]
TRAIN = "(o0=4 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"
FORMS = [{"rank": 3}, {"rank": 2, "format": "tt", "layout": TRAIN, "hidden_rank": 4}]


def made(
    kind: type[FactorizedRecurrent], dtype: torch.dtype = torch.float64, **options
) -> FactorizedRecurrent:
    torch.manual_seed(0)
    return kind(6, 8, **{"rank": 3, **options}, dtype=dtype)


def sequences(batch: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(5, batch, 6, generator=torch.Generator().manual_seed(1)).to(dtype)


def flat(result: tuple) -> Tensor:
    """Output and last states in one row."""
    output, last = result
    return torch.cat([t.flatten() for t in (output, *(last if isinstance(last, tuple) else (last,)))])


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_one_compiled_graph_serves_every_batch_and_trains(
    kind: type[FactorizedRecurrent], form: dict
) -> None:
    torch._dynamo.reset()
    layer = made(kind, **form, bidirectional=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (3, 6, 4):
        assert_equal(flat(compiled(sequences(batch)[:2])), flat(layer(sequences(batch)[:2])), "compiled")
    x, parameters = sequences(4)[:2], list(layer.parameters())
    found, wanted = (torch.autograd.grad(flat(f(x)).sum(), parameters) for f in (compiled, layer))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, "compiled gradients")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_export_takes_a_dynamic_batch_and_an_initial_state(
    kind: type[FactorizedRecurrent], form: dict, batch_first: bool
) -> None:
    layer = made(kind, **form, batch_first=batch_first).eval()
    axis = 0 if batch_first else 1

    def given(batch: int) -> tuple:
        x = sequences(batch).transpose(0, 1) if batch_first else sequences(batch)
        h = torch.ones(1, batch, 8, dtype=x.dtype)
        return x.contiguous(), ((h, h) if kind is FactorizedLSTM else h)

    state = ({1: Dim.DYNAMIC},) * 2 if kind is FactorizedLSTM else {1: Dim.DYNAMIC}
    for count, shapes in ((1, ({axis: Dim.DYNAMIC},)), (2, ({axis: Dim.DYNAMIC}, state))):
        program = torch.export.export(layer, given(3)[:count], dynamic_shapes=shapes).module()
        for batch in (3, 7):
            assert_equal(flat(program(*given(batch)[:count])), flat(layer(*given(batch)[:count])), "exported")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # in torch's jvp
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_function_transforms(kind: type[FactorizedRecurrent], form: dict) -> None:
    layer = made(kind, **form)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    many = torch.stack([sequences(), -sequences()])

    def loss(p: dict, x: Tensor) -> Tensor:
        return flat(functional_call(layer, p, (x,))).square().sum()

    each = vmap(grad(loss), (None, 0))(parameters, many)
    for name, found in each.items():
        for k, x in enumerate(many):
            assert_equal(found[k], grad(loss)(parameters, x)[name], "a gradient for each sample")
    stacked = {name: torch.stack([p, 2 * p]) for name, p in parameters.items()}
    doubled = {name: 2 * p for name, p in parameters.items()}
    assert_equal(vmap(loss, (0, None))(stacked, many[0])[1], loss(doubled, many[0]), "an ensemble")
    slope = jvp(lambda x: loss(parameters, x), (many[0],), (many[1],))[1]
    assert_equal(slope, (grad(loss, 1)(parameters, many[0]) * many[1]).sum(), "forward derivative")


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind: type[FactorizedRecurrent]) -> None:
    layer = made(kind, hidden_rank=2)
    x = sequences(2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x[:3],))


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_computes_in_bfloat16(kind: type[FactorizedRecurrent]) -> None:
    layer = made(kind, torch.float32, num_layers=2)
    x = sequences(dtype=torch.float32)
    h = torch.zeros(2, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(x, (h, h) if kind is FactorizedLSTM else h)
    assert result[0].dtype == torch.bfloat16
    assert_equal(flat(result), flat(layer(x)), "autocast")
    flat(result).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_low_precision(kind: type[FactorizedRecurrent], dtype: torch.dtype) -> None:
    layer = made(kind).to(dtype)
    result = layer(sequences(dtype=dtype))
    exact = copy.deepcopy(layer).double()(sequences(dtype=dtype).double())
    assert result[0].dtype == dtype
    assert_equal(flat(result), flat(exact), f"{dtype}")


@pytest.mark.parametrize("kind", KINDS)
def test_complex_weights(kind: type[FactorizedRecurrent]) -> None:
    layer = made(kind, torch.complex128)
    x = torch.complex(sequences(), -sequences())
    assert_equal(flat(layer(x)), flat(layer.to_dense()(x)), "complex")


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_states(kind: type[FactorizedRecurrent], form: dict) -> None:
    layer, x = made(kind, **form, bidirectional=True), sequences()
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    empty = kind(6, 8, **form, bidirectional=True, device="meta", dtype=x.dtype)
    assert empty(x.to("meta"))[0].shape == (5, 3, 16)
    state = {name: t.contiguous() for name, t in layer.state_dict().items()}
    empty.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)), assign=True)
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)]
    for twin in (*twins, empty):
        assert_equal(flat(twin(x)), flat(layer(x)), "a copy")
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in layer.parameters()}


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_torchs_modules_are_opened_by_type(kind: type[nn.RNNBase]) -> None:
    dense = kind(6, 8, num_layers=2, bidirectional=True)
    how = opening(dense)
    assert how is not None
    names = [name for name, part in how(dense).named_modules() if isinstance(part, nn.Linear)]
    assert names == [f"{field}.{k}" for field in ("inputs", "hiddens") for k in range(4)]


@pytest.mark.parametrize("kind", KINDS)
def test_parts_replaced_after_construction_are_what_runs(kind: type[FactorizedRecurrent]) -> None:
    layer, x = made(kind, rank=None), sequences()
    factorized = FactorizedLinear(8, layer.gates * 8, rank=2, dtype=x.dtype)
    layer.hiddens[0] = factorized
    assert_equal(flat(layer(x)), flat(layer.to_dense()(x)), "a factorized part")
    layer.hiddens[0] = nn.Sequential(factorized)
    with_any_module = flat(layer(x))
    layer.hiddens[0] = factorized
    assert_equal(with_any_module, flat(layer(x)), "a part of another type")


@pytest.mark.parametrize("make", [fold, to_native])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_and_native_parts_run_inside(kind: type[FactorizedRecurrent], make: Any) -> None:
    layer = kind(96, 128, num_layers=2, rank=2, example=(10**6, 96), dtype=torch.float64)
    twin, x = make(layer), torch.randn(5, 3, 96, dtype=torch.float64)
    assert not any(isinstance(part, FactorizedLinear) for part in twin.modules())
    assert_equal(flat(twin(x)), flat(layer(x)), make.__name__)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_on_parts_see_every_call(kind: type[FactorizedRecurrent], rank: int | None) -> None:
    layer, x, seen = made(kind, rank=rank), sequences(), []
    expected = flat(layer(x))
    handles = [
        part.register_forward_hook(lambda part, args, y: seen.append(args[0].shape))
        for part in (layer.inputs[0], layer.hiddens[0])
    ]
    assert_equal(flat(layer(x)), expected, "with hooks")
    assert seen == [(5, 3, 6), *[(3, 8)] * 5]
    handles[1].remove()
    layer(x)
    assert len(seen) == 7


def test_a_forward_that_was_put_in_place_of_a_parts_own_is_called() -> None:
    layer, x = made(FactorizedGRU), sequences()
    own, calls = layer.hiddens[0].forward, []
    layer.hiddens[0].forward = lambda x: calls.append(x.shape) or own(x)
    layer(x)
    assert calls == [(3, 8)] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_factors_meet_factors_once_not_at_every_moment(
    kind: type[FactorizedRecurrent], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = made(kind, rank=4, format="cp", layout="(o0=4 o1) i -> o0 o1 i", example=(10**6, 6))
    count = sum(step == "merge" for part in (*layer.inputs, *layer.hiddens) for step in part.program.kinds)
    calls = []
    merge = prepared.merge
    monkeypatch.setattr(prepared, "merge", lambda *args: calls.append(args) or merge(*args))
    layer(sequences())
    assert len(calls) == count > 0


def test_dropout_of_bonds_holds_for_all_moments() -> None:
    layer = made(FactorizedRNN, rank=4).train()
    tensor_dropout(layer.hiddens[0].weight, 0.5)
    torch.manual_seed(0)
    drawn = affine(layer.hiddens[0])
    x = torch.randn(3, 8, dtype=torch.float64)
    assert torch.equal(drawn.linear(x, None), drawn.linear(x, None))
    assert not torch.equal(drawn.linear(x, None), affine(layer.hiddens[0]).linear(x, None))


def test_models_may_call_flatten_parameters() -> None:
    layer = made(FactorizedGRU)
    before = flat(layer(sequences()))
    layer.flatten_parameters()
    assert torch.equal(flat(layer(sequences())), before)


def test_checkpointing_gives_the_same_gradients() -> None:
    layer, x = made(FactorizedLSTM), sequences().requires_grad_()
    again = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    found, wanted = (torch.autograd.grad(flat(y).sum(), [x, *layer.parameters()]) for y in (again, layer(x)))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, "checkpointed")


def test_training_a_factorized_lstm_lowers_the_loss() -> None:
    torch.manual_seed(0)
    layer, head = FactorizedLSTM(1, 16, rank=4, hidden_rank=4), nn.Linear(16, 1)
    x = torch.sin(torch.arange(40.0) / 2).view(-1, 1, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], 0.02)
    losses = []
    for _ in range(60):
        loss = (head(layer(x[:-1])[0]) - x[1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
