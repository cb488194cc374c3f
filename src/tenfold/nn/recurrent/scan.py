"""A step repeated along time: over a padded batch, or over packed sequences of several lengths."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

State = tuple[Tensor, ...]
"""(batch, features) of the output, and of the cell if there is one."""
Step = Callable[[Tensor, State], State]
"""Input of the gates and state -> next state."""


def scan(
    step: Step, gates: Float[Tensor, "time batch g"], state: State, reverse: bool
) -> tuple[Float[Tensor, "time batch h"], State]:
    """All outputs, in the order of time, and the last state; with `reverse` time runs backwards.

    >>> scan(lambda a, state: (a + state[0],), torch.ones(3, 1, 1), (torch.zeros(1, 1),), False)[0].flatten()
    tensor([1., 2., 3.])
    """
    outputs = []
    moments = gates.unbind(0)
    for a in reversed(moments) if reverse else moments:
        state = step(a, state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state


def scan_packed(
    step: Step, gates: Float[Tensor, "rows g"], sizes: Sequence[int], state: State, reverse: bool
) -> tuple[Float[Tensor, "rows h"], State]:
    """The same over rows of which `sizes[t]` belong to moment t: sequences in falling order of length."""
    moments = gates.split(list(sizes))
    return backwards(step, moments, state) if reverse else forwards(step, moments, state)


def forwards(step: Step, moments: Sequence[Tensor], state: State) -> tuple[Tensor, State]:
    """Sequences that end leave the batch, the last ones first, and their states are kept.

    >>> moments = (torch.ones(2, 1), torch.ones(1, 1))
    >>> forwards(lambda a, state: (a + state[0],), moments, (torch.zeros(2, 1),))[1][0].flatten()
    tensor([2., 1.])
    """
    outputs, ended = [], []
    for a in moments:
        if a.shape[0] < state[0].shape[0]:
            ended.append(tuple(s[a.shape[0] :] for s in state))
            state = tuple(s[: a.shape[0]] for s in state)
        state = step(a, state)
        outputs.append(state[0])
    ended.append(state)
    return torch.cat(outputs), tuple(torch.cat(parts[::-1]) for parts in zip(*ended, strict=True))


def backwards(step: Step, moments: Sequence[Tensor], state: State) -> tuple[Tensor, State]:
    """Each sequence begins, with its own state, at its last moment.

    >>> moments = (torch.ones(2, 1), torch.ones(1, 1))
    >>> backwards(lambda a, state: (a + state[0],), moments, (torch.zeros(2, 1),))[0].flatten()
    tensor([2., 1., 1.])
    """
    outputs = []
    current = tuple(s[: moments[-1].shape[0]] for s in state)
    for a in reversed(moments):
        present, wanted = current[0].shape[0], a.shape[0]
        if wanted > present:
            current = tuple(
                torch.cat([now, first[present:wanted]]) for now, first in zip(current, state, strict=True)
            )
        current = step(a, current)
        outputs.append(current[0])
    return torch.cat(outputs[::-1]), current


def products_of_rows(x: Tensor, sizes: Sequence[int] | None) -> int:
    """At how many moments several rows meet the weights; 1 for a single sequence, and where code is traced.

    >>> products_of_rows(torch.zeros(7, 3, 20), None), products_of_rows(torch.zeros(7, 20), (3, 2, 1, 1))
    (7, 2)
    """
    if torch.compiler.is_compiling():
        return 1
    if sizes is not None:
        return sum(rows > 1 for rows in sizes)
    return x.shape[0] if x.shape[1] > 1 else 1
