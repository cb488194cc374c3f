"""Learning from a teacher: the terms are what they say, and the student comes nearer."""

from copy import deepcopy
from math import log

import pytest
import torch
from torch import Tensor, nn

from tenfold.compress.recovery.distill import Distillation, distillation_loss
from tenfold.compress.recovery.tune import tune
from tenfold.core.errors import DataError, ModelError, OptionError, SelectionError, ShapeError


def net(seed: int, width: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 3))


def inputs(count: int = 64) -> list[Tensor]:
    return list(torch.randn(count, 4, generator=torch.Generator().manual_seed(0)).split(16))


def labelled() -> list[tuple[Tensor, Tensor]]:
    return [(x, x[:, :3].argmax(1)) for x in inputs()]


LOGITS = Distillation(logit_weight=1.0, label_weight=0.0)
FEATURES = Distillation(logit_weight=0.0, label_weight=0.0, features=("0",))


def test_the_distillation_loss_is_the_divergence_at_that_temperature_times_its_square() -> None:
    outputs, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[4 * log(3.0), 0.0]])
    expected = 16 * (0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5))
    assert distillation_loss(outputs, teacher, 4.0).item() == pytest.approx(expected, rel=1e-5)


def test_the_gradient_at_a_high_temperature_is_that_of_the_difference_of_centred_logits() -> None:
    outputs, teacher = torch.randn(2, 5, 3, dtype=torch.float64)
    outputs.requires_grad_()
    distillation_loss(outputs, teacher, 1e4).backward()
    apart = (outputs - teacher).detach()
    expected = (apart - apart.mean(1, keepdim=True)) / (3 * 5)
    torch.testing.assert_close(outputs.grad, expected, rtol=1e-3, atol=1e-4)


def test_an_identical_teacher_has_no_loss_and_teaches_nothing() -> None:
    model = net(0)[0]
    before = model.weight.clone()
    sgd = torch.optim.SGD  # Adam would blow roundings up to whole steps
    how = {"teacher": deepcopy(model), "distillation": LOGITS}
    tuned = tune(model, inputs(16), epochs=1, lr=0.1, optimizer=sgd, **how)  # type: ignore[arg-type]
    assert tuned.trace[0].train_loss == 0.0
    torch.testing.assert_close(model.weight, before, rtol=0, atol=1e-7)


def test_a_student_learns_its_teachers_outputs_without_labels() -> None:
    student, teacher = net(0), net(1)
    for module in (student, teacher):
        module[2].p = 0.0
    tuned = tune(student, inputs(), epochs=60, lr=0.02, teacher=teacher, distillation=LOGITS)
    assert tuned.trace[-1].train_loss < 0.05 * tuned.trace[0].train_loss


def test_matching_features_brings_them_nearer_and_leaves_what_comes_after_alone() -> None:
    student, teacher = net(0), net(1)
    last = student[3].weight.clone()
    tuned = tune(student, inputs(), epochs=40, lr=0.05, teacher=teacher, distillation=FEATURES)
    x = torch.cat(inputs())
    error = (student[0](x) - teacher[0](x)).square().sum() / teacher[0](x).square().sum()
    assert error < 0.01 < 0.5 < tuned.trace[0].train_loss
    assert torch.equal(student[3].weight, last)


def test_a_feature_that_is_all_zeros_counts_by_its_absolute_square() -> None:
    student, teacher = net(0), net(1)
    with torch.no_grad():
        teacher[0].bias.fill_(-100.0)
    how = Distillation(logit_weight=0.0, label_weight=0.0, features=("1",))
    wanted = sum(student[:2](x).square().sum().item() for x in inputs()) / len(inputs())
    tuned = tune(student, inputs(), epochs=20, lr=1e-2, teacher=teacher, distillation=how)
    assert tuned.trace[0].train_loss == pytest.approx(wanted, rel=0.3)
    assert tuned.trace[-1].train_loss < 0.5 * tuned.trace[0].train_loss


