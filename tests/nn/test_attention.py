"""Factorized attention equals its dense twin, forward and all gradients, over options and masks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.nn import FactorizedLinear, FactorizedMultiheadAttention, FactorizedTensor
from tenfold.testing.compare import assert_equal

EMBED, HEADS, BATCH, QUERIES, KEYS = 8, 2, 3, 4, 5
RANK = {"q": 3, "k": 2, "v": None, "out": 4}
DOUBLE = torch.float64

OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"add_bias_kv": True},
    {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    {"kdim": 6, "vdim": 10},
    {"vdim": 4, "bias": False, "add_bias_kv": True, "batch_first": True},
    {"dropout": 0.4},
]
ATTN_MASKS = [None, "bool", "float", "bool for each head", "float for each head"]
PADDINGS = [None, "bool", "float"]


def attention(rank: Any = RANK, **options: Any) -> FactorizedMultiheadAttention:
    torch.manual_seed(0)
    return FactorizedMultiheadAttention(EMBED, HEADS, rank=rank, dtype=DOUBLE, **options)


def sequences(layer: FactorizedMultiheadAttention, batched: bool = True) -> list[Tensor]:
    torch.manual_seed(1)
    shapes = [(QUERIES, layer.embed_dim), (KEYS, layer.kdim), (KEYS, layer.vdim)]
    at = 0 if layer.batch_first else 1
    full = [(*s[:at], BATCH, *s[at:]) if batched else s for s in shapes]
    return [torch.randn(shape, dtype=DOUBLE, requires_grad=True) for shape in full]


def masks(attn: str | None, padding: str | None, batched: bool = True) -> dict[str, Tensor]:
    """Masks that leave every query at least the first key."""
    batch = BATCH if batched else 1
    found = {}
    if attn is not None:
        shape = (batch * HEADS, QUERIES, KEYS) if "each" in attn else (QUERIES, KEYS)
        found["attn_mask"] = mask(shape, attn.split()[0])
    if padding is not None:
        shape = (batch, KEYS) if batched else (KEYS,)
        found["key_padding_mask"] = mask(shape, padding)
    return found


def mask(shape: tuple[int, ...], kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if kind == "float":
        return torch.randn(shape, dtype=DOUBLE, generator=generator)
    hidden = torch.rand(shape, generator=generator) < 0.5
    hidden[..., 0] = False
    return hidden


def weight_of(part: nn.Module) -> Tensor:
    weight: Any = part.weight
    return weight.dense() if isinstance(weight, FactorizedTensor) else weight


def twin_state(layer: FactorizedMultiheadAttention) -> dict[str, Tensor]:
    """The parameters of the dense twin, differentiable in those of the layer."""
    first = [layer.q_proj, layer.k_proj, layer.v_proj]
    state = {"out_proj.weight": weight_of(layer.out_proj)}
    if layer._qkv_same_embed_dim:
        state["in_proj_weight"] = torch.cat([weight_of(p) for p in first])
    else:
        state |= {f"{n}_proj_weight": weight_of(p) for n, p in zip("qkv", first, strict=True)}
    if layer.out_proj.bias is not None:
        state["in_proj_bias"] = torch.cat([p.bias for p in first])
        state["out_proj.bias"] = layer.out_proj.bias
    extra = {name: getattr(layer, name) for name in ("bias_k", "bias_v")}
    return state | {name: p for name, p in extra.items() if p is not None}


def of_both(
    layer: FactorizedMultiheadAttention, inputs: list[Tensor], **arguments: Any
) -> Iterator[tuple[Tensor, ...]]:
    """What the layer gives and what its dense twin gives, with the same random numbers."""
    dense = layer.to_dense()
    torch.manual_seed(3)
    yield layer(*inputs, **arguments)
    torch.manual_seed(3)
    yield torch.func.functional_call(dense, twin_state(layer), tuple(inputs), arguments)


def assert_equals_twin(layer: FactorizedMultiheadAttention, inputs: list[Tensor], **arguments: Any) -> None:
    """Outputs, weights, and the gradients of inputs, float masks and all parameters."""
    ours, theirs = of_both(layer, inputs, **arguments)
    assert (ours[1] is None) == (theirs[1] is None)
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None]
    upstream = [torch.randn_like(a) for a, _ in pairs]
    leaves = [*inputs, *layer.parameters()]
    for a, b in pairs:
        assert_equal(a, b, "attention equals its dense twin")
    for which, law in ((0, "ours"), (1, "theirs")):
        assert all(torch.isfinite(p[which]).all() for p in pairs), law
    found, wanted = (
        torch.autograd.grad([p[k] for p in pairs], leaves, upstream, allow_unused=True) for k in (0, 1)
    )
    for a, b in zip(found, wanted, strict=True):
        assert_equal(zero_if_none(a), zero_if_none(b), "attention has the gradients of its dense twin")


def zero_if_none(gradient: Tensor | None) -> Tensor:
    return torch.zeros(()) if gradient is None else gradient


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("attn", ATTN_MASKS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")  # torch's, of its own twin
def test_equals_dense_twin(options: dict, attn: str | None, padding: str | None, need_weights: bool) -> None:
    layer = attention(**options)
    assert_equals_twin(layer, sequences(layer), need_weights=need_weights, **masks(attn, padding))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padding", [None, "bool"])
@pytest.mark.parametrize("attn", ATTN_MASKS)
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[5], OPTIONS[6]], ids=str)
@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
def test_equals_dense_twin_without_a_batch(
    options: dict, attn: str | None, padding: str | None, need_weights: bool
) -> None:
    layer = attention(**options)
    arguments = masks(attn, padding, batched=False)
    assert_equals_twin(layer, sequences(layer, batched=False), need_weights=need_weights, **arguments)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_weights_of_each_head_equal_those_of_the_dense_twin(batch_first: bool, batched: bool) -> None:
    layer = attention(batch_first=batch_first)
    inputs = sequences(layer, batched)
    ours, theirs = of_both(layer, inputs, average_attn_weights=False)
    assert_equal(ours[1], theirs[1], "weights of each head")
    assert ours[1].shape == ((BATCH,) if batched else ()) + (HEADS, QUERIES, KEYS)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padding", [None, "bool"])
def test_the_hint_that_a_mask_is_causal_changes_nothing(padding: str | None, need_weights: bool) -> None:
    layer = attention(batch_first=True)
    x = sequences(layer)[0]
    causal = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)
    hidden = {} if padding is None else {"key_padding_mask": mask((BATCH, QUERIES), "bool")}
    arguments = {"attn_mask": causal, "need_weights": need_weights, **hidden}
    assert_equals_twin(layer, [x, x, x], is_causal=True, **arguments)
    assert_equal(layer(x, x, x, is_causal=True, **arguments)[0], layer(x, x, x, **arguments)[0], "the hint")


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_keys_that_are_added_are_seen_with_the_causal_hint_too(options: dict) -> None:
    layer = attention(**options)
    x = sequences(layer)[0]
    causal = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)
    plain = layer(x, x, x, attn_mask=causal, need_weights=False)[0]
    hinted = layer(x, x, x, attn_mask=causal, need_weights=False, is_causal=True)[0]
    assert_equal(hinted, plain, "the hint with keys that are added")


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_query_that_may_look_at_nothing_gives_what_it_gives_in_torch(need_weights: bool) -> None:
    layer = attention(batch_first=True)
    inputs = sequences(layer)
    hidden = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    hidden[1] = True
    ours, theirs = of_both(layer, inputs, key_padding_mask=hidden, need_weights=need_weights)
    assert ours[0][1].isnan().all() == need_weights
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_gradients_reach_float_masks_as_in_the_dense_twin() -> None:
    layer = attention()
    attn = torch.randn(QUERIES, KEYS, dtype=DOUBLE, requires_grad=True)
    for need_weights in (True, False):
        ours, theirs = of_both(layer, sequences(layer), attn_mask=attn, need_weights=need_weights)
        found, wanted = (torch.autograd.grad(y[0].square().sum(), attn)[0] for y in (ours, theirs))
        assert_equal(found, wanted, "the gradient of a mask")


def test_parts_without_a_rank_are_dense() -> None:
    layer = attention(rank={"q": 2, "v": 3})
    kinds = [type(p) for p in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)]
    assert kinds == [FactorizedLinear, nn.Linear, FactorizedLinear, nn.Linear]
    assert all(type(p) is nn.Linear for p in attention(rank=None).children())


@pytest.mark.parametrize("kdim", [None, 384])
@pytest.mark.parametrize("rank", [None, 24])
def test_new_weights_have_the_deviation_of_torchs(rank: int | None, kdim: int | None) -> None:
    torch.manual_seed(0)
    layer = FactorizedMultiheadAttention(256, 4, add_bias_kv=True, kdim=kdim, rank=rank)
    dense, made = nn.MultiheadAttention(256, 4, add_bias_kv=True, kdim=kdim), layer.to_dense()
    for name, p in dense.named_parameters():
        assert made.get_parameter(name).std().item() == pytest.approx(p.std().item(), rel=0.15), name


def test_the_heads_may_be_a_mode() -> None:
    layer = attention(rank=2, format="cp", layout="(o0=2 o1) i -> o0 o1 i")
    assert layer.q_proj.weight.network.shape == (2, 4, 8)
    assert_equals_twin(layer, sequences(layer))


@pytest.mark.parametrize("shape", [(BATCH, 0, EMBED), (0, QUERIES, EMBED)])
def test_empty_sequences_and_batches_pass(shape: tuple[int, ...]) -> None:
    layer = attention(batch_first=True)
    x = torch.zeros(shape, dtype=DOUBLE)
    assert layer(x, x, x)[0].shape == shape
