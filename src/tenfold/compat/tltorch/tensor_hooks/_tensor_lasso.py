"""Tensor lasso: trained numbers on the ranks of factorized tensors, whose absolute values are penalised."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from tenfold.compat.tltorch.factorized_tensors.acting import BondHook, hooks_of, ranks_of, remove_hook
from tenfold.compat.tltorch.factorized_tensors.base import FactorizedTensor
from tenfold.compat.tltorch.factorized_tensors.block_tt import BlockTT
from tenfold.compat.tltorch.factorized_tensors.factorized_tensors import CPTensor, TTTensor, TuckerTensor
from tenfold.compat.tltorch.utils.parameter_list import ParameterList
from tenfold.core.errors import OptionError
from tenfold.core.network import Axis


class TensorLasso(BondHook):
    """A regulariser for one or more tensors: put it on with `apply`, add `loss`, and `reset` after each step.

    `apply` gives a tensor the parameters `lasso_weights`, 1 for each rank. They multiply the tensor wherever
    it is used, in layers too. Before each use they are clamped to [-1, 1], and set to 0 where their size is
    not above `threshold`. `loss` is `penalty` times the sum of the absolute values, for the tensors that
    were used since the last `reset`, each counted once; divided by their number with `normalize_loss`.

    >>> x = FactorizedTensor.new((8, 8, 8), rank=6, factorization="CP")
    >>> lasso = tensor_lasso("CP", penalty=0.1)
    >>> _ = lasso.apply(x)()
    >>> round(lasso.loss.item(), 6)
    0.1
    """

    thins = False
    kind: ClassVar[type[FactorizedTensor]]
    _factorizations: ClassVar[dict[str, type["TensorLasso"]]] = {}

    def __init_subclass__(cls, factorization: type[FactorizedTensor]) -> None:
        cls.kind = factorization
        cls._factorizations[factorization.__name__] = cls

    def __init__(
        self,
        penalty: float = 0.01,
        clamp_weights: bool = True,
        threshold: float = 1e-6,
        normalize_loss: bool = True,
    ) -> None:
        if penalty < 0 or threshold < 0:
            raise OptionError(f"penalty={penalty} and threshold={threshold} came.", "Give 0 or more.")
        self.penalty, self.clamp_weights = penalty, clamp_weights
        self.threshold, self.normalize_loss = threshold, normalize_loss
        self.reset()

    def reset(self) -> None:
        """Forget which tensors were used; to be called after each step."""
        self._used: dict[int, list[Tensor]] = {}

    @property
    def loss(self) -> Tensor:
        """The penalty for the tensors used since the last `reset`; raises OptionError if there are none."""
        found = [w for weights in self._used.values() for w in weights]
        if not found:
            raise OptionError(
                "no tensor with this lasso has been used since the last reset.",
                "Put it on the weight of a layer with `apply`, and run the layer first.",
            )
        total = torch.stack([w.abs().sum() for w in found]).sum()
        count = sum(w.numel() for w in found) if self.normalize_loss else 1
        return self.penalty * total / count

    def apply(self, module: Any) -> Any:
        """Put the lasso on a tensor; returns the tensor."""
        if not isinstance(module, self.kind):
            raise OptionError(
                f"a {type(module).__name__} came for the lasso of {self.kind.__name__}.",
                "Make the lasso of its factorization: tensor_lasso(factorization), and give it layer.weight.",
            )
        if hooks_of(module, TensorLasso):
            raise OptionError("the tensor has a tensor lasso already.", "Remove it first.")
        like = next(module.parameters())
        ones = [
            nn.Parameter(torch.ones(n, device=like.device, dtype=like.dtype))
            for n in ranks_of(module).values()
        ]
        module.lasso_weights = self._kept(ones)
        module.register_forward_hook(self)
        return module

    def _kept(self, ones: list[nn.Parameter]) -> Any:
        return ParameterList(ones)

    def remove(self, module: Any) -> None:
        """Take the lasso's weights off a tensor; `remove_tensor_lasso` takes the hook off as well."""
        del module.lasso_weights
        self._used.pop(id(module), None)

    def set_weights(self, module: Any, value: float) -> None:
        """Set all numbers of a tensor."""
        with torch.no_grad():
            for w in weights_of(module):
                w.fill_(value)

    def numbers(self, tensor: Any) -> dict[Axis, Tensor]:
        """The numbers of each bond, clamped and with those below the threshold at 0."""
        found = weights_of(tensor)
        for w in found:
            w.data = self._settled(w.data)
        self._used[id(tensor)] = found
        return dict(zip(ranks_of(tensor), found, strict=True))

    def _settled(self, w: Tensor) -> Tensor:
        if self.clamp_weights:
            w = w.clamp(-1, 1)
        return torch.where(w.abs() > self.threshold, w, torch.zeros_like(w)) if self.threshold else w

    @classmethod
    def from_factorization(
        cls,
        factorization: Any,
        penalty: float = 0.01,
        clamp_weights: bool = True,
        threshold: float = 1e-6,
        normalize_loss: bool = True,
    ) -> "TensorLasso":
        """The lasso for the factorization of a tensor."""
        for kind in type(factorization).__mro__:
            if kind.__name__ in cls._factorizations:
                found = cls._factorizations[kind.__name__]
                return found(penalty, clamp_weights, threshold, normalize_loss)
        return cls.from_factorization_name(type(factorization).__name__)

    @classmethod
    def from_factorization_name(
        cls,
        factorization_name: str,
        penalty: float = 0.01,
        clamp_weights: bool = True,
        threshold: float = 1e-6,
        normalize_loss: bool = True,
    ) -> "TensorLasso":
        """The lasso for a class of tensors, by its name."""
        if factorization_name not in cls._factorizations:
            known = ", ".join(cls._factorizations)
            raise OptionError(f"there is no lasso for {factorization_name!r}.", f"Known: {known}.")
        found = cls._factorizations[factorization_name]
        return found(penalty, clamp_weights, threshold, normalize_loss)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copied model keeps the regulariser that its loss is asked from."""
        return self


class CPLasso(TensorLasso, factorization=CPTensor):
    """A number for each component; for tensors and tensorized matrices."""

    def _kept(self, ones: list[nn.Parameter]) -> Any:
        return ones[0]


class TuckerLasso(TensorLasso, factorization=TuckerTensor):
    """A number for each rank of each mode; for tensors and tensorized matrices."""


class TTLasso(TensorLasso, factorization=TTTensor):
    """A number for each rank between two cores."""


class BlockTTLasso(TensorLasso, factorization=BlockTT):
    """A number for each rank between two cores of a tensorized matrix."""


NAMES = {"cp": CPLasso, "tucker": TuckerLasso, "tt": TTLasso, "blocktt": BlockTTLasso}


def weights_of(tensor: Any) -> list[Tensor]:
    """The numbers that the lasso has put on a tensor, one vector for each bond."""
    found = tensor.lasso_weights
    return [found] if isinstance(found, Tensor) else list(found)


def tensor_lasso(
    factorization: str = "CP",
    penalty: float = 0.01,
    clamp_weights: bool = True,
    threshold: float = 1e-6,
    normalize_loss: bool = True,
) -> TensorLasso:
    """The regulariser for tensors of a factorization: "CP", "Tucker", "TT" or "BlockTT"."""
    name = factorization.lower()
    if name not in NAMES:
        raise OptionError(f"there is no lasso for {factorization!r}.", "Known: CP, Tucker, TT, BlockTT.")
    return NAMES[name](penalty, clamp_weights, threshold, normalize_loss)


def remove_tensor_lasso(factorized_tensor: Any) -> Any:
    """Take the lasso off a tensor, with its weights; returns the tensor."""
    found = hooks_of(factorized_tensor, TensorLasso)
    if not found:
        raise OptionError("the tensor has no tensor lasso.", "Put it on with lasso.apply(tensor).")
    found[0].remove(factorized_tensor)
    remove_hook(factorized_tensor, found[0])
    return factorized_tensor
