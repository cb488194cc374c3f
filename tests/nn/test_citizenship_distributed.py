"""Factorized layers in two processes: DDP and FSDP2 give the gradients of one process."""

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tenfold.nn import FactorizedConv, FactorizedLinear, in_pairs_, joint_random
from tenfold.testing.calls import results, trained
from tenfold.testing.compare import assert_equal
from tenfold.testing.layer_cases import cases

RANKS = 2
LAYERS = {
    "Linear": "tt",
    "Bilinear": "cp",
    "Conv2d": "tucker",
    "ConvTranspose2d": "ht",
    "Embedding": "tr",
    "EmbeddingBag": "lowrank",
    "LSTM": "kronecker",
    "MultiheadAttention": "block_term",
    "TransformerEncoderLayer": "sliced_lowrank",
    "TRL": "tucker",
    "TCL": "",
}
"""A layer of each kind, and its format."""


class Joint(nn.Module):
    """Three layers of one tensor, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        dense = [nn.Linear(8, 8, dtype=torch.float64) for _ in range(3)]
        self.layers = joint_random(dense, 3, "tucker", "o i -> o i")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Kernel(nn.Module):
    """A convolution whose factor of several taps lies in channels-last memory."""

    def __init__(self) -> None:
        super().__init__()
        layout = "o i h w -> (o h w) i"
        self.conv = FactorizedConv(8, 6, (3, 3), rank=4, format="lowrank", layout=layout, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def of_case(layer: str, format: str) -> tuple[nn.Module, Callable[[int], tuple[Tensor, ...]]]:
    case = cases(layer, format)[0]
    call = case.call()

    def inputs(rank: int) -> tuple[Tensor, ...]:
        first, *others = call.inputs()
        return (first.flip(0) if rank else first, *others)

    return case.make(), inputs


def on_shape(layer: nn.Module, *shape: int) -> tuple[nn.Module, Callable[[int], tuple[Tensor, ...]]]:
    def inputs(rank: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(rank)
        return (torch.randn(shape, dtype=torch.float64, generator=generator),)

    return layer, inputs


def complex_pairs() -> nn.Module:
    class Modulus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = in_pairs_(FactorizedLinear(6, 4, rank=2, bias=False, dtype=torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.to(torch.complex128)).abs()

    return Modulus()


def models() -> dict[str, tuple[nn.Module, Callable[[int], tuple[Tensor, ...]]]]:
    torch.manual_seed(0)
    return {
        **{layer: of_case(layer, format) for layer, format in LAYERS.items()},
        "joint": on_shape(Joint(), 3, 8),
        "kernel": on_shape(Kernel(), 2, 8, 5, 5),
        "pairs": on_shape(complex_pairs(), 3, 6),
    }


def loss(layer: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    return sum(((y**2).mean() for y in results(layer(*inputs))), torch.zeros(()))


def mean_gradients(layer: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]]) -> list[Tensor]:
    """What all processes together should find."""
    total = sum((loss(layer, inputs(rank)) for rank in range(RANKS)), torch.zeros(())) / RANKS
    return list(torch.autograd.grad(total, trained(layer)))


def assert_grads(layer: nn.Module, wanted: list[Tensor], law: str) -> None:
    for p, g in zip(trained(layer), wanted, strict=True):
        found = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
        assert_equal(found, g, law)


def check_ddp(name: str, layer: nn.Module, inputs: Any, rank: int) -> None:
    wanted, twin = mean_gradients(layer, inputs), copy.deepcopy(layer)
    parallel = DistributedDataParallel(twin)  # which has to live until the gradients are there
    loss(parallel, inputs(rank)).backward()
    assert_grads(twin, wanted, f"{name} under DDP")


def check_fsdp(name: str, layer: nn.Module, inputs: Any, rank: int, each: bool) -> None:
    """The whole layer as one group, or each of its parts by itself."""
    wanted, twin = mean_gradients(layer, inputs), copy.deepcopy(layer)
    if each:
        for part in [m for m in twin.modules() if isinstance(m, FactorizedLinear | nn.Linear)]:
            fully_shard(part)
    fully_shard(twin)
    assert_equal(loss(twin, inputs(rank)).detach(), loss(layer, inputs(rank)).detach(), f"{name} under FSDP2")
    loss(twin, inputs(rank)).backward()
    assert_grads(twin, wanted, f"{name} under FSDP2")
    whole = StateDictOptions(full_state_dict=True)
    state, own = get_model_state_dict(twin, options=whole), layer.state_dict()
    assert set(state) == set(own)
    for key in own:
        assert_equal(state[key], own[key], f"the state of {name} under FSDP2")
    once = {key for key, _ in layer.named_parameters()}  # of shared ones the first name, see below
    options = StateDictOptions(full_state_dict=True, strict=len(once) == len(own))
    set_model_state_dict(twin, {key: 2 * t for key, t in own.items() if key in once}, options=options)
    double = copy.deepcopy(layer)
    double.load_state_dict({key: 2 * t for key, t in own.items()})
    assert_equal(
        loss(twin, inputs(rank)).detach(), loss(double, inputs(rank)).detach(), f"{name}, a loaded state"
    )


class Both(nn.Module):
    """A layer of torch's own under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = self.one


def check_that_torch_loads_no_second_names() -> None:
    """A gap of torch: a full state goes into modules under FSDP2 by their first names only."""
    model = Both()
    state = model.state_dict()
    with pytest.raises(RuntimeError, match=r"got mixed torch.Tensor and DTensor"):
        set_model_state_dict(fully_shard(model), state, options=StateDictOptions(full_state_dict=True))


def work(rank: int, store: str, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    problems = []
    for name in names:
        layer, inputs = models()[name]
        laws = {
            "DDP": lambda a, b, c: check_ddp(a, b, c, rank),
            "FSDP2": lambda a, b, c: check_fsdp(a, b, c, rank, False),
        }
        if name in ("LSTM", "MultiheadAttention", "TransformerEncoderLayer"):
            laws["FSDP2, part by part"] = lambda a, b, c: check_fsdp(a, b, c, rank, True)
        for law, check in laws.items():
            try:
                check(name, layer, inputs)
            except Exception as error:
                problems.append(f"{name}, {law}: {type(error).__name__}: {error}")
    check_that_torch_loads_no_second_names()
    gc.collect()  # a DDP that outlives its process group may stand still: torch joins threads under the GIL
    dist.destroy_process_group()
    assert not problems, "\n".join(problems)


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize(
    "names",
    [
        ("Linear", "kernel", "joint", "pairs"),
        pytest.param((*LAYERS, "kernel", "joint", "pairs"), marks=pytest.mark.slow),
    ],
    ids=["few", "all"],
)
def test_two_processes_find_the_gradients_and_states_of_one(names: tuple[str, ...], tmp_path: Path) -> None:
    mp.spawn(work, args=(str(tmp_path / "store"), names), nprocs=RANKS)
