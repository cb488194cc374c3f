"""How large a model is."""

from torch import nn


def parameters(model: nn.Module) -> int:
    """The number of stored parameters; one that several modules share counts once.

    >>> layer = nn.Linear(10, 10)
    >>> parameters(nn.Sequential(layer, nn.ReLU(), layer))
    110
    """
    return sum(parameter.numel() for parameter in model.parameters())


def nbytes(model: nn.Module) -> int:
    """The bytes of all parameters and buffers (batch norm's statistics, for one); shared ones count once.

    >>> nbytes(nn.Linear(10, 10)), nbytes(nn.Linear(10, 10).half())
    (440, 220)
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
