"""Tuning on Accelerate: precision, clipping, several processes, and nothing left behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn

from tenfold.compress.recovery.distill import cosine_distance
from tenfold.compress.recovery.tune import tune
from tenfold.core.errors import OptionError


def batches(count: int = 64) -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return list(zip(inputs.split(16), (inputs[:, 0] > 0).long().split(16), strict=True))


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def test_bf16_computes_in_bf16_and_keeps_weights_and_validation_in_float32() -> None:
    seen: list[tuple[bool, torch.dtype]] = []
    model = linear()
    model.register_forward_hook(lambda module, _, output: seen.append((module.training, output.dtype)))
    tuned = tune(model, batches(), batches(), epochs=20, lr=0.1, precision="bf16")
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert model.weight.dtype == torch.float32
    assert tuned.trace[-1].valid_accuracy is not None and tuned.trace[-1].valid_accuracy > 0.9


def test_the_angle_to_a_teacher_is_taken_in_float32_whatever_the_products_are_computed_in() -> None:
    """In bfloat16 the cosine of vectors that are nearly parallel rounds to 1, and leaves nothing to learn."""
    student, teacher = torch.tensor([[1.0, 0.03125]]), torch.tensor([[1.0, 0.0]])
    wanted = cosine_distance(student, teacher).item()
    assert wanted == pytest.approx(0.5 * 0.03125**2, rel=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        given = cosine_distance(student.bfloat16(), teacher.bfloat16())
    assert given.item() == pytest.approx(wanted)


def test_precisions_follow_one_another_and_leave_no_state() -> None:
    losses = [
        tune(linear(), batches(), epochs=1, precision=precision).trace[0].train_loss  # type: ignore[arg-type]
        for precision in ("no", "bf16", "no")
    ]
    assert losses[0] == losses[2] != losses[1] == pytest.approx(losses[0], rel=0.02)
    assert not PartialState._shared_state and not AcceleratorState._shared_state


def test_an_accelerator_of_the_caller_lives_on() -> None:
    try:
        own = Accelerator(mixed_precision="bf16", cpu=True)
        tune(linear(), batches(), epochs=1)
        assert own.mixed_precision == "bf16" and own.device.type == "cpu"
        with own.autocast():
            assert linear()(torch.ones(1, 2)).dtype == torch.bfloat16
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_fp16_on_a_cpu_is_an_error() -> None:
    with pytest.raises(
        OptionError, match=r"fp16 needs a GPU, but the model is on the CPU\.\nUse precision=\"bf16\""
    ):
        tune(linear(), batches(), epochs=1, precision="fp16")
    assert not AcceleratorState._shared_state


def test_clipping_shortens_the_step_to_its_norm() -> None:
    model, before = linear(), linear()
    tune(model, batches()[:1], epochs=1, lr=1.0, optimizer=torch.optim.SGD, clip=1e-3)
    step = torch.cat(
        [(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    )
    assert step.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_label_smoothing_is_in_training_alone() -> None:
    model, (batch, *_) = linear(), batches()
    plain, smooth = (
        nn.functional.cross_entropy(model(batch[0]), batch[1], label_smoothing=s).item() for s in (0.0, 0.2)
    )
    tuned = tune(model, [batch], [batch], epochs=1, lr=1e-12, label_smoothing=0.2)
    assert tuned.trace[0].train_loss == pytest.approx(smooth, rel=1e-5)
    assert tuned.trace[0].valid_loss == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"precision": "int8"}, "a precision of no or bf16 or fp16, got 'int8'"),
        ({"clip": 0.0}, "clip > 0 or None, got 0.0"),
        ({"label_smoothing": 1.5}, "label_smoothing in 0..1, got 1.5"),
    ],
)
def test_options_out_of_range_are_an_error(options: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionError, match=f"Tuning needs {problem}"):
        tune(linear(), batches(), epochs=1, **options)  # type: ignore[arg-type]


PROGRAM = """
import gc
import sys
import torch
from torch import nn
from tenfold.compress.recovery.distill import Distillation
from tenfold.compress.recovery.tune import tune

def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

inputs = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
data = list(zip(inputs.split(16), (inputs[:, 0] > 0).long().split(16)))
model = net(0)
told = []
sgd = torch.optim.SGD
tuned = tune(model, data, data, epochs=3, lr=0.1, optimizer=sgd, progress=told.append, resume=sys.argv[1])
again = tune(net(0), data, data, epochs=3, lr=0.1, optimizer=sgd, resume=sys.argv[1])
assert [e.valid_loss for e in again.trace] == [e.valid_loss for e in tuned.trace]
features = Distillation(logit_weight=0, label_weight=0, features=("0",))
taught = tune(model, inputs.split(16), epochs=2, lr=0.1, teacher=net(1), distillation=features)
assert taught.trace[1].train_loss < taught.trace[0].train_loss
student, teacher, named = net(4), net(5), [{"input": x} for x in inputs.split(16)]
cosine = Distillation(label_weight=0, outputs="cosine")
nearer = tune(student, named, named, epochs=3, lr=0.1, optimizer=sgd, teacher=teacher, distillation=cosine)
assert nearer.trace[-1].valid_loss < nearer.trace[0].valid_loss and nearer.trace[0].valid_accuracy is None
sums = torch.stack([value.double().sum() for value in model.state_dict().values()])
every = [torch.zeros_like(sums) for _ in range(2)]
torch.distributed.all_gather(every, sums)
assert torch.equal(*every), every
one, twin = net(2)[0], net(2)[0]
decay = lambda model: 0.05 * model.weight.square().sum()
tune(one, data[:4], epochs=2, lr=0.1, optimizer=sgd, penalty=decay)
joint = [tuple(map(torch.cat, zip(*data[k : k + 2]))) for k in (0, 2)]
for batch, labels in joint * 2:
    loss = nn.functional.cross_entropy(twin(batch), labels) + decay(twin)
    for parameter, slope in zip(twin.parameters(), torch.autograd.grad(loss, tuple(twin.parameters()))):
        parameter.data -= 0.1 * slope
torch.testing.assert_close(one.weight, twin.weight)
assert len(told) == (3 if torch.distributed.get_rank() == 0 else 0)
gc.collect()
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "program.py"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
