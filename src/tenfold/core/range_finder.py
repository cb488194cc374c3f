"""Leading left singular vectors of an unfolding from random combinations of its columns."""

from dataclasses import dataclass

from jaxtyping import Float

from tenfold.core.arrays import Array, adjoint, epsilon, is_traced, namespace
from tenfold.core.errors import OptionError
from tenfold.core.leading import leading
from tenfold.core.noise import Generator, normal
from tenfold.core.pieces import frobenius, outside, pieces, three_way, together, unfolded, unfolded_shape
from tenfold.core.svd import column_basis


@dataclass(frozen=True)
class RangeFinder:
    """A basis near the leading left singular vectors, in a few passes over the tensor.

    For a rank: an orthonormal basis Q of X Ω, with a normal matrix Ω of `oversampling` columns more than the
    rank, drawn closer to the leading singular vectors by `power_iterations`, and in it those of the small
    matrix Qᴴ X. For a tolerance: Q grows by blocks of random columns, the first of `block` and each as wide
    as all before, until ‖X - Q Qᴴ X‖ is below half of it; the rest of the tolerance goes to cutting Qᴴ X.
    Where Q would be so wide that a Gram matrix costs less, that is taken instead.

    Raises:
        OptionError: if an option is negative, or `block` is below 1.

    Source: Halko, Martinsson & Tropp 2011, arXiv:0909.4061; Yu, Gu & Li 2018, arXiv:1606.09402 (blocks).
    """

    oversampling: int = 10
    power_iterations: int = 1
    block: int = 16

    def __post_init__(self) -> None:
        if self.oversampling < 0 or self.power_iterations < 0 or self.block < 1:
            raise OptionError(
                f"oversampling is {self.oversampling}, power_iterations {self.power_iterations}, "
                f"block {self.block}.",
                "The first two must be at least 0, the last at least 1.",
            )

    def __call__(
        self, tensor: Float[Array, "*shape"], mode: int, rank: int, tolerance: float, generator: Generator
    ) -> tuple[Float[Array, "i r"], float]:
        """The basis and what it discards, as `tenfold.core.leading.leading`."""
        x, whole = three_way(tensor, mode), frobenius(tensor)
        rank = min(rank, *unfolded_shape(x, 1))
        width, basis, image, lost = rank + self.oversampling, None, None, whole
        if tolerance > 0:
            width = min(width, self.block)
        while not self._wide(x, width):
            basis, image = self._grown(x, basis, image, width, generator)
            lost = _lost(x, basis, image, whole)
            if width >= rank + self.oversampling or lost <= tolerance / 2:
                return _cut(basis, image, rank, tolerance, lost)
            width = min(2 * width, rank + self.oversampling)
        return leading(tensor, mode, rank, tolerance)

    def _wide(self, x: Float[Array, "b i a"], width: int) -> bool:
        """Whether the Gram matrix and its eigenvectors take fewer operations than a basis so wide."""
        rows, columns = unfolded_shape(x, 1)
        short = min(rows, columns)
        gram = short * rows * columns + 10 * short**3
        return width >= short or gram <= 4 * (self.power_iterations + 1) * width * rows * columns

    def _grown(
        self,
        x: Float[Array, "b i a"],
        basis: Array | None,
        image: Array | None,
        width: int,
        generator: Generator,
    ) -> tuple[Float[Array, "i w"], Float[Array, "w c"]]:
        """Q of so many columns, the given ones first, and Qᴴ X."""
        xp = namespace(x)
        more = width - (0 if basis is None else basis.shape[1])
        new = _beside(basis, _sketch(x, more, generator))
        dual = _dual(x, new)
        for _ in range(self.power_iterations):
            new = _beside(basis, _product(x, column_basis(dual)))
            dual = _dual(x, new)
        if basis is None:
            return new, adjoint(dual)
        return xp.concat([basis, new], axis=1), xp.concat([image, adjoint(dual)], axis=0)


def _beside(basis: Array | None, columns: Float[Array, "i w"]) -> Float[Array, "i w"]:
    """An orthonormal basis of `columns` without their part in `basis`, taken off twice for all digits."""
    for _ in range(0 if basis is None else 2):
        columns = column_basis(columns - basis @ (adjoint(basis) @ columns))
    return column_basis(columns) if basis is None else columns


def _sketch(x: Float[Array, "b i a"], width: int, generator: Generator) -> Float[Array, "i w"]:
    """X Ω, of which a piece of Ω is drawn at a time."""
    columns = (unfolded(p) for p in pieces(x))
    return sum(m @ normal((m.shape[1], width), like=x, generator=generator) for m in columns)


def _dual(x: Float[Array, "b i a"], basis: Float[Array, "i w"]) -> Float[Array, "c w"]:
    """Xᴴ Q, the columns of X in the order of the pieces."""
    return namespace(x).concat([adjoint(unfolded(p)) @ basis for p in pieces(x)], axis=0)


def _product(x: Float[Array, "b i a"], dual: Float[Array, "c w"]) -> Float[Array, "i w"]:
    """X W for a W in the order of the pieces."""
    total, at = 0, 0
    for m in map(unfolded, pieces(x)):
        total, at = total + m @ dual[at : at + m.shape[1], :], at + m.shape[1]
    return total


def _lost(x: Float[Array, "b i a"], basis: Array, image: Array, whole: float) -> float:
    """‖X - Q Qᴴ X‖: from the norms, measured where their difference has few digits."""
    if not is_traced(x):
        kept = frobenius(image)
        square = (whole - kept) * (whole + kept)
        if square > 1e5 * epsilon(x) * whole**2:
            return float(square**0.5)
    return outside(x, 1, basis)


def _cut(
    basis: Float[Array, "i w"], image: Float[Array, "w c"], rank: int, tolerance: float, lost: float
) -> tuple[Float[Array, "i r"], float]:
    """The leading left singular vectors of Q (Qᴴ X), within what `lost` leaves of the tolerance."""
    inner = max(tolerance**2 - (1.0001 * lost) ** 2, 0.0) ** 0.5 if tolerance > 0 else 0.0
    turned, discarded = leading(image, 0, rank, inner)
    return basis @ turned, together(lost, discarded)
