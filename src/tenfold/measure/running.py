"""Running a model as at inference, and leaving it as it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What a model is called with: one tensor, a tuple of positional arguments, or a mapping of named ones.
Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


def run(model: nn.Module, example: Example) -> Any:
    """Call the model: with a tensor, with a tuple as `model(*example)`, with a mapping as `model(**example)`.

    >>> run(torch.nn.Bilinear(2, 3, 4), (torch.ones(1, 2), torch.ones(1, 3))).shape
    torch.Size([1, 4])
    """
    if isinstance(example, Tensor):
        return model(example)
    return model(**example) if isinstance(example, Mapping) else model(*example)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU when it has none.

    >>> device_of(torch.nn.ReLU())
    device(type='cpu')
    """
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def move(example: Example, device: torch.device) -> Example:
    """The example with copies of its tensors on `device`; everything else stays as it is.

    They are copies on the same device too: a model that works in place changes its input.

    >>> move((torch.ones(2), "mean"), torch.device("meta"))
    (tensor(..., device='meta', size=(2,)), 'mean')
    """
    if isinstance(example, Tensor):
        return example.to(device, copy=True)
    if isinstance(example, Mapping):
        return {name: _moved(value, device) for name, value in example.items()}
    return tuple(_moved(value, device) for value in example)


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, copy=True) if isinstance(value, Tensor) else value


@contextmanager
def keeping_mode(model: nn.Module) -> Iterator[None]:
    """On leaving, every module is in training or evaluation mode again as it was, each for itself.

    >>> model = torch.nn.Sequential(torch.nn.Dropout().eval())
    >>> with keeping_mode(model):
    ...     _ = model.train()
    >>> model.training, model[0].training
    (True, False)
    """
    training = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, was in training:
            module.training = was


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, until left.

    >>> model = torch.nn.Dropout()
    >>> with evaluating(model):
    ...     model.training, torch.is_grad_enabled()
    (False, False)
    """
    with keeping_mode(model), torch.no_grad():
        model.eval()
        yield
