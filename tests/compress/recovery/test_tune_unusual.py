"""Tuning and rebuilding on data and models as people have them: caches, soft labels, groups, environments."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.distill import Distillation
from tenfold.compress.recovery.outputs import Classes
from tenfold.compress.recovery.reconstruct import reconstruct_
from tenfold.compress.recovery.tune import tune
from tenfold.compress.training.admm import admm_
from tenfold.core.errors import CheckpointError, DataError, ModelError, OptionError, SelectionError
from tenfold.testing.compare import assert_equal


class Remembering(nn.Module):
    """A block that joins its input to what a cache holds, as decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, x: Tensor, cache: list[Tensor]) -> Tensor:
        cache.append(self.map(x))
        mean: Tensor = torch.stack(cache).mean(0)
        return mean


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Remembering()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x, [])
        return y


@pytest.mark.parametrize("stored", [False, True])
def test_caches_that_blocks_fill_are_not_shared(stored: bool) -> None:
    torch.manual_seed(0)
    small, dense, x = Decoder(), Decoder(), torch.randn(16, 3)
    (block,) = reconstruct_(small, dense, [x], ["block"], epochs=300, lr=0.03, stored=stored)
    assert block.before > 0.3 and block.after < 0.01
    assert_equal(small(x), dense(x), "rebuilt", tol=0.05)


def points(*shape: int) -> Tensor:
    return torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("labels", [(points(3)[:, :1] > 0).float(), points(2)], ids=["one column", "numbers"])
def test_numbers_that_are_no_probabilities_want_a_loss(labels: Tensor) -> None:
    model = nn.Linear(3, labels.shape[1])
    with pytest.raises(DataError, match="no probabilities of classes"):
        tune(model, [(points(3), labels)], epochs=1)


def test_probabilities_may_be_the_labels_of_validation() -> None:
    batch = points(3), points(4).softmax(1)
    batch[1][-1] = 0.0  # counts nothing
    (epoch,) = tune(nn.Linear(3, 4), [batch], [batch], epochs=1).trace
    assert epoch.valid_loss is not None and epoch.valid_accuracy is None


def test_labels_of_eight_bits_are_never_ignored() -> None:
    labels = torch.full((16,), 156)
    losses = [
        tune(nn.Linear(3, 200), [(points(3), labels.to(kind))], epochs=1, lr=1e-9).trace[0].train_loss
        for kind in (torch.uint8, torch.int64)
        if torch.manual_seed(0)
    ]
    assert losses[0] == losses[1] > 0


def test_where_classes_are_is_learnt_from_batches_that_show_it() -> None:
    tokens = nn.functional.one_hot(torch.tensor([[0, 1, 2], [2, 1, 1]]), 3).float()
    labels = tokens.argmax(-1)
    for shown, wanted in [((2, 4, 3), tokens.movedim(-1, 1)), ((2, 3, 4), tokens)]:
        classes = Classes()
        classes.second(torch.zeros(shown), torch.zeros(2, 4, dtype=torch.int64))
        assert torch.equal(classes.second(tokens, labels), wanted)
    with pytest.warns(UserWarning, match="axis 1 is taken"):
        assert torch.equal(Classes().second(tokens, labels), tokens)
    assert torch.equal(Classes().second({"logits": tokens}, labels), tokens.movedim(-1, 1))


def data() -> list[tuple[Tensor, Tensor]]:
    return [(points(3), (points(3)[:, 0] > 0).long())]


def test_learning_rates_of_groups_keep_their_ratio() -> None:
    made: list[torch.optim.Optimizer] = []

    def groups(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        first, second = parameters
        made.append(torch.optim.SGD([{"params": [first], "lr": lr / 100}, {"params": [second]}], lr=lr))
        return made[0]

    tune(nn.Linear(3, 2), data(), epochs=2, lr=0.1, schedule="cosine", optimizer=groups)
    assert [group["lr"] for group in made[0].param_groups] == pytest.approx([5e-4, 5e-2])


def test_every_batch_is_a_step_of_its_own_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def moved() -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        before = model.weight.detach().clone()
        tune(model, data(), epochs=1, lr=1.0, optimizer=torch.optim.SGD)
        assert model.weight.grad is None, "gradients do not outlive the training"
        return model.weight.detach() - before

    expected = moved()
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert_equal(moved(), expected, "one step")


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.a(x, x, x)[0].mean(1))
        return y


