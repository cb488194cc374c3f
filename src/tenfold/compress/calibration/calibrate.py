"""Statistics of a model's sites from data, in one pass; with a cache that knows when it is out of date."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.samples import Samples, drawn
from tenfold.compress.calibration.statistics import Statistics, fingerprint
from tenfold.compress.calibration.targets import labelled_loss, logits_of, sampled_loss
from tenfold.compress.calibration.watching import Run, Watch, layers_of, observed, watching
from tenfold.compress.sites import Site
from tenfold.core.atomic import check_file
from tenfold.core.errors import DataError, ModelError, OptionError
from tenfold.measure.running import device_of, run

DEFAULT = frozenset({"input_covariance", "output_covariance"})
MAX_PATCH, MAX_BYTES = 2048, 2**28

Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on a batch as it came, and returns its outputs."""
Loss = Callable[[Any, Any], Tensor]
"""loss(outputs, labels): the sum, not the mean, over the samples of a batch; labels may be None."""


def collect(
    model: nn.Module,
    batches: Iterable[Any],
    sites: Sequence[Site],
    *,
    want: str | Iterable[str] = DEFAULT,
    samples: int | None = None,
    forward: Forward | None = None,
    loss: Loss | str | None = None,
    max_patch: int = MAX_PATCH,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Statistics:
    """What the sites see when the model runs on data; the model is left as it was.

    The model runs in evaluation mode, and backward only if `want` needs loss gradients. Products are taken in
    float32 (or in the model's type, if wider) and summed in float64, on the model's device. All layers that
    share a weight count as one, and so do all calls in a forward pass. Samples lie along the first axis.

    Args:
        batches: inputs, or (inputs, labels). Inputs are a tensor, a tuple of arguments or a mapping of them;
            a pair of inputs without labels is ((a, b), None).
        want: `input_covariance`, `input_absolute`, `patch_moment`, `output_covariance`,
            `gradient_covariance`, `fisher_rows`; each brings the fields of `SiteStatistics` that go with it.
        samples: read no more than so many.
        forward: called as `forward(model, batch)` with the whole batch, brought to the model's device.
        loss: "labels" takes the cross-entropy of the given labels (the empirical Fisher), "sampled" that of
            labels drawn from the model's predictions (the true one). By default the labels where there are
            some. Or a function, called as `loss(outputs, labels)`, which sums over the batch.
        max_patch: patch moments of convolutions with more entries (inputs · taps) are skipped.
        max_bytes: memory for patches and copies of activations; larger batches are taken in pieces.
        seed: of the labels drawn; torch's own generators are not touched.
        progress: called after each batch with the number of samples so far.

    Raises:
        UnknownNameError: if `want` names no statistic.
        OptionError: for an option outside its range.
        DataError: if there are no samples, or what a site saw is not finite.
        ShapeError: if the outputs are not logits, or do not fit the labels.
        ModelError: if no site was called, or the loss depends on none.
        SelectionError: if a site is not of this model.

    >>> from tenfold.compress import find_sites
    >>> net = nn.Sequential(nn.Linear(2, 3))
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    >>> seen = collect(net, [x], find_sites(net, x))["0.weight"]
    >>> seen.count, seen.input_mean, seen.input_covariance
    (2, tensor([1., 1.]), tensor([[1., 1.],
                                  [1., 2.]]))
    """
    request = Request(named(want), samples, loss, max_patch, max_bytes, seed)
    watches = {site.name: Watch(layers_of(model, site), request.want, max_patch) for site in sites}
    state = Run(max_bytes, seed)
    with observed(model, request.backward), watching(watches, state):
        count = _read(model, batches, request, state, forward, progress)
    asked = [watch for watch in watches.values() if not watch.skipped]
    if asked and not any(watch.count for watch in asked):
        raise ModelError(
            "no site was called when the model ran.", "Calibrate the model itself, before torch.compile."
        )
    found = {name: watch.result(name, count) for name, watch in watches.items()}
    return Statistics(found, request.want, count, fingerprint(model), request.options())


def collected(
    model: nn.Module,
    batches: Iterable[Any],
    sites: Sequence[Site],
    *,
    cache: str | Path,
    want: str | Iterable[str] = DEFAULT,
    samples: int | None = None,
    forward: Forward | None = None,
    loss: Loss | str | None = None,
    max_patch: int = MAX_PATCH,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Statistics:
    """`collect`, unless the file `cache` holds what is asked for; otherwise it is written there.

    The cache serves when the model's weights are those that it was made with, when it has all sites and
    statistics wanted, and when `samples`, `loss`, `max_patch` and `seed` are the same. Of the data and of a
    `loss` or `forward` of your own it knows nothing: name another file when you change them.

    Raises:
        CheckpointError: if the file exists and holds no statistics; it is not overwritten.
        TargetError: if the file cannot be written.
    """
    request = Request(named(want), samples, loss, max_patch, max_bytes, seed)
    if Path(cache).exists():
        known = Statistics.load(cache)
        if _serves(known, sites, request) and known.weights == fingerprint(model):
            return known.to(device_of(model))
    check_file(cache)
    fresh = collect(
        model, batches, sites, want=request.want, samples=samples, forward=forward, loss=loss,
        max_patch=max_patch, max_bytes=max_bytes, seed=seed, progress=progress,
    )  # fmt: skip
    fresh.save(cache)
    return fresh


def named(want: str | Iterable[str]) -> frozenset[str]:
    """The names of statistics; one may come without a set around it."""
    return frozenset((want,) if isinstance(want, str) else want)


@dataclass(frozen=True)
class Request:
    """The options of `collect`, checked."""

    want: frozenset[str]
    samples: int | None
    loss: Loss | str | None
    max_patch: int
    max_bytes: int
    seed: int

    def __post_init__(self) -> None:
        for name in self.want:
            observers[name]
        if not self.want:
            raise OptionError("`want` names no statistic.", f"Choose of {', '.join(observers)}.")
        if self.samples is not None and self.samples < 1:
            raise OptionError(f"samples came as {self.samples}.", "Give 1 or more, or None for all.")
        if isinstance(self.loss, str) and self.loss not in ("labels", "sampled"):
            raise OptionError(f"loss came as '{self.loss}'.", 'Give "labels", "sampled" or a function.')
        if self.max_patch < 1 or self.max_bytes < 1:
            raise OptionError(
                f"max_patch and max_bytes came as {self.max_patch} and {self.max_bytes}.", "Give 1 or more."
            )

    @property
    def backward(self) -> bool:
        """Whether the loss gradients are needed."""
        return any(observers[name].backward for name in self.want)

    def options(self) -> dict[str, Any]:
        """What changes the numbers besides weights and data."""
        loss = "own" if callable(self.loss) else self.loss
        return {"samples": self.samples, "loss": loss, "max_patch": self.max_patch, "seed": self.seed}

    def loss_of(self, outputs: Any, labels: Any, state: Run) -> Tensor:
        """The loss of a batch, summed over its samples."""
        if callable(self.loss):
            return self.loss(outputs, labels)
        if self.loss == "labels" and labels is None:
            raise DataError('loss="labels" needs labels, but a batch has none.', "Give (inputs, labels).")
        logits = logits_of(outputs)
        if labels is None or self.loss == "sampled":
            return sampled_loss(logits, state.generator(logits.device))
        return labelled_loss(logits, labels)


def _serves(known: Statistics, sites: Sequence[Site], request: Request) -> bool:
    """Whether known statistics have all that is asked for."""
    names = {site.name for site in sites}
    return known.want >= request.want and known.keys() >= names and known.options == request.options()


def _read(
    model: nn.Module,
    batches: Iterable[Any],
    request: Request,
    state: Run,
    forward: Forward | None,
    progress: Callable[[int], object] | None,
) -> int:
    """Run the model on all batches; the number of samples."""
    total = 0
    for batch in drawn(batches, request.samples, device_of(model)):
        state.samples = batch.count
        outputs = run(model, batch.inputs) if forward is None else forward(model, batch.batch)
        if request.backward:
            _differentiate(request, state, outputs, batch)
        total += batch.count
        if progress is not None:
            progress(total)
    return total


def _differentiate(request: Request, state: Run, outputs: Any, batch: Samples) -> None:
    """Send the loss gradient back to the sites; no parameter gets one."""
    loss = request.loss_of(outputs, batch.labels, state)
    if not loss.requires_grad or not state.probes:
        raise ModelError(
            "the loss depends on no site.", "See that `forward` and `loss` keep the graph of the outputs."
        )
    if loss.numel() != 1:
        raise OptionError(f"the loss has shape {tuple(loss.shape)}.", "Sum it over the samples of the batch.")
    torch.autograd.grad(loss, tuple(state.probes.values()), allow_unused=True)
