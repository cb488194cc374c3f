"""Budgets in measured time, and of a largest drop."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tenfold import Budget, Uniform, compress, find_sites, plan
from tenfold.compress.cost import dense_flops
from tenfold.compress.drop import DropTrial, compress_within
from tenfold.compress.latency import LatencyTable, cpu_name, latency_of
from tenfold.compress.pipeline import Compressed
from tenfold.compress.surface import EACH, MOST, Surface, points, spread
from tenfold.compress.timing import Question, timed, undisturbed
from tenfold.core.errors import BudgetError, CheckpointError, DataError, ModelError, OptionError, TargetError
from tenfold.core.layout import Layout
from tenfold.formats import CP, LowRank, TensorTrain, Tucker
from tenfold.measure import flops
from tenfold.nn import FactorizedLayer
from tenfold.ranks import ALDS, Candidate, Energy, Lagrangian, RankRule
from tenfold.ranks.base import total

# Surfaces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [LowRank, CP, Tucker, TensorTrain])
def test_what_factors_store_is_read_off_exactly_where_it_is_multilinear(form: type) -> None:
    shape = (48, 40) if form is LowRank else (48, 40, 9)
    full = form.full(shape)

    def stored(ranks: Mapping[str, int]) -> int:
        return full.with_ranks(ranks).numel

    knots = spread(full)
    values = np.array([float(stored(r)) for r in points(knots)]).reshape([len(k) for k in knots.values()])
    surface = Surface.through(knots, values)
    rng = np.random.default_rng(0)
    for _ in range(20):
        ranks = {b: int(rng.integers(1, n + 1)) for b, n in full.ranks.items()}
        assert surface(ranks) == pytest.approx(stored(ranks))


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (LowRank, (512, 512)),
        (CP, (64, 3, 9)),
        (Tucker, (64, 64, 3, 3)),
        (TensorTrain, (9, 64, 64)),
        (LowRank, (5, 1)),
    ],
)
def test_knots_are_few_rise_and_reach_from_one_to_the_full_rank(form: type, shape: tuple[int, ...]) -> None:
    full = form.full(shape)
    knots = spread(full)
    assert math.prod(map(len, knots.values())) <= MOST
    for bond, known in knots.items():
        assert list(known) == sorted(set(known)) and len(known) <= EACH
        assert known[-1] == full.ranks[bond] and (known[0] == 1 or len(known) == 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_surface_never_falls_and_keeps_values_that_grow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    knots = {"R0": (1, 4, 9, 16), "R1": (1, 2, 8), "R2": (1, 5)}
    noisy = Surface.through(knots, rng.uniform(size=(4, 3, 2)))
    for _ in range(50):
        low = {b: int(rng.integers(1, k[-1] + 1)) for b, k in knots.items()}
        high = {b: int(rng.integers(r, knots[b][-1] + 3)) for b, r in low.items()}
        assert noisy(high) >= noisy(low) - 1e-12
    grown = np.cumsum(rng.uniform(size=(4, 3, 2)), axis=0).cumsum(1).cumsum(2)
    np.testing.assert_allclose(Surface.through(knots, grown).values, grown)


# The table ------------------------------------------------------------------------------------------------


class FakeClock:
    """A second for 1e9 FLOPs, and 100 µs for every step; the machine slows down from call to call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, models: Mapping[str, nn.Module], example: Tensor) -> dict[str, float]:
        self.calls.append(list(models))
        return {name: len(self.calls) * self.seconds(model, example) for name, model in models.items()}

    @staticmethod
    def seconds(model: nn.Module, example: Tensor) -> float:
        if isinstance(model, FactorizedLayer):
            return 1e-9 * model.program.flops + 1e-4 * len(model.program.steps)
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            model(example)
        return 1e-9 * counter.get_total_flops() + 1e-4


CONV = nn.Conv2d(24, 32, 3, padding=1)
LAYOUT = Layout.parse("o i h w -> o i (h w)").bind((32, 24, 3, 3))
EXAMPLE = (2, 24, 10, 10)


def tucker_latency(table: LatencyTable, layer: nn.Module = CONV) -> Callable[[Any], int]:
    return latency_of(layer, Tucker, LAYOUT, EXAMPLE, table, whole=(2,))


