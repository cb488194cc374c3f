"""Calibration: every statistic equals its definition, however the data are cut; the model stays as it was."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.calibration.calibrate import collect, collected
from tenfold.compress.calibration.calls import squared_sums
from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics, fingerprint
from tenfold.compress.sites import Site, find_sites
from tenfold.core.errors import (
    CheckpointError,
    DataError,
    ModelError,
    OptionError,
    SelectionError,
    ShapeError,
    TargetError,
    UnknownNameError,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
ALL = frozenset(observers)
CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2),
    "same": lambda: nn.Conv2d(4, 6, (2, 3), padding="same"),
    "valid": lambda: nn.Conv2d(4, 6, 3, padding="valid"),
    "reflect": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular", stride=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4),
    "pointwise": lambda: nn.Conv2d(4, 6, 1),
    "pointwise strided": lambda: nn.Conv2d(4, 6, 1, stride=2),
    "1-D": lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2),
    "3-D": lambda: nn.Conv3d(4, 6, (1, 2, 3), padding=(0, 1, 1), groups=2),
}
LENGTHS = {nn.Conv1d: (9,), nn.Conv2d: (6, 7), nn.Conv3d: (3, 4, 5)}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def classifier(layer: nn.Module, classes: int = 3) -> nn.Module:
    """The layer, and something behind it that makes logits of its outputs."""
    torch.manual_seed(0)
    flat = nn.Flatten() if not isinstance(layer, nn.Linear) else nn.Identity()
    return nn.Sequential(layer, nn.Tanh(), flat, nn.LazyLinear(classes)).double()


def convolution(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier that begins with this convolution, inputs, labels."""
    torch.manual_seed(0)
    conv = CONVOLUTIONS[name]()
    inputs = normal(5, 4, *LENGTHS[type(conv)]) + 0.3
    model = classifier(conv)
    model(inputs)
    return model, inputs, torch.arange(5) % 3


def perceptron() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).double()
    return model, normal(10, 4), torch.arange(10) % 3


def sites(model: nn.Module, example: Any) -> list[Site]:
    return find_sites(model, example)


def gather(model: nn.Module, batches: Any, example: Any, want: Any = ALL, **options: Any) -> Statistics:
    return collect(model, batches, sites(model, example), want=want, **options)


def assert_same(a: SiteStatistics, b: SiteStatistics, rtol: float = 1e-10) -> None:
    """Equal counts and tensors."""
    assert (a.count, a.output_count, a.samples) == (b.count, b.output_count, b.samples)
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        torch.testing.assert_close(tensor, b.tensors()[name], rtol=rtol, atol=1e-12, msg=name)


def moments(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return columns.mean(-1), columns @ columns.T / columns.shape[-1]


def per_sample(model: nn.Module, layer: nn.Module, inputs: Tensor, labels: Tensor) -> Iterator[Any]:
    """For each sample alone: gradient by the layer's outputs, and by its weight."""
    for x, label in zip(inputs, labels, strict=True):
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda m, a, y, kept=kept: kept.append(y) or y.clone())
        loss = F.cross_entropy(model(x[None]), label[None])
        handle.remove()
        yield torch.autograd.grad(loss, [kept[0], layer.weight])


