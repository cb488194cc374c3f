"""Tuning takes what models take: several inputs, named ones, outputs of any kind, losses of one's own."""

from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.recovery.batchnorm import reestimate_batchnorm_
from tenfold.compress.recovery.distill import Distillation, cosine_distance, square_distance
from tenfold.compress.recovery.reconstruct import reconstruct_
from tenfold.compress.recovery.trace import Epoch, Tuned
from tenfold.compress.recovery.tune import tune
from tenfold.core.errors import CheckpointError, DataError, OptionError, ShapeError

SGD = torch.optim.SGD


class Pooled(nn.Module):
    """A text encoder in small: tokens and their mask in, an embedding for each token out."""

    def __init__(self, seed: int, width: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(11, width)
        self.mix = nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"hidden": self.mix(self.embed(ids)) * mask.unsqueeze(-1)}


def pooled(model: nn.Module, batch: Any) -> Tensor:
    inputs = batch if isinstance(batch, dict) else batch[0]
    hidden = model(**inputs)["hidden"] if isinstance(inputs, dict) else model(*inputs)["hidden"]
    mask = inputs["mask"] if isinstance(inputs, dict) else inputs[1]
    return hidden.sum(1) / mask.sum(1, keepdim=True)


def texts(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(11, (count, 6), generator=generator)
    mask = (torch.arange(6) < torch.randint(1, 7, (count, 1), generator=generator)).float()
    return ids, mask, (ids[:, 0] > 5).long()


def splits(size: int = 16) -> list[tuple[Tensor, ...]]:
    return list(zip(*(part.split(size) for part in texts()), strict=True))


SHAPES: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "mapping": lambda ids, mask, y: ({"ids": ids, "mask": mask}, y),
    "arguments": lambda ids, mask, y: [(ids, mask), y],
}


def without_time(tuned: Tuned) -> Tuned:
    return replace(tuned, trace=tuple(replace(epoch, seconds=0.0) for epoch in tuned.trace))


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_by_name_and_by_place_train_alike(shape: str) -> None:
    batches = [SHAPES[shape](*split) for split in splits()]
    model, twin = Pooled(0), Pooled(0)
    tuned = tune(model, batches, batches, epochs=30, lr=0.05, forward=pooled)
    pairs = [((ids, mask), y) for ids, mask, y in splits()]
    assert without_time(tuned) == without_time(tune(twin, pairs, pairs, epochs=30, lr=0.05, forward=pooled))
    assert tuned.trace[-1].valid_accuracy is not None and tuned.trace[-1].valid_accuracy > 0.8
    assert torch.equal(model.mix.weight, twin.mix.weight)


def test_without_a_forward_the_model_is_called_with_its_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.linear(a - b)

    a, b = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
    labels = (a[:, 0] > b[:, 0]).long()
    for inputs in ((a, b), {"b": b, "a": a}):
        tuned = tune(Two(), [(inputs, labels)], [(inputs, labels)], epochs=60, lr=0.1)
        assert tuned.trace[-1].valid_accuracy is not None and tuned.trace[-1].valid_accuracy > 0.95


@pytest.mark.parametrize("outputs", ["square", "cosine"])
def test_embeddings_are_distilled_without_labels_and_stop_by_their_distance(outputs: Any) -> None:
    student, teacher = Pooled(0), Pooled(1)
    batches = [{"ids": ids, "mask": mask} for ids, mask, _ in splits(40)]
    how = Distillation(label_weight=0, logit_weight=2.0, outputs=outputs)
    tuned = tune(
        student, batches, batches, epochs=300, lr=0.05, teacher=teacher, distillation=how, forward=pooled
    )
    distance = {"square": square_distance, "cosine": cosine_distance}[outputs]
    with torch.no_grad():
        own, wanted = pooled(student, batches[0]), pooled(teacher, batches[0])
    best = tuned.trace[tuned.best - 1]
    assert best.valid_loss == pytest.approx(2 * distance(own, wanted).item(), rel=1e-4)
    assert best.valid_accuracy is None
    assert best.valid_loss < 0.1 * tuned.trace[0].train_loss


def test_the_distance_of_the_outputs_is_scaled_by_its_weight() -> None:
    def first(weight: float) -> float:
        how = Distillation(label_weight=0, logit_weight=weight, outputs="cosine")
        batches = [SHAPES["mapping"](*split)[:1] for split in splits(40)]
        teaching: dict[str, Any] = {"teacher": Pooled(1), "distillation": how, "forward": pooled}
        return tune(Pooled(0), batches, epochs=1, **teaching).trace[0].train_loss

    assert first(3.0) == pytest.approx(3 * first(1.0))


