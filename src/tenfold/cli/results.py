"""What subcommands measure, and the table they make of it."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import torch
from torch import Tensor, nn

from tenfold.cli.bars import Bars, Batches
from tenfold.compress import LayerFit, Plan
from tenfold.compress.opening import opened
from tenfold.measure import Measurement, accuracy, flops, interleaved, nbytes, parameters
from tenfold.report import LayerLine

BATCH = 32
PASSES, SECONDS = (5, 20), 20.0


def measurements(
    models: Mapping[str, nn.Module], example: Tensor, batches: Batches | None, bars: Bars
) -> dict[str, Measurement]:
    """Numbers of several models, timed in turn: FLOPs of one input, the latency of the whole example."""
    with bars.bar(f"Timing {len(models)} models"):
        once = interleaved(models, example, warmup=1, repeats=1)
        fitting = int(SECONDS / sum(time.median for time in once.values()))
        times = interleaved(models, example, repeats=min(max(fitting, PASSES[0]), PASSES[1]))
    return {
        name: Measurement(
            params=parameters(model),
            bytes=nbytes(model),
            flops=flops(model, example[:1]),
            latency=times[name],
            accuracy=None if batches is None else checked(model, batches, f"Testing {name}", bars),
        )
        for name, model in models.items()
    }


def checked(model: nn.Module, batches: Batches, text: str, bars: Bars) -> float:
    """The accuracy, under a bar."""
    with bars.bar(text, len(batches)) as bar:
        return accuracy(model, bar.watching(batches))


def layer_lines(dense: nn.Module, plan: Plan, fits: Sequence[LayerFit]) -> tuple[LayerLine, ...]:
    """What each site became, in the order of the dense model, opened."""
    dense = opened(dense)
    lines = {f.name: _fitted(f) for f in fits}
    for name, reason in plan.dense.items():
        weight = dense.get_parameter(name)
        size = weight.numel()
        lines[name] = LayerLine(name, tuple(weight.shape), params_before=size, params_after=size, note=reason)
    return tuple(lines[name] for name, _ in dense.named_parameters() if name in lines)


def _fitted(fit: LayerFit) -> LayerLine:
    note = "" if fit.converged else f"not converged after {fit.steps} steps"
    return LayerLine(
        fit.name,
        fit.shape,
        fit.plan.format,
        fit.plan.layout,
        fit.plan.ranks,
        fit.dense,
        fit.stored,
        fit.error,
        note,
    )


def costs_note(example: Tensor) -> str:
    """What FLOPs and latency are of."""
    shape = "×".join(map(str, example.shape[1:]))
    return (
        f"FLOPs: one input of {shape}. Latency: a batch of {len(example)}, median, "
        f"all models in turn, {example.device}, threads: {torch.get_num_threads()}."
    )


def circumstances(seed: int, **more: str) -> dict[str, str]:
    """How the numbers came about."""
    return {
        "tenfold": version("tenfold"),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
        "seed": str(seed),
        **more,
    }
