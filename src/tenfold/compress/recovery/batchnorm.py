"""Batch norm after compression: running statistics from data, without labels or gradients."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.compress.batches import Forward, length, outputs_of, placed
from tenfold.compress.recovery.batches import unlabelled
from tenfold.core.errors import DataError, OptionError
from tenfold.measure.running import device_of, evaluating


def reestimate_batchnorm_(
    model: nn.Module,
    batches: Iterable[Any],
    samples: int | None = None,
    forward: Forward | None = None,
    keep: Collection[str] = (),
) -> int:
    """Replace the running statistics of every batch norm layer by those of the data; the samples it took.

    A cheap first repair of a compressed network, whose activations have drifted from the old statistics: one
    pass over some hundred inputs. Each layer normalizes with the statistics of the batch at hand while it
    counts, so layers further on see what they would in training: use batches as large as those. What a layer
    ends with are mean and (unbiased) variance of all that it saw, whatever the sizes of the batches. Dropout
    and all else stay in evaluation mode. Layers which keep no statistics, or do not run, are left alone.

    Args:
        batches: inputs, or (inputs, labels), of which the labels are not looked at. Inputs are a tensor, a
            tuple of arguments or a mapping of named ones; a pair of arguments is ((a, b), None).
        samples: stop after the batch that completes so many inputs.
        forward: called as `forward(model, batch)` with a batch on the model's device; by default the model is
            called with the inputs.
        keep: names of layers that are left alone, such as those whose means `correct_` set.

    Raises:
        DataError: if there are no batches, or a layer never gets more than one value for each channel: one
            has no variance. Batches in which it does not are passed over.
        OptionError: unless `samples` >= 1.

    Source: `torch.optim.swa_utils.update_bn` (Izmailov et al. 2018, arXiv 1803.05407), here with the variance
    between batches added in (Chan, Golub & LeVeque 1983).

    >>> model = nn.BatchNorm1d(1)
    >>> reestimate_batchnorm_(model, [torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]] * 2)])
    4
    >>> model.running_mean.item(), round(model.running_var.item(), 4)
    (3.75, 6.9167)
    """
    if samples is not None and samples < 1:
        raise OptionError(f"Statistics need samples >= 1, got {samples}.", "Some hundred are enough.")
    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and _keeps(module) and name not in keep
    ]
    if not layers:
        return 0
    with evaluating(model), _counting(layers) as moments:
        taken = _read(model, batches, samples, forward)
        for layer, found in zip(layers, moments, strict=True):
            if found.single and not found.count:
                raise DataError(
                    f"every batch came with one value for each channel to {layer}, which has no variance.",
                    "Give batches of two inputs and more.",
                )
        return taken


def _keeps(layer: _BatchNorm) -> bool:
    return layer.track_running_stats and layer.running_mean is not None


def _read(model: nn.Module, batches: Iterable[Any], samples: int | None, forward: Forward | None) -> int:
    seen, device = 0, device_of(model)
    for batch in batches:
        count = length(batch)
        if count:
            outputs_of(model, placed(batch, device), forward)
        seen += count
        if samples is not None and seen >= samples:
            break
    return unlabelled(seen, "to take statistics from")


@dataclass
class _Moments:
    """Count, mean and summed squares about the mean, of each channel."""

    mean: Tensor
    squares: Tensor
    count: int = 0
    single: bool = False
    """Whether a batch brought one value, which is not counted."""

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Join the unbiased variance of `count` more (Chan, Golub & LeVeque 1983, equation 2.1)."""
        joint, apart = self.count + count, mean.double() - self.mean
        self.squares += variance.double() * (count - 1) + apart**2 * (self.count * count / joint)
        self.mean += apart * (count / joint)
        self.count = joint


@contextmanager
def _counting(layers: Iterable[_BatchNorm]) -> Iterator[list[_Moments]]:
    """In training mode, take the moments of all that passes; on leaving they are the running statistics."""
    with ExitStack() as stack:
        yield [stack.enter_context(_counted(layer)) for layer in layers]


@contextmanager
def _counted(layer: _BatchNorm) -> Iterator[_Moments]:
    """With a momentum of 1 the running statistics are those of the latest batch, which the hook reads."""
    mean, variance = statistics(layer)
    moments = _Moments(
        torch.zeros_like(mean, dtype=torch.float64), torch.zeros_like(mean, dtype=torch.float64)
    )
    check = layer.register_forward_pre_hook(partial(_pass_over_one, moments), with_kwargs=True)
    hook = layer.register_forward_hook(partial(_add, moments))
    try:
        with _restoring(layer):
            layer.momentum = 1.0
            layer.train()
            yield moments
        if moments.count:
            mean.copy_(moments.mean)
            variance.copy_(moments.squares / max(moments.count - 1, 1))
    finally:
        check.remove()
        hook.remove()


@contextmanager
def _restoring(layer: _BatchNorm) -> Iterator[None]:
    """On leaving, momentum and statistics are as they were."""
    momentum, buffers = layer.momentum, [(buffer, buffer.clone()) for buffer in layer.buffers()]
    try:
        yield
    finally:
        layer.momentum = momentum
        for buffer, before in buffers:
            buffer.copy_(before)


def statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The running mean and variance of a layer which keeps them.

    >>> statistics(nn.BatchNorm1d(2))
    (tensor([0., 0.]), tensor([1., 1.]))
    """
    return layer.get_buffer("running_mean"), layer.get_buffer("running_var")


def _add(moments: _Moments, layer: _BatchNorm, inputs: object, output: Tensor) -> None:
    if layer.training:
        moments.add(_values(output), *statistics(layer))
    else:
        layer.train()


def _values(inputs: Tensor) -> int:
    """Values of each channel."""
    return inputs.numel() // inputs.shape[1]


def _pass_over_one(
    moments: _Moments, layer: _BatchNorm, inputs: tuple[Tensor, ...], names: Mapping[str, Tensor]
) -> None:
    """A single value is normalised by the statistics at hand."""
    if _values(inputs[0] if inputs else names["input"]) < 2:
        moments.single = True
        layer.eval()
