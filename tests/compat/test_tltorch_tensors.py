"""Tensors and tensorized matrices under TensorLy-Torch's names."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tenfold.compat.tltorch as tltorch
from tenfold.core.errors import OptionError, RankError, ShapeError, TenfoldError
from tenfold.decompose import CPALS, CPGN
from tenfold.nn import RowError

TENSORS = list(tltorch.FactorizedTensor._factorizations)
MATRICES = list(tltorch.TensorizedTensor._factorizations)
SHAPE, SIDES = (4, 3, 2, 5), ((4, 3), (5, 2))


def drawn(kind: Any, shape: Any, factorization: str, rank: Any = "same") -> Any:
    torch.manual_seed(0)
    complex_ = factorization.startswith("complex")
    dtype = torch.complex128 if complex_ else torch.float64
    return kind.new(shape, rank, factorization, dtype=dtype).normal_(0, 1)


def dense(x: Any) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else x.to_matrix() if hasattr(x, "to_matrix") else x.to_tensor()


def outer(tensor: torch.Tensor, index: tuple[Any, ...]) -> torch.Tensor:
    """Each item by itself."""
    for k, item in reversed(list(enumerate(index))):
        item = torch.tensor(item) if isinstance(item, list) else item
        tensor = tensor[(slice(None),) * k + (item,)]
    return tensor


@pytest.mark.parametrize("factorization", TENSORS)
@pytest.mark.parametrize(
    "index",
    [
        np.s_[:, 2, :],
        np.s_[2:, :2, :, 0],
        np.s_[0, 2, 1, 3],
        np.s_[-1, :, :, ::2],
        np.s_[0, 1],
        np.s_[0, 1, 1],
        np.s_[[0, 2, 2]],
        np.s_[:, [True, False, True], :, [4, -1]],
        np.s_[np.int64(1), :, np.int32(0)],
        np.s_[:, :, :, torch.tensor([1, 3])],
    ],
)
def test_indexing_commutes_with_to_tensor(factorization: str, index: Any) -> None:
    x = drawn(tltorch.FactorizedTensor, SHAPE, factorization)
    index = index if isinstance(index, tuple) else (index,)
    part, wanted = x[index], outer(x.to_tensor(), index)
    assert part.shape == wanted.shape
    torch.testing.assert_close(dense(part), wanted)


@pytest.mark.parametrize("factorization", MATRICES)
@pytest.mark.parametrize("stack", [(), (3,), (2, 3)])
@pytest.mark.parametrize(
    "rows_columns",
    [np.s_[:, :], np.s_[:, 2], np.s_[2, 3], np.s_[[1, 2, 2], :], np.s_[[1, 2], [3, 4, 5]], np.s_[::3, 1:7]],
)
def test_indexing_rows_and_columns_commutes_with_to_matrix(
    factorization: str, stack: tuple[int, ...], rows_columns: Any
) -> None:
    x = drawn(tltorch.TensorizedTensor, (*stack, *SIDES), factorization, 3)
    for first in (1, slice(None), [1, 0]):
        index = (*(first for _ in stack), *rows_columns)
        part, wanted = x[index], outer(x.to_matrix(), index)
        assert tuple(part.shape) == tuple(wanted.shape)
        torch.testing.assert_close(dense(part), wanted)


@pytest.mark.parametrize("factorization", TENSORS)
def test_a_tensor_is_found_again_from_its_dense_one_at_full_rank(factorization: str) -> None:
    x = drawn(tltorch.FactorizedTensor, (3, 4, 2), factorization, 3 if "dense" not in factorization else None)
    options = {"method": CPGN()} if factorization.endswith("cp") else {}
    found = tltorch.FactorizedTensor.from_tensor(x.to_tensor(), x.rank, factorization, **options)
    error = (found.to_tensor() - x.to_tensor()).norm() / x.to_tensor().norm()
    assert error < 1e-4


@pytest.mark.parametrize("factorization", MATRICES)
@pytest.mark.parametrize("stack", [(), (3,)])
def test_a_stack_of_matrices_is_found_again_at_full_rank(factorization: str, stack: tuple[int, ...]) -> None:
    if factorization.endswith("cp"):
        pytest.skip("CP at full rank takes hundreds of sweeps; its fits are tested with tensors")
    dtype = torch.complex128 if factorization.startswith("complex") else torch.float64
    matrix = torch.randn(*stack, 12, 10, dtype=dtype)
    found = tltorch.TensorizedTensor.from_matrix(matrix, (4, 3), (5, 2), 100, factorization)
    torch.testing.assert_close(found.to_matrix(), matrix)


@pytest.mark.parametrize("factorization", [n for n in TENSORS if "dense" not in n])
@pytest.mark.parametrize("rank", [2, 8])
def test_normal_gives_the_dense_tensor_the_deviation_asked_for(factorization: str, rank: int) -> None:
    torch.manual_seed(0)
    x = tltorch.FactorizedTensor.new((12, 12, 12), rank, factorization)
    squares = [x.normal_(0, 0.1).to_tensor().abs().square().mean().item() for _ in range(40)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("factorization", ["cp", "tucker", "blocktt", "dense"])
def test_normal_gives_the_dense_matrix_the_deviation_asked_for(factorization: str) -> None:
    torch.manual_seed(0)
    x = tltorch.TensorizedTensor.new((2, (6, 6), (6, 6)), 6, factorization)
    squares = [x.normal_(0, 0.1).to_matrix().square().mean().item() for _ in range(150)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("share", ["same", 0.9, 0.3])
def test_a_fraction_of_the_parameters_is_never_exceeded(share: Any) -> None:
    limit = 1.0 if share == "same" else share
    for kind, shape, names in (
        (tltorch.FactorizedTensor, (8, 6, 5), ("cp", "tucker", "tt")),
        (tltorch.TensorizedTensor, (4, (4, 4, 4), (4, 4, 4)), ("cp", "tucker", "blocktt")),
    ):
        for name in names:
            x = kind.new(shape, share, name)
            assert sum(p.numel() for p in x.parameters()) <= limit * x.numel()


@pytest.mark.parametrize("factorization", ["cp", "tucker", "tt", "complexcp", "complextt", "complextucker"])
@pytest.mark.parametrize("mode", [0, 1, 3])
def test_transduction_repeats_the_tensor_along_the_new_mode(factorization: str, mode: int) -> None:
    x = drawn(tltorch.FactorizedTensor, (3, 4, 5), factorization, 2)
    before, kept = x.to_tensor(), {p.data_ptr() for p in x.factors.parameters()}
    x.transduct(2, mode)
    assert tuple(x.shape) == tuple(x.to_tensor().shape) == (*(3, 4, 5)[:mode], 2, *(3, 4, 5)[mode:])
    for k in range(2):
        torch.testing.assert_close(x.to_tensor().select(mode, k), before)
    assert kept <= {p.data_ptr() for p in x.parameters()}, "other factors stay the parameters they were"


@pytest.mark.parametrize("factorization", ["cp", "tucker", "tt", "dense"])
def test_a_fit_in_place_keeps_the_parameters(factorization: str) -> None:
    x = tltorch.FactorizedTensor.new((4, 3, 2), 2, factorization)
    before = list(x.parameters())
    x.init_from_tensor(
        torch.randn(4, 3, 2), **({"method": CPALS(max_steps=500)} if factorization == "cp" else {})
    )
    assert all(a is b for a, b in zip(before, x.parameters(), strict=True))


def test_complex_tensors_have_real_parameters_and_gradients() -> None:
    for name in (n for n in TENSORS if n.startswith("complex")):
        x = tltorch.FactorizedTensor.new(SHAPE, 2, name)
        x.to_tensor().abs().square().sum().backward()
        assert x.to_tensor().dtype == torch.cfloat
        for p in x.parameters():
            assert p.dtype == torch.float32 and p.grad is not None and bool(p.grad.abs().sum() > 0)


@pytest.mark.parametrize("factorization", TENSORS)
def test_copies_share_nothing_and_states_go_round(factorization: str) -> None:
    x = tltorch.FactorizedTensor.new(SHAPE, 2, factorization)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        torch.testing.assert_close(twin.to_tensor(), x.to_tensor())
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in x.parameters()}
    other = tltorch.FactorizedTensor.new(SHAPE, 2, factorization)
    other.load_state_dict(x.state_dict())
    torch.testing.assert_close(other.to_tensor(), x.to_tensor())


def test_functions_of_torch_meet_the_dense_tensor_wherever_it_stands() -> None:
    x = drawn(tltorch.FactorizedTensor, (4, 3), "cp")
    y = x.to_tensor()
    for found, wanted in (
        (torch.cat([x, x]), torch.cat([y, y])),
        (torch.add(y, other=x), y + y),
        (x + 1, y + 1),
        (2 * x - y, y),
        (x @ y.T, y @ y.T),
        (x.T, y.T),
        (-x / 2, -y / 2),
        (torch.einsum("ij,ij->i", x, y), (y * y).sum(1)),
    ):
        torch.testing.assert_close(found, wanted)
    w = drawn(tltorch.TensorizedTensor, SIDES, "blocktt")
    a, b = torch.randn(7, 10, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    torch.testing.assert_close(F.linear(a, w, b), F.linear(a, w.to_matrix(), b))
    torch.testing.assert_close(torch.matmul(a, w.T), a @ w.to_matrix().T)


BAD: list[tuple[Any, type[TenfoldError]]] = [
    (lambda: tltorch.FactorizedTensor.new((4, 3), 2, "cpp"), TenfoldError),
    (lambda: tltorch.FactorizedTensor.new((4, 3), 2.5, "cp"), RankError),
    (lambda: tltorch.FactorizedTensor.new((32, 1, 3, 3), 0.01, "cp"), RankError),
    (lambda: tltorch.FactorizedTensor.new((4, 3), "foo", "cp"), RankError),
    (lambda: tltorch.FactorizedTensor.new((4, 3), 0, "tucker"), RankError),
    (lambda: tltorch.FactorizedTensor.new((4, 3, 2), (2, 2), "tt"), RankError),
    (lambda: tltorch.FactorizedTensor.new((4, 3), 2, "cp", fixed_rank_modes=[0]), OptionError),
    (lambda: tltorch.FactorizedTensor.from_tensor(torch.ones(4, 3, 2), 2, "TT", svd="nonsense"), OptionError),
    (lambda: tltorch.FactorizedTensor.from_tensor(torch.ones(4, 3, 2), 2, "TT", foo=1), OptionError),
    (lambda: tltorch.FactorizedTensor.from_tensor(torch.ones(4, 3), 2, "CP", l2_reg=1e-5), OptionError),
    (lambda: tltorch.FactorizedTensor(), TenfoldError),
    (lambda: tltorch.CPTensor.new((4, 3), 2).normal_(mean=1), OptionError),
    (lambda: tltorch.CPTensor.new((4, 3), 2)[4], RowError),
    (lambda: tltorch.CPTensor.new((4, 3), 2)[None], ShapeError),
    (lambda: tltorch.CPTensor.new((4, 3), 2)[0, 0, 0], ShapeError),
    (lambda: tltorch.BlockTT.new(((4, 3), (5, 2)), 2)[:, 10], RowError),
    (lambda: tltorch.BlockTT.new(((4, 3, 2), (5, 2)), 2), ShapeError),
    (lambda: tltorch.TensorizedTensor.from_matrix(torch.ones(4, 4), (2, 3), (2, 2), 1), ShapeError),
    (lambda: tltorch.init.cp_init(tltorch.TTTensor.new((4, 3), 2)), OptionError),
    (lambda: tltorch.utils.ParameterList([torch.ones(2)]), OptionError),
    (lambda: tltorch.utils.get_tensorized_shape(16, 16, order=0), OptionError),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_tensorly_torch_lets_pass_is_an_error_that_says_what_to_do(number: int) -> None:
    call, error = BAD[number]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value)


@pytest.mark.parametrize("factorization", ["CP", "Tucker", "TT"])
def test_a_mode_is_inserted_as_into_a_list(factorization: str) -> None:
    for mode in (-3, -1, 0, 3):
        x = tltorch.FactorizedTensor.new((3, 4, 5), rank=2, factorization=factorization).normal_(0, 1)
        shape, dense = [3, 4, 5], x.to_tensor().detach()
        shape.insert(mode, 2)
        x.transduct(2, mode)
        at = mode % 3 if mode < 0 else mode
        expected = dense.unsqueeze(at).expand(*shape)
        assert tuple(x.shape) == tuple(shape)
        torch.testing.assert_close(x.to_tensor().detach(), expected)
    for mode in (-4, 4):
        x = tltorch.FactorizedTensor.new((3, 4, 5), rank=2, factorization=factorization)
        with pytest.raises(ShapeError, match="a mode cannot go to position"):
            x.transduct(2, mode)
        assert tuple(x.to_tensor().shape) == (3, 4, 5)


def test_indices_of_8_bits_without_a_sign_are_no_mask() -> None:
    x = tltorch.FactorizedTensor.new((2, 4), rank=2, factorization="CP").normal_(0, 1)
    at = torch.tensor([1, 1], dtype=torch.uint8)
    torch.testing.assert_close(x[at].to_tensor(), x.to_tensor()[[1, 1]])
    assert tltorch.FactorizedTensor.new((256, 4), rank=2, factorization="CP")[at].shape == (2, 4)


@pytest.mark.filterwarnings("ignore::tenfold.core.errors.ConvergenceWarning")
@pytest.mark.parametrize("factorization", ["CP", "Tucker"])
def test_without_a_tolerance_all_iterations_run(factorization: str) -> None:
    tensor = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    few, many = (
        tltorch.FactorizedTensor.from_tensor(tensor, 2, factorization, n_iter_max=n, tol=tol)
        for n, tol in ((4, None), (4, 0.0))
    )
    torch.testing.assert_close(few.to_tensor(), many.to_tensor())
