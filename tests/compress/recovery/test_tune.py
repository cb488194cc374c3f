"""Tuning: it learns, keeps the best, stops in time, and says why it cannot."""

from collections.abc import Iterator
from functools import partial
from math import log

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress.recovery.tune import Epoch, tune
from tenfold.core.errors import DataError, DivergedError, ModelError, OptionError
from tenfold.data import digits
from tenfold.measure import accuracy
from tenfold.zoo import digits_cnn

Batch = tuple[Tensor, Tensor]


def halves(count: int = 64, seed: int = 0) -> list[Batch]:
    """Points of the plane, labelled by their side; in batches of 16."""
    inputs = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return list(zip(inputs.split(16), (inputs[:, 0] > 0).long().split(16), strict=True))


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


def mean_loss(model: nn.Module, batches: list[Batch]) -> float:
    inputs, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    return nn.functional.cross_entropy(model(inputs), labels).item()


def test_tuning_learns_the_digits_in_two_epochs() -> None:
    torch.manual_seed(0)
    train, test = digits()
    train = train.normalized()
    batches = test.normalized(train.mean, train.std).batches(512)
    model = digits_cnn()
    shuffled = train.batches(64, shuffle=True, generator=torch.Generator().manual_seed(0))
    tuned = tune(model, shuffled, batches, epochs=2, lr=2e-3, schedule="cosine")
    assert accuracy(model, batches) == tuned.trace[tuned.best - 1].valid_accuracy
    assert accuracy(model, batches) >= 0.97


def test_zero_epochs_change_nothing_and_read_nothing() -> None:
    model = linear()
    before = model.weight.clone()
    tuned = tune(model, [], [], epochs=0)
    assert tuned.trace == () and tuned.best == 0 and not tuned.stopped_early
    assert torch.equal(model.weight, before)


def test_the_trace_holds_true_losses_and_accuracies() -> None:
    model, batches = linear(), halves()
    tuned = tune(model, batches, batches, epochs=3, lr=0.1)
    assert [epoch.number for epoch in tuned.trace] == [1, 2, 3]
    assert tuned.best == 3
    assert tuned.trace[-1].valid_loss == pytest.approx(mean_loss(model, batches), rel=1e-5)
    assert tuned.trace[-1].valid_accuracy == accuracy(model, batches)
    assert all(epoch.seconds > 0 for epoch in tuned.trace)
    assert tuned.trace[-1].train_loss < tuned.trace[0].train_loss < log(2) + 1


def test_tuning_never_raises_the_validation_loss() -> None:
    model, valid = linear(), halves(seed=1)
    before = mean_loss(model, valid)
    wrong = [(inputs, 1 - labels) for inputs, labels in halves()]
    tune(model, wrong, valid, epochs=2, lr=0.01)
    tune(model, halves(), valid, epochs=5, lr=0.1)
    good = mean_loss(model, valid)
    weight = model.weight.clone()
    tuned = tune(model, wrong, valid, epochs=5, lr=1.0)
    assert good < before
    assert tuned.best == 0
    assert torch.equal(model.weight, weight)


def test_buffers_come_back_with_the_weights() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), linear())
    valid = halves()
    tune(model, valid, valid, epochs=5, lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wrong = [(inputs + 9, 1 - labels) for inputs, labels in valid]
    assert tune(model, wrong, valid, epochs=2, lr=1.0).best == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tuning_stops_after_patience_epochs_without_a_new_best() -> None:
    model, valid = linear(), halves()
    tune(model, valid, valid, epochs=20, lr=0.1)
    wrong = [(inputs, 1 - labels) for inputs, labels in valid]
    tuned = tune(model, wrong, valid, epochs=10, lr=0.5, patience=2)
    assert len(tuned.trace) == 2 and tuned.stopped_early


def test_without_patience_all_epochs_run_and_the_best_comes_back() -> None:
    model, valid = linear(), halves()
    wrong = [(inputs, 1 - labels) for inputs, labels in valid]
    tuned = tune(model, wrong, valid, epochs=6, lr=0.5, patience=None)
    assert len(tuned.trace) == 6 and tuned.best == 0 and not tuned.stopped_early


def test_without_validation_data_the_last_weights_stay() -> None:
    model = linear()
    tuned = tune(model, halves(), epochs=4, lr=0.1, patience=1)
    assert tuned.best == len(tuned.trace) == 4
    assert tuned.trace[0].valid_loss is None and tuned.trace[0].valid_accuracy is None
    assert mean_loss(model, halves()) < tuned.trace[0].train_loss


def test_the_same_start_and_data_give_the_same_weights() -> None:
    first, second = linear(), linear()
    for model in (first, second):
        tune(model, halves(), epochs=3)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.1] * 4), ("cosine", [0.1, 0.1 * (0.5 + 0.125**0.5), 0.05, 0.1 * (0.5 - 0.125**0.5)])],
)
def test_the_learning_rate_follows_the_schedule(schedule: str, expected: list[float]) -> None:
    rates: list[float] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])

    tune(linear(), halves()[:1], epochs=4, lr=0.1, optimizer=Recorder, schedule=schedule)  # type: ignore[arg-type]
    assert rates == pytest.approx(expected)


