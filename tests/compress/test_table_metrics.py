"""Tables of embeddings in the metric of the data: exact for low rank, better than truncation on new data."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import Budget, Lagrangian, apply_, collect, compress, find_sites, plan
from tenfold.checkpoint import load, save
from tenfold.compress import DiagonalInput, Fisher, InputCovariance, KroneckerFisher, Metric
from tenfold.compress.calibration.site_statistics import SiteStatistics
from tenfold.compress.fit import fitted, squared_loss
from tenfold.compress.moments import Moments, firsts, moment_of_mode
from tenfold.compress.presets import METHODS
from tenfold.compress.roots import DiagonalRoot, fitted_in, mode_root
from tenfold.core.errors import ShapeError
from tenfold.core.layout import Layout
from tenfold.decompose import CPALS, HOOI, TTSVD, NetworkALS, TruncatedSVD, decompose_weighted, root_of
from tenfold.formats import formats
from tenfold.nn import FactorizedEmbedding, FactorizedEmbeddingBag, FactorizedLinear

V, D = 60, 12
PLAIN = Layout.parse("v o -> v o").bind((V, D))
TRAIN = Layout.parse("(v0=5 v1=4 v2=3) (o0=3 o1=2 o2=2) -> (v0 o0) (v1 o1) (v2 o2)").bind((V, D))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(n: int, seed: int) -> Tensor:
    x = normal(n, 2 * n, seed=seed)
    return x @ x.T / n


def zipf(count: int, seed: int, size: int = V, power: float = 1.2) -> Tensor:
    """Words by their frequency: the k-th is as frequent as 1 / k^power."""
    often = torch.arange(1, size + 1, dtype=torch.float64).pow(-power)
    return torch.multinomial(often, count, True, generator=torch.Generator().manual_seed(seed))


def frequencies(words: Tensor, size: int = V) -> Tensor:
    return torch.bincount(words, minlength=size).double() / len(words)


def table_of(words: Tensor, gradients: Tensor | None = None) -> SiteStatistics:
    often = frequencies(words)
    return SiteStatistics(
        len(words), patch_moment=often, patch_mean=often, input_covariance=often, input_mean=often,
        input_absolute=often, gradient_covariance=gradients,
        fisher_rows=None if gradients is None else gradients.diagonal(),
    )  # fmt: skip


# Moments -------------------------------------------------------------------------------------------------


def test_the_moment_of_a_whole_vocabulary_stays_a_vector() -> None:
    often, g = frequencies(zipf(500, 0)), spd(D, 1)
    found = [moment_of_mode(group, PLAIN, Moments(g, often), first) for first, group in firsts(PLAIN)]
    torch.testing.assert_close(found[0], often)
    torch.testing.assert_close(found[1], g)


def test_a_split_vocabulary_has_the_partial_traces_of_its_diagonal() -> None:
    """As those of the matrix; the first mode carries the scale, and outputs in parts count all the same."""
    often = frequencies(zipf(500, 0))
    digits = [often.reshape(5, 4, 3).sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    for moment in (often, torch.diag(often)):
        found = [moment_of_mode(group, TRAIN, Moments(None, moment), first) for first, group in firsts(TRAIN)]
        for got, digit, outputs in zip(found, digits, (3, 2, 2), strict=True):
            assert got is not None
            whole = got if got.ndim == 1 else got.diagonal()
            torch.testing.assert_close(whole, torch.kron(digit, torch.ones(outputs, dtype=digit.dtype)))
            assert got.ndim == moment.ndim


def test_frequencies_that_are_a_product_of_those_of_the_digits_are_recovered() -> None:
    parts = [torch.rand(n, generator=torch.Generator().manual_seed(n)).double() for n in (5, 4, 3)]
    often = torch.kron(torch.kron(parts[0], parts[1]), parts[2])
    found = [moment_of_mode(group, TRAIN, Moments(None, often), first) for first, group in firsts(TRAIN)]
    x = normal(V, D)
    scaled = TRAIN.to_modes(x)
    for k, m in enumerate(found):
        assert m is not None
        scaled = scaled * m.sqrt().reshape(-1, *[1] * (2 - k))
    torch.testing.assert_close(scaled.square().sum(), (often[:, None] * x.square()).sum())


# Roots ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "method", [TruncatedSVD(), HOOI(), CPALS(max_steps=30), TTSVD()], ids=lambda m: type(m).__name__
)
def test_a_diagonal_root_fits_as_the_matrix_does(method: Any, side: int, damping: float) -> None:
    x, often = normal(20, 9), torch.rand(20, generator=torch.Generator().manual_seed(1)).double() + 0.1
    x = x if side == 0 else x.T
    g = spd(9, 2)
    pairs = (mode_root(often, damping), root_of(torch.diag(often), damping)), (root_of(g, damping),) * 2
    narrow, wide = ([a, b] if side == 0 else [b, a] for a, b in zip(*pairs, strict=True))
    fit, whole = fitted_in(method, x, 3, narrow, 0), decompose_weighted(method, x, 3, wide, generator=0)
    assert fit.error == pytest.approx(whole.error, rel=1e-6)
    torch.testing.assert_close(fit.value.dense(), whole.value.dense(), rtol=1e-5, atol=1e-6)


def test_rows_that_were_never_seen_are_as_good_as_the_rank_allows() -> None:
    """Without damping too: what they are projected on is what the others chose."""
    x, often = normal(V, D), frequencies(zipf(40, 0))
    assert (often == 0).sum() > 10
    for damping in (0.0, 1e-4):
        value = fitted_in(TruncatedSVD(), x, 5, [mode_root(often, damping), None]).value
        basis = torch.linalg.qr(value.right.T)[0]
        torch.testing.assert_close(value.dense(), x @ basis @ basis.T)


def test_a_table_that_was_never_asked_for_counts_all_rows_the_same() -> None:
    root = mode_root(torch.zeros(4), 0.5)
    assert isinstance(root, DiagonalRoot) and root.moment.tolist() == [1.5] * 4


# Exactness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_the_predicted_loss_is_the_squared_error_of_the_rows_that_are_looked_up(rank: int) -> None:
    words, x = zipf(300, 3), normal(V, D)
    site, metric = table_of(words), InputCovariance(damping=0.0)
    fit = fitted(TruncatedSVD(), x, PLAIN, rank, metric, site)
    predicted = squared_loss(fit.value, x, PLAIN, metric, site)
    lost = (fit.value.dense() - x)[words].square().sum(1).mean()
    torch.testing.assert_close(lost, torch.tensor(predicted, dtype=torch.float64))
    tail = torch.linalg.svdvals(frequencies(words).sqrt()[:, None] * x)[rank:].square().sum()
    torch.testing.assert_close(lost, tail)
    assert fit.error == pytest.approx(math.sqrt(predicted / x[words].square().sum(1).mean()))


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_in_both_metrics_at_once_low_rank_is_the_optimum(rank: int) -> None:
    """Σ σ² over the discarded singular values of D^½ W G^½."""
    words, x, g = zipf(300, 3), normal(V, D), spd(D, 4)
    site, metric = table_of(words, g), KroneckerFisher(damping=0.0)
    value = fitted(TruncatedSVD(), x, PLAIN, rank, metric, site).value
    both = frequencies(words).sqrt()[:, None] * x @ torch.linalg.cholesky(g)
    tail = torch.linalg.svdvals(both)[rank:].square().sum()
    assert squared_loss(value, x, PLAIN, metric, site) == pytest.approx(float(tail))


@pytest.mark.parametrize("kept", [0.3, 0.6])
def test_the_loss_that_a_plan_predicts_is_that_of_the_compressed_model(kept: float) -> None:
    torch.manual_seed(0)
    net, words = nn.Sequential(nn.Embedding(V, D)).double(), zipf(400, 5).reshape(20, 20)
    metric = InputCovariance(damping=0.0)
    done = compress(net, Budget(params=kept), example=words, preset="weight_svd", metric=metric, data=[words])
    rank = done.model[0].weight.ranks["R"]
    tail = torch.linalg.svdvals(frequencies(words.flatten()).sqrt()[:, None] * net[0].weight.detach())[rank:]
    lost = (done.model(words) - net(words)).square().sum(-1).mean()
    torch.testing.assert_close(lost, tail.square().sum())


def test_kfac_predicts_the_rise_of_a_squared_error() -> None:
    """½ E‖Δy‖² of a sample of 6 positions, by gradients drawn from its Gaussian."""
    torch.manual_seed(0)
    net, words = nn.Sequential(nn.Embedding(V, D)).double(), zipf(6 * 4000, 1).reshape(4000, 6)
    site = collect(net, [words], find_sites(net, words), want=KroneckerFisher.needs, loss="gaussian")
    weight = net[0].weight.detach()
    value = fitted(TruncatedSVD(), weight, PLAIN, 4).value
    true = (value.dense() - weight)[words].square().sum((1, 2)).mean() / 2
    predicted = squared_loss(value, weight, PLAIN, KroneckerFisher(damping=0.0), site["0.weight"]) / 2
    assert predicted == pytest.approx(float(true), rel=0.05)


# Gains ---------------------------------------------------------------------------------------------------

SERVED = {
    "lowrank": PLAIN,
    "tucker": Layout.parse("(v0=12 v1=5) o -> v0 v1 o").bind((V, D)),
    "cp": Layout.parse("(v0=12 v1=5) o -> v0 v1 o").bind((V, D)),
    "tt": TRAIN,
}


@pytest.mark.parametrize("kind", SERVED)
def test_frequencies_gain_on_other_data_at_equal_ranks(kind: str) -> None:
    """Words of another sample of the same law, some of which were never seen."""
    layout, x = SERVED[kind], normal(V, D, seed=7)
    site, other = table_of(zipf(2000, 1)), zipf(2000, 2)
    ranks = formats[kind].ranks_within(layout.mode_shape, V * D // 3)
    losses = []
    for metric in (None, InputCovariance()):
        value = fitted(METHODS[kind], x, layout, ranks, metric, site).value
        lost = layout.to_weight(value.dense()) - x
        losses.append(float(lost[other].square().sum() / x[other].square().sum()))
    assert losses[1] < 0.8 * losses[0]


def test_refinement_lowers_the_loss_of_a_split_vocabulary() -> None:
    x, site, losses = normal(V, D, seed=7), table_of(zipf(2000, 1), spd(D, 4)), []
    for steps in (0, 40):
        metric = KroneckerFisher(refine=steps)
        value = fitted(TTSVD(), x, TRAIN, (6, 6), metric, site).value
        losses.append(squared_loss(value, x, TRAIN, metric, site))
    assert losses[1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", list(formats))
@pytest.mark.parametrize("metric", [InputCovariance(), DiagonalInput(), Fisher(), KroneckerFisher()], ids=str)
def test_every_metric_weighs_a_table_of_every_format(kind: str, metric: Metric) -> None:
    text = {"lowrank": "v o -> v o", "kronecker": "(v0=12 v1=5) (o0=4 o1=3) -> v0 o0 v1 o1"}
    layout = Layout.parse(text.get(kind, "(v0=12 v1=5) o -> v0 v1 o")).bind((V, D))
    method = METHODS.get(kind) or NetworkALS(kind=kind, max_steps=20)
    x, site = normal(V, D), table_of(zipf(30, 1), spd(D, 2))
    ranks = formats[kind].ranks_within(layout.mode_shape, V * D // 2)
    fit = fitted(method, x, layout, ranks, metric, site)
    lost = (layout.to_weight(fit.value.dense()) - x).norm() / x.norm()
    assert 0 < fit.error < 1 and float(lost) < 2  # what was never seen does not blow up


# Models --------------------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """Tokens, places, tags of the whole text, a layer of attention, and a head."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.places = nn.Embedding(V, 16, padding_idx=0), nn.Embedding(8, 16)
        self.tags = nn.EmbeddingBag(V, 16)
        self.body = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, V, bias=False)
        if tied:
            self.head.weight = self.tokens.weight
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        rows = self.tokens(x) + self.places(torch.arange(x.shape[1])) + self.tags(x).unsqueeze(1)
        return self.head(self.body(rows))


