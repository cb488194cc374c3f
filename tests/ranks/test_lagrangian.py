"""The least predicted loss: against brute force, and against decompositions."""

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from tenfold.decompose import HOOI, TTSVD, TruncatedSVD
from tenfold.formats import CP, Format, LowRank, TensorTrain, Tucker
from tenfold.ranks import ALDS, EVBMF, Budget, Candidate, Energy, Lagrangian, RankRule, Uniform
from tenfold.ranks.base import total
from tenfold.ranks.curve import Curve
from tenfold.ranks.knapsack import least_total, least_worst
from tenfold.ranks.predicted import predicted

NO_FLOOR = Budget(params=0.5, floor=0)


def random_curves(seed: int, count: int = 4) -> dict[str, Curve]:
    rng = np.random.default_rng(seed)
    curves = {}
    for name in map(str, range(count)):
        costs = np.cumsum(rng.integers(1, 12, size=6))
        losses = np.sort(rng.exponential(size=6))[::-1]
        points = [
            (int(c), float(x), name, {"R": k + 1}) for k, (c, x) in enumerate(zip(costs, losses, strict=True))
        ]
        curves[name] = Curve.of(points, name, int(costs[-1]) + int(rng.integers(1, 30)))
    return curves


def spent(curves: dict[str, Curve], at: dict[str, int]) -> int:
    return sum(int(c.costs[at[s]]) for s, c in curves.items())


def lost(curves: dict[str, Curve], at: dict[str, int]) -> float:
    return sum(float(c.losses[at[s]]) for s, c in curves.items())


def brute_force(curves: dict[str, Curve], limit: int, gather=sum) -> float:
    ranges = [range(len(c.costs)) for c in curves.values()]
    best = np.inf
    for points in itertools.product(*ranges):
        if sum(int(c.costs[k]) for c, k in zip(curves.values(), points, strict=True)) <= limit:
            best = min(best, gather(float(c.losses[k]) for c, k in zip(curves.values(), points, strict=True)))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_least_total_is_that_of_brute_force_at_every_vertex(seed: int) -> None:
    curves = random_curves(seed)
    for price in np.geomspace(1e-3, 1, 15):
        prices = {s: c.losses + price * c.costs for s, c in curves.items()}
        vertex = {s: int(np.argmin(p)) for s, p in prices.items()}
        found = least_total(curves, spent(curves, vertex))
        assert lost(curves, found) == pytest.approx(brute_force(curves, spent(curves, vertex)))


@pytest.mark.parametrize("seed", range(3))
def test_the_least_total_is_near_brute_force_and_monotone_at_every_budget(seed: int) -> None:
    curves, totals, ratios = random_curves(seed), [], []
    lowest, most = (sum(int(c.costs[k]) for c in curves.values()) for k in (0, -1))
    for limit in range(lowest, most + 1):
        found = least_total(curves, limit)
        totals.append(spent(curves, found))
        ratios.append((lost(curves, found) + 1e-12) / (brute_force(curves, limit) + 1e-12))
        assert totals[-1] <= limit
    assert totals == sorted(totals)
    assert ratios[0] == ratios[-1] == 1
    assert np.mean(ratios) < 1.1


@pytest.mark.parametrize("seed", range(3))
def test_the_least_worst_is_that_of_brute_force(seed: int) -> None:
    curves = random_curves(seed)
    lowest, most = (sum(int(c.costs[k]) for c in curves.values()) for k in (0, -1))
    for limit in range(lowest, most + 1, 3):
        found = least_worst(curves, limit)
        assert spent(curves, found) <= limit
        assert max(c.losses[found[s]] for s, c in curves.items()) == brute_force(curves, limit, max)


def matrices(count: int = 3) -> list[Candidate]:
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(12, 10)) * 0.7 ** np.arange(10.0) * 3**k for k in range(count)]
    return [Candidate(f"w{k}", LowRank, (12, 10), (), partial(np.asarray, x)) for k, x in enumerate(arrays)]


