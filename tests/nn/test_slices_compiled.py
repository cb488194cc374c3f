"""Slices, sums and multiples of factorized tensors compile in one graph, with eager values and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import Unsupported

from tenfold.formats import CP, formats
from tenfold.nn import FactorizedConv, FactorizedLinear, FactorizedTensor, joint_random, tensor_dropout
from tenfold.nn.tensor.complex_pairs import ComplexPairs
from tenfold.nn.tensor.index import TensorIndexError
from tenfold.nn.tensor.view import FactorizedView

X = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

INDICES: list[Any] = [
    1, -1, slice(1, 3), slice(None, None, 2), None, ..., (slice(2, 6), 1), (..., 0), (1, 2), [], [2, 0],
    (None, slice(1), ..., None), (slice(None), [1, 1, 0]), ([3, 1], [0, 2]), ([[1], [2]], slice(0, 2)),
    (True, slice(4)), [True, False] * 4, range(3), torch.tensor([[1], [2]]),
]  # fmt: skip


def plain(x: Any) -> Tensor:
    """Sums of what has no common format are plain tensors already."""
    return x if isinstance(x, Tensor) else x.dense()


USES: dict[str, Callable[[Any], Any]] = {
    "dense": lambda w: w[1:3].dense(),
    "linear": lambda w: F.linear(X, w[2:5]),
    "sum": lambda w: torch.sum(w[:, 1]) + torch.sum(w[::2], dim=0).norm(),
    "view + view": lambda w: plain(w[1:3] + w[4:6]),
    "view + other view": lambda w: plain(w[1:3, :1] + w[4:6, 1:2]),
    "view + row": lambda w: w[1:3] + w[0].dense(),
    "tensor + tensor": lambda w: (w + 2 * w - w / 4).dense(),
    "multiples": lambda w: (2.5 * (-w[1:3]) / 3).dense(),
    "multiple by a tensor": lambda w: plain(w[1:3] * X[0, 0]) / X[0, 1],
    "entrywise": lambda w: plain(w[1:3] * w[3:5]),
    "plus a number": lambda w: w[1] + 1.0,
    "slice of a slice": lambda w: plain((w[1:5][1:] + w[2:5])[0, [0, 1]]),
    "turned": lambda w: w.T[1:3].mT.dense() + w.permute(0, 1)[:, 1:3].transpose(0, 1).T.dense(),
    "product": lambda w: X @ w[1].dense() + X @ w[1:2].T.dense()[:, 0],
    "mode_dot": lambda w: w[1:4].mode_dot(X, 1).dense(),
    "norm and inner": lambda w: w[1:4].norm() * w[1:4].inner(w[2:5]) + w[0].inner(X[0]),
    "rows in turn": lambda w: sum(row.dense() * k for k, row in enumerate(w)),
    "sizes": lambda w: w[1:4].dense() * len(w[1:4]) * w[2:].shape[0] + w[2:].ndim,
    "rows by a tensor": lambda w: w[torch.tensor([0, 2, -1])].dense(),
}


LAYOUT = "(o0=4 o1) (i0=2 i1) -> (o0 i0) (o1 i1)"
LAYOUTS = {"lowrank": "(o0=4 o1) i -> (o1 i) o0", "sliced_lowrank": "(o0=4 o1) (i0=2 i1) -> o0 (o1 i0) i1"}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Every case compiles the same functions; torch stops after eight."""
    torch.compiler.reset()


def tensors(format: str) -> list[FactorizedTensor]:
    torch.manual_seed(1)
    layouts = [LAYOUTS.get(format, LAYOUT)] + ([] if format == "sliced_lowrank" else [None])
    return [
        FactorizedTensor.new((8, 6), 2, format, layout=layout, std=1.0, dtype=torch.float64)
        for layout in layouts
    ]


