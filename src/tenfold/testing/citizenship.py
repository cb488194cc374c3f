"""What a layer does under the rest of torch: memory formats, checkpoints, optimizers, pruning, and so on.

Each function states one law, as those of `layers` do; they begin with a layer in float64.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrize, prune, vector_to_parameters
from torch.utils.checkpoint import checkpoint

from tenfold.nn import FactorizedTensor
from tenfold.testing.calls import Call, complete, gradients, results, trained, upstream
from tenfold.testing.compare import assert_equal
from tenfold.testing.layers import assert_all_equal

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def check_checkpoint(layer: nn.Module, x: Tensor | Call) -> None:
    """Activation checkpointing gives the same outputs and gradients."""
    call, leaves = Call.of(x), trained(layer)
    y = checkpoint(layer, *call.inputs(), use_reentrant=False, **call.settings)
    expected = call(layer)
    assert_all_equal(y, expected, f"{complete(layer)} with checkpointing")
    assert_gradients(
        gradients(y, leaves), gradients(expected, leaves), f"{complete(layer)} with checkpointing"
    )


def check_channels_last(layer: nn.Module, x: Tensor | Call) -> None:
    """Images in channels-last order, and a layer brought to it, give the same."""
    call, twin = Call.of(x), copy.deepcopy(layer)
    inputs = tuple(in_channels_last(i) for i in call.inputs())
    assert_all_equal(layer(*inputs, **call.settings), call(layer), f"{complete(layer)}, channels last")
    if inputs[0].ndim in CHANNELS_LAST and inputs[0].is_floating_point():
        twin.to(memory_format=CHANNELS_LAST[inputs[0].ndim])  # type: ignore[call-overload]
    assert_all_equal(twin(*inputs, **call.settings), call(layer), f"{complete(layer)} in channels-last order")


def check_vector(layer: nn.Module, x: Tensor | Call) -> None:
    """The parameters as one vector and back give the same layer."""
    call, twin = Call.of(x), copy.deepcopy(layer)
    vector = parameters_to_vector(layer.parameters()).detach()
    assert vector.numel() == sum(p.numel() for p in layer.parameters())
    vector_to_parameters(2 * vector, twin.parameters())
    vector_to_parameters(vector, twin.parameters())
    assert_all_equal(call(twin), call(layer), f"{complete(layer)} from a vector")


def check_names(layer: nn.Module, x: Tensor | Call) -> None:
    """Names do not change when the layer is used, copied, or moved, and are those of the state."""
    names = [name for name, _ in layer.named_parameters()]
    twin = copy.deepcopy(layer)
    Call.of(x)(twin)
    twin.to(torch.float32).train(False)
    assert [name for name, _ in twin.named_parameters()] == names
    assert set(names) <= set(layer.state_dict()), f"the state of {complete(layer)} lacks parameters"
    for name, p in layer.named_parameters():
        assert layer.get_parameter(name) is p


def check_optimizers(layer: nn.Module, x: Tensor | Call) -> None:
    """One step of a fused and of a foreach optimizer is one step of the plain one."""
    call = Call.of(x)
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        plain, *others = (
            stepped(layer, call, kind, **how)
            for how in ({"foreach": False}, {"foreach": True}, {"fused": True})
        )
        for other in others:
            assert_gradients(
                list(other.parameters()), list(plain.parameters()), f"{kind.__name__} in one call"
            )


def check_prune(layer: nn.Module, x: Tensor | Call) -> None:
    """Pruning a factor masks it, whatever it learns: the layer computes with zeros, which get no gradient."""
    call, twin = Call.of(x), copy.deepcopy(layer)
    owner, name = a_factor(twin)
    prune.l1_unstructured(owner, name, amount=0.5)
    mask, expected = owner.get_buffer(f"{name}_mask"), copy.deepcopy(layer)
    with torch.no_grad():
        module, own = a_factor(expected)
        module.get_parameter(own).mul_(mask)
    assert_all_equal(call(twin), call(expected), f"{complete(layer)} with a pruned factor")
    (g,) = gradients(call(twin), [owner.get_parameter(f"{name}_orig")])
    assert not g[mask == 0].any() and bool((mask == 0).any())
    with torch.no_grad():
        owner.get_parameter(f"{name}_orig").mul_(2)
        module.get_parameter(own).mul_(2)
    assert_all_equal(call(twin), call(expected), f"{complete(layer)} with a pruned factor behind a step")
    prune.remove(owner, name)
    assert_all_equal(call(twin), call(expected), f"{complete(layer)} with the pruning made permanent")


def check_parametrize(layer: nn.Module, x: Tensor | Call) -> None:
    """A factor with a parametrization is what the parametrization gives; taken off, it stays that."""
    call, twin, expected = Call.of(x), copy.deepcopy(layer), copy.deepcopy(layer)
    owner, name = a_factor(twin)
    parametrize.register_parametrization(owner, name, Half())
    with torch.no_grad():
        module, own = a_factor(expected)
        module.get_parameter(own).mul_(0.5)
    assert_all_equal(call(twin), call(expected), f"{complete(layer)} with a parametrization")
    copied = copy.deepcopy(twin)
    assert_all_equal(call(copied), call(expected), f"a copy of {complete(layer)} with a parametrization")
    parametrize.remove_parametrizations(owner, name)
    assert_all_equal(call(twin), call(expected), f"{complete(layer)} after a parametrization")


class Half(nn.Module):
    """Half of what came."""

    def forward(self, x: Tensor) -> Tensor:
        """x / 2."""
        return x / 2


def check_shallow_copy(layer: nn.Module, x: Tensor | Call) -> None:
    """`copy.copy` gives a layer over the same parameters."""
    call, twin = Call.of(x), copy.copy(layer)
    assert all(a is b for a, b in zip(twin.parameters(), layer.parameters(), strict=True))
    assert_all_equal(call(twin), call(layer), f"a shallow copy of {complete(layer)}")


def check_share_memory(layer: nn.Module, x: Tensor | Call) -> None:
    """Parameters go into shared memory, in place."""
    call, expected, before = Call.of(x), Call.of(x)(layer), list(layer.parameters())
    layer.share_memory()
    assert all(p.is_shared() and p is old for p, old in zip(layer.parameters(), before, strict=True))
    assert_all_equal(call(layer), expected, f"{complete(layer)} in shared memory")


def check_moves(layer: nn.Module, x: Tensor | Call) -> None:
    """`.half()`, `.to(dtype)` and `.double()` keep the parameters and turn those of floating point alone."""
    before = dict(layer.named_parameters())
    for move, dtype in (
        (nn.Module.half, torch.half),
        (nn.Module.bfloat16, torch.bfloat16),
        (nn.Module.double, None),
    ):
        move(layer)
        assert {p.dtype for p in layer.parameters()} == {dtype or torch.float64}
        assert all(p is before[name] for name, p in layer.named_parameters())
    assert all(torch.isfinite(t).all() for t in results(Call.of(x)(layer)))


def check_mark_dynamic(layer: nn.Module, x: Tensor | Call) -> None:
    """An axis marked as dynamic stays so when the layer is compiled: nothing in it needs the batch's size."""
    call = Call.of(x)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    for times in (2, 3):
        inputs = call.inputs(times)
        for each, axis in zip(inputs, call.axes, strict=True):
            torch._dynamo.mark_dynamic(each, axis)
        y = compiled(*inputs, **call.settings)
        assert_all_equal(y, call(layer, times), f"{complete(layer)} with a marked batch")