def test_a_distillation_of_embeddings_goes_by_its_distance_even_where_there_are_labels() -> None:
    how = Distillation(label_weight=0, outputs="cosine")
    batches = [SHAPES["mapping"](*split) for split in splits()]
    tuned = tune(Pooled(0), batches, batches, epochs=1, teacher=Pooled(1), distillation=how, forward=pooled)
    assert tuned.trace[0].valid_accuracy is None


def test_without_labels_in_validation_the_logits_of_the_teacher_decide() -> None:
    inputs = list(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).split(16))
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    how = Distillation(label_weight=0)
    tuned = tune(
        student, inputs, inputs, epochs=60, lr=0.05, schedule="cosine", teacher=teacher, distillation=how,
        patience=None,
    )  # fmt: skip
    assert tuned.best > 40 and tuned.trace[0].valid_accuracy is None
    assert tuned.trace[-1].valid_loss < 1e-3 < tuned.trace[0].valid_loss  # type: ignore[operator]
    labels = [(x, teacher(x).argmax(1)) for x in inputs]
    with pytest.raises(DataError, match="a batch has inputs alone"):
        tune(student, labels, inputs, epochs=1)
    with pytest.raises(DataError, match="a batch has inputs alone"):
        tune(student, labels, inputs, epochs=1, teacher=teacher)


def test_a_regression_with_a_loss_of_ones_own_finds_the_line() -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 3)
    line = torch.tensor([[1.0, -2.0, 0.5]])
    batches = list(zip(x.split(24), F.linear(x, line).split(24), strict=True))
    model = nn.Linear(3, 1)
    tuned = tune(
        model, batches, batches, epochs=60, lr=0.1, loss=F.mse_loss, schedule="cosine", patience=None
    )
    torch.testing.assert_close(model.weight, line, rtol=0, atol=1e-2)
    whole = F.mse_loss(model(x), F.linear(x, line)).item()
    assert tuned.trace[tuned.best - 1].valid_loss == pytest.approx(whole, rel=1e-3)
    assert tuned.trace[-1].valid_accuracy is None


def test_a_loss_gets_no_labels_where_there_are_none_and_may_read_any_outputs() -> None:
    seen: list[Any] = []

    def loss(outputs: Any, labels: Any) -> Tensor:
        seen.append(labels)
        return outputs["hidden"].square().mean()

    batches = [{"ids": ids, "mask": mask} for ids, mask, _ in splits()]
    tuned = tune(Pooled(0), batches, batches, epochs=3, lr=0.05, loss=loss)
    assert set(seen) == {None}
    assert tuned.best == 3


def test_the_loss_takes_the_place_of_the_cross_entropy_beside_a_teacher() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def first(**weights: float) -> float:
        torch.manual_seed(0)
        model, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
        how = Distillation(outputs="square", **weights)  # type: ignore[arg-type]
        tuned = tune(model, [(x, x[:, :2])], epochs=1, loss=F.l1_loss, teacher=teacher, distillation=how)
        return tuned.trace[0].train_loss

    alone = first(label_weight=1.0, logit_weight=0.0), first(label_weight=0.0, logit_weight=1.0)
    assert first(label_weight=2.0, logit_weight=3.0) == pytest.approx(2 * alone[0] + 3 * alone[1])


def test_a_penalty_is_in_every_step_and_not_in_validation() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    x, labels = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        model.bias.zero_()
    before = model.weight.detach().clone()

    def penalty(model: nn.Module) -> Tensor:
        return 0.5 * model.get_parameter("weight").square().sum()

    tuned = tune(model, [(x, labels)] * 2, epochs=1, lr=0.1, optimizer=SGD, penalty=penalty)
    torch.testing.assert_close(model.weight, 0.81 * before)  # the loss does not depend on it
    first, second = (0.5 * (s * before).square().sum().item() for s in (1.0, 0.9))
    assert tuned.trace[0].train_loss == pytest.approx(log(2) + (first + second) / 2)
    tuned = tune(model, [(x, labels)], [(x, labels)], epochs=1, lr=0.1, optimizer=SGD, penalty=penalty)
    assert tuned.trace[0].valid_loss == pytest.approx(log(2))


