"""A matrix of low rank, stored without the numbers that the choice of its factors leaves free."""

from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.core.errors import RankError
from tenfold.core.layout import Layout, rearrange
from tenfold.core.network import Network
from tenfold.core.program import Program
from tenfold.formats import Format, LowRank
from tenfold.nn.memory import CHANNELS_LAST, in_memory_order, laid_out
from tenfold.nn.tensor.factorized import FactorizedTensor
from tenfold.nn.tensor.held import held


class PivotedTensor(FactorizedTensor):
    """A weight of low rank of which r of the m rows are kept as they are, and the others as sums of these.

    The factors of X = U V, m × n and of rank r, are free up to an invertible r × r matrix A, for U V = (U
    A)(A⁻¹ V). Here A turns r rows of U into the identity, those that elimination with pivoting picks, so
    that entries of the others are small. What is stored is `rest`, the (m - r) × r others; `right`, the
    picked rows of X; and `rows`, where each row stands: r (m + n - r) elements and m indices in place of r
    (m + n) elements, which is less than the dense matrix has up to nearly full rank.

    A linear layer puts `left` together when it runs, or on few inputs its outputs; other layers put `left`
    together. Then they compute what they would with two plain factors, so that storage is saved, not time: on
    one core of a CPU, small linear layers on few inputs took up to 1.5 times as long, large ones, many inputs
    and convolutions up to 1.2 times.

    Source: Zhao, Zhang & Cannistraci, 'Pivoting factorization: a compact meta low-rank representation of
    sparsity for efficient inference in large language models', ICML 2025, arXiv:2501.19090.

    >>> x = PivotedTensor(LowRank.random((6, 5), 3, like=torch.zeros(())))
    >>> [(name, tuple(p.shape)) for name, p in x.named_parameters()], x.numel()
    ([('right', (3, 5)), ('rest', (3, 3))], 30)
    """

    rest: nn.Parameter
    rows: Int[Tensor, " m"]
    computed = frozenset({"left"})

    def __init__(self, value: Format, layout: Layout | None = None, program: Program | None = None) -> None:
        _check(value)
        super().__init__(value, layout, program)
        del self._parameters["left"]
        rows, rest, right = pivoted(value.left, value.right)  # type: ignore[attr-defined]
        self.register_parameter("rest", nn.Parameter(rest))
        self.register_buffer("rows", rows)
        with torch.no_grad():
            self.get_parameter("right").copy_(self._in_place(1, right))

    @classmethod
    def of(cls, plain: FactorizedTensor) -> Self:
        """The same tensor, layout and program."""
        return (
            cls(plain.value, plain.layout, plain.program)
            .requires_grad_(plain.requires_grad)
            .train(plain.training)
        )

    def factors(self) -> list[Tensor]:
        """Both factors in the order of the program."""
        rest, right = held(self, ("rest", "right"))
        eye = torch.eye(rest.shape[1], dtype=rest.dtype, device=rest.device)
        left = torch.cat([eye, rest]).index_select(0, self.rows)
        kernel = self._in_place(0, left)
        return [in_memory_order(kernel) if kernel.ndim in CHANNELS_LAST else kernel, right]

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """`F.linear` with this weight: on few inputs, which take less copying, by outputs put together."""
        if not self._puts_outputs_together(x):
            return super().linear(x, bias)
        rest, right = held(self, ("rest", "right"))
        picked = F.linear(x, right.reshape(rest.shape[1], -1))
        y = torch.cat([picked, F.linear(picked, rest)], -1).index_select(-1, self.rows)
        return y if bias is None else y + bias.to(y.dtype)

    def _puts_outputs_together(self, x: Tensor) -> bool:
        is_matrix = self.layout is None or self.layout.modes == self.layout.weight
        plain = type(self) is PivotedTensor and self.stored[1].axes == self.network.factors[1]
        return (
            is_matrix and plain and (torch.compiler.is_compiling() or x.shape[:-1].numel() < self.ranks["R"])
        )

    def set_(self, value: Format) -> None:
        """Put a matrix of the same shape and rank into the parameters, without recording gradients."""
        self._check_shapes(value)
        rows, rest, right = pivoted(value.left, value.right)  # type: ignore[attr-defined]
        own, kernel = held(self, ("rest", "right"))
        with torch.no_grad():
            self.rows.copy_(rows)
            own.copy_(rest)
            kernel.copy_(self._in_place(1, right))

    def _in_place(self, k: int, factor: Tensor) -> Tensor:
        """The left (0) or the right (1) factor in the order of the program."""
        axes, stored = self.network.factors[k], self.stored[k]
        kernel: Tensor = rearrange(factor, axes, stored.axes, self.network.size_of, stored.shape)
        return kernel

    def numel(self) -> int:
        """Number of stored elements, and of indices."""
        return elements(self.network)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        return self.rest.dtype

    @property
    def device(self) -> torch.device:
        """Device of the factors."""
        return self.rest.device

    def extra_repr(self) -> str:
        """Format, shape and ranks."""
        return f"pivoted {super().extra_repr()}"

    def _load_from_state_dict(self, *args: Any) -> None:
        state, prefix, errors = args[0], args[1], args[-1]
        rows = state.get(f"{prefix}rows")
        if rows is not None and not rows.is_meta and not _is_permutation(rows, len(self.rows)):
            errors.append(f"{prefix}rows does not say where each of {len(self.rows)} rows stands.")
            return
        nn.Module._load_from_state_dict(self, *args)
        _, right = held(self, ("rest", "right"))
        if not right.is_meta:
            right.data = laid_out(right.data)


