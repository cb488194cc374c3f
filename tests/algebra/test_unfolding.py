import numpy as np
import pytest

from tenfold.algebra import fold, unfold, unvec, vec
from tenfold.core.errors import ShapeError

SHAPES = [(3,), (2, 3), (2, 3, 4), (2, 1, 3, 2), (2, 3, 2, 1, 2)]
EVERY_MODE = [(shape, mode) for shape in SHAPES for mode in range(-len(shape), len(shape))]


def kolda_bader(library):
    """The running example of Kolda & Bader 2009: X(:, :, 1) holds 1 to 12 by columns, X(:, :, 2) 13 to 24."""
    return library.array(np.arange(1.0, 25).reshape((3, 4, 2), order="F"))


@pytest.mark.parametrize(("shape", "mode"), EVERY_MODE)
def test_fold_undoes_unfold(library, shape, mode):
    tensor = library.normal(*shape, dtype="complex128")
    assert library.xp.all(fold(unfold(tensor, mode), mode, shape) == tensor)


@pytest.mark.parametrize(("shape", "mode"), EVERY_MODE)
def test_rows_of_an_unfolding_are_slices_in_c_order(library, shape, mode):
    tensor = library.normal(*shape)
    rows = [np.take(np.asarray(tensor), i, axis=mode).ravel() for i in range(shape[mode])]
    np.testing.assert_array_equal(np.asarray(unfold(tensor, mode)), rows)


def test_unfolding_of_kolda_and_bader(library):
    first = np.asarray(unfold(kolda_bader(library), 0))
    assert first.tolist() == [
        [1, 13, 4, 16, 7, 19, 10, 22],
        [2, 14, 5, 17, 8, 20, 11, 23],
        [3, 15, 6, 18, 9, 21, 12, 24],
    ]
    published = np.asarray(kolda_bader(library)).reshape(3, 8, order="F")
    assert sorted(first.T.tolist()) == sorted(published.T.tolist())


@pytest.mark.parametrize("shape", SHAPES)
def test_unvec_undoes_vec(library, shape):
    tensor = library.normal(*shape)
    assert tuple(vec(tensor).shape) == (np.prod(shape),)
    assert library.xp.all(unvec(vec(tensor), shape) == tensor)


def test_views_that_are_not_contiguous_unfold(library):
    tensor = library.xp.permute_dims(library.normal(2, 3, 4), (2, 0, 1))
    assert library.xp.all(fold(unfold(tensor, 1), 1, (4, 2, 3)) == tensor)
    assert library.xp.all(unvec(vec(tensor), (4, 2, 3)) == tensor)


@pytest.mark.parametrize("mode", [3, -4])
def test_a_mode_outside_the_order_is_refused(library, mode):
    with pytest.raises(ShapeError) as raised:
        unfold(library.normal(2, 3, 4), mode)
    assert str(raised.value) == (
        f"a tensor of order 3 has no mode {mode}.\n"
        "Choose a mode from 0 to 2, or from -3 to -1 to count from the end."
    )


def test_a_matrix_of_another_shape_is_not_folded(library):
    with pytest.raises(ShapeError) as raised:
        fold(library.normal(3, 7), 1, (2, 3, 4))
    assert str(raised.value) == (
        "a tensor of shape (2, 3, 4) unfolds along mode 1 to (3, 8), but the matrix has shape (3, 7).\n"
        "Give the shape of the whole tensor, with the size of the mode in its place."
    )


def test_a_vector_of_another_length_is_refused(library):
    with pytest.raises(ShapeError, match=r"has 6 entries, but the vector has shape \(5,\)\.\nChoose sizes"):
        unvec(library.normal(5), (2, 3))


def test_an_empty_tensor_unfolds_and_folds() -> None:
    empty = np.ones((2, 0, 3))
    assert [unfold(empty, k).shape for k in range(3)] == [(2, 0), (0, 6), (3, 0)]
    assert fold(unfold(empty, 1), 1, empty.shape).shape == empty.shape