TEXT = zipf(64 * 8, 1).reshape(64, 8)


@pytest.mark.parametrize("metric", [InputCovariance(), KroneckerFisher()], ids=str)
@pytest.mark.parametrize("preset", ["weight_svd", "auto", ("weight_svd", "tt_matrix")], ids=str)
def test_a_transformer_is_compressed_with_its_tables(metric: Metric, preset: Any, tmp_path: Any) -> None:
    net = Transformer()
    select = {"places": None}
    done = compress(
        net, Budget(params=0.5), example=TEXT[:2], preset=preset, metric=metric, data=TEXT.split(16),
        rule=Lagrangian(), select=select,
    )  # fmt: skip
    assert {"tokens", "tags"} <= set(done.plan.layers)
    assert isinstance(done.model.tokens, FactorizedEmbedding)
    assert isinstance(done.model.tags, FactorizedEmbeddingBag) and isinstance(done.model.places, nn.Embedding)
    assert not done.plan.layers["tokens"]["weight"].metric.centred
    assert all(0 < fit.error < 1.5 for fit in done.fits)
    assert not done.model.tokens(torch.tensor([0])).any()
    save(done.model, tmp_path / "small", done.plan)
    torch.testing.assert_close(load(Transformer, tmp_path / "small")(TEXT), done.model(TEXT))