def test_nothing_is_measured_before_it_is_asked_and_then_once() -> None:
    clock = FakeClock()
    table = LatencyTable(clock=clock)
    time = tucker_latency(table)
    assert (table.measured, clock.calls) == (0, [])
    first = [time(r) for r in (None, {"R0": 3, "R1": 4}, {"R0": 20, "R1": 10})]
    assert [time(r) for r in (None, {"R0": 3, "R1": 4}, {"R0": 20, "R1": 10})] == first
    twin = nn.Conv2d(24, 32, 3, padding=1)
    assert tucker_latency(table, twin)(None) == first[0]
    assert len(clock.calls) == 1 and table.measured == len(clock.calls[0]) - 1 <= MOST + 1
    tucker_latency(table, nn.Conv2d(24, 32, 3, stride=2, padding=1))(None)
    tucker_latency(table, nn.Conv2d(24, 32, 3, padding=1, bias=False))(None)
    assert len(clock.calls) == 3, "another stride and a missing bias are other kinds of layer"


def test_times_are_whole_nanoseconds_close_to_measured_ones() -> None:
    table = LatencyTable(clock=FakeClock())
    time, question = tucker_latency(table), Question(CONV, Tucker, LAYOUT, EXAMPLE, (2,))
    rng, cpu = np.random.default_rng(0), torch.device("cpu")
    for _ in range(20):
        ranks = question.cut({b: int(rng.integers(1, n + 1)) for b, n in (("R0", 32), ("R1", 24))})
        true = 1e9 * FakeClock.seconds(question.factorized(ranks, cpu), torch.zeros(EXAMPLE))
        assert isinstance(time(ranks), int)
        assert time(ranks) == pytest.approx(true, rel=0.2)
    assert time(None) == pytest.approx(1e9 * FakeClock.seconds(CONV, torch.zeros(EXAMPLE)), abs=1)


def test_a_machine_that_slows_down_changes_no_proportion() -> None:
    """Kinds of layers and formats are timed one after the other, each beside the same product of matrices."""
    steady = LatencyTable(clock=lambda models, x: {n: FakeClock.seconds(m, x) for n, m in models.items()})
    matrix = Layout.parse("o i h w -> o (i h w)").bind((32, 24, 3, 3))
    found = []
    for table in (LatencyTable(clock=FakeClock()), steady):
        times = [
            tucker_latency(table),
            latency_of(CONV, LowRank, matrix, EXAMPLE, table),
            tucker_latency(table, nn.Conv2d(24, 32, 3, stride=2, padding=1)),
        ]
        found.append([time(r) for time, r in zip(times, ({"R0": 2, "R1": 9}, {"R": 8}, None), strict=True)])
    assert found[0] == found[1]


def test_a_layer_on_the_meta_device_cannot_be_timed() -> None:
    with pytest.raises(ModelError, match="a Conv2d on the meta device cannot be timed"):
        tucker_latency(LatencyTable(), nn.Conv2d(24, 32, 3, padding=1, device="meta"))(None)


def test_timing_leaves_the_layer_as_it_was() -> None:
    layer = nn.Conv2d(24, 32, 3, padding=1)
    before = layer.weight.clone()
    timed(
        Question(layer, Tucker, LAYOUT, EXAMPLE, (2,)),
        torch.device("cpu"),
        partial(undisturbed, warmup=0, repeats=1),
    )
    assert layer.training and torch.equal(layer.weight, before) and layer.weight.grad is None


@pytest.mark.parametrize("options", [{"warmup": -1}, {"repeats": 0}])
def test_a_table_refuses_numbers_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="a table with warmup="):
        LatencyTable(**options)  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match="the device 'toaster' cannot be used"):
        LatencyTable(device="toaster")


@pytest.mark.gpu
def test_layers_are_timed_on_the_device_that_is_asked_for() -> None:
    table = LatencyTable(device="cuda")
    time = tucker_latency(table)
    assert 0 < time({"R0": 1, "R1": 1}) <= time({"R0": 32, "R1": 24})
    assert CONV.weight.device.type == "cpu"


