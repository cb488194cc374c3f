"""What to try next, by a sampler of Optuna."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

from tenfold.core.errors import MissingExtraError

Sampler = Literal["tpe", "random"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
STARTUP = 5
"""Trials before the sampler "tpe" trusts what it has seen."""


class Proposals:
    """A study of Optuna over one number in [-spread, spread] for every site, told of all trials in order.

    What a proposal draws depends on the seed, its number and the trials before, not on the run: a study that
    is told of earlier trials proposes what theirs would have proposed next. Optuna's messages are silenced
    below warnings while it works.

    Raises:
        MissingExtraError: without Optuna.

    >>> proposals = Proposals(["head", "body"], "tpe", spread=1.0, seed=0)
    >>> proposals.tell({"head": 0.0, "body": 0.0}, 1.0)
    >>> sorted(proposals.ask())
    ['body', 'head']
    """

    def __init__(self, sites: Sequence[str], sampler: Sampler, spread: float, seed: int) -> None:
        self.optuna = _optuna()
        self.sampler, self.seed, self.count = sampler, seed, 0
        self.ends = {s: self.optuna.distributions.FloatDistribution(-spread, spread) for s in sites}
        self._asked: Any = None
        with self._quiet():
            self.study = self.optuna.create_study(direction="minimize")

    def ask(self) -> dict[str, float]:
        """The next numbers, by site; `tell` comes after."""
        self.study.sampler = self._seeded(self.seed + self.count)
        with self._quiet():
            self._asked = self.study.ask(self.ends)
        return dict(self._asked.params)

    def tell(self, numbers: Mapping[str, float], loss: float | None) -> None:
        """What a trial lost, None if it failed: the one that was asked for, or one from elsewhere."""
        state = self.optuna.trial.TrialState.FAIL if loss is None else self.optuna.trial.TrialState.COMPLETE
        with self._quiet():
            if self._asked is None:
                self.study.add_trial(
                    self.optuna.trial.create_trial(
                        state=state, value=loss, params=dict(numbers), distributions=self.ends
                    )
                )
            else:
                self.study.tell(self._asked, loss, state=state)
        self._asked, self.count = None, self.count + 1

    def _seeded(self, seed: int) -> Any:
        if self.sampler == "random":
            return self.optuna.samplers.RandomSampler(seed=seed)
        return self.optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        before = self.optuna.logging.get_verbosity()
        self.optuna.logging.set_verbosity(max(before, self.optuna.logging.WARNING))
        try:
            yield
        finally:
            self.optuna.logging.set_verbosity(before)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "search", "The search rule") from error
    return optuna
