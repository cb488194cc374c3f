"""Recurrent layers equal torch's, forward and all gradients, over options, formats and kinds of input."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from tenfold.core.errors import LayoutError, OptionError, ShapeError, UnsupportedError
from tenfold.decompose import (
    CPALS,
    HTSVD,
    STHOSVD,
    TRSVD,
    TTSVD,
    BlockTermGN,
    KroneckerSVD,
    SlicedSVD,
    TruncatedSVD,
)
from tenfold.formats import formats
from tenfold.nn import FactorizedGRU, FactorizedLinear, FactorizedLSTM, FactorizedRNN
from tenfold.nn.recurrent.module import FactorizedRecurrent

KINDS: dict[type[nn.RNNBase], type[FactorizedRecurrent]] = {
    nn.RNN: FactorizedRNN,
    nn.LSTM: FactorizedLSTM,
    nn.GRU: FactorizedGRU,
}
SIZES = (6, 8)
OPTIONS = [
    {},
    {"bias": False},
    {"num_layers": 2, "batch_first": True},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "bias": False},
    {"num_layers": 3, "bidirectional": True, "batch_first": True},
]
CASES = [
    *((kind, options) for kind in KINDS for options in OPTIONS),
    (nn.RNN, {"nonlinearity": "relu"}),
    (nn.RNN, {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True}),
    *((nn.LSTM, {**options, "proj_size": 3}) for options in OPTIONS),
]
TRAIN = "(o0=4 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"
LAYOUTS = {"kronecker": TRAIN, "sliced_lowrank": "(o0=4 o1) i -> i o0 o1", "lowrank": "o i -> o i"}
LOOKS = {name: LAYOUTS.get(name, "(o0=4 o1) i -> o0 o1 i") for name in formats}


def made(kind: type[nn.RNNBase], options: dict) -> nn.RNNBase:
    torch.manual_seed(0)
    return kind(*SIZES, **options, dtype=torch.float64)


def assert_close(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def leaves(result: object) -> list[Tensor]:
    """Output and states."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, PackedSequence):
        return [result.data]
    return [x for part in result for x in leaves(part)]  # type: ignore[attr-defined]


def weights_of(layer: FactorizedRecurrent) -> dict[str, Tensor]:
    """The dense weights and biases under torch's names, differentiable in the parameters of the layer."""
    found: dict[str, Tensor] = {}
    ends = ("", "_reverse") if layer.bidirectional else ("",)
    names = [f"_l{n}{end}" for n in range(layer.num_layers) for end in ends]
    for kind, parts in zip(("ih", "hh", "hr"), layer.parts, strict=True):
        for name, part in zip(names, parts, strict=False):
            weight = part.dense_weight() if isinstance(part, FactorizedLinear) else part.weight
            found[f"weight_{kind}{name}"] = weight.clone()
            if part.bias is not None:
                found[f"bias_{kind}{name}"] = part.bias.clone()
    return found


def states(layer: FactorizedRecurrent, batch: int | None = 3) -> object:
    """A random initial state."""
    draw = torch.Generator().manual_seed(1)
    state = tuple(
        torch.randn(s, dtype=torch.float64, generator=draw, requires_grad=True) for s in layer._shapes(batch)
    )
    return state if isinstance(layer, FactorizedLSTM) else state[0]


def assert_equals_dense(layer: FactorizedRecurrent, x: object, hx: object = None) -> None:
    """Outputs, last states, and the gradients of input, initial state and all parameters."""
    dense = layer.to_dense()
    found = layer(x, hx)
    expected = torch.func.functional_call(dense, weights_of(layer), (x, hx))
    ours, theirs = leaves(found), leaves(expected)
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    assert_close(ours, theirs)
    ends = [*layer.parameters(), *(t for t in leaves([x, () if hx is None else hx]) if t.requires_grad)]
    upstream = [torch.randn_like(t) for t in ours]
    assert_close(
        torch.autograd.grad(ours, ends, upstream, allow_unused=True),
        torch.autograd.grad(theirs, ends, upstream, allow_unused=True),
    )


