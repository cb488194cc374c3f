"""A budget in two units, from the command line to the layers."""

import pytest
import torch
from torch import nn

import tenfold
from tenfold.cli import asked
from tenfold.core.errors import BudgetError
from tenfold.measure import flops
from tests.cli.conftest import Call


@pytest.mark.parametrize(
    "text", ["params=0.5,params=0.4", "params=0.5,", "params=0.5,watts=3", "params=0.5 flops=1"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="--keep came as"):
        asked.budget(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1e3", 1000), ("5_000", 5000), ("2.0", 2), ("1.0", 1.0), ("1", 1), ("1e-1", 0.1)],
)
def test_whole_numbers_above_one_are_counts(text: str, amount: float) -> None:
    budget = asked.budget(f"params={text}")
    assert budget.params == amount and type(budget.params) is type(amount)


@pytest.mark.usefixtures("work")
def test_a_largest_drop_is_searched_for_in_one_unit(call: Call) -> None:
    asked_for = ("--keep", "params=0.5,flops=0.5", "--max-drop", "1", "--out", "small")
    done = call(
        "compress", "net.py:net", "--weights", "dense.safetensors", "--data", "images.npz", *asked_for
    )
    assert done.code != 0
    assert "--max-drop came with --keep in params and flops" in done.err


@pytest.mark.parametrize("preset", ["channel_svd", "tucker2"])
@pytest.mark.parametrize("rule", [tenfold.Uniform(), tenfold.Lagrangian()], ids=["uniform", "lagrangian"])
def test_a_planned_network_keeps_both(preset: str, rule: tenfold.ranks.RankRule) -> None:
    torch.manual_seed(0)
    model, x = tenfold.zoo.digits_cnn(), torch.zeros(1, 1, 8, 8)
    small = tenfold.compress(
        model, tenfold.Budget(params=0.4, flops=0.25), example=x, preset=preset, rule=rule,
        select={"classifier": None},
    ).model  # fmt: skip
    assert stored(small) <= 0.4 * stored(model)
    assert running(small, x) <= 0.25 * running(model, x)


def stored(model: nn.Module) -> int:
    """Elements of the weights of the convolutions."""
    return sum(p.numel() for p in model.get_submodule("features").parameters() if p.ndim > 1)


def running(model: nn.Module, x: torch.Tensor) -> int:
    """FLOPs of the convolutions."""
    return flops(model, x) - flops(model.get_submodule("classifier"), torch.zeros(1, 128))