# Its file -------------------------------------------------------------------------------------------------


def test_a_file_keeps_the_times_for_later_and_for_others(tmp_path: Path) -> None:
    path, clock = tmp_path / "times.json", FakeClock()
    first = tucker_latency(LatencyTable(path, clock=clock))({"R0": 5, "R1": 7})
    again = LatencyTable(path, clock=clock)
    assert tucker_latency(again)({"R0": 5, "R1": 7}) == first
    assert (again.measured, len(clock.calls)) == (0, 1)
    other = LatencyTable(path, clock=clock)
    late = LatencyTable(path, clock=clock)
    layout = Layout.parse("o i h w -> o (i h w)").bind((32, 24, 3, 3))
    latency_of(CONV, LowRank, layout, EXAMPLE, other)(None)
    latency_of(CONV, CP, LAYOUT, EXAMPLE, late)(None)
    fresh = LatencyTable(path, clock=clock)
    for kind, view in ((LowRank, layout), (CP, LAYOUT), (Tucker, LAYOUT)):
        latency_of(CONV, kind, view, EXAMPLE, fresh, whole=(2,) if kind is Tucker else ())(None)
    assert fresh.measured == 0, "what one run adds, another one does not lose"


def test_another_number_of_threads_is_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "times.json"
    tucker_latency(LatencyTable(path, clock=FakeClock()))(None)
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    table = LatencyTable(path, clock=FakeClock())
    tucker_latency(table)(None)
    assert table.measured > 0
    assert len(json.loads(path.read_text())["devices"]) == 2


def test_another_processor_is_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "times.json"
    for cores in (8, 64, 8):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        tucker_latency(LatencyTable(path, clock=FakeClock()))(None)
    assert len(json.loads(path.read_text())["devices"]) == 2


def test_the_name_of_a_processor_tells_models_apart_where_linux_does(tmp_path: Path) -> None:
    names = set()
    for number in (143, 207):
        one = f"model\t\t: {number}\nmodel name\t: Intel(R) Xeon(R) Processor\nstepping\t: 2\n"
        (tmp_path / str(number)).write_text(f"{one}\n{one}")
        names.add(cpu_name(tmp_path / str(number)))
    assert names == {f"Intel(R) Xeon(R) Processor (model {number})" for number in (143, 207)}
    (tmp_path / "arm").write_text("processor\t: 0\nCPU part\t: 0xd4f\n")
    assert cpu_name(tmp_path / "arm") == cpu_name(tmp_path / "missing") != ""


def test_times_of_another_device_in_the_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    old = {"Intel Xeon, 1 threads, torch 2.13": {"yardstick": 1e-3, "layers": {}}}
    path.write_text(json.dumps({"format": "tenfold-latencies-1", "devices": old}))
    table = LatencyTable(path, clock=FakeClock())
    tucker_latency(table)(None)
    devices = json.loads(path.read_text())["devices"]
    assert table.measured > 0 and len(devices) == 2 and devices.items() >= old.items()


def test_a_layer_that_cannot_be_timed_spoils_no_table(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    table = LatencyTable(path, clock=FakeClock())
    with pytest.raises(ModelError, match="meta device"):
        tucker_latency(table, nn.Conv2d(24, 32, 3, padding=1, device="meta"))(None)
    first = tucker_latency(table)(None)
    again = LatencyTable(path, clock=FakeClock())
    assert tucker_latency(again)(None) == first and again.measured == 0


HEAD = '{"format": "tenfold-latencies-1", "devices": {"cpu": {"yardstick": 1, "layers": {"Conv2d": '


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"format": "tenfold-latencies-0", "devices": {}}',
        '{"format": "tenfold-latencies-1", "devices": {"cpu": {"yardstick": -1, "layers": {}}}}',
        HEAD + '{"dense": 0, "forms": {}}}}}}',
        HEAD + '{"dense": 1.0, "forms": {"cp": {"knots": {"R": [1, 2]}, "times": [0.5]}}}}}}}',
        HEAD + '{"dense": 1.0, "forms": {"cp": {"knots": {"R": [2, 1]}, "times": [0.5, NaN]}}}}}}}',
    ],
)
def test_a_file_that_is_no_table_is_refused_and_kept(text: str, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="is no table of latencies"):
        LatencyTable(path)
    assert path.read_text() == text


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="there is no folder"):
        LatencyTable(tmp_path / "missing" / "times.json")
    with pytest.raises(TargetError, match="a folder"):
        LatencyTable(tmp_path)