def sequences(layer: FactorizedRecurrent, batch: int = 3, time: int = 5) -> Tensor:
    shape = (batch, time) if layer.batch_first else (time, batch)
    draw = torch.Generator().manual_seed(2)
    return torch.randn(*shape, SIZES[0], dtype=torch.float64, generator=draw).requires_grad_()


def packed(lengths: tuple[int, ...] = (2, 5, 1, 5), enforce_sorted: bool = False) -> PackedSequence:
    draw = torch.Generator().manual_seed(3)
    parts = [torch.randn(n, SIZES[0], dtype=torch.float64, generator=draw) for n in lengths]
    rows, *rest = pack_sequence(parts, enforce_sorted=enforce_sorted)
    return PackedSequence(rows.requires_grad_(), *rest)


@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_opened_module_equals_its_dense_twin_in_the_same_memory(
    kind: type[nn.RNNBase], options: dict
) -> None:
    dense = made(kind, options)
    layer = KINDS[kind].opened(dense)
    x = sequences(layer)
    assert_equals_dense(layer, x)
    assert_equals_dense(layer, x, states(layer))
    assert_close(leaves(layer(x)), leaves(dense(x)))
    assert {p.data_ptr() for p in layer.parameters()} == {p.data_ptr() for p in dense.parameters()}


@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_factorized_layer_equals_its_dense_twin(kind: type[nn.RNNBase], options: dict) -> None:
    torch.manual_seed(0)
    proj = {"proj_rank": 2} if options.get("proj_size") else {}
    layer = KINDS[kind](*SIZES, **options, **proj, rank=3, hidden_rank=2, dtype=torch.float64)
    assert all(isinstance(p, FactorizedLinear) for parts in layer.parts for p in parts)
    assert_equals_dense(layer, sequences(layer), states(layer))
    assert_equals_dense(layer, packed(), states(layer, 4))
    assert_equals_dense(layer, packed())


@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_unbatched_sequences(kind: type[nn.RNNBase], options: dict) -> None:
    layer = KINDS[kind].opened(made(kind, options))
    x = torch.randn(5, SIZES[0], dtype=torch.float64)
    assert_equals_dense(layer, x)
    assert_equals_dense(layer, x, states(layer, None))


@pytest.mark.parametrize(
    "lengths, enforce_sorted", [((5, 3, 3, 1), True), ((1, 4, 2), False), ((3, 3), True)]
)
@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_packed_sequences(
    kind: type[nn.RNNBase], options: dict, lengths: tuple[int, ...], enforce_sorted: bool
) -> None:
    layer = KINDS[kind].opened(made(kind, options))
    x = packed(lengths, enforce_sorted)
    assert_equals_dense(layer, x, states(layer, len(lengths)))
    y = layer(x)[0]
    assert isinstance(y, PackedSequence) and torch.equal(y.batch_sizes, x.batch_sizes)
    assert (y.sorted_indices is None) == enforce_sorted


def test_packed_rows_equal_the_padded_ones() -> None:
    layer = FactorizedLSTM.opened(made(nn.LSTM, {}))
    x = sequences(layer)
    y, last = layer(pack_padded_sequence(x, torch.tensor([5, 5, 5])))
    assert_close(y.data.view(5, 3, -1), layer(x)[0])
    assert_close(leaves(last), leaves(layer(x)[1]))


