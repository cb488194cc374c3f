"""Eigenvectors of a matrix that need not be symmetric, which the array API does not have but libraries do."""

from jaxtyping import Complex, Float, Num

from tenfold.core.arrays import Array, is_complex, namespace
from tenfold.core.errors import UnsupportedError
from tenfold.core.svd import check_matrix


def eigen(matrix: Num[Array, "n n"]) -> tuple[Complex[Array, " n"], Complex[Array, "n n"]]:
    """Eigenvalues and the eigenvectors in the columns, complex also where the matrix is real.

    Their order is the library's. A defective matrix gives linearly dependent columns.

    Raises:
        UnsupportedError: if the library of the matrix has no such function on its device, as Dask, and JAX on
            a GPU.

    >>> import numpy as np
    >>> values, _ = eigen(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    >>> sorted(values.imag.tolist())
    [-1.0, 1.0]
    """
    check_matrix(matrix)
    xp = namespace(matrix)
    function = getattr(xp.linalg, "eig", None)
    try:
        if function is not None:
            values, vectors = function(matrix)
            return _complex(values), _complex(vectors)
    except NotImplementedError:
        pass
    raise UnsupportedError(
        f"{xp.__name__.rpartition('.')[2]} has no eigenvectors of general matrices on this device.",
        "Move the matrix to a device, or into a library, that has them.",
    )


def eigenbasis(matrix: Num[Array, "n n"]) -> Num[Array, "n n"]:
    """The eigenvectors as columns; of a real matrix real ones, with Re and Im for each conjugate pair.

    Raises:
        UnsupportedError: as `eigen`.

    >>> import numpy as np
    >>> eigenbasis(np.array([[0.0, 1.0], [-1.0, 0.0]])).dtype
    dtype('float64')
    """
    values, vectors = eigen(matrix)
    return vectors if is_complex(matrix) else _real_pairs(values, vectors)


def _real_pairs(values: Complex[Array, " n"], vectors: Complex[Array, "n n"]) -> Float[Array, "n n"]:
    """Of each conjugate pair, one vector gives its real part and the other its imaginary part."""
    xp = namespace(vectors)
    return xp.where(xp.imag(values) < 0, xp.imag(vectors), xp.real(vectors))


def _complex(x: Num[Array, "..."]) -> Complex[Array, "..."]:
    return x if is_complex(x) else x + 0j
