"""Compression in stages: budgets of the dense model, factors that never stack, and runs that go on."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from tenfold import Budget, compress, find_sites
from tenfold.compress.pipeline import Compressed
from tenfold.compress.recovery.trace import Epoch
from tenfold.compress.recovery.tune import tune
from tenfold.compress.stages import Stage, Staged, StageResult, compress_in_stages, geometric
from tenfold.core.errors import BudgetError, CheckpointError, OptionError, TargetError
from tenfold.data import ImageData, digits
from tenfold.measure import accuracy
from tenfold.nn import FactorizedLayer, FactorizedLinear

X = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
DATA = list(zip(X.split(16), (X[:, :4].argmax(1)).split(16), strict=True))
HALVES = geometric(Budget(params=0.25), 2)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    hidden = [nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(16, 4)).eval()


make = partial(compress, example=X, preset="weight_svd")


def tuned(model: nn.Module, stage: Stage) -> None:
    tune(model, DATA, epochs=2, lr=0.01, resume=stage.resume)


def untuned(model: nn.Module, stage: Stage) -> None:
    pass


def equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_every_stage_is_within_its_budget_of_the_dense_model() -> None:
    model = net()
    before, dense = deepcopy(model), sum(site.numel for site in find_sites(model, X))
    staged = compress_in_stages(model, HALVES, make, tuned)
    assert [stage.number for stage in staged.stages] == [1, 2]
    for stage in staged.stages:
        kept = stage.parameters - sum(p.numel() for p in model.parameters()) + dense
        assert 0.3 * stage.budget.amount * dense < kept <= stage.budget.amount * dense
    assert staged.stages[1].parameters < staged.stages[0].parameters
    assert staged.plan == staged.stages[1].plan
    assert equal(model, before)


def test_factors_never_stack_and_every_stage_starts_from_dense_layers() -> None:
    seen: list[list[str]] = []

    def look(model: nn.Module, budget: Budget) -> Compressed:
        seen.append([site.name for site in find_sites(model, X)])
        return make(model, budget)

    staged = compress_in_stages(net(), HALVES, look, tuned)
    assert seen == [["0.weight", "3.weight", "5.weight"]] * 2
    nested = [
        name
        for name, module in staged.model.named_modules()
        if isinstance(module, FactorizedLayer)
        for part in module.modules()
        if part is not module and isinstance(part, FactorizedLayer)
    ]
    assert not nested and set(staged.plan.layers) == {"0", "3", "5"}


def test_one_stage_without_tuning_is_compression() -> None:
    model, budget = net(), Budget(params=0.5)
    assert equal(compress_in_stages(model, [budget], make, untuned).model, make(model, budget).model)


def test_stages_without_tuning_nest_their_low_ranks() -> None:
    model = net()
    stepwise = compress_in_stages(model, HALVES, make, untuned).model
    torch.testing.assert_close(stepwise(X), make(model, HALVES[-1]).model(X))


def test_a_factorized_model_begins_with_its_dense_projection() -> None:
    model = nn.Sequential(FactorizedLinear(12, 16, rank=3), nn.Linear(16, 4))
    staged = compress_in_stages(model, [Budget(params=0.5)], make, untuned)
    assert set(staged.plan.layers) == {"0", "1"}
    assert isinstance(model[0], FactorizedLinear)


def test_the_trace_tells_what_tuning_brought() -> None:
    told: list[StageResult] = []
    score = partial(accuracy, batches=DATA)
    staged = compress_in_stages(net(), HALVES, make, tuned, evaluate=score, progress=told.append)
    assert tuple(told) == staged.stages
    assert staged.stages[-1].tuned == accuracy(staged.model, DATA)
    assert staged.stages[0].compressed == accuracy(make(net(), HALVES[0]).model, DATA)
    assert {stage.tuned for stage in compress_in_stages(net(), HALVES, make, tuned).stages} == {None}


class Killed(Exception):
    """What a power cut would do."""


def run(folder: Path | None, kill: Callable[[Stage, int], bool] = lambda stage, epoch: False) -> Staged:
    """A run that dies at the end of an epoch of a stage, or at its beginning (0)."""
    torch.manual_seed(7)
    order = torch.Generator().manual_seed(5)
    images = ImageData((X.reshape(64, 1, 3, 4) * 40 + 128).clamp(0, 255).byte(), X[:, :4].argmax(1))
    batches = images.batches(16, shuffle=True, generator=order)

    def learn(model: nn.Module, stage: Stage) -> None:
        def told(epoch: Epoch) -> None:
            if kill(stage, epoch.number):
                raise Killed

        if kill(stage, 0):
            raise Killed
        tune(model, batches, epochs=2, lr=0.01, resume=stage.resume, progress=told)

    score = partial(accuracy, batches=images.batches(64))
    small = partial(make, example=torch.zeros(2, 1, 3, 4))
    flat = nn.Sequential(nn.Flatten(), *net())
    return compress_in_stages(flat, HALVES, small, learn, evaluate=score, folder=folder, generators=[order])


@pytest.mark.parametrize("at", [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path, at: tuple[int, int]) -> None:
    expected = run(None)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        run(folder, lambda stage, epoch: (stage.number, epoch) == at)
    torch.rand(3)  # what happens in between must not matter
    staged = run(folder)
    assert staged.stages == expected.stages
    assert equal(staged.model, expected.model)
    names = [f"stage-{n:02d}{part}.safetensors" for n in (1, 2) for part in ("", "-tuning")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_stage_that_was_compressed_is_not_compressed_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, lambda stage, epoch: stage.number == 2)

    def never(model: nn.Module, budget: Budget) -> Compressed:
        raise AssertionError("compressed again")

    flat = nn.Sequential(nn.Flatten(), *net())
    staged = compress_in_stages(flat, HALVES, never, untuned, folder=tmp_path)
    assert len(staged.stages) == 2


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = run(tmp_path, lambda stage, epoch: True)
    assert second.stages == first.stages and equal(first.model, second.model)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folders_of_other_runs_are_refused_and_stay(tmp_path: Path) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="is of another run: the model had other weights at its start"):
        compress_in_stages(nn.Sequential(nn.Flatten(), *net(1)), HALVES, make, tuned, folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"is of another run: budgets was .*0\.25.* and is .*0\.2"):
        flat = nn.Sequential(nn.Flatten(), *net())
        compress_in_stages(flat, geometric(Budget(params=0.2), 2), make, tuned, folder=tmp_path)
    (tmp_path / "stage-02.safetensors").write_text("mine")
    with pytest.raises(CheckpointError, match=r"stage-02\.safetensors' is no record"):
        run(tmp_path)
    before["stage-02.safetensors"] = b"mine"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "no" / "run", tmp_path / "file"):
        with pytest.raises(TargetError, match="cannot be made"):
            compress_in_stages(net(), HALVES, make, tuned, folder=folder)


def test_a_model_that_its_plan_does_not_make_is_refused_before_tuning(tmp_path: Path) -> None:
    def changed(model: nn.Module, budget: Budget) -> Compressed:
        small = make(model, budget)
        small.model.append(nn.Linear(4, 4))
        return small

    def never(model: nn.Module, stage: Stage) -> None:
        raise AssertionError("tuned")

    with pytest.raises(
        CheckpointError, match=r"is not what its plan makes of the dense one: 6\.weight was None"
    ):
        compress_in_stages(net(), HALVES, changed, never, folder=tmp_path)


@pytest.mark.parametrize(
    ("budgets", "problem"),
    [
        ([], "budgets of all stages are wanted"),
        (Budget(params=0.5), "budgets of all stages are wanted"),
        (
            [Budget(params=0.2), Budget(params=0.5)],
            r"rise somewhere: Budget\(params=0\.2\), Budget\(params=0\.5\)",
        ),
        ([Budget(params=0.5, flops=0.2), Budget(params=0.4, flops=0.3)], "rise somewhere"),
        ([Budget(params=0.5), Budget(flops=0.2)], "budgets of different kinds"),
        ([Budget(params=0.5), Budget(params=20)], "budgets of different kinds"),
    ],
)
def test_budgets_that_make_no_stages_are_an_error(budgets: list[Budget], problem: str) -> None:
    with pytest.raises(BudgetError, match=problem):
        compress_in_stages(net(), budgets, make, untuned)


def test_a_geometric_schedule_keeps_the_terms_and_ends_at_the_budget() -> None:
    stages = geometric(Budget(flops=0.3, floor=0.5, multiple=8), 3)
    assert stages[-1] == Budget(flops=0.3, floor=0.5, multiple=8)
    assert all((s.unit, s.floor, s.multiple) == ("flops", 0.5, 8) for s in stages)
    ratios = [b.amount / a.amount for a, b in pairwise(stages)]
    assert ratios == pytest.approx([stages[0].amount] * 2)
    with pytest.raises(BudgetError, match=r"Budget\(params=100\) came, which is a number"):
        geometric(Budget(params=100), 2)
    with pytest.raises(OptionError, match="0 stages"):
        geometric(Budget(params=0.5), 0)


def test_small_steps_with_tuning_in_between_lose_less_than_one_large_step() -> None:
    train, test = digits()
    train = train.normalized()
    score = partial(accuracy, batches=test.normalized(train.mean, train.std).batches(512))
    torch.manual_seed(0)
    layers = [layer for a, b in pairwise((64, 256, 256, 10)) for layer in (nn.Linear(a, b), nn.ReLU())]
    dense = nn.Sequential(nn.Flatten(), *layers[:-1])
    batches = train.batches(64, shuffle=True, generator=torch.Generator().manual_seed(0))
    learn = partial(tune, train=batches, epochs=4, lr=3e-3, schedule="cosine")
    learn(dense)
    small = partial(compress, example=torch.zeros(1, 1, 8, 8), preset="weight_svd", select={"5": None})
    stages = geometric(Budget(params=0.1), 3)
    staged = compress_in_stages(dense, stages, small, lambda model, stage: learn(model), evaluate=score)
    assert all(stage.tuned is not None and stage.tuned > 0.95 for stage in staged.stages)
    last = staged.stages[-1].compressed
    assert last is not None and last > score(small(dense, stages[-1]).model) + 0.05