@pytest.mark.parametrize("example", [(5, 1, 6), (5, 10**5, 6)])
@pytest.mark.parametrize("name", list(formats))
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_format_equals_its_dense_twin(
    kind: type[nn.RNNBase], name: str, example: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = KINDS[kind](*SIZES, rank=2, format=name, layout=LOOKS[name], example=example, dtype=torch.float64)
    assert_equals_dense(layer, sequences(layer), states(layer))


GATES = "(o0=4 o1) i -> o0 o1 i"
FULL = {
    "lowrank": (TruncatedSVD(), 32, "o i -> o i"),
    "sliced_lowrank": (SlicedSVD(), 32, "(o0=4 o1) i -> i o0 o1"),
    "cp": (CPALS(tol=1e-12), 8, "o i -> o i"),
    "tucker": (STHOSVD(), 32, GATES),
    "tt": (TTSVD(), 64, GATES),
    "tr": (TRSVD(), 64, TRAIN),
    "ht": (HTSVD(), 64, GATES),
    "kronecker": (KroneckerSVD(), 64, "(o0=4 o1) (i0=2 i1) -> o0 o1 i0 i1"),
    "block_term": (BlockTermGN(restarts=1), {"T": 1, "R0": 8, "R1": 8}, "o i -> o i"),
}
"""For every format what holds any of these weights without loss."""


@pytest.mark.parametrize("name", list(formats))
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_format_at_full_rank_equals_the_dense_module(kind: type[nn.RNNBase], name: str) -> None:
    dense = made(kind, {})
    layer = KINDS[kind].from_dense(dense, *FULL[name], example=(5, 3, 6))
    assert {formats.name_of(p.weight.format) for p in (*layer.inputs, *layer.hiddens)} == {name}
    x = sequences(layer)
    torch.testing.assert_close(leaves(layer(x)), leaves(dense(x)), rtol=1e-8, atol=1e-9)
    assert_equals_dense(layer, x)
    assert_equals_dense(layer, packed())


@pytest.mark.parametrize("kind", list(KINDS))
def test_full_rank_gives_the_dense_module_back(kind: type[nn.RNNBase]) -> None:
    dense = made(kind, {"num_layers": 2, "bidirectional": True})
    layer = KINDS[kind].from_dense(dense, TruncatedSVD(), 32)
    x = sequences(layer)
    assert_close(leaves(layer(x)), leaves(dense(x)))
    assert_close(dict(layer.to_dense().named_parameters()), dict(dense.named_parameters()))


def test_projection_is_decomposed_by_its_own_method() -> None:
    dense = made(nn.LSTM, {"proj_size": 3})
    layer = FactorizedLSTM.from_dense(dense, None, proj_method=TruncatedSVD(), proj_ranks=3)
    assert isinstance(layer.projections[0], FactorizedLinear)
    assert type(layer.inputs[0]) is type(layer.hiddens[0]) is nn.Linear
    x = sequences(layer)
    assert_close(leaves(layer(x)), leaves(dense(x)))


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_made_of_a_dense_module_shares_nothing_with_it(kind: type[nn.RNNBase]) -> None:
    dense = made(kind, {})
    layer = KINDS[kind].from_dense(dense, TruncatedSVD(), 2, hidden_method=None)
    assert isinstance(layer.inputs[0], FactorizedLinear) and type(layer.hiddens[0]) is nn.Linear
    for twin in (layer, KINDS[kind].opened(dense).to_dense(), layer.to_dense()):
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in dense.parameters()}


@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_dense_module_of_the_opened_one_is_the_first_one(kind: type[nn.RNNBase], options: dict) -> None:
    dense = made(kind, {**options, "dropout": 0.5} if options.get("num_layers") else options).eval()
    next(dense.parameters()).requires_grad_(False)
    twin = KINDS[kind].opened(dense).to_dense()
    assert type(twin) is kind and repr(twin) == repr(dense) and not twin.training
    assert_close(dict(twin.named_parameters()), dict(dense.named_parameters()))
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in dense.parameters()]


@pytest.mark.parametrize("kind, options", CASES, ids=str)
def test_dropout_between_layers_is_torchs(kind: type[nn.RNNBase], options: dict) -> None:
    dense = made(kind, {**options, "num_layers": 3, "dropout": 0.5})
    layer = KINDS[kind].opened(dense)
    for x in (sequences(layer), packed()):
        torch.manual_seed(5)
        found = layer(x)
        torch.manual_seed(5)
        assert_close(leaves(found), leaves(dense(x)))
    assert_close(leaves(layer.eval()(x)), leaves(dense.eval()(x)))


