"""The way back: dense layers in the place of factorized ones, so that a model can be compressed anew."""

from torch import nn

from tenfold.compress.opening import close_
from tenfold.core.errors import UnsupportedError
from tenfold.nn import FactorizedLayer


def to_dense_(model: nn.Module) -> tuple[str, ...]:
    """Replace every factorized layer by the dense one that computes the same, in place; their names.

    The weights are those that the factors make, of the low rank that they have: what compression lost is not
    found again. Layers that share factors share the dense weight. Settings, biases, modes and the training
    flags of weights and biases stay; hooks on the replaced layers do not. Build optimizers after this call.

    Raises:
        UnsupportedError: if the model itself is a factorized layer, which has nobody to replace it in.

    >>> import torch
    >>> from tenfold.nn import FactorizedLinear
    >>> model = nn.Sequential(FactorizedLinear(8, 6, rank=2), nn.ReLU())
    >>> x = torch.randn(3, 8)
    >>> before = model(x)
    >>> to_dense_(model), torch.allclose(model(x), before, atol=1e-6)
    (('0',), True)
    >>> model[0]
    Linear(in_features=8, out_features=6, bias=True)
    """
    if isinstance(model, FactorizedLayer):
        raise UnsupportedError(
            "the model is a single factorized layer, which cannot be replaced in place.",
            "Take layer.to_dense(), or wrap it: nn.Sequential(layer).",
        )
    layers: dict[int, nn.Module] = {}
    weights: dict[int, nn.Parameter] = {}
    names: list[str] = []
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, FactorizedLayer):
            names.extend([path] if id(module) not in layers else [])
            dense = layers.setdefault(id(module), _dense(module, weights))
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, dense)
    close_(model)
    return tuple(names)


def _dense(layer: FactorizedLayer, weights: dict[int, nn.Parameter]) -> nn.Module:
    """The dense layer, whose weight is one for all layers with the same factors."""
    dense = layer.to_dense()
    weight = dense.get_parameter("weight")
    own = nn.Parameter(weight.detach().contiguous(), requires_grad=layer.weight.requires_grad)
    dense.weight = weights.setdefault(id(layer.weight), own)
    return dense
