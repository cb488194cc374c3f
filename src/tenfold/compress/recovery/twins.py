"""The sites of a compressed model beside those of the dense one, in the order of the forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tenfold.compress.batches import Forward, outputs_of
from tenfold.compress.calibration.patches import order_of
from tenfold.compress.calibration.streams import received_by
from tenfold.compress.opening import opened
from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.shift import followed_by_norm
from tenfold.core.errors import SelectionError
from tenfold.measure.running import evaluating
from tenfold.nn import FactorizedLayer


@dataclass(frozen=True)
class TwinSite:
    """A factorized layer, the dense one it was, the batch norm behind it (its name, its running means in both
    models), and the modules that receive their outputs added to something else."""

    module: str
    layer: FactorizedLayer
    source: nn.Module
    plan: LayerPlan
    norm: str | None
    means: tuple[Tensor, Tensor] | None
    receivers: tuple[nn.Module, nn.Module] | None

    @property
    def name(self) -> str:
        return f"{self.module}.weight"


def sites_in_order(
    model: nn.Module, dense: nn.Module, plan: Plan, batch: Any, forward: Forward | None
) -> Sequence[TwinSite]:
    """The sites of the plan that are called once, in the order of these calls: linear layers and
    convolutions. Tables, transposed convolutions and bilinear layers are left as they are fitted."""
    _check(model, plan)
    dense = opened(dense)
    norms = {
        layer: norm for layer, norm in followed_by_norm(dense, batch, forward).items() if _keeps(dense, norm)
    }
    order = _called(dense, batch, forward)
    known = {name for name in plan.layers if order_of(dense.get_submodule(name)) is not None}
    names = [name for name in order if name in known and order.count(name) == 1]
    receivers = received_by(dense, names, batch, forward)
    direct = {a: b for a, b in receivers.items() if _follows(order, a, b, names)}
    return [_site(model, dense, plan, name, norms.get(name), direct.get(name)) for name in names]


def _follows(order: Sequence[str], layer: str, receiver: str, names: Sequence[str]) -> bool:
    """Whether no other site is called between a layer and what receives its output."""
    return not set(order[order.index(layer) + 1 : order.index(receiver)]) & set(names)


def _site(
    model: nn.Module, dense: nn.Module, plan: Plan, name: str, norm: str | None, receiver: str | None
) -> TwinSite:
    layer, source = model.get_submodule(name), dense.get_submodule(name)
    assert isinstance(layer, FactorizedLayer)
    means = None if norm is None else (_mean(model, norm), _mean(dense, norm))
    both = None if receiver is None else (model.get_submodule(receiver), dense.get_submodule(receiver))
    return TwinSite(name, layer, source, plan.layers[name]["weight"], norm, means, both)


def _keeps(model: nn.Module, norm: str) -> bool:
    """Whether a batch norm keeps running statistics."""
    return getattr(model.get_submodule(norm), "running_mean", None) is not None


def _mean(model: nn.Module, norm: str) -> Tensor:
    return model.get_submodule(norm).get_buffer("running_mean")


def _check(model: nn.Module, plan: Plan) -> None:
    modules = dict(model.named_modules())
    for name in plan.layers:
        if not isinstance(modules.get(name), FactorizedLayer):
            raise SelectionError(
                f"the plan names '{name}', which is no factorized layer of the model.", "Call apply_ first."
            )


def _called(dense: nn.Module, batch: Any, forward: Forward | None) -> list[str]:
    """The modules in the order of their calls, each as often as it is called."""
    order: list[str] = []

    def calling(name: str) -> Any:
        return lambda *_: order.append(name)

    handles = [m.register_forward_pre_hook(calling(n)) for n, m in dense.named_modules()]
    try:
        with evaluating(dense):
            outputs_of(dense, batch, forward)
    finally:
        for handle in handles:
            handle.remove()
    return order