def elements(network: Network) -> int:
    """What is stored of a matrix of low rank: r (m + n - r) elements, and an index for each of the m rows.

    >>> elements(LowRank.skeleton((6, 5), 3))
    30
    """
    (rank,) = network.ranks.values()
    rows = network.product(tuple(a for a in network.factors[0] if a in network.modes))
    return network.numel - rank**2 + rows


def least(network: Network) -> int:
    """What is stored of a matrix of low rank, pivoted or as two factors, whichever is less."""
    return min(network.numel, elements(network))


def pivoted(
    left: Float[Tensor, "m r"], right: Float[Tensor, "r n"]
) -> tuple[Int[Tensor, " m"], Float[Tensor, "m-r r"], Float[Tensor, "r n"]]:
    """`rows`, `rest` and `right` with left @ right = cat([1, rest])[rows] @ right, up to rounding.

    Elimination picks rows of an orthonormal basis, so that matrices of less than rank r will do, too.

    >>> rows, rest, right = pivoted(torch.tensor([[1.0], [4.0], [2.0]]), torch.tensor([[1.0, 3.0]]))
    >>> rows, rest.flatten(), right
    (tensor([1, 0, 2], dtype=torch.int32), tensor([0.2500, 0.5000]), tensor([[ 4., 12.]]))
    """
    m, r = left.shape
    if left.is_meta:
        return left.new_empty(m, dtype=torch.int32), left.new_empty(m - r, r), right
    wide = torch.promote_types(left.dtype, torch.float32)
    tall = left.detach().to(wide)
    basis, _ = torch.linalg.qr(tall)
    lower, swaps, _ = torch.linalg.lu_factor_ex(basis)
    picked = torch.tensor(_permuted(m, swaps.tolist()), device=left.device)
    rest = torch.linalg.solve_triangular(lower[:r], lower[r:], upper=False, left=False, unitriangular=True)
    kept = tall[picked[:r]] @ right.detach().to(wide)
    return picked.argsort().to(torch.int32), rest.to(left.dtype).contiguous(), kept.to(right.dtype)


def _permuted(m: int, swaps: list[int]) -> list[int]:
    """The numbers 0, ..., m - 1 after LAPACK's swaps, which count from 1."""
    rows = list(range(m))
    for k, other in enumerate(swaps):
        rows[k], rows[other - 1] = rows[other - 1], rows[k]
    return rows


def _is_permutation(rows: Tensor, count: int) -> bool:
    return rows.shape == (count,) and torch.equal(rows.sort().values.cpu().long(), torch.arange(count))


def _check(value: Format) -> None:
    if type(value) is not LowRank or value.left.shape[1] > value.left.shape[0]:
        raise RankError(
            f"{type(value).__name__} of shape {value.shape} and ranks {value.ranks} cannot be pivoted.",
            "Give a LowRank whose rank is no more than its rows.",
        )
