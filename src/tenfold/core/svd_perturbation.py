"""How the leading singular vectors and eigenvectors move with their matrix: formulas that stay finite.

For A = U diag(s) Vᴴ, the first r columns of U move under dA, with P = Uᴴ dA V, by

    du_j = Σ_i≠j u_i (P_ij s_j + s_i conj P_ji) F_ij + (I - U Uᴴ) dA v_j / s_j,    F_ij = 1 / (s_j² - s_i²)

in which i runs over *all* singular vectors: what rotates out of the kept space into the discarded one is the
part that matters for a truncated approximation. The gradient of whatever depends on the kept space alone is
then right also where kept values coincide: the terms F_ij of kept pairs cancel, and are only to be kept from
dividing rounding errors by zero (F becomes x / (x² + η²), as Liao et al. have it, with η relative to the
pair).

`pushed_…` carries a change of the matrix forwards, `pulled_…` is its adjoint and carries gradients back.

Source: Townsend, 'Differentiating the singular value decomposition', 2016; Liao, Liu, Wang & Xiang 2019,
arXiv:1903.09650.
"""

from tenfold.core.arrays import Array, adjoint, epsilon, is_complex, namespace


def right_vectors(a: Array, u: Array, s: Array) -> Array:
    """Aᴴ uᵢ / sᵢ as rows; zero where the singular value is."""
    return _adjoint(u) @ a * _inverse(a, s)[..., :, None]


def _adjoint(matrix: Array) -> Array:
    return (
        adjoint(matrix)
        if matrix.ndim == 2
        else namespace(matrix).conj(namespace(matrix).matrix_transpose(matrix))
    )


def _floor(values: Array, size: int) -> Array:
    """The rounding error of singular values or eigenvalues: about `size` eps times the largest."""
    return size * epsilon(values) * namespace(values).max(values, axis=-1, keepdims=True)


def _quotients(values: Array, rank: int, size: int) -> Array:
    """F_ij = 1 / (l_j - l_i) for values l, all i and the first `rank` j; finite, see above."""
    xp = namespace(values)
    kept, every = values[..., None, :rank], values[..., :, None]
    gap, near = kept - every, _floor(xp.abs(values), size)[..., None]
    pairs = epsilon(values) ** 0.5 * (xp.abs(kept) + xp.abs(every))
    inside = (xp.cumulative_sum(xp.ones_like(values), axis=-1) <= rank)[..., :, None]
    width = near + xp.where(inside, pairs, xp.zeros_like(pairs))
    there = xp.abs(gap) > 0
    return xp.where(there, gap / xp.where(there, gap * gap + width * width, 1.0), 0.0)


def _svd_quotients(a: Array, s: Array, rank: int) -> Array:
    """F_ij = 1 / (s_j² - s_i²) as 1 / (s_j - s_i) / (s_j + s_i); 0 for two that are rounding errors."""
    xp, size = namespace(s), a.shape[-2] + a.shape[-1]
    total = s[..., None, :rank] + s[..., :, None]
    there = total > _floor(s, size)[..., None]
    return xp.where(there, _quotients(s, rank, size) / xp.where(there, total, 1.0), 0.0)


def _inverse(a: Array, s: Array) -> Array:
    """1 / s, and 0 where that is rounding."""
    xp = namespace(s)
    kept = s > _floor(s, a.shape[-2] + a.shape[-1])
    return xp.where(kept, 1.0 / xp.where(kept, s, 1.0), 0.0)


def pushed_svd(a: Array, da: Array, svd: tuple[Array, Array, Array], rank: int) -> tuple[Array, Array]:
    """(du, ds) for da."""
    u, s, vh = svd
    p = _adjoint(u) @ da @ _adjoint(vh)
    turned = p[..., :, :rank] * s[..., None, :rank] + s[..., :, None] * _adjoint(p)[..., :, :rank]
    du = u @ (turned * _svd_quotients(a, s, rank))
    if a.shape[-2] > a.shape[-1]:
        side = da @ _adjoint(vh[..., :rank, :])
        du = du + (side - u @ (_adjoint(u) @ side)) * _inverse(a, s)[..., None, :rank]
    return du, _real_diagonal(p)


def pulled_svd(a: Array, gu: Array, gs: Array, svd: tuple[Array, Array, Array]) -> Array:
    """The gradient in a for those in u, of which there are as many columns as are kept, and in s: the adjoint
    of `pushed_svd`."""
    (u, s, vh), rank = svd, gu.shape[-1]
    w = _adjoint(u) @ gu
    t = w * _svd_quotients(a, s, rank)
    left = u @ (t * s[..., None, :rank])
    if a.shape[-2] > a.shape[-1]:
        left = left + (gu - u @ w) * _inverse(a, s)[..., None, :rank]
    rest = (u * gs[..., None, :]) @ vh + u[..., :, :rank] @ ((_adjoint(t) * s[..., None, :]) @ vh)
    return left @ vh[..., :rank, :] + rest


def descending_eigh(h: Array) -> tuple[Array, Array]:
    """Eigenvectors and eigenvalues, largest first."""
    xp = namespace(h)
    values, vectors = xp.linalg.eigh(h)
    return xp.flip(vectors, axis=-1), xp.flip(values, axis=-1)


def pulled_eigh(gv: Array, gl: Array, vectors: Array, values: Array) -> Array:
    """The gradient in h for those in the kept vectors and in all values: the adjoint of `pushed_eigh`."""
    rank = gv.shape[-1]
    t = (_adjoint(vectors) @ gv) * _quotients(values, rank, values.shape[-1])
    return (vectors @ t) @ _adjoint(vectors[..., :, :rank]) + (vectors * gl[..., None, :]) @ _adjoint(vectors)


def pushed_eigh(dh: Array, vectors: Array, values: Array, rank: int) -> tuple[Array, Array]:
    """(dv, dl) for dh."""
    p = _adjoint(vectors) @ dh @ vectors
    dv = vectors @ (p[..., :, :rank] * _quotients(values, rank, values.shape[-1]))
    return dv, _real_diagonal(p)


def _real_diagonal(matrix: Array) -> Array:
    xp = namespace(matrix)
    diagonal = xp.linalg.diagonal(matrix)
    return xp.real(diagonal) if is_complex(matrix) else diagonal
