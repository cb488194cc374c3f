"""Networks on lattices: PEPS on a grid, and MERA in layers over a ring of sites."""

from collections.abc import Iterator
from typing import Any

from tenfold.core.arrays import Array
from tenfold.core.errors import OptionError
from tenfold.core.network import Axes, Axis, mode
from tenfold.formats.base import General
from tenfold.formats.graphs import bonds_of

Graph = tuple[Axes, ...]


def peps(
    rows: int,
    columns: int,
    size: int,
    rank: int,
    *,
    like: Array,
    std: float = 1.0,
    generator: Any = None,
) -> General:
    """A random tensor with a mode of `size` at every site of a grid, joined to its neighbours by bonds.

    A projected entangled pair state with open ends; its graph is `peps_graph`. The mode of row i and column j
    is number i · columns + j. `std` is the standard deviation of an entry, `like` says library, dtype and
    device, and ranks are cut to what bonds can carry. The time of `norm` and of single entries grows
    exponentially with the shorter side of the grid.

    Source: Verstraete & Cirac 2004, arXiv:cond-mat/0407066.

    >>> import numpy as np
    >>> x = peps(2, 3, 2, 3, like=np.zeros(()), generator=0)
    >>> x.shape, [a.shape for a in x.arrays[:2]]
    ((2, 2, 2, 2, 2, 2), [(2, 3, 3), (2, 3, 3, 3)])
    """
    shape = (size,) * (rows * columns)
    return General.random(
        shape, rank, like=like, std=std, generator=generator, joined=peps_graph(rows, columns)
    )


def peps_graph(rows: int, columns: int) -> Graph:
    """The graph of a grid: one factor a site, row by row, with the mode and the bonds up, left, right, down.

    Bond H<i>_<j> lies between columns j and j + 1 of row i, bond V<i>_<j> between rows i and i + 1 of column
    j; sites at the edge have fewer bonds.

    Raises:
        OptionError: for a grid without sites.

    >>> peps_graph(2, 2)
    (('m0', 'H0_0', 'V0_0'), ('m1', 'H0_0', 'V0_1'), ('m2', 'V0_0', 'H1_0'), ('m3', 'V0_1', 'H1_0'))
    """
    if rows < 1 or columns < 1:
        raise OptionError(f"a grid of {rows} × {columns} sites has none.", "Give 1 or more of both.")
    return tuple(_site(i, j, rows, columns) for i in range(rows) for j in range(columns))


def _site(i: int, j: int, rows: int, columns: int) -> Axes:
    up, left = (f"V{i - 1}_{j}",) * (i > 0), (f"H{i}_{j - 1}",) * (j > 0)
    right, down = (f"H{i}_{j}",) * (j < columns - 1), (f"V{i}_{j}",) * (i < rows - 1)
    return (mode(i * columns + j), *up, *left, *right, *down)


def mera(
    sites: int,
    size: int,
    rank: int,
    *,
    like: Array,
    std: float = 1.0,
    generator: Any = None,
) -> General:
    """A random tensor with a mode of `size` at each of 2^k sites on a ring, coarsened layer by layer.

    The multiscale entanglement renormalization ansatz, binary and in one dimension; its graph is
    `mera_graph`. A disentangler has wires of one size on both sides, an isometry makes one of two of size n
    that has size `rank`, or n² if that is less. Factors are plain random numbers, not isometries. `std` is
    the standard deviation of an entry, and `like` says library, dtype and device.

    Source: Vidal 2007, arXiv:cond-mat/0512165; Evenbly & Vidal 2009, arXiv:0707.1454.

    >>> import numpy as np
    >>> x = mera(4, 2, 3, like=np.zeros(()), generator=0)
    >>> x.shape, [a.shape for a in x.arrays]
    ((2, 2, 2, 2), [(2, 2, 2, 2), (2, 2, 2, 2), (2, 2, 3), (2, 2, 3), (3, 3)])
    """
    graph = mera_graph(sites)
    ranks = {b: _wire(b, size, rank) for b in bonds_of(graph)}
    return General.random((size,) * sites, ranks, like=like, std=std, generator=generator, joined=graph)


def _wire(b: Axis, size: int, rank: int) -> int:
    """The size of a bond: that of the wires in its layer, of which layer 0 has the modes."""
    for _ in range(int(b[1 : b.index("_")])):
        size = min(rank, size**2)
    return size


def mera_graph(sites: int) -> Graph:
    """The graph of a binary MERA: layers of disentanglers and isometries over 2^k sites, and a top.

    Layer t starts from n = sites / 2^t wires: the modes in layer 0, bonds W<t>_<i> above. Disentangler i
    meets the wires 2i + 1 and 2i + 2, also the last and the first, and hands on bonds D<t>_<wire>: (wire,
    wire, D, D). Isometry i joins the bonds of wires 2i and 2i + 1 to one wire of the next layer: (D, D, W).
    The last two wires meet in the top. Factors come layer by layer, disentanglers first.

    Raises:
        OptionError: unless `sites` is 2, 4, 8, ...

    >>> for axes in mera_graph(4): print(*axes)
    m1 m2 D0_1 D0_2
    m3 m0 D0_3 D0_0
    D0_0 D0_1 W1_0
    D0_2 D0_3 W1_1
    W1_0 W1_1
    """
    if sites < 2 or sites & (sites - 1):
        raise OptionError(f"a binary MERA came with {sites} sites.", "Give 2, 4, 8, ...")
    wires: Axes = tuple(mode(k) for k in range(sites))
    graph: list[Axes] = []
    while len(wires) > 2:
        layer = sites.bit_length() - len(wires).bit_length()
        wires = tuple(_layer(wires, layer, graph))
    return (*graph, wires)


def _layer(wires: Axes, t: int, graph: list[Axes]) -> Iterator[Axis]:
    """Put a layer on top of the graph; gives the wires that leave it."""
    n = len(wires)
    handed = [f"D{t}_{k}" for k in range(n)]
    for k in range(1, n, 2):
        after = (k + 1) % n
        graph.append((wires[k], wires[after], handed[k], handed[after]))
    for k in range(0, n, 2):
        graph.append((handed[k], handed[k + 1], f"W{t + 1}_{k // 2}"))
        yield f"W{t + 1}_{k // 2}"