def test_singular_values_of_equal_matrices_are_taken_in_their_order() -> None:
    """Without jumps to dense, the best ranks are those of the largest singular values of all together."""
    found = Lagrangian()(matrices(), Budget(params=0.4, floor=0))
    assert all(found.values())
    values = np.sort(np.concatenate([c.spectra("R")[0][1:] for c in matrices()]))[::-1]
    count = int(0.4 * 360 // 22) - 3  # every matrix has one rank to begin with
    kept = [int(np.sum(c.spectra("R")[0][1:] >= values[count - 1])) + 1 for c in matrices()]
    assert [found[c.name]["R"] for c in matrices()] == kept


def test_for_one_bond_the_prediction_is_the_error() -> None:
    c = matrices()[1]
    for cost, loss, _, ranks in predicted(c, NO_FLOOR):
        fit = TruncatedSVD()(c.tensor(), ranks)
        assert cost == fit.value.numel
        np.testing.assert_allclose(loss, np.sum((c.tensor() - fit.value.dense()) ** 2))


def test_scale_and_metric_weigh_the_loss() -> None:
    x = matrices()[0].tensor()
    plain = Candidate("w", LowRank, (12, 10), (), lambda: x)
    weighted = Candidate("w", LowRank, (12, 10), (), lambda: x, weighted=lambda: 2 * x, scale=0.5)
    for before, after in zip(predicted(plain, NO_FLOOR), predicted(weighted, NO_FLOOR), strict=True):
        np.testing.assert_allclose(after[1], 2 * before[1])
    relative = predicted(weighted, NO_FLOOR, relative=True)
    assert all(0 < loss <= 0.5 for _, loss, *_ in relative)


@pytest.mark.parametrize(("form", "method"), [(Tucker, HOOI()), (TensorTrain, TTSVD())])
def test_for_trees_the_prediction_bounds_the_error(form: type, method) -> None:
    rng = np.random.default_rng(5)
    x = np.einsum("ar,br,cr,r->abc", *(rng.normal(size=(n, 14)) for n in (12, 10, 8)), 0.7 ** np.arange(14.0))
    points = predicted(Candidate("w", form, x.shape, (), lambda: x), NO_FLOOR)
    assert len(points) >= 16
    for _, loss, _, ranks in points[::5]:
        error = np.sum((x - method(x, ranks).value.dense()) ** 2)
        assert loss / 4 <= error <= loss * (1 + 1e-9)


def test_the_steps_of_several_bonds_come_near_the_best_ranks() -> None:
    rng = np.random.default_rng(6)
    x = np.einsum("ar,br,cr,r->abc", *(rng.normal(size=(n, 9)) for n in (9, 8, 7)), 0.6 ** np.arange(9.0))
    c = Candidate("w", Tucker, x.shape, (), lambda: x)
    left = [np.append(np.cumsum(c.spectra(b)[0][::-1] ** 2)[::-1], 0) for b in c.full.bonds]
    for cost, loss, _, ranks in predicted(c, NO_FLOOR):
        grid = itertools.product(*(range(1, n + 1) for n in c.full.ranks.values()))
        cut = (c.cut(dict(zip(ranks, r, strict=True))) for r in grid)
        sums = (sum(t[k] for t, k in zip(left, r.values(), strict=True)) for r in cut if c.cost(r) <= cost)
        assert loss <= 1.05 * min(sums)


def test_three_bonds_of_one_are_left_together() -> None:
    x = np.random.default_rng(7).normal(size=(6, 6, 6))
    points = predicted(Candidate("w", Tucker, x.shape, (), lambda: x), NO_FLOOR)
    assert points[0][3] == {"R0": 1, "R1": 1, "R2": 1}
    assert points[1][3] == {"R0": 2, "R1": 2, "R2": 2}


def test_the_sum_of_the_losses_is_less_than_that_of_uniform() -> None:
    def loss(ranks: dict) -> float:
        return sum(np.sum(c.spectra("R")[0][ranks[c.name]["R"] :] ** 2) for c in matrices() if ranks[c.name])

    for keep in (0.3, 0.5, 0.7):
        best = Lagrangian()(matrices(), Budget(params=keep, floor=0))
        floored = Lagrangian()(matrices(), Budget(params=keep))
        assert loss(best) <= loss(floored) <= loss(Uniform()(matrices(), Budget(params=keep)))


def test_a_site_of_no_structure_jumps_to_dense_where_the_budget_allows() -> None:
    flat = Candidate("flat", LowRank, (20, 20), (), lambda: np.eye(20))
    steep = Candidate("steep", LowRank, (40, 40), (), lambda: np.diag(0.1 ** np.arange(40.0)))
    found = Lagrangian()([flat, steep], Budget(params=0.5, floor=0.5))
    assert found["flat"] is None
    assert found["steep"] is not None


def test_no_more_is_spent_than_an_exact_low_rank_needs() -> None:
    x = np.diag([3.0, 2.0, 1.0] + [0.0] * 17)
    assert Lagrangian()([Candidate("w", LowRank, x.shape, (), lambda: x)], Budget(params=0.9)) == {
        "w": {"R": 3}
    }
    assert Lagrangian()([Candidate("w", LowRank, x.shape, (), lambda: 0 * x)], Budget(params=0.9)) == {
        "w": {"R": 1}
    }


def test_the_format_is_chosen_by_the_hull_over_all_candidates() -> None:
    rng = np.random.default_rng(8)
    low = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 36))
    multi = np.einsum(
        "apq,ip,jq->aij", rng.normal(size=(30, 2, 2)), rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    )
    for x, expected in ((low.reshape(30, 6, 6), "svd"), (multi, "tucker")):
        group = [
            Candidate("svd", LowRank, (30, 36), (), lambda x=x: x.reshape(30, 36), site="w"),
            Candidate("tucker", Tucker, (30, 6, 6), (0,), lambda x=x: x, site="w"),
        ]
        found = Lagrangian()(group, Budget(params=0.15))
        assert [name for name, ranks in found.items() if ranks] == [expected]


