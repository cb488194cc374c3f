"""The laws of sums, multiples, entrywise products and single entries of tensors in a format."""

import numpy as np

from tenfold.core.arrays import namespace
from tenfold.formats import CP, Format
from tenfold.testing.compare import assert_equal, to_numpy
from tenfold.testing.samples import naive, name, others


def check_sum(value: Format) -> None:
    """Sums and differences are those of the dense tensors, keep the format, and their ranks add up."""
    for other in others(value):
        law = f"the sum of two {name(value)}s"
        assert_equal((value + other).dense(), naive(value) + naive(other), law)
        assert_equal((value - other).dense(), naive(value) - naive(other), f"{law}, one negative")
        check_kept(value + other, value, law)
        ours, theirs, found = value.ranks, other.ranks, (value + other).ranks
        sizes = {b: found[b] - ours.get(b, 0) - theirs.get(b, 0) for b in found}
        assert max(sizes.values(), default=0) <= 0, f"{law} has ranks {found}, from {ours} and {theirs}"


def check_multiple(value: Format) -> None:
    """Numbers and arrays without axes scale the tensor, whichever side they are on, and negation is exact."""
    dense = naive(value)
    zero_d = namespace(*value.factors).asarray(0.3, dtype=value.dtype)
    for scalar, number in [(3, 3), (-0.7, -0.7), (np.float64(0.3), 0.3), (zero_d, 0.3), (0, 0)]:
        law = f"{name(value)} times {scalar!r}"
        for product in (value * scalar, scalar * value):
            assert_equal(product.dense(), dense * number, law)
            check_kept(product, value, law)
            assert product.dtype == value.dtype, f"{law} has the dtype {product.dtype}"
    assert_equal((value / 7).dense(), dense / 7, f"{name(value)} divided")
    assert_equal((-value).dense(), -value.dense(), f"{name(value)} negated", 0.0)
    assert_equal((value * 2j).dense(), dense * 2j, f"{name(value)} times a complex number")


def check_even(value: Format) -> None:
    """A large number is spread over the factors, so that none of them overflows before the others."""
    many = len(value.factors)
    largest = [float(np.max(np.abs(to_numpy(f)))) for f in value.factors]
    grown = [float(np.max(np.abs(to_numpy(f)))) for f in (value * 2.0 ** (50 * many)).factors]
    growth = [b / a for a, b in zip(largest, grown, strict=True)]
    assert np.allclose(growth, 2.0**50), f"the factors of {name(value)} grow by {growth}"


def check_hadamard(value: Format) -> None:
    """Entrywise products are those of the dense tensors; two of one format keep it, and ranks multiply."""
    for other in others(value):
        law = f"the entrywise product of two {name(value)}s"
        product = value * other
        assert_equal(product.dense(), naive(value) * naive(other), law)
        check_kept(product, value, law)
        ours, theirs, found = value.ranks, other.ranks, product.ranks
        expected = {b: ours.get(b, 1) * theirs.get(b, 1) for b in found}
        assert found == expected, f"{law} has ranks {found}, from {ours} and {theirs}"
    mixed = CP.random(value.shape, 2, like=value.factors[0], generator=8)
    assert_equal((value * mixed).dense(), naive(value) * naive(mixed), f"{name(value)} times CP")


def check_at(value: Format) -> None:
    """Single entries are those of the dense tensor, none among them, and counted from the end."""
    xp, draw = namespace(*value.factors), np.random.default_rng(0).integers
    for count in (0, 1, 6):
        indices = np.stack([draw(-n, n, count) for n in value.shape], axis=1)
        found, expected = value.at(xp.asarray(indices)), naive(value)[tuple(indices.T)]
        assert_equal(found, expected, f"{name(value)}.at for {count} entries")


def check_kept(result: Format, value: Format, law: str) -> None:
    """The result has the format and the options of `value`."""
    assert type(result) is type(value), f"{law} is a {name(result)}"
    assert result.static == value.static, f"{law} has the options {result.static}"


ARITHMETIC_LAWS = (check_sum, check_multiple, check_even, check_hadamard, check_at)
