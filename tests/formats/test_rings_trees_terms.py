"""Rings, block terms, trees, Kronecker sums and lattices: what each is, beyond the laws."""

from typing import Any

import numpy as np
import pytest

from tenfold.algebra import join_blocks, split_blocks
from tenfold.core.errors import OptionError, RankError, ShapeError
from tenfold.formats import (
    CP,
    BlockTerm,
    General,
    HierarchicalTucker,
    KroneckerSum,
    TensorRing,
    TensorTrain,
    Tucker,
)
from tenfold.formats.dimension_tree import balanced, linear
from tenfold.formats.lattices import mera, mera_graph, peps, peps_graph

LIKE = np.zeros(())


# Rings ----------------------------------------------------------------------------------------------------


def test_an_entry_of_a_ring_is_the_trace_of_a_product() -> None:
    x = TensorRing.random((4, 5, 6, 3), (2, 3, 4, 2), like=LIKE, generator=0)
    a, b, c, d = x.cores
    assert x.dense()[1, 2, 3, 0] == pytest.approx(np.trace(a[:, 1] @ b[:, 2] @ c[:, 3] @ d[:, 0]))


def test_turning_a_ring_turns_its_modes() -> None:
    x = TensorRing.random((4, 5, 6), (2, 3, 2), like=LIKE, generator=0)
    turned = TensorRing((*x.cores[1:], x.cores[0]))
    np.testing.assert_allclose(turned.dense(), x.dense().transpose(1, 2, 0), atol=1e-12)


def test_a_ring_opened_at_bond_zero_is_a_train() -> None:
    x = TensorRing.random((4, 5, 6), (1, 3, 2), like=LIKE, generator=0)
    first, middle, last = x.cores
    train = TensorTrain((first[0], middle, last[:, :, 0]))
    np.testing.assert_allclose(x.dense(), train.dense(), atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 5, 5, 5), (2, 50), (3, 1, 4), (2, 2, 2, 2, 2, 2)])
def test_no_bond_of_a_ring_is_larger_than_in_the_trains_within(shape: tuple[int, ...]) -> None:
    full = TensorRing.full(shape).ranks
    for k in range(len(shape)):
        turned = shape[k:] + shape[:k]
        train = list(TensorTrain.full(turned).ranks.values()) if len(shape) > 1 else []
        for n, rank in enumerate(train):
            assert full[f"R{(k + 1 + n) % len(shape)}"] >= rank
    assert all(r * r <= np.prod(shape) for r in full.values())


def test_full_ranks_of_a_ring_with_one_bond_cut_hold_any_tensor() -> None:
    shape = (3, 4, 5)
    full = TensorRing.full(shape).ranks
    ranks = TensorRing.skeleton(shape, full | {"R0": 1}).ranks
    assert ranks == {"R0": 1} | TensorTrain.full(shape).ranks


def test_a_ring_of_one_core_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"TensorRing does not hold tensors of order 1\.\nOne core has no"):
        TensorRing.skeleton((4,), 2)


# Block terms ----------------------------------------------------------------------------------------------


def test_block_terms_of_ranks_one_are_cp_and_one_term_is_tucker() -> None:
    x = BlockTerm.random((4, 5, 6), (3, 1, 1, 1), like=LIKE, generator=0)
    columns = [u[:, :, 0].T for u in x.matrices if u is not None]
    cp = CP((columns[0] * x.core[:, 0, 0, 0], *columns[1:]))
    np.testing.assert_allclose(x.dense(), cp.dense(), atol=1e-12)
    y = BlockTerm.random((4, 5, 6), (1, 2, 3, 2), like=LIKE, generator=0)
    (term,) = y.terms()
    assert isinstance(term, Tucker)
    np.testing.assert_allclose(term.dense(), y.dense(), atol=1e-12)


def test_terms_may_leave_modes_whole() -> None:
    x = BlockTerm.random((4, 5, 3), (2, 2, 3, None), like=LIKE, generator=0)
    assert x.matrices[2] is None and x.core.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(sum(t.dense() for t in x.terms()), x.dense(), atol=1e-12)


def test_block_terms_are_put_together_from_terms_of_any_ranks() -> None:
    terms = [
        Tucker.random((4, 5, 6), r, like=LIKE, generator=0) for r in ((1, 1, 1), (2, 3, 2), (2, 2, None))
    ]
    x = BlockTerm.of_terms(terms)
    assert x.ranks == {"T": 3, "R0": 2, "R1": 3} and x.matrices[2] is None
    np.testing.assert_allclose(x.dense(), sum(t.dense() for t in terms), atol=1e-12)


@pytest.mark.parametrize("ranks, expected", [((9, 4, 5, 6), 1), ((9, 2, 2, 4), 9), ((99, 1, 1, 1), 20)])
def test_terms_beyond_need_are_cut(ranks: tuple[int, ...], expected: int) -> None:
    assert BlockTerm.skeleton((4, 5, 6), ranks).ranks["T"] == expected


def test_a_term_that_holds_every_tensor_is_enough() -> None:
    assert BlockTerm.full((4, 5, 6)).ranks == {"T": 1, "R0": 4, "R1": 5, "R2": 6}
    assert BlockTerm.skeleton((4, 5, 6), 10**6).ranks["T"] == 1


