"""Sums, multiples and entrywise products of tensors in a format, beyond the laws."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import OptionError, ShapeError, UnsupportedError, WeightError
from tenfold.formats import CP, BlockTerm, General, HierarchicalTucker, TensorRing, TensorTrain, Tucker

LIKE = np.zeros(())


def test_trains_add_to_block_diagonal_cores() -> None:
    a, b = (TensorTrain.random((4, 5, 6), r, like=LIKE, generator=r) for r in (2, 3))
    core = (a + b).cores[1]
    assert core.shape == (5, 5, 5)
    np.testing.assert_array_equal(core[:2, :, :2], a.cores[1])
    np.testing.assert_array_equal(core[2:, :, 2:], b.cores[1])
    assert not core[:2, :, 2:].any() and not core[2:, :, :2].any()


def test_rings_add_and_multiply_around_the_cycle() -> None:
    a, b = (TensorRing.random((4, 5, 6), r, like=LIKE, generator=r) for r in (2, 3))
    assert (a + b).ranks == {"R0": 5, "R1": 5, "R2": 5}
    assert (a * b).ranks == {"R0": 6, "R1": 6, "R2": 6}


def test_components_of_cp_stand_side_by_side_and_keep_their_columns() -> None:
    a, b = (CP.random((4, 5, 6), r, like=LIKE, generator=r) for r in (2, 3))
    for left, right, both in zip(a.matrices, b.matrices, (a + b).matrices, strict=True):
        np.testing.assert_array_equal(both, np.concatenate([left, right], axis=1))


def test_terms_of_block_term_tensors_stand_side_by_side_in_the_larger_ranks() -> None:
    a = BlockTerm.random((6, 5, 4), (2, 3, 2, 2), like=LIKE, generator=0)
    b = BlockTerm.random((6, 5, 4), (3, 2, 2, 2), like=LIKE, generator=1)
    assert (a + b).ranks == {"T": 5, "R0": 3, "R1": 2, "R2": 2}
    assert (a - b).core.shape == (5, 3, 2, 2)


def test_a_mode_that_is_whole_in_one_operand_is_whole_in_the_result() -> None:
    a = Tucker.random((6, 5, 4), (2, 3, None), like=LIKE, generator=0)
    b = Tucker.random((6, 5, 4), (2, None, 2), like=LIKE, generator=1)
    for c, dense in ((a + b, a.dense() + b.dense()), (a * b, a.dense() * b.dense())):
        assert isinstance(c, Tucker) and [m is None for m in c.matrices] == [False, True, True]
        np.testing.assert_allclose(c.dense(), dense, atol=1e-12)


def test_the_entrywise_product_of_two_formats_is_a_network_of_both() -> None:
    a = Tucker.random((6, 5, 4), 2, like=LIKE, generator=0)
    b = TensorTrain.random((6, 5, 4), 2, like=LIKE, generator=1)
    product = a * b * b
    assert isinstance(product, General) and product.numel == a.numel + 2 * b.numel
    np.testing.assert_allclose(product.dense(), a.dense() * b.dense() ** 2, atol=1e-12)
    np.testing.assert_allclose(product[1, :, 2].dense(), product.dense()[1, :, 2], atol=1e-12)
    assert len(set(product.ranks)) == 3 + 2 + 2


def test_products_of_many_powers_have_names_of_their_own_for_all_bonds() -> None:
    a = CP.random((3, 4), 2, like=LIKE, generator=0)
    b = TensorTrain.random((3, 4), 2, like=LIKE, generator=1)
    x = a * b * a * b * a
    np.testing.assert_allclose(x.dense(), a.dense() ** 3 * b.dense() ** 2, atol=1e-12)
    np.testing.assert_allclose(x.norm(), np.linalg.norm(x.dense()))


def test_real_and_complex_tensors_add_and_multiply_to_complex_ones() -> None:
    for make in (np.zeros, torch.zeros):
        real = Tucker.random((4, 5), 2, like=make((), dtype=(np if make is np.zeros else torch).float64))
        other = real.astype((np if make is np.zeros else torch).complex128) * 1j
        assert str(other.dtype).endswith("complex128")
        for c in (real + other, real * other, real * 2j):
            assert {str(f.dtype) for f in c.factors} == {str(other.dtype)}
        np.testing.assert_allclose(np.asarray((real + other).dense()), np.asarray(real.dense()) * (1 + 1j))
        mixed = real * CP.random((4, 5), 2, like=other.factors[0])
        assert mixed.dense().shape == (4, 5)


def test_a_sum_may_cancel_to_zero() -> None:
    x = HierarchicalTucker.random((4, 5, 6, 3), 2, like=LIKE, generator=0)
    assert float((x - x).norm()) < 1e-6 * float(x.norm())
    np.testing.assert_allclose((x - x).dense(), 0, atol=1e-14)


def test_powers_of_two_scale_exactly_and_the_largest_numbers_without_overflow() -> None:
    x = CP.random((4, 5, 6), 2, like=LIKE, generator=0)
    np.testing.assert_array_equal((x * 2.0**-31).dense(), x.dense() * 2.0**-31)
    huge = x.astype(np.float32) * 1e38 * 1e38 / 1e38 / 1e38
    np.testing.assert_allclose(huge.dense(), x.dense(), rtol=1e-5, atol=1e-5)
    assert np.isfinite((x * 1e306).dense()).all() and (0 * x).dense().any() == np.False_


def test_the_gradient_in_a_scalar_is_right_at_zero_too() -> None:
    x = TensorTrain.random((3, 4, 2), 2, like=torch.zeros((), dtype=torch.float64), generator=0)
    for start in (0.0, -2.5, 1e-3):
        scalar = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad((scalar * x).dense().sum(), scalar)
        torch.testing.assert_close(gradient, x.dense().sum())


def test_gradients_flow_through_sums_products_and_entries() -> None:
    x = Tucker.random((3, 4), 2, like=torch.zeros((), dtype=torch.float64), generator=0)
    other, at = x * 0.5, torch.tensor([[0, 1], [2, -1]])

    def value(*factors: torch.Tensor) -> torch.Tensor:
        y = x.with_factors(factors)
        return torch.cat([((y + other) * y - other).dense().ravel(), y.at(at)])

    leaves = [f.clone().requires_grad_() for f in x.factors]
    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


def test_a_sum_over_a_long_train_needs_no_dense_tensor() -> None:
    a, b = (TensorTrain.random((2,) * 60, 2, like=LIKE, std=1e-9, generator=k) for k in (0, 1))
    x = (a + b) * (a - b)
    indices = np.random.default_rng(0).integers(0, 2, (5, 60))
    np.testing.assert_allclose(x.at(indices), a.at(indices) ** 2 - b.at(indices) ** 2, rtol=1e-6)


# Refusals -------------------------------------------------------------------------------------------------


def test_sums_of_two_formats_or_trees_are_refused() -> None:
    cp, tucker = (cls.random((4, 5, 6), 2, like=LIKE) for cls in (CP, Tucker))
    with pytest.raises(UnsupportedError) as error:
        _ = cp + tucker
    assert str(error.value) == (
        "a sum of CP and Tucker is in neither format.\n"
        "Decompose one of them in the format of the other, or add their dense() arrays."
    )
    trees = (HierarchicalTucker.random((4, 5, 6), 2, like=LIKE, tree=t) for t in ((0, 1, 2), (0, (1, 2))))
    with pytest.raises(UnsupportedError, match=r"HierarchicalTucker\(tree=\(0, 1, 2\)\) and Hier"):
        _ = next(trees) - next(trees)


def test_shapes_that_differ_are_refused() -> None:
    a, b = CP.random((4, 5), 2, like=LIKE), CP.random((5, 4), 2, like=LIKE)
    with pytest.raises(ShapeError, match=r"a sum of shapes \(4, 5\) and \(5, 4\)"):
        _ = a + b
    with pytest.raises(ShapeError, match=r"an entrywise product of shapes"):
        _ = a * b


@pytest.mark.parametrize("other, came", [(np.ones(3), "an array of shape (3,)"), ("2", "'2'")])
def test_what_is_no_number_is_refused(other: Any, came: str) -> None:
    x = CP.random((4, 5), 2, like=LIKE)
    with pytest.raises(ShapeError) as error:
        _ = x * other
    assert f"a CP cannot be multiplied or divided by {came}." in str(error.value)
    with pytest.raises(ShapeError):
        _ = other * x
    with pytest.raises(ShapeError):
        _ = x / other
    with pytest.raises(TypeError):
        _ = x + other


@pytest.mark.parametrize("scalar", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(scalar: float) -> None:
    with pytest.raises(OptionError, match="a tensor cannot be multiplied by"):
        _ = CP.random((4, 5), 2, like=LIKE) * scalar


def test_two_array_libraries_do_not_mix() -> None:
    x = CP.random((4, 5), 2, like=LIKE)
    with pytest.raises(WeightError, match="expected arrays of one library"):
        _ = x + x.map(torch.from_numpy)


# Entries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "indices, message",
    [
        ([[0, 5]], "some indices lie outside of mode 1 of a tensor of shape (4, 5)."),
        ([[-5, 0]], "some indices lie outside of mode 0 of a tensor of shape (4, 5)."),
        ([[0, 1, 2]], "indices came with shape (1, 3) and dtype int64, for a tensor of order 2."),
        ([0, 1], "indices came with shape (2,) and dtype int64"),
        ([[0.0, 1.0]], "dtype float64"),
        ([[True, False]], "dtype bool"),
    ],
)
def test_entries_that_do_not_exist_are_refused(indices: Any, message: str) -> None:
    with pytest.raises(ShapeError) as error:
        CP.random((4, 5), 2, like=LIKE).at(np.array(indices))
    assert message in str(error.value)


def test_small_integers_do_not_overflow_where_a_factor_has_several_modes() -> None:
    x = General.random((20, 30), 1, like=LIKE, joined=(("m0", "m1"),))
    indices = np.array([[19, 29], [13, -1]], dtype=np.int8)
    np.testing.assert_array_equal(x.at(indices), x.dense()[[19, 13], [29, -1]])


def test_entries_of_a_mode_in_several_factors() -> None:
    a, b = (CP.random((4, 5), r, like=LIKE, generator=r) for r in (2, 3))
    x = a * TensorTrain.random((4, 5), 2, like=LIKE, generator=0) * b
    np.testing.assert_allclose(x.at([[1, 2], [3, 4]]), x.dense()[[1, 3], [2, 4]])


def test_a_tensor_cannot_be_divided_by_zero() -> None:
    x = CP.random((4, 5), 2, like=np.zeros(()), generator=0)
    for zero in (0, 0.0, 0j, np.float64(0), np.zeros(())):
        with pytest.raises(OptionError, match="a CP cannot be divided by 0"):
            x / zero


def test_mode_products_refuse_modes_and_operands_that_do_not_fit() -> None:
    x = CP.random((4, 5), 2, like=np.zeros(()), generator=0)
    with pytest.raises(ShapeError, match="a tensor of order 2 has no mode 7"):
        x.mode_dot(np.ones((2, 4)), 7)
    with pytest.raises(ShapeError, match="Give a matrix or a vector"):
        x.mode_dot(np.ones(()), 0)
    np.testing.assert_allclose(x.mode_dot(np.ones((2, 5)), -1).dense(), x.dense() @ np.ones((5, 2)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_whole_numbers_of_few_bits_are_indices_and_no_masks(dtype: torch.dtype) -> None:
    x = CP.random((3, 4), 2, like=torch.zeros((), dtype=torch.float64), generator=0)
    for at in (torch.tensor([1, 0, 1], dtype=dtype), np.array([1, 0, 1], dtype=np.uint8)):
        assert torch.equal(x[at].dense(), x.dense()[[1, 0, 1]])
    assert torch.equal(x[torch.tensor([True, False, True])].dense(), x.dense()[[0, 2]])
