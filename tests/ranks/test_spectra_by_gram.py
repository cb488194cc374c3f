"""Spectra of float32 arrays, taken through the Gram matrix in float64, are those of the array."""

import numpy as np
import pytest
import torch

from tenfold.ranks.spectra import spectra_of_slices, unfolding_spectrum


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12)])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_spectra_in_float32_are_as_good_as_by_svd_in_float64(shape: tuple[int, int], library: str) -> None:
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, min(shape))))[0] for n in shape)
    x = ((u * np.logspace(0, -5, min(shape))) @ v.T).astype(np.float32)
    found = unfolding_spectrum(x if library == "numpy" else torch.from_numpy(x), (0,))
    np.testing.assert_allclose(found, np.linalg.svd(x.astype(np.float64))[1], rtol=0, atol=3e-8)


def test_slices_have_spectra_of_their_own() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    found = spectra_of_slices(x, (1,), (0,))
    wanted = [np.linalg.svd(x[:, k].astype(np.float64))[1] for k in range(3)]
    np.testing.assert_allclose(found, wanted, atol=1e-7)
