"""Calibration of transposed convolutions: channels in, outputs scaled to the positions of the inputs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.calibration.calibrate import collect
from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.transposed_calls import gradient_patches
from tenfold.compress.sites import find_sites

ALL = frozenset(observers)
CASES: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.ConvTranspose2d(4, 6, 3),
    "strided": lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "with gaps": lambda: nn.ConvTranspose2d(4, 6, 2, stride=3, output_padding=(2, 1)),
    "dilated": lambda: nn.ConvTranspose2d(4, 6, 3, dilation=2, padding=2),
    "output padding by dilation": lambda: nn.ConvTranspose2d(4, 6, 3, dilation=3, output_padding=2),
    "grouped": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    "depthwise": lambda: nn.ConvTranspose2d(4, 8, 3, padding=1, groups=4),
    "pointwise": lambda: nn.ConvTranspose2d(4, 6, 1),
    "1-D": lambda: nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1),
    "3-D": lambda: nn.ConvTranspose3d(4, 6, (1, 2, 3), stride=(1, 2, 1), groups=2),
}
LENGTHS = {nn.ConvTranspose1d: (9,), nn.ConvTranspose2d: (4, 5), nn.ConvTranspose3d: (2, 3, 4)}


def problem(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier that begins with this layer, inputs, labels."""
    torch.manual_seed(0)
    layer = CASES[name]()
    x = torch.randn(5, 4, *LENGTHS[type(layer)], dtype=torch.float64) + 0.3
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    model(x)
    return model, x, torch.arange(5) % 3


def seen(model: nn.Module, batches: Any, x: Tensor, want: Any = ALL, **options: Any) -> SiteStatistics:
    return collect(model, batches, find_sites(model, x), want=want, **options)["0.weight"]


def per_sample(model: nn.Module, x: Tensor, labels: Tensor) -> Iterator[Any]:
    """For each sample alone: gradient by the layer's outputs, and by its weight."""
    for one, label in zip(x, labels, strict=True):
        kept: list[Tensor] = []
        handle = model[0].register_forward_hook(lambda m, a, y, kept=kept: kept.append(y) or y.clone())
        loss = F.cross_entropy(model(one[None]), label[None])
        handle.remove()
        yield torch.autograd.grad(loss, [kept[0], model[0].weight])


@pytest.mark.parametrize("name", CASES)
def test_statistics_are_those_of_their_formulas(name: str) -> None:
    model, x, labels = problem(name)
    layer, found = model[0], seen(model, [(x, labels)], x)
    y, groups = layer(x).detach(), layer.groups
    columns = x.movedim(1, 0).reshape(groups, 4 // groups, -1)
    outputs = y.movedim(1, 0).flatten(1)
    assert (found.count, found.output_count) == (columns.shape[-1], outputs.shape[-1])
    mean, moment = columns.mean(-1), columns @ columns.mT / columns.shape[-1]
    if groups == 1:
        mean, moment = mean[0], moment[0]
    torch.testing.assert_close(found.input_mean, mean)
    torch.testing.assert_close(found.input_covariance, moment)
    assert found.patch_moment is found.input_covariance
    torch.testing.assert_close(found.output_covariance, outputs @ outputs.T / outputs.shape[1])
    by_output, by_weight = zip(*per_sample(model, x, labels), strict=True)
    g = torch.cat(by_output).movedim(1, 0).flatten(1)
    ratio = found.count / found.output_count
    torch.testing.assert_close(found.gradient_covariance, ratio * g @ g.T / 5)
    squared = (
        torch.stack(by_weight).square().mean(0).reshape(groups, 4 // groups, -1, layer.weight[0, 0].numel())
    )
    torch.testing.assert_close(found.fisher_rows, squared.sum((1, 3)).flatten())
    torch.testing.assert_close(found.fisher_columns, squared.sum((0, 2, 3)))


@pytest.mark.parametrize("name", CASES)
def test_patches_of_output_gradients_give_the_gradient_of_the_weight(name: str) -> None:
    model, x, _ = problem(name)
    layer = model[0]
    y = layer(x)
    g = torch.randn(y.shape, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((y * g).sum(), layer.weight)
    patches = gradient_patches(g, tuple(x.shape[2:]), layer)
    for k in range(layer.groups):
        inputs = x.chunk(layer.groups, 1)[k].movedim(1, 0).flatten(1)
        spread = patches.chunk(layer.groups, 1)[k].movedim(1, 0).flatten(1)
        torch.testing.assert_close((inputs @ spread.T).flatten(), wanted.chunk(layer.groups)[k].flatten())


@pytest.mark.parametrize("max_bytes", [1, 3000, 2**28])
@pytest.mark.parametrize("name", ["strided", "grouped"])
def test_neither_batches_nor_pieces_change_the_statistics(name: str, max_bytes: int) -> None:
    model, x, labels = problem(name)
    whole = seen(model, [(x, labels)], x)
    cut = seen(model, zip(x.split(3), labels.split(3), strict=True), x, max_bytes=max_bytes)
    for field, tensor in whole.tensors().items():
        torch.testing.assert_close(tensor, cut.tensors()[field], rtol=1e-10, atol=1e-12, msg=field)


def test_thinning_keeps_the_scale() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    x, labels = torch.randn(6, 2, 1, 1, dtype=torch.float64).expand(6, 2, 20, 20), torch.arange(6) % 3
    whole, thin = (seen(model, [(x, labels)], x, ALL, positions=n) for n in (None, 50))
    torch.testing.assert_close(whole.input_covariance, thin.input_covariance)
    torch.testing.assert_close(whole.gradient_covariance, thin.gradient_covariance)


def test_an_input_without_a_batch_is_one_sample() -> None:
    model, x = nn.Sequential(nn.ConvTranspose1d(4, 6, 3)).double(), torch.randn(4, 7, dtype=torch.float64)
    found = seen(model, [x], x, {"input_covariance"})
    torch.testing.assert_close(found.input_covariance, x @ x.T / 7)


def test_an_output_size_is_taken() -> None:
    """Given in the call; what is added at the end has no gradient by the weight."""

    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.head = nn.ConvTranspose1d(4, 6, 3, stride=2), nn.Linear(60, 3)
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.up(input=x, output_size=[10]).flatten(1))

    model, x = Sized(), torch.randn(4, 4, 4, dtype=torch.float64)
    found = collect(model, [x], find_sites(model, x), want=ALL)["up.weight"]
    assert (found.count, found.output_count) == (16, 40)
    assert found.fisher_rows is not None and bool((found.fisher_rows > 0).all())
