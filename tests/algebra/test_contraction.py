import numpy as np
import pytest
import torch

from tenfold.algebra import contract, contract_axes
from tenfold.core.errors import LayoutError, ShapeError

SIZES = dict(zip("ijklmnrst", (2, 3, 4, 2, 3, 5, 3, 2, 4), strict=True))
EXPRESSIONS = [
    "i j -> j i",
    "i j -> i",
    "i j ->",
    "i i -> i",
    "i i ->",
    "i j i k j -> k j",
    "i, j -> j i",
    "i, i ->",
    "i j, j k -> i k",
    "i j k, j k l -> l i",
    "i j r, k j r -> i k r",
    "r i, r i -> r",
    "i j, k l ->",
    "i i j, j k k -> i",
    "i r, j r, k r -> i j k",
    "r, i r, j r, k r -> k j i",
    "r s t, i r, j s, k t -> i j k",
    "i r, r j s, s k t, t l -> i j k l",
    "r i s, s j t, t k r -> i j k",
    "r s i, s t j, t r k, i j k ->",
    "i j, j k, k l, l m, m n -> n i",
]


def arrays_for(library, expression, dtype="float64"):
    terms = expression.partition("->")[0].split(",")
    return [
        library.normal(*(SIZES[axis] for axis in term.split()), seed=n, dtype=dtype)
        for n, term in enumerate(terms)
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_contraction_is_einsum(library, expression, dtype):
    arrays = arrays_for(library, expression, dtype)
    expected = np.einsum(expression.replace(" ", ""), *map(np.asarray, arrays))
    result = contract(expression, *arrays)
    np.testing.assert_allclose(
        np.asarray(result), expected, atol=2e-4 if dtype == "float32" else 1e-10, rtol=0
    )
    assert tuple(result.shape) == expected.shape and result.dtype == arrays[0].dtype


def test_axes_have_names_of_any_length(library):
    a, b = library.normal(2, 3), library.normal(3, 4, seed=1)
    expected = np.asarray(a) @ np.asarray(b)
    np.testing.assert_allclose(np.asarray(contract("out rank, rank in0 -> out in0", a, b)), expected)
    axes = [("out", "rank"), ("rank", "in0")]
    np.testing.assert_allclose(np.asarray(contract_axes([a, b], axes, ["out", "in0"])), expected)


def test_arrays_without_axes_are_factors(library):
    result = contract(", i ->", library.array(2.0), library.array([1.0, 2.0]))
    assert float(result) == 6.0


def test_more_axes_than_letters(library):
    count = 60
    arrays = [library.array([[1.0, 1.0], [0.0, 1.0]]) for _ in range(count)]
    inputs = [(f"bond{n}", f"bond{n + 1}") for n in range(count)]
    result = contract_axes(arrays, inputs, ("bond0", f"bond{count}"))
    np.testing.assert_allclose(np.asarray(result), [[1.0, count], [0.0, 1.0]])


def test_contractions_are_differentiable():
    arrays = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *a: contract("i r, j r, k r -> i j k", *a), arrays)


def test_contraction_never_calls_einsum(monkeypatch):
    monkeypatch.delattr(torch, "einsum")
    contract("i r, r j s, s k -> i j k", torch.ones(2, 3), torch.ones(3, 4, 5), torch.ones(5, 2))


@pytest.mark.parametrize("expression", ["i j", "i -> j -> k"])
def test_an_expression_without_one_arrow_is_refused(expression):
    with pytest.raises(LayoutError) as raised:
        contract(expression, np.ones((2, 2)))
    assert str(raised.value) == (
        f"the contraction '{expression}' has not one '->'.\n"
        "Write the axes of each array, then those of the result: 'o r, r i -> o i'."
    )


@pytest.mark.parametrize("output", ["k", "i i"])
def test_an_output_that_is_not_among_the_axes_is_refused(library, output):
    with pytest.raises(LayoutError) as raised:
        contract(f"i j -> {output}", library.normal(2, 3))
    assert str(raised.value) == (
        f"the result cannot have the axes '{output}'.\nChoose from 'i j', each one once."
    )


def test_an_axis_of_two_sizes_is_refused(library):
    with pytest.raises(ShapeError, match="axis 'j' has size 3 in one array and 4 in another"):
        contract("i j, j k -> i k", library.normal(2, 3), library.normal(4, 2))
    with pytest.raises(ShapeError, match="axis 'i' has size 2 in one array and 3 in another"):
        contract("i i -> i", library.normal(2, 3))


def test_axes_that_are_not_named_are_refused(library):
    with pytest.raises(ShapeError, match=r"array 0 has shape \(2, 3\), but the axes 'ij'\.\nName each"):
        contract("ij -> ij", library.normal(2, 3))


def test_a_wrong_number_of_arrays_is_refused(library):
    with pytest.raises(ShapeError, match="got 1 arrays for a contraction of 2"):
        contract("i, i ->", library.normal(2))
    with pytest.raises(ShapeError, match="got 0 arrays for a contraction of 0"):
        contract_axes([], [], ())