# Rules in time --------------------------------------------------------------------------------------------


def timed_candidates(clock: Any = None) -> list[Candidate]:
    """Two convolutions worth factorizing, and a small linear layer whose second step costs too much."""
    torch.manual_seed(0)
    table = LatencyTable(clock=clock or FakeClock())
    rows: list[tuple[str, nn.Module, type, str, tuple[int, ...], tuple[int, ...]]] = [
        ("wide", nn.Conv2d(64, 96, 3, padding=1), Tucker, "o i h w -> o i (h w)", (2,), (2, 64, 12, 12)),
        ("long", nn.Conv2d(48, 48, 3, padding=1), LowRank, "o i h w -> (i h) (o w)", (), (2, 48, 16, 16)),
        ("head", nn.Linear(32, 10), LowRank, "o i -> o i", (), (2, 32)),
    ]
    found = []
    for name, layer, kind, text, whole, example in rows:
        weight = layer.get_parameter("weight").detach()
        layout = Layout.parse(text).bind(weight.shape)
        time = latency_of(layer, kind, layout, example, table, whole)
        tensor = partial(layout.to_modes, weight)
        found.append(Candidate(name, kind, layout.mode_shape, whole, tensor, latency=time))
    return found


@pytest.mark.parametrize("rule", [Uniform(), Lagrangian(), ALDS(), Energy(0.99)], ids=str)
@pytest.mark.parametrize("keep", [0.2, 0.4, 0.7])
def test_rules_meet_a_budget_in_time(rule: RankRule, keep: float) -> None:
    candidates = timed_candidates()
    found = rule(candidates, Budget(latency=keep))
    dense = sum(c.cost(None, "latency") for c in candidates)
    assert 0.5 * keep * dense < total(candidates, found, "latency") <= keep * dense
    assert found["head"] is None, "it is slower with any ranks"
    assert found["wide"] is not None or found["long"] is not None


@pytest.mark.slow
def test_a_budget_in_time_is_met_by_the_clock() -> None:
    """Of the layers themselves, on this machine; the sites' share of half the time, within a third."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        candidates = timed_candidates(partial(undisturbed, warmup=3, repeats=25))
        ranks = Uniform()(candidates, Budget(latency=0.5))
        layers = [nn.Conv2d(64, 96, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1)]
        layouts = ["o i h w -> o i (h w)", "o i h w -> (i h) (o w)"]
        took = 0.0
        for layer, text, kind, name, example in zip(
            layers,
            layouts,
            (Tucker, LowRank),
            ("wide", "long"),
            ((2, 64, 12, 12), (2, 48, 16, 16)),
            strict=True,
        ):
            question = Question(layer, kind, Layout.parse(text).bind(layer.weight.shape), example)
            small = question.factorized(ranks[name] or {}, torch.device("cpu"))
            times = undisturbed({"dense": layer, "small": small}, torch.randn(example), 3, 25)
            took += times["small"] / times["dense"] / 2
        assert 0.3 < took < 0.67
    finally:
        torch.set_num_threads(threads)


# The largest drop -----------------------------------------------------------------------------------------


def falling(seed: int) -> nn.Linear:
    """A layer whose singular values fall, as those of trained layers do."""
    layer, generator = nn.Linear(40, 40), torch.Generator().manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(40, 40, generator=generator))[0] for _ in "uv")
    layer.weight.data = 3 * u @ torch.diag(0.85 ** torch.arange(40.0)) @ v
    layer.bias.data.zero_()
    return layer


NET = nn.Sequential(falling(0), nn.ReLU(), falling(1))
X = torch.randn(64, 40, generator=torch.Generator().manual_seed(0))
MAKE = partial(compress, NET, example=X, preset="weight_svd")


def kept(model: nn.Module) -> float:
    """What a model stores, as a fraction of the dense one's weights: a metric that knows the answer."""
    return sum(p.numel() for p in model.parameters() if p.ndim == 2) / 3200