def test_a_penalty_is_computed_in_full_precision() -> None:
    seen: list[torch.dtype] = []

    def penalty(model: nn.Module) -> Tensor:
        seen.append((model.get_parameter("weight") @ torch.ones(2, 2)).dtype)
        return torch.zeros(())

    x, labels = torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])
    tune(nn.Linear(2, 2), [(x, labels)], epochs=1, precision="bf16", penalty=penalty)
    assert seen == [torch.float32]


def tokens(ignored: bool) -> tuple[Tensor, Tensor]:
    x = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = x.argmax(2)
    return x, labels.where(torch.arange(5) < 3, -100) if ignored else labels


@pytest.mark.parametrize("ignored", [True, False])
def test_labels_of_tokens_count_but_the_ignored_ones(ignored: bool) -> None:
    x, labels = tokens(ignored)
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    tuned = tune(model, [(x, labels)], [(x, labels)], epochs=80, lr=0.1)
    kept = labels != -100
    expected = F.cross_entropy(model(x)[kept], labels[kept]).item()
    assert tuned.trace[tuned.best - 1].valid_loss == pytest.approx(expected, rel=1e-5)
    assert tuned.trace[tuned.best - 1].valid_accuracy == pytest.approx(
        (model(x)[kept].argmax(1) == labels[kept]).float().mean().item()
    )
    teacher = nn.Linear(3, 3)
    first, second = (
        tune(
            nn.Linear(3, 3),
            [batch],
            epochs=2,
            lr=0.1,
            teacher=teacher,
            distillation=Distillation(label_weight=0),
        )
        for batch in ((x, labels), x)
    )
    assert first.trace[0].train_loss > 0 and second.trace[0].train_loss > 0


def test_a_batch_with_nothing_but_ignored_labels_teaches_nothing() -> None:
    x, labels = tokens(False)
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone()
    data = [(x, torch.full_like(labels, -100)), (x, labels)]
    tune(model, data[:1] + data[1:], epochs=1, lr=1e-9, optimizer=SGD)
    torch.testing.assert_close(model.weight, before)


def test_outputs_with_logits_are_taken_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"hidden": x, "logits": self.linear(x)}

    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    data = [(x, (x[:, 0] > 0).long())]
    tuned = tune(Named(), data, data, epochs=40, lr=0.1)
    assert tuned.trace[-1].valid_accuracy is not None and tuned.trace[-1].valid_accuracy > 0.9


class Killed(Exception):
    """What a power cut would do."""


