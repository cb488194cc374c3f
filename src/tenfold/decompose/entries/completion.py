"""The methods for incomplete tensors: CP, Tucker, and any format by its name."""

from dataclasses import dataclass
from typing import ClassVar

from tenfold.core.arrays import Array
from tenfold.core.network import Network
from tenfold.decompose.base import methods
from tenfold.decompose.entries.completing import Completing
from tenfold.decompose.networks.general import AnyFormat
from tenfold.formats import CP, Format, Tucker


@methods.register("cp_incomplete")
@dataclass(frozen=True)
class CPIncomplete(Completing[CP]):
    """CP of an incomplete tensor by Gauss–Newton steps on the known entries alone.

    Use it for data with gaps, and to complete them: `fit.value.dense()`. Filling gaps with estimates and
    fitting again, as expectation maximisation does, takes ever more sweeps the more is missing; here missing
    entries cost nothing. A tensor of 30 × 30 × 30 and rank 4 is found to all digits from 10 % of its entries,
    and by about a third of the starts from 5 %, four for each unknown.

    The options, the regularisation and the cost are those of `Completing`; a step costs
    O(entries · order · rank · cg_steps).

    Source: Acar, Dunlavy, Kolda & Mørup 2011, arXiv:1005.2197; Vervliet, Debals, Sorber & De Lathauwer,
    IEEE Signal Process. Mag. 31(5), 2014; Tomasi & Bro 2005 for Gauss-Newton with missing values.

    >>> import numpy as np
    >>> from tenfold.decompose import Incomplete
    >>> x = CP.random((8, 9, 10), 2, like=np.zeros(()), generator=0).dense()
    >>> known = np.random.default_rng(0).random(x.shape) < 0.3
    >>> fit = CPIncomplete()(Incomplete.from_mask(x, known), 2, generator=0)
    >>> bool(np.allclose(fit.value.dense(), x))
    True
    """

    format: ClassVar = CP

    def _made(self, network: Network, factors: tuple[Array, ...]) -> CP:
        return CP.from_network(network, factors)


@methods.register("tucker_incomplete")
@dataclass(frozen=True)
class TuckerIncomplete(Completing[Tucker]):
    """Tucker of an incomplete tensor by Gauss–Newton steps on the known entries alone.

    Use it for data with gaps whose modes have different ranks, or many of them. The bases are not made
    orthonormal. Modes may stay whole (rank None). Options, regularisation and cost are
    those of `Completing`.

    Source: Filipović & Jukić 2015 for least squares over known entries; the Gauss-Newton method is that of
    Sorber, Van Barel & De Lathauwer, SIAM J. Optim. 23(2), 2013, restricted to them.

    >>> import numpy as np
    >>> from tenfold.decompose import Incomplete
    >>> x = Tucker.random((8, 9, 10), 2, like=np.zeros(()), generator=0).dense()
    >>> known = np.random.default_rng(0).random(x.shape) < 0.4
    >>> fit = TuckerIncomplete()(Incomplete.from_mask(x, known), 2, generator=0)
    >>> bool(np.allclose(fit.value.dense(), x))
    True
    """

    format: ClassVar = Tucker

    def _made(self, network: Network, factors: tuple[Array, ...]) -> Tucker:
        return Tucker.from_network(network, factors)


@methods.register("completion")
@dataclass(frozen=True)
class Completion(Completing[Format], AnyFormat):
    """Any format of an incomplete tensor: `kind` is its registered name, `static` holds its own options.

    Use it for data with gaps where a train, a ring or a tree fits better than CP or Tucker. Options,
    regularisation and cost are those of `Completing`. A factor that joins b bonds in all, such as a
    core of a train, costs the product of their sizes for each entry; its preconditioner the square of it.

    Source: as `CPIncomplete`; that every format is linear in each of its factors is all that it needs.

    >>> import numpy as np
    >>> from tenfold.decompose import Incomplete
    >>> from tenfold.formats import TensorTrain
    >>> x = TensorTrain.random((6, 7, 5, 6), 2, like=np.zeros(()), generator=0).dense()
    >>> known = np.random.default_rng(0).random(x.shape) < 0.4
    >>> fit = Completion("tt")(Incomplete.from_mask(x, known), 2, generator=0)
    >>> bool(np.allclose(fit.value.dense(), x))
    True
    """

    def __post_init__(self) -> None:
        Completing.__post_init__(self)
        AnyFormat.__post_init__(self)

    def _made(self, network: Network, factors: tuple[Array, ...]) -> Format:
        return self.format.from_network(network, factors, **self._static())
