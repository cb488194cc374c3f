"""Observing the layers of a model while it runs, forward and backward, and leaving it as it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.calibration.calls import Call, Setting
from tenfold.compress.calibration.families import calls_of, is_known, refusal
from tenfold.compress.calibration.observers import observers
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
    """Samples in the batch at hand, or in the piece of it."""
    whole: int = 0
    """Samples in the batch of which that is a piece."""
    alone: bool = False
    """Whether gradients can come by the probes alone; one of them then serves all that follows it."""
    called: list["Watch"] = field(default_factory=list)
    """The sites in the order in which they were first called."""
    probes: dict[torch.device, Tensor] = field(default_factory=dict)
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)
    thinning: Thinning = field(init=False)

    def __post_init__(self) -> None:
        self.thinning = Thinning(self.positions, torch.Generator().manual_seed(self.seed))

    @property
    def setting(self) -> Setting:
        """For the calls of the batch at hand."""
        thinning = replace(self.thinning, parts=self.whole / self.samples)
        return Setting(self.samples, self.max_bytes, thinning)

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
        self.skipped = {name: reason for name in want if (reason := refusal(layers, name, max_patch))}
        self.same_patches = "patch_moment" in want - self.skipped.keys() and all(
            calls_of(m).patches_are_inputs(m) for m in layers
        )
        names = want - self.skipped.keys()
        if self.same_patches:
            names = names - {"patch_moment"} | {"input_covariance"}
        chosen = [observers[name]() for name in sorted(names)]
        self.forward = [o for o in chosen if not o.backward]
        self.backward = [o for o in chosen if o.backward]
        self.count = self.output_count = 0
        self.called = False

    def hook(self, run: Run) -> Callable[..., Tensor | None]:
        """A forward hook, which sees the call and arranges to see the gradient."""

        def seen(layer: nn.Module, args: Any, kwargs: Any, y: Tensor) -> Tensor | None:
            self.called = True
            if not y.numel():
                return None
            with torch.no_grad(), torch.autocast(y.device.type, enabled=False):
                call = calls_of(layer).of(layer, args, kwargs, y, run.setting)
                if not all(call.counts):
                    return None
                if not self.count:
                    run.called.append(self)
                self._see(call)
            return self._probed(y, call, run) if self.backward else None

        return seen

    def _see(self, call: Call) -> None:
        inputs, outputs = call.counts
        self.count += inputs
        self.output_count += outputs
        for observer in self.forward:
            observer.see(call)

    def _probed(self, y: Tensor, call: Call, run: Run) -> Tensor:
        """The output with a hook for its gradient, which a later change in place does not move.

        The hook belongs to the output, so that it must not hold it: such a ring is never let go.
        """
        waiting = call.waiting(any(o.keeps_input for o in self.backward))
        device = y.device.type

        def seen(gradient: Tensor) -> None:
            with torch.no_grad(), torch.autocast(device, enabled=False):
                call = waiting.given(gradient)
                for observer in self.backward:
                    observer.see(call)

        if not (y.requires_grad and run.alone):
            y = y + run.probe(y.device)
        y.register_hook(seen)
        return y

    @property
    def rows(self) -> int:
        """Rows of the largest moment that is collected."""
        names = self.want - self.skipped.keys()
        if not names:
            return 1
        inputs, patches, outputs = calls_of(self.layers[0]).rows(self.layers[0])
        sizes = {
            "input_covariance": inputs,
            "patch_moment": patches,
            "output_covariance": outputs,
            "gradient_covariance": outputs,
        }
        return max(sizes.get(name, 1) for name in names)

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
            reason = (
                "its layer was given nothing but padding" if self.called else "its layer was never called"
            )
            skipped |= dict.fromkeys(self.want - self.skipped.keys(), reason)
        return SiteStatistics(self.count, self.output_count, samples, **tensors, skipped=skipped, name=name)


def check_seen(tensor: Tensor, what: str, site: str) -> None:
    """Raise DataError if sums hold NaN or infinite entries."""
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(
            f"the {what} of '{site}' are not finite.",
            "Check the calibration data, and the weights of the layers before it and of itself.",
        )


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
        if is_known(layer)
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
