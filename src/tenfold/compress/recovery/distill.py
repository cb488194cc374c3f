"""What tuning minimises: the cross-entropy with labels, closeness to a teacher, or both."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.recovery.batches import Batch, inputs_of, labels_of
from tenfold.compress.recovery.features import at_least_single, capturing, relative_square
from tenfold.core.errors import ModelError, OptionError, ShapeError
from tenfold.measure.running import device_of, keeping_mode


@dataclass(frozen=True)
class Distillation:
    """How a model learns from a teacher: the weighted sum of three terms is minimised.

    `label_weight` × the cross-entropy with the labels; at 0 no labels are needed.
    `logit_weight` × T² KL(softmax(teacher / T) ‖ softmax(model / T)), with T the `temperature`; T² keeps its
    gradients of one size whatever T is.
    `feature_weight` × the mean over `features` of ‖model - teacher‖² / ‖teacher‖². `features` are names of
    modules, the same in both, or {name in the model: name in the teacher}.

    Raises:
        OptionError: for an option outside its range, or if no term is left.

    Source: Hinton, Vinyals & Dean 2015 (arXiv 1503.02531); features: Romero et al. 2015 (arXiv 1412.6550).

    >>> Distillation(label_weight=0.0, features=("layer1", "layer2")).matched
    {'layer1': 'layer1', 'layer2': 'layer2'}
    """

    temperature: float = 4.0
    logit_weight: float = 0.9
    label_weight: float = 0.1
    features: Mapping[str, str] | tuple[str, ...] = ()
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        weights = self.logit_weight, self.label_weight, self.feature_weight
        _require(0 < self.temperature < inf, f"a finite temperature > 0, got {self.temperature}")
        _require(not isinstance(self.features, str), f"features as a tuple, got '{self.features}'")
        for weight in weights:
            _require(0 <= weight < inf, f"finite weights >= 0, got {weights}")
        _require(self.logit_weight + self.label_weight + self._features > 0, "a term whose weight is above 0")

    @property
    def matched(self) -> dict[str, str]:
        """Name in the model -> name in the teacher."""
        return dict(self.features) if isinstance(self.features, Mapping) else {n: n for n in self.features}

    @property
    def _features(self) -> float:
        return self.feature_weight if self.features else 0.0


def distillation_loss(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(teacher / T) ‖ softmax(outputs / T)), the mean over all but the class axis, which is 1.

    Raises:
        ShapeError: if the shapes differ.

    Source: Hinton, Vinyals & Dean 2015, section 2.

    >>> outputs = torch.tensor([[1.0, 2.0, 3.0]])
    >>> distillation_loss(outputs, outputs, 4.0).item()
    0.0
    """
    if outputs.shape != teacher.shape:
        raise ShapeError(
            f"The model gives outputs of shape {tuple(outputs.shape)}, the teacher {tuple(teacher.shape)}.",
            "Distil from a teacher with the same classes.",
        )
    log_q = F.log_softmax(outputs / temperature, 1)
    log_p = F.log_softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1).mean()


@dataclass(frozen=True)
class Objective:
    """The loss of one batch. `own` and `taught` hold the features of the latest forward pass."""

    label_smoothing: float
    teacher: nn.Module | None
    distillation: Distillation
    own: Mapping[str, Tensor]
    taught: Mapping[str, Tensor]

    def __call__(self, model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        """Run the model, and the teacher if there is one, on `device`."""
        inputs = inputs_of(batch).to(device)
        outputs = at_least_single(model(inputs))
        if self.teacher is None:
            return self._cross_entropy(outputs, batch)
        with torch.no_grad():
            wanted = at_least_single(self.teacher(inputs))
        return self._distilled(outputs, wanted, batch)

    @property
    def uses_outputs(self) -> bool:
        """Whether all of the model, up to its outputs, has a part in the loss."""
        return self.teacher is None or self.distillation.logit_weight + self.distillation.label_weight > 0

    def _cross_entropy(self, outputs: Tensor, batch: Batch) -> Tensor:
        labels = labels_of(batch).to(outputs.device)
        return F.cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)

    def _distilled(self, outputs: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        how, loss = self.distillation, outputs.new_zeros(())
        if how.label_weight:
            loss = loss + how.label_weight * self._cross_entropy(outputs, batch)
        if how.logit_weight:
            loss = loss + how.logit_weight * distillation_loss(outputs, wanted, how.temperature)
        if how.feature_weight and how.features:
            loss = loss + how.feature_weight * self._feature_error()
        return loss

    def _feature_error(self) -> Tensor:
        pairs = self.distillation.matched.items()
        return torch.stack([relative_square(self.own[a], self.taught[b], a) for a, b in pairs]).mean()


class Losses(nn.Module):
    """A module that gives the loss of a batch, so that what runs modules in parallel can run the loss."""

    def __init__(self, model: nn.Module, objective: Objective, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.device = device

    def forward(self, batch: Batch) -> Tensor:
        """The loss, of which gradients flow into the model."""
        return self.objective(self.model, batch, self.device)


@contextmanager
def objective(
    model: nn.Module,
    teacher: nn.Module | None,
    distillation: Distillation | None,
    label_smoothing: float,
    device: torch.device,
) -> Iterator[Objective]:
    """The loss to minimise; meanwhile the teacher is in evaluation mode on `device`, afterwards as it was.

    Raises:
        OptionError: for a distillation without a teacher.
        ModelError: if the teacher is the model.
        SelectionError: if a feature is not the name of a module.
    """
    how = distillation or Distillation()
    if teacher is None:
        _require(distillation is None, "a teacher to distil from, got None")
        yield Objective(label_smoothing, None, how, {}, {})
        return
    _check_other(model, teacher)
    with (
        _teaching(teacher, device),
        capturing(model, how.matched) as own,
        capturing(teacher, set(how.matched.values())) as taught,
    ):
        yield Objective(label_smoothing, teacher, how, own, taught)


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


def _require(met: bool, wanted: str) -> None:
    if not met:
        raise OptionError(f"Distillation needs {wanted}.", "Its docstring says what each option does.")
