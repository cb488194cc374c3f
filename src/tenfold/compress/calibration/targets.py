"""The loss whose gradients calibration takes: by given labels, or by labels that the model itself draws."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tenfold.core.errors import ShapeError


def logits_of(outputs: Any) -> Tensor:
    """The tensor of logits: the outputs themselves, their entry or attribute `logits`, or their first entry.

    Raises:
        ShapeError: if there is none, or it has not two classes at least.
    """
    if not isinstance(outputs, Tensor):
        outputs = outputs["logits"] if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    if isinstance(outputs, tuple | list) and outputs:
        outputs = outputs[0]
    if not isinstance(outputs, Tensor) or outputs.ndim < 2:
        what = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ShapeError(
            f"logits of shape (N, classes) were expected, but {what} came.",
            "Give `loss`, called as loss(outputs, labels), or a `forward` that returns logits.",
        )
    return outputs


def labelled_loss(logits: Tensor, labels: Any) -> Tensor:
    """Cross-entropy in nats, summed over all labels (but those of -100, torch's `ignore_index`).

    The classes are axis 1 of the logits, or the last one if only so the labels fit.

    Raises:
        ShapeError: if logits and labels do not fit.
    """
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else None
    if shape == (*logits.shape[:1], *logits.shape[2:]):
        return _cross_entropy(logits, labels)
    if shape == tuple(logits.shape[:-1]):
        return _cross_entropy(logits.movedim(-1, 1), labels)
    raise ShapeError(
        f"logits of shape {tuple(logits.shape)} do not fit labels of shape {shape}.",
        "Labels are class numbers of shape (N,) for logits (N, classes); give `loss` for anything else.",
    )


def sampled_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy by labels drawn from softmax(logits): its squared gradients are those of the true Fisher.

    The classes are axis 1, but the last of three, as transformers give them. Drawn by the Gumbel trick,
    argmax(logits + noise), in which nothing waits for the device.
    """
    classes_first = logits.movedim(-1, 1) if logits.ndim == 3 else logits
    plain = classes_first.detach().float()
    noise = torch.empty_like(plain).exponential_(generator=generator)
    return _cross_entropy(classes_first, (plain - noise.log()).argmax(1))


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        raise ShapeError(
            f"logits of shape {tuple(logits.shape)} have one class, whose cross-entropy is always 0.",
            "Give `loss`, called as loss(outputs, labels), for outputs that are not logits of classes.",
        )
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, labels, reduction="sum")
