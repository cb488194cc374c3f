"""A comparison is the ratio of two measurements, and goes into JSON."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tenfold.core.errors import DataError
from tenfold.measure import Comparison, Latency, Measurement, compare, measure
from tenfold.measure.running import Example

SECOND = Latency(1.0, 0.9, 1.1, 20, 1, "cpu")
DENSE = Measurement(200, 800, 4000, SECOND, 1000, 0.9)
SMALL = Measurement(50, 200, 1000, replace(SECOND, median=0.5), 500, 0.875)


def test_ratios_say_what_is_kept_and_how_much_faster() -> None:
    both = Comparison(DENSE, SMALL)
    assert (both.params_kept, both.bytes_kept, both.flops_kept, both.memory_kept) == (0.25, 0.25, 0.25, 0.5)
    assert both.speedup == 2.0
    assert both.accuracy_drop == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("missing", "ratio"),
    [("latency", "speedup"), ("accuracy", "accuracy_drop"), ("peak_memory", "memory_kept")],
)
def test_a_number_missing_on_either_side_makes_its_ratio_none(missing: str, ratio: str) -> None:
    assert getattr(Comparison(replace(DENSE, **{missing: None}), SMALL), ratio) is None
    assert getattr(Comparison(DENSE, replace(SMALL, **{missing: None})), ratio) is None


def test_a_model_without_flops_has_no_ratio_of_flops() -> None:
    assert Comparison(replace(DENSE, flops=0), SMALL).flops_kept is None


def test_comparison_goes_into_json_and_back() -> None:
    numbers = Comparison(DENSE, SMALL).to_dict()
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["dense"] == DENSE.to_dict()
    assert numbers["small"]["latency"]["median"] == 0.5
    assert numbers["speedup"] == 2.0


def test_compare_measures_both_models() -> None:
    dense = nn.Linear(8, 3)
    small = nn.Sequential(nn.Linear(8, 1, bias=False), nn.Linear(1, 3))
    inputs = torch.randn(20, 8)
    labels = dense(inputs).argmax(1)
    both = compare(dense, small, inputs[:1], [(inputs, labels)], repeats=3)
    assert both.dense == replace(
        measure(dense, inputs[:1], timing=False), accuracy=1.0, latency=both.dense.latency
    )
    assert both.params_kept == 14 / 27
    assert both.flops_kept == 22 / 48
    assert both.accuracy_drop is not None and 0 <= both.accuracy_drop <= 1
    assert both.speedup is not None and both.speedup > 0


def test_what_is_left_out_is_none() -> None:
    both = compare(nn.Linear(2, 2), nn.Linear(2, 2), torch.ones(1, 2), timing=False, memory=False)
    assert (both.dense.latency, both.dense.peak_memory, both.dense.accuracy) == (None, None, None)


def test_a_generator_of_batches_is_an_error_that_says_why() -> None:
    batches = ((torch.eye(2), torch.arange(2)) for _ in range(3))
    with pytest.raises(DataError, match="a generator can be read only once"):
        compare(nn.Linear(2, 2), nn.Linear(2, 2), torch.ones(1, 2), batches, timing=False)


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: (x,), lambda x: {"input": x}])
def test_a_model_that_works_in_place_leaves_the_example_alone(kind: Callable[[Tensor], Example]) -> None:
    x = -torch.ones(2, 4)
    measure(nn.ReLU(inplace=True), kind(x), repeats=1)
    assert torch.equal(x, -torch.ones(2, 4))
