"""Products with the Gauss–Newton matrix of any network, by derivatives of one contraction.

With f(w, v) = <M(w̄), M(v)>, a network that meets its conjugate, JᴴJ x is the gradient along w of the
derivative of f along v in the direction x. Every step of a contraction is bilinear, so the derivative runs
forward through the steps and the gradient back through them, at about six times the cost of f; for CP this
gives the Gramian products of Sorber et al., for sums of Tucker terms those of the block term decomposition.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

from tenfold.core.arrays import Array, conjugate, device_of, namespace
from tenfold.core.contraction import lower_contraction
from tenfold.core.network import Axes, Network, distinct
from tenfold.core.node_sets import Nodes
from tenfold.core.program import Program, run
from tenfold.core.search import Graph
from tenfold.decompose.networks.environments import cheapest

Point = tuple[Array, ...]


def primed(network: Network) -> Network:
    """The same network with other names for its bonds."""
    return network.renamed({b: f"{b}'" for b in network.bonds})


def lone(network: Network) -> Axes:
    """The bonds that one factor carries alone: along them it is summed."""
    return tuple(b for b in network.bonds if sum(b in f for f in network.factors) == 1)


def closures(network: Network, like: Array) -> Point:
    """A vector of ones for every lone bond, so that all axes meet another array."""
    xp = namespace(like)
    return tuple(
        xp.ones((network.size_of[b],), dtype=like.dtype, device=device_of(like)) for b in lone(network)
    )


def conjugates(factors: Point) -> Point:
    """The complex conjugates; real arrays themselves."""
    return tuple(conjugate(f) for f in factors)


@dataclass(frozen=True)
class Join:
    """One step c = a ∘ b of a contraction, and its transposes: ∂a from (∂c, b), ∂b from (∂c, a)."""

    a: Nodes
    b: Nodes
    forward: Program
    to_a: Program
    to_b: Program

    @property
    def c(self) -> Nodes:
        """The nodes of the result."""
        return self.a | self.b


@dataclass(frozen=True)
class Double:
    """The contraction of a network (its first nodes) with its conjugate (the next ones) and closures."""

    joins: tuple[Join, ...]
    layer: Nodes
    conjugate: Nodes


@lru_cache(maxsize=512)
def doubled(network: Network) -> Double:
    """Plan the contraction of a network with its conjugate."""
    twin, n = primed(network), len(network.factors)
    ones = tuple((b,) for b in (*lone(network), *lone(twin)))
    leaves = (*network.factors, *twin.factors, *ones)
    sizes = tuple((dict(network.sizes) | dict(twin.sizes)).items())
    both = Network(leaves, (), sizes)
    graph = Graph(leaves, (), both, None)
    joins = tuple(_join(graph, a, b) for a, b in cheapest(graph, graph.full))
    return Double(joins, (1 << n) - 1, ((1 << n) - 1) << n)


def _join(graph: Graph, a: Nodes, b: Nodes) -> Join:
    def pair(x: Axes, y: Axes, out: Axes) -> Program:
        used = distinct([x, y])
        sizes = tuple((name, graph.network.size_of[name]) for name in used)
        return lower_contraction(Network((x, y), (), sizes), out)

    first, second, both = graph.axes(a), graph.axes(b), graph.axes(a | b)
    return Join(a, b, pair(first, second, both), pair(both, second, first), pair(both, first, second))


class DoubleLayer:
    """JᴴJ at a point; what does not depend on the direction is contracted once.

    >>> import numpy as np
    >>> product = Network((("m0", "R"), ("R", "m1")), ("m0", "m1"), (("m0", 1), ("m1", 1), ("R", 1)))
    >>> a, b = np.asarray([[2.0]]), np.asarray([[3.0]])
    >>> [float(y[0, 0]) for y in DoubleLayer(product, (a, b))((np.ones((1, 1)), np.zeros((1, 1))))]
    [9.0, 6.0]
    """

    def __init__(self, network: Network, factors: Point) -> None:
        self.double, self.factors = doubled(network), factors
        self.xp = namespace(*factors)
        ones = closures(network, factors[0])
        leaves = (*factors, *conjugates(factors), *ones, *ones)
        self.leaves = {1 << k: leaf for k, leaf in enumerate(leaves)}

    def _meet(self, program: Program, x: Array | None, y: Array | None) -> Array | None:
        """One step; nothing where an operand is zero."""
        return None if x is None or y is None else run(program, (x, y), self.xp)

    @cached_property
    def values(self) -> dict[Nodes, Array]:
        """The result of every step."""
        found = dict(self.leaves)
        for join in self.double.joins:
            found[join.c] = run(join.forward, (found[join.a], found[join.b]), self.xp)
        return found

    @cached_property
    def outside(self) -> dict[Nodes, Array]:
        """The derivative of f by every result: the rest of the network around it."""
        whole = next(reversed(self.values))
        found = {whole: self.xp.ones_like(self.values[whole])}
        for join in reversed(self.double.joins):
            found[join.a] = run(join.to_a, (found[join.c], self.values[join.b]), self.xp)
            found[join.b] = run(join.to_b, (found[join.c], self.values[join.a]), self.xp)
        return found

    def __call__(self, direction: Point) -> Point:
        """JᴴJ times a direction."""
        tangents = self._forward(direction)
        found: dict[Nodes, Array] = {}
        for join in reversed(self.double.joins):
            back = found.get(join.c)
            for nodes, other, program in ((join.a, join.b, join.to_a), (join.b, join.a, join.to_b)):
                if nodes & self.double.conjugate:
                    value = _sum(
                        self._meet(program, back, self.values[other]),
                        self._meet(program, self.outside[join.c], tangents.get(other)),
                    )
                    if value is not None:
                        found[nodes] = value
        n = len(self.factors)
        return tuple(found[1 << (n + k)] for k in range(n))

    def _forward(self, direction: Point) -> dict[Nodes, Array]:
        """The derivative of every result along the direction, where there is one."""
        found = {1 << k: x for k, x in enumerate(direction)}
        for join in self.double.joins:
            value = _sum(
                self._meet(join.forward, found.get(join.a), self.values[join.b]),
                self._meet_right(join, found.get(join.b)),
            )
            if value is not None:
                found[join.c] = value
        return found

    def _meet_right(self, join: Join, tangent: Array | None) -> Array | None:
        return self._meet(join.forward, self.values[join.a], tangent)


def _sum(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
