"""The planner: it finds the cheapest order, and what it proposes for large graphs is correct."""

import itertools

import numpy as np
import pytest

from tenfold.core.contraction import lower_contraction
from tenfold.core.cost import Cost, Flops, Roofline, Traffic, Work
from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.core.lower import lower
from tenfold.core.network import Network, skeleton
from tenfold.core.node_sets import Pair
from tenfold.core.program import run
from tenfold.core.search import EXACT, Application, Graph, Window, search, search_contraction
from tenfold.formats import CP, TensorTrain, Tucker

COSTS = [Flops(), Traffic(), Roofline()]


def orders(nodes: tuple[int, ...]) -> list[tuple[Pair, ...]]:
    """Every sequence of pairwise meetings."""
    if len(nodes) == 1:
        return [()]
    found = []
    for a, b in itertools.combinations(nodes, 2):
        rest = tuple(n for n in nodes if n not in (a, b))
        found += [(Pair((min(a, b), max(a, b))), *tail) for tail in orders((*rest, a | b))]
    return found


def price(graph: Graph, pairs: tuple[Pair, ...], cost: Cost) -> float:
    return sum(cost(graph.work(*sorted(pair, key=lambda s: s & -s))) for pair in pairs)


NETWORKS = [
    CP.skeleton((5, 6, 7), 3),
    Tucker.skeleton((5, 6, 7), (2, 3, 4)),
    TensorTrain.skeleton((3, 4, 5, 6), (2, 3, 4)),
]


@pytest.mark.parametrize("cost", COSTS, ids=str)
@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: str(n.shape))
def test_the_search_finds_the_cheapest_contraction(network: Network, cost: Cost) -> None:
    graph = Graph(network.factors, network.modes, network, None)
    found = price(graph, search_contraction(network, network.modes, cost), cost)
    best = min(price(graph, o, cost) for o in orders(tuple(1 << k for k in range(len(network.factors)))))
    assert found == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("rows", [1, 100, 10**6])
@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_the_search_finds_the_cheapest_order_of_a_layer(cost: Cost, rows: int) -> None:
    network = TensorTrain.skeleton((6, 8, 9), (4, 5)).refined([[("o", 6)], [("i", 8)], [("w", 9)]])
    app = Application(network, ("i",), ("o",), (("w", Window(length=20, before=1, after=1)),), rows)
    graph = Graph(app.nodes, app.outputs, network, app)
    found = price(graph, search(app, cost), cost)
    assert found == pytest.approx(min(price(graph, o, cost) for o in orders((1, 2, 4, 8))), rel=1e-12)


@pytest.mark.parametrize("order", [EXACT + 1, EXACT + 3])
def test_large_graphs_are_contracted_through_a_proposed_order(order: int) -> None:
    x = TensorTrain.random((2,) * order, 3, like=np.zeros(()), generator=0)
    assert len(x.factors) > EXACT
    expected = np.ones((1, 1))
    for core in x.cores:
        core = core.reshape(-1, 2, core.size // 2 // (1 if core is x.cores[0] else core.shape[0]))
        expected = np.tensordot(expected, core, 1)
    np.testing.assert_allclose(x.dense(), expected.reshape((2,) * order), atol=1e-12)
    assert float(x.inner(x)) == pytest.approx(float(np.sum(x.dense() ** 2)))


def test_a_large_layer_runs_through_a_proposed_order() -> None:
    count = EXACT
    x = TensorTrain.random((4,) * count, 2, like=np.zeros(()), generator=0)
    groups = [[(f"o{k}", 2), (f"i{k}", 2)] for k in range(count)]
    inputs, outputs = (tuple(f"{letter}{k}" for k in range(count)) for letter in "io")
    program = lower(Application(x.network.refined(groups), inputs, outputs, rows=4))
    assert len(program.steps) >= count


def linear(rank: int, rows: int) -> tuple[str, ...]:
    """Kinds of the steps of a 1024 x 1024 TT-matrix."""
    layout = Layout.parse("(o0=32 o1) (i0=32 i1) -> (o0 i0) (o1 i1)").bind((1024, 1024))
    network = TensorTrain.skeleton(layout.mode_shape, rank).refined(layout.mode_groups)
    return lower(Application(network, ("i0", "i1"), ("o0", "o1"), rows=rows)).kinds


def test_few_rows_are_contracted_and_many_rows_at_high_rank_see_the_reconstructed_weight() -> None:
    assert linear(512, 1_000_000) == ("merge", "linear")
    assert "merge" not in linear(4, 8)
    assert "merge" not in linear(4, 1_000_000)


def test_a_spatial_axis_in_several_factors_cannot_slide() -> None:
    network = Network((("o", "w"), ("i", "w")), ("o", "i", "w"), (("o", 2), ("i", 2), ("w", 3)))
    with pytest.raises(UnsupportedError) as error:
        Application(network, ("i",), ("o",), (("w", Window()),))
    assert str(error.value).startswith("spatial axis 'w' is carried by several factors")


def test_costs_are_flops_bytes_and_seconds() -> None:
    work = Work(groups=1, rows=10**4, depth=10**3, columns=10**2, taps=1, elements=10**6)
    assert Flops()(work) == 2e9
    assert Traffic(itemsize=2)(work) == 2e6
    whole_tiles = 2e9 * 104 / 100
    assert Roofline()(work) == pytest.approx(whole_tiles / 3e11 + 4e-6)
    assert Roofline(tile=1)(work) == pytest.approx(2e9 / 3e11 + 4e-6)
    assert Roofline(flops_per_second=1e15)(work) == pytest.approx(2e-4 + 4e-6)
    depthwise = work._replace(groups=10**5, depth=1, columns=1)
    assert Roofline().tiled(depthwise) == depthwise.multiply_adds
    with pytest.raises(OptionError, match="has a rate that is not positive"):
        Roofline(flops_per_second=0)


def test_positions_follow_from_the_window() -> None:
    assert Window(length=28, before=1, after=1).positions(3) == 28
    assert Window(length=28, stride=2, before=1, after=1).positions(3) == 14
    assert Window(length=28, dilation=2).positions(3) == 24


def test_a_scalar_network_of_one_factor_needs_no_meeting() -> None:
    network = skeleton((("m0",),), (3,), {})
    assert search_contraction(network, ("m0",)) == ()
    assert np.array_equal(run(lower_contraction(network, ("m0",)), (np.arange(3),), np), np.arange(3))