def likeness(model: nn.Module) -> float:
    with torch.no_grad():
        return 1 - float((model(X) - NET(X)).norm() / NET(X).norm())


@pytest.mark.parametrize("max_drop", [0.1, 0.3, 0.55, 0.8])
def test_the_budget_is_found_to_two_per_cent(max_drop: float) -> None:
    asked: list[nn.Module] = []
    found = compress_within(NET, max_drop, lambda model: asked.append(model) or kept(model), MAKE)
    assert found.dense == 1 and found.metric == kept(found.compressed.model) >= 1 - max_drop
    smaller = [t for t in found.trials if t.keep < found.budget.amount]
    assert smaller and not any(t.holds for t in smaller)
    assert max(t.keep for t in smaller) > 0.98 * found.budget.amount
    assert asked[0] is NET and len(asked) <= 1 + 8


@pytest.mark.parametrize("unit", ["params", "flops", "bytes"])
def test_the_result_was_measured_to_hold_in_every_unit(unit: Any) -> None:
    found = compress_within(NET, 0.3, likeness, MAKE, unit=unit, evaluations=5)
    assert found.budget.unit == unit
    assert likeness(found.compressed.model) == found.metric
    assert 0 <= found.drop <= 0.3
    assert kept(found.compressed.model) < 0.95


def test_more_evaluations_never_give_a_larger_model() -> None:
    sizes = [
        kept(compress_within(NET, 0.2, likeness, MAKE, evaluations=n).compressed.model) for n in (1, 3, 6, 9)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_a_metric_that_is_not_monotone_still_gives_a_model_that_holds() -> None:
    def noisy(model: nn.Module) -> float:
        return likeness(model) - 0.2 * (math.sin(400 * kept(model)) > 0)

    found = compress_within(NET, 0.35, noisy, MAKE)
    assert noisy(found.compressed.model) >= noisy(NET) - 0.35
    holding = [t for t in found.trials if t.holds]
    assert found.budget.amount == min(t.keep for t in holding)


def test_the_model_is_not_changed_and_progress_is_told() -> None:
    before, told = [p.clone() for p in NET.parameters()], list[DropTrial]()
    found = compress_within(NET, 0.3, likeness, MAKE, evaluations=3, progress=told.append)
    assert tuple(told) == found.trials and len(told) == 3
    assert all(torch.equal(p, q) for p, q in zip(NET.parameters(), before, strict=True))


def test_a_plan_that_comes_again_is_measured_once() -> None:
    asked: list[nn.Module] = []

    def counted(model: nn.Module) -> float:
        asked.append(model)
        return kept(model)

    def coarse(budget: Budget) -> Compressed:
        return MAKE(Budget(params=math.ceil(4 * budget.amount) / 4))

    found = compress_within(NET, 0.6, counted, coarse, evaluations=20)
    assert found.metric == pytest.approx(0.5, abs=0.03)
    assert len(asked) <= 5 < len(found.trials)


def test_budgets_that_no_plan_meets_do_not_hold_and_are_not_measured() -> None:
    found = compress_within(NET, 0.97, kept, MAKE, least=0.001)
    assert found.metric == pytest.approx(0.05, abs=0.03)
    assert any(t.metric is None for t in found.trials)


def test_if_nothing_smaller_holds_the_dense_model_does() -> None:
    found = compress_within(NET, 0.0, likeness, MAKE, evaluations=3)
    assert found.budget == Budget(params=1.0)
    assert found.drop == 0 and not found.compressed.plan.layers


def test_a_drop_that_even_everything_exceeds_says_by_how_much() -> None:
    def worse(budget: Budget) -> Compressed:
        made = MAKE(budget)
        with torch.no_grad():
            made.model[2].bias += 1
        return made

    with pytest.raises(BudgetError, match=r"even the budget params=1\.0 does not hold") as caught:
        compress_within(NET, 0.01, likeness, worse, evaluations=2)
    assert "falls from 1 to" in caught.value.problem


@pytest.mark.parametrize(
    "options",
    [{"max_drop": -0.1}, {"max_drop": math.nan}, {"max_drop": "1%"}, {"unit": "watts"}, {"evaluations": 0},
     {"least": 0.0}, {"least": 1.0}],
)  # fmt: skip
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="The search for a budget needs"):
        compress_within(NET, options.pop("max_drop", 0.1), likeness, MAKE, **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "high"])
