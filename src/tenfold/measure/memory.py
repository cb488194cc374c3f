"""How much memory one forward pass takes."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tenfold.measure.running import Example, device_of, evaluating, move, run
from tenfold.measure.unfused import unfused_layers


def peak_memory(model: nn.Module, example: Example) -> int:
    """Bytes alive at the peak of one forward pass, without what existed before (weights, the example).

    Evaluation mode without gradients, so an activation lives until its last reader is done. On CUDA it is
    what torch's allocator handed out, work spaces of kernels included. On a CPU it is the sum of the
    tensors which operators returned; what a kernel needs for itself is not seen, and fused attention is run
    unfused to be seen.

    >>> peak_memory(nn.Sequential(nn.Linear(4, 100), nn.Linear(100, 4)), torch.ones(1, 4))
    416
    """
    device = device_of(model)
    inputs = move(example, device)
    with evaluating(model):
        return _peak_cuda(model, inputs, device) if device.type == "cuda" else _peak_tracked(model, inputs)


def _peak_cuda(model: nn.Module, example: Example, device: torch.device) -> int:
    """The first pass makes the libraries allocate what they keep; the second is measured."""
    run(model, example)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(model, example)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_tracked(model: nn.Module, example: Example) -> int:
    with unfused_layers(), LiveStorages() as live:
        run(model, example)
    return live.peak


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of storages that operators make while it is active; views add nothing.

    >>> with LiveStorages() as live:
    ...     a = torch.ones(100)
    ...     b = a[10:] + 1
    ...     del a
    >>> live.now, live.peak
    (360, 760)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if id(storage) not in given | self._alive:
                self._add(storage)
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._alive.add(id(storage))
        self.now += storage.nbytes()
        weakref.finalize(storage, self._remove, id(storage), storage.nbytes()).atexit = False

    def _remove(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
            yield leaf.untyped_storage()
