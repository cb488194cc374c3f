"""The tensors that are decomposed; every one is made anew from its seed, as a NumPy array."""

import numpy as np


def kernel(channels: int, seed: int = 0) -> np.ndarray:
    """A 3×3 kernel with a spectrum that decays like those of trained networks, in float32.

    2 · channels rank-one terms whose weight falls as r^-0.7, plus noise of a tenth of their norm.
    """
    rng = np.random.default_rng(seed)
    terms = 2 * channels
    left, right = (rng.standard_normal((channels, terms), dtype=np.float32) for _ in range(2))
    tall, wide = (rng.standard_normal((3, terms), dtype=np.float32) for _ in range(2))
    left *= np.arange(1, terms + 1, dtype=np.float32) ** -0.7
    taps = (tall[:, None, :] * wide).reshape(9, terms)
    signal = np.stack([(left * tap) @ right.T for tap in taps], axis=-1).reshape(channels, channels, 3, 3)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(signal + 0.1 * np.linalg.norm(signal) / np.linalg.norm(noise) * noise)


def collinear(congruence: float, seed: int = 0, size: int = 20, rank: int = 5) -> np.ndarray:
    """A sum of `rank` terms whose vectors meet at equal angles in every mode, with noise at 40 decibels."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky((1 - congruence) * np.eye(rank) + congruence)
    factors = [np.linalg.qr(rng.standard_normal((size, rank)))[0] @ root.T for _ in range(3)]
    signal = np.einsum("ir,jr,kr->ijk", *factors, optimize=True)
    noise = rng.standard_normal(signal.shape)
    return np.asarray(signal + 1e-2 * np.linalg.norm(signal) / np.linalg.norm(noise) * noise)


def low_multilinear(size: int, order: int, rank: int, noise: float, seed: int = 0) -> np.ndarray:
    """A cube of low multilinear rank, plus relative noise."""
    rng = np.random.default_rng(seed)
    tensor = rng.standard_normal((rank,) * order)
    for k in range(order):
        basis = np.linalg.qr(rng.standard_normal((size, rank)))[0]
        tensor = np.moveaxis(np.tensordot(basis, tensor, (1, k)), 0, k)
    tensor /= np.linalg.norm(tensor)
    extra = rng.standard_normal(tensor.shape)
    extra *= noise / np.linalg.norm(extra)
    tensor += extra
    return np.asarray(tensor)


def smooth(size: int, order: int) -> np.ndarray:
    """1 / (1 + x₁ + … + x_d) on a grid over [0, 1]^d: a train of low ranks for any tolerance."""
    grid = np.linspace(0, 1, size)
    total = np.ones((1,) * order)
    for k in range(order):
        total = total + grid.reshape([-1 if n == k else 1 for n in range(order)])
    np.reciprocal(total, out=total)
    return np.asarray(total)


def ring(size: int, order: int, rank: int, seed: int = 0) -> np.ndarray:
    """A tensor ring of normal cores."""
    rng = np.random.default_rng(seed)
    cores = [rng.standard_normal((rank, size, rank)) for _ in range(order)]
    tensor = cores[0]
    for core in cores[1:]:
        tensor = np.tensordot(tensor, core, 1)
    return np.asarray(np.trace(tensor, axis1=0, axis2=-1))
