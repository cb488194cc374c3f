"""Calibration of tables: what is seen of one-hot vectors, held as counts; padding, bags, samples, pieces."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.compress.calibration.calibrate import collect, collected
from tenfold.compress.calibration.observers import observers
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.calibration.statistics import Statistics
from tenfold.compress.sites import find_sites
from tenfold.core.errors import DataError

ALL = frozenset(observers)
ROWS, WIDTH = 11, 4


def drawn(*shape: int, seed: int = 0, high: int = ROWS) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


class Text(nn.Module):
    """Rows of a table, bent, added up and classified; `again` looks the same rows up once more."""

    def __init__(self, padding: int | None = None, again: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(ROWS, WIDTH, padding_idx=padding)
        self.head, self.again = nn.Linear(WIDTH, 3), again
        with torch.no_grad():
            self.table.weight.add_(0.3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        rows = self.table(x)
        if self.again:
            rows = rows + self.table(x.flip(0) // 2)
        return self.head(rows.tanh().flatten(1, -2).sum(1) if rows.ndim > 2 else rows.tanh())


def seen(model: nn.Module, batches: Any, example: Any, want: Any = ALL, **options: Any) -> SiteStatistics:
    return everywhere(model, batches, example, want, **options)["table.weight"]


def everywhere(model: nn.Module, batches: Any, example: Any, want: Any = ALL, **options: Any) -> Statistics:
    return collect(model, batches, find_sites(model, example), want=want, **options)


def assert_same(a: SiteStatistics, b: SiteStatistics) -> None:
    assert (a.count, a.output_count, a.samples) == (b.count, b.output_count, b.samples)
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        torch.testing.assert_close(tensor, b.tensors()[name], rtol=1e-10, atol=1e-12, msg=name)


def per_sample(model: Text, x: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each sample alone: gradients by the rows that it looks up, and by the table."""
    for one, label in zip(x, labels, strict=True):
        kept: list[Tensor] = []
        handle = model.table.register_forward_hook(lambda m, a, y, kept=kept: kept.append(y))
        loss = F.cross_entropy(model(one[None]), label[None])
        handle.remove()
        *rows, table = torch.autograd.grad(loss, [*kept, model.table.weight])
        yield torch.cat(rows).reshape(-1, WIDTH), table


@pytest.mark.parametrize("shape", [(9, 5), (9, 2, 3), (9,)], ids=str)
@pytest.mark.parametrize("padding", [None, 2])
def test_statistics_are_those_of_one_hot_vectors(shape: tuple[int, ...], padding: int | None) -> None:
    model, x, labels = Text(padding), drawn(*shape), torch.arange(9) % 3
    found = seen(model, [(x, labels)], x)
    kept = (x != padding).flatten() if padding is not None else torch.ones(x.numel(), dtype=torch.bool)
    hot = F.one_hot(x.flatten()[kept], ROWS).double()
    rows = model.table(x.flatten()[kept]).detach()
    assert (found.count, found.output_count, found.samples) == (len(hot), len(hot), 9)
    torch.testing.assert_close(found.input_mean, hot.mean(0))
    torch.testing.assert_close(torch.diag(found.input_covariance), hot.T @ hot / len(hot))
    torch.testing.assert_close(found.input_absolute, hot.mean(0))
    assert found.patch_moment is found.input_covariance and found.patch_mean is found.input_mean
    torch.testing.assert_close(found.output_mean, rows.mean(0))
    torch.testing.assert_close(found.output_covariance, rows.T @ rows / len(rows))
    by_row, by_table = zip(*per_sample(model, x, labels), strict=True)
    g = torch.cat(by_row)[kept]
    squared = torch.stack(by_table).square().mean(0)
    torch.testing.assert_close(found.gradient_covariance, g.T @ g / 9)
    torch.testing.assert_close(found.fisher_rows, squared.sum(0))
    torch.testing.assert_close(found.fisher_columns, squared.sum(1))


def test_a_vocabulary_squared_is_never_held() -> None:
    """A matrix over these rows would take 80 GB."""
    model = nn.Sequential(nn.Embedding(100_000, 2))
    found = collect(model, [drawn(4, 7, high=100_000)], find_sites(model, drawn(1, 2)))["0.weight"]
    assert max(t.numel() for t in found.tensors().values()) == 100_000
    assert found.input_covariance is not None and float(found.input_covariance.sum()) == pytest.approx(1)