def test_a_metric_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match="which is no finite number"):
        compress_within(NET, 0.1, lambda model: value, MAKE)


@pytest.mark.parametrize("spoilt", [math.nan, -math.inf])
def test_a_small_model_without_a_metric_does_not_hold(spoilt: float) -> None:
    found = compress_within(NET, 0.9, lambda model: kept(model) if kept(model) > 0.4 else spoilt, MAKE)
    assert found.metric == pytest.approx(0.4, abs=0.05)
    broken = [t for t in found.trials if t.metric is not None and not math.isfinite(t.metric)]
    assert broken and not any(t.holds for t in broken)
    with pytest.raises(DataError, match="evaluate gave inf"):
        compress_within(NET, 0.9, lambda model: 1.0 if model is NET else math.inf, MAKE)


# What layers take to run ----------------------------------------------------------------------------------


class Loop(nn.Module):
    """One layer that runs eight times, one that runs once and is called by name, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.often, self.once, self.never = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(8):
            x = self.often(x).relu()
        y: Tensor = self.once(input=x)
        return y


def test_every_call_of_a_layer_counts() -> None:
    torch.manual_seed(0)
    net, x = Loop(), torch.randn(4, 32)
    assert [(s.module, len(s.inputs), s.example) for s in find_sites(net, x)] == [
        ("often", 8, (4, 32)),
        ("once", 1, (4, 32)),
        ("never", 0, None),
    ]
    small, found, _ = compress(net, Budget(flops=0.5), example=x, preset="weight_svd")
    assert flops(small, x) <= 0.5 * flops(net, x)
    assert (
        found.dense["never.weight"] == "its layer was not called, so that nobody knows what it takes to run"
    )
    assert "never" in plan(net, Budget(params=0.5), example=x, preset="weight_svd").layers


class Pyramid(nn.Module):
    """One head on maps of two sizes, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.last = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.head(x[..., :4, :4]), self.head(x)
        y: Tensor = self.last(fine.sum((2, 3), keepdim=True) + coarse.mean((2, 3), keepdim=True))
        return y


def test_calls_on_inputs_of_several_sizes_are_counted_as_they_are() -> None:
    torch.manual_seed(0)
    net, x = Pyramid(), torch.randn(1, 16, 16, 16)
    for keep in (0.3, 0.6):
        small = compress(net, Budget(flops=keep), example=x, preset="channel_svd").model
        assert keep - 0.1 <= flops(small, x) / flops(net, x) <= keep


def test_two_places_of_a_weight_are_two_calls() -> None:
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    net[2].weight = net[0].weight
    assert [len(site.inputs) for site in find_sites(net, torch.zeros(1, 32))] == [2]


def test_operations_of_a_bilinear_layer_and_of_an_image_without_batch_are_counted() -> None:
    pair = nn.Bilinear(6, 5, 4)
    assert dense_flops(pair, (3, 6)) == 2 * 3 * (6 * 5 * 4 + 5 * 4)
    assert dense_flops(nn.Conv2d(3, 8, 3), (3, 6, 6)) == dense_flops(nn.Conv2d(3, 8, 3), (1, 3, 6, 6))
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    for shape in ((8, 9, 9), (1, 8, 9, 9)):
        small = compress(net, Budget(flops=0.5), example=torch.zeros(shape), preset="channel_svd").model
        assert flops(small, torch.zeros(1, 8, 9, 9)) <= 0.5 * flops(net, torch.zeros(1, 8, 9, 9))


def test_bags_of_one_row_of_indices_can_be_timed() -> None:
    question = Question(nn.EmbeddingBag(50, 16), LowRank, Layout.parse("v o -> v o").bind((50, 16)), (6,))
    found = timed(
        question,
        torch.device("cpu"),
        lambda models, x: {n: 1.0 + 0 * m(x).numel() for n, m in models.items()},
    )
    assert set(found.factors) == {1.0}
