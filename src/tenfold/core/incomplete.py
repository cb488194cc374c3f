"""Incomplete tensors: a list of entries that are known, beside which nothing is."""

from dataclasses import dataclass
from typing import Any, Self

from jaxtyping import Bool, Num

from tenfold.core.arrays import Array, cast, device_of, is_complex, namespace
from tenfold.core.entries import SORTED, Entries, firsts_of_equals, listed_where
from tenfold.core.errors import ShapeError, WeightError


@dataclass(frozen=True, eq=False)
class Incomplete(Entries):
    """A tensor of which only the listed entries are known; every entry is listed once.

    Raises, beside what every list of entries does:
        WeightError: if an entry is listed twice, or none is listed.

    >>> import numpy as np
    >>> x = Incomplete.from_nan(np.array([[1.0, np.nan], [np.nan, 4.0]]))
    >>> x.nnz, x.dense(0.0)
    (2, array([[1., 0.],
           [0., 4.]]))
    """

    @SORTED
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nnz == 0:
            raise WeightError("no entry of the incomplete tensor is known.", "List what is known.")
        keys = namespace(self.indices).sort(self.keys(range(self.ndim)))
        twice = self.nnz - int(namespace(keys).sum(cast(firsts_of_equals(keys), keys.dtype)))
        if twice:
            raise WeightError(
                f"{twice} of the {self.nnz} entries of the incomplete tensor are listed again.",
                "List every entry once: it is not clear which of two values is meant, or their mean.",
            )

    @classmethod
    def from_mask(cls, tensor: Num[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Self:
        """The entries of `tensor` where `mask` is true; the others are not looked at.

        Raises:
            ShapeError: unless `mask` holds booleans and has the shape of the tensor.
            WeightError: unless it is an array of the same library.
        """
        xp = namespace(tensor, mask)
        if tuple(mask.shape) != tuple(tensor.shape) or not xp.isdtype(mask.dtype, "bool"):
            raise ShapeError(
                f"expected a mask of booleans of shape {tuple(tensor.shape)}, but got {mask.dtype} "
                f"of shape {tuple(mask.shape)}.",
                "True says that an entry is known.",
            )
        return cls(*listed_where(tensor, mask), tuple(tensor.shape))

    @classmethod
    def from_nan(cls, tensor: Num[Array, "*shape"]) -> Self:
        """The entries of `tensor` that are not NaN."""
        return cls.from_mask(tensor, ~namespace(tensor).isnan(tensor))

    def dense(self, fill: Any) -> Num[Array, "*shape"]:
        """The tensor with `fill`, a number or an array of its shape, where it is not known."""
        xp = namespace(self.values)
        listed, count = (xp.reshape(x, self.shape) for x in self._scattered())
        return xp.where(_real(count) > 0.5, listed, xp.asarray(fill, dtype=listed.dtype))

    def norm(self) -> Num[Array, ""]:
        """Frobenius norm of what is known."""
        return namespace(self.values).linalg.vector_norm(self.values)

    def check_known(self) -> None:
        """Refuse a tensor one of whose slices is all unknown: nothing says what its factors should hold.

        Raises:
            WeightError: names the mode and the first such index.

        >>> import numpy as np
        >>> Incomplete(np.array([[0, 0], [0, 1]]), np.ones(2), (2, 2)).check_known()
        Traceback (most recent call last):
        tenfold.core.errors.WeightError: index 1 of mode 0 has no known entry (1 of its 2 indices have none).
        Leave it out of the tensor: nothing says what it should hold.
        """
        xp = namespace(self.indices)
        for k, size in enumerate(self.shape):
            ordered = xp.sort(self.columns[k])
            each = xp.arange(size + 1, dtype=ordered.dtype, device=device_of(ordered))
            starts = xp.searchsorted(ordered, each)
            empty = xp.nonzero(starts[1:] == starts[:-1])[0]
            if count := empty.shape[0]:
                raise WeightError(
                    f"index {int(empty[0])} of mode {k} has no known entry "
                    f"({count} of its {size} indices have none).",
                    "Leave it out of the tensor: nothing says what it should hold.",
                )


def _real(x: Array) -> Array:
    return namespace(x).real(x) if is_complex(x) else x
