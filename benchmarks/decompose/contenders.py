"""What is timed: a function of the tensor that gives a relative error; ours, TensorLy's and pyttb's.

Each takes (tensor, steps): `steps` bounds the sweeps of iterative methods and is ignored by direct ones. The
tensor comes in the array library of the contender. Peers are imported only when they are asked for.
"""

import contextlib
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

Result = tuple[float, int, Any]
"""Relative error, steps, and the factors if anyone wants them."""


@dataclass(frozen=True)
class Contender:
    """A way to decompose; `library` is the array library of its input."""

    name: str
    library: str
    run: Callable[[Any, int], Any]
    error: Callable[[Any, Any], float]


def prepared(library: str, tensor: np.ndarray) -> Any:
    """The tensor as the contender wants it."""
    if library == "torch":
        return torch.from_numpy(tensor)
    if library == "pyttb":
        return importlib.import_module("pyttb").tensor(tensor)
    return tensor


def ours(library: str, method: Any, ranks: Any, steps: bool = False) -> Contender:
    """One of our methods; with `steps`, its `max_steps` follows."""

    def run(tensor: Any, count: int) -> Any:
        chosen = decompose_with(method, count) if steps else method
        return chosen.fit(tensor, ranks, generator=0)

    usual = vars(type(method)())
    said = (f"{k}={v:g}" for k, v in vars(method).items() if v != usual[k] and not steps)
    return Contender(
        f"tenfold {type(method).__name__} ({', '.join([library, *said])})",
        library,
        run,
        lambda fit, _: fit.error,
    )


def decompose_with(method: Any, count: int) -> Any:
    """The same method with so many steps, and no other reason to stop."""
    return type(method)(**{**vars(method), "max_steps": count, "tol": 0.0})


def tensorly(library: str, name: str, options: dict[str, Any], steps: bool = False) -> Contender:
    """A function of `tensorly.decomposition`; with `steps`, its `n_iter_max` follows."""
    said = [str(options[key]) for key in ("init", "svd") if key in options]
    said += ["line search"] if options.get("linesearch") else []

    def run(tensor: Any, count: int) -> Any:
        tl = importlib.import_module("tensorly")
        tl.set_backend({"torch": "pytorch", "numpy": "numpy"}[library])
        function = getattr(importlib.import_module("tensorly.decomposition"), name)
        limit = {"n_iter_max": count} if steps else {}
        return function(tensor, **{**options, **limit})

    return Contender(
        f"TensorLy {name} ({', '.join([library, *said])})", library, run, partial(_dense_error, name)
    )


def _dense_error(name: str, found: Any, tensor: Any) -> float:
    """The true error of what TensorLy gives."""
    tl = importlib.import_module("tensorly")
    if name == "partial_tucker":
        (core, factors), _ = found
        dense = tl.tenalg.multi_mode_dot(core, factors, modes=list(range(len(factors))))
    elif isinstance(found, list):
        dense = tl.tt_to_tensor(found)
    else:
        dense = found.to_tensor()
    return float(tl.norm(tensor - dense) / tl.norm(tensor))


def pyttb(name: str, options: dict[str, Any], steps: bool = False) -> Contender:
    """A function of pyttb; with `steps`, its `maxiters` follows."""

    def run(tensor: Any, count: int) -> Any:
        function = getattr(importlib.import_module("pyttb"), name)
        limit = {"maxiters": count} if steps else {}
        np.random.seed(0)  # pyttb draws its random start from there
        with contextlib.redirect_stdout(io.StringIO()):
            found = function(tensor, **{**options, **limit})
        return found[0] if isinstance(found, tuple) else found

    def error(found: Any, tensor: Any) -> float:
        dense = tensor.double()
        return float(np.linalg.norm(dense - found.full().double()) / np.linalg.norm(dense))

    return Contender(f"pyttb {name}", "pyttb", run, error)


def torchtt(eps: float) -> Contender:
    """torchTT's TT-SVD to a tolerance."""

    def error(found: Any, tensor: Any) -> float:
        whole = torch.linalg.vector_norm(tensor)
        return float(torch.linalg.vector_norm(found.full().reshape(tensor.shape) - tensor) / whole)

    return Contender(
        "torchTT TT", "torch", lambda x, _: importlib.import_module("torchtt").TT(x, eps=eps), error
    )
