"""Factorized transformer layers equal their dense twins, and go into torch's encoder and decoder."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.decompose import TTSVD, TruncatedSVD
from tenfold.formats import formats
from tenfold.nn import (
    FactorizedLinear,
    FactorizedMultiheadAttention,
    FactorizedTensor,
    FactorizedTransformerDecoderLayer,
    FactorizedTransformerEncoderLayer,
)
from tenfold.testing.compare import assert_equal

WIDTH, HEADS, HIDDEN, BATCH, LENGTH, MEMORY = 8, 2, 12, 3, 5, 4
DOUBLE = torch.float64
RANK = {"q": 3, "v": 2, "out": 3, "linear1": 4, "linear2": 4}
LAYERS = [FactorizedTransformerEncoderLayer, FactorizedTransformerDecoderLayer]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"norm_first": True, "batch_first": True, "activation": "gelu"},
    {"bias": False, "activation": torch.tanh},
    {"dropout": 0.3, "activation": nn.GELU(), "layer_norm_eps": 0.1},
]


def said(value: Any) -> str:
    """The name of a case: the same in every process, as addresses of functions are not."""
    return ("-".join(value) or "plain") if isinstance(value, dict) else str(value)


Kind = type[FactorizedTransformerEncoderLayer] | type[FactorizedTransformerDecoderLayer]


def make(kind: Kind, **options: Any) -> Any:
    torch.manual_seed(0)
    settings = {"dropout": 0.0, "rank": RANK, "dtype": DOUBLE, **options}
    return with_noise(kind(WIDTH, HEADS, HIDDEN, **settings))


def make_dense(kind: Kind, **options: Any) -> Any:
    torch.manual_seed(0)
    return with_noise(kind.kind(WIDTH, HEADS, HIDDEN, **{"dropout": 0.0, "dtype": DOUBLE, **options}))


def with_noise(layer: nn.Module) -> nn.Module:
    """Biases and scales are not zeros and ones, so that a wrong one shows."""
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p) / 4)
    return layer


def inputs(kind: Kind, layer: Any) -> list[Tensor]:
    lengths = (LENGTH, MEMORY) if kind is FactorizedTransformerDecoderLayer else (LENGTH,)
    return [sequence(layer, length) for length in lengths]


def sequence(layer: Any, length: int) -> Tensor:
    x = torch.randn(BATCH, length, WIDTH, dtype=DOUBLE, generator=torch.Generator().manual_seed(length))
    return (x if layer.self_attn.batch_first else x.transpose(0, 1)).clone().requires_grad_()


def hidden(*shape: int) -> Tensor:
    found = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    found[..., 0] = False
    return found


MASKS: dict[Any, list[dict[str, Any]]] = {
    FactorizedTransformerEncoderLayer: [
        {},
        {"src_mask": hidden(LENGTH, LENGTH)},
        {"src_key_padding_mask": hidden(BATCH, LENGTH), "src_mask": hidden(BATCH * HEADS, LENGTH, LENGTH)},
        {"src_mask": torch.ones(LENGTH, LENGTH).triu(1).bool(), "is_causal": True},
    ],
    FactorizedTransformerDecoderLayer: [
        {},
        {"tgt_mask": hidden(LENGTH, LENGTH), "memory_mask": hidden(LENGTH, MEMORY)},
        {"tgt_key_padding_mask": hidden(BATCH, LENGTH), "memory_key_padding_mask": hidden(BATCH, MEMORY)},
        {"tgt_mask": torch.ones(LENGTH, LENGTH).triu(1).bool(), "tgt_is_causal": True},
    ],
}
CASES = [(kind, options, m) for kind in LAYERS for options in OPTIONS for m in range(4)]


def twin_state(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters of the dense twin, differentiable in those of the layer."""
    state = dict(layer.named_parameters())
    for name, part in layer.named_modules():
        if isinstance(part, FactorizedLinear):
            state = {key: p for key, p in state.items() if not key.startswith(f"{name}.weight.")}
            state[f"{name}.weight"] = part.weight.dense()
    for name, part in layer.named_modules():
        if isinstance(part, FactorizedMultiheadAttention):
            for field in ("weight", "bias"):
                parts = [state.pop(f"{name}.{p}_proj.{field}", None) for p in "qkv"]
                if parts[0] is not None:
                    state[f"{name}.in_proj_{field}"] = torch.cat(parts)
    return state


@pytest.mark.parametrize("kind, options, number", CASES, ids=said)
def test_equals_dense_twin(kind: Kind, options: dict, number: int) -> None:
    layer, masks = make(kind, **options), MASKS[kind][number]
    xs, dense = inputs(kind, layer), layer.to_dense()
    torch.manual_seed(3)
    y = layer(*xs, **masks)
    torch.manual_seed(3)
    expected = torch.func.functional_call(dense, twin_state(layer), tuple(xs), masks)
    assert_equal(y, expected, "the layer equals its dense twin")
    leaves, upstream = [*xs, *layer.parameters()], torch.randn_like(y)
    found, wanted = (torch.autograd.grad(z, leaves, upstream) for z in (y, expected))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, "the layer has the gradients of its dense twin")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=said)
