"""How networks are trained and tuned."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from cells import PRETRAINED, SCRATCH, Cell

from tenfold import Distillation
from tenfold.compress.recovery.schedule import Schedule


@dataclass(frozen=True)
class Recipe:
    """Adam for so many epochs; stopped after `patience` epochs without a new lowest validation loss."""

    epochs: int
    lr: float
    schedule: Schedule = "constant"
    patience: int | None = None
    taught: float = 0.0
    """The weight of the dense network's logits in the loss; the labels have the rest."""

    def __post_init__(self) -> None:
        if not 0 <= self.taught <= 1:
            raise ValueError(f"The dense network's weight in the loss is from 0 to 1, got {self.taught}.")

    @property
    def distillation(self) -> Distillation | None:
        """What the dense network teaches; None if it does not."""
        weights = {"logit_weight": self.taught, "label_weight": 1 - self.taught}
        return Distillation(**weights) if self.taught else None


@dataclass(frozen=True)
class Protocol:
    """Everything that accuracies depend on, besides the cell.

    `train` is for dense networks and from scratch, `tune` the study's tuning, `own` that of ours. `valid` is
    the fraction of the training images that is kept for validation; `images`, if given, bounds the rest.
    `calibration` is how many of them ours may look at before tuning. `flops`, if given, is the fraction of
    the dense network's FLOPs that ours may take, besides the bound on parameters. `correct` is whether each
    layer of ours makes up for the errors of those before it.
    """

    train: Recipe = Recipe(50, 1e-3)
    tune: Recipe = Recipe(50, 1e-5, patience=3)
    own: Recipe = Recipe(30, 1e-3, "cosine", taught=0.9)
    batch: int = 128
    augment: bool = True
    valid: float = 0.1
    images: int | None = None
    calibration: int = 2000
    flops: float | None = None
    correct: bool = False
    preset: str = "auto"
    seed: int = 0

    def recipe(self, cell: Cell) -> Recipe | None:
        """How the network of a cell is trained; None if it is not."""
        if cell.strategy == PRETRAINED:
            return None
        if cell.strategy == SCRATCH:
            return self.train
        return self.own if cell.is_ours else self.tune

    def of(self, cell: Cell) -> dict[str, Any]:
        """What the accuracy of a cell depends on, for JSON."""
        recipe = self.recipe(cell)
        given = [name for name in ("flops", "correct") if cell.is_ours and getattr(self, name)]
        other = {"tune", "own", "flops", "correct"} - set(given)
        common = {name: value for name, value in asdict(self).items() if name not in other}
        return common | {"recipe": recipe and asdict(recipe), "preset": cell.preset(self.preset)}

    def start(self, cell: Cell) -> dict[str, Any]:
        """What the network of a cell before any training depends on, for JSON."""
        own = {name: value for name, value in self.of(cell).items() if name in ("flops", "correct")}
        common = {"seed": self.seed, "preset": cell.preset(self.preset)}
        return common | own | ({"calibration": self.calibration} if cell.is_ours else {})

    def with_epochs(self, train: int | None, tune: int | None) -> "Protocol":
        """Other numbers of epochs, where given."""
        lengths = {"train": train, "tune": tune, "own": tune}
        given = {name: count for name, count in lengths.items() if count is not None}
        return replace(self, **{name: replace(getattr(self, name), epochs=n) for name, n in given.items()})


STUDY = Protocol()
"""As published, where that is known; README.md says what is not."""

REDUCED = Protocol(
    train=Recipe(5, 5e-3, "cosine"),
    tune=Recipe(2, 1e-5, patience=3),
    own=Recipe(2, 1e-3, "cosine", taught=0.9),
)
"""For two cores."""
