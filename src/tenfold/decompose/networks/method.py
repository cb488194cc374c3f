"""What the iterative methods for networks share: several starts, of which the best go on."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from tenfold.core.arrays import Array, constant, epsilon
from tenfold.core.errors import OptionError
from tenfold.core.network import Network
from tenfold.decompose.base import Fit, Method, norm
from tenfold.decompose.networks.alternation import Alternation
from tenfold.decompose.networks.derivative import attached
from tenfold.decompose.networks.gauge import Factors
from tenfold.decompose.networks.general import direct, drawn
from tenfold.formats import Format

F = TypeVar("F", bound=Format)


@dataclass(frozen=True)
class NetworkMethod(Method[F]):
    """Base class of iterative methods for networks.

    `restarts` starts, the first as `start` says and the others random, get `trial_steps` sweeps of
    alternating least squares; the best `finalists` go on until one fits exactly, and the best is kept.
    """

    levels: ClassVar = True
    starts: ClassVar[tuple[str, ...]] = ("svd", "random")
    start: str = "svd"
    restarts: int = 1
    finalists: int = 1
    trial_steps: int = 10

    def __post_init__(self) -> None:
        if self.start not in self.starts:
            raise OptionError(f"start came as {self.start!r}.", f"Choose one of {', '.join(self.starts)}.")
        if min(self.restarts, self.finalists) < 1 or self.trial_steps < 0:
            raise OptionError(
                f"{self} has an option below its range.",
                "Give restarts and finalists of 1 or more, trial_steps of 0 or more.",
            )

    def _fit(self, tensor: Array, network: Network, generator: Any) -> Fit[F]:
        fixed = constant(tensor)
        runs = [Alternation(fixed, network, f) for f in self._begun(fixed, network, generator)]
        for run in runs:
            run.advance(0.0, self.trial_steps)
        best = self._best(sorted(runs, key=lambda run: run.error)[: self.finalists])
        factors = attached(tensor, network, best.value.factors)
        return replace(best, value=self._value(network, factors))

    def _best(self, runs: list[Alternation]) -> Fit[F]:
        """Of the fits that the runs lead to; the first one that is exact ends the search."""
        fits: list[Fit[F]] = []
        for run in runs:
            fits.append(self._finished(run))
            if fits[-1].error <= 1e3 * epsilon(run.tensor):
                break
        return min(fits, key=lambda fit: fit.error)

    def _begun(self, tensor: Array, network: Network, generator: Any) -> Iterator[Factors]:
        yield self._started(tensor, network, generator)
        for _ in range(self.restarts - 1 if norm(tensor) else 0):
            yield drawn(tensor, network, generator)

    def _started(self, tensor: Array, network: Network, generator: Any) -> Factors:
        """The factors of the first start."""
        if self.start == "svd":
            return direct(self.format, self._static(), tensor, network, generator)
        return drawn(tensor, network, generator)

    @abstractmethod
    def _finished(self, run: Alternation) -> Fit[F]:
        """The fit from what the sweeps of the trial have reached."""

    def _value(self, network: Network, factors: Factors) -> F:
        """The format over factors in the order of the network."""
        value: F = self.format.from_network(network, factors, **self._static())  # type: ignore[assignment]
        return value
