"""The loss whose gradients calibration takes: by given labels, or by what the model itself draws."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.core.errors import DataError, ShapeError

IGNORED = -100
"""The label of a position without one: torch's `ignore_index`."""


def logits_of(outputs: Any) -> Tensor:
    """The tensor of logits: the outputs themselves, their entry or attribute `logits`, or their first entry.

    Raises:
        ShapeError: if there is none, or it has not two classes at least.
    """
    if not isinstance(outputs, Tensor):
        outputs = entry_of(outputs) if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if isinstance(outputs, tuple | list) and outputs:
        outputs = outputs[0]
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        what = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ShapeError(
            f"logits of shape (N, classes) were expected, but {what} came.",
            "Give `loss`, called as loss(outputs, labels), or a `forward` that returns logits.",
        )
    return outputs


def entry_of(outputs: Mapping[str, Any]) -> Any:
    """The entry `logits` of a mapping, or its first one; None if it is empty."""
    return outputs.get("logits", next(iter(outputs.values()), None))


def labelled_loss(logits: Tensor, labels: Any) -> Tensor:
    """Cross-entropy in nats, summed over all labels (but those of -100, torch's `ignore_index`).

    The classes are axis 1 of the logits, or the last one if only so the labels fit.

    Raises:
        ShapeError: if logits and labels do not fit.
        DataError: if labels are no class numbers, or there are not as many classes.
    """
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else None
    if shape == (*logits.shape[:1], *logits.shape[2:]):
        return _cross_entropy(logits, _class_numbers(labels, logits.shape[1]))
    if shape == tuple(logits.shape[:-1]):
        return _cross_entropy(logits.movedim(-1, 1), _class_numbers(labels, logits.shape[-1]))
    raise ShapeError(
        f"logits of shape {tuple(logits.shape)} do not fit labels of shape {shape}.",
        "Labels are class numbers of shape (N,) for logits (N, classes); give `loss` for anything else.",
    )


def _class_numbers(labels: Tensor, classes: int) -> Tensor:
    """The labels as torch takes them; a number without a class would stop a GPU for good."""
    if labels.is_floating_point() or labels.is_complex():
        kind = str(labels.dtype).removeprefix("torch.")
        raise DataError(
            f"labels are class numbers, but came as {kind}.",
            "Give integers; or give `loss`, called as loss(outputs, labels), for anything else.",
        )
    numbers = labels.long()
    counted = numbers[numbers != IGNORED]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
    if low < 0 or high >= classes:
        raise DataError(
            f"labels reach from {low} to {high}, but the model has {classes} classes.",
            f"Number the classes from 0; {IGNORED} marks positions without a label.",
        )
    return numbers


def sampled_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy by labels drawn from softmax(logits): its squared gradients are those of the true Fisher.

    The classes are axis 1, but the last of three, as transformers give them. Drawn by the Gumbel trick,
    argmax(logits + noise), in which nothing waits for the device.
    """
    classes_first = logits.movedim(-1, 1) if logits.ndim == 3 else logits
    plain = classes_first.detach().float()
    noise = by_rows(plain, lambda row: row.exponential_(generator=generator))
    return _cross_entropy(classes_first, (plain - noise.log()).argmax(1))


def by_rows(like: Tensor, draw: Callable[[Tensor], object]) -> Tensor:
    """Random numbers of the shape of a tensor, row by row: the same however samples are cut into batches.

    >>> state = torch.Generator().manual_seed(0)
    >>> both = by_rows(torch.ones(2, 3), lambda row: row.normal_(generator=state))
    >>> state = state.manual_seed(0)
    >>> ones = [by_rows(torch.ones(1, 3), lambda row: row.normal_(generator=state)) for _ in range(2)]
    >>> torch.equal(both, torch.cat(ones))
    True
    """
    drawn = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    for row in drawn:
        draw(row)
    return drawn


def numbers_of(outputs: Any) -> Tensor:
    """The outputs, if they are a tensor of real numbers; raises ShapeError if they are not."""
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        what = f"dtype {outputs.dtype}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ShapeError(
            f"outputs as a tensor of real numbers were expected, but {what} came.",
            "Give a `forward` that returns the tensor that counts, such as the embeddings.",
        )
    return outputs


def gaussian_loss(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """⟨outputs, ε⟩ with ε drawn from N(0, 1): its squared gradients are those of ½‖outputs - targets‖².

    With targets drawn as outputs + ε, the gradient by the outputs is -ε, and E[g gᵀ] is the true Fisher of a
    Gaussian about the outputs, the Gauss-Newton matrix Jᵀ J. If only the direction of embeddings counts,
    normalise them first, in `forward`. To have several draws a sample, give the batches several times.

    Source: Martens 2020 (arXiv 1412.1193).

    >>> y = torch.ones(3, 2, requires_grad=True)
    >>> torch.autograd.grad(gaussian_loss(y, torch.Generator().manual_seed(0)), y)[0].shape
    torch.Size([3, 2])
    """
    wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return (wide * by_rows(wide.detach(), lambda row: row.normal_(generator=generator))).sum()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        raise ShapeError(
            f"logits of shape {tuple(logits.shape)} have one class, whose cross-entropy is always 0.",
            "Give `loss`, called as loss(outputs, labels), for outputs that are not logits of classes.",
        )
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, labels, reduction="sum")
