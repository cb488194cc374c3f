"""CP as a least-squares problem: ½‖[[U₁, …, U_N]] - T‖² over all factors at once.

With the Gram matrices G_n = U_nᴴ U_n, their Hadamard products W_n over all modes but n and W_nk over all but
n and k, and P_k = U_kᴴ X_k for a direction X, the products with the Gram matrix of the Jacobian

    (JᴴJ X)_n = X_n W_nᵀ + U_n (Σ_{k≠n} W_nk ∗ P_k)ᵀ

never touch the tensor (Sorber, Van Barel & De Lathauwer 2013). J lacks (N - 1) R ranks, because the scale of
a component may wander between its vectors; after each step it is spread evenly.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

from tenfold.algebra import mttkrp_sweep, residual_mttkrps, squared_residual
from tenfold.core.arrays import Array, adjoint, conjugate, device_of, epsilon, is_complex, namespace
from tenfold.core.linalg import solve_psd
from tenfold.core.pieces import frobenius
from tenfold.decompose.base import number
from tenfold.decompose.cp.grams import cancels, even_scales, gram, hadamard, square_by_parts
from tenfold.decompose.local_problem import Local, Point


class CPProblem:
    """A tensor to fit; `explicit` is the largest number of unknowns for which JᴴJ is formed.

    While the fit is poor, a value costs one pass over the tensor and its gradient one more. Once the error is
    near the square root of the rounding errors, both are calculated from the residual, which costs two more.
    """

    def __init__(self, tensor: Array, explicit: int = 100) -> None:
        self.tensor, self.explicit = tensor, explicit
        self.whole = frobenius(tensor)
        self.close = False

    def at(self, point: Point) -> "CPLocal":
        """The problem near some factors."""
        local = CPLocal(self, point)
        if not self.close and cancels(2 * local.value, self.tensor, self.whole):
            self.close = True
            return CPLocal(self, point)
        return local


class CPLocal(Local):
    """The problem near the factors `point`."""

    def __init__(self, problem: CPProblem, point: Point) -> None:
        self.problem, self.point = problem, point
        self.close = problem.close
        self._inverted: dict[float, list[Array]] = {}

    @cached_property
    def grams(self) -> list[Array]:
        """G_n."""
        return [gram(f) for f in self.point]

    @cached_property
    def others(self) -> list[Array]:
        """W_n."""
        return [self._but(n) for n in range(len(self.point))]

    def _but(self, *left_out: int) -> Array:
        kept = [g for n, g in enumerate(self.grams) if n not in left_out]
        return hadamard(kept, like=self.grams[0])

    @cached_property
    def _sweep(self) -> Iterator[tuple[int, Array]]:
        """MTTKRPs of the tensor, made when asked for: the second pass waits for the gradient."""
        return mttkrp_sweep(self.problem.tensor, [conjugate(f) for f in self.point])

    @cached_property
    def _first(self) -> Array:
        return next(self._sweep)[1]

    @cached_property
    def value(self) -> float:
        """½‖F‖²."""
        if self.close:
            return number(squared_residual(self.problem.tensor, self.point)) / 2
        return square_by_parts(self._first, self.point[0], self.grams, self.problem.whole) / 2

    @cached_property
    def gradient(self) -> Point:
        """U_n W_nᵀ - MTTKRP_n(T)."""
        if self.close:
            return tuple(residual_mttkrps(self.problem.tensor, self.point)[1])
        products = [self._first, *(product for _, product in self._sweep)]
        return tuple(u @ w.T - p for u, w, p in zip(self.point, self.others, products, strict=True))

    def gram(self, direction: Point) -> Point:
        """JᴴJ X."""
        inner = [adjoint(u) @ x for u, x in zip(self.point, direction, strict=True)]
        return tuple(self._row(n, x, inner) for n, x in enumerate(direction))

    def _row(self, n: int, x: Array, inner: Sequence[Array]) -> Array:
        mixed = [self._but(n, k) * p for k, p in enumerate(inner) if k != n]
        own = x @ self.others[n].T
        return own + self.point[n] @ sum(mixed[1:], start=mixed[0]).T if mixed else own

    def precondition(self, residual: Point, shift: float) -> Point:
        """X_n (W_nᵀ + shift I)⁻¹: the block diagonal of JᴴJ, an ALS step of all factors at once."""
        return tuple(x @ inverse for x, inverse in zip(residual, self._inverses(shift), strict=True))

    def _inverses(self, shift: float) -> list[Array]:
        if shift not in self._inverted:
            self._inverted = {shift: [shifted_inverse(w.T, shift) for w in self.others]}
        return self._inverted[shift]

    def solve(self, target: Point, shift: float) -> Point | None:
        """(JᴴJ + shift I)⁺ target, if the problem is small."""
        sizes = [t.shape[0] * t.shape[1] for t in target]
        if sum(sizes) > self.problem.explicit:
            return None
        xp = namespace(*target)
        whole = xp.concat([xp.reshape(t, (-1,)) for t in target])
        solution = solve_psd(self._shifted(shift), whole)
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        parts = [solution[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        return tuple(xp.reshape(p, t.shape) for p, t in zip(parts, target, strict=True))

    def _shifted(self, shift: float) -> Array:
        h = self.explicit_gram
        xp = namespace(h)
        return h + shift * xp.eye(h.shape[0], dtype=h.dtype, device=device_of(h)) if shift else h

    @cached_property
    def explicit_gram(self) -> Array:
        """JᴴJ as a matrix over the entries of all factors, one factor after the other, row by row."""
        order = range(len(self.point))
        xp = namespace(*self.point)
        return xp.concat([xp.concat([self._block(n, k) for k in order], axis=1) for n in order])

    def _block(self, n: int, k: int) -> Array:
        """Of modes n and k: W_nk[r, s] U_n[i, s] conj(U_k[j, r]) at (i, r), (j, s); W_n ⊗ I for n = k."""
        xp, u, v = namespace(*self.point), self.point[n], self.point[k]
        if n == k:
            eye = xp.eye(u.shape[0], dtype=u.dtype, device=device_of(u))
            block = eye[:, None, :, None] * self.others[n][None, :, None, :]
        else:
            block = self._but(n, k)[None, :, None, :] * u[:, None, None, :] * conjugate(v).T[None, :, :, None]
        return xp.reshape(block, (u.shape[0] * u.shape[1], v.shape[0] * v.shape[1]))

    def settled(self) -> "CPLocal":
        """The norm of each component spread evenly over its vectors; nothing is calculated again."""
        return Rescaled(self, even_scales(self.point))


class Rescaled(CPLocal):
    """A local with columns scaled by factors whose product over the modes is 1.

    The gradient is that of the source, divided by the scales; the source is let go once it is known.
    """

    def __init__(self, source: CPLocal, scales: Sequence[Array]) -> None:
        super().__init__(source.problem, tuple(f * s for f, s in zip(source.point, scales, strict=True)))
        self.value, self.scales, self.sources = source.value, scales, [source]

    @cached_property
    def gradient(self) -> Point:
        """That of the source, divided by the scales."""
        return tuple(g / s for g, s in zip(self.sources.pop().gradient, self.scales, strict=True))


def shifted_inverse(matrix: Array, shift: float) -> Array:
    """(matrix + shift I)⁻¹ of a Hermitian semidefinite matrix, with a little more shift if it is singular.

    The diagonal is scaled to ones first, so that components of very different size lose nothing.
    """
    xp = namespace(matrix)
    diagonal = xp.linalg.diagonal(matrix)
    diagonal = (xp.real(diagonal) if is_complex(diagonal) else diagonal) + shift
    scale = 1 / xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))
    eye = xp.eye(matrix.shape[0], dtype=matrix.dtype, device=device_of(matrix))
    scaled = (matrix + shift * eye) * scale[:, None] * scale
    inverse = xp.linalg.inv(scaled + matrix.shape[0] * 10 * epsilon(matrix) * eye)
    return (inverse + adjoint(inverse)) / 2 * scale[:, None] * scale
