"""How a model learns from a teacher: from its labels, its outputs and its features."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from tenfold.compress.recovery.features import at_least_single, relative_square
from tenfold.core.errors import OptionError, ShapeError

Outputs = Literal["logits", "square", "cosine"]
OUTPUTS = "logits", "square", "cosine"


@dataclass(frozen=True)
class Distillation:
    """How a model learns from a teacher: the weighted sum of three terms is minimised.

    `label_weight` × the cross-entropy with the labels (or the `loss` given to `tune`); at 0 none are needed.
    `logit_weight` × how far the outputs are from the teacher's. `outputs` says what they are: "logits", whose
    distance is T² KL(softmax(teacher / T) ‖ softmax(model / T)), with T the `temperature`, where T² keeps the
    gradients of one size whatever T is; or numbers, such as embeddings, whose distance is the "square"
    ‖model - teacher‖² / ‖teacher‖², or the "cosine" one, 1 - cos, of the vectors along the last axis.
    `feature_weight` × the mean over `features` of ‖model - teacher‖² / ‖teacher‖². `features` are names of
    modules, the same in both, or {name in the model: name in the teacher}.

    Raises:
        OptionError: for an option outside its range, or if no term is left.

    Source: Hinton, Vinyals & Dean 2015 (arXiv 1503.02531); features: Romero et al. 2015 (arXiv 1412.6550);
    cosine distance: Sanh et al. 2019 (DistilBERT, arXiv 1910.01108).

    >>> Distillation(label_weight=0.0, features=("layer1", "layer2")).matched
    {'layer1': 'layer1', 'layer2': 'layer2'}
    """

    temperature: float = 4.0
    logit_weight: float = 0.9
    label_weight: float = 0.1
    features: Mapping[str, str] | tuple[str, ...] = ()
    feature_weight: float = 1.0
    outputs: Outputs = "logits"

    def __post_init__(self) -> None:
        weights = self.logit_weight, self.label_weight, self.feature_weight
        require(0 < self.temperature < inf, f"a finite temperature > 0, got {self.temperature}")
        require(not isinstance(self.features, str), f"features as a tuple, got '{self.features}'")
        require(self.outputs in OUTPUTS, f"outputs of {', '.join(OUTPUTS)}, got '{self.outputs}'")
        for weight in weights:
            require(0 <= weight < inf, f"finite weights >= 0, got {weights}")
        require(self.logit_weight + self.label_weight + self._features > 0, "a term whose weight is above 0")

    @property
    def matched(self) -> dict[str, str]:
        """Name in the model -> name in the teacher."""
        return dict(self.features) if isinstance(self.features, Mapping) else {n: n for n in self.features}

    @property
    def _features(self) -> float:
        return self.feature_weight if self.features else 0.0

    def distance(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """How far outputs are from the teacher's; the classes of logits along axis 1."""
        if self.outputs == "square":
            return square_distance(outputs, teacher)
        if self.outputs == "cosine":
            return cosine_distance(outputs, teacher)
        return distillation_loss(outputs, teacher, self.temperature)


def distillation_loss(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(teacher / T) ‖ softmax(outputs / T)), the mean over all but the class axis, which is 1.

    Raises:
        ShapeError: if the shapes differ.

    Source: Hinton, Vinyals & Dean 2015, section 2.

    >>> import torch
    >>> outputs = torch.tensor([[1.0, 2.0, 3.0]])
    >>> distillation_loss(outputs, outputs, 4.0).item()
    0.0
    """
    _check_shapes(outputs, teacher)
    log_q = F.log_softmax(outputs / temperature, 1)
    log_p = F.log_softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1).mean()


def square_distance(outputs: Tensor, teacher: Tensor) -> Tensor:
    """‖outputs - teacher‖² / ‖teacher‖² over the whole batch.

    Raises:
        ShapeError: if the shapes differ.

    >>> import torch
    >>> square_distance(torch.zeros(2, 3), torch.ones(2, 3)).item()
    1.0
    """
    _check_shapes(outputs, teacher)
    return relative_square(outputs, teacher, "the output")


def cosine_distance(outputs: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of the angle between vectors along the last axis, in float32 at least, the mean of all.

    Raises:
        ShapeError: if the shapes differ.

    >>> import torch
    >>> cosine_distance(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
    1.0
    """
    _check_shapes(outputs, teacher)
    outputs, teacher = at_least_single(outputs), at_least_single(teacher)
    return (1 - F.cosine_similarity(outputs, teacher, dim=-1)).mean()


def _check_shapes(outputs: Tensor, teacher: Tensor) -> None:
    if outputs.shape != teacher.shape:
        raise ShapeError(
            f"The model gives outputs of shape {tuple(outputs.shape)}, the teacher {tuple(teacher.shape)}.",
            "Distil from a teacher whose outputs have the same shape: the same classes.",
        )


def require(met: bool, wanted: str) -> None:
    """Raise OptionError with what is wanted, unless it is met."""
    if not met:
        raise OptionError(f"Distillation needs {wanted}.", "Its docstring says what each option does.")
