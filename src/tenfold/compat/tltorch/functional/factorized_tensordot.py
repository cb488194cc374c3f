"""Contractions of dense with factorized tensors over any modes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tenfold.core.errors import ShapeError
from tenfold.core.network import Axis, Network, mode
from tenfold.formats.contracting import contracted

Modes = int | Sequence[Any]


def tensor_dot_tucker(tensor: Tensor, tucker: Any, modes: Modes, batched_modes: Modes = ()) -> Tensor:
    """The contraction over pairs of modes; `batched_modes` are shared and stay. No weight is made dense.

    The axes of the result are those of `tensor` that stay, then those of the factorized tensor, as in NumPy's
    tensordot; `modes` are (modes of the one, modes of the other), or the same for both.
    """
    gone, shared = _pairs(modes), _pairs(batched_modes)
    names: list[Axis] = [f"t{k}" for k in range(tensor.ndim)]
    for k, m in (*gone, *shared):
        names[k % tensor.ndim] = mode(m % len(tucker.tensor_shape))
    network = tucker.network
    sizes = dict(network.sizes)
    for a, n in zip(names, tensor.shape, strict=True):
        if sizes.setdefault(a, n) != n:
            raise ShapeError(f"mode {a} has size {sizes[a]}, but the tensor has {n} there.")
    lost = {names[k % tensor.ndim] for k, _ in gone}
    kept = [a for a in names if a not in lost]
    outputs = (*kept, *(m for m in network.modes if m not in lost and m not in names))
    both = Network((tuple(names), *network.factors), outputs, tuple(sizes.items()))
    result: Tensor = contracted(both, [tensor, *tucker.gated_arrays()], outputs)
    return result


def tensor_dot_cp(tensor: Tensor, cp: Any, modes: Modes) -> Tensor:
    """As `tensor_dot_tucker`.

    >>> import torch
    >>> from tenfold.compat.tltorch import CPTensor
    >>> x = CPTensor.new((4, 3, 2), rank=2)
    >>> tensor_dot_cp(torch.ones(5, 3), x, ([1], [1])).shape
    torch.Size([5, 4, 2])
    """
    return tensor_dot_tucker(tensor, cp, modes)


def _pairs(modes: Modes) -> list[tuple[int, int]]:
    if isinstance(modes, int):
        return [(modes, modes)]
    if len(modes) == 2 and all(isinstance(m, list | tuple) for m in modes):
        return list(zip(*modes, strict=True))
    return [(m, m) for m in modes]