@pytest.mark.parametrize("preset", ["weight_svd", "tt_matrix"])
def test_tables_in_the_metric_keep_a_transformer_nearer_on_other_text(
    preset: str,
) -> None:
    net, other, lost = Transformer(), zipf(64 * 8, 2).reshape(64, 8), []
    select = {"re:body.*|head|places": None}
    for metric in (None, InputCovariance(), KroneckerFisher()):
        small = compress(
            net, Budget(params=0.5), example=TEXT, preset=preset, metric=metric, data=[TEXT], select=select
        ).model
        with torch.no_grad():
            lost.append(float((small(other) - net(other)).norm()))
    assert max(lost[1:]) < 0.9 * lost[0]


def test_global_ranks_give_a_table_that_is_seldom_read_less() -> None:
    """Two equal tables, of which one is asked for few different words only."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.many, self.few = nn.Embedding(V, D), nn.Embedding(V, D)
            self.few.weight.data.copy_(self.many.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.many(x) + self.few(x % 3)

    net, words = Two(), torch.arange(V).reshape(6, 10)
    found = compress(
        net, Budget(params=0.5, floor=0), example=words, preset="weight_svd",
        metric=InputCovariance(damping=0.0), data=[words], rule=Lagrangian(),
    ).plan.layers  # fmt: skip
    assert found["few"]["weight"].ranks["R"] <= 3 < found["many"]["weight"].ranks["R"]


def test_a_table_before_a_batch_norm_is_not_taken_about_the_mean() -> None:
    """No bias takes the shift of all rows up; compression corrects none."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(V, D), nn.BatchNorm1d(D), nn.Linear(D, D)).eval()
    words = zipf(400, 1)
    metric = InputCovariance()
    done = compress(net, Budget(params=0.6), example=words, preset="weight_svd", metric=metric, data=[words])
    assert (
        not done.plan.layers["0"]["weight"].metric.centred and done.plan.layers["2"]["weight"].metric.centred
    )
    explicit = InputCovariance(centred=True)
    site = table_of(words)
    torch.testing.assert_close(explicit.moments(site).inputs, frequencies(words))


