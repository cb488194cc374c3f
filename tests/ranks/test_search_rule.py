"""A search by trying: never worse than where it starts, within the budget, and the same after a kill."""

import builtins
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.core.errors import CheckpointError, DataError, MissingExtraError, OptionError
from tenfold.core.serde import to_dict
from tenfold.formats import CP, LowRank, Tucker
from tenfold.ranks import Allotment, Budget, Candidate, Lagrangian, Uniform, rules
from tenfold.ranks.base import dense_costs, total
from tenfold.ranks.curve import Curve
from tenfold.ranks.search import Search
from tenfold.ranks.shares import dealt

optuna = pytest.importorskip("optuna")


def sites(count: int = 6) -> list[Candidate]:
    """Matrices whose spectra say little of what they are worth, and one site with two candidates."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(24, 20)) * 0.85 ** np.arange(20.0) for _ in range(count)]
    kernel = rng.normal(size=(12, 10, 9))
    return [
        *(Candidate(f"w{k}", LowRank, (24, 20), (), partial(np.asarray, x)) for k, x in enumerate(arrays)),
        Candidate("cp", CP, kernel.shape, (), lambda: kernel, site="conv"),
        Candidate("tucker", Tucker, kernel.shape, (2,), lambda: kernel, site="conv"),
    ]


WORTH = {f"w{k}": 4.0**k for k in range(6)} | {"cp": 1.0, "tucker": 1.0}


def loss(ranks: Mapping[str, Allotment]) -> float:
    """What is left of each site's energy, the last matrix weighing a thousand times the first."""
    lost = 0.0
    for c in sites():
        if (found := ranks[c.name]) is not None:
            lost += WORTH[c.name] * math.exp(-3 * c.cost(found) / c.dense)
    return lost


class Counted:
    """A loss that notes what it was asked, and may fail at some call."""

    def __init__(self, function: Callable[[Any], float] = loss, killed_at: int | None = None) -> None:
        self.function, self.killed_at, self.asked = function, killed_at, []

    def __call__(self, ranks: Mapping[str, Allotment]) -> float:
        if len(self.asked) == self.killed_at:
            raise KeyboardInterrupt
        self.asked.append(dict(ranks))
        return self.function(ranks)


BUDGET = Budget(params=0.4)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_result_is_better_than_its_starts_where_the_prediction_misleads(sampler: Any) -> None:
    found = Search(loss, trials=40, sampler=sampler)(sites(), BUDGET)
    starts = [loss(rule(sites(), BUDGET)) for rule in (Uniform(), Lagrangian())]
    assert loss(found) < 0.97 * min(starts)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_result_is_never_worse_than_its_starts_even_with_two_trials(sign: int) -> None:
    starts = [rule(sites(), BUDGET) for rule in (Uniform(), Lagrangian())]
    found = Search(lambda ranks: sign * loss(ranks), trials=2)(sites(), BUDGET)
    assert found == min(starts, key=lambda ranks: sign * loss(ranks))


@pytest.mark.parametrize("keep", [0.2, 0.4, 0.7])
@pytest.mark.parametrize("floor", [0.0, None])
def test_every_trial_is_within_the_budget_and_near_it(keep: float, floor: float | None) -> None:
    asked = Counted()
    budget = Budget(params=keep, floor=floor)
    Search(asked, trials=25, spread=2.0)(sites(), budget)
    limit = keep * sum(dense_costs(sites(), "params"))
    costs = [total(sites(), ranks) for ranks in asked.asked]
    assert all(0.95 * limit < cost <= limit for cost in costs)
    assert len(asked.asked) > 12
    assert sum(ranks["cp"] is None or ranks["tucker"] is None for ranks in asked.asked) == len(asked.asked)


def test_the_same_seed_gives_the_same_trials_and_another_seed_others() -> None:
    runs = [Counted(), Counted(), Counted()]
    found = [Search(run, trials=15, seed=s)(sites(), BUDGET) for run, s in zip(runs, (3, 3, 4), strict=True)]
    assert runs[0].asked == runs[1].asked != runs[2].asked
    assert found[0] == found[1]


def test_ranks_that_come_again_are_not_measured_again() -> None:
    one = [c for c in sites() if c.name == "w0"]
    asked = Counted(lambda ranks: 1.0)
    Search(asked, trials=30)(one, BUDGET)
    keys = [json.dumps(ranks) for ranks in asked.asked]
    assert len(set(keys)) == len(keys) < 5


@pytest.mark.parametrize("killed_at", [0, 1, 2, 9])
def test_a_killed_search_goes_on_as_if_nothing_had_been(killed_at: int, tmp_path: Path) -> None:
    whole = Counted()
    expected = Search(whole, trials=15)(sites(), BUDGET)
    record = tmp_path / "search.json"
    first, second = Counted(killed_at=killed_at), Counted()
    with pytest.raises(KeyboardInterrupt):
        Search(first, trials=15, record=record)(sites(), BUDGET)
    assert Search(second, trials=15, record=record)(sites(), BUDGET) == expected
    assert first.asked + second.asked == whole.asked
    third = Counted()
    assert Search(third, trials=15, record=record)(sites(), BUDGET) == expected
    assert third.asked == []


