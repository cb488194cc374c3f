"""What calibration says to data that it cannot use, to too little of it, and to files that are stale."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tenfold.compress import InputCovariance, KroneckerFisher, compress, find_sites
from tenfold.compress.calibration import storage
from tenfold.compress.calibration.calibrate import collect, collected
from tenfold.compress.calibration.samples import described
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.calibration.storage import FORMAT
from tenfold.core.errors import CheckpointError, DataError, ShapeError
from tenfold.ranks import Budget

ALL = {"input_covariance", "patch_moment", "output_covariance", "gradient_covariance"}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3))


IMAGE, ROW = normal(2, 3, 8, 8), normal(2, 12)


def seen(model: nn.Module, batches: Any, example: Any = ROW, **options: Any) -> Statistics:
    return collect(model, batches, find_sites(model, example), **options)


# Too little ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [[], [ROW[:0]], iter([])], ids=["none", "empty", "used up"])
def test_no_data_at_all_say_how_much_it_takes(batches: Any) -> None:
    with pytest.raises(DataError, match="no batches") as error:
        seen(perceptron(), batches)
    assert "The largest moment has 12 rows" in str(error.value)


@pytest.mark.parametrize(
    ("want", "rows"), [("input_covariance", 64), ("output_covariance", 6), ({"patch_moment"}, 64)]
)
def test_the_rows_are_those_of_what_is_wanted(want: Any, rows: int) -> None:
    with pytest.raises(DataError, match=f"has {rows} rows"):
        seen(network(), [], IMAGE, want=want)


def test_too_few_samples_are_told_with_the_number_that_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tenfold"):
        found = seen(network(), [normal(4, 3, 8, 8)], IMAGE, want=ALL)
    assert found.scarce == {"4.weight": 64}
    (message,) = [r.getMessage() for r in caplog.records]
    assert message.startswith("4 samples are too few for the moments of 1 of 3 sites")
    assert "'4.weight' takes 64" in message


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 8])
def test_what_is_scarce_is_singular_and_what_is_not_has_full_rank(samples: int) -> None:
    """Positions count, not samples: a convolution sees many in each."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    found = seen(model.double(), [normal(samples, 3, 8, 8).double()], IMAGE.double(), want="patch_moment")
    for name in ("0.weight", "2.weight"):
        moment = found[name].patch_moment
        assert moment is not None
        full = int(torch.linalg.matrix_rank(moment)) == len(moment)
        assert full == (samples >= found[name].needed) == (name not in found.scarce)


def test_enough_samples_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    found = seen(network(), [normal(64, 3, 8, 8)], IMAGE, want=ALL)
    assert not found.scarce and not caplog.records


def test_a_layer_without_positions_needs_none_and_statistics_without_moments_neither() -> None:
    assert SiteStatistics(0).needed == 0
    assert SiteStatistics(5, samples=5, input_mean=torch.ones(9)).needed == 0


def test_compression_from_fewer_samples_than_inputs_is_the_best_there_is() -> None:
    """The moment is singular, and without damping its inverse would be none."""
    model, x = nn.Sequential(nn.Linear(64, 32)).double(), normal(20, 64).double()
    metric = InputCovariance(damping=0.0)
    small = compress(model, Budget(params=0.3), example=x, preset="weight_svd", metric=metric, data=[x]).model
    rank, y = small[0].weight.ranks["R"], model(x)
    tail = torch.linalg.svdvals(y - y.mean(0))[rank:]
    torch.testing.assert_close((small(x) - y).norm(), tail.norm(), rtol=1e-6, atol=0)


# Batches -------------------------------------------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.fc(a + b)


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (normal(4, 11), r"\(4, 11\) float32"),
        (torch.ones(4, 12, dtype=torch.int64), r"\(4, 12\) int64"),
        ((normal(4, 12), normal(4, 12), normal(4, 12)), r"\(\(4, 12\) float32, \(4, 12\) float32, "),
        ({"ids": normal(4, 12)}, r"\{'ids': \(4, 12\) float32\}"),
    ],
    ids=["width", "type", "arguments", "names"],
)
def test_batches_that_the_model_cannot_take_are_named_with_their_shape(batch: Any, named: str) -> None:
    with pytest.raises(DataError, match=f"cannot take inputs {named}") as error:
        seen(perceptron(), [ROW, batch])
    assert "give `forward`" in str(error.value) and error.value.__cause__ is not None


def test_two_inputs_look_like_inputs_and_labels_and_the_error_says_so() -> None:
    model, a, b = Pair(), normal(4, 12), normal(4, 12, seed=1)
    with pytest.raises(DataError, match=r"two inputs without labels are \(\(a, b\), None\)"):
        seen(model, [(a, b)], (a, b))
    assert seen(model, [((a, b), None)], (a, b))["fc.weight"].count == 4


