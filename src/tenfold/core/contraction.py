"""The program that contracts a network by itself."""

from functools import lru_cache

from tenfold.core.cost import Cost
from tenfold.core.merging import Lowering, Wish
from tenfold.core.network import Axes, Network
from tenfold.core.node_sets import Pair
from tenfold.core.program import Program, Shuffle, Step, View
from tenfold.core.search import Graph, search_contraction


@lru_cache(maxsize=4096)
def lower_contraction(network: Network, outputs: Axes, cost: Cost | None = None) -> Program:
    """The program that contracts a network to the axes `outputs`; factors come in the network's order."""
    return _Contraction(network, outputs, search_contraction(network, outputs, cost)).program()


class _Contraction(Lowering):
    """A network by itself: merges only, the last result permuted to the outputs."""

    def __init__(self, network: Network, outputs: Axes, pairs: tuple[Pair, ...]) -> None:
        super().__init__(Graph(network.factors, outputs, network, None), network, 0)
        self.outputs, self.pairs = outputs, pairs

    def program(self) -> Program:
        full = self.graph.full
        for k, axes in enumerate(self.network.factors):
            self.order[self.leaf(k)], self.buffer[self.leaf(k)] = axes, k
        self.wishes[full] = Wish(tuple((a,) for a in self.outputs), self.sizes(self.outputs))
        pairs = [self.wish_merge(p) for p in reversed(self.pairs)][::-1]
        steps: list[Step] = []
        for n, pair in enumerate(pairs):
            steps.append(self.merge(pair))
            self.buffer[pair[0] | pair[1]] = len(self.network.factors) + n
        last = self.view_of(full)
        if last != View():
            steps.append(Shuffle(last.shape, last.perm))
        return Program(tuple(steps), (), tuple(self.lines))
