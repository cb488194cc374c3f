"""Batches that are run in pieces: all that is found is what the whole batch gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress import KroneckerFisher, compress
from tenfold.compress.calibration.calibrate import collect, collected
from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.calibration.sums import Sums
from tenfold.compress.calibration.thinning import Thinning
from tenfold.compress.sites import find_sites
from tenfold.core.errors import DataError, OptionError
from tenfold.ranks import Budget

ALL = frozenset(observers)
COUNT = 7
LABELS = torch.arange(COUNT) % 3
SIZES = [1, 3, COUNT - 1, COUNT, 100]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Pair(nn.Module):
    """Two inputs, by place or by name, and a number that scales them."""

    def __init__(self) -> None:
        super().__init__()
        self.meet, self.head = nn.Bilinear(4, 3, 5), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor, scale: Any = 1.0) -> Tensor:
        return self.head(torch.tanh(self.meet(a, b) * scale))


def image_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(6, 4, 2),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


def token_model() -> nn.Module:
    """Logits of shape (N, 3) from indices (N, tokens)."""
    return nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(30, 3))


TOKENS = torch.randint(11, (COUNT, 6), generator=torch.Generator().manual_seed(0))
A, B = normal(COUNT, 4), normal(COUNT, 3, seed=1)
CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "images": (image_model, normal(COUNT, 2, 7, 6)),
    "images, channels last": (
        image_model,
        normal(COUNT, 2, 7, 6).contiguous(memory_format=torch.channels_last),
    ),
    "tokens": (token_model, TOKENS),
    "tuple": (Pair, (A, B)),
    "mapping": (Pair, {"a": A, "b": B, "scale": 0.5}),
    "mapping with a tensor without axes": (Pair, {"a": A, "b": B, "scale": torch.tensor(0.5)}),
}


def made(case: str) -> tuple[nn.Module, Any]:
    """The model of a case, and its inputs."""
    torch.manual_seed(0)
    make, inputs = CASES[case]
    return make().double(), inputs


def gather(model: nn.Module, batches: Any, example: Any, want: Any = ALL, **options: Any) -> Statistics:
    return collect(model, batches, find_sites(model, example), want=want, **options)


def assert_same(found: SiteStatistics, expected: SiteStatistics, rtol: float = 1e-10) -> None:
    assert found.count == expected.count and found.output_count == expected.output_count
    assert found.samples == expected.samples and found.skipped == expected.skipped
    assert found.tensors().keys() == expected.tensors().keys()
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(found.tensors()[name], tensor, rtol=rtol, atol=1e-13, msg=name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_pieces_give_every_statistic_of_the_whole_batch(case: str, size: int) -> None:
    model, inputs = made(case)
    whole = gather(model, [(inputs, LABELS)], inputs)
    cut = gather(model, [(inputs, LABELS)], inputs, microbatch=size)
    assert len(whole) > 1 and cut.samples == COUNT
    for site, seen in whole.items():
        assert seen.tensors()
        assert_same(cut[site], seen)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("want", sorted(ALL))
def test_pieces_give_each_statistic_wanted_alone(want: str, size: int) -> None:
    model, inputs = made("images")
    whole, cut = (gather(model, [(inputs, LABELS)], inputs, want, microbatch=n) for n in (None, size))
    for site, seen in whole.items():
        assert_same(cut[site], seen)


def own(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="sum", label_smoothing=0.1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "loss",
    [None, "labels", "sampled", "gaussian", own],
    ids=["default", "labels", "sampled", "gaussian", "own"],
)
@pytest.mark.parametrize("case", ["images", "tokens"])
def test_every_loss_has_the_gradients_of_the_whole_batch(case: str, loss: Any, size: int) -> None:
    """Labels that are drawn are the same too, in the second batch as well."""
    model, inputs = made(case)
    batches = [(inputs, LABELS), (inputs.flip(0), LABELS)]
    want = {"gradient_covariance", "fisher_rows"}
    whole, cut = (gather(model, batches, inputs, want, loss=loss, microbatch=n) for n in (None, size))
    for site, seen in whole.items():
        assert_same(cut[site], seen)


def wide_outputs(model: nn.Module, x: Tensor) -> Tensor:
    """More numbers a sample than a generator draws at once: (N, tokens, 3 · 40)."""
    return model(x).repeat(1, 1, 40)


@pytest.mark.parametrize("loss", ["sampled", "gaussian"])
def test_what_is_drawn_for_outputs_of_many_numbers_does_not_depend_on_pieces(loss: str) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3)).double(), normal(COUNT, 5, 4)
    whole, cut = (
        gather(model, [x], x, {"gradient_covariance"}, loss=loss, forward=wide_outputs, microbatch=n)
        for n in (None, 3)
    )
    assert_same(cut["0.weight"], whole["0.weight"])


def test_inputs_alone_are_cut_too() -> None:
    model, inputs = made("tuple")
    whole, cut = (gather(model, [(inputs, None)], inputs, microbatch=n) for n in (None, 2))
    for site, seen in whole.items():
        assert_same(cut[site], seen)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_samples_limit_the_pieces_as_they_limit_batches(size: int) -> None:
    model, inputs = made("images")
    batches = [(inputs, LABELS)] * 3
    progress: list[int] = []
    whole = gather(model, batches, inputs, samples=10)
    cut = gather(model, batches, inputs, samples=10, microbatch=size, progress=progress.append)
    assert progress[-1] == cut.samples == 10 and progress == sorted(progress)
    for site, seen in whole.items():
        assert_same(cut[site], seen)


def test_a_forward_of_ones_own_gets_pieces_and_no_more_is_run_at_once() -> None:
    model, inputs = made("images")
    seen: list[tuple[int, int]] = []

    def forward(model: nn.Module, batch: Any) -> Tensor:
        seen.append((len(batch["x"]), len(batch["y"])))
        return model(batch["x"]) * batch["scale"]

    batch = {"x": inputs, "y": LABELS, "scale": 2.0, "note": "a text", "none": None, "pair": (3, 4)}
    whole, cut = (
        gather(model, [batch], inputs, forward=forward, loss="gaussian", microbatch=n) for n in (None, 3)
    )
    assert seen == [(COUNT, COUNT), (3, 3), (3, 3), (1, 1)]
    for site, found in whole.items():
        assert_same(cut[site], found)


@pytest.mark.parametrize(("whole", "part"), [(64, 8), (60, 6), (32, 1)])
@pytest.mark.parametrize("sides", [(56, 56), (7, 5), (512,)])
@pytest.mark.parametrize("rows", [3, 64, 2000])
def test_pieces_look_at_as_many_positions_as_the_batch(
    whole: int, part: int, sides: tuple[int, ...], rows: int
) -> None:
    """On the same grid, whose start alone differs."""
    together, apart = Thinning(8192), Thinning(8192, parts=whole / part)
    steps = [
        [s.step for s in thinning.slices(sides, samples, rows)]
        for thinning, samples in ((together, whole), (apart, part))
    ]
    assert steps[0] == steps[1]


def test_tokens_are_thinned_as_in_the_whole_batch() -> None:
    """Where all positions are alike thinning changes nothing, if each stands for as many as it should."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, labels = normal(1, 1, 3).expand(6, 200, 3), torch.zeros(6, 200, dtype=torch.long)
    whole = gather(model, [(x, labels)], x[:1])
    thin = gather(model, [(x, labels)], x[:1], positions=100, microbatch=2)
    for name in ("input_covariance", "output_covariance", "gradient_covariance"):
        torch.testing.assert_close(thin["0.weight"].the(name), whole["0.weight"].the(name))