@pytest.mark.parametrize("kind", LAYERS)
def test_from_a_dense_layer_at_full_rank_and_back(kind: Kind, options: dict, training: bool) -> None:
    dense = make_dense(kind, **options).train(training)
    layer = kind.from_dense(dense, TruncatedSVD(), 12)
    xs = inputs(kind, layer)
    for twin in (layer, layer.to_dense()):
        assert twin.training == training and not memory(twin) & memory(dense)
        for z, expected in zip(both(twin, dense, xs), both(dense, dense, xs), strict=True):
            assert_equal(z, expected, "a layer made from a dense one")
    assert type(layer) is kind and type(layer.to_dense()) is kind.kind is type(dense)
    assert list(layer.to_dense().state_dict()) == list(dense.state_dict())


def both(layer: nn.Module, dense: nn.Module, xs: list[Tensor]) -> list[Tensor]:
    """With and without gradients: torch's fused kernel runs only without."""
    found = []
    for context in (torch.enable_grad, torch.no_grad):
        torch.manual_seed(4)
        with context():
            found.append(layer(*xs))
    return found


def memory(module: nn.Module) -> set[int]:
    return {p.data_ptr() for p in module.parameters()}


@pytest.mark.parametrize("format", formats)
@pytest.mark.parametrize("kind", LAYERS)
def test_every_format_serves_in_every_part(kind: Kind, format: str) -> None:
    layout = "(o0=2 o1) (i0=2 i1) -> o0 o1 i0 i1"
    if format in ("lowrank", "sliced_lowrank"):
        layout = {"lowrank": "o i -> o i", "sliced_lowrank": "o (i0=2 i1) -> o i0 i1"}[format]
    layer = make(kind, rank=2, format=format, layout=layout)
    tensors = [m for m in layer.modules() if isinstance(m, FactorizedTensor)]
    assert len(tensors) == 4 * len(kind.attentions) + 2
    assert {formats.name_of(t.format) for t in tensors} == {format}
    xs = inputs(kind, layer)
    assert_equal(layer(*xs), layer.to_dense()(*xs), "the layer equals its dense twin")


def test_each_part_has_its_own_choices() -> None:
    layer = make(
        FactorizedTransformerEncoderLayer,
        rank={"q": 2, "linear1": 3},
        format={"linear1": "tt"},
        layout={"linear1": "(o0=2 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"},
    )
    assert formats.name_of(layer.self_attn.q_proj.weight.format) == "lowrank"
    assert formats.name_of(layer.linear1.weight.format) == "tt"
    assert type(layer.self_attn.k_proj) is type(layer.linear2) is nn.Linear
    layer = FactorizedTransformerDecoderLayer.from_dense(
        make_dense(FactorizedTransformerDecoderLayer), {"out": TruncatedSVD(), "linear2": TTSVD()}, 2
    )
    assert layer.self_attn.out_proj.weight.ranks == layer.multihead_attn.out_proj.weight.ranks == {"R": 2}
    assert formats.name_of(layer.linear2.weight.format) == "tt" and type(layer.linear1) is nn.Linear


@pytest.mark.parametrize("rank", [None, 20])
def test_new_weights_have_the_deviation_of_torchs(rank: int | None) -> None:
    torch.manual_seed(0)
    dense = nn.TransformerDecoderLayer(128, 4, 256)
    made = FactorizedTransformerDecoderLayer(128, 4, 256, rank=rank).to_dense()
    for name, p in dense.named_parameters():
        assert made.get_parameter(name).std().item() == pytest.approx(p.std().item(), rel=0.2), name


PADDED = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]], dtype=torch.bool)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")  # the dense encoder's
@pytest.mark.parametrize("training", [True, False])
def test_goes_into_torchs_encoder(training: bool) -> None:
    layer = make(FactorizedTransformerEncoderLayer, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train(training)
    dense = nn.TransformerEncoder(layer.to_dense(), 2).train(training)
    x = sequence(layer, LENGTH)
    causal = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=DOUBLE)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            for masks in ({}, {"mask": causal}, {"mask": causal, "is_causal": True}):
                assert_equal(model(x, **masks), dense(x, **masks), "an encoder")
            y, expected = (m(x, src_key_padding_mask=PADDED) for m in (model, dense))
            for k, padded in enumerate(PADDED):
                assert_equal(y[k][~padded], expected[k][~padded], "an encoder with padding")


