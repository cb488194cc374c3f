"""Which layers may shift their outputs freely, and the bias that undoes a shift."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from tenfold.compress.batches import Forward, outputs_of, tensors
from tenfold.measure.running import evaluating


def followed_by_norm(model: nn.Module, batch: Any, forward: Forward | None = None) -> dict[str, str]:
    """Modules whose output goes straight into a batch normalisation, and nowhere else -> the name of that.

    There a constant added to every channel is subtracted again, so that only deviations from the mean count
    once the statistics are re-estimated.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.ReLU())
    >>> followed_by_norm(net, torch.zeros(1, 3, 8, 8))
    {'0': '1'}
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return {}
    readers = _Readers()
    with evaluating(model), readers.watching(model), readers:
        outputs = outputs_of(model, batch, forward)
    readers.note(tensors([outputs]), None)
    return readers.norms()


class _Readers(TorchDispatchMode):
    """Who reads the outputs of layers that have a weight: a batch norm, or None for all else."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[str, Tensor]] = {}  # an object that lives keeps its id to itself
        self.readers: dict[int, set[str | None]] = {}
        self.norm: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.note(tensors([*args, *(kwargs or {}).values()]), self.norm)
        return func(*args, **(kwargs or {}))

    def note(self, read: Iterable[Tensor], reader: str | None) -> None:
        """Tensors that somebody looks at; those that no layer made are of no interest."""
        for key in {id(x) for x in read} & self.made.keys():
            self.readers[key].add(reader)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Until left, note what the layers make, and when a batch norm runs."""
        handles = []
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                handles.append(module.register_forward_pre_hook(partial(self._begun, name)))
                handles.append(module.register_forward_hook(self._ended))
            elif "weight" in module._parameters:
                handles.append(module.register_forward_hook(partial(self._made, name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begun(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.norm = name

    def _ended(self, module: nn.Module, args: Any, output: Any) -> None:
        self.norm = None

    def _made(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.made[id(output)], self.readers[id(output)] = (name, output), set()

    def norms(self) -> dict[str, str]:
        """The layers of which every output went into one batch norm alone."""
        found: dict[str, str] = {}
        elsewhere: set[str] = set()
        for key, (name, _) in self.made.items():
            norm, *more = self.readers[key] or [None]
            if norm is None or more:
                elsewhere.add(name)
            else:
                found[name] = norm
        return {name: norm for name, norm in found.items() if name not in elsewhere}


def shift_of(change: Tensor, mean: Tensor) -> Tensor:
    """What a change of the weight (outputs, inputs, *taps) adds to the mean of every output.

    `mean` is that of the inputs, over (inputs, *taps) or over the inputs alone.
    """
    outputs, inputs = change.shape[:2]
    flat = change.reshape(outputs, inputs, -1)
    if mean.numel() == inputs:
        return torch.einsum("oit,i->o", flat, mean.to(flat.dtype))
    return flat.reshape(outputs, -1) @ mean.to(flat.dtype)