def test_thinned_pieces_are_near_the_whole_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 30 * 30, 3)).double()
    x, labels = normal(32, 2, 32, 32), torch.arange(32) % 3
    whole = gather(model, [(x, labels)], x[:1], positions=None)["0.weight"].tensors()
    thin = gather(model, [(x, labels)], x[:1], positions=4096, microbatch=5)["0.weight"].tensors()
    for name in ("input_covariance", "patch_moment", "output_covariance", "gradient_covariance"):
        assert 0 < float((whole[name] - thin[name]).norm()) < 0.1 * float(whole[name].norm()), name


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_below_one_are_refused(size: int) -> None:
    model, inputs = made("images")
    with pytest.raises(OptionError, match=f"microbatch came as {size}.\n *Give 1 or more, or None"):
        gather(model, [(inputs, LABELS)], inputs, microbatch=size)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (torch.ones(1, 4), r"a batch of 7 samples holds a tensor \(1, 4\) float32, which cannot be cut"),
        ({"mask": [torch.ones(4, 4)]}, r"a batch of 7 samples holds a tensor \(4, 4\) float32"),
        (list("abcdefg"), "a batch holds its 7 samples in a list, which is not cut"),
        ({"ids": tuple(range(7))}, "a batch holds its 7 samples in a tuple, which is not cut"),
        (normal(7).numpy(), "a batch holds its 7 samples in a ndarray, which is not cut"),
    ],
    ids=["one row", "a square mask", "strings", "numbers", "numpy"],
)
def test_batches_that_cannot_be_cut_are_refused(extra: Any, message: str) -> None:
    """But run where no cut is needed."""
    model, inputs = made("images")
    batch, asked = {"x": inputs, "extra": extra}, {"input_covariance"}

    def forward(model: nn.Module, batch: Any) -> Tensor:
        return model(batch["x"])

    with pytest.raises(DataError, match=message):
        gather(model, [batch], inputs, asked, forward=forward, microbatch=2)
    assert gather(model, [batch], inputs, asked, forward=forward, microbatch=COUNT).samples == COUNT


def test_a_refusal_leaves_the_model_as_it_was() -> None:
    model, inputs = made("images")
    with pytest.raises(DataError, match="cannot be cut"):
        gather(model, [(inputs, LABELS[:5])], inputs, microbatch=2)
    assert all(p.requires_grad for p in model.parameters()) and model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_a_cache_serves_whatever_the_pieces(tmp_path: Path) -> None:
    model, inputs = made("images")
    sites, reads = find_sites(model, inputs), list[int]()
    for size in (2, None):
        collected(
            model, [(inputs, LABELS)], sites, cache=tmp_path / "seen", microbatch=size, progress=reads.append
        )
    assert reads == [2, 4, 6, 7]


def test_a_network_is_compressed_alike() -> None:
    model, inputs = made("images")
    whole, cut = (
        compress(
            model, Budget(params=0.7), example=inputs, preset="auto", metric=KroneckerFisher(),
            data=[(inputs, LABELS)], microbatch=size,
        )
        for size in (None, 2)
    )  # fmt: skip
    assert cut.fits and cut.plan.layers == whole.plan.layers
    torch.testing.assert_close(cut.model.eval()(inputs), whole.model.eval()(inputs))


def test_means_take_the_place_of_the_sums() -> None:
    sums = Sums()
    sums.add("x", torch.ones(2))
    sums.add_gram("xx", torch.ones(2, 3))
    assert sums.mean_(2)["xx"].tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert not sums.all()
