"""Layouts: what they say, what they refuse and how, and that they lose nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold.core.errors import LayoutError
from tenfold.core.layout import Layout


@pytest.mark.parametrize(
    "text",
    [
        "o i -> o i",
        "o i h w -> (i h) (o w)",
        "o i h w -> o i (h w)",
        "(o0=8 o1) (i0=4 i1) -> (o0 i0) (o1 i1)",
        "(g=2 o) i w -> (g o) (i w)",
    ],
)
def test_a_layout_prints_as_it_was_written(text: str) -> None:
    assert str(Layout.parse(text)) == text
    assert Layout.parse(str(Layout.parse(text))) == Layout.parse(text)


def test_a_bound_layout_prints_the_sizes_that_the_weight_does_not_show() -> None:
    assert str(Layout.parse("(o0=8 o1) i -> o0 (o1 i)").bind((32, 5))) == "(o0=8 o1=4) i -> o0 (o1 i)"
    assert Layout.parse("o i -> (o i)").bind((3, 4)).sizes == (("o", 3), ("i", 4))


def test_sizes_follow_from_the_weight() -> None:
    layout = Layout.parse("(o0=8 o1) (i0=4 i1) -> (o0 i0) (o1 i1)").bind((64, 32))
    assert layout.shape == (64, 32) and layout.mode_shape == (32, 64)
    assert layout.mode_groups == ((("o0", 8), ("i0", 4)), (("o1", 8), ("i1", 8)))
    assert layout.axes == ("o0", "o1", "i0", "i1")


def test_an_axis_is_put_before_another() -> None:
    grouped = Layout.parse("o i h w -> (i h) (o w)").with_axis("g", "o", 4)
    assert str(grouped) == "(g=4 o) i h w -> (i h) (g o w)"
    assert grouped.bind((8, 3, 5, 5)).mode_shape == (15, 40)


def test_modes_are_the_transposed_and_reshaped_weight() -> None:
    weight = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    modes = Layout.parse("o i h w -> (i h) (o w)").bind(weight.shape).to_modes(weight)
    assert np.array_equal(modes, weight.transpose(1, 2, 0, 3).reshape(12, 10))


def test_a_weight_in_order_is_not_copied() -> None:
    weight = torch.zeros(4, 3, 5, 5)
    modes = Layout.parse("o i h w -> o i (h w)").bind(weight.shape).to_modes(weight)
    assert modes.data_ptr() == weight.data_ptr()


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, list[int]]:
    """A layout with any grouping and permutation of 1 to 6 axes, and the shape of a weight for it."""
    count = draw(st.integers(1, 6))
    names = [f"a{k}" for k in range(count)]
    sizes = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    weight, modes = (grouped(draw, order) for order in (names, draw(st.permutations(names))))
    size = dict(zip(names, sizes, strict=True))
    left = " ".join("(" + " ".join(f"{a}={size[a]}" for a in g) + ")" for g in weight)
    right = " ".join("(" + " ".join(g) + ")" for g in modes)
    return Layout.parse(f"{left} -> {right}"), [int(np.prod([size[a] for a in g])) for g in weight]


def grouped(draw: st.DrawFn, names: list[str]) -> list[list[str]]:
    cuts = sorted(draw(st.sets(st.integers(1, len(names) - 1)))) if len(names) > 1 else []
    return [names[a:b] for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True)]


@settings(max_examples=100, deadline=None)
@given(layouts())
def test_any_regrouping_and_permutation_can_be_undone(case: tuple[Layout, list[int]]) -> None:
    layout, shape = case
    bound = layout.bind(shape)
    weight = np.arange(np.prod(shape)).reshape(shape)
    modes = bound.to_modes(weight)
    assert modes.shape == bound.mode_shape and bound.shape == tuple(shape)
    assert np.array_equal(bound.to_weight(modes), weight)
    tensor = torch.from_numpy(weight)
    assert np.array_equal(bound.to_modes(tensor).numpy(), modes)
    assert np.array_equal(bound.to_weight(bound.to_modes(tensor)).numpy(), weight)
    assert Layout.parse(str(bound)).bind(shape) == bound


@pytest.mark.parametrize(
    "text, message",
    [
        ("o i", 'layout "o i" has no single "->".\nWrite it as "o i -> o i".'),
        ("o -> i -> o", 'layout "o -> i -> o" has no single "->".\nWrite it as "o i -> o i".'),
        (
            "o i -> o",
            "layout \"o i -> o\" has the axes ['o', 'i'] on its left and ['o'] on its right.\n"
            "Name every axis exactly once on each side.",
        ),
        (
            "o o -> o o",
            "layout \"o o -> o o\" has the axes ['o', 'o'] on its left and ['o', 'o'] on its right.\n"
            "Name every axis exactly once on each side.",
        ),
        ("(o i -> o i", 'layout "(o i -> o i" cannot be read at "(o i".\nCheck its parentheses.'),
        (" -> o", 'layout " -> o" cannot be read at "".\nCheck its parentheses.'),
        (
            "O i -> O i",
            'layout "O i -> O i" has "O" where an axis should be.\n'
            'Axes are in small letters and digits, with a size if need be: "o", "i0", "o1=16".',
        ),
        (
            "o=0 i -> o i",
            'layout "o=0 i -> o i" has "o=0" where an axis should be.\n'
            'Axes are in small letters and digits, with a size if need be: "o", "i0", "o1=16".',
        ),
    ],
)
def test_text_that_is_no_layout_is_refused(text: str, message: str) -> None:
    with pytest.raises(LayoutError) as error:
        Layout.parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "text, shape, message",
    [
        (
            "o i -> o i",
            (4, 3, 3),
            "'fc' has 3 axes (4, 3, 3), but layout \"o i -> o i\" describes 2.\n"
            "Write one group for every axis of the weight.",
        ),
        (
            "o (i0=6 i1=6) -> o i0 i1",
            (4, 48),
            "'fc' has an axis of size 48, but layout \"o (i0=6 i1=6) -> o i0 i1\" gives i0*i1 = 6*6 = 36.\n"
            "Choose sizes whose product is 48, e.g. i0=6, i1=8.",
        ),
        (
            "o (i0 i1) -> o i0 i1",
            (4, 48),
            "layout \"o (i0 i1) -> o i0 i1\" splits 48 of 'fc' into ['i0', 'i1'], "
            "whose sizes are not given.\n"
            "Write all but one of them, e.g. (i0=... i1).",
        ),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(LayoutError) as error:
        Layout.parse(text).bind(shape, "fc")
    assert str(error.value) == message


@pytest.mark.parametrize("sizes, n", [("o0=5 o1", 48), ("o0=7", 48)])
def test_the_advice_of_a_refusal_is_followed_without_another(sizes: str, n: int) -> None:
    names = [word.split("=")[0] for word in sizes.split()]
    layout = Layout.parse(f"({sizes}) i -> {' '.join(names)} i")
    with pytest.raises(LayoutError) as error:
        layout.bind((n, 3))
    advice = error.value.remedy.partition("e.g. ")[2].rstrip(".").split(", ")
    assert Layout.parse(f"({' '.join(advice)}) i -> {' '.join(names)} i").bind((n, 3)).shape == (n, 3)