def test_errors_of_a_forward_of_ones_own_stay_as_they_are() -> None:
    def broken(model: nn.Module, batch: Any) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        seen(perceptron(), [ROW], forward=broken)


@pytest.mark.parametrize("batches", [ROW, {"x": ROW}, "images"], ids=["tensor", "mapping", "text"])
def test_one_batch_is_not_taken_for_several(batches: Any) -> None:
    with pytest.raises(DataError, match=r"came as one .*\n.*\[batch\]"):
        seen(perceptron(), batches)


def test_batches_are_described_by_their_shapes() -> None:
    assert described([ROW, {"n": 3}]) == "((2, 12) float32, {'n': int})"


# Labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), r"labels reach from 0 to 3, but the model has 3 classes"),
        (torch.tensor([-1, 2]), r"labels reach from -1 to 2"),
        (torch.tensor([0.0, 1.0]), r"labels are class numbers, but came as float32"),
    ],
    ids=["too high", "negative", "floating"],
)
def test_labels_that_are_no_classes_of_the_model_are_refused(labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        seen(perceptron(), [(ROW, labels)], want="gradient_covariance")


def test_labels_of_any_integer_type_and_ignored_ones_are_taken() -> None:
    labels = torch.tensor([0, 2, 1, 2])
    x = normal(4, 12)
    wide = seen(perceptron(), [(x, labels)], want="gradient_covariance")["0.weight"]
    narrow = seen(perceptron(), [(x, labels.to(torch.uint8))], want="gradient_covariance")["0.weight"]
    torch.testing.assert_close(wide.gradient_covariance, narrow.gradient_covariance)
    half = torch.tensor([0, -100, 1, -100])
    ignored = seen(perceptron(), [(x, half)], want="gradient_covariance")["0.weight"]
    kept = seen(perceptron(), [(x[::2], half[::2])], want="gradient_covariance")["0.weight"]
    torch.testing.assert_close(2 * ignored.gradient_covariance, kept.gradient_covariance)
    assert seen(perceptron(), [(x, 0 * half - 100)], want="gradient_covariance")["0.weight"].samples == 4


def test_a_metric_that_needs_a_loss_draws_labels_where_there_are_none() -> None:
    model, x = perceptron(), normal(30, 12)
    compress(model, Budget(params=0.6), example=x, preset="weight_svd", metric=KroneckerFisher(), data=[x])
    with pytest.raises(DataError, match=r'loss="labels" needs labels, but a batch has none'):
        seen(model, [(x, torch.zeros(30).long()), x], want="gradient_covariance", loss="labels")


# Layers --------------------------------------------------------------------------------------------------


class Spare(nn.Module):
    """A layer that is registered first and never called."""

    def __init__(self) -> None:
        super().__init__()
        self.spare, self.body = nn.Linear(12, 12), perceptron()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize("metric", [InputCovariance(), KroneckerFisher()], ids=str)
def test_a_layer_that_is_never_called_is_named_with_a_way_out(metric: Any) -> None:
    model, x = Spare(), normal(30, 12)
    options: dict[str, Any] = {"example": x, "preset": "weight_svd", "metric": metric, "data": [x]}
    with pytest.raises(
        DataError, match=r"at 'spare\.weight' there is no .*: its layer was never called"
    ) as error:
        compress(model, Budget(params=0.6), **options)
    assert "select={'spare.weight': None}" in str(error.value)
    small = compress(model, Budget(params=0.6), **options, select={"spare.weight": None})
    assert "spare.weight" in small.plan.dense


class Late(nn.Module):
    """Layers that are registered in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x).relu()).relu())


@pytest.mark.parametrize(
    "want", [{"input_covariance"}, {"input_covariance", "gradient_covariance"}], ids=["forward", "backward"]
)
def test_the_first_layer_that_sees_values_which_are_not_finite_is_named(want: set[str]) -> None:
    model = Late()
    example = find_sites(model, ROW)
    with torch.no_grad():
        model.first.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"the inputs of 'middle\.weight' are not finite"):
        collect(model, [ROW], example, want=want)
    with pytest.raises(DataError, match=r"the inputs of 'first\.weight' are not finite"):
        collect(Late(), [ROW, ROW * float("inf")], example, want=want)


def test_statistics_of_a_weight_of_another_shape_are_refused() -> None:
    x, wide = normal(40, 12), nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    options: dict[str, Any] = {"example": x, "preset": "weight_svd"}
    for metric in (InputCovariance(), KroneckerFisher()):
        found = seen(wide, [x], x, want=metric.needs)
        with pytest.raises(ShapeError, match="but its weight has"):
            compress(perceptron(), Budget(params=0.6), **options, metric=metric, statistics=found)


# The cache -----------------------------------------------------------------------------------------------


def ask(cache: Path, model: nn.Module, reads: list[int], **options: Any) -> Statistics:
    labels = torch.tensor([0, 1])
    return collected(
        model, [(ROW, labels)], find_sites(model, ROW), cache=cache, progress=reads.append, **options
    )


@pytest.mark.parametrize(
    "other",
    [
        {"samples": 1},
        {"loss": "sampled"},
        {"seed": 3},
        {"max_patch": 5},
        {"positions": 9},
        {"want": {"input_absolute"}},
    ],
    ids=str,
)
def test_other_options_make_a_cache_stale(tmp_path: Path, other: dict[str, Any]) -> None:
    model, reads = perceptron(), list[int]()
    ask(tmp_path / "seen", model, reads)
    ask(tmp_path / "seen", model, reads)
    assert len(reads) == 1
    fresh = ask(tmp_path / "seen", model, reads, **other)
    assert len(reads) == 2 and fresh.samples == other.get("samples", 2)


def test_any_changed_weight_makes_a_cache_stale(tmp_path: Path) -> None:
    model, reads = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), list[int]()
    tensors = list(model.state_dict().values())
    for k, tensor in enumerate(tensors):
        ask(tmp_path / "seen", model, reads)
        assert len(reads) == k + 1
        tensor.add_(1)
    old = Statistics.load(tmp_path / "seen")
    fresh = ask(tmp_path / "seen", model, reads)
    assert fresh.weights != old.weights and len(reads) == len(tensors) + 1


def damages(whole: bytes) -> Iterator[bytes]:
    """A file cut short, with its header spoilt, with its length spoilt, empty, and overgrown."""
    yield whole[: len(whole) // 2]
    yield whole[:40]
    yield whole.replace(b"tenfold-statistics-1", b"tenfold-statistics-0", 1)
    yield b"\xff" * 8 + whole[8:]
    yield b""
    yield whole + b"more"


def test_a_damaged_cache_is_an_error_of_ours_and_stays(tmp_path: Path) -> None:
    model, cache = perceptron(), tmp_path / "seen"
    ask(cache, model, [])
    for spoilt in list(damages(cache.read_bytes())):
        cache.write_bytes(spoilt)
        with pytest.raises(CheckpointError, match=r"seen' .*\n(Delete it|Give a file)"):
            ask(cache, model, [])
        assert cache.read_bytes() == spoilt


@pytest.mark.parametrize(
    "header", ["", "[]", "{}", '{"sites": {"0.weight": {}}}', '{"sites": 3}', "{"], ids=str
)
def test_a_header_that_is_none_is_an_error_of_ours(tmp_path: Path, header: str) -> None:
    cache = tmp_path / "seen"
    save_file({"x": torch.ones(1)}, cache, {"format": FORMAT, "header": header})
    with pytest.raises(CheckpointError, match="is damaged"):
        Statistics.load(cache)
    save_file({"x": torch.ones(1)}, cache, {"format": "another"})
    with pytest.raises(CheckpointError, match="holds no statistics"):
        Statistics.load(cache)


def test_a_write_that_is_interrupted_leaves_the_old_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache, reads = perceptron(), tmp_path / "seen", list[int]()
    ask(cache, model, reads)
    before = cache.read_bytes()

    def stopped(arrays: Any, path: Path, header: Any) -> None:
        path.write_bytes(before[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "save_file", stopped)
        with pytest.raises(KeyboardInterrupt):
            ask(cache, model, reads, seed=1)
    assert cache.read_bytes() == before and list(tmp_path.iterdir()) == [cache]
    ask(cache, model, reads)
    assert len(reads) == 2


def test_a_run_that_is_interrupted_between_batches_writes_nothing(tmp_path: Path) -> None:
    model, cache = perceptron(), tmp_path / "seen"
    flags = [p.requires_grad for p in model.parameters()]

    def batches() -> Iterator[Tensor]:
        yield ROW
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collected(model, batches(), find_sites(model, ROW), cache=cache, want=ALL)
    assert not list(tmp_path.iterdir())
    assert [p.requires_grad for p in model.parameters()] == flags and model.training
    assert not any(m._forward_hooks for m in model.modules())


KILLED = """
import os, sys, torch
from torch import nn
from tenfold.compress import find_sites
from tenfold.compress.calibration import storage
from tenfold.compress.calibration.calibrate import collected
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
write = storage.save_file
def killed(arrays, path, header):
    write(arrays, path, header)
    os.truncate(path, 100)
    os._exit(9)
storage.save_file = killed
collected(model, [torch.ones(2, 12)], find_sites(model, torch.ones(2, 12)), cache=sys.argv[1], seed=5)
"""


@pytest.mark.slow
def test_a_process_that_dies_while_it_writes_leaves_the_old_cache(tmp_path: Path) -> None:
    cache = tmp_path / "seen"
    ask(cache, perceptron(), [])
    before = load_file(cache)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(cache)], env=environment, check=False)
    assert done.returncode == 9
    after = load_file(cache)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