def test_a_tied_head_stays_dense_with_its_table_and_says_why() -> None:
    net = Transformer(tied=True)
    done = compress(
        net, Budget(params=0.6), example=TEXT[:2], preset="weight_svd", metric=InputCovariance(), data=[TEXT]
    )
    assert (
        done.plan.dense["tokens.weight"] == "its weight is also 'head.weight', which uses it in another way"
    )
    assert done.model.head.weight is done.model.tokens.weight


def test_a_bag_of_maxima_is_weighed_by_its_indices_and_dense_where_gradients_count() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.EmbeddingBag(V, D, mode="max"), nn.Linear(D, 30))
    found = {
        type(metric).__name__: compress(
            net, Budget(params=0.6), example=TEXT[:2], preset="weight_svd", metric=metric, data=[TEXT]
        ).plan
        for metric in (InputCovariance(), KroneckerFisher())
    }
    assert "0" in found["InputCovariance"].layers
    assert "mode 'max' are not known" in found["KroneckerFisher"].dense["0.weight"]


def test_correction_passes_tables_by() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(V, D), nn.Linear(D, 30), nn.ReLU(), nn.Linear(30, 5))
    metric = InputCovariance()
    options: dict[str, Any] = {"example": TEXT[:2], "preset": "weight_svd", "metric": metric, "data": [TEXT]}
    plain, better = (compress(net, Budget(params=0.5), **options, correct=c).model for c in (False, True))
    assert isinstance(better[0], FactorizedEmbedding) and isinstance(better[1], FactorizedLinear)
    torch.testing.assert_close(better[0](TEXT), plain[0](TEXT))
    y = net(TEXT)
    assert (better(TEXT) - y).norm() < (plain(TEXT) - y).norm()


def test_statistics_of_another_vocabulary_are_refused() -> None:
    small, large = (nn.Sequential(nn.Embedding(n, D)) for n in (40, V))
    words = torch.arange(40).reshape(4, 10)
    statistics = collect(small, [words], find_sites(small, words), want=InputCovariance.needs)
    with pytest.raises(ShapeError, match="but its weight has"):
        plan(
            large, Budget(params=0.5), example=words, preset="weight_svd", metric=InputCovariance(),
            statistics=statistics,
        )  # fmt: skip


def test_a_plan_in_a_metric_is_carried_out_as_it_stands() -> None:
    net = Transformer()
    statistics = collect(net, [TEXT], find_sites(net, TEXT), want=KroneckerFisher.needs)
    chosen = plan(
        net, Budget(params=0.5), example=TEXT, preset="tt_matrix", metric=KroneckerFisher(),
        statistics=statistics, select={"tokens": "weight_svd"},
    )  # fmt: skip
    fits = {fit.name: fit for fit in apply_(copy.deepcopy(net), chosen, statistics=statistics)}
    assert {"tokens.weight", "tags.weight"} <= fits.keys()
