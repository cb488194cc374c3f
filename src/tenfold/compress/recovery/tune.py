"""Training a model on batches: the dense baseline, and fine-tuning after compression, also with a teacher."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tenfold.compress.batches import Batches, Forward
from tenfold.compress.recovery.best import Best
from tenfold.compress.recovery.distill import Distillation
from tenfold.compress.recovery.objective import Loss, Penalty, objective
from tenfold.compress.recovery.options import Options, check_smoothing
from tenfold.compress.recovery.processes import Precision, accelerating
from tenfold.compress.recovery.run import Run, record_of, trained
from tenfold.compress.recovery.schedule import Schedule
from tenfold.compress.recovery.trace import Epoch, Tuned
from tenfold.core.atomic import StrPath
from tenfold.core.errors import ModelError
from tenfold.measure.running import device_of, keeping_mode

Optimizer = Callable[..., torch.optim.Optimizer]


def tune(
    model: nn.Module,
    train: Batches,
    valid: Batches | None = None,
    *,
    epochs: int,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: Optimizer = torch.optim.Adam,
    schedule: Schedule = "constant",
    patience: int | None = 3,
    teacher: nn.Module | None = None,
    distillation: Distillation | None = None,
    label_smoothing: float = 0.0,
    loss: Loss | None = None,
    forward: Forward | None = None,
    penalty: Penalty | None = None,
    precision: Precision = "no",
    clip: float | None = None,
    resume: StrPath | None = None,
    progress: Callable[[Epoch], object] | None = None,
) -> Tuned:
    """Train `model` in place with the cross-entropy, a teacher or both, on the device where it is.

    `train` and `valid` give (inputs, labels), or inputs alone where no labels are needed, and are read once
    an epoch: a list or a DataLoader, not a generator. Inputs are a tensor, a tuple of arguments or a mapping
    of named ones; a pair of arguments without labels is ((a, b), None). With `valid`, the weights of the
    lowest validation loss come back, so tuning never raises it: the weights at the start count too. Training
    stops after `patience` epochs without a new lowest loss (`None`: never). Without `valid`, the last weights
    stay. The whole model trains: layers which were in evaluation mode are in training mode meanwhile; to
    freeze parameters, turn off their `requires_grad`.

    The validation loss is the one with the labels, whatever is minimised. Only with a teacher and a label
    weight of 0 it may be the distance from the teacher: where `valid` gives no labels, or the outputs are not
    logits and there is no `loss`.

    Under `accelerate launch` with several processes each one trains on its share of the batches, of which
    every process reads all, and the model moves to the process's device. A step then takes one batch of every
    process. They shuffle alike if the order comes from torch's own generator or from `train.generator`.

    Args:
        optimizer: called as `optimizer(parameters, lr=lr, weight_decay=weight_decay)`: a class of
            `torch.optim`, or `partial(torch.optim.SGD, momentum=0.9)`.
        schedule: the learning rate, "constant" or falling to zero as half a "cosine", changed once an epoch.
        teacher: a model to imitate, most often the one before compression; not changed.
        distillation: how; `Distillation()` by default. With a label weight of 0 no labels are needed.
        label_smoothing: how much of each label is spread over all classes, in training alone.
        loss: called as `loss(outputs, labels)` in place of the cross-entropy, with labels of None where a
            batch has none; gives the mean over the samples. Without it, outputs are logits, or have them as
            their entry or attribute `logits` or come first, and labels of -100 do not count.
        forward: called as `forward(model, batch)` with a batch on the model's device, for the model and the
            teacher; what it returns are the outputs. By default the model is called with the inputs.
        penalty: called as `penalty(model)`, and added to the loss of every training step, in full precision.
        precision: "bf16" or "fp16" (on a GPU) computes the products of training in that type. Weights and
            validation stay in theirs.
        clip: the largest norm of the gradient of all parameters together; longer ones are shortened to it.
        resume: a file for the state after every epoch. If it is there, the run goes on from it, and ends with
            what an uninterrupted one would have given, bit for bit on one CPU, if `train` draws from torch's
            own generator or `train.generator` alone (not from `random` or NumPy). A finished run is not
            repeated. Give the model as at the start, or as tuning left it with a file (an interrupted run
            without `valid` leaves the weights of the file), and the same functions: of `loss`, `forward` and
            `penalty` the file tells only whether there were some.
        progress: called with each new `Epoch` when it is done, by the first process alone.

    Raises:
        OptionError: for an option outside its range, or a loss or penalty that is not one number.
        ModelError: if no parameter is trainable, or the teacher is the model or shares
            weights with it that learn.
        SelectionError: if a feature to match is not the name of a module.
        DataError: if `train` or `valid` gives no batches, or labels are wanted and missing or all -100; if
            the inputs of `valid` are not finite.
        ShapeError: if outputs do not fit the labels, or those of the teacher.
        DivergedError: if the training loss is not finite; the best weights so far stay.
        CheckpointError: if the file of `resume` is something else, or of another model or other options.

    >>> _ = torch.manual_seed(0)
    >>> inputs = torch.randn(64, 2)
    >>> batches = [(inputs, (inputs[:, 0] > 0).long())]
    >>> tuned = tune(nn.Linear(2, 2), batches, batches, epochs=50, lr=0.1)
    >>> tuned.trace[-1].valid_accuracy > 0.95
    True
    """
    options = Options(epochs, lr, weight_decay, schedule, patience, label_smoothing, precision, clip)
    check_smoothing(label_smoothing, loss)
    if epochs == 0:
        return Tuned((), 0, False)
    parameters = _trainable(model)
    with (
        keeping_mode(model),
        accelerating(model, precision) as accelerator,
        objective(
            model, teacher, distillation, device_of(model),
            label_smoothing=label_smoothing, loss=loss, forward=forward, penalty=penalty,
        ) as wanted,
        Best(model, valid, accelerator, wanted) as best,
    ):  # fmt: skip
        base = optimizer(parameters, lr=lr, weight_decay=weight_decay)
        stepper = accelerator.prepare_optimizer(base, device_placement=False)
        run = Run(model, train, wanted, stepper, accelerator, best, options)
        record = None if resume is None else record_of(run, base, Path(resume))
        return trained(run, record, progress)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(
            f"{type(model).__name__} has no parameter to train.",
            "Set requires_grad of those that shall be tuned: model.requires_grad_(True) is all of them.",
        )
    return parameters
