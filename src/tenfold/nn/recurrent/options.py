"""The options of a recurrent layer; what is refused at construction and when it is called."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tenfold.core.errors import OptionError, ShapeError


@dataclass(frozen=True)
class RecurrentOptions:
    """The options of `nn.RNN`, `nn.LSTM` and `nn.GRU`, each where it has one.

    >>> RecurrentOptions(4, 8, 2, bidirectional=True, proj_size=3).features
    (4, 4, 6, 6)
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    bidirectional: bool = False
    proj_size: int = 0
    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers"):
            if (size := getattr(self, name)) < 1:
                raise OptionError(f"{name} came as {size}.", "Give 1 or more.")
        if not 0 <= self.proj_size < self.hidden_size:
            raise OptionError(
                f"proj_size={self.proj_size} with hidden_size={self.hidden_size}.",
                "Give less than hidden_size, or 0 for no projection.",
            )
        if isinstance(self.dropout, bool) or not 0 <= self.dropout <= 1:
            raise OptionError(f"dropout came as {self.dropout}.", "Give a probability.")
        if self.nonlinearity not in ("tanh", "relu"):
            raise OptionError(f"nonlinearity came as {self.nonlinearity!r}.", 'Give "tanh" or "relu".')

    @property
    def directions(self) -> int:
        """1, or 2 if sequences are read backwards too."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Features of the output in each direction."""
        return self.proj_size or self.hidden_size

    @property
    def features(self) -> tuple[int, ...]:
        """Input features of every direction of every layer."""
        later = self.directions * self.output_size
        return (self.input_size,) * self.directions + (later,) * self.directions * (self.num_layers - 1)


def warn_of_idle_dropout(options: RecurrentOptions) -> None:
    """Warn, as torch does, of dropout that has no place: it stands between layers."""
    if options.dropout and options.num_layers == 1:
        warnings.warn(
            f"dropout={options.dropout} does nothing in a single layer: it acts between layers.",
            UserWarning,
            stacklevel=3,
        )


def check_sequence(x: Tensor, features: int, batch_first: bool, packed: bool) -> None:
    """Raise ShapeError unless `x` is sequences of these features with at least one moment."""
    axes = "(batch, time, features)" if batch_first else "(time, batch, features)"
    time = 1 if batch_first and x.ndim == 3 else 0
    if x.ndim not in ((2,) if packed else (2, 3)) or x.shape[-1] != features:
        raise ShapeError(
            f"the input came as {tuple(x.shape)}.",
            f"Give {axes}, (time, features) or packed sequences, with {features} features.",
        )
    if x.shape[time] == 0:
        raise ShapeError(f"the input {tuple(x.shape)} has no moment.", "Give sequences of length 1 or more.")


def check_state(state: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ShapeError unless the initial state has these shapes."""
    if len(state) != len(shapes) or any(s.shape != n for s, n in zip(state, shapes, strict=True)):
        raise ShapeError(
            f"the initial state came as {', '.join(str(tuple(s.shape)) for s in state)}.",
            f"Give {', '.join(map(str, shapes))}.",
        )
