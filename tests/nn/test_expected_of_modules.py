"""What people do with modules of torch: freeze, load in place, begin anew, mask padding, call by name."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tenfold import Budget, compress
from tenfold.core.errors import UnsupportedError
from tenfold.decompose import CPALS, STHOSVD, TruncatedSVD
from tenfold.nn import (
    TCL,
    FactorizedConv,
    FactorizedEmbedding,
    FactorizedLinear,
    FactorizedMultiheadAttention,
)


def linear(rank: int = 3) -> FactorizedLinear:
    torch.manual_seed(0)
    return FactorizedLinear(8, 6, rank=rank)


@pytest.mark.parametrize("place", ["linear1", "self_attn.q_proj"])
def test_an_encoder_with_factors_behind_its_first_layer_takes_padding(place: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    encoder, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(3, 5, 16)
    padded = torch.arange(5) >= torch.tensor([[5], [3], [2]])
    chosen = {f"layers.1.{place}": "weight_svd"}
    small = compress(encoder, Budget(params=0.9), example=x, preset=None, select=chosen).model
    with torch.no_grad():
        masked, shown = small(x, src_key_padding_mask=padded), ~padded
    trained = small.train()(x, src_key_padding_mask=padded)
    torch.testing.assert_close(masked[shown], trained[shown], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_keeps_the_memory_that_there_is(assign: bool) -> None:
    layer, state = linear(), copy.deepcopy(linear().state_dict())
    before = {name: value.data_ptr() for name, value in layer.state_dict().items()}
    layer.load_state_dict(state, assign=assign)
    after = {name: value.data_ptr() for name, value in layer.state_dict().items()}
    assert after == ({name: value.data_ptr() for name, value in state.items()} if assign else before)


def test_kernels_of_another_memory_order_are_still_laid_out_anew() -> None:
    layer = FactorizedConv(4, 4, (3, 3), rank=2, format="cp", layout="o i h w -> o i (h w)")
    wanted = {name: value.stride() for name, value in layer.state_dict().items()}
    layer.load_state_dict(
        {n: v.clone(memory_format=torch.contiguous_format) for n, v in layer.state_dict().items()},
        assign=True,
    )
    assert {name: value.stride() for name, value in layer.state_dict().items()} == wanted


@pytest.mark.parametrize("change", [nn.init.normal_, nn.init.uniform_, lambda w: nn.init.constant_(w, 0.0)])
def test_what_would_change_a_dense_copy_alone_is_refused(change: Any) -> None:
    layer = linear()
    before = layer.weight.dense().clone()
    with pytest.raises(UnsupportedError, match=r"in place.*\nChange the factors, or begin anew with"):
        change(layer.weight)
    assert torch.equal(layer.weight.dense(), before)
    target = torch.zeros(6, 8)
    assert torch.equal(target.copy_(layer.weight.dense()), before)


def flags(module: nn.Module) -> set[bool]:
    return {p.requires_grad for p in module.parameters()}


@pytest.mark.parametrize("trained", [False, True])
def test_layers_are_trained_as_the_dense_ones_are(trained: bool) -> None:
    plain = nn.Linear(8, 6).requires_grad_(trained)
    conv, table = nn.Conv2d(4, 6, 3).requires_grad_(trained), nn.Embedding(9, 4).requires_grad_(trained)
    made: list[Any] = [
        FactorizedLinear.decomposed(plain, TruncatedSVD(), 2, "o i -> o i"),
        FactorizedConv.decomposed(conv, STHOSVD(), 2, "o i h w -> o i h w"),
        FactorizedEmbedding.decomposed(table, TruncatedSVD(), 2, "v o -> v o"),
    ]
    for layer in made:
        assert flags(layer) == flags(layer.to_dense()) == {trained}
    attention = nn.MultiheadAttention(8, 2).requires_grad_(trained)
    whole = FactorizedMultiheadAttention.from_dense(attention, TruncatedSVD(), 2)
    assert flags(whole) == {trained}


def test_a_frozen_bias_stays_frozen_in_a_contraction_layer() -> None:
    dense = nn.Linear(12, 6)
    dense.bias.requires_grad_(False)
    layer = TCL.from_dense(dense, (3, 4), (2, 3), CPALS())
    assert layer.bias is not None and not layer.bias.requires_grad
    assert all(factor.requires_grad for factor in layer.factors)


def test_linear_takes_its_arguments_by_name() -> None:
    tltorch = pytest.importorskip("tenfold.compat.tltorch")
    torch.manual_seed(0)
    weight, x = tltorch.TensorizedTensor.new(((2, 3), (2, 4)), rank=2, factorization="CP"), torch.randn(5, 8)
    weight.normal_()
    for found in (F.linear(x, weight=weight), F.linear(input=x, weight=weight), F.linear(x, weight)):
        torch.testing.assert_close(found, x @ weight.to_matrix().T)
