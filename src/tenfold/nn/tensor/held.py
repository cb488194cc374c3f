"""The parameters of a module by name, or what is computed in their place."""

from collections.abc import Sequence

from torch import Tensor, nn


def held(module: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """The tensors of these names: parameters as they are, or as pruning and parametrizations make them.

    Pruning computes its tensors when the module is called. Weights are never called, so that is done here.

    >>> from torch.nn.utils import prune
    >>> layer = prune.l1_unstructured(nn.Linear(2, 2), "weight", amount=2)
    >>> _ = nn.init.ones_(layer.weight_orig)
    >>> held(layer, ["weight"])[0].sum().item()
    2.0
    """
    own = module._parameters  # faster than getattr, which knows those too that are computed
    if any(name not in own for name in names):
        for hook in module._forward_pre_hooks.values():
            hook(module, ())
    return [own[name] if name in own else getattr(module, name) for name in names]  # type: ignore[misc]
