"""Sites, presets, selection, plans, and carrying them out."""

import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from tenfold import Budget, Energy, Fixed, Plan, apply_, compress, find_sites, plan
from tenfold.compress import Selection, presets
from tenfold.core.errors import (
    BudgetError,
    CheckpointError,
    SelectionError,
    TenfoldError,
    UnknownNameError,
    UnsupportedError,
    WeightError,
)
from tenfold.decompose import CPALS, STHOSVD
from tenfold.nn import FactorizedConv, FactorizedLayer, FactorizedLinear


class Net(nn.Module):
    """Convolutions of several kinds, a linear head, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1, groups=2, bias=False)
        )
        self.point = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 10)
        self.unused = nn.Linear(40, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.point(self.body(self.stem(x))).mean((2, 3)))


X = torch.randn(2, 3, 12, 12)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def test_sites_are_found_with_shapes_and_inputs(net: nn.Module) -> None:
    sites = {s.name: s for s in find_sites(net, X)}
    assert list(sites) == ["stem.weight", "body.2.weight", "point.weight", "head.weight", "unused.weight"]
    assert sites["body.2.weight"].example == (2, 16, 12, 12)
    assert sites["unused.weight"].example is None


def test_finding_sites_leaves_the_model_as_it_was(net: nn.Module) -> None:
    net.train()
    before = deepcopy(net.state_dict())
    find_sites(net, X)
    assert net.training
    assert all(not m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("name", list(presets))
def test_every_preset_compresses_what_it_serves(net: nn.Module, name: str) -> None:
    small, chosen, fits = compress(net, Budget(params=0.5), example=X, preset=name)
    assert fits
    for module, layers in chosen.layers.items():
        layer = small.get_submodule(module)
        assert isinstance(layer, FactorizedLayer)
        assert layer.weight.ranks == layers["weight"].ranks
        weight = net.get_submodule(module).weight
        error = (layer.weight.dense() - weight).norm() / weight.norm()
        fit = next(f for f in fits if f.name == f"{module}.weight")
        assert fit.error == pytest.approx(error.item(), abs=1e-4)
        assert fit.stored == layer.weight.numel() < weight.numel()
    assert small(X).shape == (2, 10)
    assert not any(isinstance(m, FactorizedLayer) for m in net.modules())


def test_errors_are_those_of_the_weights_behind_the_correction(net: nn.Module) -> None:
    data = [torch.randn(16, 3, 12, 12)]
    small, _, fits = compress(
        net, Budget(params=0.3), example=X, preset="channel_svd", data=data, correct=True
    )
    assert len(fits) > 1
    for fit in fits:
        name = fit.name.removesuffix(".weight")
        weight = net.get_parameter(fit.name).detach()
        change = small.get_submodule(name).weight.dense().detach() - weight
        assert fit.error == pytest.approx(float(change.norm() / weight.norm()), rel=1e-4)


def test_full_ranks_reproduce_the_model(net: nn.Module) -> None:
    everything = Fixed(10_000)
    small, chosen, _ = compress(net, None, example=X, preset="tucker2", rule=everything)
    assert not chosen.layers  # full ranks never pay: everything stays dense
    torch.testing.assert_close(small(X), net(X))


def test_compressed_layers_keep_bias_mode_and_training_flags(net: nn.Module) -> None:
    net.stem.weight.requires_grad_(False)
    net.stem.bias.requires_grad_(False)
    small = compress(net, Budget(params=0.5), example=X, preset="tucker2").model
    assert isinstance(small.stem, FactorizedConv)
    assert not small.stem.weight.requires_grad and not small.stem.bias.requires_grad
    assert small.stem.bias.data_ptr() != net.stem.bias.data_ptr()
    assert not small.stem.training


def test_selection_prefers_names_to_patterns_to_types_to_the_default(net: nn.Module) -> None:
    select: Selection = {
        "Conv2d": None,
        "re:(stem|point)": "channel_svd",
        "point": "weight_svd",
        "Linear": None,
    }
    chosen = plan(net, Budget(params=0.4), example=X, preset="tucker2", select=select)
    layouts = {m: layers["weight"].layout for m, layers in chosen.layers.items()}
    assert layouts == {"stem": "o i h w -> o (i h w)", "point": "o i h w -> (o h w) i"}
    assert set(chosen.dense) == {"body.2.weight", "head.weight", "unused.weight"}


def test_a_pattern_that_matches_nothing_is_an_error(net: nn.Module) -> None:
    with pytest.raises(SelectionError, match="'steam' matches no site") as caught:
        plan(net, Budget(params=0.5), example=X, select={"steam": "cp3"})
    assert "Did you mean 'stem'?" in caught.value.remedy


def test_a_preset_that_cannot_serve_a_named_layer_is_an_error(net: nn.Module) -> None:
    with pytest.raises(
        UnsupportedError, match=r"preset 'tt_conv' cannot serve 'head\.weight', a Linear"
    ) as caught:
        plan(net, Budget(params=0.5), example=X, select={"head": "tt_conv"})
    assert "tt_matrix" in caught.value.remedy


def test_an_unknown_preset_is_an_error(net: nn.Module) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tucker2'"):
        plan(net, Budget(params=0.5), example=X, preset="tuker2")


def test_nothing_to_compress_is_an_error() -> None:
    with pytest.raises(SelectionError, match="nothing is left"):
        plan(nn.Sequential(nn.ReLU()), Budget(params=0.5), example=X)


def test_a_budget_that_no_plan_meets_says_the_smallest(net: nn.Module) -> None:
    with pytest.raises(BudgetError, match="smallest plan") as caught:
        plan(net, Budget(params=0.001), example=X)
    assert "params=0." in caught.value.remedy


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_with_nan_is_refused_and_nothing_changes(net: nn.Module, bad: float) -> None:
    chosen = plan(net, Budget(params=0.5), example=X)
    with torch.no_grad():
        net.point.weight[0, 0] = bad
    with pytest.raises(WeightError, match=r"'point\.weight'"):
        apply_(net, chosen)
    with pytest.raises(WeightError, match=r"'point\.weight'"):
        plan(net, Budget(params=0.5), example=X)
    assert type(net.stem) is nn.Conv2d


def test_a_plan_survives_json(net: nn.Module) -> None:
    for preset in ("tucker2", "cp3", "tt_conv"):
        chosen = plan(net, Budget(params=0.5), example=X, preset=preset, rule=Energy(0.9), method=None)
        assert Plan.from_json(chosen.to_json()) == chosen


def test_a_plan_may_be_edited(net: nn.Module) -> None:
    data = json.loads(plan(net, Budget(params=0.5), example=X).to_json())
    data["layers"]["stem"]["weight"]["ranks"] = {"R0": 2, "R1": 2}
    data["layers"]["stem"]["weight"]["method"] = {"name": "st_hosvd"}
    edited = Plan.from_json(json.dumps(data))
    assert edited.layers["stem"]["weight"].method == STHOSVD()
    apply_(net, edited)
    assert net.stem.weight.ranks == {"R0": 2, "R1": 2}


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"format": "tuker"}, UnknownNameError, "did you mean 'tucker'"),
        ({"method": {"name": "os.system"}}, UnknownNameError, "unknown method"),
        ({"method": {"name": "hooi", "speed": 3}}, TenfoldError, "no option"),
        ({"layout": "o i h w"}, TenfoldError, "->"),
        ({"ranks": {"R9": 2}}, TenfoldError, "R9"),
    ],
)
def test_a_spoilt_plan_is_refused(net: nn.Module, change: dict, error: type, message: str) -> None:
    data = json.loads(plan(net, Budget(params=0.5), example=X).to_json())
    data["layers"]["stem"]["weight"].update(change)
    with pytest.raises(error, match=message):
        apply_(net, Plan.from_json(json.dumps(data)))
    assert type(net.stem) is nn.Conv2d


def test_text_that_is_no_plan_is_refused() -> None:
    for text in ("", "[]", "{}", '{"version": 1}', '{"version": 99, "layers": {}}'):
        with pytest.raises(CheckpointError):
            Plan.from_json(text)


def test_a_plan_for_another_model_is_refused(net: nn.Module) -> None:
    chosen = plan(net, Budget(params=0.5), example=X)
    with pytest.raises(SelectionError, match="which the model has not"):
        apply_(nn.Sequential(nn.Linear(3, 3)), chosen)


def test_a_plan_with_factors_for_a_bias_is_refused(net: nn.Module) -> None:
    layers = plan(net, Budget(params=0.5), example=X).layers
    spoilt = Plan({"stem": {"weight": layers["stem"]["weight"], "bias": layers["stem"]["weight"]}})
    with pytest.raises(UnsupportedError, match=r"'stem\.bias', but weights alone have factors"):
        apply_(net, spoilt)
    assert type(net.stem) is nn.Conv2d


def test_a_plan_that_names_a_tied_weight_twice_is_refused() -> None:
    model = Tied(nn.Linear(64, 64))
    layers = plan(model, Budget(params=0.5), example=torch.randn(2, 64), preset="weight_svd").layers
    with pytest.raises(SelectionError, match="'a' and 'b', which hold the same weight"):
        apply_(model, Plan({"a": layers["a"], "b": layers["a"]}))
    assert type(model.a) is nn.Linear


def test_the_same_seed_gives_the_same_factors(net: nn.Module) -> None:
    a, b = (
        compress(net, Budget(params=0.5), example=X, preset="cp3", method=CPALS(max_steps=5)).model
        for _ in "ab"
    )
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


class Tied(nn.Module):
    def __init__(self, partner: nn.Module) -> None:
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = partner
        self.b.weight = self.a.weight
        self.c = self.a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


def test_tied_linear_layers_are_one_site_and_share_their_factors() -> None:
    net = Tied(nn.Linear(64, 64))
    x = torch.randn(3, 64)
    (site,) = find_sites(net, x)
    assert site.name == "a.weight" and set(site.shared) == {"b.weight", "c.weight"}
    small = compress(net, Budget(params=0.5), example=x, preset="weight_svd").model
    assert isinstance(small.b, FactorizedLinear)
    assert small.b.weight is small.a.weight and small.c is small.a and small.b is not small.a
    w = small.a.weight.dense()
    f = nn.functional.linear
    torch.testing.assert_close(
        small(x), f(f(f(x, w, net.a.bias), w, net.b.bias), w, net.a.bias), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["a", "b", "b.weight", "re:b", "re:c.*"])
def test_a_tied_weight_is_selected_by_any_of_its_names(name: str) -> None:
    net, x = Tied(nn.Linear(64, 64)), torch.randn(3, 64)
    chosen = plan(net, Budget(params=0.5), example=x, preset=None, select={name: "weight_svd"})
    assert set(chosen.layers) == {"a"}
    with pytest.raises(SelectionError, match=f"'{name}' selects none"):
        plan(net, Budget(params=0.5), example=x, preset="weight_svd", select={name: None})
    with pytest.raises(SelectionError, match="'d' matches no site"):
        plan(net, Budget(params=0.5), example=x, select={"d": None})


def test_a_weight_tied_to_an_embedding_stays_dense() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head, self.other = nn.Embedding(50, 32), nn.Linear(32, 50), nn.Linear(32, 32)
            self.head.weight = self.table.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.other(self.table(x)))

    x = torch.zeros(2, 3, dtype=torch.long)
    chosen = plan(Model(), Budget(params=0.5), example=x, preset="weight_svd")
    assert set(chosen.layers) == {"other"} and "head.weight" in chosen.dense["table.weight"]
    with pytest.raises(UnsupportedError, match=r"head\.weight"):
        plan(Model(), Budget(params=0.5), example=x, select={"table": "weight_svd"})
    with pytest.raises(UnsupportedError, match=r"head\.weight"):
        plan(Model(), Budget(params=0.5), example=x, select={"head": "weight_svd"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_factors_have_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3)).to(dtype)
    small = compress(net, Budget(params=0.5), example=torch.randn(1, 8, 9, 9, dtype=dtype)).model
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert small(torch.randn(1, 8, 9, 9, dtype=dtype)).dtype is dtype


def test_progress_counts_the_sites(net: nn.Module) -> None:
    calls: list[tuple[int, int, str]] = []
    compress(net, Budget(params=0.5), example=X, progress=lambda *args: calls.append(args))
    assert calls[0][:2] == (0, calls[0][1]) and calls[-1] == (calls[0][1], calls[0][1], "")
