"""LSTMs written by hand from the factors of a factorized one."""

import torch
import torch.nn.functional as F
from hand import Chains, linear
from hand_linear import FirstCoreFirst, LastCoreFirst, TwoCores
from torch import Tensor, nn

from tenfold.nn import FactorizedLSTM


def lowrank(layer: FactorizedLSTM) -> Chains:
    """Two products at every moment; or the dense weights are made, for torch's own loop."""
    return {"two linear maps": LowRankLSTM(layer), "reconstructed": ReconstructedLSTM(layer)}


def tt(layer: FactorizedLSTM) -> Chains:
    """Two cores at every moment; or the weight is made, once for all of them."""
    return {
        "first core first": TrainLSTM(layer, FirstCoreFirst),
        "last core first": TrainLSTM(layer, LastCoreFirst),
        "reconstructed for a loop": MadeLSTM(layer),
        "reconstructed": ReconstructedLSTM(layer),
    }


def gated(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next output and cell."""
    i, f, g, o = gates.chunk(4, -1)
    c = torch.addcmul(i.sigmoid() * g.tanh(), f.sigmoid(), c)
    return o.sigmoid() * c.tanh(), c


class Loop(nn.Module):
    """All inputs at once, then moment by moment; what is made of the weights is made once."""

    size: int

    def forward(self, x: Tensor) -> Tensor:
        moments = self.inputs(x).unbind(0)
        h = c = x.new_zeros(x.shape[1], self.size)
        ready, outputs = self.ready(), []
        for a in moments:
            h, c = gated(self.hidden(h, a, ready), c)
            outputs.append(h)
        return torch.stack(outputs)

    def inputs(self, x: Tensor) -> Tensor:
        """What the inputs give to the gates at every moment, both biases included."""
        raise NotImplementedError

    def ready(self) -> Tensor | None:
        """What the loop needs of the hidden weight."""
        return None

    def hidden(self, h: Tensor, a: Tensor, ready: Tensor | None) -> Tensor:
        """The gates."""
        raise NotImplementedError


class LowRankLSTM(Loop):
    """h V^T U^T + a, the last product and the sum in one call."""

    def __init__(self, layer: FactorizedLSTM) -> None:
        super().__init__()
        ours, self.size = (layer.inputs[0], layer.hiddens[0]), layer.hidden_size
        self.left = nn.ModuleList([linear(x.weight.value.left, x.bias) for x in ours])
        self.right = nn.ModuleList([linear(x.weight.value.right) for x in ours])

    def inputs(self, x: Tensor) -> Tensor:
        left, hidden = self.left
        return F.linear(self.right[0](x), left.weight, left.bias + hidden.bias)

    def ready(self) -> Tensor:
        return self.left[1].weight.t()

    def hidden(self, h: Tensor, a: Tensor, ready: Tensor | None) -> Tensor:
        assert ready is not None
        return torch.addmm(a, self.right[1](h), ready)


class TrainLSTM(Loop):
    """Both cores at every moment."""

    def __init__(self, layer: FactorizedLSTM, kind: type[TwoCores]) -> None:
        super().__init__()
        self.size = layer.hidden_size
        self.ours = nn.ModuleList([kind(layer.inputs[0]), kind(layer.hiddens[0])])

    def inputs(self, x: Tensor) -> Tensor:
        inputs, hidden = self.ours
        return (inputs.product(x.flatten(0, 1)) + (inputs.bias + hidden.bias)).view(*x.shape[:2], -1)

    def hidden(self, h: Tensor, a: Tensor, ready: Tensor | None) -> Tensor:
        return self.ours[1].product(h) + a


class Weights(nn.Module):
    """The factors of the input and the hidden weight, from which the weights are made."""

    def __init__(self, layer: FactorizedLSTM) -> None:
        super().__init__()
        self.size = layer.hidden_size
        self.parts = nn.ModuleList([Made(layer.inputs[0]), Made(layer.hiddens[0])])


class Made(nn.Module):
    """One weight of two factors, made by one product."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        value = layer.weight.value
        self.bias = linear(torch.empty(len(layer.bias), 1), layer.bias).bias
        self.sizes: tuple[int, ...] = ()
        if hasattr(value, "cores"):
            sizes = dict(layer.layout.sizes)
            self.sizes = tuple(sizes[a] for a in ("o0", "i0", "o1", "i1"))
            first, last = value.cores
            left, right = first.reshape(self.sizes[0] * self.sizes[1], -1), last.reshape(len(last), -1)
        else:
            left, right = value.left, value.right
        self.left, self.right = nn.Parameter(left.detach().clone()), nn.Parameter(right.detach().clone())

    def forward(self) -> Tensor:
        weight = self.left @ self.right
        if not self.sizes:
            return weight
        o0, _, o1, _ = self.sizes
        return weight.view(self.sizes).transpose(1, 2).reshape(o0 * o1, -1)


class MadeLSTM(Loop, Weights):
    """The weights are made once; the loop has one product."""

    def inputs(self, x: Tensor) -> Tensor:
        inputs, hidden = self.parts
        return F.linear(x, inputs(), inputs.bias + hidden.bias)

    def ready(self) -> Tensor:
        return self.parts[1]().t()

    def hidden(self, h: Tensor, a: Tensor, ready: Tensor | None) -> Tensor:
        assert ready is not None
        return torch.addmm(a, h, ready)


class ReconstructedLSTM(Weights):
    """The weights are made, and torch's own LSTM does the rest."""

    def forward(self, x: Tensor) -> Tensor:
        inputs, hidden = self.parts
        zeros = x.new_zeros(1, x.shape[1], self.size)
        weights = [inputs(), hidden(), inputs.bias, hidden.bias]
        return torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, self.training, False, False)[0]