def test_all_calls_of_a_table_count() -> None:
    model, x, labels = Text(again=True), drawn(6, 5), torch.arange(6) % 3
    found = seen(model, [(x, labels)], x)
    both = torch.cat([x, x.flip(0) // 2]).flatten()
    torch.testing.assert_close(found.input_mean, F.one_hot(both, ROWS).double().mean(0))
    kept: list[Tensor] = []
    handle = model.table.register_forward_hook(lambda m, a, y: kept.append(y))
    loss = F.cross_entropy(model(x), labels, reduction="sum")
    handle.remove()
    g = torch.cat(torch.autograd.grad(loss, kept)).flatten(0, 1)
    torch.testing.assert_close(found.gradient_covariance, g.T @ g / 6)


@pytest.mark.parametrize("max_bytes", [1, 2**28])
def test_neither_batches_nor_pieces_change_the_statistics(max_bytes: int) -> None:
    model, x, labels = Text(padding=2), drawn(9, 5), torch.arange(9) % 3
    whole = seen(model, [(x, labels)], x)
    cut = seen(model, zip(x.split(4), labels.split(4), strict=True), x, max_bytes=max_bytes)
    assert_same(whole, cut)


def test_thinning_looks_at_all_indices_and_at_some_gradients() -> None:
    """As many of 4 000 as the rows of the moment take, and their scale is that of all."""
    model, x = Text(), drawn(40, 1).expand(40, 100)
    labels = torch.arange(40) % 3
    want = {"input_covariance", "gradient_covariance", "output_covariance"}
    whole, thin = (seen(model, [(x, labels)], x, want, positions=n) for n in (None, 1000))
    assert torch.equal(whole.input_covariance, thin.input_covariance)
    torch.testing.assert_close(whole.gradient_covariance, thin.gradient_covariance)
    torch.testing.assert_close(whole.output_covariance, thin.output_covariance)


# Bags ----------------------------------------------------------------------------------------------------


class Bagged(nn.Module):
    """A bag and a classifier; or, with `open`, an embedding of the same table and the pooling behind it."""

    def __init__(self, open: bool, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        bag = nn.EmbeddingBag(ROWS, WIDTH, **options)
        torch.nn.init.normal_(bag.weight)
        self.options, self.open = options, open
        padding = options.get("padding_idx")
        self.table = nn.Embedding(ROWS, WIDTH, padding, _weight=bag.weight.detach()) if open else bag
        self.head = nn.Linear(WIDTH, 3)
        self.double()

    def forward(self, x: Tensor, offsets: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        if not self.open:
            return self.head(self.table(x, offsets, per_sample_weights=weights).tanh())
        ends = range(0, x.numel() + 1, x.shape[-1]) if offsets is None else offsets.tolist()
        if offsets is not None and not self.options.get("include_last_offset"):
            ends = [*ends, len(x)]
        rows, kept = self.table(x.flatten()), (x.flatten() != self.options.get("padding_idx", -1)).double()
        rows = rows * (kept if weights is None else kept * weights.flatten())[:, None]
        sums = [rows[a:b].sum(0) for a, b in pairwise(ends)]
        counts = [kept[a:b].sum().clamp_min(1) for a, b in pairwise(ends)]
        if self.options.get("mode", "mean") == "mean":
            sums = [total / n for total, n in zip(sums, counts, strict=True)]
        return self.head(torch.stack(sums).tanh())


FLAT, STARTS = drawn(14), torch.tensor([0, 3, 3, 4, 9, 12])
WEIGHTS = torch.linspace(-1, 2, 14, dtype=torch.float64)
BAGS: dict[str, tuple[dict[str, Any], tuple[Tensor, ...]]] = {
    "means": ({}, (drawn(6, 5),)),
    "sums": ({"mode": "sum"}, (drawn(6, 5),)),
    "padded": ({"padding_idx": 2}, (drawn(6, 5),)),
    "ragged": ({}, (FLAT, STARTS)),
    "ragged and padded": ({"padding_idx": 3, "mode": "sum"}, (FLAT, STARTS)),
    "weights": ({"mode": "sum"}, (FLAT, STARTS, WEIGHTS)),
    "with the last end": ({"include_last_offset": True}, (FLAT, torch.tensor([0, 3, 3, 4, 9, 12, 14]))),
}


@pytest.mark.parametrize("name", BAGS)
def test_a_bag_is_seen_as_an_embedding_with_the_pooling_behind_it(name: str) -> None:
    options, inputs = BAGS[name]
    batch = (inputs, torch.arange(6) % 3)
    bag, rows = (
        seen(Bagged(opened, **options), [batch], inputs, ALL - {"fisher_rows"}, forward=lambda m, b: m(*b[0]))
        for opened in (False, True)
    )
    assert_same(bag, rows)


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize("padding", [None, 2])
def test_fisher_rows_of_bags_are_those_of_each_sample_alone(mode: str, padding: int | None) -> None:
    model, x, labels = Bagged(False, mode=mode, padding_idx=padding), drawn(6, 5), torch.arange(6) % 3
    found = seen(model, [(x, labels)], x, "fisher_rows")
    by_table = [
        torch.autograd.grad(F.cross_entropy(model(a[None]), b[None]), model.table.weight)[0]
        for a, b in zip(x, labels, strict=True)
    ]
    squared = torch.stack(by_table).square().mean(0)
    torch.testing.assert_close(found.fisher_rows, squared.sum(0))
    torch.testing.assert_close(found.fisher_columns, squared.sum(1))


def test_of_maxima_the_indices_are_known_and_the_gradients_are_refused_by_name() -> None:
    model, x = Bagged(False, mode="max"), drawn(6, 5)
    found = seen(model, [(x, torch.arange(6) % 3)], x)
    assert found.skipped.keys() == {"gradient_covariance", "fisher_rows"}
    torch.testing.assert_close(found.input_mean, F.one_hot(x.flatten(), ROWS).double().mean(0))
    with pytest.raises(DataError, match="bags in mode 'max' are not known"):
        found.the("gradient_covariance")


# Nothing to see ------------------------------------------------------------------------------------------


class Spare(nn.Module):
    """A table that is never called, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spare, self.table, self.head = nn.Embedding(5, 2), nn.Embedding(ROWS, 2, 0), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).sum(1))


def test_a_table_that_is_never_called_says_so() -> None:
    found = everywhere(Spare(), [drawn(6, 5)], drawn(6, 5))
    assert set(found["spare.weight"].skipped.values()) == {"its layer was never called"}
    assert found["table.weight"].count == int((drawn(6, 5) != 0).sum())


def test_padding_alone_and_empty_calls_are_no_positions() -> None:
    model, x = Spare(), drawn(6, 5)
    blank = torch.zeros(3, 5, dtype=torch.long)
    mixed = seen(model, [x, blank, drawn(4, 0)], x)
    alone = seen(model, [x], x, ALL - {"gradient_covariance", "fisher_rows"})
    assert (mixed.count, mixed.samples) == (alone.count, 13)
    torch.testing.assert_close(mixed.input_mean, alone.input_mean)
    nothing = everywhere(model, [blank], x)["table.weight"]
    assert nothing.count == 0 and nothing.input_mean is None
    assert set(nothing.skipped.values()) == {"its layer was given nothing but padding"}


def test_counts_take_no_samples_for_full_rank() -> None:
    found = seen(Text(), [drawn(3, 2)], drawn(3, 2), {"input_covariance", "patch_moment"})
    assert found.needed == 0


def test_half_precision_counts_are_exact() -> None:
    model = Text().to(torch.bfloat16)
    x = torch.zeros(3000, 1, dtype=torch.long)
    found = seen(model, [x, x + 1], x, {"input_covariance", "gradient_covariance"})
    assert found.input_covariance.dtype == torch.float32
    assert found.input_covariance[:3].tolist() == [0.5, 0.5, 0.0]


def test_the_cache_holds_what_is_seen_of_tables(tmp_path: Any) -> None:
    model, x = Text(padding=2), drawn(6, 5)
    options = {"cache": tmp_path / "seen", "want": ALL}
    fresh, known = (collected(model, [x], find_sites(model, x), **options) for _ in range(2))
    assert_same(fresh["table.weight"], known["table.weight"])
