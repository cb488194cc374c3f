"""Dimension trees: which modes a hierarchical format joins first."""

from collections.abc import Iterator
from typing import Any

from tenfold.core.errors import OptionError, ShapeError
from tenfold.core.network import Axis

Tree = int | tuple["Tree", ...]
"""A mode by its number, or the subtrees that are joined: ((0, 1), (2, 3))."""


def balanced(order: int) -> Tree:
    """The binary tree that halves the modes at every node.

    >>> balanced(1), balanced(3), balanced(4)
    (0, ((0, 1), 2), ((0, 1), (2, 3)))
    """
    return _halved(0, order)


def _halved(start: int, stop: int) -> Tree:
    if stop - start == 1:
        return start
    middle = (start + stop + 1) // 2
    return _halved(start, middle), _halved(middle, stop)


def linear(order: int) -> Tree:
    """The binary tree that splits off the last mode at every node: it has the ranks of a tensor train.

    >>> linear(4)
    (((0, 1), 2), 3)
    """
    tree: Tree = 0
    for k in range(1, order):
        tree = (tree, k)
    return tree


def modes_below(tree: Tree) -> tuple[int, ...]:
    """The modes of a tree, from left to right.

    >>> modes_below(((2, 0), 1))
    (2, 0, 1)
    """
    return (tree,) if isinstance(tree, int) else tuple(k for child in tree for k in modes_below(child))


def joints(tree: Tree) -> Iterator[tuple[Tree, ...]]:
    """The nodes that join others, the root first, every one before those below it, from left to right.

    >>> list(joints(((0, 1), (2, 3))))
    [((0, 1), (2, 3)), (0, 1), (2, 3)]
    """
    if not isinstance(tree, int):
        yield tree
        for child in tree:
            yield from joints(child)


def bond_above(tree: Tree) -> Axis:
    """The name of the bond above a node: that of its modes.

    >>> bond_above(2), bond_above((3, (0, 1)))
    ('R2', 'R0_1_3')
    """
    return "R" + "_".join(map(str, sorted(modes_below(tree))))


def check_tree(tree: Any) -> None:
    """Raise OptionError unless `tree` is a mode, or nested tuples of two or more trees, each mode once.

    >>> check_tree(((0, 1), (1, 2)))
    Traceback (most recent call last):
    tenfold.core.errors.OptionError: the dimension tree ((0, 1), (1, 2)) names mode 1 twice.
    Name every mode once.
    """
    _check_nodes(tree, tree)
    modes = modes_below(tree)
    if doubled := [k for k in modes if modes.count(k) > 1]:
        raise OptionError(
            f"the dimension tree {tree} names mode {doubled[0]} twice.", "Name every mode once."
        )


def _check_nodes(node: Any, tree: Any) -> None:
    if isinstance(node, bool) or not isinstance(node, int | tuple):
        raise OptionError(
            f"the dimension tree {tree} holds {node!r}.",
            "Give modes by number, nested in tuples: ((0, 1), (2, 3)).",
        )
    if isinstance(node, int):
        return
    if len(node) < 2:
        raise OptionError(
            f"the dimension tree {tree} has a node with {len(node)} below it: {node}.",
            "A node joins two or more.",
        )
    for child in node:
        _check_nodes(child, tree)


def check_fit(tree: Tree, order: int) -> None:
    """Raise ShapeError unless the tree has the modes of a tensor of this order.

    >>> check_fit(((0, 1), 3), 3)
    Traceback (most recent call last):
    tenfold.core.errors.ShapeError: the dimension tree ((0, 1), 3) has modes 0, 1, 3, but the tensor 0, 1, 2.
    Name every mode of the tensor once.
    """
    if (modes := sorted(modes_below(tree))) != list(range(order)):
        has, needs = (", ".join(map(str, numbers)) for numbers in (modes, range(order)))
        raise ShapeError(
            f"the dimension tree {tree} has modes {has}, but the tensor {needs}.",
            "Name every mode of the tensor once.",
        )
