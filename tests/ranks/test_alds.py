"""The worst relative error is the least that the budget allows."""

import itertools
from functools import partial

import numpy as np
import pytest

from tenfold.formats import LowRank
from tenfold.ranks import ALDS, Budget, Candidate
from tenfold.ranks.base import total


def sites() -> list[Candidate]:
    rng = np.random.default_rng(0)
    rows = [((9, 8), 1.0), ((8, 8), 10.0), ((6, 12), 0.1)]
    arrays = [scale * rng.normal(size=shape) * 0.8 ** np.arange(shape[1]) for shape, scale in rows]
    return [Candidate(str(k), LowRank, x.shape, (), partial(np.asarray, x)) for k, x in enumerate(arrays)]


def worst(candidates: list[Candidate], ranks: dict) -> float:
    errors = [0.0]
    for c in candidates:
        if ranks[c.name] is not None:
            s = np.append(c.spectra("R")[0], 0.0)
            errors.append(float(s[ranks[c.name]["R"]] / s[0]))
    return max(errors)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.6, 0.8, 0.9])
def test_the_worst_relative_error_is_that_of_brute_force(keep: float) -> None:
    group = sites()
    limit = int(keep * sum(c.dense for c in group))
    options = [[None, *({"R": r} for r in range(1, c.full.ranks["R"] + 1))] for c in group]
    plans = (dict(zip("012", choice, strict=True)) for choice in itertools.product(*options))
    best = min(worst(group, plan) for plan in plans if total(group, plan) <= limit)
    found = ALDS()(group, Budget(params=keep, floor=0))
    assert total(group, found) <= limit
    assert worst(group, found) == pytest.approx(best)


def test_scales_of_weights_do_not_matter() -> None:
    group = sites()
    large = [
        Candidate(c.name, LowRank, c.shape, (), lambda c=c: 1e3 * c.tensor()) for c in group[:1]
    ] + group[1:]
    assert ALDS()(group, Budget(params=0.5)) == ALDS()(large, Budget(params=0.5))
