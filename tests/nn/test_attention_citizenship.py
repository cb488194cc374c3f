"""Attention under the tools of torch: copies, states, compile, export, autocast, vmap, transformer layers."""

import copy
import io
import pickle
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from tenfold.core.errors import LayoutError, OptionError, ShapeError, UnsupportedError
from tenfold.decompose import TruncatedSVD
from tenfold.nn import DenseFallbackWarning, FactorizedLinear, FactorizedMultiheadAttention
from tenfold.testing.compare import assert_equal

RANK = {"q": 3, "k": 2, "out": 4}


def attention(**options: Any) -> FactorizedMultiheadAttention:
    torch.manual_seed(0)
    settings = {"rank": RANK, "batch_first": True, "dtype": torch.float64, **options}
    return FactorizedMultiheadAttention(8, 2, **settings)


def batch(n: int = 3, length: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, length, 8, generator=torch.Generator().manual_seed(n)).to(dtype)


def attend(layer: Any, x: Tensor, **arguments: Any) -> Tensor:
    return layer(x, x, x, **arguments)[0]


def assert_same(twin: nn.Module, layer: nn.Module) -> None:
    assert_equal(attend(twin, batch()), attend(layer, batch()), "the twin computes the same")


# Copies and states ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opened", [True, False])
def test_copies_compute_the_same_and_share_nothing(opened: bool) -> None:
    layer = attention(add_bias_kv=True)
    if opened:
        layer = FactorizedMultiheadAttention.opened(layer.to_dense())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    twins = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)
    for twin in twins:
        assert_same(twin, layer)
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in layer.parameters()}


@pytest.mark.parametrize("options", [{}, {"rank": None}, {"add_bias_kv": True, "bias": False}], ids=str)
def test_states_pass_through_safetensors_and_the_meta_device(options: dict) -> None:
    layer = attention(**options)
    packed = {key: t.contiguous() for key, t in layer.state_dict().items()}
    state = safetensors.torch.load(safetensors.torch.save(packed))
    twin = attention(device="meta", **options)
    assert all(p.is_meta for p in twin.parameters())
    twin.load_state_dict(state, assign=True)
    assert_same(twin, layer)


def test_an_opened_module_can_be_saved_with_safetensors() -> None:
    layer = FactorizedMultiheadAttention.opened(attention().to_dense())
    state = safetensors.torch.load(safetensors.torch.save(layer.state_dict()))
    assert all(torch.equal(state[key], p) for key, p in layer.state_dict().items())


# Compile, export, func --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, need_weights",
    [({}, False), ({"add_bias_kv": True, "add_zero_attn": True}, True), ({"batch_first": False}, False)],
    ids=str,
)
def test_compiles_in_one_graph_with_a_dynamic_batch(options: dict, need_weights: bool) -> None:
    layer = attention(**options)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (3, 4, 6):
        x = batch(n)
        hidden = torch.zeros(x.shape[:2] if layer.batch_first else x.shape[1::-1], dtype=torch.bool)
        hidden[:, -1] = True
        arguments = {"key_padding_mask": hidden, "need_weights": need_weights}
        ours, theirs = attend(compiled, x, **arguments), attend(layer, x, **arguments)
        assert_equal(ours, theirs, "compiled")
        found, wanted = (
            torch.autograd.grad(y.square().sum(), list(layer.parameters())) for y in (ours, theirs)
        )
        for a, b in zip(found, wanted, strict=True):
            assert_equal(a, b, "compiled gradients")