@pytest.mark.parametrize("training", [True, False])
def test_goes_into_torchs_decoder_and_transformer(training: bool) -> None:
    torch.manual_seed(0)
    settings = {"batch_first": True, "dtype": DOUBLE}
    dense = nn.Transformer(WIDTH, HEADS, 1, 2, HIDDEN, dropout=0.0, **settings).train(training)
    model, method = copy.deepcopy(dense), TruncatedSVD()
    model.encoder.layers[0] = FactorizedTransformerEncoderLayer.from_dense(dense.encoder.layers[0], method, 8)
    for k, layer in enumerate(dense.decoder.layers):
        model.decoder.layers[k] = FactorizedTransformerDecoderLayer.from_dense(layer, method, 8)
    x, y = (torch.randn(BATCH, n, WIDTH, dtype=DOUBLE) for n in (LENGTH, MEMORY))
    causal = nn.Transformer.generate_square_subsequent_mask(MEMORY, dtype=DOUBLE)
    assert_equal(model(x, y, tgt_mask=causal), dense(x, y, tgt_mask=causal), "a transformer")


def test_an_activation_that_is_a_module_stays_when_torch_clones_the_layer() -> None:
    layer = make(FactorizedTransformerDecoderLayer, activation=nn.GELU())
    model = nn.TransformerDecoder(layer, 1)
    xs = inputs(FactorizedTransformerDecoderLayer, layer)
    assert_equal(model(*xs), layer(*xs), "a clone")


def test_sequences_without_a_batch_pass() -> None:
    layer = make(FactorizedTransformerEncoderLayer)
    x = sequence(layer, LENGTH)
    assert_equal(layer(x[:, 0]), layer(x)[:, 0], "without a batch")


# Citizenship ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_copies_and_states_compute_the_same(kind: Kind) -> None:
    layer = make(kind)
    xs = inputs(kind, layer)
    empty = make(kind, device="meta")
    assert all(p.is_meta for p in empty.parameters())
    empty.load_state_dict(layer.state_dict(), assign=True)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), empty):
        assert_equal(twin(*xs), layer(*xs), "a twin")


@pytest.mark.parametrize("kind, training", list(zip(LAYERS, (True, False), strict=True)))
def test_compiles_in_one_graph_with_a_dynamic_batch(kind: Kind, training: bool) -> None:
    layer = make(kind, batch_first=True).train(training)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    xs = inputs(kind, layer)
    for times in (1, 2):
        many = [torch.cat([x.detach()] * times) for x in xs]
        assert_equal(compiled(*many), layer(*many), "compiled")


@pytest.mark.parametrize("kind", LAYERS)
def test_exports_with_a_dynamic_batch(kind: Kind) -> None:
    layer = make(kind, batch_first=True).eval()
    xs = tuple(x.detach() for x in inputs(kind, layer))
    program = torch.export.export(layer, xs, dynamic_shapes=tuple({0: Dim.DYNAMIC} for _ in xs)).module()
    many = [torch.cat([x, x]) for x in xs]
    assert_equal(program(*many), layer(*many), "exported")


@pytest.mark.parametrize("kind", LAYERS)
def test_lower_precision_gives_nearly_the_same(kind: Kind) -> None:
    layer = make(kind)
    xs = inputs(kind, layer)
    expected = layer(*xs)
    low = copy.deepcopy(layer).bfloat16()(*(x.bfloat16() for x in xs))
    with torch.autocast("cpu", torch.bfloat16):
        cast = copy.deepcopy(layer).float()(*(x.float() for x in xs))
    assert low.dtype == torch.bfloat16
    for y in (low, cast):
        assert_equal(y.float(), expected, "lower precision", tol=3e-2)


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"dim_feedforward": 0}, "dim_feedforward came as 0"),
        ({"activation": "swish"}, "activation came as 'swish'"),
        ({"nhead": 3}, "embed_dim=8 does not split into 3 heads"),
        ({"rank": {"linear3": 2}}, "rank names 'linear3', but the parts are q, k, v, out, linear1, linear2"),
        ({"format": "tt"}, "format came for q, k, v, out, linear1, linear2, but no rank"),
    ],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_what_cannot_be_served_is_refused_at_construction(kind: Kind, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind(**{"d_model": 8, "nhead": 2, **options})


def test_other_types_are_refused() -> None:
    class Other(nn.TransformerEncoderLayer):
        pass

    kind = FactorizedTransformerEncoderLayer
    with pytest.raises(UnsupportedError, match="the layer is a Other"):
        kind.from_dense(Other(8, 2), TruncatedSVD(), 2)
    dense = make_dense(kind)
    dense.linear1 = FactorizedLinear.from_linear(dense.linear1, TruncatedSVD(), 2)
    with pytest.raises(UnsupportedError, match="linear1 is a FactorizedLinear"):
        kind.from_dense(dense, TruncatedSVD(), 2)
    layer = make(kind)
    layer.self_attn = layer.self_attn.to_dense()
    with pytest.raises(UnsupportedError, match="self_attn is a MultiheadAttention"):
        layer.to_dense()
