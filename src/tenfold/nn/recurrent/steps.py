"""One moment of a recurrent layer: how gates and state give the next state."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tenfold.nn.recurrent.prepared import Affine
from tenfold.nn.recurrent.scan import State, Step

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def rnn_step(hidden: Affine, nonlinearity: str) -> Step:
    """h' = tanh(a + U h), or relu; `a` has both biases (Elman 1990)."""
    return partial(_rnn, hidden, ACTIVATIONS[nonlinearity])


def _rnn(hidden: Affine, activation: Callable[[Tensor], Tensor], a: Tensor, state: State) -> State:
    return (activation(hidden.linear(state[0], a)),)


def lstm_step(hidden: Affine, projection: Affine | None) -> Step:
    """c' = f c + i g and h' = P (o tanh c'), where a + U h has the gates i, f, g, o; `a` has both biases.

    Sources: Hochreiter & Schmidhuber 1997; with a projection P, Sak, Senior & Beaufays 2014, arXiv:1402.1128.
    """
    return partial(_lstm, hidden, projection)


def _lstm(hidden: Affine, projection: Affine | None, a: Tensor, state: State) -> State:
    h, c = state
    i, f, g, o = hidden.linear(h, a).chunk(4, -1)
    c = torch.addcmul(i.sigmoid() * g.tanh(), f.sigmoid(), c)
    h = o.sigmoid() * c.tanh()
    return (h if projection is None else projection.linear(h, projection.bias)), c


def gru_step(hidden: Affine) -> Step:
    """n = tanh(a_n + r (U_n h + b_n)) and h' = (1 - z) n + z h, with r and z from sums of both parts.

    As in torch the reset gate r acts on the product and its bias, not on h as in Cho et al. 2014,
    arXiv:1406.1078; so the bias of U cannot join that of the input.
    """
    return partial(_gru, hidden)


def _gru(hidden: Affine, a: Tensor, state: State) -> State:
    (h,) = state
    u = hidden.linear(h, hidden.bias)
    size = h.shape[-1]
    two = (2 * size, size)
    (a_rz, a_n), (u_rz, u_n) = a.split(two, -1), u.split(two, -1)
    r, z = (a_rz + u_rz).sigmoid().chunk(2, -1)
    n = torch.addcmul(a_n, r, u_n).tanh()
    return (torch.lerp(n, h, z),)
