"""Factorized layers for inference: products of factors with factors are worked out once."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from tenfold.core.errors import OptionError
from tenfold.core.program import Conv, Merge, Program, Shuffle, Step, Transposed, View
from tenfold.nn import FactorizedConvTranspose, FactorizedLayer
from tenfold.nn.bonds.dropout import resting
from tenfold.nn.execute import merge, run, view
from tenfold.nn.memory import in_memory_order, repeated


class FoldedLayer(nn.Module):
    """The program of a factorized layer without its merges, over weights that are ready for its steps."""

    def __init__(self, layer: FactorizedLayer) -> None:
        super().__init__()
        self.program, weights = folded(layer.program, resting(layer.weight).factors())
        self.names = tuple(f"weight_{k}" for k in range(len(weights)))
        for name, weight in zip(self.names, weights, strict=True):
            self.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        self.bias = (
            None if layer.bias is None else nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
        )
        self.ends = layer.ends if isinstance(layer, FactorizedConvTranspose) else None

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """What the factorized layer computes; the batch of a convolution may be missing.

        `output_size` is for transposed convolutions alone.
        """
        ends = None
        if output_size is not None:
            if self.ends is None:
                raise OptionError("output_size came for a layer that is not transposed.", "Leave it out.")
            ends = self.ends(x.shape, output_size)
        alone = bool(self.program.dimensions) and x.ndim == self.program.dimensions + 1
        batch, weights = x.unsqueeze(0) if alone else x, [getattr(self, name) for name in self.names]
        y = run(self.program, batch, weights, self.bias, ends)
        return y.squeeze(0) if alone else y

    def extra_repr(self) -> str:
        """The steps."""
        return ", ".join(self.program.kinds)


def fold(model: nn.Module) -> nn.Module:
    """A copy for inference, in which no factor meets a factor when the model runs.

    It can hold more elements than the factors do, up to those of the dense weight where the planner found it
    cheapest to make that; it can be saved as a state dict but not trained. Embeddings and bilinear layers
    stay as they are.

    >>> from tenfold.nn import FactorizedConv
    >>> layer = FactorizedConv(64, 64, (3, 3), rank=16, format="cp", layout="o i h w -> o i h w")
    >>> layer.program.kinds
    ('merge', '1x1', 'depthwise 3x3', '1x1')
    >>> fold(layer)
    FoldedLayer(1x1, depthwise 3x3, 1x1)
    """
    if isinstance(model, FactorizedLayer) and _folds(model):
        return FoldedLayer(model).eval()
    copy = deepcopy(model)
    made: dict[int, FoldedLayer] = {}
    for name, layer in list(copy.named_modules(remove_duplicate=False)):
        if isinstance(layer, FactorizedLayer) and _folds(layer):
            parent, _, child = name.rpartition(".")
            setattr(copy.get_submodule(parent), child, made.setdefault(id(layer), FoldedLayer(layer)))
    return copy.eval()


def _folds(layer: FactorizedLayer) -> bool:
    """Whether one activation runs through the steps."""
    return not layer.program.gathers and layer.program.inputs == 1


@torch.no_grad()
def folded(program: Program, factors: list[Tensor]) -> tuple[Program, list[Tensor]]:
    """The program without merges, and for each of its steps the weight in the shape that it takes."""
    buffers = [f.detach() for f in factors]
    weights: list[Tensor] = []
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Merge):
            buffers.append(merge(step, buffers[step.left], buffers[step.right]))
        elif isinstance(step, Shuffle):
            steps.append(step)
        else:
            weight = view(buffers[step.weight], step.view)
            step = step._replace(weight=len(weights), view=View())
            if isinstance(step, Conv | Transposed) and step.spectators > 1:
                weight, step = repeated(weight, step.spectators), step._replace(spectators=1)
            steps.append(step)
            weights.append(in_memory_order(weight))
    lines = [line for line in program.lines if line.kind != "merge"]
    return Program(tuple(steps), (), tuple(lines), program.bias_last, program.dimensions), weights