def test_one_epoch_of_sgd_is_the_textbook_step() -> None:
    model, twin = linear(), linear()
    (batch,) = halves(16)
    tune(model, [batch], epochs=1, lr=0.1, weight_decay=0.5, optimizer=partial(torch.optim.SGD, momentum=0.9))
    nn.functional.cross_entropy(twin(batch[0]), batch[1]).backward()
    assert twin.weight.grad is not None
    torch.testing.assert_close(model.weight, twin.weight - 0.1 * (twin.weight.grad + 0.5 * twin.weight))


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(linear(0), linear(1))
    model[0].requires_grad_(False)
    before = model[0].weight.clone(), model[1].weight.clone()
    tune(model, halves(), epochs=1)
    assert torch.equal(model[0].weight, before[0])
    assert not torch.equal(model[1].weight, before[1])


def test_training_is_in_training_mode_and_each_module_gets_its_mode_back() -> None:
    modes: list[bool] = []
    model = nn.Sequential(nn.Dropout(0.1).eval(), linear()).eval()
    model[0].register_forward_hook(lambda module, *_: modes.append(module.training))
    batches = halves(16)
    tune(model, batches, batches, epochs=1)
    assert modes == [False, True, False]
    assert not any(module.training for module in model.modules())


def test_progress_sees_every_epoch() -> None:
    seen: list[Epoch] = []
    tuned = tune(linear(), halves(), epochs=3, progress=seen.append)
    assert tuple(seen) == tuned.trace


def test_an_infinite_loss_is_an_error_with_a_remedy_and_the_best_weights_stay() -> None:
    model = linear()
    before = model.weight.clone()
    bad = [*halves(16), (torch.full((16, 2), torch.inf), torch.zeros(16, dtype=torch.int64))]
    with pytest.raises(DivergedError, match=r"became nan in epoch 1\.\nUse a smaller learning rate"):
        tune(model.eval(), bad, halves(), epochs=2, lr=0.1)
    assert torch.equal(model.weight, before)
    assert not model.training


def test_a_last_step_that_spoils_the_weights_is_an_error_without_validation_too() -> None:
    batches = [(torch.ones(1, 2), torch.tensor([0]))]
    with pytest.raises(DivergedError, match=r"'weight' holds NaN or infinite entries after epoch 1"):
        tune(linear(), batches, epochs=1, loss=lambda outputs, labels: (0 * outputs).abs().sqrt().sum())


def test_weights_that_start_with_an_infinite_loss_are_replaced_by_better_ones() -> None:
    model = linear()
    with torch.no_grad():
        model.weight.fill_(1e38)
    valid = [(torch.full((1, 2), 100.0), torch.tensor([0]))]
    decay_to_zero = [(torch.zeros(1, 2), torch.tensor([0]))]
    tuned = tune(model, decay_to_zero, valid, epochs=1, lr=1.0, weight_decay=1.0, optimizer=torch.optim.SGD)
    assert tuned.best == 1
    assert not model.weight.any()


def test_a_generator_is_an_error_in_the_second_epoch() -> None:
    batches: Iterator[Batch] = iter(halves())
    with pytest.raises(DataError, match=r"gave no batches in epoch 2\.\nPass a list or DataLoader"):
        tune(linear(), batches, epochs=2)


def test_an_empty_validation_set_is_an_error_before_training() -> None:
    with pytest.raises(DataError, match="no batches to evaluate on"):
        tune(linear(), halves(), [], epochs=1)


def test_labels_that_are_all_left_out_are_an_error_that_says_so() -> None:
    ignored = [(x, torch.full_like(labels, -100)) for x, labels in halves()]
    with pytest.raises(DataError, match=r"No label of the training data counts in epoch 1: all are -100\."):
        tune(linear(), ignored, epochs=1)
    with pytest.raises(DataError, match=r"No label of the data to evaluate on counts: all are -100\."):
        tune(linear(), halves(), ignored, epochs=1)
    tuned = tune(linear(), ignored[:1] + halves(), ignored[:1] + halves(), epochs=1)
    assert tuned.trace[0].valid_loss is not None


def test_a_model_without_trainable_parameters_is_an_error() -> None:
    with pytest.raises(ModelError, match="Linear has no parameter to train"):
        tune(linear().requires_grad_(False), halves(), epochs=1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"epochs": -1}, "a whole number of epochs >= 0, got -1"),
        ({"lr": 0.0}, "a finite lr > 0, got 0.0"),
        ({"lr": float("nan")}, "a finite lr > 0, got nan"),
        ({"weight_decay": -0.1}, "a finite weight_decay >= 0, got -0.1"),
        ({"patience": 0}, "a whole patience >= 1 or None, got 0"),
        ({"schedule": "linear"}, "a schedule of constant or cosine, got 'linear'"),
    ],
)
def test_options_out_of_range_are_an_error(options: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionError, match=f"Tuning needs {problem}"):
        tune(linear(), halves(), **{"epochs": 1, **options})  # type: ignore[arg-type]
