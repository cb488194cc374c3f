"""Arrays enter and leave by DLPack, whoever made them."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.dlpack import from_dlpack, to_dlpack
from tenfold.core.errors import OptionError, WeightError
from tenfold.decompose import STHOSVD
from tenfold.testing.compare import to_numpy
from tenfold.testing.libraries import LIBRARIES

READABLE = [name for name in LIBRARIES if name != "dask"]


class Foreign:
    """What all tensors of libraries that we do not know have in common."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def __dlpack__(self, **options: Any) -> Any:
        return self._held.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._held.__dlpack_device__()


@pytest.mark.parametrize("library", READABLE)
@pytest.mark.parametrize("source", [*LIBRARIES])
def test_arrays_go_from_library_to_library_and_keep_their_values(source: str, library: str) -> None:
    LIBRARIES[library]  # switches JAX's 64-bit numbers on
    values = np.random.default_rng(0).standard_normal((3, 4))
    array = from_dlpack(to_dlpack(LIBRARIES.array(source, values)), library)
    assert type(array) is type(LIBRARIES.array(library, values))
    np.testing.assert_array_equal(to_numpy(array), values)


@pytest.mark.parametrize("library", READABLE)
def test_a_tensor_of_an_unknown_library_is_decomposed_and_given_back(library: str) -> None:
    LIBRARIES[library]
    x = np.random.default_rng(0).standard_normal((4, 5, 6))
    fit = STHOSVD()(from_dlpack(Foreign(x), library), 2)
    core = np.from_dlpack(Foreign(to_dlpack(fit.value.core)))
    np.testing.assert_allclose(core, STHOSVD()(x, 2).value.core, atol=1e-12)


def test_the_memory_is_shared() -> None:
    x = np.zeros(3)
    assert from_dlpack(Foreign(x), "torch").data_ptr() == x.ctypes.data


def test_a_tensor_that_requires_gradients_leaves_without_them() -> None:
    assert np.array_equal(from_dlpack(to_dlpack(torch.ones(2, requires_grad=True))), np.ones(2))


def test_an_array_that_cannot_be_written_leaves_as_a_copy() -> None:
    x = np.ones(3)
    x.flags.writeable = False
    assert torch.equal(from_dlpack(to_dlpack(x), "torch"), torch.ones(3, dtype=torch.float64))


def test_what_speaks_no_dlpack_is_refused() -> None:
    with pytest.raises(WeightError, match="a list does not speak DLPack"):
        from_dlpack([1.0])


def test_a_library_that_cannot_read_the_dtype_says_so() -> None:
    with pytest.raises(WeightError, match="numpy cannot read a Tensor by DLPack"):
        from_dlpack(torch.ones(2, dtype=torch.bfloat16))


def test_an_unknown_library_is_refused() -> None:
    with pytest.raises(OptionError, match="Choose one of numpy, torch, jax, cupy"):
        from_dlpack(np.ones(1), "mxnet")


@pytest.mark.parametrize("library", READABLE)
def test_arrays_that_are_read_from_their_end_keep_their_values(library: str) -> None:
    LIBRARIES[library]
    x = np.arange(6.0).reshape(2, 3)
    for turned in (x[::-1], x[:, ::-1], x[::-1, ::-2].T):
        np.testing.assert_array_equal(to_numpy(from_dlpack(turned, library)), turned)
        np.testing.assert_array_equal(to_numpy(from_dlpack(to_dlpack(turned), library)), turned)


def test_tensors_that_are_kept_negated_or_conjugated_keep_their_values() -> None:
    conjugated = torch.tensor([1 + 2j]).conj()
    assert conjugated.imag.is_neg() and conjugated.is_conj()
    for kept, value in ((conjugated.imag, -2), (conjugated, 1 - 2j)):
        assert from_dlpack(kept).item() == value and np.from_dlpack(to_dlpack(kept)).item() == value
