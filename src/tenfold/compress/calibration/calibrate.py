"""Statistics of a model's sites from data, in one pass; with a cache that knows when it is out of date."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold.compress.batches import Forward, outputs_of
from tenfold.compress.calibration.request import Loss, Request, named
from tenfold.compress.calibration.samples import Samples, described, drawn, wants_gradient
from tenfold.compress.calibration.statistics import Statistics, fingerprint
from tenfold.compress.calibration.thinning import POSITIONS
from tenfold.compress.calibration.watching import Run, Watch, layers_of, observed, watching
from tenfold.compress.opening import opened
from tenfold.compress.sites import Site
from tenfold.core.atomic import check_file
from tenfold.core.errors import DataError, ModelError, OptionError, TenfoldError
from tenfold.measure.running import device_of

log = logging.getLogger(__name__)

DEFAULT = frozenset({"input_covariance", "output_covariance"})
MAX_PATCH, MAX_BYTES = 2048, 2**28


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
    positions: int | None = POSITIONS,
    microbatch: int | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Statistics:
    """What the sites see when the model runs on data; the model is left as it was.

    The model runs in evaluation mode, and backward only if `want` needs loss gradients. Products are taken in
    float32 (or in the model's type, if wider) and summed in float64, on the model's device. All layers that
    share a weight count as one, and so do all calls in a forward pass. Samples lie along the first axis.
    What is seen of tables, transposed convolutions and bilinear layers is in `SiteStatistics`.
    Where they are too few for the moments to have full rank, the log says how many it takes, and
    `Statistics.scarce` at which sites.

    Args:
        batches: inputs, or (inputs, labels). Inputs are a tensor, a tuple of arguments or a mapping of them;
            a pair of inputs without labels is ((a, b), None).
        want: `input_covariance`, `input_absolute`, `patch_moment`, `output_covariance`,
            `gradient_covariance`, `fisher_rows`; each brings the fields of `SiteStatistics` that go with it.
        samples: read no more than so many.
        forward: called as `forward(model, batch)` with the whole batch, inputs and labels, or a microbatch
            of it, brought to the model's device.
        loss: "labels" takes the cross-entropy of the given labels (the empirical Fisher), "sampled" that of
            labels drawn from the model's predictions (the true one). By default the labels where there are
            some. "gaussian" is for outputs that are not logits, such as embeddings: it stands for their
            squared error, and needs no labels. Or a function, called as `loss(outputs, labels)`, which sums
            over the batch.
        max_patch: patch moments with more entries are skipped: inputs · taps of a convolution, products of
            both inputs of a bilinear layer.
        max_bytes: memory for patches and copies of activations; larger batches are taken in pieces.
        positions: of the positions that one call of a layer brings (pixels of a batch, tokens), about so
            many are looked at, on a grid with a random start, but 8 for each row of a moment at least. None
            looks at all; `input_absolute` and `fisher_rows` always do, and the indices of tables all count.
        microbatch: run batches in pieces of so many samples, so that only the activations of one piece wait
            for the backward pass; None: whole batches. What is found is the same up to rounding, for samples
            are summed over, and the same labels are drawn; where positions are thinned, as many are looked
            at, but others. Not for models or losses in which the samples of a batch meet (contrastive ones;
            batch norms do not count, as they are in evaluation mode).
        seed: of the labels drawn, and of where the positions start; torch's own generators are not touched.
        progress: called after each batch, or microbatch, with the number of samples so far.

    Raises:
        UnknownNameError: if `want` names no statistic.
        OptionError: for an option outside its range.
        DataError: if there are no samples, if the model cannot take them, if labels are no class numbers, if
            a batch cannot be cut into microbatches, or if what a site saw is not finite.
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
    weights = fingerprint(model)
    model = opened(model)
    request = Request(named(want), samples, loss, max_patch, max_bytes, seed, positions, microbatch)
    watches = {site.name: Watch(layers_of(model, site), request.want, max_patch) for site in sites}
    state = Run(max_bytes, seed, positions)
    rows = max((watch.rows for watch in watches.values()), default=1)
    needs = f"The largest moment has {rows} rows, and takes as many positions of samples to have full rank."
    read = drawn(batches, samples, device_of(model), needs, microbatch)
    with observed(model, request.backward), watching(watches, state):
        count = _read(model, read, request, state, forward, progress)
    asked = [watch for watch in watches.values() if not watch.skipped]
    if asked and not any(watch.count for watch in asked):
        raise ModelError(
            "no site was called when the model ran.", "Calibrate the model itself, before torch.compile."
        )
    names = {watch: name for name, watch in watches.items()}
    for watch in state.called:
        watch.check_forward(names[watch])
    found = {name: watch.result(name, count) for name, watch in watches.items()}
    statistics = Statistics(found, request.want, count, weights, request.options())
    _tell_of_scarcity(statistics)
    return statistics


def _tell_of_scarcity(statistics: Statistics) -> None:
    """Log it, and how many samples it takes, if moments cannot have full rank."""
    if scarce := statistics.scarce:
        worst = max(scarce, key=lambda name: scarce[name])
        log.warning(
            "%d samples are too few for the moments of %d of %d sites to have full rank: '%s' takes %d. "
            "What the data do not show is weighed by the damping of the metric alone.",
            statistics.samples, len(scarce), len(statistics), worst, scarce[worst],
        )  # fmt: skip


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
    positions: int | None = POSITIONS,
    microbatch: int | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Statistics:
    """`collect`, unless the file `cache` holds what is asked for; otherwise it is written there.

    The cache serves when the model's weights are those that it was made with, when it has all sites and
    statistics wanted, and when `samples`, `loss`, `max_patch`, `positions` and `seed` are the same. Of the
    data, how they are cut into batches and microbatches, and of a `loss` or `forward` of your own it knows
    nothing: name another file when you change them.

    Raises:
        CheckpointError: if the file exists and holds no statistics; it is not overwritten.
        TargetError: if the file cannot be written.
    """
    request = Request(named(want), samples, loss, max_patch, max_bytes, seed, positions, microbatch)
    if Path(cache).exists():
        known = Statistics.load(cache)
        if _serves(known, sites, request) and known.weights == fingerprint(model):
            return known.to(device_of(model))
    check_file(cache)
    fresh = collect(
        model, batches, sites, want=request.want, samples=samples, forward=forward, loss=loss,
        max_patch=max_patch, max_bytes=max_bytes, positions=positions, microbatch=microbatch, seed=seed,
        progress=progress,
    )  # fmt: skip
    fresh.save(cache)
    return fresh


def _serves(known: Statistics, sites: Sequence[Site], request: Request) -> bool:
    """Whether known statistics have all that is asked for."""
    names = {site.name for site in sites}
    return known.want >= request.want and known.keys() >= names and known.options == request.options()


def _read(
    model: nn.Module,
    batches: Iterator[Samples],
    request: Request,
    state: Run,
    forward: Forward | None,
    progress: Callable[[int], object] | None,
) -> int:
    """Run the model on all batches, forward and backward one by one; the number of samples."""
    total = 0
    for batch in batches:
        state.samples, state.whole = batch.count, batch.whole
        state.alone = forward is None and not wants_gradient(batch.batch)
        outputs = _outputs(model, batch, forward)
        if request.backward:
            _differentiate(request, state, outputs, batch)
        total += batch.count
        if progress is not None:
            progress(total)
    return total


def _outputs(model: nn.Module, batch: Samples, forward: Forward | None) -> Any:
    """What the model gives; DataError, with the shapes, if it cannot take the batch."""
    try:
        return outputs_of(model, batch.batch, forward)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if forward is not None or isinstance(error, TenfoldError | torch.OutOfMemoryError):
            raise
        raise DataError(
            f"the model cannot take inputs {described(batch.inputs)}: {error}",
            "Give batches of inputs as the model takes them, or of (inputs, labels); two inputs without "
            "labels are ((a, b), None). For other batches give `forward`, called as forward(model, batch).",
        ) from error


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
