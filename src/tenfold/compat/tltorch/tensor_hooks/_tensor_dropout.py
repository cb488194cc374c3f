"""Tensor dropout: in training, ranks of a factorized tensor are left out at random."""

from typing import Any

import torch
from torch import Tensor

from tenfold.compat.tltorch.factorized_tensors.acting import BondHook, hooks_of, ranks_of, remove_hook
from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.core.network import Axis


class TensorDropout(BondHook):
    """Each rank of each bond is kept with probability 1 - `proba`, and what is kept is divided by it.

    So the expectation of the tensor stays what it is, but for the chance that all ranks of a bond would go:
    then `min_values` of them stay. Bonds with at most `min_dim` ranks are left alone. Nothing is dropped in
    evaluation, unless `drop_test` says so. It acts on the tensor and on all layers that have it as weight.

    Source: Kolbeinsson et al., 'Tensor dropout for robust learning', 2021, arXiv:1902.10758.
    """

    thins = True

    def __init__(self, proba: float, min_dim: int = 1, min_values: int = 1, drop_test: bool = False) -> None:
        if not 0 <= proba < 1:
            raise OptionError(
                f"the probability came as {proba}.",
                "Give one from 0 up to 1, but not 1: what is kept is divided by 1 - p.",
            )
        if min_values < 1 or min_dim < 0:
            raise OptionError(f"min_dim={min_dim} and min_values={min_values} came.", "Keep 1 or more ranks.")
        self.proba, self.min_dim, self.min_values, self.drop_test = proba, min_dim, min_values, drop_test

    @classmethod
    def apply(
        cls, module: Any, proba: float, min_dim: int = 3, min_values: int = 1, drop_test: bool = False
    ) -> Any:
        """Put dropout on a factorized tensor; returns the handle of the hook."""
        _check(module)
        if hooks_of(module, TensorDropout):
            raise OptionError("the tensor has tensor dropout already.", "Remove it first.")
        return module.register_forward_hook(TensorDropout(proba, min_dim, min_values, drop_test))

    def numbers(self, tensor: Any) -> dict[Axis, Tensor]:
        """For each bond the numbers that its ranks are multiplied by: 0, or 1 / (1 - proba)."""
        if not self.proba or not (tensor.training or self.drop_test):
            return {}
        like = next(tensor.parameters())
        return {b: self._drawn(n, like) for b, n in ranks_of(tensor).items() if n > self.min_dim}

    def _drawn(self, rank: int, like: Tensor) -> Tensor:
        """Draws without branches on values; where fewer than `min_values` are kept, the luckiest are."""
        luck = torch.rand(rank, device=like.device)
        kept = luck >= self.proba
        few = luck >= luck.topk(min(self.min_values, rank)).values[-1]
        kept = kept | (few & (kept.sum() < self.min_values))
        return kept.to(like.dtype) / (1 - self.proba)


CPDropout = TuckerDropout = TTDropout = TensorDropout
"""One mechanism serves every factorization."""


def tensor_dropout(
    factorized_tensor: Any, p: float = 0, min_dim: int = 3, min_values: int = 1, drop_test: bool = False
) -> Any:
    """Put tensor dropout on a factorized tensor, such as the weight of a layer; returns the tensor.

    >>> x = FactorizedTensor.new((8, 8, 8), rank=6, factorization="CP")
    >>> remove_tensor_dropout(tensor_dropout(x, p=0.5))().rank
    6
    """
    TensorDropout.apply(factorized_tensor, p, min_dim, min_values, drop_test)
    return factorized_tensor


def remove_tensor_dropout(factorized_tensor: Any) -> Any:
    """Take tensor dropout off a factorized tensor; returns the tensor."""
    found = hooks_of(factorized_tensor, TensorDropout)
    if not found:
        raise OptionError("the tensor has no tensor dropout.", "Put it on with tensor_dropout(tensor, p).")
    remove_hook(factorized_tensor, found[0])
    return factorized_tensor


def _check(module: Any) -> None:
    if not isinstance(module, FactorizedTensor):
        raise OptionError(
            f"a {type(module).__name__} came.", "Give a factorized tensor, such as layer.weight."
        )
    if not ranks_of(module):
        raise UnsupportedError(f"{type(module).__name__} has no ranks.", "Use a factorization that has some.")
