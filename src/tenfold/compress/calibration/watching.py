"""Observing the layers of a model while it runs, forward and backward, and leaving it as it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.calibration.observers import Call, observers
from tenfold.compress.calibration.patches import order_of, patch_width, patches_are_inputs
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.thinning import Thinning
from tenfold.compress.sites import Site
from tenfold.core.errors import DataError, SelectionError
from tenfold.measure.running import keeping_mode


@dataclass
class Run:
    """What all sites share while the model runs."""

    max_bytes: int
    seed: int = 0
    positions: int | None = None
    """Of a call, about so many are looked at."""
    samples: int = 0
    """Samples in the batch at hand."""
    alone: bool = False
    """Whether gradients can come by the probes alone; one of them then serves all that follows it."""
    called: list["Watch"] = field(default_factory=list)
    """The sites in the order in which they were first called."""
    probes: dict[torch.device, Tensor] = field(default_factory=dict)
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)
    thinning: Thinning = field(init=False)

    def __post_init__(self) -> None:
        self.thinning = Thinning(self.positions, torch.Generator().manual_seed(self.seed))

    def probe(self, device: torch.device) -> Tensor:
        """A zero to add to outputs: what it is added to has a gradient, whatever came before."""
        if device not in self.probes:
            self.probes[device] = torch.zeros((), device=device, requires_grad=True)
        return self.probes[device]

    def generator(self, device: torch.device) -> torch.Generator:
        """The one of this run on a device."""
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]


class Watch:
    """One site: the layers that use its weight, its observers, and how many positions came."""

    def __init__(self, layers: Sequence[nn.Module], want: frozenset[str], max_patch: int) -> None:
        self.layers = layers
        self.want = want
        self.skipped = {name: reason for name in want if (reason := _refusal(name, layers, max_patch))}
        self.same_patches = "patch_moment" in want and all(patches_are_inputs(m) for m in layers)
        names = want - self.skipped.keys()
        if self.same_patches:
            names = names - {"patch_moment"} | {"input_covariance"}
        chosen = [observers[name]() for name in sorted(names)]
        self.forward = [o for o in chosen if not o.backward]
        self.backward = [o for o in chosen if o.backward]
        self.count = self.output_count = 0

    def hook(self, run: Run) -> Callable[..., Tensor | None]:
        """A forward hook, which sees the call and arranges to see the gradient."""

        def seen(layer: nn.Module, args: Any, kwargs: Any, y: Tensor) -> Tensor | None:
            x: Tensor = args[0] if args else kwargs["input"]
            if not x.numel():
                return None
            if not self.count:
                run.called.append(self)
            with torch.no_grad():
                whole = batched(layer, x), batched(layer, y)
                call = Call(layer, *whole, run.samples, run.max_bytes, run.thinning)
                self._see(call)
            return self._probed(y, call, run) if self.backward else None

        return seen

    def _see(self, call: Call) -> None:
        axis = 1 if call.order else -1
        self.count += call.x.numel() // call.x.shape[axis]
        self.output_count += call.y.numel() // call.y.shape[axis]
        for observer in self.forward:
            observer.see(call)

    def _probed(self, y: Tensor, call: Call, run: Run) -> Tensor:
        """The output with a hook for its gradient, which a later change in place does not move."""
        layer, keeps = call.layer, any(o.keeps_input for o in self.backward)
        x = call.x.detach() if keeps else call.x.new_empty(0)  # a view would keep the whole
        samples, max_bytes = call.samples, call.max_bytes

        def seen(gradient: Tensor) -> None:
            with torch.no_grad():
                call = Call(layer, x, batched(layer, gradient), samples, max_bytes, run.thinning)
                for observer in self.backward:
                    observer.see(call)

        if not (y.requires_grad and run.alone):
            y = y + run.probe(y.device)
        y.register_hook(seen)
        return y

    @property
    def rows(self) -> int:
        """Rows of the largest moment that is collected."""
        outputs, inputs = self.layers[0].get_parameter("weight").shape[:2]
        sizes = {
            "input_covariance": inputs,
            "patch_moment": patch_width(self.layers[0]),
            "output_covariance": outputs,
            "gradient_covariance": outputs,
        }
        return max((sizes.get(name, 1) for name in self.want - self.skipped.keys()), default=1)

    def check_forward(self, name: str) -> None:
        """Raise DataError if what came in the forward pass to the site `name` was not finite."""
        for observer in self.forward:
            for total in observer.sums.all():
                check_seen(total, observer.sees, name)

    def result(self, name: str, samples: int) -> SiteStatistics:
        """The statistics of the site `name`; DataError if they are not finite."""
        tensors: dict[str, Tensor] = {}
        skipped = dict(self.skipped)
        for observer in (*self.forward, *self.backward):
            found = observer.result(samples)
            for tensor in found.values():
                check_seen(tensor, observer.sees, name)
            if not found:
                skipped[observers.name_of(type(observer))] = "the loss does not depend on it"
            tensors |= found
        if self.same_patches and self.count:
            tensors |= {"patch_mean": tensors["input_mean"], "patch_moment": tensors["input_covariance"]}
        if not self.count:
            skipped |= dict.fromkeys(self.want - self.skipped.keys(), "its layer was never called")
        return SiteStatistics(self.count, self.output_count, samples, **tensors, skipped=skipped, name=name)


def batched(layer: nn.Module, x: Tensor) -> Tensor:
    """With a batch axis, which layers may be called without."""
    order = order_of(layer) or 0
    return x.unsqueeze(0) if x.ndim == order + 1 else x


def check_seen(tensor: Tensor, what: str, site: str) -> None:
    """Raise DataError if sums hold NaN or infinite entries."""
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(
            f"the {what} of '{site}' are not finite.",
            "Check the calibration data, and the weights of the layers before it and of itself.",
        )


def _refusal(name: str, layers: Sequence[nn.Module], max_patch: int) -> str:
    if strange := [type(m).__name__ for m in layers if order_of(m) is None]:
        return f"statistics of {strange[0]} are not known"
    if name == "patch_moment" and all(patches_are_inputs(m) for m in layers):
        return ""
    return observers[name].refusal(layers[0], max_patch)


def layers_of(model: nn.Module, site: Site) -> list[nn.Module]:
    """The modules that hold the weight of a site, each once; a holder of another type is left out."""
    modules = dict(model.named_modules(remove_duplicate=False))
    places = [site.name, *site.shared]
    owners = {place: modules.get(place.rpartition(".")[0]) for place in places}
    first = owners[site.name]
    if first is None:
        raise SelectionError(f"the model has no layer '{site.module}'.", "Give sites of this model.")
    same = {id(m): m for m in owners.values() if m is not None and type(m) is type(first)}
    return list(same.values())


@contextmanager
def watching(watches: Mapping[str, Watch], run: Run) -> Iterator[None]:
    """Hooks on all layers, until left."""
    handles = [
        layer.register_forward_hook(watch.hook(run), with_kwargs=True)
        for watch in watches.values()
        for layer in watch.layers
        if order_of(layer) is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def observed(model: nn.Module, backward: bool) -> Iterator[None]:
    """Evaluation mode; with gradients, if wanted, but none by parameters, whose flags come back."""
    trained = [p for p in model.parameters() if p.requires_grad]
    with keeping_mode(model), torch.inference_mode(False), torch.set_grad_enabled(backward):
        try:
            model.eval()
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
