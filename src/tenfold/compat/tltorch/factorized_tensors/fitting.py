"""Which of our methods serves a factorization, and what the options of TensorLy's functions mean for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tenfold.core.errors import OptionError
from tenfold.decompose import CPALS, HOOI, STHOSVD, TTSVD, Method
from tenfold.formats import Format

STARTS = {"svd": "hosvd", "random": "random"}
SERVED = {
    "CP": ("n_iter_max", "tol", "init", "random_state", "svd", "verbose", "method"),
    "Tucker": ("n_iter_max", "tol", "init", "random_state", "svd", "verbose", "method"),
    "TT": ("svd", "verbose", "method"),
}
INSTEAD = {
    "l2_reg": "Leave it out: it is absolute, so that small weights would vanish; ours is relative to the "
    "error, method=CPALS(ridge=...).",
    "mask": "For missing entries use tenfold.decompose.CPIncomplete or TuckerIncomplete.",
    "return_errors": "Call the method itself, such as CPALS()(tensor, rank): its result has error and trace.",
    "callback": "Call the method itself: its result has the trace of errors.",
}
"""What to do about options that have no counterpart."""


def fitted(kind: str, tensor: Tensor, ranks: Any, options: Mapping[str, Any]) -> Format:
    """The format `kind` ("CP", "Tucker", "TT") fitted to `tensor`; `options` are TensorLy's, by name.

    `method=` takes any of our methods for this format in the place of the default: CPALS, HOOI, TTSVD.

    Raises:
        OptionError: for an option that is not served.
    """
    refuse_unknown(kind, options)
    method = options.get("method") or DEFAULTS[kind](options)
    if not isinstance(method, Method) or method.format is not DEFAULTS[kind]({}).format:
        raise OptionError(
            f"method={method!r} came for a {kind} tensor.",
            f"Give one for {DEFAULTS[kind]({}).format.__name__}, such as {DEFAULTS[kind]({})!r}.",
        )
    return method(tensor.detach(), ranks, generator=options.get("random_state")).value


def refuse_unknown(kind: str, options: Mapping[str, Any]) -> None:
    """Raise OptionError for options that are not served, and for values that are not."""
    for name, value in options.items():
        if name not in SERVED[kind]:
            known = ", ".join(SERVED[kind])
            remedy = INSTEAD.get(name, f"Known for {kind}: {known}.")
            raise OptionError(f"the option {name}={value!r} is not served for {kind}.", remedy)
    if options.get("svd", "truncated_svd") != "truncated_svd":
        raise OptionError(
            f"svd={options['svd']!r} came.",
            "Leave it out; for randomized ones give method=RandomizedTTSVD() or RandomizedHOSVD().",
        )
    if options.get("init", "svd") not in STARTS:
        raise OptionError(f"init={options['init']!r} came.", f"Give one of {', '.join(STARTS)}.")
    if options.get("verbose"):
        raise OptionError(
            "verbose=True came, but nothing is printed here.",
            "Leave it out; the result of a method has error, steps and trace.",
        )


def _tolerance(options: Mapping[str, Any], default: float) -> float:
    """The tolerance; None lets all iterations run, as in TensorLy."""
    tol = options.get("tol", default)
    return 0.0 if tol is None else tol


def _cp(options: Mapping[str, Any]) -> Method[Any]:
    return CPALS(
        tol=_tolerance(options, 1e-6),
        max_steps=options.get("n_iter_max", 100),
        start=STARTS[options.get("init", "svd")],
    )


def _tucker(options: Mapping[str, Any]) -> Method[Any]:
    if options.get("init") == "random":
        return HOOI(_tolerance(options, 1e-5), options.get("n_iter_max", 100), restarts=1)
    if options.get("n_iter_max") == 0:
        return STHOSVD()
    return HOOI(_tolerance(options, 1e-5), options.get("n_iter_max", 100))


DEFAULTS: Mapping[str, Callable[[Mapping[str, Any]], Method[Any]]] = {
    "CP": _cp,
    "Tucker": _tucker,
    "TT": lambda options: TTSVD(),
}
"""Factorization -> our method with the options translated."""


def spread(tensor: Tensor, modes: Sequence[int], shape: Sequence[int], value: str | float) -> Tensor:
    """The tensor constant along more modes: divided by their sizes ("average"), or times a number for each.

    >>> import torch
    >>> spread(torch.ones(2, 3), [1], (2, 4, 3), "average")[0, :, 0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if value != "average" and not isinstance(value, int | float):
        raise OptionError(f"unsqueezed_init={value!r} came.", 'Give "average" or a number.')
    for k in sorted(modes):
        scale = value if isinstance(value, int | float) else 1 / shape[k]
        tensor = tensor.unsqueeze(k) * scale
    return tensor.expand(*shape)
