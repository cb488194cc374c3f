"""Every registered format obeys the laws, on every array library and in every field."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import RankError, ShapeError
from tenfold.formats import CP, General, HierarchicalTucker, LowRank, TensorTrain, Tucker, formats
from tenfold.formats.dimension_tree import modes_below
from tenfold.formats.graphs import modes_of
from tenfold.formats.lattices import mera_graph, peps_graph
from tenfold.testing import check_format
from tenfold.testing.formats import (
    SHAPES,
    check_clipping,
    check_deviation,
    check_value,
    holds,
    whole_modes,
)
from tenfold.testing.libraries import LIBRARIES

LIKES = [
    np.zeros(()),
    np.zeros((), dtype=np.complex128),
    torch.zeros((), dtype=torch.float64),
    torch.zeros((), dtype=torch.complex128),
]
QUICK = {"jax": ("tucker",), "dask": ("tr", "tucker")}
"""Formats that are checked by default; JAX compiles every operation for every shape."""
FURTHER = [
    pytest.param(name, library, marks=() if name in QUICK.get(library, ()) else pytest.mark.slow)
    for name in formats
    for library in LIBRARIES
    if library not in ("numpy", "torch")
]


@pytest.mark.parametrize("like", LIKES, ids=lambda like: f"{type(like).__module__}-{like.dtype}")
@pytest.mark.parametrize("name", formats)
def test_format_obeys_every_law(name: str, like: Any) -> None:
    check_format(formats[name], like=like)


@pytest.mark.parametrize("name, library", FURTHER)
def test_format_obeys_the_laws_on_other_libraries(name: str, library: str) -> None:
    order = next(o for o in (3, 2) if holds(formats[name], o))
    choices: list[Any] = [2, *itertools.islice(whole_modes(formats[name], SHAPES[order]), 1)]
    for ranks in choices:
        check_value(formats[name].random(SHAPES[order], ranks, like=LIBRARIES[library], generator=0))


TREES = [(0, (1, 2)), (0, 1, 2), (((0, 1), 2), 3), ((3, 1), (0, 2)), (2, (3, 0, 1))]


def test_hierarchical_tucker_obeys_every_law_on_a_tree_of_its_own() -> None:
    check_format(HierarchicalTucker, orders=(3,), tree=((2, 0), 1))


@pytest.mark.parametrize("tree", TREES, ids=str)
def test_hierarchical_tucker_obeys_the_laws_on_any_tree(tree: Any) -> None:
    shape = SHAPES[len(modes_below(tree))]
    check_clipping(HierarchicalTucker, shape, tree=tree)
    check_value(HierarchicalTucker.random(shape, 2, like=np.zeros(()), generator=0, tree=tree))


GRAPHS = {
    "star": (("A", "B", "C"), ("m0", "A"), ("m1", "B"), ("C", "m2")),
    "triangle": (("A", "m0", "B"), ("B", "C", "m1"), ("C", "m2", "A")),
    "peps": peps_graph(2, 2),
    "mera": mera_graph(4),
    "core alone": (("m0", "m1", "m2"),),
    "modes in two factors": (("m0", "A", "m1"), ("m1", "A", "m2")),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_general_networks_obey_the_laws(name: str) -> None:
    graph = GRAPHS[name]
    shape = SHAPES[len(modes_of(graph))]
    check_clipping(General, shape, joined=graph)
    check_value(General.random(shape, 2, like=np.zeros(()), generator=0, joined=graph))
    if name != "core alone":
        check_deviation(General, shape, np.zeros(()), joined=graph)


def test_a_sum_of_networks_in_parts_has_one_more_bond() -> None:
    parts = (("m0", "A"), ("A", "m1"), ("m2",))
    x, y = (General.random((4, 5, 3), r, like=np.zeros(()), generator=r, joined=parts) for r in (2, 3))
    assert (x + y).static["joined"] == (("m0", "A", "S0"), ("A", "m1", "S0"), ("m2", "S0"))
    np.testing.assert_allclose((x - y).dense(), x.dense() - y.dense(), atol=1e-12)


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
