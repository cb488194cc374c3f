"""What tensors in factorized form share: one class for each factorization, held as parameters."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from tenfold.compat.tltorch.factorized_tensors.acting import acting, carrier, numbers_on
from tenfold.compat.tltorch.factorized_tensors.dense_operators import DenseOperators
from tenfold.compat.tltorch.factorized_tensors.indexing import items_of
from tenfold.core.errors import OptionError, ShapeError, UnknownNameError, UnsupportedError
from tenfold.core.network import Axes, Network
from tenfold.formats import General


class FactorizedTensor(DenseOperators, nn.Module):
    """A tensor held as factors, which are its parameters, named and shaped as in TensorLy-Torch.

    So states go both ways. Everything that is calculated is calculated by `value`, our own format over the
    factors. Tensors are made by `new`, `from_tensor`, or by the class of a factorization, and are initialised
    from the start. A function of torch that meets one gets the dense tensor, wherever it stands among the
    arguments; `F.linear` and the layers work factor by factor.

    >>> x = FactorizedTensor.new((4, 3, 2), rank=2, factorization="CP").normal_(0, 0.1)
    >>> x, list(x.state_dict())
    (CPTensor(shape=(4, 3, 2), rank=2),
     ['weights', 'factors.factor_0', 'factors.factor_1', 'factors.factor_2'])
    >>> x[:, 1].shape, torch.sum(x).shape
    (torch.Size([4, 2]), torch.Size([]))
    """

    _factorizations: ClassVar[dict[str, type["FactorizedTensor"]]] = {}
    _name: ClassVar[str] = ""
    shape: torch.Size
    rank: Any
    order: int

    def __init_subclass__(cls, name: str = "", **options: Any) -> None:
        """A subclass with a name can be asked for as `factorization=name`, in upper or lower case."""
        super().__init_subclass__(**options)
        if name:
            cls._name = name
            cls._factorizations[name.lower()] = cls

    def __init__(self) -> None:
        if type(self)._name == "":
            raise UnsupportedError(
                f"{type(self).__name__} has no factorization of its own.",
                f'Use {type(self).__name__}.new(shape, rank, factorization="CP").',
            )
        super().__init__()

    # What a factorization says of itself ---------------------------------------------------------------

    @abstractmethod
    def _arrays(self) -> list[Tensor]:
        """The factors in the order of `_graph`, without axes that are always 1; views of the parameters."""

    @abstractmethod
    def _graph(self) -> tuple[Axes, ...]:
        """The axes of each of the arrays: modes "m0", "m1", ..., and bonds."""

    @abstractmethod
    def _taken(self, items: Sequence[Any]) -> Any:
        """What an index with one item for each mode selects."""

    @abstractmethod
    def _over(self, arrays: Sequence[Tensor]) -> Self:
        """The same factorization over other arrays, in the order of `_graph`, which may have other ranks."""

    # How tensors are made ------------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        shape: Any,
        rank: Any = "same",
        factorization: str = "Tucker",
        *,
        fixed_rank_modes: Sequence[int] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> "FactorizedTensor":
        """A random tensor, whose entries have deviation 0.02 until `normal_` gives them another.

        Raises:
            UnknownNameError: for a factorization that is not known.
            RankError: for ranks that it cannot have.
        """
        kind = cls._of(factorization)
        return kind.new(shape, rank, fixed_rank_modes=fixed_rank_modes, device=device, dtype=dtype)

    @classmethod
    def from_tensor(
        cls, tensor: Tensor, rank: Any, factorization: str = "CP", **options: Any
    ) -> "FactorizedTensor":
        """A tensor decomposed by our method for the factorization; `options` as `fitted` takes them."""
        return cls._of(factorization).from_tensor(tensor, rank, **options)

    @classmethod
    def _of(cls, factorization: str | None) -> Any:
        """The class of a factorization; None stands for the dense one."""
        name = (factorization or "Dense").lower()
        if name not in cls._factorizations:
            known = ", ".join(kind._name for kind in cls._factorizations.values())
            raise UnknownNameError(
                f"{cls.__name__} has no factorization {factorization!r}.", f"Known: {known}."
            )
        return cls._factorizations[name]

    # What can be asked and done ------------------------------------------------------------------------

    @property
    def value(self) -> General:
        """Our format over the factors: a view, differentiable."""
        return General(tuple(self._arrays()), self._graph())

    @property
    def network(self) -> Network:
        """Which axes meet, with their sizes."""
        return self.value.network

    def to_tensor(self) -> Tensor:
        """The dense tensor, contracted from its factors in the cheapest order."""
        return self.value.dense().reshape(self.tensor_shape)

    def forward(self, indices: Any = None) -> Any:
        """The tensor, or what an index selects; with tensor dropout or lasso on it, what is left of it."""
        tensor = acting(self)
        return tensor if indices is None else tensor[indices]

    def __getitem__(self, indices: Any) -> Any:
        """The part that an index selects, in the same factorization; an entry is a tensor without axes.

        Each item acts on its own mode: two lists select a grid. `None` is no item.
        """
        return self._taken(items_of(indices, tuple(self.tensor_shape)))

    def normal_(self, mean: float = 0, std: float = 1) -> Self:
        """New factors such that the entries of the dense tensor have deviation `std`, in place.

        For n factors of deviation s the variance of an entry is prod(ranks) s^(2n).
        """
        if mean != 0:
            raise OptionError(f"mean={mean} came.", "Only mean=0 can be served in this factorization.")
        if std < 0:
            raise OptionError(f"std={std} came.", "Give 0 or more.")
        arrays, network = self._random_factors(), self.network
        scale = (std**2 / network.product(network.bonds)) ** (0.5 / len(arrays))
        with torch.no_grad():
            for array in arrays:
                array.normal_(0, scale)
        return self

    def _random_factors(self) -> list[Tensor]:
        return self._arrays()

    def _put(self, arrays: Sequence[Tensor]) -> Self:
        """New values for the factors, in place; where they are smaller, the rest is zero."""
        with torch.no_grad():
            for own, new in zip(self._arrays(), arrays, strict=True):
                if any(n > m for n, m in zip(new.shape, own.shape, strict=True)):
                    raise ShapeError(f"a factor came with shape {tuple(new.shape)}, not {tuple(own.shape)}.")
                if new.shape != own.shape:
                    own.zero_()
                own[tuple(slice(n) for n in new.shape)] = new.to(own)
        return self

    def _check_source(self, tensor: Tensor) -> None:
        if tuple(tensor.shape) != tuple(self.tensor_shape):
            raise ShapeError(
                f"a tensor of shape {tuple(tensor.shape)} came for one of shape {tuple(self.tensor_shape)}.",
                "Make a tensor of the same shape first.",
            )

    def gated_arrays(self) -> list[Tensor]:
        """The factors with what tensor dropout and lasso have put on them, ranks as they are."""
        arrays, graph = self._arrays(), self._graph()
        for bond, numbers in numbers_on(self).items():
            k = carrier(arrays, graph, bond)
            shape = [-1 if a == bond else 1 for a in graph[k]]
            arrays[k] = arrays[k] * numbers.to(arrays[k].dtype).view(shape)
        return arrays

    @property
    def decomposition(self) -> Any:
        """The factors and whatever comes with them."""
        return self.factors

    @property
    def name(self) -> str:
        """Name of the factorization."""
        return self._name

    @property
    def tensor_shape(self) -> torch.Size:
        """Shape of the dense tensor, for a tensorized matrix with its sides split."""
        return self.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of entries of the dense tensor, as in TensorLy-Torch; not of the parameters."""
        return self.shape.numel()

    def size(self, index: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if index is None else self.shape[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)}, rank={self.rank})"

    def _dense(self) -> Tensor:
        """What functions of torch get."""
        tensor = acting(self)
        return tensor.to_tensor()

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def dense(x: Any) -> Any:
            return x._dense() if isinstance(x, FactorizedTensor) else x

        found = _served(*args, **(kwargs or {})) if func is F.linear else None
        if found is not None:
            return found
        return func(*tree_map(dense, args), **tree_map(dense, kwargs or {}))

    def _linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """x times the transpose of this matrix, factor by factor; None where it is not one."""
        return None


def _served(input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    """`F.linear` factor by factor, where the weight alone is held as factors."""
    if not (isinstance(input, Tensor) and isinstance(weight, FactorizedTensor)):
        return None
    return None if isinstance(bias, FactorizedTensor) else weight._linear(input, bias)