def brute_patches(conv: nn.Module, inputs: Tensor) -> np.ndarray:
    """(groups, i · taps, positions): each weight entry's input, read off by setting it alone to one."""
    conv, numel = _copy(conv), conv.weight[0].numel()
    outputs, groups = conv.out_channels, conv.groups
    found = []
    for k in range(numel):
        weight = torch.zeros(numel, dtype=torch.float64)
        weight[k] = 1.0
        conv.weight.data = weight.reshape(conv.weight[:1].shape).expand_as(conv.weight).contiguous()
        y = conv(inputs).detach()[:, :: outputs // groups]
        found.append(y.movedim(1, 0).reshape(groups, -1))
    return torch.stack(found, 1).numpy()


def _copy(conv: nn.Module) -> nn.Module:
    twin = type(conv)(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
        conv.groups, False, conv.padding_mode,
    )  # fmt: skip
    return twin.double()


def test_linear_moments_are_those_of_numpy() -> None:
    model, inputs, labels = perceptron()
    seen = gather(model, [(inputs, labels)], inputs)["0.weight"]
    x, y = inputs.numpy(), model[0](inputs).detach().numpy()
    assert (seen.count, seen.output_count, seen.samples) == (10, 10, 10)
    np.testing.assert_allclose(seen.input_mean, x.mean(0))
    np.testing.assert_allclose(seen.input_covariance, x.T @ x / 10)
    np.testing.assert_allclose(seen.input_absolute, np.abs(x).mean(0))
    np.testing.assert_allclose(seen.output_mean, y.mean(0))
    np.testing.assert_allclose(seen.output_covariance, y.T @ y / 10)
    np.testing.assert_allclose(seen.input_centred, np.cov(x.T, bias=True))
    np.testing.assert_allclose(seen.output_centred, np.cov(y.T, bias=True))
    assert seen.patch_moment is seen.input_covariance and seen.patch_mean is seen.input_mean


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_moments_of_a_convolution_are_those_of_its_positions(name: str) -> None:
    model, inputs, labels = convolution(name)
    conv = model[0]
    seen = gather(model, [(inputs, labels)], inputs)["0.weight"]
    x = inputs.movedim(1, 0).reshape(conv.groups, 4 // conv.groups, -1).numpy()
    y = conv(inputs).detach().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(seen.input_absolute, np.abs(x).mean(-1).reshape(seen.input_mean.shape))
    assert (seen.count, seen.output_count) == (x.shape[-1], y.shape[-1])
    for got, want in zip((seen.input_mean, seen.input_covariance), stacked(x), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    for got, want in zip((seen.output_mean, seen.output_covariance), moments(y), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)
    patches = brute_patches(conv, inputs)
    for got, want in zip((seen.patch_mean, seen.patch_moment), stacked(patches), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def stacked(columns: np.ndarray) -> list[np.ndarray]:
    """Moments of each group; of one group without the axis."""
    means, seconds = zip(*(moments(c) for c in columns), strict=True)
    return [np.stack(m)[0] if len(m) == 1 else np.stack(m) for m in (means, seconds)]


def test_output_moment_is_that_of_the_patches() -> None:
    """E[y yᵀ] = W E[p pᵀ] Wᵀ without a bias: the order of the entries is that of the weight."""
    model, inputs, _ = convolution("strided")
    seen = gather(model, [inputs], inputs, {"patch_moment", "output_covariance"})["0.weight"]
    w = model[0].weight.detach().flatten(1)
    torch.testing.assert_close(seen.output_covariance, w @ seen.patch_moment @ w.T)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_are_those_of_each_sample_alone(name: str) -> None:
    model, inputs, labels = convolution(name)
    seen = gather(model, [(inputs, labels)], inputs)["0.weight"]
    by_output, by_weight = zip(*per_sample(model, model[0], inputs, labels), strict=True)
    g = torch.cat(by_output).movedim(1, 0).flatten(1)
    squared = torch.stack(by_weight).square().mean(0).flatten(1)
    torch.testing.assert_close(seen.gradient_covariance, g @ g.T / 5)
    torch.testing.assert_close(seen.fisher_rows, squared.sum(1))
    torch.testing.assert_close(seen.fisher_columns, squared.sum(0))


@pytest.mark.parametrize("shape", [(10, 4), (10, 3, 4), (10, 7, 2, 4)])
def test_gradients_of_linear_layers_are_those_of_each_sample_alone(shape: tuple[int, ...]) -> None:
    """Also before a ReLU in place, and with several positions a sample."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = perceptron()[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).flatten(1, -2).mean(1) if x.ndim > 2 else self.body(x)

    model, inputs, labels = Pooled(), normal(*shape), torch.arange(10) % 3
    found = gather(model, [(inputs, labels)], inputs)
    for k in (0, 2):
        seen = found[f"body.{k}.weight"]
        by_output, by_weight = zip(*per_sample(model, model.body[k], inputs, labels), strict=True)
        g = torch.cat(by_output).flatten(0, -2)
        squared = torch.stack(by_weight).square().mean(0)
        torch.testing.assert_close(seen.gradient_covariance, g.T @ g / 10)
        torch.testing.assert_close(seen.fisher_rows, squared.sum(1))
        torch.testing.assert_close(seen.fisher_columns, squared.sum(0))


@pytest.mark.parametrize("positions", [1, 50])
def test_squares_of_gradients_need_no_gradients(positions: int) -> None:
    g, p = normal(3, 2, 12, positions), normal(3, 2, 20, positions, seed=1)
    squared = (g @ p.mT).square()
    rows, columns = squared_sums(g, p)
    torch.testing.assert_close(rows, squared.sum((0, -1)))
    torch.testing.assert_close(columns, squared.sum((0, 1, 2)))


@pytest.mark.parametrize("name", ["plain", "circular", "grouped", "3-D"])
@pytest.mark.parametrize("max_bytes", [1, 3000, 2**28])
def test_neither_batches_nor_pieces_change_the_statistics(name: str, max_bytes: int) -> None:
    model, inputs, labels = convolution(name)
    whole = gather(model, [(inputs, labels)], inputs)
    halves = list(zip(inputs.split(3), labels.split(3), strict=True))
    cut = gather(model, halves, inputs, max_bytes=max_bytes)
    assert whole.samples == cut.samples == 5
    for site in whole:
        assert_same(whole[site], cut[site])


def test_memory_layout_plays_no_part() -> None:
    model, inputs, labels = convolution("grouped")
    last = inputs.contiguous(memory_format=torch.channels_last)
    strided = inputs.repeat_interleave(2, -1)[..., ::2]
    whole = gather(model, [(inputs, labels)], inputs)["0.weight"]
    for other in (last, strided):
        assert_same(whole, gather(model, [(other, labels)], inputs)["0.weight"])


def test_samples_cut_the_last_batch_and_read_no_other() -> None:
    model, inputs, labels = perceptron()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(inputs.split(4), labels.split(4), strict=True)
        raise AssertionError("one batch too many was read")

    progress: list[int] = []
    six = gather(model, batches(), inputs, samples=6, progress=progress.append)
    assert progress == [4, 6] and six.samples == 6
    assert_same(six["0.weight"], gather(model, [(inputs[:6], labels[:6])], inputs)["0.weight"])
    gather(model, batches(), inputs, samples=10)


def test_samples_drawn_from_the_model_are_the_same_for_the_same_seed() -> None:
    model, inputs, labels = perceptron()
    state = torch.get_rng_state()
    want = {"gradient_covariance"}
    runs = [gather(model, [inputs], inputs, want, seed=s)["0.weight"].gradient_covariance for s in (1, 1, 2)]
    forced = gather(model, [(inputs, labels)], inputs, want, seed=1, loss="sampled")
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert torch.equal(runs[0], forced["0.weight"].gradient_covariance)
    assert torch.equal(state, torch.get_rng_state())


def test_sampled_labels_give_the_true_fisher() -> None:
    """Of logits z it is diag(p) − p pᵀ, with p = softmax(z)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3)).double()
    inputs = torch.ones(40_000, 2, dtype=torch.float64)
    p = model(inputs[:1]).softmax(-1)[0].detach()
    seen = gather(model, [inputs], inputs[:1], {"gradient_covariance"})["0.weight"]
    torch.testing.assert_close(seen.gradient_covariance, torch.diag(p) - p[:, None] * p, atol=0.01, rtol=0.0)


def test_gaussian_draws_give_the_gauss_newton_matrix() -> None:
    """Of ½‖z(y)‖² by y it is JᵀJ, with J = ∂z/∂y; here that of the direction of y, (1 - z zᵀ) / ‖y‖."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3)).double()
    inputs = torch.ones(40_000, 2, dtype=torch.float64)
    y = model(inputs[:1])[0].detach()
    z = y / y.norm()
    seen = gather(
        model, [inputs], inputs[:1], {"gradient_covariance"}, loss="gaussian",
        forward=lambda m, x: F.normalize(m(x), dim=-1),
    )["0.weight"]  # fmt: skip
    jacobian = (torch.eye(3, dtype=torch.float64) - z[:, None] * z) / y.norm()
    torch.testing.assert_close(seen.gradient_covariance, jacobian.T @ jacobian, atol=0.05, rtol=0.0)


def test_gaussian_draws_refuse_outputs_that_are_not_numbers() -> None:
    model, inputs, _ = perceptron()
    with pytest.raises(ShapeError, match="a tensor of real numbers were expected, but tuple came"):
        gather(
            model, [inputs], inputs, {"gradient_covariance"}, loss="gaussian",
            forward=lambda m, x: (m(x), None),
        )  # fmt: skip


def test_a_loss_and_a_forward_of_ones_own() -> None:
    model, inputs, labels = perceptron()
    batch = {"x": inputs, "y": labels}
    want = {"gradient_covariance"}
    given = gather(model, [(inputs, labels)], inputs, want)["0.weight"]
    own = gather(
        model, [batch], inputs, want,
        forward=lambda m, b: (m(b["x"]), b["y"]),
        loss=lambda outputs, _: F.cross_entropy(*outputs, reduction="sum"),
    )["0.weight"]  # fmt: skip
    assert_same(given, own)


@pytest.mark.parametrize("wrap", [lambda y: {"logits": y}, lambda y: (y, None)], ids=["mapping", "tuple"])
def test_logits_are_found_in_what_a_model_returns(wrap: Callable[[Tensor], Any]) -> None:
    model, inputs, labels = perceptron()
    want = {"gradient_covariance"}
    plain = gather(model, [(inputs, labels)], inputs, want)
    wrapped = gather(model, [(inputs, labels)], inputs, want, forward=lambda m, b: wrap(m(b[0])))
    assert_same(plain["0.weight"], wrapped["0.weight"])


def test_classes_may_be_the_last_axis() -> None:
    model = nn.Sequential(nn.Linear(4, 3)).double()
    inputs, labels = normal(5, 7, 4), torch.arange(35).reshape(5, 7) % 3
    g = (model(inputs).softmax(-1) - F.one_hot(labels, 3)).detach().flatten(0, 1)
    seen = gather(model, [(inputs, labels)], inputs, {"gradient_covariance"})["0.weight"]
    torch.testing.assert_close(seen.gradient_covariance, g.T @ g / 5)


def test_a_batch_may_be_several_arguments_or_a_mapping() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3).double()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.fc(input=a + b)

    model, a, b = Sum(), normal(10, 4), normal(10, 4, seed=1)
    labels = torch.arange(10) % 3
    given = [[((a, b), labels)], [({"a": a, "b": b}, labels)], [[(a, b), labels]]]
    first, *others = (gather(model, batches, (a, b), samples=7)["fc.weight"] for batches in given)
    assert first.count == 7
    for other in others:
        assert_same(first, other)


def test_all_calls_of_a_layer_and_all_layers_of_a_weight_count() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.a(self.a(x)).tanh()))

    torch.manual_seed(0)
    model, x = Twice().double(), normal(5, 4)
    labels = model(x).argmax(1)
    seen = gather(model, [(x, labels)], x, {"input_covariance", "gradient_covariance"})["a.weight"]
    inputs = [x, model.a(x), model.a(model.a(x)).tanh()]
    rows = torch.cat(inputs).detach()
    assert seen.count == 15 and seen.samples == 5
    torch.testing.assert_close(seen.input_covariance, rows.T @ rows / 15)
    torch.testing.assert_close(
        seen.gradient_covariance, best_gradients(model, [model.a, model.a, model.b], x)
    )


def best_gradients(model: nn.Module, layers: list[nn.Module], x: Tensor) -> Tensor:
    """Σ g gᵀ over all calls of the layers, mean over samples, by the labels that the model likes best."""
    kept: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _m, _a, y: kept.append(y)) for m in set(layers)]
    logits = model(x)
    loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
    for handle in handles:
        handle.remove()
    assert len(kept) == len(layers)
    g = torch.cat(torch.autograd.grad(loss, kept))
    return g.T @ g / len(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    model, inputs, labels = convolution("plain")
    wide = gather(model, [(inputs, labels)], inputs)["0.weight"]
    narrow = gather(model.to(dtype), [(inputs.to(dtype), labels)], inputs.to(dtype))["0.weight"]
    rounded = inputs.to(dtype).double()
    assert {t.dtype for t in narrow.tensors().values()} == {torch.float32}
    x = rounded.movedim(1, 0).flatten(1)
    torch.testing.assert_close(narrow.input_covariance.double(), x @ x.T / x.shape[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        narrow.gradient_covariance.double(), wide.gradient_covariance, rtol=0.1, atol=2e-3
    )


def test_transformer_layers_are_seen_through_their_fast_path() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2)), normal(4, 3, 8, dtype=torch.float32)
    seen = gather(model, [x], x, {"input_covariance", "gradient_covariance"})
    assert {s.count for name, s in seen.items() if "linear" in name} == {12}


def test_nothing_changes_in_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Flatten(), nn.Linear(36, 2)
    )
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    flags = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    trained, before = [p.requires_grad for p in model.parameters()], fingerprint(model)
    x = normal(4, 3, 5, 5, dtype=torch.float32)
    with torch.inference_mode():
        gather(model, [x.clone()], x)
    with pytest.raises(ZeroDivisionError):
        gather(model, [x], x, progress=lambda seen: seen // 0)
    assert [(m.training, len(m._forward_hooks)) for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == trained
    assert fingerprint(model) == before and torch.is_grad_enabled()
    assert bool((model[4].weight.grad == 1).all())
    assert all(p.grad is None for p in list(model.parameters())[:-2])


def test_a_backward_pass_runs_only_if_gradients_are_wanted() -> None:
    class Silent(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert torch.is_grad_enabled() == self.expected
            return super().forward(x)

    model, inputs, _ = perceptron()
    model.append(Silent(3, 3).double())
    found = sites(nn.Sequential(*list(model)[:3]), inputs)
    model[3].expected = False
    seen = collect(model, [inputs], found, want=ALL - {"gradient_covariance", "fisher_rows"})["0.weight"]
    assert seen.gradient_covariance is None and seen.fisher_rows is None
    model[3].expected = True
    assert collect(model, [inputs], found, want=ALL)["0.weight"].fisher_rows is not None


def test_only_what_is_wanted_is_there() -> None:
    model, inputs, labels = convolution("plain")
    fields = {
        "input_covariance": {"input_mean", "input_covariance"},
        "input_absolute": {"input_absolute"},
        "patch_moment": {"patch_mean", "patch_moment"},
        "output_covariance": {"output_mean", "output_covariance"},
        "gradient_covariance": {"gradient_covariance"},
        "fisher_rows": {"fisher_rows", "fisher_columns"},
    }
    assert fields.keys() == ALL
    for name, expected in fields.items():
        seen = gather(model, [(inputs, labels)], inputs, name)["0.weight"]
        assert seen.tensors().keys() == expected
    with pytest.raises(DataError, match="there is no patch_moment: it was not wanted"):
        seen.the("patch_moment")


def test_what_cannot_be_collected_is_skipped_with_its_reason() -> None:
    model, inputs, labels = convolution("plain")
    unused = nn.Linear(3, 3).double()
    model.register_module("unused", unused)
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    seen = gather(model, [(inputs, labels)], inputs, max_patch=35)
    assert seen["0.weight"].skipped == {"patch_moment": "its patches have 36 entries, more than max_patch=35"}
    assert seen["unused.weight"].count == 0
    assert set(seen["unused.weight"].skipped.values()) == {"its layer was never called"}
    with pytest.raises(DataError, match="36 entries"):
        seen["0.weight"].the("patch_moment")


def test_a_site_without_influence_on_the_loss_says_so() -> None:
    model, inputs, labels = perceptron()
    seen = gather(
        model, [(inputs, labels)], inputs, {"gradient_covariance"},
        forward=lambda m, b: m[2](m[0](b[0]).detach()),
    )  # fmt: skip
    assert seen["0.weight"].skipped == {"gradient_covariance": "the loss does not depend on it"}
    assert seen["2.weight"].gradient_covariance is not None


def test_values_that_are_not_finite_name_the_site() -> None:
    model, inputs, labels = perceptron()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"the outputs of '0\.weight' are not finite"):
        gather(model, [(inputs, labels)], inputs)
    inputs[0, 0] = float("inf")
    with pytest.raises(DataError, match=r"the inputs of '0\.weight' are not finite"):
        gather(model, [(inputs, labels)], inputs, {"input_covariance"})


def test_errors_say_what_to_do() -> None:
    model, inputs, labels = perceptron()
    found = sites(model, inputs)
    gradient = {"gradient_covariance"}
    with pytest.raises(DataError, match="no batches"):
        collect(model, [], found)
    with pytest.raises(DataError, match="no tensor"):
        collect(model, ["text"], found)
    with pytest.raises(UnknownNameError, match="did you mean 'input_covariance'"):
        collect(model, [inputs], found, want={"input_covarianc"})
    with pytest.raises(OptionError, match="names no statistic"):
        collect(model, [inputs], found, want=())
    with pytest.raises(OptionError, match="samples came as 0"):
        collect(model, [inputs], found, samples=0)
    with pytest.raises(OptionError, match="loss came as 'true'"):
        collect(model, [inputs], found, loss="true")
    with pytest.raises(OptionError, match=r"the loss has shape \(10,\)"):
        collect(model, [inputs], found, want=gradient, loss=lambda y, _: y.sum(1))
    with pytest.raises(DataError, match="a batch has none"):
        collect(model, [inputs], found, want=gradient, loss="labels")
    with pytest.raises(ShapeError, match="do not fit labels"):
        collect(model, [(inputs, labels[:3])], found, want=gradient)
    with pytest.raises(ShapeError, match="one class"):
        collect(nn.Sequential(model, nn.Linear(3, 1).double()), [inputs],
                [replace(s, module=f"0.{s.module}") for s in found], want=gradient)  # fmt: skip
    with pytest.raises(ShapeError, match="logits of shape"):
        collect(model, [inputs], found, want=gradient, forward=lambda m, b: m(b).sum())
    with pytest.raises(ModelError, match="depends on no site"):
        collect(model, [inputs], found, want=gradient, forward=lambda m, b: m(b).detach())
    with pytest.raises(ModelError, match="no site was called"):
        collect(model, [inputs], found, forward=lambda m, b: b)
    with pytest.raises(SelectionError, match="no layer '7'"):
        collect(model, [inputs], [replace(found[0], module="7")])


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    model, inputs, labels = convolution("grouped")
    model.append(nn.Linear(3, 3).double())
    seen = gather(model, [(inputs, labels)], inputs, max_patch=2)
    seen.save(tmp_path / "seen.safetensors")
    back = Statistics.load(tmp_path / "seen.safetensors", weights=fingerprint(model))
    assert list(back) == list(seen) and back.want == ALL and back.options == seen.options
    for site in seen:
        assert_same(seen[site], back[site], rtol=0.0)
        assert seen[site].skipped == back[site].skipped
    linear = back.to("cpu")["4.weight"]
    assert linear.patch_moment is linear.input_covariance
    model[0].weight.data += 1
    with pytest.raises(CheckpointError, match="other weights"):
        Statistics.load(tmp_path / "seen.safetensors", weights=fingerprint(model))


def test_a_cache_serves_as_long_as_it_is_true(tmp_path: Path) -> None:
    model, inputs, labels = perceptron()
    found, read = sites(model, inputs), []

    def ask(want: Any = ("input_covariance", "output_covariance"), on: Any = None, **options: Any) -> bool:
        """Whether the model had to be run."""
        before = len(read)
        seen = collected(
            model, [(inputs, labels)], on or found, cache=tmp_path / "seen", want=want,
            progress=read.append, **options,
        )  # fmt: skip
        assert seen["0.weight"].input_mean is not None
        return len(read) > before

    assert ask()
    assert not ask() and not ask({"input_covariance"}) and not ask(on=found[:1])
    assert ask({"input_covariance", "input_absolute"})
    assert ask(samples=5) and not ask(samples=5)
    assert ask({"input_covariance"}, on=found[:1]) and ask()
    model[2].bias.data += 1
    assert ask() and not ask()


def test_a_cache_that_is_none_is_not_overwritten(tmp_path: Path) -> None:
    model, inputs, _ = perceptron()
    found = sites(model, inputs)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be read"):
        collected(model, [inputs], found, cache=notes)
    assert notes.read_text() == "mine"
    with pytest.raises(TargetError, match="there is no folder"):
        collected(model, [inputs], found, cache=tmp_path / "missing" / "seen")
    assert list(tmp_path.iterdir()) == [notes]


def test_statistics_of_a_site_that_is_not_there() -> None:
    model, inputs, _ = perceptron()
    seen = gather(model, [inputs], inputs, {"input_covariance"})
    assert len(seen) == 2 and "0.weight" in seen and "1.weight" not in seen
    with pytest.raises(UnknownNameError, match=r"no statistics of '1\.weight'"):
        seen["1.weight"]


def test_what_a_batch_leaves_is_let_go() -> None:
    model, inputs, labels = perceptron()
    outputs: list[ReferenceType[Tensor]] = []
    for layer in model:
        layer.register_forward_hook(lambda _, args, output: outputs.append(ref(output)))
    gather(model, [(inputs, labels)] * 3, inputs)
    assert len(outputs) >= 3 * len(model)
    assert not any(output() is not None for output in outputs)


@pytest.mark.gpu
def test_a_gpu_sees_the_same() -> None:
    model, inputs, labels = convolution("grouped")
    here = gather(model, [(inputs, labels)], inputs)
    there = gather(model.cuda(), [(inputs, labels)], inputs.cuda())
    assert there["0.weight"].input_covariance.is_cuda
    for site in here:
        assert_same(here[site], there.to("cpu")[site], rtol=1e-8)
