"""Indices at random, of all kinds that torch takes."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def entry(n: int, draw: random.Random) -> Any:
    """One entry of an index for an axis of size n."""
    some = [draw.randrange(-n, n) for _ in range(3)]
    kinds: list[Callable[[], Any]] = [
        lambda: some[0],
        lambda: np.int64(some[0]),
        lambda: torch.tensor(some[0]),
        lambda: slice(
            draw.choice([None, 0, 1, -2]), draw.choice([None, n, -1]), draw.choice([None, 1, 2, 3])
        ),
        lambda: slice(2, 2),
        lambda: slice(None),
        lambda: some,
        lambda: range(n - 1),
        lambda: np.array(some),
        lambda: torch.tensor(some, dtype=torch.int32),
        lambda: torch.tensor([some, some])[:, :1],
        lambda: torch.tensor([draw.random() < 0.5 for _ in range(n)]),
        lambda: np.array([draw.random() < 0.5 for _ in range(n)]),
        list,
    ]
    return draw.choice(kinds)()


def index(shape: torch.Size, draw: random.Random) -> Any:
    """An index of a tensor: entries for some axes, new axes, dots and masks of several axes."""
    items: list[Any] = []
    axis = 0
    while axis < len(shape) and draw.random() > 0.1:
        if draw.random() < 0.12:
            items.append(draw.choice([None, None, True, False]))
        elif draw.random() < 0.08 and axis + 2 <= len(shape):
            items.append(
                torch.tensor(np.random.default_rng(draw.randrange(99)).random(shape[axis : axis + 2]) < 0.4)
            )
            axis += 2
        else:
            items.append(entry(shape[axis], draw))
            axis += 1
    if draw.random() < 0.2:
        items.insert(draw.randrange(len(items) + 1), ...)
    return items[0] if len(items) == 1 and draw.random() < 0.5 else tuple(items)


def tensor_index(item: Any) -> Any:
    """The same index with tensors in the place of lists and arrays, which torch reads in other ways."""
    if isinstance(item, tuple):
        return tuple(tensor_index(i) for i in item)
    if isinstance(item, list | range | np.ndarray):
        return torch.as_tensor(np.asarray(item, dtype=None if len(item) else np.int64))
    return int(item) if isinstance(item, np.integer) else item
