"""Training in one process or in many: an Accelerator for one call, and each process's share of the data.

In one process the model stays where it is. Started several times over by `accelerate launch` (or torchrun),
every process trains a replica on its own device, and gradients are averaged.
"""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    broadcast,
    synchronize_rng_states,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tenfold.core.errors import OptionError, UnsupportedError
from tenfold.measure.running import device_of

T = TypeVar("T")
Precision = Literal["no", "bf16", "fp16"]
SHARED = PartialState, AcceleratorState, GradientState
SHARDED = {
    DistributedType.FSDP,
    DistributedType.DEEPSPEED,
    DistributedType.MEGATRON_LM,
    DistributedType.XLA,
}


@contextmanager
def accelerating(model: nn.Module, precision: Precision) -> Iterator[Accelerator]:
    """An Accelerator of one's own, and the model on its device.

    What Accelerate keeps for the whole process is afterwards as it was, so that calls of any precision follow
    one another, and an Accelerator of the caller's lives on.

    Raises:
        OptionError: for float16 on a CPU.
        UnsupportedError: under FSDP, DeepSpeed, Megatron or XLA.
    """
    with _own_state():
        every = GradientAccumulationPlugin(num_steps=1)  # a step a batch, whatever the environment says
        accelerator = Accelerator(
            mixed_precision=precision, cpu=_on_cpu(model), gradient_accumulation_plugin=every
        )
        _check(accelerator, precision)
        if accelerator.num_processes > 1:
            model.to(accelerator.device)
        yield accelerator
        if accelerator.num_processes > 1:
            gc.collect()  # DDP refers to itself, and torch may stand still if it outlives its process group


@contextmanager
def _own_state() -> Iterator[None]:
    before = [dict(kind._shared_state) for kind in SHARED]
    for kind in SHARED:
        kind._shared_state.clear()
    try:
        yield
    finally:
        for kind, state in zip(SHARED, before, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(state)


def _on_cpu(model: nn.Module) -> bool:
    """Whether to train on the CPU, where the model is; one of several processes takes a GPU if it can."""
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    return device_of(model).type == "cpu" and not (several and torch.accelerator.is_available())


def averaging(accelerator: Accelerator, loss: nn.Module, whole: bool) -> nn.Module:
    """What gives the loss of a batch: `loss`, in several processes wrapped so that gradients are averaged.

    Not `whole`: some parameters have no part in the loss, which then has to be looked for in every step.
    """
    if accelerator.num_processes == 1:
        return loss
    devices = None if accelerator.device.type == "cpu" else [accelerator.device]
    return DistributedDataParallel(loss, device_ids=devices, find_unused_parameters=not whole)


def share(accelerator: Accelerator, batches: Iterable[T]) -> Iterator[T]:
    """One batch of every `num_processes`, as many in each process: the last few are repeated if need be."""
    rank, count = accelerator.process_index, accelerator.num_processes
    source = iter(batches)
    while group := list(islice(source, count)):
        yield group[rank % len(group)]


def part(accelerator: Accelerator, batches: Iterable[T]) -> Iterator[T]:
    """One batch of every `num_processes`, none twice; some processes may get one more than others."""
    return islice(batches, accelerator.process_index, None, accelerator.num_processes)


def total(accelerator: Accelerator, *values: float) -> tuple[float, ...]:
    """Sums over all processes."""
    if accelerator.num_processes == 1:
        return values
    sums = accelerator.reduce(torch.tensor(values, device=accelerator.device, dtype=torch.float64), "sum")
    return tuple(sums.tolist())


def align_draws(accelerator: Accelerator, generators: Iterable[torch.Generator]) -> None:
    """In several processes: all draw what the first one draws, so that they shuffle alike."""
    if accelerator.num_processes > 1:
        synchronize_rng_states(["torch"])
        for generator in generators:
            synchronize_rng_states(["generator"], generator)


def align_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """In several processes: all take the running statistics of the first."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            broadcast(buffer)


def _check(accelerator: Accelerator, precision: Precision) -> None:
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise OptionError(
            "Precision fp16 needs a GPU, but the model is on the CPU.",
            'Use precision="bf16", which a CPU can, or move the model: model.to("cuda").',
        )
    if accelerator.distributed_type in SHARDED:
        raise UnsupportedError(
            f"Tuning keeps whole models in every process, but is launched as {accelerator.distributed_type}.",
            "Use 'accelerate launch --multi_gpu', or a training loop of your own.",
        )
