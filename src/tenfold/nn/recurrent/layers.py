"""Factorized RNN, LSTM and GRU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tenfold.core.errors import ShapeError
from tenfold.formats import Ranks
from tenfold.nn.composite import composes
from tenfold.nn.recurrent.module import FactorizedRecurrent
from tenfold.nn.recurrent.options import RecurrentOptions, warn_of_idle_dropout
from tenfold.nn.recurrent.parts import Same, choice, hidden_choice, new_parts, proj_choice
from tenfold.nn.recurrent.prepared import Affine
from tenfold.nn.recurrent.scan import State, Step
from tenfold.nn.recurrent.steps import gru_step, lstm_step, rnn_step


@composes(nn.RNN)
class FactorizedRNN(FactorizedRecurrent):
    """`nn.RNN`, its input and hidden weights held as factors: h' = tanh(W x + b + U h + b').

    Options, inputs and outputs are those of `nn.RNN`; see `FactorizedRecurrent` for what is inside.

    >>> layer = FactorizedRNN(20, 32, nonlinearity="relu", rank=4)
    >>> output, last = layer(torch.zeros(7, 3, 20))
    >>> output.shape, last.shape
    (torch.Size([7, 3, 32]), torch.Size([1, 3, 32]))
    """

    gates = 1
    dense_type = nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rank: Ranks | None = None,
        format: str | None = None,
        layout: str | None = None,
        hidden_rank: Ranks | Same | None = "same",
        hidden_format: str | None = None,
        hidden_layout: str | None = None,
        example: Sequence[int] | None = None,
    ) -> None:
        """Random weights, as `FactorizedLSTM` has them.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        options = RecurrentOptions(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, nonlinearity
        )
        warn_of_idle_dropout(options)
        inputs = choice("", rank, format, layout)
        hidden = hidden_choice(inputs, hidden_rank, hidden_format, hidden_layout)
        like = torch.empty((), device=device, dtype=dtype)
        self._build(options, new_parts(options, self.gates, (inputs, hidden, hidden), example, like))

    def _step(self, hidden: Affine, projection: Affine | None) -> Step:
        return rnn_step(hidden, self.nonlinearity)

    def _empty(self, bias: bool, dtype: torch.dtype) -> nn.RNN:
        return nn.RNN(
            self.input_size, self.hidden_size, self.num_layers, self.nonlinearity, bias, self.batch_first,
            bidirectional=self.bidirectional, device="meta", dtype=dtype,
        )  # fmt: skip


@composes(nn.LSTM)
class FactorizedLSTM(FactorizedRecurrent):
    """`nn.LSTM`, its input and hidden weights held as factors, each with a rank, format and layout.

    Options, inputs and outputs are those of `nn.LSTM`; see `FactorizedRecurrent` for what is inside.
    Source: tensor trains in recurrent layers, Yang, Krompass & Tresp 2017, arXiv:1707.01786.

    >>> layer = FactorizedLSTM(64, 128, num_layers=2, bidirectional=True, rank=8, hidden_rank=16)
    >>> output, (h, c) = layer(torch.zeros(7, 3, 64))
    >>> output.shape, h.shape
    (torch.Size([7, 3, 256]), torch.Size([4, 3, 128]))
    >>> layer.inputs[0].weight.ranks, layer.hiddens[3].weight.ranks
    ({'R': 8}, {'R': 16})
    >>> train = "(o0=4 o1=16 o2) (i0=1 i1=8 i2) -> (o0 i0) (o1 i1) (o2 i2)"  # the first core has the gates
    >>> FactorizedLSTM(64, 128, format="tt", rank=8, layout=train).hiddens[0].weight.shape
    torch.Size([512, 128])
    """

    gates = 4
    dense_type = nn.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rank: Ranks | None = None,
        format: str | None = None,
        layout: str | None = None,
        hidden_rank: Ranks | Same | None = "same",
        hidden_format: str | None = None,
        hidden_layout: str | None = None,
        proj_rank: Ranks | None = None,
        proj_format: str | None = None,
        proj_layout: str | None = None,
        example: Sequence[int] | None = None,
    ) -> None:
        """Random weights; each dense one has the deviation that it has in torch, 1 / sqrt(3 hidden_size).

        `rank`, `format` ("lowrank" by default) and `layout` are for input weights, (4 hidden_size, features);
        those for hidden weights are the same unless they are given. Weights whose rank is None, as those of
        a projection by default, are those of an `nn.Linear`. `example` is the shape of an input, for which
        the order of the steps is planned.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        options = RecurrentOptions(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        )
        warn_of_idle_dropout(options)
        inputs = choice("", rank, format, layout)
        hidden = hidden_choice(inputs, hidden_rank, hidden_format, hidden_layout)
        projection = proj_choice(proj_size, proj_rank, proj_format, proj_layout)
        like = torch.empty((), device=device, dtype=dtype)
        self._build(options, new_parts(options, self.gates, (inputs, hidden, projection), example, like))

    def _step(self, hidden: Affine, projection: Affine | None) -> Step:
        return lstm_step(hidden, projection)

    def _empty(self, bias: bool, dtype: torch.dtype) -> nn.LSTM:
        return nn.LSTM(
            self.input_size, self.hidden_size, self.num_layers, bias, self.batch_first,
            bidirectional=self.bidirectional, proj_size=self.proj_size, device="meta", dtype=dtype,
        )  # fmt: skip

    def _sizes(self) -> tuple[int, ...]:
        return (self.output_size, self.hidden_size)

    def _state(self, hx: Any) -> State:
        if not isinstance(hx, tuple | list):
            raise ShapeError("the initial state came as a single tensor.", "Give a pair (h, c).")
        return tuple(hx)

    def _given(self, state: State) -> Any:
        return state


@composes(nn.GRU)
class FactorizedGRU(FactorizedRecurrent):
    """`nn.GRU`, its input and hidden weights held as factors.

    Options, inputs and outputs are those of `nn.GRU`; see `FactorizedRecurrent` for what is inside.

    >>> layer = FactorizedGRU(20, 32, batch_first=True, rank=4, hidden_rank=None)
    >>> output, last = layer(torch.zeros(3, 7, 20))
    >>> output.shape, last.shape, type(layer.hiddens[0]).__name__
    (torch.Size([3, 7, 32]), torch.Size([1, 3, 32]), 'Linear')
    """

    gates = 3
    dense_type = nn.GRU
    adds_both_biases = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        rank: Ranks | None = None,
        format: str | None = None,
        layout: str | None = None,
        hidden_rank: Ranks | Same | None = "same",
        hidden_format: str | None = None,
        hidden_layout: str | None = None,
        example: Sequence[int] | None = None,
    ) -> None:
        """Random weights, as `FactorizedLSTM` has them.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
        """
        options = RecurrentOptions(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        warn_of_idle_dropout(options)
        inputs = choice("", rank, format, layout)
        hidden = hidden_choice(inputs, hidden_rank, hidden_format, hidden_layout)
        like = torch.empty((), device=device, dtype=dtype)
        self._build(options, new_parts(options, self.gates, (inputs, hidden, hidden), example, like))

    def _step(self, hidden: Affine, projection: Affine | None) -> Step:
        return gru_step(hidden)

    def _empty(self, bias: bool, dtype: torch.dtype) -> nn.GRU:
        return nn.GRU(
            self.input_size, self.hidden_size, self.num_layers, bias, self.batch_first,
            bidirectional=self.bidirectional, device="meta", dtype=dtype,
        )  # fmt: skip
