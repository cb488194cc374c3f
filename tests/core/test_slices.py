"""Modes that every factor carries number slices, each a network of its own."""

import numpy as np
import pytest

from tenfold.core.layout import Layout
from tenfold.core.lower import lower
from tenfold.core.network import Network, skeleton
from tenfold.core.search import Application, Window
from tenfold.formats import CP, General, SlicedLowRank

SLICED = (("m1", "m0", "R"), ("m1", "R", "m2"))


def test_a_bond_carries_as_much_as_one_slice_needs() -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 4))
    full = skeleton(SLICED, x.shape, {"R": 1}).full()
    assert full.ranks == {"R": max(np.linalg.matrix_rank(x[:, s]) for s in range(3))} == {"R": 4}
    assert skeleton(SLICED, (2, 9, 7), {"R": 99}).clipped().ranks == {"R": 2}


def test_slices_join_nothing_when_a_bond_is_cut() -> None:
    assert skeleton(SLICED, (5, 3, 4), {"R": 2}).cut("R") == (("m0",), ("m2",))


@pytest.mark.parametrize(
    "factors, slices",
    [
        (SLICED, ("m1",)),
        ((("m0", "R"), ("R", "m1")), ()),
        ((("m0", "R"),), ()),
        ((("m0", "m2", "R"), ("m2", "R", "Q"), ("Q", "m1")), ()),
    ],
)
def test_slices_are_what_every_one_of_several_factors_carries(factors: tuple, slices: tuple) -> None:
    modes = tuple(sorted({a for f in factors for a in f if a.startswith("m")}))
    assert Network(factors, modes, ()).slices == slices


# Formats ---------------------------------------------------------------------------------------------------


def sliced() -> SlicedLowRank:
    return SlicedLowRank.random((5, 3, 4), 2, like=np.zeros(()), generator=0)


def test_slices_of_the_tensor_are_products_of_slices_of_the_factors() -> None:
    x = sliced()
    for s in range(3):
        np.testing.assert_allclose(x.dense()[:, s], x.left[s] @ x.right[s])


def test_a_matrix_on_the_slices_mixes_them_in_a_general_network() -> None:
    x, matrix = sliced(), np.random.default_rng(1).standard_normal((6, 3))
    mixed = x.mode_dot(matrix, 1)
    assert isinstance(mixed, General) and mixed.numel == x.numel + 18
    np.testing.assert_allclose(mixed.dense(), np.einsum("osi,ps->opi", x.dense(), matrix), atol=1e-12)
    again = mixed.mode_dot(np.ones((2, 6)), 1).mode_dot(np.ones(4), 2)
    np.testing.assert_allclose(again.dense(), mixed.dense().sum((1, 2))[:, None] * [1, 1], atol=1e-12)


def test_two_modes_of_slices_are_mixed_one_after_the_other() -> None:
    graph = (("m0", "m1", "m2", "R"), ("m0", "m1", "R", "m3"))
    rng = np.random.default_rng(2)
    x = General((rng.standard_normal((2, 3, 4, 2)), rng.standard_normal((2, 3, 2, 5))), graph)
    a, b = rng.standard_normal((6, 2)), rng.standard_normal((7, 3))
    expected = np.einsum("abcd,xa,yb->xycd", x.dense(), a, b)
    np.testing.assert_allclose(x.mode_dot(a, 0).mode_dot(b, 1).dense(), expected, atol=1e-12)
    assert x[1, :, 2].shape == (3, 5)


def test_a_part_of_the_slices_keeps_the_format() -> None:
    x = sliced()
    some = x[:, [2, 0]]
    assert isinstance(some, SlicedLowRank) and some.left.shape == (2, 5, 2)
    np.testing.assert_allclose(some.dense(), x.dense()[:, [2, 0]])
    one = x[:, 1]
    assert isinstance(one, General) and one.ranks == {"R": 2}
    np.testing.assert_allclose(one.dense(), x.dense()[:, 1])


# Layers ----------------------------------------------------------------------------------------------------


def kinds(form: type, text: str, rank: int, rows: int = 64) -> tuple[str, ...]:
    layout = Layout.parse(text).bind((64, 64, 3, 3))
    network = form.skeleton(layout.mode_shape, rank).refined(layout.mode_groups)
    outputs, inputs, *taps = layout.weight
    windows = tuple((a, Window(before=1, after=1)) for (a,) in taps)
    return lower(Application(network, inputs, outputs, windows, rows)).kinds


@pytest.mark.parametrize(
    "text, expected",
    [
        ("o (i0=4 i1) h w -> o i0 (i1 h w)", ("grouped 3x3", "1x1")),
        ("o (i0=4 i1) h w -> (o h) i0 (i1 w)", ("grouped 1x3", "3x1")),
        ("o (i0=4 i1) h w -> (o w) i0 (i1 h)", ("grouped 3x1", "1x3")),
        ("o (i0=4 i1) h w -> (o h w) i0 i1", ("grouped 1x1", "3x3")),
        ("(o0=4 o1) i h w -> (i h w) o0 o1", ("3x3", "grouped 1x1")),
    ],
)
def test_a_convolution_in_slices_is_a_grouped_one_and_one_that_adds_up(text: str, expected: tuple) -> None:
    assert kinds(SlicedLowRank, text, 4) == expected


def test_slices_of_one_channel_and_rank_one_are_a_depthwise_separable_convolution() -> None:
    assert kinds(SlicedLowRank, "o (i0=64 i1) h w -> o i0 (i1 h w)", 1) == ("depthwise 3x3", "1x1")
    assert kinds(CP, "o i h w -> o i (h w)", 4) == ("1x1", "depthwise 3x3", "1x1")