def test_malformed_terms_are_refused() -> None:
    with pytest.raises(ShapeError, match="came without terms"):
        BlockTerm.of_terms([])
    with pytest.raises(ShapeError, match=r"\(L, L, 1\) terms came with shapes"):
        BlockTerm.ll1(np.ones((2, 4, 3)), np.ones((2, 5, 2)), np.ones((2, 6)))
    with pytest.raises(RankError, match="no rank is given for bond T"):
        BlockTerm.skeleton((4, 5, 6), (None, 2, 2, 2))


# Trees ----------------------------------------------------------------------------------------------------


def test_a_flat_tree_is_tucker() -> None:
    x = HierarchicalTucker.random((4, 5, 6), (2, 3, 2), tree=(0, 1, 2), like=LIKE, generator=0)
    np.testing.assert_allclose(x.dense(), Tucker(x.root, x.leaves).dense(), atol=1e-12)


def test_a_linear_tree_has_the_ranks_of_a_train() -> None:
    shape = (3, 4, 2, 5)
    full = HierarchicalTucker.full(shape, tree=linear(4)).ranks
    train = TensorTrain.full(shape).ranks
    assert (full["R0"], full["R0_1"], full["R0_1_2"]) == tuple(train.values())


def test_the_formula_of_a_balanced_tree() -> None:
    x = HierarchicalTucker.random((3, 4, 2, 5), 2, like=LIKE, generator=0)
    (b, c), (u0, u1, u2, u3) = x.transfers, x.leaves
    expected = np.einsum("ab,pqa,rsb,ip,jq,kr,ls->ijkl", x.root, b, c, u0, u1, u2, u3)
    np.testing.assert_allclose(x.dense(), expected, atol=1e-12)
    assert x.tree == balanced(4) == ((0, 1), (2, 3))


def test_trees_of_lists_are_trees() -> None:
    x = HierarchicalTucker.random((3, 4, 2), 2, like=LIKE, tree=[[0, 2], 1])
    assert x.tree == ((0, 2), 1) and x.static == {"tree": ((0, 2), 1)}
    assert HierarchicalTucker(x.root, x.transfers, x.leaves, [[0, 2], 1]).shape == (3, 4, 2)


def test_order_one_is_the_mode_alone() -> None:
    x = HierarchicalTucker.random((4,), 3, like=LIKE, generator=0)
    assert x.root.shape == (4,) and x.transfers == x.leaves == () and x.tree == 0
    np.testing.assert_array_equal((x + x)[1:].dense(), 2 * x.root[1:])


