"""CP with a penalty on the factors that is lowered to nothing: a way past degenerate components.

Without it, the search for the decomposition of a tensor such as that of matrix multiplication runs into
components that grow for ever and cancel one another. With λ/2 Σ_n ‖U_n‖² it cannot, and from its minimum at
one λ that at the next is near.

Source: Smirnov, 'The bilinear complexity and practical algorithms for matrix multiplication', 2013;
Tichavský, Phan & Cichocki, 'Numerical CP decomposition of some difficult tensors', 2017, arXiv:1603.01372.
"""

from collections.abc import Iterator

from tenfold.decompose.cp.local import CPProblem
from tenfold.decompose.local_problem import At, Local, Point, added, dot

STAGES = 4
"""How often λ is divided by 5, before it becomes very small, and then 0."""


class Ridged(Local):
    """½‖F(z)‖² + λ/2 ‖z‖²."""

    def __init__(self, plain: Local, penalty: float) -> None:
        self.plain, self.penalty, self.point = plain, penalty, plain.point

    @property
    def value(self) -> float:
        """With the penalty."""
        return self.plain.value + self.penalty / 2 * dot(self.point, self.point)

    @property
    def gradient(self) -> Point:
        """Jᴴ F + λ z."""
        return added(self.plain.gradient, self.point, self.penalty)

    def gram(self, direction: Point) -> Point:
        """(JᴴJ + λ I) X."""
        return added(self.plain.gram(direction), direction, self.penalty)

    def precondition(self, residual: Point, shift: float) -> Point:
        """With λ added to the shift."""
        return self.plain.precondition(residual, shift + self.penalty)

    def solve(self, target: Point, shift: float) -> Point | None:
        """With λ added to the shift."""
        return self.plain.solve(target, shift + self.penalty)

    def settled(self) -> "Ridged":
        """Balanced columns have the least penalty."""
        return Ridged(self.plain.settled(), self.penalty)


def ridged(problem: CPProblem, penalty: float) -> At:
    """The problem with its penalty, at any point."""
    return lambda point: Ridged(problem.at(point), penalty)


def penalties(problem: CPProblem, ridge: float) -> Iterator[float]:
    """The values of λ but the last, which is 0: from `ridge` ‖X‖^(2 - 2/N) on, which has the right unit.

    >>> import numpy as np
    >>> [round(p, 6) for p in penalties(CPProblem(np.ones((2, 2))), 0.1)]
    [0.2, 0.04, 0.008, 0.0016, 5e-05]
    """
    if ridge > 0:
        first = ridge * problem.whole ** (2 - 2 / problem.tensor.ndim)
        yield from (first / 5**k for k in range(STAGES))
        yield first / 4000