@pytest.mark.parametrize("kind", list(KINDS))
def test_new_weights_have_the_deviation_of_torchs(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    layer = KINDS[kind](96, 128, rank=32, hidden_rank=None)
    std = (3 * 128) ** -0.5
    for weight in (layer.inputs[0].weight.dense(), layer.hiddens[0].weight, layer.inputs[0].bias):
        assert weight.std().item() == pytest.approx(std, rel=0.15)
    assert layer.hiddens[0].weight.abs().max() <= 128**-0.5


@pytest.mark.parametrize("kind", list(KINDS))
def test_empty_batches_pass_and_empty_time_is_refused(kind: type[nn.RNNBase]) -> None:
    layer = KINDS[kind](*SIZES, rank=2, num_layers=2, bidirectional=True, dtype=torch.float64)
    dense = layer.to_dense()
    x = torch.zeros(5, 0, SIZES[0], dtype=torch.float64)
    assert [t.shape for t in leaves(layer(x))] == [t.shape for t in leaves(dense(x))]
    with pytest.raises(ShapeError, match="has no moment"):
        layer(torch.zeros(0, 3, SIZES[0], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5, 3, 7), (6,), (1, 5, 3, 6)], ids=str)
def test_wrong_inputs_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the input came as"):
        FactorizedGRU(*SIZES, rank=2)(torch.zeros(shape))


@pytest.mark.parametrize("kind", list(KINDS))
def test_wrong_states_are_refused(kind: type[nn.RNNBase]) -> None:
    layer = KINDS[kind](*SIZES, rank=2)
    pair = (lambda h: (h, h)) if kind is nn.LSTM else (lambda h: h)
    with pytest.raises(ShapeError, match="the initial state came as"):
        layer(torch.zeros(5, 3, 6), pair(torch.zeros(1, 2, 8)))
    with pytest.raises(ShapeError, match="the initial state came as"):
        layer(torch.zeros(5, 6), pair(torch.zeros(1, 1, 8)))


def test_gru_wants_a_single_state() -> None:
    h = torch.zeros(1, 3, 8)
    with pytest.raises(ShapeError, match="the initial state came as a tuple"):
        FactorizedGRU(*SIZES, rank=2)(torch.zeros(5, 3, 6), (h, h))


def test_lstm_wants_both_states() -> None:
    layer = FactorizedLSTM(*SIZES, rank=2)
    h = torch.zeros(1, 3, 8)
    for state in (h, (h,), (h, h, h)):
        with pytest.raises(ShapeError, match="the initial state came as"):
            layer(torch.zeros(5, 3, 6), state)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_layers": 0}, "num_layers came as 0"),
        ({"dropout": 1.5}, "dropout came as 1.5"),
        ({"proj_size": 8}, "proj_size=8 with hidden_size=8"),
        ({"format": "tt"}, "format=tt and layout=None came without a rank"),
        (
            {"rank": 2, "hidden_rank": None, "hidden_layout": "o i -> i o"},
            "hidden_format=None and hidden_layout",
        ),
        ({"proj_format": "tt"}, "proj_format=tt"),
        ({"proj_rank": 2}, "proj_rank=2 came, but there is no projection"),
    ],
    ids=str,
)
def test_options_that_cannot_be_served_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FactorizedLSTM(*SIZES, **options)


def test_other_refusals_and_warnings() -> None:
    with pytest.raises(OptionError, match="nonlinearity came as 'gelu'"):
        FactorizedRNN(*SIZES, nonlinearity="gelu")
    with pytest.raises(LayoutError, match="has an axis of size"):
        FactorizedGRU(*SIZES, rank=2, layout="(o0=5 o1) i -> o0 o1 i", format="tt")
    with pytest.raises(OptionError, match="came without a method"):
        FactorizedGRU.from_dense(nn.GRU(*SIZES), None, 3)
    with pytest.raises(OptionError, match="came without a method"):
        FactorizedGRU.from_dense(nn.GRU(*SIZES), TruncatedSVD(), 3, hidden_method=None, hidden_ranks=2)
    with pytest.raises(UnsupportedError, match="a LSTM came"):
        FactorizedGRU.opened(nn.LSTM(*SIZES))
    with pytest.warns(UserWarning, match=r"dropout=0.5 does nothing in a single layer"):
        FactorizedGRU(*SIZES, rank=2, dropout=0.5)
    layer = FactorizedGRU(*SIZES, rank=2)
    layer.hiddens[0] = nn.Sequential(nn.Linear(8, 24))
    with pytest.raises(UnsupportedError, match=r"'hiddens\.0' is a Sequential"):
        layer.to_dense()
