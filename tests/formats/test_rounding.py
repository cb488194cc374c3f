"""Rounding keeps its tolerance, finds the ranks that are known, and never squares what would overflow."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.core.errors import OptionError, RankError, ShapeError, UnsupportedError, WeightError
from tenfold.decompose import STHOSVD, TTSVD
from tenfold.formats import (
    CP,
    Format,
    General,
    HierarchicalTucker,
    KroneckerSum,
    LowRank,
    SlicedLowRank,
    TensorRing,
    TensorTrain,
    Tucker,
    orthogonalised,
    rounded,
    rounded_randomly,
)
from tenfold.testing.compare import to_numpy
from tenfold.testing.methods import discarded

LIKES = {"numpy": np.zeros(()), "torch-complex": torch.zeros((), dtype=torch.complex128)}
STAR = (("m0", "A"), ("A", "B", "C"), ("B", "m1", "m2"), ("C", "m3"))
PEPS = (("A", "B", "m0"), ("A", "C", "m1"), ("B", "D", "E", "m2"), ("C", "D", "F", "m3"), ("E", "F", "m4"))


def tree(name: str, like: Any) -> Format:
    """A random tensor on a network without cycles."""
    if name == "star":
        return General.random((4, 3, 2, 5), 4, joined=STAR, like=like, generator=0)
    if name == "shorn":  # a core without a mode, and a leaf without one
        return TensorTrain.random((6, 3, 5, 4, 3), 4, like=like, generator=0)[:, 1, :, :, 2]
    if name == "whole":
        return Tucker.random((6, 5, 4), (4, None, 3), like=like, generator=0)
    if name == "ht5":
        return HierarchicalTucker.random(
            (3, 4, 2, 3, 4), 4, tree=((0, (1, 3)), (2, 4)), like=like, generator=0
        )
    kinds: dict[str, tuple[type[Format], tuple[int, ...], int]] = {
        "tt": (TensorTrain, (4, 5, 3, 6), 5),
        "vector": (TensorTrain, (6,), 1),
        "tucker": (Tucker, (6, 5, 4), 4),
        "ht": (HierarchicalTucker, (4, 3, 5, 4), 4),
        "lowrank": (LowRank, (7, 6), 5),
        "cp2": (CP, (7, 6), 5),
        "kronecker": (KroneckerSum, (3, 2, 2, 4), 5),
    }
    cls, shape, ranks = kinds[name]
    return cls.random(shape, ranks, like=like, generator=0)


TREES = ["tt", "vector", "tucker", "whole", "ht", "ht5", "lowrank", "cp2", "kronecker", "star", "shorn"]


def ring(name: str, like: Any) -> Format:
    """A random tensor on a network with cycles."""
    if name == "peps":
        return General.random((3, 2, 3, 2, 4), 2, joined=PEPS, like=like, generator=0)
    return TensorRing.random(
        {"tr2": (5, 4), "tr3": (5, 4, 6), "tr4": (4, 3, 5, 4)}[name], 3, like=like, generator=0
    )


RINGS = ["tr2", "tr3", "tr4", "peps"]


def distance(x: Format, y: Format) -> float:
    """‖x - y‖ / ‖x‖."""
    dense = to_numpy(x.dense())
    return float(np.linalg.norm(dense - to_numpy(y.dense())) / np.linalg.norm(dense))


def decaying(x: Format, base: float = 0.2) -> Format:
    """The same graph, the indices of each bond scaled by falling powers, so that singular values decline."""
    factors, seen = [], set()
    for axes, f in zip(x.network.factors, x.factors, strict=True):
        for k, a in enumerate(axes):
            if a in x.network.bonds and a not in seen:
                seen.add(a)
                shape = [-1 if n == k else 1 for n in range(f.ndim)]
                powers = base ** np.arange(f.shape[k])
                f = f * (torch.from_numpy(powers) if isinstance(f, torch.Tensor) else powers).reshape(shape)
        factors.append(f)
    return x._replaced(dict(enumerate(factors)))


# Trees ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like", LIKES.values(), ids=LIKES)
@pytest.mark.parametrize("name", TREES)
def test_all_factors_but_the_centre_are_isometries_towards_it(name: str, like: Any) -> None:
    x = tree(name, like)
    for centre in range(-1, len(x.factors)):
        y = orthogonalised(x, centre)
        assert type(y) is type(x) and distance(x, y) < 1e-12
        centred = to_numpy(y.factors[centre])
        assert np.linalg.norm(centred) == pytest.approx(np.linalg.norm(to_numpy(x.dense())))
        for k in range(len(y.factors)):
            if k != centre % len(x.factors):
                matrix = towards(y, k, centre % len(x.factors))
                np.testing.assert_allclose(matrix.conj().T @ matrix, np.eye(matrix.shape[1]), atol=1e-12)


def towards(x: Format, k: int, centre: int) -> np.ndarray:
    """Factor k as a matrix whose columns are its bond towards the centre."""
    factors = x.network.factors
    reached, between = {centre}, dict[int, str]()
    while k not in between:
        for n, axes in enumerate(factors):
            for m in list(reached):
                if n not in reached and (common := set(axes) & set(factors[m])):
                    between[n] = common.pop()
                    reached.add(n)
    f = np.moveaxis(to_numpy(x.factors[k]), factors[k].index(between[k]), -1)
    return f.reshape(-1, f.shape[-1])


@pytest.mark.parametrize("like", LIKES.values(), ids=LIKES)
@pytest.mark.parametrize("name", TREES)
def test_rounding_keeps_its_tolerance_and_reports_the_true_error(name: str, like: Any) -> None:
    x = decaying(tree(name, like))
    for tol in (0.0, 1e-12, 1e-6, 1e-2, 0.2, 0.7):
        found = rounded(x, tol=tol)
        error = distance(x, found.value)
        assert error <= tol + 1e-13
        assert found.error == pytest.approx(error, rel=1e-6, abs=1e-13)
        assert type(found.value) is type(x) and found.value.dtype == x.dtype


@pytest.mark.parametrize("like", LIKES.values(), ids=LIKES)
@pytest.mark.parametrize("name", TREES)
def test_rounding_to_ranks_is_within_the_bound_and_reports_the_true_error(name: str, like: Any) -> None:
    x = tree(name, like)
    for rank in (1, 2, 3):
        found = rounded(x, rank)
        assert max(found.value.ranks.values(), default=0) <= rank
        assert found.error == pytest.approx(distance(x, found.value), abs=1e-12)
        network = x.network.with_ranks({b: min(rank, r) for b, r in x.ranks.items()})
        tails = list(discarded(x.dense(), network))
        square = found.error**2 * np.linalg.norm(to_numpy(x.dense())) ** 2
        assert max(tails, default=0.0) * (1 - 1e-9) - 1e-12 <= square <= sum(tails) * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("name", TREES)
def test_rounding_twice_changes_nothing(name: str) -> None:
    once = rounded(decaying(tree(name, np.zeros(()))), tol=1e-3).value
    twice = rounded(once, tol=1e-9)
    assert twice.value.ranks == once.ranks and twice.error < 1e-9
    assert once.network.clipped() == once.network


@pytest.mark.parametrize("name", TREES)
def test_a_sum_of_equal_tensors_is_rounded_to_the_ranks_of_one(name: str) -> None:
    x = tree(name, np.zeros(()))
    least = rounded(x, tol=1e-12).value
    double = x + x
    found = rounded(double, tol=1e-12)
    assert found.value.ranks == least.ranks and distance(double, found.value) < 1e-12


@pytest.mark.parametrize("name", [*TREES, *RINGS])
def test_zero_is_rounded_to_ranks_of_one(name: str) -> None:
    x = (ring if name in RINGS else tree)(name, np.zeros(()))
    for zero in (0 * x, x.map(lambda f: 0 * f)):
        found = rounded(zero, tol=1e-3)
        assert set(found.value.ranks.values()) <= {1}
        assert found.error == 0 and not np.any(to_numpy(found.value.dense()))


def test_ranks_may_be_one_for_all_one_for_each_by_name_or_a_fraction() -> None:
    x = TensorTrain.random((4, 5, 6), 4, like=np.zeros(()), generator=0)
    assert rounded(x, 2).value.ranks == {"R1": 2, "R2": 2}
    assert rounded(x, (9, 2)).value.ranks == {"R1": 4, "R2": 2}
    assert rounded(x, (3, None)).value.ranks == {"R1": 3, "R2": 4}
    assert rounded(x, {"R1": 1}).value.ranks == {"R1": 1, "R2": 4}
    assert rounded(x, 0.5).value.numel <= 60
    assert rounded(decaying(x), (4, 1), tol=1e-12).value.ranks == {"R1": 4, "R2": 1}
    assert rounded(decaying(x), (4, 2), tol=0.9).value.ranks == {"R1": 1, "R2": 1}


def test_a_network_that_falls_into_parts_keeps_the_tolerance_of_the_whole() -> None:
    graph = (("m0", "A"), ("A", "m1"), ("m2", "B"), ("B", "C", "m3"), ("C", "m4"))
    x = General.random((4, 5, 4, 3, 4), 4, joined=graph, like=np.zeros(()), generator=0)
    for tol in (0.1, 0.4, 0.7):
        found = rounded(x, tol=tol)
        assert found.error <= tol and found.error == pytest.approx(distance(x, found.value), abs=1e-12)


# Known ranks ---------------------------------------------------------------------------------------------

GRID = sum(np.meshgrid(*[np.linspace(0, 1, 6)] * 5, indexing="ij"))
FUNCTIONS = {
    "exp(s)": (np.exp(GRID), 1),
    "s": (GRID, 2),
    "sin(s)": (np.sin(GRID), 2),
    "s^2": (GRID**2, 3),
    "s^3": (GRID**3, 4),
    "s sin(s)": (GRID * np.sin(GRID), 4),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_sums_of_functions_of_a_sum_are_rounded_to_their_known_ranks(function: str) -> None:
    x, rank = FUNCTIONS[function]
    train, tucker = TTSVD(tol=1e-13)(x).value, STHOSVD(tol=1e-13)(x).value
    for value in (train, tucker):
        many = value + value + value
        assert set(rounded(many, tol=1e-10).value.ranks.values()) == {rank}
        assert set(rounded_randomly(many, tol=1e-10, generator=0).value.ranks.values()) == {rank}


def test_a_sum_of_sines_has_rank_two_for_each_frequency() -> None:
    frequencies = (1.0, 2.0, 3.0)
    terms = [sine(f) for f in frequencies]
    for term in terms:
        assert set(term.ranks.values()) == {2}
    total = terms[0] + terms[1] + terms[2]
    exact = sum(np.sin(f * GRID) for f in frequencies)
    np.testing.assert_allclose(total.dense(), exact, atol=1e-12)
    assert set(rounded(total + total, tol=1e-10).value.ranks.values()) == {6}


def sine(frequency: float) -> TensorTrain:
    """sin of a frequency times the sum of coordinates, by the addition theorem."""
    t = frequency * np.linspace(0, 1, 6)
    s, c = np.sin(t), np.cos(t)
    core = np.moveaxis(np.array([[c, -s], [s, c]]), -1, 1)
    return TensorTrain((np.stack([s, c], axis=1), core, core, core, np.stack([c, s])))


@pytest.mark.parametrize(
    "n, order, tol, ranks",
    [
        (10, 3, 1e-3, (4, 4)),
        (10, 3, 1e-6, (6, 6)),
        (10, 3, 1e-9, (8, 8)),
        (10, 3, 1e-12, (10, 10)),
        (8, 4, 1e-3, (4, 4, 4)),
        (8, 4, 1e-6, (6, 7, 6)),
        (8, 4, 1e-12, (8, 11, 8)),
        (5, 5, 1e-9, (5, 8, 8, 5)),
        (5, 5, 1e-12, (5, 9, 9, 5)),
    ],
)
def test_hilbert_tensors_are_rounded_to_their_known_ranks(
    n: int, order: int, tol: float, ranks: tuple[int, ...]
) -> None:
    x = 1 / (1 + sum(np.meshgrid(*[np.arange(n)] * order, indexing="ij")))
    whole = TTSVD()(x, 10**6).value
    found = rounded(whole, tol=tol)
    assert tuple(found.value.ranks.values()) == ranks
    assert found.error <= tol and distance(whole, found.value) <= tol * (1 + 1e-6) + 1e-15


T = np.arange(1024) / 1024
QUANTIZED = {
    "exp": (np.exp(T), [1] * 9),
    "sin": (np.sin(7 * T), [2] * 9),
    "t": (T, [2] * 9),
    "t^3": (T**3, [2, 4, 4, 4, 4, 4, 4, 4, 2]),
    "step": (1.0 * (T < 1 / 3), [1, *[2] * 7, 1]),
    "1/(1+t)": (1 / (1 + T), [5] * 9),
}


@pytest.mark.parametrize("function", QUANTIZED)
def test_quantized_trains_are_rounded_to_their_known_ranks(function: str) -> None:
    samples, bound = QUANTIZED[function]
    x = TTSVD(tol=1e-13)(samples.reshape((2,) * 10)).value
    ranks = list(rounded(x + x, tol=1e-11).value.ranks.values())
    assert all(r <= b for r, b in zip(ranks, bound, strict=True))
    if function != "1/(1+t)":
        assert ranks == bound


def test_the_tolerance_is_not_ignored() -> None:
    # t3f issue 202: exp(-x y) on a grid, of rank 8 at 1e-14 and 3 at 1e-3.
    grid = np.linspace(0, 1, 10)
    x = TensorTrain((np.exp(-np.outer(grid, grid)), np.eye(10)))
    assert rounded(x, tol=1e-14).value.ranks == {"R1": 8}
    assert rounded(x, tol=1e-3).value.ranks == {"R1": 3}


# Range ---------------------------------------------------------------------------------------------------


def ones(order: int, dtype: Any = np.float64) -> TensorTrain:
    """A tensor of ones, 10 in each mode."""
    one = np.ones((1, 10, 1), dtype=dtype)
    return TensorTrain((one[0], *[one] * (order - 2), one[:, :, 0]))


def first_entry(train: Format) -> float:
    """The entry at the first index of all modes, core by core."""
    first, *middle, last = train.factors
    row = first[:1]
    for core in middle:
        row = row @ core[:, 0, :]
    return float((row @ last[:, :1])[0, 0])


def test_norms_beyond_the_range_do_not_overflow() -> None:
    # ttpy issue 88: ones of order 400, of norm 1e200, added up and rounded again and again.
    one, total = ones(400), 0 * ones(400)
    for count in (1, 2, 3):
        total = rounded(total + one, tol=1e-3).value
        assert set(total.ranks.values()) == {1} and first_entry(total) == pytest.approx(count)
    assert first_entry(orthogonalised(one + one, 7)) == pytest.approx(2)
    sketched = rounded_randomly([one, total], 1, generator=0, measure=False).value
    assert set(sketched.ranks.values()) == {1} and first_entry(sketched) == pytest.approx(4)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_the_scale_of_factors_does_not_matter(scale: float) -> None:
    x = decaying(TensorTrain.random((4, 5, 3), 3, like=np.zeros(()), generator=0))
    first, middle, last = x.factors
    far = TensorTrain((first * scale, middle, last / scale**0.5))
    assert rounded(far, tol=1e-2).value.ranks == rounded(x, tol=1e-2).value.ranks
    assert rounded(far, tol=1e-2).error == pytest.approx(rounded(x, tol=1e-2).error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_other_dtypes_come_back(dtype: torch.dtype) -> None:
    x = TensorTrain.random((4, 5, 6), 4, like=torch.zeros((), dtype=dtype), generator=0)
    for found in (rounded(x, 2), rounded_randomly(x, 2, generator=0)):
        assert found.value.dtype == dtype
        assert found.error == pytest.approx(distance(x, found.value), abs=3e-2)
    assert orthogonalised(x, 1).dtype == dtype


def test_gradients_flow_through_rounding() -> None:
    x = LowRank.random((5, 4), 3, like=torch.zeros((), dtype=torch.float64), generator=0)
    leaves = tuple(f.requires_grad_() for f in x.factors)
    assert torch.autograd.gradcheck(lambda *f: rounded(LowRank(*f), 2).value.dense(), leaves, fast_mode=True)
    train = TensorTrain.random((3, 4, 3), 3, like=torch.zeros((), dtype=torch.float64), generator=0)
    cores = tuple(f.requires_grad_() for f in train.cores)
    assert torch.autograd.gradcheck(
        lambda *f: rounded(TensorTrain(f), 2).value.dense(), cores, fast_mode=True
    )


# Cycles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like", LIKES.values(), ids=LIKES)
@pytest.mark.parametrize("name", RINGS)
def test_rounding_of_rings_keeps_its_tolerance_and_reports_the_true_error(name: str, like: Any) -> None:
    x = decaying(ring(name, like))
    for tol in (1e-12, 1e-2, 0.2, 0.7):
        found = rounded(x, tol=tol)
        error = distance(x, found.value)
        assert error <= tol * (1 + 1e-9)
        assert found.error == pytest.approx(error, rel=1e-6, abs=1e-13)
        assert type(found.value) is type(x)
    assert rounded(x, tol=0.7).value.numel < x.numel


@pytest.mark.parametrize("name", RINGS)
def test_rings_are_rounded_to_given_ranks(name: str) -> None:
    x = ring(name, np.zeros(()))
    for rank in (1, 2):
        found = rounded(x, rank)
        assert max(found.value.ranks.values()) <= rank
        assert found.error == pytest.approx(distance(x, found.value), abs=1e-12)


def test_a_ring_that_is_added_to_itself_does_not_grow_for_ever() -> None:
    x = total = ring("tr4", np.zeros(()))
    sizes = []
    for count in range(2, 6):
        total = rounded(total + x, tol=1e-10).value
        np.testing.assert_allclose(total.dense(), count * x.dense(), atol=1e-8)
        sizes.append(total.numel)
    assert len(set(sizes)) == 1


def test_a_long_ring_of_large_norm_does_not_overflow() -> None:
    cores = tuple(np.ones((2, 10, 2)) for _ in range(12))
    x = TensorRing(tuple(c * 1e20 for c in cores))  # all entries 2^12 1e240
    found = rounded(x, tol=1e-6)
    assert set(found.value.ranks.values()) == {1}
    entry = math.prod(float(c[0, 0, 0]) / 1e20 for c in found.value.cores)
    assert entry == pytest.approx(2**12)


# Randomised ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like", LIKES.values(), ids=LIKES)
@pytest.mark.parametrize("name", TREES)
def test_randomised_rounding_is_nearly_as_close(name: str, like: Any) -> None:
    x = decaying(tree(name, like), 0.5)
    for rank in (1, 2):
        best, found = rounded(x, rank), rounded_randomly(x, rank, oversampling=2, generator=0)
        assert found.value.ranks == best.value.ranks
        assert found.error == pytest.approx(distance(x, found.value), rel=1e-6, abs=1e-12)
        assert found.error <= 1.5 * best.error + 1e-12


def graded(order: int, n: int, rank: int, terms: int) -> list[Format]:
    """Trains whose norms fall by a third each."""
    draws = [TensorTrain.random((n,) * order, rank, like=np.zeros(()), generator=k) for k in range(terms)]
    return [x * 3.0**-k for k, x in enumerate(draws)]


def test_a_sum_is_rounded_randomly_term_by_term() -> None:
    terms = graded(6, 6, 4, 8)
    total = sum(terms[1:], start=terms[0])
    best = rounded(total, 8)
    for value in (total, terms):
        found = rounded_randomly(value, 8, generator=0)
        assert found.value.ranks == best.value.ranks
        assert found.error == pytest.approx(distance(total, found.value), rel=1e-6)
        assert found.error <= 1.2 * best.error


def test_more_oversampling_brings_randomised_rounding_to_the_deterministic_one() -> None:
    terms = graded(6, 6, 4, 8)
    best = rounded(sum(terms[1:], start=terms[0]), 8).error
    ratios = [
        np.mean([rounded_randomly(terms, 8, oversampling=p, generator=g).error for g in range(4)]) / best
        for p in (0, 4, 24)
    ]
    assert ratios[0] > ratios[1] > ratios[2] and ratios[2] < 1.001


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("name", ["tt", "ht"])
def test_randomised_rounding_grows_to_its_tolerance(name: str, tol: float) -> None:
    kinds: dict[str, type[Format]] = {"tt": TensorTrain, "ht": HierarchicalTucker}
    cls = kinds[name]
    x = decaying(cls.random((24,) * 4, 40, like=np.zeros(()), generator=0), 0.6)
    best = rounded(x, tol=tol)
    for seed in range(3):
        found = rounded_randomly(x, tol=tol, generator=seed)
        assert found.error <= tol
        assert all(found.value.ranks[b] <= r + 2 for b, r in best.value.ranks.items())


def test_small_errors_of_randomised_rounding_are_measured_to_full_precision() -> None:
    x = decaying(TensorTrain.random((8,) * 4, 6, like=np.zeros(()), generator=0), 1e-3)
    found = rounded_randomly(x, 3, generator=0)
    assert found.error < 1e-7 and found.error == pytest.approx(distance(x, found.value), rel=1e-3)


def test_the_same_seed_rounds_to_the_same_factors() -> None:
    terms = graded(4, 5, 3, 3)
    first, second = (rounded_randomly(terms, 4, generator=5).value for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.factors, second.factors, strict=True))
    assert math.isnan(rounded_randomly(terms, 4, generator=5, measure=False).error)


def test_zero_is_rounded_randomly() -> None:
    x = TensorTrain.random((4, 5, 6), 3, like=np.zeros(()), generator=0)
    for value in (0 * x, [x, -x]):
        found = rounded_randomly(value, 2, generator=0)
        np.testing.assert_allclose(found.value.dense(), 0, atol=1e-14)


# Refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [rounded, orthogonalised, rounded_randomly])
def test_networks_whose_factors_share_more_than_bonds_are_refused(function: Any) -> None:
    cp = CP.random((4, 5, 6), 2, like=np.zeros(()))
    sliced = SlicedLowRank.random((4, 5, 6), 2, like=np.zeros(()))
    with pytest.raises(UnsupportedError, match="bond R belongs to 3 factors, but orthogonal bases need two"):
        function(cp, 1)
    with pytest.raises(UnsupportedError, match="mode m1 belongs to 2 factors, but orthogonal bases need one"):
        function(sliced, 1)


@pytest.mark.parametrize("function", [orthogonalised, rounded_randomly])
def test_cycles_are_refused_where_they_cannot_be(function: Any) -> None:
    with pytest.raises(UnsupportedError, match="the network has a cycle through bond R"):
        function(ring("tr3", np.zeros(())), 1)


def test_bad_options_are_refused() -> None:
    x = TensorTrain.random((4, 5, 6), 2, like=np.zeros(()))
    for tol in (-0.1, 1.0, math.nan):
        with pytest.raises(OptionError, match="Give a relative error from 0 up to 1"):
            rounded(x, tol=tol)
        with pytest.raises(OptionError):
            rounded_randomly(x, tol=tol)
    with pytest.raises(OptionError, match="the centre is factor 3, but there are 3 factors"):
        orthogonalised(x, 3)
    with pytest.raises(OptionError, match="oversampling came as -1"):
        rounded_randomly(x, 2, oversampling=-1)
    with pytest.raises(RankError, match="neither ranks nor a tolerance came"):
        rounded_randomly(x)


@pytest.mark.parametrize(
    "ranks, message",
    [
        (0, "ranks must be at least 1, but came as"),
        (2.5, "a fraction of the parameters came as 2.5"),
        ((2,), r"the tensor has 2 bonds, but 1 ranks came: \[2\]"),
        ({"Q": 2}, "ranks name Q, but the bonds are R1, R2"),
        ("2", "a rank came as '2'"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(ranks: Any, message: str) -> None:
    with pytest.raises(RankError, match=message):
        rounded(TensorTrain.random((4, 5, 6), 2, like=np.zeros(())), ranks)


def test_terms_that_differ_are_refused() -> None:
    x = TensorTrain.random((4, 5, 6), 2, like=np.zeros(()))
    y = TensorTrain.random((4, 6, 5), 2, like=np.zeros(()))
    with pytest.raises(ShapeError, match="expected terms of one graph and shape, but got 2 kinds in 2 terms"):
        rounded_randomly([x, y], 2)
    with pytest.raises(ShapeError, match="got 0 kinds in 0 terms"):
        rounded_randomly([], 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_factors_that_are_not_finite_are_refused(bad: float) -> None:
    x = LowRank(np.array([[1.0], [bad]]), np.ones((1, 3)))
    for function in (rounded, orthogonalised, rounded_randomly):
        with pytest.raises(WeightError, match="'factor 0' has 1 entry of 2 that is NaN or infinite"):
            function(x, 1)
