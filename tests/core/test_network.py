"""Networks: sizes, ranks that bonds can carry, cuts, refinements."""

import numpy as np
import pytest

from tenfold.core.errors import RankError, ShapeError
from tenfold.core.network import Network, bond, distinct, mode, skeleton

CP = (("m0", "R"), ("m1", "R"), ("m2", "R"))
TUCKER = (("R0", "R1", "R2"), ("m0", "R0"), ("m1", "R1"), ("m2", "R2"))
TRAIN = (("m0", "R1"), ("R1", "m1", "R2"), ("R2", "m2", "R3"), ("R3", "m3"))
RING = (("R0", "m0", "R1"), ("R1", "m1", "R2"), ("R2", "m2", "R0"))


def test_names_and_distinct_axes() -> None:
    assert (mode(3), bond(2)) == ("m3", "R2")
    assert distinct(CP) == ("m0", "R", "m1", "m2")


def test_sizes_are_read_off_the_graph() -> None:
    x = skeleton(TUCKER, (4, 5, 6), {"R0": 2, "R1": 3, "R2": 2})
    assert x.shape == (4, 5, 6) and x.shapes == ((2, 3, 2), (4, 2), (5, 3), (6, 2))
    assert x.numel == 12 + 8 + 15 + 12 and x.bonds == ("R0", "R1", "R2")
    assert x.with_ranks({"R0": 1}).ranks == {"R0": 1, "R1": 3, "R2": 2}
    assert hash(x) == hash(skeleton(TUCKER, (4, 5, 6), {"R0": 2, "R1": 3, "R2": 2}))


@pytest.mark.parametrize(
    "graph, shape, expected",
    [
        (CP, (4, 5, 6), {"R": 20}),
        (CP[:2], (4, 5), {"R": 4}),
        (CP[:1], (4,), {"R": 1}),
        (TUCKER, (4, 5, 6), {"R0": 4, "R1": 5, "R2": 6}),
        (TUCKER, (2, 2, 9), {"R0": 2, "R1": 2, "R2": 4}),
        (TRAIN, (2, 3, 4, 5), {"R1": 2, "R2": 6, "R3": 5}),
    ],
)
def test_full_ranks_are_those_of_a_tensor_without_structure(
    graph: tuple, shape: tuple, expected: dict
) -> None:
    ones = skeleton(graph, shape, dict.fromkeys(expected, 1))
    assert ones.full().ranks == expected


def test_full_ranks_hold_any_tensor() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    for k, b in ((1, "R1"), (2, "R2"), (3, "R3")):
        full = skeleton(TRAIN, x.shape, {"R1": 1, "R2": 1, "R3": 1}).full().ranks
        assert full[b] == np.linalg.matrix_rank(x.reshape(int(np.prod(x.shape[:k])), -1))


def test_a_small_rank_bounds_its_neighbours() -> None:
    assert skeleton(TUCKER, (4, 5, 6), {"R0": 4, "R1": 2, "R2": 1}).clipped().ranks == {
        "R0": 2,
        "R1": 2,
        "R2": 1,
    }
    assert skeleton(TRAIN, (2, 3, 4, 5), {"R1": 1, "R2": 9, "R3": 9}).clipped().ranks == {
        "R1": 1,
        "R2": 3,
        "R3": 5,
    }


def test_clipping_leaves_feasible_ranks_alone() -> None:
    x = skeleton(RING, (4, 5, 6), {"R0": 2, "R1": 3, "R2": 2})
    assert x.clipped() == x


@pytest.mark.parametrize(
    "graph, shape, b, parts",
    [
        (CP, (4, 5, 6), "R", (("m0",), ("m1",), ("m2",))),
        (TUCKER, (4, 5, 6), "R1", (("m0", "m2"), ("m1",))),
        (TRAIN, (2, 3, 4, 5), "R2", (("m0", "m1"), ("m2", "m3"))),
        (RING, (4, 5, 6), "R1", (("m0", "m1", "m2"),)),
    ],
)
def test_a_cut_bond_parts_the_modes(graph: tuple, shape: tuple, b: str, parts: tuple) -> None:
    bonds = {a: 2 for a in distinct(graph) if a.startswith("R")}
    assert skeleton(graph, shape, bonds).cut(b) == parts


def test_modes_are_refined_into_named_axes() -> None:
    x = skeleton(CP[:2], (4, 6), {"R": 3}).refined([[("o", 4)], [("i", 2), ("h", 3)]])
    assert x.factors == (("o", "R"), ("i", "h", "R")) and x.modes == ("o", "i", "h")
    assert x.size_of == {"o": 4, "i": 2, "h": 3, "R": 3}


def test_refined_axes_must_multiply_to_the_mode() -> None:
    with pytest.raises(ShapeError) as error:
        skeleton(CP[:2], (4, 6), {"R": 3}).refined([[("o", 4)], [("i", 2), ("h", 2)]])
    assert (
        str(error.value)
        == "mode m1 has size 6, but its axes are {'i': 2, 'h': 2}.\nGive sizes whose product is the mode's."
    )


def test_axes_are_renamed_everywhere() -> None:
    x = skeleton(CP[:2], (4, 6), {"R": 3}).renamed({"R": "S", "m0": "a"})
    assert x == Network((("a", "S"), ("m1", "S")), ("a", "m1"), (("a", 4), ("m1", 6), ("S", 3)))


@pytest.mark.parametrize(
    "ranks, factors",
    [
        ({"R0": 2, "R1": 3}, (("R0", "R1", "m2"), ("m0", "R0"), ("m1", "R1"))),
        ({"R1": 3}, (("m0", "R1", "m2"), ("m1", "R1"))),
        ({}, (("m0", "m1", "m2"),)),
    ],
)
def test_a_bond_without_a_rank_leaves_its_mode_whole(ranks: dict, factors: tuple) -> None:
    assert skeleton(TUCKER, (4, 5, 6), ranks).factors == factors


def test_a_matrix_in_tucker_format_can_be_all_core() -> None:
    graph = (("R0", "R1"), ("m0", "R0"), ("m1", "R1"))
    assert skeleton(graph, (4, 5), {}).factors == (("m0", "m1"),)


@pytest.mark.parametrize(
    "ranks, message",
    [
        ({"R": 0}, "ranks must be at least 1, but came as {'R': 0}.\nChoose ranks of 1 or more."),
        ({"Q": 1, "R": 1}, "ranks name Q, but the bonds are R.\nName bonds of the format."),
        (
            {},
            "no rank is given for bond R, and it has no mode of its own that could stay whole.\n"
            "Give a rank for R.",
        ),
    ],
)
def test_ranks_that_a_graph_cannot_have_are_refused(ranks: dict, message: str) -> None:
    with pytest.raises(RankError) as error:
        skeleton(CP, (4, 5, 6), ranks)
    assert str(error.value) == message
