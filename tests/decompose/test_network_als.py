"""Alternating least squares for any format: what it recovers, where it starts, what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import ConvergenceWarning, OptionError, RankError, ShapeError, UnknownNameError
from tenfold.core.serde import from_dict, to_dict
from tenfold.decompose import HOOI, TTSVD, NetworkALS, NetworkGN, NetworkGradient, methods
from tenfold.decompose.networks.alternation import Alternation
from tenfold.decompose.networks.general import drawn
from tenfold.formats import CP, General, HierarchicalTucker, TensorTrain, Tucker, formats
from tenfold.formats.lattices import mera, mera_graph, peps, peps_graph
from tenfold.testing import check_method
from tenfold.testing.compare import to_numpy

METHODS: list[Callable[..., Any]] = [NetworkALS, NetworkGN, NetworkGradient]
OPEN = {"restarts": 6, "finalists": 3, "start": "random"}


@pytest.mark.parametrize("kind", ["tucker", "sliced_lowrank", "lowrank", "kronecker"])
def test_other_kinds_obey_every_law_from_random_starts(kind: str) -> None:
    check_method(NetworkALS(kind, start="random"), exact=NetworkALS(kind, start="random", tol=1e-4))


@pytest.mark.parametrize("kind", ["cp", "ht"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("method", METHODS)
def test_random_tensors_of_a_format_are_recovered(method: Any, kind: str, dtype: str) -> None:
    x = formats[kind].random((5, 4, 6), 2, like=np.zeros((), dtype=dtype), generator=2).dense()
    found = method(kind, tol=1e-4 if method is NetworkALS else 1e-10, **OPEN).fit(x, 2, generator=0)
    assert found.error < 1e-9 and found.converged and found.value.dtype == x.dtype
    assert np.linalg.norm(found.value.dense() - x) < 1e-9 * np.linalg.norm(x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_peps_and_mera_are_recovered_from_random_starts(method: Any, dtype: str) -> None:
    like = np.zeros((), dtype=dtype)
    lattices = [(peps(2, 3, 3, 2, like=like, generator=0), peps_graph(2, 3))]
    if dtype == "float64" or method is NetworkGN:
        lattices.append((mera(8, 2, 2, like=like, generator=0), mera_graph(8)))
    for x, graph in lattices:
        options = {"tol": 1e-4} if method is NetworkALS else {}
        fit = method("general", {"joined": graph}, **options, **OPEN).fit(x.dense(), x.ranks, generator=0)
        assert isinstance(fit.value, General) and fit.value.joined == graph
        assert fit.error < 1e-6 and fit.value.ranks == x.ranks


@pytest.mark.parametrize("method", METHODS)
def test_single_precision_reaches_its_accuracy(method: Any) -> None:
    x = torch.tensor(CP.random((5, 6, 7), 2, like=np.zeros(()), generator=0).dense(), dtype=torch.float32)
    fit = method("cp", tol=1e-4, **OPEN).fit(x, 2, generator=0)
    assert fit.error < 1e-5 and fit.value.dtype == torch.float32
    error = np.linalg.norm(to_numpy(x) - to_numpy(fit.value.dense())) / np.linalg.norm(to_numpy(x))
    assert error < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ranks", [(2, None, 3), (None, None, 2)])
def test_whole_modes_store_no_factor(method: Any, ranks: tuple[int | None, ...]) -> None:
    x = Tucker.random((5, 4, 6), ranks, like=np.zeros(()), generator=0).dense()
    fit = method("tucker", start="random").fit(x, ranks, generator=0)
    assert fit.error < 1e-7
    assert [m is None for m in fit.value.matrices] == [r is None for r in ranks]


@pytest.mark.parametrize("method", METHODS)
def test_a_tree_of_your_own_is_an_option_of_the_format(method: Any) -> None:
    tree = ((0, 2), (1, 3))
    like = np.zeros(())
    x = HierarchicalTucker.random((4, 3, 4, 3), 2, like=like, generator=0, tree=tree).dense()
    for start in ("svd", "random"):
        fit = method("ht", {"tree": tree}, start=start, restarts=3).fit(x, 2, generator=0)
        assert fit.error < 1e-7 and fit.value.static == {"tree": tree}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(5,), (5, 4), (3, 4, 2, 3, 2)], ids=str)
def test_trains_of_every_order_are_fitted(method: Any, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    fit = method("tt").fit(x, 2, generator=0)
    assert fit.error <= TTSVD().fit(x, 2).error + 1e-9 and fit.error < 1


def test_it_is_no_worse_than_hooi_at_tucker_and_than_tt_svd_at_trains() -> None:
    x = np.random.default_rng(0).standard_normal((6, 7, 8))
    tucker = NetworkALS("tucker", tol=1e-10, max_steps=1000).fit(x, 3, generator=0).error
    assert tucker == pytest.approx(HOOI(tol=1e-12, max_steps=500).fit(x, 3).error, rel=1e-4)
    assert NetworkALS("tt").fit(x, 3, generator=0).error < TTSVD().fit(x, 3).error


@pytest.mark.parametrize("kind", ["tt", "tr", "cp", "tucker", "block_term", "sliced_lowrank"])
def test_the_error_never_grows_over_sweeps_and_the_trace_is_true(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 6))
    network = formats[kind].skeleton(x.shape, 2)
    run = Alternation(x, network, drawn(x, network, 1))
    run.advance(0.0, 25)
    assert all(b <= a + 1e-12 for a, b in zip(run.trace, run.trace[1:], strict=False))
    value = formats[kind].from_network(network, run.factors)
    assert run.trace[-1] == pytest.approx(np.linalg.norm(x - value.dense()) / np.linalg.norm(x))


def test_damping_does_not_move_the_solution() -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 6))
    free, damped = (
        NetworkALS("tr", tol=1e-12, max_steps=3000, damping=d).fit(x, 2, generator=0).error for d in (0, 0.1)
    )
    assert damped == pytest.approx(free, rel=1e-3)


def test_restarts_keep_the_best() -> None:
    x = formats["tr"].random((4, 5, 6), 2, like=np.zeros(()), generator=3).dense()
    one, many = (
        NetworkALS("tr", start="random", restarts=n, finalists=n).fit(x, 2, generator=0).error for n in (1, 5)
    )
    assert many <= one


def test_stopping_early_warns() -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 6))
    with pytest.warns(ConvergenceWarning, match="NetworkALS stopped after 2 steps"):
        NetworkALS("tr", start="random", trial_steps=0, max_steps=2)(x, 2, generator=0)


@pytest.mark.parametrize("method", METHODS)
def test_kinds_that_do_not_exist_are_refused_with_the_nearest_name(method: Any) -> None:
    with pytest.raises(UnknownNameError, match="unknown format 'tucer'; did you mean 'tucker'"):
        method("tucer")


@pytest.mark.parametrize("method", METHODS)
def test_a_general_network_without_its_graph_is_refused(method: Any) -> None:
    with pytest.raises(OptionError, match="a general network came without its graph"):
        method("general")


@pytest.mark.parametrize("method", METHODS)
def test_ranks_must_be_given_and_fit(method: Any) -> None:
    x = np.ones((3, 4, 5))
    with pytest.raises(RankError, match="came without ranks"):
        method("tt")(x)
    with pytest.raises(RankError, match="ranks must be at least 1"):
        method("tt")(x, 0)
    with pytest.raises(ShapeError):
        method("kronecker")(x, 2)


@pytest.mark.parametrize(
    "options",
    [
        (NetworkALS, {"tol": -1.0}),
        (NetworkALS, {"damping": -1.0}),
        (NetworkALS, {"max_steps": 0}),
        (NetworkALS, {"start": "zeros"}),
        (NetworkGN, {"cg_steps": 0}),
        (NetworkGN, {"tol": -1.0}),
        (NetworkGN, {"restarts": 0}),
        (NetworkGradient, {"memory": 0}),
        (NetworkGradient, {"max_steps": 0}),
        (NetworkGradient, {"trial_steps": -1}),
        (NetworkGradient, {"finalists": 0}),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: tuple[Any, dict[str, Any]]) -> None:
    method, values = options
    with pytest.raises(OptionError):
        method(**values)


def test_options_go_through_json() -> None:
    ring = (("m0", "A", "B"), ("m1", "B", "C"), ("m2", "C", "A"))
    method = NetworkALS("general", {"joined": [list(axes) for axes in ring]}, tol=1e-3)
    again = from_dict(methods, to_dict(methods, method))
    assert again == method
    x = TensorTrain.random((4, 3, 5), 2, like=np.zeros(()), generator=0).dense()
    assert again.fit(x, 2, generator=0).value.joined == ring