class SelfAttention(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.inner, self.need_weights = attention(), need_weights

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return attend(self.inner, x, attn_mask=mask, need_weights=self.need_weights)


@pytest.mark.parametrize("need_weights", [True, False])
def test_exports_with_a_dynamic_batch_and_length(need_weights: bool) -> None:
    model = SelfAttention(need_weights).eval()
    mask = torch.zeros(5, 5, dtype=torch.bool).logical_not().triu(1)
    length = Dim("length", min=2)
    shapes = {"x": {0: Dim("batch"), 1: length}, "mask": {0: length, 1: length}}
    program = torch.export.export(model, (batch(), mask), dynamic_shapes=shapes).module()
    for n, size in ((2, 5), (4, 7)):
        x, mask = batch(n, size), torch.ones(size, size, dtype=torch.bool).triu(1)
        assert_equal(program(x, mask), model(x, mask), "exported")


def test_vmap_over_models_and_inputs() -> None:
    layers = [attention() for _ in range(2)]
    with torch.no_grad():
        for p in layers[1].parameters():
            p.add_(0.1)
    params, buffers = torch.func.stack_module_state(layers)

    def call(p: Any, b: Any, x: Tensor) -> Tensor:
        return torch.func.functional_call(layers[0], (p, b), (x, x, x))[0]

    x = torch.stack([batch(2), batch(2) + 1])
    y = torch.func.vmap(call)(params, buffers, x)
    for k in range(2):
        assert_equal(y[k], attend(layers[k], x[k]), "vmap")


# Dtypes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_gives_nearly_the_same(dtype: torch.dtype, need_weights: bool) -> None:
    layer = attention(add_bias_kv=True)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[:, -1] = True
    expected = attend(layer, batch(), key_padding_mask=hidden, need_weights=need_weights)
    y = attend(
        copy.deepcopy(layer).to(dtype), batch(dtype=dtype), key_padding_mask=hidden, need_weights=need_weights
    )
    assert y.dtype == dtype
    assert_equal(y, expected, "lower precision")


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_autocast_gives_the_dtypes_of_the_dense_module(kind: str, need_weights: bool) -> None:
    layer = attention(dtype=torch.float32, add_bias_kv=True, add_zero_attn=True)
    x, mask = batch(dtype=torch.float32), torch.ones(5, 5, dtype=torch.bool).triu(1)
    if kind == "float":
        mask = torch.zeros(5, 5).masked_fill(mask, float("-inf"))
    expected = attend(layer, x, attn_mask=mask)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (
            m(x, x, x, attn_mask=mask, need_weights=need_weights) for m in (layer, layer.to_dense())
        )
    assert [None if y is None else y.dtype for y in ours] == [None if y is None else y.dtype for y in theirs]
    assert_equal(ours[0], expected, "autocast")


def test_checkpointing_gives_the_same_gradients() -> None:
    layer, x = attention(), batch().requires_grad_()
    plain = attend(layer, x).square().sum()
    saved = torch.utils.checkpoint.checkpoint(attend, layer, x, use_reentrant=False).square().sum()
    for a, b in zip(*(torch.autograd.grad(y, [x, *layer.parameters()]) for y in (plain, saved)), strict=True):
        assert_equal(a, b, "checkpointing")


# Inside torch's transformer layers --------------------------------------------------------------------------


def encoder_layer(dtype: torch.dtype = torch.float64, **options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=dtype, **options)


PADDED = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]], dtype=torch.bool)


def assert_equal_where_there_is_something(a: Tensor, b: Tensor) -> None:
    for k, padded in enumerate(PADDED):
        assert_equal(a[k][~padded], b[k][~padded], "what is not padding")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")  # the dense encoder's
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("replaced", ["opened", "factorized", "factorized with its feed-forward"])
def test_serves_in_torchs_encoder_made_of_torchs_layers(replaced: str, training: bool) -> None:
    dense = nn.TransformerEncoder(encoder_layer(), 2).train(training)
    model = copy.deepcopy(dense)
    for layer in model.layers:
        attn = FactorizedMultiheadAttention.opened(layer.self_attn)
        layer.self_attn = attn
        if replaced != "opened":
            layer.self_attn.q_proj = as_factors(attn.q_proj)
        if replaced == "factorized with its feed-forward":
            layer.linear1 = as_factors(layer.linear1)
    assert model.use_nested_tensor
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            for arguments in (
                {},
                {"src_key_padding_mask": PADDED},
                {"mask": torch.ones(5, 5).triu(1).bool()},
            ):
                y, expected = model(batch(), **arguments), dense(batch(), **arguments)
                if "src_key_padding_mask" in arguments:
                    assert_equal_where_there_is_something(y, expected)
                else:
                    assert_equal(y, expected, "encoder")


def as_factors(linear: nn.Linear) -> FactorizedLinear:
    """The same linear map, of factors of full rank."""
    return FactorizedLinear.from_linear(linear, TruncatedSVD(), 8)


def test_serves_in_torchs_decoder() -> None:
    torch.manual_seed(0)
    dense = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    model = copy.deepcopy(dense)
    model.self_attn = FactorizedMultiheadAttention.opened(model.self_attn)
    model.multihead_attn = FactorizedMultiheadAttention.opened(model.multihead_attn)
    for training in (True, False):
        arguments = {"tgt_mask": torch.ones(5, 5).triu(1).bool(), "tgt_is_causal": True}
        y, expected = (m.train(training)(batch(), batch(3, 4), **arguments) for m in (model, dense))
        assert_equal(y, expected, "decoder")


