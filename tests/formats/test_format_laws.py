"""Every registered format obeys the laws, on every array library and in every field."""

from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import RankError, ShapeError
from tenfold.formats import CP, General, LowRank, TensorTrain, Tucker, formats
from tenfold.testing import check_format
from tenfold.testing.formats import holds

LIKES = [
    np.zeros(()),
    np.zeros((), dtype=np.complex128),
    torch.zeros((), dtype=torch.float64),
    torch.zeros((), dtype=torch.complex128),
]


@pytest.mark.parametrize("like", LIKES, ids=lambda like: f"{type(like).__module__}-{like.dtype}")
@pytest.mark.parametrize("name", formats)
def test_format_obeys_every_law(name: str, like: Any) -> None:
    check_format(formats[name], like=like)


@pytest.mark.parametrize("name", formats)
def test_factors_give_the_same_tensor_on_every_library(name: str) -> None:
    shape = next(s for s in ((4, 5), (4, 5, 3)) if holds(formats[name], len(s)))
    x = formats[name].random(shape, 2, like=np.zeros(()), generator=0)
    np.testing.assert_allclose(x.map(torch.from_numpy).dense().numpy(), x.dense(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [CP, Tucker, TensorTrain])
def test_formats_of_order_one_are_vectors(cls: Any) -> None:
    x = cls.random((4,), 3, like=np.zeros(()), generator=0)
    assert x.shape == (4,) and x.dense().shape == (4,)
    assert all(r == 1 for r in x.ranks.values())
    assert x[2].dense() == x.dense()[2]


def test_tucker_may_leave_every_mode_whole() -> None:
    x = Tucker.random((4, 5), (None, None), like=np.zeros(()), generator=0)
    assert x.numel == 20 and x.matrices == (None, None)
    assert np.array_equal(x.dense(), x.core)


def test_what_integers_leave_is_a_format_again() -> None:
    x = CP.random((4, 5, 6), 3, like=np.zeros(()), generator=0)
    assert isinstance(x[1], General) and isinstance(x[1, 2], General)
    np.testing.assert_allclose(x[1][2].dense(), x.dense()[1, 2], atol=1e-12)
    np.testing.assert_allclose(x[1, 2, 3].dense(), x.dense()[1, 2, 3], atol=1e-12)
    other = LowRank.random((5, 6), 2, like=np.zeros(()), generator=1)
    np.testing.assert_allclose(x[1].inner(other), np.vdot(x.dense()[1], other.dense()), atol=1e-12)


def test_two_index_arrays_select_a_grid() -> None:
    x = CP.random((4, 5, 6), 3, like=np.zeros(()), generator=0)
    rows, columns = np.array([0, 2]), np.array([1, 1, 3])
    np.testing.assert_allclose(x[rows, columns].dense(), x.dense()[np.ix_(rows, columns)], atol=1e-12)


def test_a_format_goes_through_export_as_an_input() -> None:
    class Norm(torch.nn.Module):
        def forward(self, x: Tucker) -> torch.Tensor:
            return x.dense().sum()

    x = Tucker.random((4, 5, 6), (2, 2, None), like=torch.zeros((), dtype=torch.float64), generator=0)
    program = torch.export.export(Norm(), (x,))
    assert torch.allclose(program.module()(x), x.dense().sum())


@pytest.mark.parametrize(
    "ranks, message",
    [
        (0, "ranks must be at least 1, but came as {'R0': 0, 'R1': 0, 'R2': 0}."),
        (True, "a rank came as True."),
        ("123", "a rank came as '123'."),
        ((2, 2.5, 2), "a rank came as 2.5."),
        ((2, 2), "Tucker of order 3 has 3 ranks, but 2 came: [2, 2].\nGive one for each of R0, R1, R2."),
        ({"Q": 2}, "ranks name Q, but the bonds are R0, R1, R2.\nName bonds of the format."),
        (1.5, "a fraction of the parameters came as 1.5.\nGive one in (0, 1], or an int."),
        (0.01, "ranks of 1 store 16 elements, but only 1 are allowed.\nAllow 16, or leave the weight dense."),
    ],
)
def test_ranks_that_cannot_be_are_refused(ranks: Any, message: str) -> None:
    with pytest.raises(RankError) as error:
        Tucker.skeleton((4, 5, 6), ranks)
    assert message in str(error.value)


def test_numpy_integers_are_ranks() -> None:
    assert CP.skeleton((4, 5), np.int64(2)).ranks == {"R": 2}


@pytest.mark.parametrize("order", [1, 3])
def test_low_rank_holds_matrices_only(order: int) -> None:
    with pytest.raises(ShapeError, match=f"LowRank does not hold tensors of order {order}"):
        LowRank.skeleton((4,) * order, 2)


@pytest.mark.parametrize("cls", [CP, TensorTrain, LowRank])
def test_a_bond_without_a_mode_of_its_own_needs_a_rank(cls: Any) -> None:
    with pytest.raises(RankError, match=r"no rank is given for bond R1?, and it has no mode of its own"):
        cls.skeleton((4, 5), (None,))


@pytest.mark.parametrize("index", [None, True, np.zeros((2, 2), dtype=int), (0, 0, 0, 0), (..., ...)])
def test_indices_that_a_format_cannot_follow_are_refused(index: Any) -> None:
    with pytest.raises(ShapeError):
        CP.random((4, 5, 6), 2, like=np.zeros(()))[index]


def test_factors_that_disagree_are_refused() -> None:
    with pytest.raises(ShapeError, match="axis R has size 2 in one factor and 3 in another"):
        _ = CP((np.ones((3, 2)), np.ones((4, 3)))).shape
    with pytest.raises(ShapeError, match="came with shape"):
        _ = CP((np.ones(3), np.ones((4, 3)))).shape


def test_an_operand_of_the_wrong_size_is_refused() -> None:
    x = CP.random((4, 5), 2, like=np.zeros(()))
    with pytest.raises(ShapeError, match=r"mode 1 has size 5, but the operand has shape \(4,\)"):
        x.mode_dot(np.ones(4), 1)
    with pytest.raises(ShapeError, match=r"inner product of shapes"):
        x.inner(CP.random((5, 4), 2, like=np.zeros(())))


# Strassen's seven products, in the columns: C = A B for 2 x 2 matrices, entries in the order 11, 12, 21, 22.
LEFT = [[1, 0, 1, 0, 1, -1, 0], [0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 0, 0, -1]]
RIGHT = [[1, 1, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0, 1], [1, 0, -1, 0, 1, 0, 1]]
MADE = [[1, 0, 0, 1, -1, 0, 1], [0, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0, 0], [1, -1, 1, 0, 0, 1, 0]]


def test_strassens_algorithm_is_a_cp_tensor_of_rank_seven() -> None:
    cp = CP(tuple(np.array(f, dtype=float) for f in (LEFT, RIGHT, MADE)))
    eye = np.eye(2)
    product = np.einsum("ad,be,cf->abecdf", eye, eye, eye).reshape(
        4, 4, 4
    )  # left (a b), right (e c), made (d f)
    assert np.array_equal(cp.dense(), product)
    assert float(cp.norm()) ** 2 == pytest.approx(8)