@dataclass(frozen=True, eq=False)
class Ring(Format):
    """A tensor ring, whose bonds no cut separates."""

    cores: tuple

    @staticmethod
    def axes(order: int) -> tuple[tuple[str, ...], ...]:
        return tuple((f"R{k}", f"m{k}", f"R{(k + 1) % order}") for k in range(order))


@pytest.mark.parametrize("rule", [Lagrangian(), Energy(), ALDS(), EVBMF()], ids=str)
def test_bonds_that_close_a_ring_are_served_too(rule: RankRule) -> None:
    x = np.random.default_rng(9).normal(size=(8, 9, 10))
    c = Candidate("w", Ring, x.shape, (), lambda: x)
    found = rule([c], Budget(params=0.5))
    assert 0.2 * c.dense < c.cost(found["w"]) <= 0.5 * c.dense
    losses = [point[1] for point in predicted(c, NO_FLOOR)]
    assert losses == sorted(losses, reverse=True)


def resnet50() -> list[Candidate]:
    """Its 53 convolutions and the classifier, with weights that take no memory."""
    shapes = [(64, 3, 49)]
    for width, blocks, before in ((64, 3, 64), (128, 4, 256), (256, 6, 512), (512, 3, 1024)):
        shapes.append((4 * width, before, 1))
        for k in range(blocks):
            inner = before if k == 0 else 4 * width
            shapes += [(width, inner, 1), (width, width, 9), (4 * width, width, 1)]
    found = []
    for n, shape in enumerate([*shapes, (1000, 2048, 1)]):
        modes = shape[:2] if shape[2] == 1 else shape
        form = LowRank if shape[2] == 1 else (Tucker, CP)[n % 2]
        whole = (2,) if form is Tucker else ()
        found.append(Candidate(str(n), form, modes, whole, partial(np.broadcast_to, 0.0, modes)))
    return found


def falling(tensor: np.ndarray, rows: Sequence[int] = (0,)) -> np.ndarray:
    """Singular values that fall as a power."""
    height = math.prod(tensor.shape[k] for k in rows)
    return np.arange(1.0, min(height, tensor.size // height) + 1) ** -0.5


@pytest.mark.parametrize("rule", [Uniform(), Energy(0.9), EVBMF(), ALDS(), Lagrangian()], ids=str)
def test_resnet50_takes_seconds(rule: RankRule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.ranks.candidate.unfolding_spectrum", falling)
    monkeypatch.setattr("tenfold.ranks.candidate.slice_spectrum", falling)
    sites = resnet50()
    assert len(sites) == 54
    start = time.perf_counter()
    found = rule(sites, Budget(params=0.4))
    assert time.perf_counter() - start < 20
    assert total(sites, found) <= 0.4 * sum(c.dense for c in sites)
