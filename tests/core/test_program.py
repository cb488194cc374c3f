"""Golden programs: the published sequences of layers come out by themselves."""

import numpy as np
import pytest

from tenfold.core.contraction import lower_contraction
from tenfold.core.cost import Cost, Flops, Roofline
from tenfold.core.layout import Layout
from tenfold.core.lower import lower
from tenfold.core.network import Axes
from tenfold.core.program import Linear, Merge, Program, Shuffle, run
from tenfold.core.search import Application, Window
from tenfold.formats import CP, Format, LowRank, Tucker, formats


def conv(format: str, text: str, ranks: object, kernel: int = 3, cost: Cost | None = None) -> Program:
    """A 256 -> 256 convolution on images of 14 x 14, eight of them."""
    layout = Layout.parse(text).bind((256, 256, kernel, kernel))
    network = formats[format].skeleton(layout.mode_shape, ranks).refined(layout.mode_groups)  # type: ignore[arg-type]
    pad = kernel // 2
    windows = tuple((a, Window(before=pad, after=pad, length=14)) for a in ("h", "w"))
    return lower(Application(network, ("i",), ("o",), windows, rows=8), cost or Flops())


@pytest.mark.parametrize("kernel", [3, 5])
def test_cp_of_order_four_is_1x1_two_depthwise_1x1(kernel: int) -> None:
    first, *middle, last = conv("cp", "o i h w -> o i h w", 128, kernel).kinds
    assert (first, last) == ("1x1", "1x1")
    assert sorted(middle) == [f"depthwise 1x{kernel}", f"depthwise {kernel}x1"]


@pytest.mark.parametrize(
    "format, layout, ranks, kinds",
    [
        ("cp", "o i h w -> o i (h w)", 128, ("1x1", "depthwise 3x3", "1x1")),
        ("tucker", "o i h w -> o i (h w)", (96, 96, None), ("1x1", "3x3", "1x1")),
        ("lowrank", "o i h w -> (i h) (o w)", 128, ("3x1", "1x3")),
        ("lowrank", "o i h w -> o (i h w)", 96, ("3x3", "1x1")),
        ("lowrank", "o i h w -> (o h w) i", 96, ("1x1", "3x3")),
        ("tt", "o i h w -> i h w o", (96, 96, 96), ("1x1", "3x1", "1x3", "1x1")),
    ],
    ids=["cp3", "tucker2", "spatial svd", "channel svd", "input svd", "train"],
)
def test_published_sequences(format: str, layout: str, ranks: object, kinds: tuple[str, ...]) -> None:
    program = conv(format, layout, ranks)
    assert program.kinds == kinds
    assert not program.merges and program.bias_last and program.dimensions == 2
    assert not any(isinstance(s, Shuffle) for s in program.steps)


def linear(
    format: type[Format],
    text: str,
    ranks: object,
    outputs: Axes,
    inputs: Axes,
    rows: int = 256,
    cost: Cost | None = None,
) -> Program:
    layout = Layout.parse(text).bind((1024, 1024))
    network = format.skeleton(layout.mode_shape, ranks).refined(layout.mode_groups)  # type: ignore[arg-type]
    return lower(Application(network, inputs, outputs, rows=rows), cost or Flops())


def test_a_low_rank_matrix_is_two_linear_maps() -> None:
    program = linear(LowRank, "o i -> o i", 64, ("o",), ("i",))
    assert program.kinds == ("linear", "linear") and program.bias_last
    assert program.flops == 2 * 256 * 64 * 2048
    assert program.largest_intermediate == 256 * 64


@pytest.mark.parametrize("rank", [4, 16])
def test_a_train_matrix_is_two_linear_maps_without_a_shuffle(rank: int) -> None:
    text = "(o0=32 o1) (i0=32 i1) -> (o0 i0) (o1 i1)"
    program = linear(formats["tt"], text, rank, ("o0", "o1"), ("i0", "i1"))
    assert program.kinds == ("linear", "linear")
    assert not any(isinstance(s, Shuffle) for s in program.steps)


SPLIT, ENDS = "(o0=32 o1=32) (i0=32 i1=32)", (("o0", "o1"), ("i0", "i1"))


def test_of_orders_that_cost_the_same_one_without_detours_is_taken() -> None:
    left, right = linear(formats["tt"], f"{SPLIT} -> (o0 i0) (o1 i1)", 8, *ENDS).steps
    assert isinstance(left, Linear) and isinstance(right, Linear)
    assert (left.gone, left.post, right.post) == (32, 32, 1)  # from the left while the activation is small
    tucker = linear(formats["tucker"], f"{SPLIT} -> o0 o1 i0 i1", 11, *ENDS)
    assert not any(isinstance(step, Shuffle) for step in tucker.steps)


def test_products_in_groups_cost_the_turning_of_the_activation() -> None:
    program = linear(formats["cp"], f"{SPLIT} -> o0 o1 i0 i1", 128, *ENDS, rows=32, cost=Roofline())
    assert [type(step) for step in program.steps] == [Merge, Merge, Linear, Linear]


def test_a_program_explains_itself() -> None:
    text = conv("cp", "o i h w -> o i (h w)", 128).explain()
    assert text.splitlines() == [
        "step           meets                    makes  FLOPs        elements",
        "1x1            (i=256) (i=256 R=128)    R=128  102,760,448  200,704",
        "depthwise 3x3  (R=128) (h=3 w=3 R=128)  R=128  3,612,672    200,704",
        "1x1            (R=128) (o=256 R=128)    o=256  102,760,448  401,408",
        "209,133,568 FLOPs, largest intermediate 200,704 elements",
    ]


def test_a_contraction_runs_on_any_array_library() -> None:
    x = Tucker.random((3, 4, 5), (2, 2, 2), like=np.zeros(()), generator=0)
    program = lower_contraction(x.network, ("m2", "m0", "m1"))
    assert all(isinstance(s, Merge | Shuffle) for s in program.steps)
    np.testing.assert_allclose(run(program, x.factors, np), x.dense().transpose(2, 0, 1), atol=1e-12)


def test_the_inner_product_of_cp_tensors_is_a_product_of_gram_matrices() -> None:
    a, b = (CP.skeleton((64, 64, 64), r) for r in (5, 7))
    both = a.renamed({"R": "S"})
    from_both = (*a.factors, *(tuple(f) for f in both.factors))
    network = type(a)(from_both, (), (*a.sizes, ("S", b.size_of["R"])))
    program = lower_contraction(network, (), Flops())
    assert program.flops <= 2 * (3 * 64 * 35 + 2 * 35 + 35)
    assert program.largest_intermediate <= 35
    assert program.kinds == ("merge",) * 5