def test_a_killed_run_with_functions_of_ones_own_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    batches = [SHAPES["mapping"](*split) for split in splits()]
    how: dict[str, Any] = {
        "forward": pooled,
        "penalty": lambda model: model.mix.weight.square().sum(),
        "teacher": Pooled(1),
        "distillation": Distillation(label_weight=0, outputs="cosine"),
    }

    def kill(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise Killed

    whole, broken = Pooled(0), Pooled(0)
    expected = tune(whole, batches, batches, epochs=4, lr=0.05, **how)
    with pytest.raises(Killed):
        tune(broken, batches, batches, epochs=4, lr=0.05, resume=tmp_path / "run", progress=kill, **how)
    broken = Pooled(0)
    tuned = tune(broken, batches, batches, epochs=4, lr=0.05, resume=tmp_path / "run", **how)
    assert without_time(tuned) == without_time(expected)
    assert torch.equal(broken.mix.weight, whole.mix.weight)
    del how["penalty"]
    with pytest.raises(CheckpointError, match="penalty was True, and is None"):
        tune(Pooled(0), batches, batches, epochs=4, lr=0.05, resume=tmp_path / "run", **how)


def test_statistics_and_blocks_take_the_same_batches() -> None:
    class Normed(Pooled):
        def __init__(self, seed: int) -> None:
            super().__init__(seed)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
            return {"hidden": self.norm(super().forward(ids, mask)["hidden"].transpose(1, 2))}

    ids, mask, _ = texts()
    named = [{"ids": ids, "mask": mask}]
    means = []
    for batches in (named, [((ids, mask), None)], [[{"ids": ids, "mask": mask}]]):
        model = Normed(0)
        assert reestimate_batchnorm_(model, batches) == 40
        means.append(model.norm.running_mean)
    assert torch.equal(means[0], means[1]) and torch.equal(means[0], means[2])
    rebuilt = [
        reconstruct_(Normed(0), Normed(1), batches, ["mix"], epochs=5, lr=0.05)[0]
        for batches in (named, [((ids, mask), None)])
    ]
    assert rebuilt[0] == rebuilt[1] and rebuilt[0].after < rebuilt[0].before


def test_empty_batches_leave_statistics_alone() -> None:
    model = nn.BatchNorm1d(2)
    assert reestimate_batchnorm_(model, [torch.zeros(0, 2), torch.ones(3, 2)]) == 3
    with pytest.raises(DataError, match="no batches to take statistics from"):
        reestimate_batchnorm_(model, [torch.zeros(0, 2)])


def test_a_single_value_has_no_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    before = model[0].running_mean.clone()
    with pytest.raises(DataError, match=r"one value for each channel to BatchNorm1d\(2"):
        reestimate_batchnorm_(model, [torch.ones(1, 2), torch.ones(1, 2)])
    assert torch.equal(model[0].running_mean, before)


def test_a_last_batch_of_one_is_passed_over() -> None:
    x, model = torch.randn(8, 2), nn.BatchNorm1d(2)
    reestimate_batchnorm_(model, [torch.ones(1, 2), x[:4], x[4:], torch.ones(1, 2)])
    torch.testing.assert_close(model.running_mean, x.mean(0))
    torch.testing.assert_close(model.running_var, x.var(0))
    assert model.training


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"loss": lambda outputs, labels: outputs},
            r"The loss should give one number, .* but shape \(4, 2\)",
        ),
        ({"loss": lambda outputs, labels: 1.0}, "The loss should give one number, as a tensor, but float"),
        ({"penalty": lambda model: model.weight}, r"The penalty should give one number, .* shape \(2, 2\)"),
        ({"loss": F.mse_loss, "label_smoothing": 0.1}, r"label_smoothing=0\.1 is of the cross-entropy"),
    ],
)
def test_losses_and_penalties_that_are_not_one_number_are_an_error(
    options: dict[str, Any], problem: str
) -> None:
    data = [(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))]
    with pytest.raises(OptionError, match=problem):
        tune(nn.Linear(2, 2), data, epochs=1, **options)


def test_inputs_that_are_not_finite_are_told_from_weights_that_are_not() -> None:
    data = [(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))]
    bad = [(torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1]))]
    with pytest.raises(DataError, match="Inputs to validate on hold entries that are NaN"):
        tune(nn.Linear(2, 2), data, bad, epochs=1)


def test_outputs_and_teachers_that_do_not_fit_are_an_error() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(ShapeError, match=r"The model returns str, in which no tensor comes first"):
        tune(nn.Linear(2, 2), [(x, x[:, 0].long())], epochs=1, forward=lambda model, batch: "no")
    with pytest.raises(OptionError, match="outputs of logits, square, cosine, got 'mse'"):
        Distillation(outputs="mse")  # type: ignore[arg-type]
    how = Distillation(label_weight=0, outputs="cosine")
    with pytest.raises(ShapeError, match=r"outputs of shape \(4, 2\), the teacher \(4, 3\)"):
        tune(nn.Linear(2, 2), [x], epochs=1, teacher=nn.Linear(2, 3), distillation=how)


@pytest.mark.parametrize("valid", [False, True])
def test_labels_that_do_not_fit_the_outputs_are_an_error(valid: bool) -> None:
    def run(labels: Tensor) -> None:
        x = torch.zeros(4, 2)
        good, bad = (x, torch.tensor([0, 1, 0, 1])), (x, labels)
        tune(nn.Linear(2, 2), [good if valid else bad], [bad] if valid else None, epochs=1)

    with pytest.raises(ShapeError, match=r"Outputs of shape \(4, 2\) do not fit labels of shape \(4, 1\)"):
        run(torch.tensor([[0], [1], [0], [1]]))
    with pytest.raises(DataError, match=r"Labels lie in 0\.\.2, but there are 2 classes"):
        run(torch.tensor([0, 1, 2, 1]))
    run(torch.tensor([0, 1, 0, 1], dtype=torch.int32))


def test_probabilities_may_be_the_labels_of_training() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 3), torch.randn(32, 3)
    wanted = torch.softmax(2 * x, 1)
    tuned = tune(model, [(x, wanted)], epochs=100, lr=0.1)
    entropy = -(wanted * wanted.log()).sum(1).mean().item()
    assert entropy <= tuned.trace[-1].train_loss < entropy + 0.01
