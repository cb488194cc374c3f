"""Low rank in the metric of the inputs by PCA of the outputs: with no inverse of the inputs' moment.

The best W' of rank k in ‖(W - W') S‖, S Sᴴ = C, is U Uᴴ W, with the k leading left singular vectors U of W S.
These are the leading eigenvectors of W C Wᴴ, the moment of the outputs W x of inputs x whose moment is C; the
factors are U and Uᴴ W. That is exact where C is singular too, as when there were fewer inputs than it has
rows, and takes no root of C: where outputs are fewer than inputs, it is far cheaper.

Source: Zhang et al. 2015, arXiv:1505.06798, section 3.1; Yu & Wu, AAAI 2023 (AFM).
"""

from jaxtyping import Float

from tenfold.core.arrays import Array, adjoint, lengths, namespace
from tenfold.core.linalg import orthonormalise
from tenfold.formats import LowRank


def output_root(matrix: Float[Array, "m n"], moment: Float[Array, "n n"]) -> Float[Array, "m m"]:
    """The Hermitian root of the outputs' moment: it has the left singular vectors and the singular values of
    `matrix` times any root of `moment`, but only m columns.

    Singular values below sqrt(m eps) times the largest are rounding errors: see `gram_accuracy`. The moment
    is over x in matrix @ x, conjugated if it is complex: it is taken as E[x̄ xᵀ].

    >>> import numpy as np
    >>> w, inputs = np.array([[1.0, 1.0]]), np.array([[3.0, 0.0], [0.0, 4.0]])
    >>> output_root(w, inputs @ inputs.T)
    array([[5.]])
    """
    xp = namespace(matrix)
    outputs = matrix @ moment.T @ adjoint(matrix)
    values, vectors = xp.linalg.eigh((outputs + adjoint(outputs)) / 2)
    return (vectors * xp.sqrt(xp.clip(values, min=0.0))) @ adjoint(vectors)


def projected(matrix: Float[Array, "m n"], directions: Float[Array, "m k"]) -> LowRank:
    """U and Uᴴ `matrix`, with U an orthonormal basis of the columns of `directions`.

    >>> import numpy as np
    >>> projected(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0], [7.0]])).dense()
    array([[0., 0.],
           [3., 4.]])
    """
    basis, _ = orthonormalise(directions)
    return LowRank(basis, adjoint(basis) @ matrix)


def evened(value: LowRank) -> LowRank:
    """The same matrix, with the norm of every component spread evenly over its two vectors.

    >>> import numpy as np
    >>> evened(LowRank(np.array([[2.0]]), np.array([[18.0]])))
    LowRank(left=array([[6.]]), right=array([[6.]]))
    """
    xp = namespace(value.left)
    left, right = lengths(value.left, axis=0), lengths(value.right, axis=1)
    there = (left > 0) & (right > 0)
    ratio = xp.sqrt(xp.where(there, right, 1.0) / xp.where(there, left, 1.0))
    return LowRank(value.left * ratio, value.right / ratio[:, None])
