"""The laws of a layer in other dtypes than its own; they begin with a layer in float64."""

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.testing.calls import Call, complete, gradients, results, trained
from tenfold.testing.layers import assert_all_equal, check_dense_twin, to_dense

REAL = (torch.float32, torch.bfloat16, torch.float16)


def check_precision(layer: nn.Module, x: Tensor | Call) -> None:
    """In float32, bfloat16 and float16 it returns that dtype, and nearly what float64 gives."""
    call = Call.of(x)
    for dtype in REAL:
        low = copy.deepcopy(layer).to(dtype)
        y, exact = call(low, 1, dtype), copy.deepcopy(low).double()(*rounded(call, dtype), **call.settings)
        assert all(t.dtype == dtype for t in results(y)), (
            f"{complete(layer)} in {dtype} returns another dtype"
        )
        assert_all_equal(y, exact, f"{complete(layer)} in {dtype}")
        leaves = trained(low)
        assert all(g.dtype == p.dtype for g, p in zip(gradients(y, leaves), leaves, strict=True))


def check_complex(layer: nn.Module, x: Tensor | Call) -> None:
    """With complex parameters and inputs it equals its dense twin, forward and all gradients."""
    call, twin = Call.of(x), complex_twin(layer)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(torch.complex(p.real, 1 - p.real).sgn())
    check_dense_twin(twin, Call(lambda n: call.inputs(n, torch.complex128), call.axes, call.settings))


def check_autocast(layer: nn.Module, x: Tensor | Call) -> None:
    """Under autocast it computes nearly the same and trains; it returns the dtype that its dense twin does.

    Or bfloat16 where torch's layer stays in float32: matrix products take the place of a look-up.
    """
    call, single = Call.of(x), copy.deepcopy(layer).float()
    expected, dense = call(single, 1, torch.float32), to_dense(single)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (call(module, 1, torch.float32) for module in (single, dense))
    for a, b in zip(dtypes(ours), dtypes(theirs), strict=True):
        assert a in (b, torch.bfloat16), f"{complete(layer)} under autocast returns {a}, its dense twin {b}"
    assert_all_equal(lower(ours), expected, f"{complete(layer)} under autocast")
    assert {g.dtype for g in gradients(ours, trained(single))} == {torch.float32}


def complex_twin(layer: nn.Module) -> nn.Module:
    """The layer with complex parameters; torch warns that this is new."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Complex modules are a new feature", UserWarning)
        return copy.deepcopy(layer).to(torch.complex128)


def rounded(call: Call, dtype: torch.dtype) -> list[Tensor]:
    """The inputs as they are in a lower precision, in float64."""
    return [x.double() if x.is_floating_point() else x for x in call.inputs(1, dtype)]


def dtypes(y: Any) -> list[torch.dtype]:
    """The dtype of each tensor that a layer returns."""
    return [t.dtype for t in results(y)]


def lower(y: Any) -> list[Tensor]:
    """What was computed in bfloat16 on its way, in that dtype."""
    return [t.bfloat16() for t in results(y)]


DTYPE_LAWS = (check_precision, check_complex, check_autocast)