def a_factor(layer: nn.Module) -> tuple[nn.Module, str]:
    """A module and the name of one of its parameters, the first factor if there are any."""
    owners = [m for m in layer.modules() if isinstance(m, FactorizedTensor) and m._parameters]
    owner = owners[0] if owners else layer
    return owner, next(name for name, p in owner.named_parameters(recurse=False) if name != "bias")


def stepped(layer: nn.Module, call: Call, kind: Callable[..., Any], **how: bool) -> nn.Module:
    """A copy of the layer after a step of an optimizer."""
    twin = copy.deepcopy(layer)
    optimizer = kind(twin.parameters(), lr=0.1, **how)
    y = results(call(twin))
    torch.autograd.backward(y, upstream(y))
    for p in twin.parameters():
        p.grad = p.grad.to_dense() if p.grad is not None and p.grad.is_sparse else p.grad
    optimizer.step()
    return twin


def in_channels_last(x: Tensor) -> Tensor:
    """Images and volumes with the channels last in memory."""
    return x.contiguous(memory_format=CHANNELS_LAST[x.ndim]) if x.ndim in CHANNELS_LAST else x


def assert_gradients(found: list[Any], wanted: list[Any], law: str) -> None:
    """Raise AssertionError unless tensors are the same, one by one."""
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, law)


CITIZENSHIP = (
    check_checkpoint,
    check_channels_last,
    check_vector,
    check_names,
    check_optimizers,
    check_prune,
    check_parametrize,
    check_shallow_copy,
    check_share_memory,
    check_moves,
    check_mark_dynamic,
)
