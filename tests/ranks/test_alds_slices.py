"""ALDS over foldings and slices: its errors, its optimum, and what the other rules see of slices."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch

from tenfold.core.layout import Layout
from tenfold.decompose import SlicedSVD
from tenfold.formats import Format, LowRank, SlicedLowRank
from tenfold.ranks import ALDS, EVBMF, Allotment, Budget, Candidate, Energy, Lagrangian, winners
from tenfold.ranks.base import by_site, total
from tenfold.ranks.predicted import predicted

FOLDINGS: list[tuple[type[Format], str]] = [
    (LowRank, "o i h w -> o (i h w)"),
    (LowRank, "o i h w -> (o h) (i w)"),
    (LowRank, "o i h w -> (o w) (i h)"),
    (LowRank, "o i h w -> (o h w) i"),
    (SlicedLowRank, "o (i0=2 i1) h w -> o i0 (i1 h w)"),
    (SlicedLowRank, "o (i0=4 i1) h w -> o i0 (i1 h w)"),
    (SlicedLowRank, "o (i0=2 i1) h w -> (o h) i0 (i1 w)"),
    (SlicedLowRank, "o (i0=4 i1) h w -> (o w) i0 (i1 h)"),
    (SlicedLowRank, "o (i0=2 i1) h w -> (o h w) i0 i1"),
]


def folded(site: str, weight: np.ndarray) -> list[Candidate]:
    found = []
    for form, text in FOLDINGS:
        layout = Layout.parse(text).bind(weight.shape)
        tensor = partial(layout.to_modes, weight)
        found.append(Candidate(f"{site}: {text}", form, layout.mode_shape, (), tensor, site=site))
    return found


def weights(seed: int, count: int = 3) -> list[np.ndarray]:
    """Kernels with structure of several kinds: low rank, slices of low rank, smooth taps, and noise."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        o, i = int(rng.integers(5, 9)), 4 * int(rng.integers(1, 3))
        x = 0.3 * rng.standard_normal((o, i, 3, 3))
        if (seed + n) % 3 == 0:
            x += np.einsum("os,shw,i->oihw", *(rng.standard_normal(s) for s in ((o, 2), (2, 3, 3), i)))
        if (seed + n) % 3 == 1:
            parts = [
                np.multiply.outer(*(rng.standard_normal(s) for s in (o, (i // 4, 3, 3)))) for _ in range(4)
            ]
            x += np.concatenate(parts, axis=1)
        found.append(x)
    return found


def problem(seed: int) -> list[Candidate]:
    return [c for n, w in enumerate(weights(seed)) for c in folded(str(n), w)]


def error(candidate: Candidate, ranks: Allotment, upper: bool = False) -> float:
    """max_s σ_{R+1}(W_s) / σ_1(W), from the singular values themselves; sqrt(k) times that if `upper`."""
    if ranks is None:
        return 0.0
    x = candidate.tensor()
    stack = x[:, None] if x.ndim == 2 else x
    s = np.linalg.svd(stack.transpose(1, 0, 2), compute_uv=False)
    after = s[:, ranks["R"]] if ranks["R"] < s.shape[1] else np.zeros(1)
    whole = np.linalg.norm(x.reshape(x.shape[0], -1), ord=2)
    return float(after.max() / whole) * (len(s) ** 0.5 if upper else 1.0)


def worst(candidates: Sequence[Candidate], found: dict[str, Allotment], upper: bool = False) -> float:
    return max(error(c, ranks, upper) for c, ranks in winners(candidates, found).values())


Option = tuple[int, float, str, Allotment]
"""Cost, error, candidate, ranks."""


def options(candidate: Candidate, upper: bool = False) -> list[Option]:
    """Every rank of a candidate that costs less than dense."""
    every = [{"R": r} for r in range(1, candidate.full.ranks["R"] + 1)]
    costs = [(candidate.cost(r), r) for r in every]
    return [(n, error(candidate, r, upper), candidate.name, r) for n, r in costs if n < candidate.dense]


def undominated(found: list[Option]) -> list[Option]:
    best, kept = np.inf, []
    for option in sorted(found, key=lambda x: x[:2]):
        if option[1] < best:
            kept.append(option)
            best = option[1]
    return kept


def brute_force(candidates: Sequence[Candidate], limit: int, upper: bool = False) -> float:
    """The least worst error over all candidates and ranks of all sites."""
    sites = []
    for group in by_site(candidates).values():
        dense = (group[0].dense, 0.0, group[0].name, None)
        sites.append(undominated([dense, *(x for c in group for x in options(c, upper))]))
    plans = (plan for plan in itertools.product(*sites) if sum(x[0] for x in plan) <= limit)
    return min(max(x[1] for x in plan) for plan in plans)


def alternated(candidates: Sequence[Candidate], limit: int, seeds: int = 15, rounds: int = 4) -> float:
    """The source's algorithm 1: thresholds for given foldings, then foldings for given costs, in turn."""
    rng = np.random.default_rng(0)
    groups = list(by_site(candidates).values())
    curves = {c.name: options(c) for c in candidates}
    best = np.inf
    for seed in range(seeds):
        chosen = [g[seed] if seed < len(FOLDINGS) else g[rng.integers(len(g))] for g in groups]
        for _ in range(rounds):
            at = least_threshold([(c.dense, curves[c.name]) for c in chosen], limit)
            if at is None:
                break
            best = min(best, at)
            spent = [cheapest(c.dense, curves[c.name], at)[0] for c in chosen]
            chosen = [best_within(g, curves, n) for g, n in zip(groups, spent, strict=True)]
    return best


def cheapest(dense: int, curve: list[Option], threshold: float) -> tuple[int, float]:
    return min([(dense, 0.0), *(x[:2] for x in curve if x[1] <= threshold)])


def least_threshold(sites: list[tuple[int, list[Option]]], limit: int) -> float | None:
    for threshold in sorted({0.0, *(x[1] for _, curve in sites for x in curve)}):
        if sum(cheapest(dense, curve, threshold)[0] for dense, curve in sites) <= limit:
            return threshold
    return None


def best_within(group: list[Candidate], curves: dict[str, list[Option]], amount: int) -> Candidate:
    def least(candidate: Candidate) -> float:
        return min((x[1] for x in curves[candidate.name] if x[0] <= amount), default=np.inf)

    return min(group, key=least)


KEEPS = (0.15, 0.25, 0.4, 0.6)


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bisection_finds_the_optimum_over_foldings_slices_and_ranks(seed: int, upper: bool) -> None:
    group = problem(seed)
    dense = sum(len(w.ravel()) for w in weights(seed))
    for keep in KEEPS:
        found = ALDS(upper)(group, Budget(params=keep, floor=0))
        assert total(group, found) <= keep * dense
        best = brute_force(group, int(keep * dense), upper)
        assert worst(group, found, upper) == pytest.approx(best)


def test_the_true_error_is_between_the_two_that_alds_knows() -> None:
    for c in problem(0):
        if c.format is SlicedLowRank:
            x, ranks = c.tensor(), {"R": 1}
            rest = x - SlicedSVD()(x, ranks).value.dense()
            flat, whole = (y.reshape(len(y), -1) for y in (rest, x))
            true = np.linalg.norm(flat, ord=2) / np.linalg.norm(whole, ord=2)
            assert error(c, ranks) * (1 - 1e-9) <= true <= error(c, ranks, upper=True) * (1 + 1e-9)


def test_the_alternation_of_the_source_is_never_better_and_sometimes_worse() -> None:
    behind = 0
    for seed in range(6):
        group = problem(seed)
        dense = sum(len(w.ravel()) for w in weights(seed))
        for keep in KEEPS:
            ours = worst(group, ALDS()(group, Budget(params=keep, floor=0)))
            theirs = alternated(group, int(keep * dense))
            assert ours <= theirs * (1 + 1e-9)
            behind += theirs > ours * (1 + 1e-6)
    assert behind > 0


def test_slices_are_chosen_where_the_weight_has_them() -> None:
    rng = np.random.default_rng(0)
    parts = [np.multiply.outer(rng.standard_normal(16), rng.standard_normal((4, 3, 3))) for _ in range(4)]
    group = folded("w", np.concatenate(parts, axis=1))
    for rule in (ALDS(), Lagrangian()):
        chosen, ranks = winners(group, rule(group, Budget(params=0.12, floor=0)))["w"]
        assert (chosen.name, ranks) == ("w: o (i0=4 i1) h w -> o i0 (i1 h w)", {"R": 1})


# What is known of slices -----------------------------------------------------------------------------------


def in_slices(x: np.ndarray, **options: object) -> Candidate:
    return Candidate("w", SlicedLowRank, x.shape, (), lambda: x, **options)  # type: ignore[arg-type]


X = np.random.default_rng(3).standard_normal((9, 4, 6)) * 0.7 ** np.arange(6)


def test_every_slice_is_compared_with_the_whole_matrix() -> None:
    operators = in_slices(X).operators("R")
    assert len(operators) == 4
    for s, (values, whole) in enumerate(operators):
        np.testing.assert_allclose(values, np.linalg.svd(X[:, s], compute_uv=False))
        assert whole == pytest.approx(np.linalg.norm(X.reshape(9, 24), ord=2))
    (wide,) = Candidate("w", LowRank, (9, 24), (), lambda: X.reshape(9, 24)).operators("R")
    assert wide[1] == pytest.approx(operators[0][1])


def test_the_predicted_loss_of_slices_is_what_the_fit_loses() -> None:
    points = predicted(in_slices(X, scale=0.5), Budget(params=1.0))
    assert len(points) > 2
    for cost, loss, _, ranks in points:
        value = SlicedSVD()(X, ranks).value
        assert cost == value.numel
        assert loss == pytest.approx(0.5 * np.linalg.norm(X - value.dense()) ** 2)
    shares = [p[1] for p in predicted(in_slices(X), Budget(params=1.0), relative=True)]
    np.testing.assert_allclose(shares, [2 * p[1] / np.linalg.norm(X) ** 2 for p in points])


def test_the_energy_of_slices_is_that_of_all() -> None:
    kept = np.cumsum(sum(np.linalg.svd(X[:, s], compute_uv=False) ** 2 for s in range(4))) / np.sum(X**2)
    for keep in (0.5, 0.7, 0.8):
        assert Energy(keep)([in_slices(X)], None)["w"] == {"R": int(np.searchsorted(kept, keep) + 1)}


def test_the_rank_planted_in_every_slice_is_found() -> None:
    rng = np.random.default_rng(4)
    signal = rng.standard_normal((4, 40, 3)) @ rng.standard_normal((4, 3, 50))
    x = (signal + 0.1 * rng.standard_normal((4, 40, 50))).transpose(1, 0, 2)
    assert EVBMF(weakening=1.0)([in_slices(x)], None) == {"w": {"R": 3}}


def test_spectra_of_slices_are_float64_of_any_library() -> None:
    ours = in_slices(X).spectra("R")[0]
    theirs = Candidate("w", SlicedLowRank, X.shape, (), lambda: torch.tensor(X, requires_grad=True))
    assert theirs.spectra("R")[0].dtype == np.float64
    np.testing.assert_allclose(theirs.spectra("R")[0], ours)
    assert theirs.operators("R")[0][1] == pytest.approx(in_slices(X).operators("R")[0][1])


@pytest.mark.parametrize("rule", [ALDS(), Lagrangian()], ids=str)
def test_a_weight_of_zeros_in_slices_has_ranks_of_one(rule: ALDS | Lagrangian) -> None:
    assert rule([in_slices(0 * X)], Budget(params=0.9, floor=0)) == {"w": {"R": 1}}