@pytest.mark.parametrize(
    "tree, error, message",
    [
        (((0, 1), (1, 2)), OptionError, "the dimension tree ((0, 1), (1, 2)) names mode 1 twice."),
        (
            ((0, 1), 3),
            ShapeError,
            "the dimension tree ((0, 1), 3) has modes 0, 1, 3, but the tensor 0, 1, 2.",
        ),
        ((0, 1), ShapeError, "the dimension tree (0, 1) has modes 0, 1, but the tensor 0, 1, 2."),
        (((0, 1), (2,)), OptionError, "has a node with 1 below it: (2,).\nA node joins two or more."),
        (((0, 1), ()), OptionError, "has a node with 0 below it: ()."),
        (((0, 1), "2"), OptionError, "the dimension tree ((0, 1), '2') holds '2'."),
        (((0, 1), 2.0), OptionError, "holds 2.0."),
        ((False, 1, 2), OptionError, "holds False."),
        (((-1, 1), 2), ShapeError, "has modes -1, 1, 2"),
    ],
    ids=str,
)
def test_malformed_trees_are_refused(tree: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as found:
        HierarchicalTucker.skeleton((4, 5, 6), 2, tree=tree)
    assert message in str(found.value)
    with pytest.raises(error):
        HierarchicalTucker(np.ones((2, 2)), (np.ones((2, 2, 2)),), (np.ones((4, 2)),) * 3, tree)


def test_factors_of_another_tree_are_refused() -> None:
    x = HierarchicalTucker.random((3, 4, 2, 5), 2, like=LIKE)
    with pytest.raises(ShapeError, match="HierarchicalTucker cannot have 6 factors"):
        _ = HierarchicalTucker(x.root, x.transfers[:1], x.leaves).shape
    with pytest.raises(ShapeError, match="cannot have 7 factors"):
        HierarchicalTucker.from_factors(x.slots, tree=tuple(range(7)))


def test_options_that_a_format_has_not_got_are_refused() -> None:
    with pytest.raises(OptionError) as error:
        CP.skeleton((4, 5), 2, tree=(0, 1))
    assert str(error.value) == "CP has no option 'tree'.\nIt has none."
    with pytest.raises(OptionError, match=r"no option 'order'.\nIts options: tree\."):
        HierarchicalTucker.random((4, 5), 2, like=LIKE, order=2)
    with pytest.raises(ShapeError, match=r"a general network of order 2 has no graph of its own"):
        General.full((4, 5))


def test_ranks_of_zero_are_refused_by_all() -> None:
    for cls in (TensorRing, BlockTerm, HierarchicalTucker):
        with pytest.raises(RankError, match="ranks must be at least 1"):
            cls.skeleton((4, 5, 6), 0)
    with pytest.raises(RankError, match="ranks must be at least 1"):
        KroneckerSum.skeleton((4, 5), 0)


# Kronecker sums -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer, inner", [((2,), (3,)), ((2, 3), (4, 2)), ((2, 1, 3), (2, 4, 1))])
def test_a_kronecker_sum_is_a_matrix_of_low_rank_rearranged(
    outer: tuple[int, ...], inner: tuple[int, ...]
) -> None:
    x = KroneckerSum.random((*outer, *inner), 2, like=LIKE, generator=0)
    expected = sum(np.kron(a, b) for a, b in zip(x.left, x.right, strict=True))
    np.testing.assert_allclose(x.merged(), expected, atol=1e-12)
    np.testing.assert_allclose(split_blocks(x.merged(), outer), x.dense(), atol=1e-12)
    matrix = split_blocks(expected, outer).reshape(int(np.prod(outer)), -1)
    assert np.linalg.matrix_rank(matrix) == x.ranks["R"]


def test_blocks_are_joined_again() -> None:
    x = np.random.default_rng(0).standard_normal((6, 4, 10))
    np.testing.assert_array_equal(join_blocks(split_blocks(x, (3, 2, 5))), x)
    np.testing.assert_array_equal(split_blocks(x, (3, 2, 5))[1, 0, 2], x[2:4, :2, 4:6])


@pytest.mark.parametrize("outer", [(4, 2, 5), (3, 2), (0, 2, 5)])
def test_blocks_that_do_not_divide_are_refused(outer: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"a tensor of shape \(6, 4, 10\) cannot be cut into"):
        split_blocks(np.ones((6, 4, 10)), outer)
    with pytest.raises(ShapeError, match="a tensor of order 3 has no halves to join"):
        join_blocks(np.ones((6, 4, 10)))


@pytest.mark.parametrize("order", [1, 3])
def test_kronecker_sums_of_odd_order_are_refused(order: int) -> None:
    with pytest.raises(ShapeError, match=f"KroneckerSum does not hold tensors of order {order}"):
        KroneckerSum.skeleton((4,) * order, 2)


# Lattices -------------------------------------------------------------------------------------------------


def test_peps_has_a_factor_for_each_site_and_a_bond_for_each_pair_of_neighbours() -> None:
    graph = peps_graph(3, 4)
    assert len(graph) == 12 and len({a for f in graph for a in f if a[0] in "HV"}) == 3 * 3 + 2 * 4
    assert graph[5] == ("m5", "V0_1", "H1_0", "H1_1", "V1_1")


def test_peps_of_one_row_is_a_train() -> None:
    x = peps(1, 4, 3, 2, like=LIKE, generator=0)
    a, b, c, d = x.arrays
    train = TensorTrain((a, b.transpose(1, 0, 2), c.transpose(1, 0, 2), d.T))
    np.testing.assert_allclose(x.dense(), train.dense(), atol=1e-12)


def test_mera_halves_its_wires_layer_by_layer() -> None:
    graph = mera_graph(8)
    assert [len(f) for f in graph] == [4] * 4 + [3] * 4 + [4] * 2 + [3] * 2 + [2]
    x = mera(8, 2, 3, like=LIKE, generator=0)
    assert x.ranks["D0_1"] == 2 and x.ranks["W1_0"] == x.ranks["D1_0"] == x.ranks["W2_1"] == 3
    assert mera_graph(2) == (("m0", "m1"),)


@pytest.mark.parametrize("make", [lambda: peps(2, 3, 3, 2, like=LIKE, std=0.5, generator=1)])
def test_norms_and_entries_of_lattices_are_those_of_the_dense_tensor(make: Any) -> None:
    for x in (make(), mera(8, 2, 3, like=LIKE, generator=1)):
        dense = x.dense()
        assert float(x.norm()) == pytest.approx(np.linalg.norm(dense))
        indices = np.random.default_rng(0).integers(0, 2, (4, dense.ndim))
        np.testing.assert_allclose(x.at(indices), dense[tuple(indices.T)], atol=1e-12)


def test_lattices_have_the_deviation_that_was_asked_for() -> None:
    for make in (
        lambda k: peps(2, 2, 3, 2, like=LIKE, std=2.0, generator=k),
        lambda k: mera(4, 3, 2, like=LIKE, std=2.0, generator=k),
    ):
        found = np.sqrt(np.mean([np.mean(make(k).dense() ** 2) for k in range(300)]))
        assert 1.7 < found < 2.3


@pytest.mark.parametrize("sites", [0, 1, 3, 6])
def test_mera_needs_a_power_of_two(sites: int) -> None:
    with pytest.raises(OptionError, match=f"a binary MERA came with {sites} sites"):
        mera(sites, 2, 2, like=LIKE)
    with pytest.raises(OptionError, match="a grid of 0 × 2 sites has none"):
        peps(0, 2, 2, 2, like=LIKE)
