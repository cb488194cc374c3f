"""Times: taken in turn, after a warm-up, with the model left as it was."""

from collections.abc import Callable
from time import sleep

import pytest
import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError
from tenfold.measure import interleaved, latency


class Sleeper(nn.Module):
    """Takes the given times in turn, and notes each call."""

    def __init__(
        self, name: str, calls: list[str], seconds: Callable[[int], float] = lambda call: 0.0
    ) -> None:
        super().__init__()
        self.name, self.calls, self.seconds = name, calls, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(self.name)
        sleep(self.seconds(self.calls.count(self.name)))
        return x


def test_median_lies_between_low_and_high() -> None:
    time = latency(nn.Linear(64, 64), torch.randn(8, 64))
    assert 0 < time.low <= time.median <= time.high


def test_latency_is_in_seconds() -> None:
    time = latency(Sleeper("a", [], lambda call: 0.01), torch.ones(1), warmup=1, repeats=3)
    assert 0.01 <= time.median < 0.05


def test_warm_up_is_not_counted() -> None:
    slow_start = Sleeper("a", [], lambda call: 0.2 if call <= 2 else 0.0)
    assert latency(slow_start, torch.ones(1), warmup=2, repeats=5).high < 0.1
    assert len(slow_start.calls) == 7


def test_models_take_turns_in_alternating_order() -> None:
    calls: list[str] = []
    times = interleaved({name: Sleeper(name, calls) for name in "ab"}, torch.ones(1), warmup=1, repeats=3)
    assert "".join(calls) == "abbaabba"
    assert list(times) == ["a", "b"]
    assert {time.repeats for time in times.values()} == {3}


def test_a_drifting_machine_slows_all_models_alike() -> None:
    calls: list[str] = []
    models = {name: Sleeper(name, calls, lambda call: 0.001 * call) for name in "ab"}
    times = interleaved(models, torch.ones(1), warmup=0, repeats=11)
    assert times["a"].median == pytest.approx(times["b"].median, rel=0.3)


def test_threads_and_device_are_noted() -> None:
    time = latency(nn.Linear(4, 4), torch.ones(1, 4), repeats=1)
    assert (time.threads, time.device) == (torch.get_num_threads(), "cpu")


def test_timing_runs_in_evaluation_mode_and_restores_each_module() -> None:
    modes: list[tuple[bool, bool]] = []
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    model[0].register_forward_hook(
        lambda module, *_: modes.append((module.training, torch.is_grad_enabled()))
    )
    latency(model, torch.ones(1), warmup=0, repeats=1)
    assert modes == [(False, False)]
    assert [module.training for module in model.modules()] == [True, True, False]


@pytest.mark.parametrize("options", [{"warmup": -1}, {"repeats": 0}])
def test_options_out_of_range_are_an_error(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="Timing needs warmup >= 0 and repeats >= 1, but got"):
        latency(nn.Identity(), torch.ones(1), **options)


@pytest.mark.gpu
def test_gpu_time_includes_what_the_gpu_does() -> None:
    small, large = nn.Linear(64, 64).cuda(), nn.Linear(16384, 16384).cuda()
    assert latency(small, torch.randn(1, 64)).device == "cuda:0"
    assert latency(large, torch.randn(16384, 16384)).median > 10 * latency(small, torch.randn(1, 64)).median


def test_every_pass_sees_the_example_as_it_was() -> None:
    seen: list[float] = []

    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(float(x.sum()))
            return x.mul_(2)

    x = torch.ones(3)
    latency(Doubled(), x, warmup=1, repeats=3)
    assert seen == [3.0] * 4 and x.tolist() == [1, 1, 1]
