"""The cells of the tables: a network, a strategy, a method and the fraction that is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import study

from tenfold import presets

MODELS = ("resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "vgg19")
SCRATCH, PRETRAINED, TUNED = "scratch", "pretrained_no_finetune", "pretrained_finetuned"
STRATEGIES = (SCRATCH, PRETRAINED, TUNED)
OURS = "tenfold"
DENSE, DISTILLED = "dense", "dense_distilled"
METHODS = (*study.METHODS, OURS)
KEEPS = (0.1, 0.2, 0.5, 0.8)


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Methods are those of the study, `tenfold` (our best), `tenfold-` and a preset of the library, and two
    controls that stay dense and keep 1: `dense`, trained from scratch or then tuned as the study does, and
    `dense_distilled`, tuned as ours are, with itself as the teacher.

    >>> Cell("vgg16", TUNED, "tenfold-cp3", 0.5).name, Cell("vgg16", TUNED, "tenfold-cp3", 0.5).preset("auto")
    ('vgg16-pretrained_finetuned-tenfold-cp3-0.5', 'cp3')
    """

    model: str
    strategy: str
    method: str
    keep: float

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.model}-{self.strategy}-{self.method}-{self.keep:g}"

    @property
    def start(self) -> str:
        """The name of the factorized network that it starts from, which strategies share."""
        return f"{self.model}-{'scratch-' * (self.strategy == SCRATCH)}{self.method}-{self.keep:g}"

    @property
    def is_dense(self) -> bool:
        """Whether it is a control."""
        return self.method in (DENSE, DISTILLED)

    @property
    def is_ours(self) -> bool:
        """Whether it is compressed by the library at its best, or tuned like that."""
        return self.method == DISTILLED or is_ours(self.method)

    def preset(self, default: str) -> str:
        """The preset of ours that it names, or the default."""
        return self.method.partition("-")[2] or default


def is_ours(method: str) -> bool:
    """Whether a method is ours, with whatever preset."""
    return method.partition("-")[0] == OURS


def baseline(model: str) -> Cell:
    """The dense network."""
    return Cell(model, SCRATCH, DENSE, 1.0)


def cells(
    models: Sequence[str], strategies: Sequence[str], methods: Sequence[str], keeps: Sequence[float]
) -> list[Cell]:
    """All combinations that mean something, model by model; the cheap strategies first.

    >>> [cell.name for cell in cells(["vgg16"], STRATEGIES, ["dense", "cp"], [0.5])]
    ['vgg16-pretrained_no_finetune-cp-0.5', 'vgg16-pretrained_finetuned-dense-1',
     'vgg16-pretrained_finetuned-cp-0.5', 'vgg16-scratch-dense-1', 'vgg16-scratch-cp-0.5']
    """
    order = [s for s in (PRETRAINED, TUNED, SCRATCH) if s in strategies]
    found = []
    for model, strategy, method in product(models, order, methods):
        dense = Cell(model, strategy, method, 1.0)
        if not dense.is_dense:
            found += [Cell(model, strategy, method, keep) for keep in keeps]
        elif strategy == TUNED or (strategy == SCRATCH and method == DENSE):
            found.append(dense)
    return found


def reduced(model: str) -> list[Cell]:
    """The cells that two cores finish in minutes: all methods without tuning, and two with."""
    return [
        *cells([model], [PRETRAINED], METHODS, (0.5, 0.2)),
        Cell(model, TUNED, "tucker", 0.2),
        Cell(model, TUNED, OURS, 0.2),
    ]


def check_method(method: str) -> str:
    """The method, if there is such a one."""
    preset = method.partition("-")[2]
    if method not in (*METHODS, DENSE, DISTILLED) and not (is_ours(method) and preset in presets):
        raise ValueError(f"there is no method {method}")
    return method
