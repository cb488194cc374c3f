"""The analytic rank finds planted ranks, and gives way where it cannot see any."""

import numpy as np
import pytest

from tenfold.core.errors import OptionError
from tenfold.formats import LowRank
from tenfold.ranks import EVBMF, Budget, Candidate, evbmf_rank


def planted(rank: int, rows: int, columns: int, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)) / max(rank, 1) ** 0.5
    return signal + noise * rng.normal(size=(rows, columns))


def rank_of(x: np.ndarray) -> int:
    return evbmf_rank(np.linalg.svd(x, compute_uv=False), max(x.shape))


@pytest.mark.parametrize(
    ("rank", "rows", "columns"), [(10, 64, 576), (20, 128, 128), (0, 96, 200), (7, 512, 64)]
)
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-6])
def test_planted_ranks_are_found_at_every_scale(rank: int, rows: int, columns: int, scale: float) -> None:
    assert rank_of(scale * planted(rank, rows, columns)) == rank


def test_exact_ranks_and_zeros_are_found_too() -> None:
    assert rank_of(planted(5, 30, 40, noise=0.0)) == 5
    assert rank_of(np.zeros((4, 5))) == 0
    assert rank_of(np.ones((1, 5))) in (0, 1)


def site(x: np.ndarray) -> Candidate:
    return Candidate("w", LowRank, x.shape, (), lambda: x)


def test_ranks_are_weakened_towards_the_full_one() -> None:
    c = site(planted(10, 100, 300))
    assert EVBMF(1.0)([c], None) == {"w": {"R": 10}}
    assert EVBMF(0.8)([c], None) == {"w": {"R": 28}}  # 100 - 0.8 * 90
    assert EVBMF(0.0)([c], None) == {"w": None}


def test_pure_noise_gets_the_rank_of_its_energy() -> None:
    x = planted(0, 60, 80)
    energy = np.cumsum(np.linalg.svd(x, compute_uv=False) ** 2)
    expected = int(np.searchsorted(energy / energy[-1], 0.3) + 1)
    assert EVBMF(1.0, keep=0.3)([site(x)], None) == {"w": {"R": expected}}


@pytest.mark.parametrize("keep", [0.02, 0.05, 0.2, 0.5])
def test_a_budget_sets_the_weakening(keep: float) -> None:
    c = site(planted(10, 100, 300))
    ranks = EVBMF()([c], Budget(params=keep))
    assert c.cost(ranks["w"]) <= keep * 30000 < c.cost({"R": ranks["w"]["R"] + 1})


@pytest.mark.parametrize("options", [{"weakening": 1.2}, {"weakening": -0.1}, {"keep": 0.0}])
def test_options_outside_their_range_are_refused(options: dict) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        EVBMF(**options)
