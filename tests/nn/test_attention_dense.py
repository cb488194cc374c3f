"""Attention made from a dense module, and dense modules made from it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError, UnsupportedError
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
from tenfold.nn import FactorizedLinear, FactorizedMultiheadAttention
from tenfold.testing.compare import assert_equal

OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_first": True, "bias": False},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 6, "vdim": 10},
]

FOUR = "(o0=2 o1) (i0=2 i1) -> o0 o1 i0 i1"
PAIRS = "(o0=2 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"
FULL: dict[str, tuple[Any, Any, str]] = {
    "lowrank": (TruncatedSVD(), 8, "o i -> o i"),
    "sliced_lowrank": (SlicedSVD(), 8, "o (i0=2 i1) -> o i0 i1"),
    "cp": (CPALS(tol=1e-12), 8, "o i -> o i"),
    "tucker": (STHOSVD(), 8, FOUR),
    "tt": (TTSVD(), 64, FOUR),
    "tr": (TRSVD(), 64, PAIRS),
    "ht": (HTSVD(), 64, FOUR),
    "kronecker": (KroneckerSVD(), 64, FOUR),
    "block_term": (BlockTermGN(), {"T": 1, "R0": 8, "R1": 8}, "o i -> o i"),
}
"""For every format what holds any matrix of 8 by 8 without loss."""


def dense_attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    dense = nn.MultiheadAttention(8, 2, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in dense.parameters():
            p.copy_(torch.randn_like(p) / 2)
    return dense


def sequences(dense: nn.MultiheadAttention) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(3, 3, n, dtype=torch.float64) for n in (dense.embed_dim, dense.kdim, dense.vdim)]


def assert_computes_the_same(a: nn.Module, b: nn.Module, inputs: list[Tensor]) -> None:
    assert a.training == b.training
    for need_weights in (True, False):
        for x, y in zip(
            a(*inputs, need_weights=need_weights), b(*inputs, need_weights=need_weights), strict=True
        ):
            assert (x is None) == (y is None)
            if x is not None:
                assert_equal(x, y, f"{type(a).__name__} equals {type(b).__name__}")


def test_there_is_a_method_for_every_format() -> None:
    assert set(FULL) == set(formats)


@pytest.mark.parametrize("format", formats)
def test_every_format_at_full_rank_equals_the_dense_module(format: str) -> None:
    dense = dense_attention()
    layer = FactorizedMultiheadAttention.from_dense(dense, *FULL[format])
    assert {formats.name_of(p.weight.format) for p in layer.children()} == {format}
    assert_computes_the_same(layer, dense, sequences(dense))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_settings_and_biases_come_over(options: dict, training: bool) -> None:
    dense = dense_attention(**options).train(training)
    layer = FactorizedMultiheadAttention.from_dense(dense, TruncatedSVD(), 10)
    assert_computes_the_same(layer, dense, sequences(dense))
    assert_computes_the_same(layer.to_dense(), dense, sequences(dense))
    assert {n: p.shape for n, p in layer.to_dense().named_parameters()} == {
        n: p.shape for n, p in dense.named_parameters()
    }
    assert not memory(layer) & memory(dense)
    assert not memory(layer.to_dense()) & memory(layer)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_opened_computes_the_same_in_the_memory_of_the_dense_module(options: dict, training: bool) -> None:
    dense = dense_attention(**options).train(training)
    layer = FactorizedMultiheadAttention.opened(dense)
    assert_computes_the_same(layer, dense, sequences(dense))
    assert memory(layer) == memory(dense)
    assert sum(p.numel() for p in layer.parameters()) == sum(p.numel() for p in dense.parameters())
    with torch.no_grad():
        layer.k_proj.weight[0, 0] = 100
    assert_computes_the_same(layer, dense, sequences(dense))


def test_opened_and_made_dense_again_has_the_state_of_the_dense_module() -> None:
    dense = dense_attention(add_bias_kv=True)
    again = FactorizedMultiheadAttention.opened(dense).to_dense()
    assert not memory(again) & memory(dense)
    state = again.state_dict()
    assert list(state) == list(dense.state_dict())
    assert all(torch.equal(state[name], p) for name, p in dense.state_dict().items())


def test_opened_keeps_what_is_trained() -> None:
    dense = dense_attention()
    dense.in_proj_weight.requires_grad_(False)
    layer = FactorizedMultiheadAttention.opened(dense)
    assert [p.requires_grad for p in layer.q_proj.parameters()] == [False, True]
    assert [p.requires_grad for p in layer.out_proj.parameters()] == [True, True]
    assert not layer.to_dense().in_proj_weight.requires_grad


def test_linear_layers_of_an_opened_module_can_be_replaced() -> None:
    layer = FactorizedMultiheadAttention.opened(dense_attention())
    layer.v_proj = FactorizedLinear.from_linear(layer.v_proj, TruncatedSVD(), 3)
    dense = layer.to_dense()
    assert_computes_the_same(layer, dense, sequences(dense))
    assert torch.linalg.matrix_rank(dense.in_proj_weight[16:]) == 3


def test_each_part_has_its_own_method_ranks_and_layout() -> None:
    layer = FactorizedMultiheadAttention.from_dense(
        dense_attention(), {"q": TruncatedSVD(), "v": TTSVD()}, {"q": 2, "v": 3}, {"v": PAIRS}
    )
    assert type(layer.k_proj) is type(layer.out_proj) is nn.Linear
    assert layer.q_proj.weight.ranks == {"R": 2}
    assert str(layer.v_proj.layout) == "(o0=2 o1=4) (i0=2 i1=4) -> (o0 i0) (o1 i1)"


def test_ranks_by_bond_are_one_choice_for_all_parts() -> None:
    layer = FactorizedMultiheadAttention.from_dense(dense_attention(), TruncatedSVD(), {"R": 3})
    assert [p.weight.ranks for p in layer.children()] == [{"R": 3}] * 4


def test_a_bias_that_one_projection_lacks_becomes_zeros() -> None:
    layer = FactorizedMultiheadAttention.opened(dense_attention())
    layer.k_proj.bias = None
    dense = layer.to_dense()
    assert not dense.in_proj_bias[8:16].any()
    assert_computes_the_same(layer, dense, sequences(dense))


def test_subclasses_are_refused() -> None:
    class Other(nn.MultiheadAttention):
        pass

    for make in (
        FactorizedMultiheadAttention.opened,
        lambda d: FactorizedMultiheadAttention.from_dense(d, TruncatedSVD(), 2),
    ):
        with pytest.raises(UnsupportedError, match="a Other came"):
            make(Other(8, 2))


def test_a_part_that_is_no_linear_layer_has_no_dense_weight() -> None:
    layer = FactorizedMultiheadAttention.opened(dense_attention())
    layer.q_proj = nn.Sequential(layer.q_proj)
    with pytest.raises(UnsupportedError, match="'q_proj' is a Sequential"):
        layer.to_dense()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (({"query": TruncatedSVD()}, 2), "method names 'query', but the parts are q, k, v, out"),
        (({"q": TruncatedSVD()}, {"q": 2, "k": 2}), "ranks came for k, but no method"),
        ((None, 2), "ranks came for q, k, v, out, but no method"),
        (({"q": TruncatedSVD()}, 2, {"v": "o i -> o i"}), "layout came for v, but no method"),
    ],
)
def test_choices_that_would_do_nothing_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FactorizedMultiheadAttention.from_dense(dense_attention(), *arguments)


def memory(module: nn.Module) -> set[int]:
    return {p.untyped_storage().data_ptr() for p in module.parameters()}
