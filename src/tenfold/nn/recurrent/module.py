"""What factorized recurrent layers share: linear layers inside, and a loop over time."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tenfold.core.errors import ShapeError
from tenfold.formats import Ranks
from tenfold.nn.base import Decompose
from tenfold.nn.composite import Composite
from tenfold.nn.recurrent.options import RecurrentOptions, check_sequence, check_state
from tenfold.nn.recurrent.parts import Fitting, Parts, Same, dense_state, fitted_parts, opened_parts
from tenfold.nn.recurrent.prepared import Affine, affine
from tenfold.nn.recurrent.scan import State, Step, products_of_rows, scan, scan_packed


class FactorizedRecurrent(Composite):
    """A recurrent layer whose weights are those of linear layers, each dense or factorized.

    They are the submodules `inputs` and `hiddens`, and `projections` of an LSTM with `proj_size`: lists with
    one for every direction of every layer (layer 0 forwards, layer 0 backwards, layer 1 forwards, ...). The
    gates of a weight are stacked as torch stacks them, so a layout such as "(o0=4 o1) i -> o0 o1 i" gives the
    gates of an LSTM a mode of their own.

    The inputs of all moments are projected at once. In the loop over time are the hidden product and the
    gates; products of factors with factors are worked out once before it.
    """

    gates: ClassVar[int]
    dense_type: ClassVar[type[nn.RNNBase]]
    adds_both_biases: ClassVar[bool] = True
    """Whether the bias of the hidden product may be added to the input's, once for all moments."""

    @abstractmethod
    def _step(self, hidden: Affine, projection: Affine | None) -> Step:
        """What happens at one moment."""

    def _build(self, options: RecurrentOptions, parts: Parts) -> None:
        super().__init__()
        self.input_size, self.hidden_size = options.input_size, options.hidden_size
        self.num_layers, self.bias, self.batch_first = options.num_layers, options.bias, options.batch_first
        self.dropout, self.bidirectional = float(options.dropout), options.bidirectional
        self.proj_size, self.nonlinearity = options.proj_size, options.nonlinearity
        self.directions, self.output_size = options.directions, options.output_size
        self.inputs, self.hiddens, self.projections = (nn.ModuleList(layers) for layers in parts)

    @property
    def options(self) -> RecurrentOptions:
        """The options of torch's module."""
        return RecurrentOptions(
            self.input_size, self.hidden_size, self.num_layers, self.bias, self.batch_first, self.dropout,
            self.bidirectional, self.proj_size, self.nonlinearity,
        )  # fmt: skip

    @property
    def parts(self) -> Parts:
        """The linear layers as they are now."""
        return Parts(list(self.inputs), list(self.hiddens), list(self.projections))

    @classmethod
    def opened(cls, dense: nn.Module) -> Self:
        """The same function, of `nn.Linear`s which have the parameters of `dense`."""
        return cls._like(dense, opened_parts(dense, cls.dense_type))  # type: ignore[arg-type]

    @classmethod
    def _like(cls, dense: Any, parts: Parts) -> Self:
        options = RecurrentOptions(
            dense.input_size, dense.hidden_size, dense.num_layers, dense.bias, dense.batch_first,
            dense.dropout, dense.bidirectional, dense.proj_size, getattr(dense, "nonlinearity", "tanh"),
        )  # fmt: skip
        layer = cls.__new__(cls)
        layer._build(options, parts)
        return layer.train(dense.training)

    @classmethod
    def from_dense(
        cls,
        dense: nn.RNNBase,
        method: Decompose | None,
        ranks: Ranks | None = None,
        layout: str | None = None,
        *,
        hidden_method: Decompose | Same | None = "same",
        hidden_ranks: Ranks | Same | None = "same",
        hidden_layout: str | Same | None = "same",
        proj_method: Decompose | None = None,
        proj_ranks: Ranks | None = None,
        proj_layout: str | None = None,
        example: Sequence[int] | None = None,
    ) -> Self:
        """Decompose torch's module, with memory of its own: `FactorizedLSTM.from_dense(lstm, SVD(), 32)`.

        `method`, `ranks` and `layout` are for input weights; those for hidden weights are the same unless
        they are given. Weights without a method, as those of a projection by default, stay dense. `example`
        is the shape of an input, for which the order of the steps is planned.

        Raises:
            OptionError, LayoutError, RankError: for what cannot be served.
            UnsupportedError: for a subclass of torch's module.
        """
        parts = opened_parts(dense, cls.dense_type)
        own = (
            method if hidden_method == "same" else hidden_method,
            ranks if hidden_ranks == "same" else hidden_ranks,
            layout if hidden_layout == "same" else hidden_layout,
        )
        if own[0] is None and hidden_ranks == hidden_layout == "same":
            own = (None, None, None)
        fittings = (
            Fitting(method, ranks, layout),
            Fitting(*own),
            Fitting(proj_method, proj_ranks, proj_layout),
        )
        return cls._like(dense, fitted_parts(parts, fittings, example))

    def to_dense(self) -> nn.RNNBase:
        """Torch's module that computes the same.

        Raises:
            UnsupportedError: if a part has been replaced by something that has no dense weight.
        """
        state = dense_state(self.parts, self.num_layers, self.bidirectional)
        biased = any(name.startswith("bias") for name in state)
        dense = self._empty(biased, next(iter(state.values())).dtype)
        dense.dropout = self.dropout
        for name, parameter in state.items():
            setattr(dense, name, parameter)
        return dense.train(self.training)

    @abstractmethod
    def _empty(self, bias: bool, dtype: torch.dtype) -> nn.RNNBase:
        """Torch's module with these options, on the meta device and without dropout."""

    def flatten_parameters(self) -> None:
        """Does nothing: there is no block of weights. For models that call it on torch's modules."""

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """(time, batch, features), (batch, time, features) with `batch_first`, (time, features), or packed
        sequences -> outputs of the same kind, and the last state of every direction of every layer.

        Raises:
            ShapeError: for other shapes of the input or the initial state `hx`.
        """
        state = None if hx is None else self._state(hx)
        if isinstance(input, PackedSequence):
            return self._packed(input, state)
        check_sequence(input, self.input_size, self.batch_first, False)
        single = input.ndim == 2
        if single:
            x = input.unsqueeze(1)
        else:
            x = input.transpose(0, 1) if self.batch_first else input
        if state is not None:
            check_state(state, self._shapes(None if single else x.shape[1]))
        if single and state is not None:
            state = tuple(s.unsqueeze(1) for s in state)
        y, state = self._layers(x, None, self._initial(x, x.shape[1]) if state is None else state)
        if single:
            return y.squeeze(1), self._given(tuple(s.squeeze(1) for s in state))
        return (y.transpose(0, 1) if self.batch_first else y), self._given(state)

    def _packed(self, packed: PackedSequence, state: State | None) -> tuple[PackedSequence, Any]:
        """Rows stay packed throughout; states go in and out in the caller's order of sequences."""
        rows, sizes, order, back = packed
        check_sequence(rows, self.input_size, self.batch_first, True)
        counts = sizes.tolist()
        if state is None:
            state = self._initial(rows, counts[0])
        check_state(state, self._shapes(counts[0]))
        if order is not None:
            state = tuple(s.index_select(1, order) for s in state)
        y, state = self._layers(rows, counts, state)
        if back is not None:
            state = tuple(s.index_select(1, back) for s in state)
        return PackedSequence(y, sizes, order, back), self._given(state)

    def _layers(self, x: Tensor, sizes: Sequence[int] | None, state: State) -> tuple[Tensor, State]:
        """All layers in turn; each direction of each has its part of the state."""
        ends = []
        for layer in range(self.num_layers):
            outputs = []
            for k in range(layer * self.directions, (layer + 1) * self.directions):
                y, end = self._direction(k, x, sizes, tuple(s[k] for s in state))
                outputs.append(y)
                ends.append(end)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, True)
        return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))

    def _direction(
        self, k: int, x: Tensor, sizes: Sequence[int] | None, state: State
    ) -> tuple[Tensor, State]:
        """One direction of a layer: all inputs at once, then moment by moment."""
        calls = products_of_rows(x, sizes)
        inputs, hidden = affine(self.inputs[k], 1), affine(self.hiddens[k], calls)
        projection = affine(self.projections[k], calls) if self.proj_size else None
        bias = inputs.bias
        if self.adds_both_biases and hidden.bias is not None:
            bias = hidden.bias if bias is None else bias + hidden.bias
        gates = inputs.linear(x, bias)
        step, reverse = self._step(hidden, projection), self.bidirectional and k % 2 == 1
        state = tuple(s.to(gates.dtype) for s in state)
        if sizes is None:
            return scan(step, gates, state, reverse)
        return scan_packed(step, gates, sizes, state, reverse)

    def _state(self, hx: Any) -> State:
        """What the caller gives as the initial state."""
        if not isinstance(hx, Tensor):
            raise ShapeError(f"the initial state came as a {type(hx).__name__}.", "Give a single tensor.")
        return (hx,)

    def _given(self, state: State) -> Any:
        """The last state as the caller gets it."""
        return state[0]

    def _sizes(self) -> tuple[int, ...]:
        """Features of every array of the state."""
        return (self.output_size,)

    def _shapes(self, batch: int | None) -> list[tuple[int, ...]]:
        """Shapes of the state; without a batch where there is none."""
        middle = () if batch is None else (batch,)
        return [(self.num_layers * self.directions, *middle, n) for n in self._sizes()]

    def _initial(self, x: Tensor, batch: int) -> State:
        return tuple(x.new_zeros(shape) for shape in self._shapes(batch))

    def extra_repr(self) -> str:
        """Sizes, and options that are not torch's defaults."""
        options, plain = self.options, RecurrentOptions(1, 1)
        words = [f"{self.input_size}, {self.hidden_size}"]
        for name in list(RecurrentOptions.__dataclass_fields__)[2:]:
            if (value := getattr(options, name)) != getattr(plain, name):
                words.append(f"{name}={value!r}")
        return ", ".join(words)
