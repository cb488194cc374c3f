"""The sites of a compressed model beside those of the dense one, in the order of the forward pass."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tenfold.compress.batches import Forward, length, outputs_of
from tenfold.compress.calibration.lockstep import Stop
from tenfold.compress.calibration.patches import order_of
from tenfold.compress.calibration.ramps import Ramp, common_ramps
from tenfold.compress.calibration.streams import received_by
from tenfold.compress.plan import LayerPlan, Plan
from tenfold.compress.shift import followed_by_norm
from tenfold.core.errors import SelectionError
from tenfold.measure.running import evaluating
from tenfold.nn import FactorizedLayer


@dataclass(frozen=True)
class TwinSite:
    """A layer, the dense one it was, what the plan made of it (None: it stayed dense), the batch norm behind
    (its name, its running means in both models), where both passes are when the outputs have been added to
    something else, and, if that is before a ReLU which alone sees the sum, the slopes of the sum in them."""

    module: str
    layer: nn.Module
    source: nn.Module
    plan: LayerPlan | None
    norm: str | None
    means: tuple[Tensor, Tensor] | None
    receivers: tuple[Stop, Stop] | None
    slope: Tensor | None = None

    @property
    def name(self) -> str:
        return f"{self.module}.weight"

    @property
    def is_free(self) -> bool:
        """Whether a bias or a normalisation takes a shift of the outputs up."""
        if self.plan is not None:
            return self.plan.metric is not None and self.plan.metric.centred
        return self.biases()[1] is not None or self.means is not None

    @property
    def norm_shifts(self) -> bool:
        """Whether it is the batch norm that does."""
        return self.is_free and self.biases()[1] is None and self.norm is not None

    def biases(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the dense layer and of the layer as it is now."""
        return self.source._parameters.get("bias"), self.layer._parameters.get("bias")

    def weight(self) -> Tensor:
        """The weight as it is now."""
        layer = self.layer
        weight = layer.weight.dense() if isinstance(layer, FactorizedLayer) else layer.get_parameter("weight")
        return weight.detach()

    def moved(self) -> Tensor | float:
        """What the batch norm behind adds to the outputs by subtracting another mean than the dense one."""
        return 0.0 if self.means is None else self.means[1] - self.means[0]


def sites_in_order(
    model: nn.Module,
    dense: nn.Module,
    plan: Plan,
    batches: Sequence[Any],
    forward: Forward | None,
    ramps: bool = True,
    dense_too: bool = False,
) -> Sequence[TwinSite]:
    """The sites of the plan that are called once, and share no weight, in the order of these calls: linear
    layers and convolutions. Tables, transposed convolutions and bilinear layers are left as they are fitted.
    Without `ramps` nobody looks for a ReLU behind them, nor if the batches have one sample in all, which does
    not tell a slope from a gate. With `dense_too`, layers that stayed dense behind the
    first of them are there as well. Both models are opened."""
    batch = batches[0]
    norms = {
        layer: norm for layer, norm in followed_by_norm(dense, batch, forward).items() if _keeps(dense, norm)
    }
    order = _called(dense, batch, forward)
    own = {name for name in _own_weights(model) if order_of(dense.get_submodule(name)) is not None}
    names = [name for name in order if name in own & plan.layers.keys() and order.count(name) == 1]
    if dense_too and names:
        after = order[order.index(names[0]) :]
        names = [name for name in after if name in own and order.count(name) == 1]
    ramps = ramps and sum(map(length, batches)) > 1
    relus = common_ramps((dense, model), names, batches, forward) if ramps else {}
    receivers = received_by(dense, [n for n in names if n not in relus], batch, forward)
    direct = {a: b for a, b in receivers.items() if _follows(order, a, b, names)}
    sites = [_site(model, dense, plan, name, norms.get(name), direct.get(name)) for name in names]
    return [_before(site, relus[site.module]) if site.module in relus else site for site in sites]


def _before(site: TwinSite, ramp: Ramp) -> TwinSite:
    """A site whose output ends in a ReLU, which is the same in both passes."""
    return replace(site, receivers=(ramp.number, ramp.number), slope=ramp.slope)


def _follows(order: Sequence[str], layer: str, receiver: str, names: Sequence[str]) -> bool:
    """Whether no other site is called between a layer and what receives its output."""
    return not set(order[order.index(layer) + 1 : order.index(receiver)]) & set(names)


def _site(
    model: nn.Module, dense: nn.Module, plan: Plan, name: str, norm: str | None, receiver: str | None
) -> TwinSite:
    layer, source = model.get_submodule(name), dense.get_submodule(name)
    chosen = plan.layers[name]["weight"] if name in plan.layers else None
    means = None if norm is None else (_mean(model, norm), _mean(dense, norm))
    both = None if receiver is None else (model.get_submodule(receiver), dense.get_submodule(receiver))
    return TwinSite(name, layer, source, chosen, norm, means, both)


def _own_weights(model: nn.Module) -> set[str]:
    """The layers whose weight, dense or factorized, is in no other place."""
    held = {name: (m._parameters | m._modules).get("weight") for name, m in model.named_modules()}
    places = Counter(map(id, held.values()))
    return {name for name, weight in held.items() if weight is not None and places[id(weight)] == 1}


def _keeps(model: nn.Module, norm: str) -> bool:
    """Whether a batch norm keeps running statistics."""
    return getattr(model.get_submodule(norm), "running_mean", None) is not None


def _mean(model: nn.Module, norm: str) -> Tensor:
    return model.get_submodule(norm).get_buffer("running_mean")


def check_plan(model: nn.Module, plan: Plan) -> None:
    """Raise SelectionError if a layer that the plan names is not factorized."""
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
