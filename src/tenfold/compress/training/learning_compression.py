"""The learning-compression algorithm: ranks are learned with the weights, not given."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import nn

from tenfold.compress.opening import open_
from tenfold.compress.training.admm import run
from tenfold.compress.training.alternate import Choose, Induced, Learn, Round, Schedule
from tenfold.core.atomic import StrPath


def learning_compression_(
    model: nn.Module,
    choose: Choose,
    learn: Learn,
    *,
    mu: float = 0.1,
    growth: float = 1.2,
    rounds: int = 20,
    tol: float = 1e-2,
    seed: int = 0,
    generators: Sequence[torch.Generator] = (),
    resume: StrPath | None = None,
    progress: Callable[[Round], object] | None = None,
) -> Induced:
    """Train a dense model in place, while its weights come to ranks that are chosen anew in every round.

    The compression step chooses ranks for the weights as they are, and finds the nearest weights of these
    ranks; the learning step draws the weights there, with a strength that grows. What comes back is the plan
    of the last round, to which the weights are fit: `apply_(model, plan)` loses little. `admm_` says more on
    the steps; it is the same with a plan that stays.

    Args:
        choose: called as `choose(model, mu)` with the model holding W + U; gives the plan. `priced(model,
            alpha, example=x)` weighs the loss against the cost, as the source does; for a fixed budget take
            `lambda model, mu: plan(model, Budget(params=0.2), example=x, rule=Lagrangian())`.
        learn: called as `learn(model, penalty, round)`, to train the model for an epoch or a few with the
            penalty added to its loss: `tune(model, train, epochs=1, penalty=penalty)`, without validation
            data.
        mu: strength of the pull in the first round, relative to the loss.
        growth: mu is multiplied by it after every round. While mu is small, cost counts for more than the
            weights, and ranks are low; they grow with mu where the weights do not give way.
        tol: stop when the gap ‖W - Z‖ / ‖W‖ is no larger.
        seed, generators, resume, progress: as in `admm_`. With `resume`, give the same `choose`, too.

    Raises:
        OptionError, SelectionError, LayoutError, DivergedError, CheckpointError: as `admm_`, and `choose`.

    Source: Idelbayev & Carreira-Perpiñán, CVPR 2020, 'Low-rank compression of neural nets: learning the rank
    of each layer'.

    >>> from tenfold.compress.recovery.tune import tune
    >>> from tenfold.compress.training.price import priced
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 8)
    >>> data = [(x, x @ torch.randn(8, 2) @ torch.randn(2, 8))]
    >>> model = nn.Sequential(nn.Linear(8, 8, bias=False))
    >>> def learn(model, penalty, number):
    ...     return tune(model, data, epochs=30, lr=0.1, loss=nn.functional.mse_loss, penalty=penalty)
    >>> choose = priced(model, 1.0, example=x, preset="weight_svd")
    >>> learned = learning_compression_(model, choose, learn, mu=0.1, growth=1.3, rounds=12)
    >>> learned.plan.layers["0"]["weight"].ranks, learned.trace[-1].gap < 0.01
    ({'R': 2}, True)
    """
    schedule = Schedule(mu, growth, rounds, tol)
    open_(model)
    asked = {"algorithm": "learning-compression", "schedule": asdict(schedule), "seed": seed}
    return run(model, learn, choose, schedule, asked, seed, generators, resume, progress)