def test_features_of_other_names_are_matched_as_the_mapping_says() -> None:
    student, teacher = nn.Sequential(net(0)), net(1)
    how = Distillation(logit_weight=0, label_weight=0, features={"0.0": "0"})
    tuned = tune(student, inputs(), epochs=20, lr=0.05, teacher=teacher, distillation=how)
    assert tuned.trace[-1].train_loss < 0.2 * tuned.trace[0].train_loss


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    teacher = net(1).eval()

    def first_loss(**weights: float) -> float:
        how = Distillation(
            temperature=2.0, **{"logit_weight": 0.0, "label_weight": 0.0, **weights}, features=("0",)
        )  # type: ignore[arg-type]
        student = net(0)
        student[2].p = 0.0
        tuned = tune(student, labelled()[:1], epochs=1, teacher=teacher, distillation=how)
        return tuned.trace[0].train_loss

    parts = [
        first_loss(label_weight=1.0, feature_weight=0.0),
        first_loss(logit_weight=1.0, feature_weight=0.0),
        first_loss(feature_weight=1.0),
    ]
    mixed = first_loss(label_weight=0.5, logit_weight=2.0, feature_weight=3.0)
    assert mixed == pytest.approx(0.5 * parts[0] + 2.0 * parts[1] + 3.0 * parts[2], rel=1e-5)


def test_the_teacher_is_in_evaluation_mode_meanwhile_and_comes_back_as_it_was() -> None:
    teacher = net(1).train()
    modes: list[bool] = []
    teacher[2].register_forward_hook(lambda module, *_: modes.append(module.training))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    tune(net(0), labelled(), epochs=1, teacher=teacher, distillation=Distillation(features=("0",)))
    assert modes == [False] * 4 and all(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher[0]._forward_hooks


def test_a_teacher_alone_is_distilled_from_as_usual() -> None:
    first, second = (net(0) for _ in range(2))
    torch.manual_seed(0)
    tune(first, labelled(), epochs=1, teacher=net(1))
    torch.manual_seed(0)
    tune(second, labelled(), epochs=1, teacher=net(1), distillation=Distillation())
    assert torch.equal(first[0].weight, second[0].weight)


@pytest.mark.parametrize("batches", [inputs(), [(x,) for x in inputs()], [[x] for x in inputs()]])
def test_batches_may_be_inputs_alone_unless_labels_count(batches: list[Tensor]) -> None:
    teacher = net(1)
    assert tune(net(0), batches, epochs=1, teacher=teacher, distillation=LOGITS).trace[0].train_loss > 0
    with pytest.raises(DataError, match=r"a batch has inputs alone\.\nGive \(inputs, labels\)"):
        tune(net(0), batches, epochs=1, teacher=teacher)
    with pytest.raises(DataError, match="a batch has inputs alone"):
        tune(net(0), batches, epochs=1)


def test_the_best_epoch_and_early_stopping_go_by_the_labels() -> None:
    student, teacher = net(0), net(1)
    valid = [(x, y) for x, y in labelled()]
    tune(student, valid, valid, epochs=20, lr=0.05)
    tuned = tune(student, inputs(), valid, epochs=9, lr=0.3, teacher=teacher, distillation=LOGITS, patience=2)
    assert tuned.stopped_early and tuned.best == 0 and len(tuned.trace) == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"temperature": 0.0}, r"a finite temperature > 0, got 0\.0"),
        ({"logit_weight": -1.0}, r"finite weights >= 0, got \(-1\.0, 0\.1, 1\.0\)"),
        ({"logit_weight": 0.0, "label_weight": 0.0}, "a term whose weight is above 0"),
        ({"features": "layer1"}, "features as a tuple, got 'layer1'"),
    ],
)
def test_options_out_of_range_are_an_error(options: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionError, match=f"Distillation needs {problem}"):
        Distillation(**options)  # type: ignore[arg-type]


def test_teachers_that_do_not_fit_are_an_error() -> None:
    model = net(0)
    with pytest.raises(ModelError, match="The teacher is the model itself"):
        tune(model, inputs(), epochs=1, teacher=model)
    with pytest.raises(OptionError, match="a teacher to distil from, got None"):
        tune(model, inputs(), epochs=1, distillation=LOGITS)
    with pytest.raises(ShapeError, match=r"outputs of shape \(16, 3\), the teacher \(16, 8\)"):
        tune(model, inputs(), epochs=1, teacher=net(1)[0], distillation=LOGITS)
    with pytest.raises(ShapeError, match=r"'0' gives \(16, 8\), but \(16, 5\) is wanted"):
        tune(model, inputs(), epochs=1, teacher=net(1, width=5), distillation=FEATURES)
    missing = Distillation(features=("O",))
    with pytest.raises(SelectionError, match="Sequential has no module 'O'"):
        tune(model, inputs(), epochs=1, teacher=net(1), distillation=missing)
    assert not model[0]._forward_hooks
