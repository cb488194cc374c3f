"""The laws of a factorized layer. Each function states one; `check_layer` runs them all."""

import copy
import io
import pickle
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim

from tenfold.nn import FactorizedLayer
from tenfold.testing.compare import assert_equal


def check_layer(layer: FactorizedLayer, x: Tensor) -> None:
    """Raise AssertionError unless `layer` obeys every law at the input `x`, whose first axis is a batch.

    >>> from tenfold.nn import FactorizedLinear
    >>> check_layer(FactorizedLinear(6, 4, rank=2), torch.ones(3, 6))
    """
    for law in LAWS:
        law(layer, x)


def check_dense_twin(layer: FactorizedLayer, x: Tensor) -> None:
    """Output and all gradients are those of `to_dense()`."""
    dense, weight = layer.to_dense(), layer.dense_weight().clone()  # which max_norm changes in place
    if isinstance(dense, nn.Embedding | nn.EmbeddingBag):
        dense.sparse = False  # a table that is contracted from factors takes dense gradients only
    settings = {name: p for name, p in layer.named_parameters() if not name.startswith("weight.")}
    ours, theirs = (x.detach().clone().requires_grad_(x.is_floating_point()) for _ in range(2))
    y = layer(ours)
    expected = torch.func.functional_call(dense, {**settings, "weight": weight}, (theirs,))
    assert_equal(y, expected, f"{name(layer)} equals its dense twin")
    leaves = [*layer.weight.factors(), *settings.values()]
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    inputs = ([ours], [theirs]) if x.is_floating_point() else ([], [])
    found = torch.autograd.grad(y, inputs[0] + leaves, upstream)
    wanted = torch.autograd.grad(expected, inputs[1] + leaves, upstream)
    for a, b in zip(found, wanted, strict=True):
        a = a.to_dense() if a.is_sparse else a
        assert_equal(a, b, f"{name(layer)} has the gradients of its dense twin")


def check_copies(layer: FactorizedLayer, x: Tensor) -> None:
    """`deepcopy`, pickle and `torch.save` give a layer that computes the same and shares nothing."""
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        assert_same(twin, layer, x, "a copy")
        shared = {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in layer.parameters()}
        assert not shared, f"a copy of {name(layer)} shares parameters with it"


def check_state_dict(layer: FactorizedLayer, x: Tensor) -> None:
    """The state of a layer put into another one makes it compute the same."""
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    twin.load_state_dict(layer.state_dict())
    assert_same(twin, layer, x, "load_state_dict")


def check_meta(layer: FactorizedLayer, x: Tensor) -> None:
    """A layer on the meta device takes a state by assignment, in any memory order."""
    twin = copy.deepcopy(layer).to("meta")
    twin.load_state_dict(packed(layer), assign=True)
    assert_same(twin, layer, x, "meta device and assign=True")
    for own, kept in zip(twin.parameters(), layer.parameters(), strict=True):
        assert own.stride() == kept.stride(), f"{name(layer)} loses its memory order: {own.stride()}"


def check_safetensors(layer: FactorizedLayer, x: Tensor) -> None:
    """Contiguous copies of the factors go through safetensors."""
    twin = copy.deepcopy(layer).to("meta")
    twin.load_state_dict(safetensors.torch.load(safetensors.torch.save(packed(layer))), assign=True)
    assert_same(twin, layer, x, "safetensors")


def check_compile(layer: FactorizedLayer, x: Tensor) -> None:
    """`torch.compile` takes it in one graph, also where the batch changes, and trains it."""
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (x, torch.cat([x, x]), torch.cat([x, x, x])):
        assert_equal(compiled(batch), layer(batch), f"{name(layer)} compiled")
    factors = layer.weight.factors()
    found, wanted = (torch.autograd.grad(f(x).sum(), factors) for f in (compiled, layer))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, f"{name(layer)} compiled has the same gradients")


def check_export(layer: FactorizedLayer, x: Tensor) -> None:
    """`torch.export` takes it with a dynamic batch."""
    twin, example = copy.deepcopy(layer).eval(), torch.cat([x, x])
    program = torch.export.export(twin, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
    for batch in (example, torch.cat([example, x])):
        assert_equal(program.module()(batch), twin(batch), f"{name(layer)} exported")


def packed(layer: nn.Module) -> dict[str, Tensor]:
    """The state with every tensor contiguous in the order of its axes."""
    return {key: t.contiguous() for key, t in layer.state_dict().items()}


def assert_same(twin: Any, layer: FactorizedLayer, x: Tensor, what: str) -> None:
    """Raise AssertionError unless both layers compute the same from the same program."""
    assert twin.program == layer.program, f"{name(layer)} after {what} runs another program"
    assert_equal(twin(x), layer(x), f"{name(layer)} after {what}")


def name(layer: nn.Module) -> str:
    """The layer's name for messages."""
    return f"{type(layer).__name__}({layer.extra_repr()})"


LAWS = (
    check_dense_twin,
    check_copies,
    check_state_dict,
    check_meta,
    check_safetensors,
    check_compile,
    check_export,
)
