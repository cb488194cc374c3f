"""Models with recurrent and attention modules are compressed weight by weight, like all others."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tenfold.checkpoint import load, save
from tenfold.compress import (
    InputCovariance,
    apply_,
    apply_fresh_,
    collect,
    compress,
    find_sites,
    plan,
    to_dense_,
)
from tenfold.compress.opening import close_, open_, opened
from tenfold.core.errors import UnsupportedError
from tenfold.nn import Composite, FactorizedLinear
from tenfold.ranks import Budget, Fixed

X = torch.randn(4, 6, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Tagger(nn.Module):
    """A small network with one module that has several weights, and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        if kind == "attention":
            self.body: nn.Module = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
        else:
            self.body = getattr(nn, kind)(16, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 3)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(x)
        return self.head(found[0] if isinstance(found, tuple) else found)


KINDS = ["RNN", "LSTM", "GRU", "attention"]
COUNT = {"RNN": 5, "LSTM": 5, "GRU": 5, "attention": 7}


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_a_site_and_the_model_is_left_alone(kind: str) -> None:
    model = Tagger(kind)
    names = [name for name, _ in model.named_modules()]
    sites = find_sites(model, X)
    assert len(sites) == COUNT[kind] and all(site.example is not None for site in sites)
    assert [name for name, _ in model.named_modules()] == names


@pytest.mark.parametrize("kind", KINDS)
def test_opened_computes_the_same_in_the_same_memory(kind: str) -> None:
    model = Tagger(kind).eval()
    twin = opened(model)
    torch.testing.assert_close(twin(X), model(X))
    assert {p.untyped_storage().data_ptr() for p in twin.parameters()} == {
        p.untyped_storage().data_ptr() for p in model.parameters()
    }


def test_a_model_without_such_modules_is_opened_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    assert opened(model) is model


@pytest.mark.parametrize("kind", KINDS)
def test_compress_factors_the_parts_that_the_plan_names(kind: str) -> None:
    model = Tagger(kind).eval()
    small = compress(model, Budget(params=0.5), example=X, preset="weight_svd").model
    parts = [name for name, part in small.named_modules() if isinstance(part, FactorizedLinear)]
    assert len(parts) > 2 and small(X).shape == model(X).shape
    assert any(isinstance(part, Composite) for part in small.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_a_lossless_plan_changes_nothing(kind: str) -> None:
    model = Tagger(kind).eval()
    small = compress(model, None, example=X, preset="weight_svd", rule=Fixed(16)).model
    torch.testing.assert_close(small(X), model(X))


@pytest.mark.parametrize("kind", KINDS)
def test_data_weigh_the_parts(kind: str) -> None:
    """Every part sees its own inputs: with all of them in a subspace, the weighted error is less."""
    model = Tagger(kind).eval()
    seen = collect(model, [X], find_sites(model, X), want=InputCovariance().needs)
    assert all(seen[site.name].count > 0 for site in find_sites(model, X))
    plain = compress(model, Budget(params=0.4), example=X, preset="weight_svd").model
    aware = compress(
        model, Budget(params=0.4), example=X, preset="weight_svd", metric=InputCovariance(), statistics=seen
    ).model
    assert torch.dist(aware(X), model(X)) < torch.dist(plain(X), model(X))


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_open_what_they_need(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = Tagger(kind).eval()
    found = compress(model, Budget(params=0.5), example=X, preset="weight_svd")
    save(found.model, tmp_path / "small", found.plan)
    again = load(lambda: Tagger(kind), tmp_path / "small")
    torch.testing.assert_close(again(X), found.model(X))


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_gives_torchs_own_modules(kind: str) -> None:
    model = Tagger(kind).eval()
    small = compress(model, Budget(params=0.5), example=X, preset="weight_svd").model.eval()
    before = small(X)
    to_dense_(small)
    assert not any(isinstance(part, Composite) for part in small.modules())
    assert {k: v.shape for k, v in small.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    torch.testing.assert_close(small(X), before)


def test_fresh_factors_have_the_deviation_of_the_parts() -> None:
    model = Tagger("LSTM")
    chosen = plan(model, Budget(params=0.5), example=X, preset="weight_svd")
    apply_fresh_(model, chosen)
    parts = [part for part in model.modules() if isinstance(part, FactorizedLinear)]
    stds = [float(part.weight.dense().detach().std()) for part in parts]
    assert stds and all(abs(std - 0.25 / 3**0.5) < 0.05 for std in stds if std)


def test_hooked_and_tied_modules_stay_closed() -> None:
    model = Tagger("LSTM")
    handle = model.body.register_forward_hook(lambda *_: None)
    assert opened(model) is model
    handle.remove()
    model.body.weight_ih_l1 = model.body.weight_ih_l0  # type: ignore[union-attr]
    other = nn.ModuleList([model, nn.Module()])
    other[1].twin = model.body.weight_hh_l0  # type: ignore[union-attr]
    assert opened(other) is other


def test_a_single_module_cannot_be_replaced_in_place() -> None:
    model = nn.LSTM(4, 4)
    with pytest.raises(UnsupportedError, match=r"Wrap it: nn\.Sequential"):
        open_(model)


def test_closing_what_was_opened_gives_the_same_state(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = Tagger("attention").eval()
    expected, state = model(X), {k: v.clone() for k, v in model.state_dict().items()}
    open_(model)
    close_(model)
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    found = load_file(tmp_path / "state.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
    torch.testing.assert_close(model(X), expected)


def test_apply_refuses_parts_that_are_not_there() -> None:
    model = Tagger("GRU")
    chosen = plan(model, Budget(params=0.5), example=X, preset="weight_svd")
    with pytest.raises(Exception, match="has not"):
        apply_(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), chosen)
