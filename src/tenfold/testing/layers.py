"""The laws of a factorized layer. Each function states one; `check_layer` runs them all.

`x` is an input whose first axis is a batch, or a `Call` for layers with several inputs.
"""

import copy
import io
import pickle
from inspect import signature
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim

from tenfold.testing.calls import Call, complete, gradients, results, trained
from tenfold.testing.compare import assert_equal
from tenfold.testing.twins import twin_parameters


def check_layer(layer: nn.Module, x: Tensor | Call) -> None:
    """Raise AssertionError unless `layer` obeys every law at the input `x`, whose first axis is a batch.

    >>> from tenfold.nn import FactorizedLinear
    >>> check_layer(FactorizedLinear(6, 4, rank=2), torch.ones(3, 6))
    """
    for law in LAWS:
        law(layer, x)


def check_dense_twin(layer: nn.Module, x: Tensor | Call) -> None:
    """Outputs and all gradients are those of `to_dense()`."""
    call, dense = Call.of(x), to_dense(layer)
    ours, theirs = (
        tuple(
            i.detach().clone().requires_grad_(i.is_floating_point() or i.is_complex()) for i in call.inputs()
        )
        for _ in range(2)
    )
    y = layer(*ours, **call.settings)
    expected = torch.func.functional_call(dense, twin_parameters(layer), theirs, dict(call.settings))
    assert_all_equal(y, expected, f"{complete(layer)} equals its dense twin")
    inputs = [[i for i in side if i.requires_grad] for side in (ours, theirs)]
    found = gradients(y, inputs[0] + trained(layer))
    wanted = gradients(expected, inputs[1] + trained(layer))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, f"{complete(layer)} has the gradients of its dense twin")


def check_to_dense(layer: nn.Module, x: Tensor | Call) -> None:
    """`to_dense()` is torch's layer in the same mode, computes the same and shares no memory."""
    call, dense = Call.of(x), to_dense(layer)
    assert dense.training == layer.training, f"to_dense() of {complete(layer)} is in another mode"
    assert not storages(dense) & storages(layer), f"to_dense() shares memory with {complete(layer)}"
    assert_all_equal(call(dense), call(layer), f"to_dense() of {complete(layer)}")
    names = set(twin_parameters(layer))
    assert set(dict(dense.named_parameters())) == names, (
        f"to_dense() of {complete(layer)} has other parameters"
    )


def check_copies(layer: nn.Module, x: Tensor | Call) -> None:
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
        assert not storages(twin) & storages(layer), f"a copy of {complete(layer)} shares parameters with it"


def check_state_dict(layer: nn.Module, x: Tensor | Call) -> None:
    """The state of a layer put into another one makes it compute the same."""
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    twin.load_state_dict(layer.state_dict())
    assert_same(twin, layer, x, "load_state_dict")


def check_meta(layer: nn.Module, x: Tensor | Call) -> None:
    """A layer on the meta device takes a state by assignment, in any memory order."""
    twin = copy.deepcopy(layer).to("meta")
    twin.load_state_dict(packed(layer), assign=True)
    assert_same(twin, layer, x, "meta device and assign=True")
    for own, kept in zip(twin.parameters(), layer.parameters(), strict=True):
        assert own.stride() == kept.stride(), f"{complete(layer)} loses its memory order: {own.stride()}"


def check_safetensors(layer: nn.Module, x: Tensor | Call) -> None:
    """Contiguous copies of the factors go through safetensors."""
    twin = copy.deepcopy(layer).to("meta")
    twin.load_state_dict(safetensors.torch.load(safetensors.torch.save(packed(layer))), assign=True)
    assert_same(twin, layer, x, "safetensors")


def check_compile(layer: nn.Module, x: Tensor | Call) -> None:
    """`torch.compile` takes it in one graph, also where the batch changes, and trains it."""
    call = Call.of(x)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for times in (1, 2, 3):
        assert_all_equal(call(compiled, times), call(layer, times), f"{complete(layer)} compiled")
    leaves = trained(layer)
    found, wanted = (gradients(call(f), leaves) for f in (compiled, layer))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, f"{complete(layer)} compiled has the same gradients")


def check_export(layer: nn.Module, x: Tensor | Call) -> None:
    """`torch.export` takes it with a dynamic batch."""
    call, twin = Call.of(x), copy.deepcopy(layer).eval()
    shapes: dict[str, Any] = {
        name: {axis: Dim.DYNAMIC}
        for name, axis in zip(signature(twin.forward).parameters, call.axes, strict=False)
    }
    shapes |= dict.fromkeys(call.settings)
    program = torch.export.export(twin, call.inputs(2), dict(call.settings), dynamic_shapes=shapes).module()
    for times in (2, 3):
        assert_all_equal(call(program, times), call(twin, times), f"{complete(layer)} exported")


def to_dense(layer: Any) -> nn.Module:
    """The dense twin, with dense gradients: those of a table that is contracted from factors are dense."""
    dense: nn.Module = layer.to_dense()
    if isinstance(dense, nn.Embedding | nn.EmbeddingBag):
        dense.sparse = False
    return dense


def packed(layer: nn.Module) -> dict[str, Tensor]:
    """The state with every tensor contiguous in the order of its axes."""
    return {key: t.contiguous() for key, t in layer.state_dict().items()}


def storages(layer: nn.Module) -> set[int]:
    """Where the parameters that have elements lie in memory."""
    return {p.untyped_storage().data_ptr() for p in layer.parameters() if p.numel()}


def programs(layer: nn.Module) -> list[Any]:
    """The steps of the layer and of those inside it."""
    return [module.program for module in layer.modules() if hasattr(module, "program")]


def assert_same(twin: nn.Module, layer: nn.Module, x: Tensor | Call, what: str) -> None:
    """Raise AssertionError unless both layers compute the same from the same programs."""
    call = Call.of(x)
    assert programs(twin) == programs(layer), f"{complete(layer)} after {what} runs another program"
    assert_all_equal(call(twin), call(layer), f"{complete(layer)} after {what}")


def assert_all_equal(y: Any, expected: Any, law: str, tol: float | None = None) -> None:
    """Raise AssertionError unless a layer returned what was expected, tensor for tensor."""
    found, wanted = results(y), results(expected)
    assert len(found) == len(wanted), f"{law}: {len(found)} tensors came, expected were {len(wanted)}"
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, law, tol)


LAWS = (
    check_dense_twin,
    check_to_dense,
    check_copies,
    check_state_dict,
    check_meta,
    check_safetensors,
    check_compile,
    check_export,
)
