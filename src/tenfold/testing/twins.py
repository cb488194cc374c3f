"""The parameters of a layer's dense twin, as functions of the layer's own parameters."""

from functools import singledispatch

import torch
from torch import Tensor, nn

from tenfold.nn import TCL, FactorizedLayer, FactorizedMultiheadAttention
from tenfold.nn.recurrent.module import FactorizedRecurrent
from tenfold.nn.recurrent.parts import suffixes

Named = dict[str, Tensor]


@singledispatch
def twin_parameters(layer: nn.Module) -> Named:
    """The parameters of `layer.to_dense()` by name, differentiable in those of `layer`.

    For a layer type of your own, register what it is: `twin_parameters.register(MyLayer, function)`. What is
    not registered has the parameters of its submodules' twins.

    >>> from tenfold.nn import FactorizedLinear
    >>> {name: p.shape for name, p in twin_parameters(FactorizedLinear(6, 4, rank=2)).items()}
    {'weight': torch.Size([4, 6]), 'bias': torch.Size([4])}
    """
    found: Named = dict(layer.named_parameters(recurse=False))
    for name, part in layer.named_children():
        found |= {f"{name}.{key}": p for key, p in twin_parameters(part).items()}
    return found


@twin_parameters.register
def _weight(layer: FactorizedLayer) -> Named:
    others = {name: p for name, p in layer.named_parameters() if not name.startswith("weight.")}
    return {"weight": layer.dense_weight().clone(), **others}  # which max_norm changes in place


@twin_parameters.register
def _recurrent(layer: FactorizedRecurrent) -> Named:
    ends = suffixes(layer.num_layers, layer.bidirectional)
    found: Named = {}
    for kind, parts in zip(("ih", "hh", "hr"), layer.parts, strict=True):
        for end, part in zip(ends, parts, strict=False):
            found |= {f"{name}_{kind}{end}": p for name, p in twin_parameters(part).items()}
    return found


@twin_parameters.register
def _attention(layer: FactorizedMultiheadAttention) -> Named:
    q, k, v, out = (
        twin_parameters(part) for part in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj)
    )
    found: Named = dict(layer.named_parameters(recurse=False))
    if layer._qkv_same_embed_dim:
        found["in_proj_weight"] = torch.cat([part["weight"] for part in (q, k, v)])
    else:
        for name, part in zip("qkv", (q, k, v), strict=True):
            found[f"{name}_proj_weight"] = part["weight"]
    if "bias" in q:
        found["in_proj_bias"] = torch.cat([part["bias"] for part in (q, k, v)])
    return found | {f"out_proj.{name}": p for name, p in out.items()}


@twin_parameters.register
def _contraction(layer: TCL) -> Named:
    bias = {} if layer.bias is None else {"linear.bias": layer.bias.flatten()}
    return {"linear.weight": layer.matrix(), **bias}