def test_a_feature_that_does_not_run_is_named() -> None:
    batch = points(5, 4), data()[0][1]
    how = Distillation(features=("a.out_proj",))
    with pytest.raises(SelectionError, match=r"'a\.out_proj' does not run"):
        tune(Attending(), [batch], epochs=1, teacher=Attending(), distillation=how)


def test_a_teacher_does_not_learn_along() -> None:
    head = nn.Linear(3, 2)
    model, teacher = (nn.Sequential(nn.Linear(3, 3), head) for _ in range(2))
    with pytest.raises(ModelError, match=r"'1\.weight' in common"):
        tune(model, data(), epochs=1, teacher=teacher)
    head.requires_grad_(False)
    assert tune(model, data(), epochs=1, teacher=teacher).trace


class Stop(Exception):
    pass


def test_a_run_that_went_on_from_where_it_was_goes_on_from_the_start_too(tmp_path: Path) -> None:
    def until(number: int) -> Any:
        def stop(epoch: Any) -> None:
            if epoch.number == number:
                raise Stop

        return stop

    model, path = nn.Linear(3, 2), tmp_path / "record"
    start = deepcopy(model)
    for number in (1, 2):
        with pytest.raises(Stop):
            tune(model, data(), epochs=3, resume=path, progress=until(number))
    assert len(tune(start, data(), epochs=3, resume=path).trace) == 3


PLAN = Plan({"0": {"weight": LayerPlan("lowrank", "o i -> o i", {"R": 1})}})


def test_training_towards_a_format_goes_on_from_an_interrupted_round_and_from_the_start(
    tmp_path: Path,
) -> None:
    def learning(broken: int) -> Any:
        def learn(model: nn.Module, penalty: Any, number: int) -> None:
            tune(model, data(), epochs=1, lr=0.1, penalty=penalty)
            if number == broken:
                raise Stop

        return learn

    model, path = nn.Sequential(nn.Linear(3, 2)), tmp_path / "record"
    start = deepcopy(model)
    for broken in (1, 3):
        with pytest.raises(Stop):
            admm_(model, PLAN, learning(broken), rounds=4, tol=0.0, resume=path)
    assert len(admm_(start, PLAN, learning(0), rounds=4, tol=0.0, resume=path).trace) == 5


def test_a_frozen_weight_is_not_drawn_to_a_format() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    with pytest.raises(ModelError, match=r"'0\.weight' is frozen"):
        admm_(model, PLAN, lambda *_: None)


@pytest.mark.parametrize("labels", [[0, 1] * 8, {"y": torch.zeros(16)}], ids=["list", "dict"])
def test_labels_that_are_no_tensor_are_refused_where_they_count(labels: Any) -> None:
    with pytest.raises(DataError, match="needs a tensor"):
        tune(nn.Linear(3, 2), [(points(3), labels)], epochs=1)
    batch, how = (points(3), labels), Distillation(label_weight=0.0)
    assert tune(nn.Linear(3, 2), [batch], [batch], epochs=1, teacher=nn.Linear(3, 2), distillation=how).trace


def test_records_say_which_numbers_they_cannot_hold(tmp_path: Path) -> None:
    model, x = nn.Linear(3, 2, dtype=torch.complex128), points(3).to(torch.complex128)
    with pytest.raises(CheckpointError, match="complex128"):
        tune(model, [(x, None)], epochs=1, loss=lambda y, _: y.abs().mean(), resume=tmp_path / "record")


def test_a_batch_norm_may_be_called_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(input=x)
            return y

    net, x = Named(), 3 * points(3) + 1
    reestimate_batchnorm_(net, [x])
    assert_equal(net.norm.running_mean, x.mean(0), "the mean", tol=1e-5)


@pytest.mark.parametrize("options", [{"epochs": 2.0}, {"patience": 1.5}])
def test_epochs_are_whole_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="a whole"):
        tune(nn.Linear(3, 2), data(), **{"epochs": 1, **options})


def test_schedules_of_rebuilding_are_checked_before_it_begins() -> None:
    small, dense = (nn.Sequential(nn.Linear(3, 3)) for _ in range(2))
    with pytest.raises(OptionError, match="a schedule of constant or cosine"):
        reconstruct_(small, dense, [points(3)], ["0"], schedule="linear")  # type: ignore[arg-type]
