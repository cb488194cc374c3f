"""What tuning minimises, and what it goes by in validation: labels, closeness to a teacher, or both."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.batches import Forward, length, outputs_of, parts, placed
from tenfold.compress.recovery.batches import labels_of
from tenfold.compress.recovery.distill import Distillation, require
from tenfold.compress.recovery.features import at_least_single, capturing, relative_square
from tenfold.compress.recovery.outputs import Classes, counted, cross_entropy, tensor_of
from tenfold.core.errors import ModelError, OptionError, SelectionError
from tenfold.measure.accuracy import hits
from tenfold.measure.running import device_of, keeping_mode

Loss = Callable[[Any, Any], Tensor]
"""loss(outputs, labels): the mean over the samples of a batch; labels may be None."""
Penalty = Callable[[nn.Module], Tensor]
"""penalty(model): what its weights cost by themselves."""


@dataclass(frozen=True)
class Judged:
    """One batch in validation: the sum of its losses, how many are right if it has classes, their number."""

    loss: float
    right: int | None
    count: int


@dataclass(frozen=True)
class Objective:
    """The loss of one batch. `own` and `taught` hold the features of the latest forward pass, and `classes`
    where batches have shown that the outputs have their classes."""

    label_smoothing: float
    teacher: nn.Module | None
    distillation: Distillation
    loss: Loss | None
    forward: Forward | None
    penalty: Penalty | None
    own: dict[str, Tensor]
    taught: dict[str, Tensor]
    classes: Classes

    def __call__(self, model: nn.Module, batch: Any, device: torch.device) -> Tensor:
        """Run the model, and the teacher if there is one, on `device`; what a training step minimises."""
        batch = placed(batch, device)
        outputs = self._outputs(model, batch)
        loss = self._by_labels(outputs, batch) if self.teacher is None else self._distilled(outputs, batch)
        return loss if self.penalty is None else loss + self._penalty(self.penalty, model, device)

    def judged(self, model: nn.Module, batch: Any, device: torch.device, by_labels: bool) -> Judged:
        """The loss in validation, without smoothing and penalty: with the labels, or with the teacher."""
        batch = placed(batch, device)
        outputs, count = self._outputs(model, batch), self.weight(batch)
        if not by_labels:
            return Judged(self._distilled(outputs, batch).item() * count, None, count)
        if self.loss is not None:
            return Judged(self._own_loss(self.loss, outputs, batch).item() * count, None, count)
        labels = labels_of(batch)
        logits = self.classes.second(outputs, labels)
        right = None if labels.is_floating_point() else hits(logits, labels)
        return Judged(cross_entropy(logits, labels).item() * count, right, count)

    def goes_by_labels(self, batch: Any) -> bool:
        """Whether validation on such batches asks for labels: always, but with a teacher that needs none.

        Then the labels count if there are any, and the outputs are what they are compared with.
        """
        if self.teacher is None or self.distillation.label_weight:
            return True
        fit = self.loss is not None or self.distillation.outputs == "logits"
        labels = parts(batch)[1]
        return fit and (isinstance(labels, Tensor) or (labels is not None and self.loss is not None))

    def weight(self, batch: Any) -> int:
        """What a batch counts in a mean: its labels; its samples where there are none, or a loss is given."""
        labels = parts(batch)[1]
        if self.loss is not None or not isinstance(labels, Tensor):
            return length(batch)
        return len(labels) if labels.is_floating_point() else counted(labels)

    @property
    def uses_all(self) -> bool:
        """Whether all of the model is sure to have a part in the loss."""
        if self.forward is not None or self.loss is not None:
            return False
        return self.teacher is None or self.distillation.logit_weight + self.distillation.label_weight > 0

    def _outputs(self, model: nn.Module, batch: Any) -> Any:
        """Those of the model; features of an earlier batch are forgotten."""
        self.own.clear()
        self.taught.clear()
        return outputs_of(model, batch, self.forward)

    def _by_labels(self, outputs: Any, batch: Any) -> Tensor:
        if self.loss is not None:
            return self._own_loss(self.loss, outputs, batch)
        labels = labels_of(batch)
        return cross_entropy(self.classes.second(outputs, labels), labels, self.label_smoothing)

    def _own_loss(self, loss: Loss, outputs: Any, batch: Any) -> Tensor:
        outputs = at_least_single(outputs) if isinstance(outputs, Tensor) else outputs
        return _scalar(loss(outputs, parts(batch)[1]), "loss")

    def _distilled(self, outputs: Any, batch: Any) -> Tensor:
        assert self.teacher is not None
        with torch.no_grad():
            taught = outputs_of(self.teacher, batch, self.forward)
        how, terms = self.distillation, []
        if how.label_weight:
            terms.append(how.label_weight * self._by_labels(outputs, batch))
        if how.logit_weight:
            terms.append(how.logit_weight * self._distance(outputs, taught, batch))
        if how.feature_weight and how.features:
            terms.append(how.feature_weight * self._feature_error())
        return torch.stack(terms).sum()

    def _distance(self, outputs: Any, taught: Any, batch: Any) -> Tensor:
        if self.distillation.outputs != "logits":
            return self.distillation.distance(tensor_of(outputs), tensor_of(taught))
        labels = parts(batch)[1]
        known = labels if isinstance(labels, Tensor) else None
        return self.distillation.distance(*(self.classes.second(o, known) for o in (outputs, taught)))

    def _feature_error(self) -> Tensor:
        pairs = self.distillation.matched.items()
        return torch.stack(
            [relative_square(_ran(self.own, a), _ran(self.taught, b), a) for a, b in pairs]
        ).mean()

    @staticmethod
    def _penalty(penalty: Penalty, model: nn.Module, device: torch.device) -> Tensor:
        """In the precision of the weights, whatever the products of training are computed in."""
        with torch.autocast(device.type, enabled=False):
            return _scalar(penalty(model), "penalty")


def _ran(features: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in features:
        raise SelectionError(
            f"Feature '{name}' does not run when the model, or its teacher, is called.",
            "Name modules that take part in every forward pass of both.",
        )
    return features[name]


def _scalar(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise OptionError(
            f"The {name} should give one number, as a tensor, but {shape} came.",
            "Take the mean over the samples of the batch." if name == "loss" else "Take the sum.",
        )
    return value.reshape(())


class Losses(nn.Module):
    """A module that gives the loss of a batch, so that what runs modules in parallel can run the loss."""

    def __init__(self, model: nn.Module, objective: Objective, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.device = device

    def forward(self, batch: Any) -> Tensor:
        """The loss, of which gradients flow into the model."""
        return self.objective(self.model, batch, self.device)


@contextmanager
def objective(
    model: nn.Module,
    teacher: nn.Module | None,
    distillation: Distillation | None,
    device: torch.device,
    *,
    label_smoothing: float = 0.0,
    loss: Loss | None = None,
    forward: Forward | None = None,
    penalty: Penalty | None = None,
) -> Iterator[Objective]:
    """The loss to minimise; meanwhile the teacher is in evaluation mode on `device`, afterwards as it was.

    Raises:
        OptionError: for a distillation without a teacher.
        ModelError: if the teacher is the model, or shares weights with it that learn.
        SelectionError: if a feature is not the name of a module.
    """
    how = distillation or Distillation()
    if teacher is None:
        require(distillation is None, "a teacher to distil from, got None")
        yield Objective(label_smoothing, None, how, loss, forward, penalty, {}, {}, Classes())
        return
    _check_other(model, teacher)
    with (
        _teaching(teacher, device),
        capturing(model, how.matched) as own,
        capturing(teacher, set(how.matched.values())) as taught,
    ):
        yield Objective(label_smoothing, teacher, how, loss, forward, penalty, own, taught, Classes())


@contextmanager
def _teaching(teacher: nn.Module, device: torch.device) -> Iterator[None]:
    home = device_of(teacher)
    with keeping_mode(teacher):
        teacher.to(device).eval()
        try:
            yield
        finally:
            teacher.to(home)


def _check_other(model: nn.Module, teacher: nn.Module) -> None:
    if teacher is model:
        raise ModelError(
            "The teacher is the model itself, which would change under its eyes.",
            "Keep the model from before compression, or a copy: copy.deepcopy(model).",
        )
    theirs = {id(parameter) for parameter in teacher.parameters()}
    shared = [name for name, p in model.named_parameters() if p.requires_grad and id(p) in theirs]
    if shared:
        raise ModelError(
            f"The teacher has '{shared[0]}' in common with the model, and would change as that learns.",
            "Give a copy of the teacher, or freeze what both have: requires_grad_(False).",
        )
