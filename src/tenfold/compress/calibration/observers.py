"""Running sums of what a layer sees, one class a statistic."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from tenfold.compress.calibration.calls import Call, Columns
from tenfold.compress.calibration.patches import channel_matrix, chunks
from tenfold.compress.calibration.sums import Sums
from tenfold.core.registry import Registry


class Observer(ABC):
    """Base class; a concrete one sees every call of a site and gives means at the end."""

    sees: ClassVar[str]
    """What it reads, for messages: "inputs", "outputs" or "loss gradients"."""
    backward: ClassVar[bool] = False
    """Whether the gradients by the outputs come in place of the outputs."""
    keeps_input: ClassVar[bool] = False
    """Whether the inputs are read when the gradients come."""

    def __init__(self) -> None:
        self.sums = Sums()
        self.count = 0

    @abstractmethod
    def see(self, call: Call) -> None:
        """Add one call."""

    def result(self, samples: int) -> dict[str, Tensor]:
        """Statistics by name, which take the place of the sums; of gradients that never came, none."""
        return self.sums.mean_(samples if self.backward else self.count)

    @staticmethod
    def refusal(width: int, max_patch: int) -> str:
        """Why this cannot be collected of a layer with patches of this width, empty if it can."""
        return ""


observers: Registry[type[Observer]] = Registry("statistic")
"""The registered statistics: what `collect` takes as `want`."""


class Moment(Observer):
    """First and second moment of the columns of matrices."""

    names: ClassVar[tuple[str, str]]

    @abstractmethod
    def matrices(self, call: Call) -> Iterator[Columns]:
        """(entries, positions), or a stack of such."""

    def see(self, call: Call) -> None:
        """One matrix product for each piece."""
        first, second = self.names
        for matrix in self.matrices(call):
            self.sums.add(first, matrix.sum(-1))
            self.sums.add_gram(second, matrix)
            self.count += matrix.shape[-1]


@observers.register("input_covariance")
class InputCovariance(Moment):
    """Channels of the input, over all its positions."""

    sees, names = "inputs", ("input_mean", "input_covariance")

    def matrices(self, call: Call) -> Iterator[Columns]:
        """Channels × positions."""
        return call.inputs()


@observers.register("patch_moment")
class PatchMoment(Moment):
    """Patches of the input, as the weight's axes (i, *taps) see them."""

    sees, names = "inputs", ("patch_mean", "patch_moment")

    def matrices(self, call: Call) -> Iterator[Columns]:
        """Patch entries × positions of the output."""
        return call.patches()

    @staticmethod
    def refusal(width: int, max_patch: int) -> str:
        """Whether the patches are wider than `max_patch`."""
        return (
            f"its patches have {width} entries, more than max_patch={max_patch}" if width > max_patch else ""
        )


@observers.register("output_covariance")
class OutputCovariance(Moment):
    """Channels of the output."""

    sees, names = "outputs", ("output_mean", "output_covariance")

    def matrices(self, call: Call) -> Iterator[Columns]:
        """Channels × positions."""
        kept, _ = call.outputs()
        return (channel_matrix(y, call.order) for y in chunks(kept, call.at.max_bytes))


@observers.register("input_absolute")
class InputAbsolute(Observer):
    """Mean absolute value of every input channel."""

    sees = "inputs"

    def see(self, call: Call) -> None:
        """Sum over positions."""
        for matrix in call.inputs(thinned=False):
            self.sums.add("input_absolute", matrix.abs().sum(-1))
            self.count += matrix.shape[-1]


@observers.register("gradient_covariance")
class GradientCovariance(Observer):
    """Second moment of the loss gradients, summed over positions, mean over samples."""

    sees, backward = "loss gradients", True

    def see(self, call: Call) -> None:
        """One matrix product for each piece; positions that are looked at stand for all."""
        kept, behind = call.outputs()
        for g in chunks(kept, call.at.max_bytes):
            matrix = channel_matrix(g, call.order)
            self.sums.add_gram("gradient_covariance", matrix, behind * call.uses)


@observers.register("fisher_rows")
class Fisher(Observer):
    """Squared gradients of the weight, sample by sample, summed over its rows and over its columns.

    A sample owns an equal, connected share of the layer's batch axis (windows of attention follow one another
    by image). Where its length is no multiple of the samples (experts get tokens of all), every entry counts
    as a sample of its own, and so does every call of a layer that is called several times.
    """

    sees, backward, keeps_input = "loss gradients", True, True

    def see(self, call: Call) -> None:
        """What the pieces of the call add up to."""
        for rows, columns in call.squared_gradients():
            self.sums.add("fisher_rows", rows)
            self.sums.add("fisher_columns", columns)
