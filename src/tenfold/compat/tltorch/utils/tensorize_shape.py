"""Sizes into which the two sides of a matrix are split."""

import logging

from tenfold.core import tensorized_shape
from tenfold.core.errors import OptionError

log = logging.getLogger(__name__)


def get_tensorized_shape(
    in_features: int, out_features: int, order: int | None = None, min_dim: int = 2, verbose: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both numbers as products of equally many factors of at least `min_dim`, as equal as they can be.

    There are `order` factors, or fewer where one of the numbers has no so many: a prime stays whole. Ours are
    more balanced than those of TensorLy-Torch, so give the shapes yourself where a state that it has saved is
    to be loaded. With `verbose` they are logged, not printed.

    >>> get_tensorized_shape(768, 3072, order=3), get_tensorized_shape(1009, 1024, order=3)
    (((8, 8, 12), (16, 16, 12)), ((1009,), (1024,)))
    """
    most = len(tensorized_shape.get_tensorized_shape(in_features, out_features, None, min_dim)[0])
    if order is not None and order < 1:
        raise OptionError(f"order={order} came.", "Give 1 or more.")
    parts = most if order is None else min(order, most)
    shapes = tensorized_shape.get_tensorized_shape(in_features, out_features, parts, min_dim)
    if verbose:
        log.info("(%d, %d) is tensorized to %s and %s", in_features, out_features, *shapes)
    return shapes