def check(use: Callable[[Any], Any], w: nn.Module, backend: str) -> None:
    """Values and gradients of the compiled function are the eager ones."""
    found, wanted = torch.compile(use, fullgraph=True, backend=backend)(w), use(w)
    torch.testing.assert_close(found, wanted)
    if wanted.requires_grad:
        probe = torch.randn_like(wanted)
        gradients = [
            torch.autograd.grad(y, list(w.parameters()), probe, allow_unused=True) for y in (found, wanted)
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("format", ["tr"])
def test_what_is_made_of_slices_compiles_in_one_graph(format: str, use: Any) -> None:
    check(use, tensors(format)[0], "eager")


def usual(w: Any) -> Tensor:
    """A slice of each kind that is made dense, multiplied with, summed and added."""
    part = 2.5 * w[1:3] + w[1:3] / 2
    return F.linear(X, part) @ w[[0, 2], None, 1].dense() + torch.sum(w[..., 0])


def all_uses(w: Any) -> Tensor:
    return sum(y.sum() for y in (use(w) for use in USES.values()))  # type: ignore[return-value]


@pytest.mark.parametrize("format", list(formats))
def test_usual_slices_go_through_autograd_ahead_of_time(format: str) -> None:
    check(usual, tensors(format)[0], "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("format", list(formats))
def test_all_at_once_go_through_autograd_ahead_of_time(format: str) -> None:
    check(all_uses, tensors(format)[-1], "aot_eager")


@pytest.mark.parametrize("format", list(formats))
def test_every_static_index_compiles(format: str) -> None:
    def all_of(w: Any) -> list[Any]:
        return [plain(w[index]) for index in INDICES]

    for w in tensors(format)[:1]:
        found = torch.compile(all_of, fullgraph=True, backend="eager")(w)
        for index, x in zip(INDICES, found, strict=True):
            wanted = w.dense()[index]
            torch.testing.assert_close(x, wanted, msg=lambda text, index=index: f"{index}: {text}")


def test_what_is_a_view_in_eager_code_is_one_in_compiled_code() -> None:
    """Sums of what has no common format are plain tensors in both."""
    w, other = tensors("tt")[1], tensors("cp")[1]

    def kinds(w: Any, other: Any) -> list[Any]:
        return [
            w[1],
            w[1, 2],
            w[1:] + w[1:],
            w[1:] + w[:7],
            w + other,
            w[0] + other[0],
            w[0] + w[1],
            w * other,
        ]

    eager = kinds(w, other)
    compiled = torch.compile(kinds, fullgraph=True, backend="eager")(w, other)
    assert [isinstance(x, Tensor) for x in compiled] == [isinstance(x, Tensor) for x in eager]
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(plain(a), plain(b))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_views_leave_compiled_code_and_enter_it() -> None:
    w = tensors("tucker")[0]
    part = torch.compile(lambda w: 2 * w[1:4], fullgraph=True, backend="eager")(w)
    assert isinstance(part, FactorizedView) and part.shape == (3, 6) and "shape=(3, 6)" in repr(part)
    torch.testing.assert_close((part[0] + part[1]).dense(), 2 * (w.dense()[1] + w.dense()[2]))
    assert part.dtype == torch.float64 and part.requires_grad and not part.detach().requires_grad
    assert isinstance(FactorizedTensor(part.value, part.layout), nn.Module)
    for view in (w[2:5], part):
        found = torch.compile(lambda v: (v[1:] + v[1:]).dense(), fullgraph=True, backend="eager")(view)
        torch.testing.assert_close(found, 2 * view.dense()[1:])
        torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_weights_of_layers_are_sliced(backend: str) -> None:
    """Stored in the order of the layer's steps, shared with other layers, or complex."""
    torch.manual_seed(0)
    conv = FactorizedConv(
        6, 8, (3, 3), rank=3, format="cp", layout="o i h w -> o i (h w)", dtype=torch.float64
    )
    linear = FactorizedLinear(6, 8, rank=3, format="tt", layout=LAYOUT, dtype=torch.float64)
    joint = joint_random([nn.Linear(6, 8).double() for _ in range(3)], 3, "tucker", "o i -> o i")
    pairs = ComplexPairs.new((8, 6), 3, "cp", dtype=torch.complex128)
    check(lambda w: w[2:, [0, 1], 1].dense() + (2 * w[:6, :2, 0]).dense(), conv.weight, backend)
    for weight in (linear.weight, joint[1].weight, pairs):
        torch.compiler.reset()
        check(lambda w: plain(w[2:4] + 3 * w[4:6]), weight, backend)


def test_torch_gives_products_with_tensors_to_the_tensor() -> None:
    """In the table of gaps: a view times a tensor without axes is a view, compiled a plain tensor."""
    w, t = tensors("cp")[0], X[0, 0]
    compiled = torch.compile(lambda w, t: w[1:3] * t, fullgraph=True, backend="eager")(w, t)
    assert isinstance(w[1:3] * t, FactorizedView)
    assert isinstance(compiled, Tensor), "torch has closed the gap: take it out of docs/layers.md"


def test_a_layer_runs_with_slices_of_its_weight_and_any_batch() -> None:
    class Widths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = FactorizedLinear(6, 8, rank=3, format="tucker", layout=LAYOUT, dtype=torch.float64)

        def forward(self, x: Tensor, width: int) -> Tensor:
            return F.linear(x, self.layer.weight[:width], self.layer.bias[:width])

    model = Widths()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for rows, width in ((2, 4), (5, 4), (7, 3), (7, 2)):
        x = torch.randn(rows, 6, dtype=torch.float64)
        torch.testing.assert_close(compiled(x, width), model.layer(x)[:, :width])


def test_a_training_step_moves_what_compiled_slices_read() -> None:
    w = tensors("cp")[0]
    step = torch.compile(lambda w: w[1:3].dense().square().sum(), fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(w.parameters(), lr=0.01)
    before = step(w)
    before.backward()
    optimizer.step()
    torch.testing.assert_close(step(w), w.dense()[1:3].square().sum())
    assert step(w) < before


def test_tensors_that_differ_in_their_layout_only_are_told_apart() -> None:
    compiled = torch.compile(lambda w: w[1:3].dense(), fullgraph=True, backend="eager")
    for layout in ("(a=4 b) c -> a b c", "(a=4 b) c -> b a c", "(a=4 b) c -> c b a"):
        w = FactorizedTensor.new((16, 4), 2, "cp", layout=layout, std=1.0)
        torch.testing.assert_close(compiled(w), w.dense()[1:3])


def test_a_format_that_is_not_registered_is_sliced() -> None:
    class Own(CP):
        pass

    w = FactorizedTensor(Own.random((8, 6), 2, like=torch.zeros((), dtype=torch.float64)))
    check(lambda w: w[1:3, 0].dense() * 2, w, "eager")


def test_only_the_factors_of_a_slice_are_contracted() -> None:
    """A row of a large tensor: in the graph stands one call, and no tensor of the size of the whole."""
    w = FactorizedTensor.new((4096, 4096), 2, "cp", std=1.0)
    sizes: list[int] = []

    def watch(graph: Any, inputs: Any) -> Any:
        sizes.extend(n.meta["example_value"].numel() for n in graph.graph.nodes if "example_value" in n.meta)
        return graph

    torch.testing.assert_close(torch.compile(lambda w: w[7].dense(), backend=watch)(w), w.dense()[7])
    assert max(sizes) <= 2 * 4096


def test_linear_maps_with_slices_run_factor_by_factor() -> None:
    """A matrix of low rank, and a batch whose size is left open."""
    w = FactorizedTensor.new((512, 512), 2, "lowrank", std=1.0)
    sizes: list[int] = []

    def watch(graph: Any, inputs: Any) -> Any:
        sizes.extend(n.meta["val"].numel() for n in graph.graph.nodes if hasattr(n.meta.get("val"), "numel"))
        return make_boxed_func(graph.forward)

    compiled = torch.compile(
        lambda w, x: F.linear(x, w[:256], x[0, :256]), fullgraph=True, backend=aot_autograd(fw_compiler=watch)
    )
    with torch.no_grad():
        for rows in (3, 5, 7):
            x = torch.randn(rows, 512)
            wanted = F.linear(x, w.dense()[:256], x[0, :256])
            torch.testing.assert_close(compiled(w, x), wanted, rtol=1e-4, atol=1e-4)
    assert max(int(n) for n in sizes if not isinstance(n, torch.SymInt)) < 256 * 512


MASK = torch.tensor([True, False] * 4)
UNKNOWN: dict[str, Callable[[Any], Any]] = {
    "a mask in a tensor": lambda w: w[MASK].dense(),
    "a number in a tensor": lambda w: w[MASK.sum()].dense(),
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("use", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_in_a_tensor_decides_outside_of_the_graph(use: Any) -> None:
    """In the table of gaps: with `fullgraph` it is refused, without it is done between two graphs."""
    w = tensors("cp")[1]
    with pytest.raises(Unsupported, match="what is in a tensor decides on the shape"):
        torch.compile(use, fullgraph=True, backend="eager")(w)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(use, backend="eager")(w), use(w))


def test_wrong_indices_are_refused_as_in_eager_code() -> None:
    w = tensors("cp")[0]

    def tried(w: Any) -> Tensor:
        double: Tensor = w[1].dense() * 2
        try:
            return plain(w[9])
        except IndexError:
            return double

    torch.testing.assert_close(torch.compile(tried, backend="eager")(w), tried(w))
    with pytest.raises(TensorIndexError, match="index 9 is out of range for axis 0"):
        torch.compile(lambda w: w[9].dense(), backend="eager")(w)
    with pytest.raises(Unsupported, match="it is an error"):
        torch.compile(lambda w: w[9].dense(), fullgraph=True, backend="eager")(w)


def test_numbers_that_change_are_followed() -> None:
    w = tensors("tt")[0]
    rows = torch.compile(lambda w, k: w[k:][0].dense(), fullgraph=True, backend="eager")
    multiples = torch.compile(lambda w, c: (c * w[1:3]).dense(), fullgraph=True, backend="aot_eager")
    for k in range(4):
        torch.testing.assert_close(rows(w, k), w.dense()[k])
        torch.testing.assert_close(multiples(w, k - 1.5), (k - 1.5) * w.dense()[1:3])


def test_dropout_at_rest_changes_nothing() -> None:
    w = tensor_dropout(tensors("cp")[0], 0.5).eval()
    check(lambda w: w[1:3].dense(), w, "eager")