@pytest.mark.parametrize("mask_check", [True, False])
def test_torchs_encoder_with_it_compiles_in_evaluation(mask_check: bool) -> None:
    layer = encoder_layer()
    layer.self_attn = FactorizedMultiheadAttention.opened(layer.self_attn)
    layer.linear1 = as_factors(layer.linear1)
    model = nn.TransformerEncoder(layer, 2, mask_check=mask_check).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        y, expected = (m(batch(), src_key_padding_mask=PADDED) for m in (compiled, model))
    assert_equal(y, expected, "compiled encoder")


def test_code_that_reads_the_stacked_weights_gets_them() -> None:
    layer, x = attention(), batch().transpose(0, 1)
    assert layer.in_proj_weight.shape == (24, 8) and layer.in_proj_bias.shape == (24,)
    assert layer.in_proj_weight.dtype == torch.float64 and layer.in_proj_weight.requires_grad
    with pytest.warns(
        DenseFallbackWarning, match="multi_head_attention_forward makes a factorized weight dense"
    ):
        y = F.multi_head_attention_forward(
            x, x, x, 8, 2, layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0,
            layer.out_proj.weight, layer.out_proj.bias,
        )[0]  # fmt: skip
    assert_equal(y.transpose(0, 1), attend(layer, batch()), "F.multi_head_attention_forward")
    assert attention(kdim=4).in_proj_weight is None and attention(bias=False).in_proj_bias is None


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"embed_dim": 9}, OptionError, "embed_dim=9 does not split into 2 heads"),
        ({"num_heads": 0}, OptionError, "num_heads came as 0"),
        ({"kdim": 0}, OptionError, "kdim came as 0"),
        ({"dropout": 1.5}, OptionError, "dropout came as 1.5"),
        ({"rank": {"query": 2}}, OptionError, "rank names 'query', but the parts are q, k, v, out"),
        ({"rank": None, "format": "tt"}, OptionError, "format came for q, k, v, out, but no rank"),
        ({"rank": {"q": 2}, "layout": {"v": "o i -> o i"}}, OptionError, "layout came for v, but no rank"),
        ({"rank": 2, "layout": "(o0=3 o1) i -> o0 o1 i"}, LayoutError, "o0 = 3"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_refused_at_construction(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        FactorizedMultiheadAttention(**{"embed_dim": 8, "num_heads": 2, **options})


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"query": torch.zeros(3, 5, 7)}, ShapeError, r"came as \(3, 5, 7\)"),
        ({"key": torch.zeros(2, 5, 8)}, ShapeError, "keys as many as values"),
        ({"value": torch.zeros(3, 4, 8)}, ShapeError, "keys as many as values"),
        ({"query": torch.zeros(5, 8)}, ShapeError, "query, key and value came"),
        ({"query": torch.zeros(4, 5, 8)}, ShapeError, "query, key and value came"),
        (
            {"attn_mask": torch.zeros(5, 4)},
            ShapeError,
            r"attn_mask has shape \(5, 4\), expected was \(5, 5\) or \(6, 5, 5\)",
        ),
        ({"attn_mask": torch.zeros(3, 5, 5)}, ShapeError, r"expected was \(5, 5\) or \(6, 5, 5\)"),
        (
            {"attn_mask": torch.zeros(5, 5, dtype=torch.long)},
            OptionError,
            "attn_mask has the dtype torch.int64",
        ),
        ({"key_padding_mask": torch.zeros(5)}, ShapeError, r"expected was \(3, 5\)"),
        ({"is_causal": True}, OptionError, "is_causal came without attn_mask"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict, error: type, message: str) -> None:
    x = torch.zeros(3, 5, 8)
    layer = attention(dtype=torch.float32).eval()
    with pytest.raises(error, match=message), torch.no_grad():
        layer(**{"query": x, "key": x, "value": x, **change})


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused(layout: torch.layout) -> None:
    x = torch.nested.nested_tensor([torch.zeros(2, 8), torch.zeros(3, 8)], layout=layout)
    layer = attention(dtype=torch.float32).eval()
    with pytest.raises(UnsupportedError, match="a nested tensor came"), torch.no_grad():
        layer(x, x, x)
