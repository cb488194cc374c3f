"""The rows of the benchmark: a tensor, and who decomposes it how."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from contenders import Contender, ours, pyttb, tensorly, torchtt
from tensors import collinear, kernel, low_multilinear, ring, smooth

from tenfold.decompose import (
    CPALS,
    CPD,
    HOOI,
    HOSVD,
    STHOSVD,
    TRALS,
    TTSVD,
    CPNesterov,
    RandomizedHOSVD,
    RandomizedTTSVD,
)


@dataclass(frozen=True)
class Row:
    """With `sweeps`, everybody gets as many as it takes to the error that the best peer has after so many.

    Without, everybody runs by its own rules, and errors stand beside the times.
    """

    name: str
    tensor: Callable[[], np.ndarray]
    contenders: tuple[Contender, ...]
    sweeps: int | None = None


def both(make: Callable[[str], Contender]) -> tuple[Contender, ...]:
    """The same in NumPy and in PyTorch."""
    return make("numpy"), make("torch")


def cp_of_kernel(channels: int, rank: int) -> Row:
    """CP of a kernel of a convolution."""
    peer = {"rank": rank, "init": "svd", "svd": "randomized_svd", "tol": 0.0, "random_state": 0}
    plain = {"rank": rank, "init": "random", "tol": 0.0, "random_state": 0}
    return Row(
        f"CP of rank {rank}, {channels}×{channels}×3×3",
        partial(kernel, channels),
        (
            *both(lambda lib: ours(lib, CPALS(ridge=0.0), rank, steps=True)),
            *both(lambda lib: ours(lib, CPNesterov(), rank, steps=True)),
            tensorly("torch", "parafac", peer, steps=True),
            tensorly("torch", "parafac", plain, steps=True),
            pyttb("cp_als", {"rank": rank, "stoptol": 0.0}, steps=True),
        ),
        sweeps=20,
    )


def cp_of_collinear(congruence: float) -> Row:
    """CP where alternating least squares swamps."""
    peer = {"rank": 5, "init": "random", "random_state": 0, "tol": 1e-12, "n_iter_max": 2000}
    search = {**peer, "linesearch": True}
    return Row(
        f"CP of rank 5, congruence {congruence}, 20×20×20, 40 dB",
        partial(collinear, congruence),
        (
            *both(lambda lib: ours(lib, CPD(), 5)),
            tensorly("numpy", "parafac", peer),
            tensorly("numpy", "parafac", search),
            pyttb("cp_als", {"rank": 5, "stoptol": 1e-12, "maxiters": 2000}),
        ),
    )


def tucker2() -> Row:
    """Tucker-2 of a large kernel."""
    peer = {"rank": [64, 64], "modes": [0, 1], "init": "svd", "tol": 1e-4}
    return Row(
        "Tucker-2 of rank 64, 512×512×3×3",
        partial(kernel, 512),
        (
            *both(lambda lib: ours(lib, HOOI(tol=1e-4), (64, 64, None, None))),
            *both(lambda lib: ours(lib, HOOI(tol=5e-4), (64, 64, None, None))),
            *both(lambda lib: ours(lib, STHOSVD(), (64, 64, None, None))),
            *both(lambda lib: tensorly(lib, "partial_tucker", {**peer, "svd": "truncated_svd"})),
            *both(lambda lib: tensorly(lib, "partial_tucker", {**peer, "svd": "randomized_svd"})),
            pyttb("tucker_als", {"rank": [64, 64, 3, 3], "init": "nvecs", "stoptol": 1e-4}),
        ),
    )


def tucker_cube() -> Row:
    """Tucker of a cube with noise."""
    peer = {"rank": [20] * 3, "init": "svd", "tol": 1e-4}
    return Row(
        "Tucker of rank 20, 200×200×200",
        partial(low_multilinear, 200, 3, 20, 0.1),
        (
            *both(lambda lib: ours(lib, HOSVD(), 20)),
            *both(lambda lib: ours(lib, STHOSVD(), 20)),
            *both(lambda lib: ours(lib, HOOI(tol=1e-4), 20)),
            *both(lambda lib: ours(lib, RandomizedHOSVD(), 20)),
            *both(lambda lib: tensorly(lib, "tucker", {**peer, "svd": "truncated_svd"})),
            *both(lambda lib: tensorly(lib, "tucker", {**peer, "svd": "randomized_svd"})),
            pyttb("tucker_als", {"rank": [20] * 3, "init": "nvecs", "stoptol": 1e-4}),
            pyttb("hosvd", {"tol": 0.11, "ranks": np.array([20] * 3), "verbosity": 0}),
        ),
    )


def tt_large() -> Row:
    """TT-SVD of 10⁸ elements to a tolerance; TensorLy, which knows none, is given the ranks."""
    ranks = [1, *TTSVD(tol=1e-6).fit(smooth(30, 4)).value.ranks.values(), 1]
    return Row(
        "TT-SVD at 1e-6, 100×100×100×100",
        partial(smooth, 100, 4),
        (
            *both(lambda lib: ours(lib, TTSVD(tol=1e-6), None)),
            *both(lambda lib: ours(lib, RandomizedTTSVD(tol=1e-6), None)),
            *both(lambda lib: tensorly(lib, "tensor_train", {"rank": ranks, "svd": "truncated_svd"})),
            *both(lambda lib: tensorly(lib, "tensor_train", {"rank": ranks, "svd": "randomized_svd"})),
            torchtt(1e-6),
        ),
    )


def tt_small() -> Row:
    """TT-SVD by ranks."""
    ranks = [1, 10, 10, 10, 1]
    return Row(
        "TT-SVD of rank 10, 30×30×30×30",
        partial(low_multilinear, 30, 4, 5, 0.1),
        (
            *both(lambda lib: ours(lib, TTSVD(), 10)),
            *both(lambda lib: ours(lib, RandomizedTTSVD(), 10)),
            *both(lambda lib: tensorly(lib, "tensor_train", {"rank": ranks})),
            *both(lambda lib: tensorly(lib, "tensor_train", {"rank": ranks, "svd": "randomized_svd"})),
        ),
    )


def tensor_ring() -> Row:
    """Tensor ring by alternating least squares, to the peer's error."""
    peer = {"rank": [4] * 5, "tol": 0.0, "random_state": 0}
    return Row(
        "Tensor ring of rank 4, 20×20×20×20",
        partial(ring, 20, 4, 4),
        (
            *both(lambda lib: ours(lib, TRALS(), 4, steps=True)),
            *both(lambda lib: tensorly(lib, "tensor_ring_als", peer, steps=True)),
        ),
        sweeps=20,
    )


ROWS: tuple[Callable[[], Row], ...] = (
    partial(cp_of_kernel, 256, 64),
    partial(cp_of_kernel, 512, 256),
    partial(cp_of_collinear, 0.9),
    partial(cp_of_collinear, 0.99),
    tucker2,
    tucker_cube,
    tt_small,
    tt_large,
    tensor_ring,
)