def test_a_finished_search_can_be_given_more_trials(tmp_path: Path) -> None:
    record, whole, more = tmp_path / "search.json", Counted(), Counted()
    expected = Search(whole, trials=20)(sites(), BUDGET)
    Search(loss, trials=12, record=record)(sites(), BUDGET)
    assert Search(more, trials=20, record=record)(sites(), BUDGET) == expected
    assert more.asked == whole.asked[-len(more.asked) :]


def test_failed_trials_are_passed_over_and_recorded(tmp_path: Path) -> None:
    record = tmp_path / "search.json"
    best = min(loss(rule(sites(), BUDGET)) for rule in (Uniform(), Lagrangian()))
    strict = Counted(lambda ranks: loss(ranks) if loss(ranks) <= best else math.nan)
    rule = Search(strict, trials=12, record=record)
    found = rule(sites(), BUDGET)
    assert loss(found) <= best
    losses = [trial["loss"] for trial in json.loads(record.read_text())["trials"]]
    assert None in losses
    assert Search(loss, trials=12, record=record)(sites(), BUDGET) == found


def test_a_search_in_which_all_trials_fail_says_so() -> None:
    with pytest.raises(DataError, match="none of 2 trials gave a finite loss"):
        Search(lambda ranks: math.inf, trials=5)(sites(), BUDGET)
    with pytest.raises(DataError, match="evaluate gave 'good'"):
        Search(lambda ranks: "good", trials=5)(sites(), BUDGET)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    "change",
    [{"budget": Budget(params=0.5)}, {"seed": 1}, {"sampler": "random"}, {"spread": 2.0}, {"count": 5}],
)
def test_the_record_of_another_search_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    record = tmp_path / "search.json"
    Search(loss, trials=3, record=record)(sites(), BUDGET)
    before = record.read_text()
    options = {k: v for k, v in change.items() if k in ("seed", "sampler", "spread")}
    with pytest.raises(CheckpointError, match="record of another search"):
        Search(lambda ranks: 0.0, trials=3, record=record, **options)(
            sites(change.get("count", 6)), change.get("budget", BUDGET)
        )
    assert record.read_text() == before


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"format": "tenfold-search-1", "trials": [{}]}'])
def test_a_file_that_is_no_record_is_refused_and_kept(text: str, tmp_path: Path) -> None:
    record = tmp_path / "notes.json"
    record.write_text(text)
    with pytest.raises(CheckpointError, match="is no record of a search"):
        Search(loss, trials=3, record=record)(sites(), BUDGET)
    assert record.read_text() == text


def test_a_record_with_shares_of_other_sites_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "search.json"
    Search(loss, trials=4, record=record)(sites(), BUDGET)
    data = json.loads(record.read_text())
    data["trials"][3]["shares"]["w0"] = 99.0
    record.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"trial 3 of the record"):
        Search(loss, trials=4, record=record)(sites(), BUDGET)


@pytest.mark.parametrize(
    "options", [{"trials": 1}, {"seed": -1}, {"sampler": "grid"}, {"spread": 0.0}, {"spread": "wide"}]
)
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="The search rule needs"):
        Search(loss, **options)
    with pytest.raises(OptionError, match="needs evaluate"):
        Search()


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"needs the package 'optuna'") as caught:
        Search(loss)(sites(), BUDGET)
    assert "tenfold[search]" in caught.value.remedy


def test_the_search_is_silent_and_leaves_optuna_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    Search(loss, trials=4)(sites(), BUDGET)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr() == ("", "")


def test_what_a_plan_notes_of_a_search_is_json_without_the_function(tmp_path: Path) -> None:
    noted = to_dict(rules, Search(loss, trials=7, record=tmp_path / "a.json"))
    assert json.loads(json.dumps(noted)) == {
        "name": "search",
        "trials": 7,
        "record": str(tmp_path / "a.json"),
    }


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_dealt_within_the_limit_in_proportion_and_nothing_that_fits_is_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves = {}
    for name in "abcde":
        costs = np.cumsum(rng.integers(1, 9, size=30))
        points = [(int(c), 40.0 - k, name, {"R": k}) for k, c in enumerate(costs)]
        curves[name] = Curve.of(points, name, int(costs[-1]) + 20)
    wishes = dict(zip("abcde", rng.uniform(1, 4, size=5), strict=True))
    least = sum(int(c.costs[0]) for c in curves.values())
    most = sum(int(c.costs[-1]) for c in curves.values())
    for limit in np.linspace(least, most + 10, 9).astype(int):
        found = dealt(curves, int(limit), wishes)
        spent = {s: int(curves[s].costs[k]) for s, k in found.items()}
        spare = limit - sum(spent.values())
        assert spare >= 0
        for s, k in found.items():
            assert k + 1 == len(curves[s].costs) or curves[s].costs[k + 1] - curves[s].costs[k] > spare
        inner = [s for s, k in found.items() if 0 < k < len(curves[s].costs) - 2]
        ratios = [spent[s] / wishes[s] for s in inner]
        assert not ratios or max(ratios) - min(ratios) <= 2 * 9 / min(wishes.values())
