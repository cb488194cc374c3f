"""Tables of embeddings are sites as other weights are."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold.checkpoint import load, save
from tenfold.compress import compress, find_sites, plan
from tenfold.compress.cost import dense_flops
from tenfold.compress.densify import to_dense_
from tenfold.compress.latency import LatencyTable
from tenfold.compress.metric import metrics
from tenfold.core.errors import UnsupportedError
from tenfold.export import fold, to_native
from tenfold.nn import FactorizedEmbedding, FactorizedEmbeddingBag, FactorizedLinear
from tenfold.ranks import Budget


class Model(nn.Module):
    """Tokens and bags of tags, and a head."""

    def __init__(self, tags: dict[str, Any] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(120, 24, padding_idx=1)
        self.tags = nn.EmbeddingBag(60, 24, **(tags or {}))
        self.head = nn.Linear(24, 48)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(x).mean(1) + self.tags(x % 60))


X = torch.arange(24).reshape(4, 6)


def test_tables_are_found_and_compressed() -> None:
    model = Model()
    sites = {s.name: (s.kind, s.example) for s in find_sites(model, X)}
    assert sites["tokens.weight"] == ("Embedding", (4, 6)) and sites["tags.weight"] == (
        "EmbeddingBag",
        (4, 6),
    )
    for preset in ("weight_svd", "tt_matrix"):
        small = compress(model, Budget(params=0.5), example=X, preset=preset).model
        assert isinstance(small.tokens, FactorizedEmbedding) and isinstance(
            small.tags, FactorizedEmbeddingBag
        )
        assert small(X).shape == (4, 48) and small.tokens.padding_idx == 1
        assert not small.tokens(torch.tensor([1])).any()
        for copy in (fold(small), to_native(small)):
            torch.testing.assert_close(copy(X), small(X), atol=1e-5, rtol=1e-4)


def test_compressed_tables_are_saved_and_loaded(tmp_path: Any) -> None:
    model = Model()
    with torch.no_grad():
        model.tokens.weight[1] = 7.0  # a padding row that is not zero, as some published models have
    compressed = compress(model, Budget(params=0.5), example=X, preset="weight_svd")
    save(compressed.model, tmp_path / "small", compressed.plan)
    loaded = load(Model, tmp_path / "small")
    torch.testing.assert_close(loaded(X), compressed.model(X))
    torch.testing.assert_close(loaded.tokens(torch.tensor([1])), torch.full((1, 24), 7.0))


def test_the_way_back_keeps_all_settings() -> None:
    model = Model({"mode": "sum", "padding_idx": 3})
    small = compress(model, Budget(params=0.5), example=X, preset="weight_svd").model
    before = small(X)
    to_dense_(small)
    assert [repr(small.tokens), repr(small.tags)] == [repr(model.tokens), repr(model.tags)]
    torch.testing.assert_close(small(X), before)


def test_looking_rows_up_takes_no_arithmetic_so_that_tables_stay_dense_for_a_budget_in_flops() -> None:
    model = Model()
    assert dense_flops(model.tokens, (4, 6)) == 0
    chosen = plan(model, Budget(flops=0.5), example=X, preset="weight_svd")
    assert set(chosen.layers) == {"head"}


def test_tables_are_timed_with_indices() -> None:
    seen = []

    def clock(models: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
        seen.append(x)
        return {
            name: model(x).numel() and 0.5 if name.startswith("{") else 1.0 for name, model in models.items()
        }

    chosen = plan(
        Model(), Budget(latency=0.6), example=X, preset="weight_svd", latencies=LatencyTable(clock=clock)
    )
    assert {"tokens", "tags"} <= set(chosen.layers)
    assert sum(not x.is_floating_point() for x in seen) == 2


@pytest.mark.parametrize("name", list(metrics))
def test_tables_are_compressed_under_every_metric(name: str) -> None:
    metric = metrics[name]()
    done = compress(Model(), Budget(params=0.5), example=X, preset="weight_svd", metric=metric, data=[X])
    assert {"tokens", "tags"} <= set(done.plan.layers)
    assert not done.model.tokens(torch.tensor([1])).any()


def test_a_table_with_sparse_gradients_is_not_split() -> None:
    model = Model({"sparse": True, "mode": "sum"})
    with pytest.raises(UnsupportedError, match="sparse=True cannot be served"):
        plan(model, Budget(params=0.5), example=X, select={"tags": "tt_matrix"}, preset=None)
    chosen = plan(model, Budget(params=0.5), example=X, preset="tt_matrix")
    assert "sparse=True" in chosen.dense["tags.weight"] and set(chosen.layers) == {"tokens", "head"}
    small = compress(model, Budget(params=0.5), example=X, select={"tags": "weight_svd"}, preset=None).model
    assert small.tags.sparse and not isinstance(small.head, FactorizedLinear)
