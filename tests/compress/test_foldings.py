"""Foldings and slices by name: what they do with layers, in plans, on disk, and by ALDS on a ResNet-20."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tenfold import ALDS, Budget, Lagrangian, Plan, apply_, compress, find_sites, load, save
from tenfold.compress import presets
from tenfold.compress.cost import flops_of
from tenfold.compress.foldings import FOLDINGS, foldings
from tenfold.compress.moments import Moments, firsts, moment_of_mode
from tenfold.compress.plan import LayerPlan
from tenfold.compress.presets import Scheme, sliced
from tenfold.core.errors import OptionError, UnknownNameError, UnsupportedError
from tenfold.core.layout import Layout
from tenfold.export import to_native
from tenfold.nn import FactorizedLayer
from tenfold.ranks import Candidate, winners
from tenfold.ranks.base import total
from tenfold.zoo import resnet20

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


# Names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, layout",
    [
        ("channel_svd", "o i h w -> o (i h w)"),
        ("spatial_svd_w", "o i h w -> (i w) (o h)"),
        ("spatial_svd", "o i h w -> (i h) (o w)"),
        ("weight_svd", "o i h w -> (o h w) i"),
        ("channel_svd/2", "o (i0=2 i1=4) h w -> o i0 (i1 h w)"),
        ("spatial_svd_w/4", "o (i0=4 i1=2) h w -> (o h) i0 (i1 w)"),
        ("spatial_svd/4", "o (i0=4 i1=2) h w -> (o w) i0 (i1 h)"),
        ("weight_svd/8", "o (i0=8 i1=1) h w -> (o h w) i0 i1"),
        ("channel_svd/1", "o i h w -> o (i h w)"),
    ],
)
def test_every_folding_has_a_name_and_the_number_of_slices_in_its_layout(name: str, layout: str) -> None:
    scheme = presets[name](nn.Conv2d(8, 6, 3), "conv")
    assert str(scheme.layout) == layout
    assert Layout.parse(layout).bind((6, 8, 3, 3)) == scheme.layout


def test_the_four_foldings_are_those_of_alds() -> None:
    """Encode f × (c k₁ k₂), split 1 (f k₁) × (k₂ c), split 2 (f k₂) × (k₁ c), decode (f k₁ k₂) × c."""
    weight = torch.randn(6, 8, 3, 2)
    matrices = [
        weight.reshape(6, -1),
        weight.permute(0, 2, 3, 1).reshape(6 * 3, 2 * 8),
        weight.permute(0, 3, 2, 1).reshape(6 * 2, 3 * 8),
        weight.permute(0, 2, 3, 1).reshape(6 * 3 * 2, 8),
    ]
    conv = nn.Conv2d(8, 6, (3, 2))
    for name, matrix in zip(FOLDINGS, matrices, strict=True):
        ours = presets[name](conv, "conv").layout.to_modes(weight)
        torch.testing.assert_close(torch.linalg.svdvals(ours), torch.linalg.svdvals(matrix))


def test_linear_layers_and_kernels_of_one_point_have_one_folding() -> None:
    assert foldings(nn.Linear(4, 6)) == ("weight_svd", "weight_svd/2", "weight_svd/4")
    assert foldings(nn.Conv2d(4, 6, 1)) == ("weight_svd", "weight_svd/2", "weight_svd/4")
    assert (
        str(presets["spatial_svd/2"](nn.Conv2d(4, 6, 1), "c").layout) == "o (i0=2 i1=2) h w -> (o h w) i0 i1"
    )
    assert foldings(nn.Conv1d(2, 6, 3)) == ("channel_svd", "channel_svd/2", "weight_svd", "weight_svd/2")


def test_the_foldings_of_a_model_are_those_of_all_its_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2))
    numbers = sorted({int(n.partition("/")[2] or 1) for n in foldings(net)})
    assert numbers == [1, 2, 3]
    assert len(foldings(net)) == 12 and foldings(nn.ReLU()) == ()


def test_names_and_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnsupportedError) as error:
        presets["channel_svd/4"](nn.Conv2d(3, 8, 3), "stem")
    assert (
        error.value.problem == "preset 'channel_svd/4' cannot serve 'stem': 4 does not divide its 3 (i0 i1)."
    )
    assert error.value.remedy == "Leave it out, or choose a divisor of 3."
    with pytest.raises(UnknownNameError, match="preset 'channel_svd/x' does not say how many slices"):
        presets["channel_svd/x"]
    with pytest.raises(UnknownNameError, match="does not say how many slices"):
        presets["channel_svd/0"]
    with pytest.raises(UnknownNameError, match="unknown preset 'chanel_svd'; did you mean 'channel_svd'"):
        presets["chanel_svd/2"]
    with pytest.raises(UnsupportedError, match="preset 'tucker2' is not of low rank and has no slices"):
        sliced(presets["tucker2"], 2)
    with pytest.raises(OptionError, match=r"numbers of slices came as \[0\]"):
        foldings(nn.Linear(4, 4), (0, 2))


# Models ----------------------------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, groups=2), nn.ReLU(),
        nn.Conv2d(24, 16, 1), nn.Flatten(), nn.Linear(16 * 9, 12),
    )  # fmt: skip


Y = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("preset", [f"{row}/{n}" for row in FOLDINGS for n in (2, 4)])
def test_a_model_in_slices_equals_its_dense_twin_and_comes_back_from_disk(
    preset: str, tmp_path: Path
) -> None:
    small, plan, fits = compress(net().eval(), Budget(params=0.6), example=Y, preset=preset)
    assert len(fits) >= 3
    assert Plan.from_json(plan.to_json()) == plan
    dense = nn.Sequential(*(m.to_dense() if isinstance(m, FactorizedLayer) else m for m in small))
    torch.testing.assert_close(small(Y), dense(Y), rtol=1e-4, atol=1e-5)
    save(small, tmp_path / "small", plan)
    assert torch.equal(load(net, tmp_path / "small")(Y), small(Y))
    torch.testing.assert_close(to_native(small)(Y), small(Y), rtol=1e-4, atol=1e-5)


def test_a_site_whose_inputs_the_slices_do_not_divide_stays_dense_and_says_why() -> None:
    chosen = compress(nn.Sequential(nn.Conv2d(3, 9, 3), nn.Conv2d(9, 9, 3)), Budget(params=0.9),
                      example=torch.zeros(1, 3, 8, 8), preset="channel_svd/9").plan  # fmt: skip
    assert chosen.dense == {"0.weight": "preset 'channel_svd/9' cannot serve '0.weight': "
                            "9 does not divide its 3 (i0 i1)."}  # fmt: skip
    assert set(chosen.layers) == {"1"}


# ResNet-20 under ALDS --------------------------------------------------------------------------------------


def candidates(model: nn.Module, slices: tuple[int, ...]) -> tuple[list[Candidate], dict[str, Scheme]]:
    """Every folding in every number of slices for every site, and their schemes by the candidates' names."""
    found, schemes = [], {}
    for site in find_sites(model, X):
        layer, weight = model.get_submodule(site.module), model.get_parameter(site.name).detach()
        for preset in foldings(layer, slices):
            scheme = presets[preset](layer, site.name)
            form, layout, name = scheme.preset.format_class, scheme.layout, f"{site.name}: {preset}"
            schemes[name] = scheme
            found.append(
                Candidate(
                    name,
                    form,
                    layout.mode_shape,
                    (),
                    partial(layout.to_modes, weight),
                    site=site.name,
                    flops=flops_of(layer, form, layout, site.example or ()),
                )
            )
    return found, schemes


def planned(model: nn.Module, rule: ALDS | Lagrangian, budget: Budget, slices: tuple[int, ...]) -> Plan:
    found, schemes = candidates(model, slices)
    layers = {}
    for site, (used, ranks) in winners(found, rule(found, budget)).items():
        if ranks is not None:
            scheme = schemes[used.name]
            layer = LayerPlan(scheme.preset.format, str(scheme.layout), ranks, scheme.preset.method)
            layers[site.removesuffix(".weight")] = {"weight": layer}
    return Plan(layers)


def sites_numel(model: nn.Module) -> int:
    return sum(p.numel() for m in model.modules() if isinstance(m, FactorizedLayer | nn.Conv2d | nn.Linear)
               for n, p in m.named_parameters() if n != "bias")  # fmt: skip


@pytest.mark.parametrize("rule", [ALDS(), Lagrangian(relative=True)], ids=lambda rule: type(rule).__name__)
def test_a_resnet20_is_compressed_with_foldings_and_slices_of_the_rules_choice(
    rule: ALDS | Lagrangian,
) -> None:
    torch.manual_seed(0)
    model = resnet20().eval()
    dense = sites_numel(model)
    chosen = planned(model, rule, Budget(params=0.25, floor=0.5), (1, 2, 4, 16))
    assert Plan.from_json(chosen.to_json()) == chosen
    apply_(model, chosen)
    assert 0.2 * dense < sites_numel(model) <= 0.25 * dense
    assert model(X).shape == (2, 10)
    used = {layer["weight"].format for layer in chosen.layers.values()}
    assert "sliced_lowrank" in used


def worst_error(model: nn.Module, slices: tuple[int, ...]) -> float:
    found, _ = candidates(model, slices)
    chosen = ALDS()(found, Budget(params=0.25, floor=0))
    assert total(found, chosen) <= 0.25 * sites_numel(model)
    used = [(c, ranks["R"]) for c, ranks in winners(found, chosen).values() if ranks is not None]
    return max(float(s[r] / whole) for c, r in used for s, whole in c.operators("R") if r < len(s))


def test_more_candidates_never_raise_the_worst_error_of_alds() -> None:
    torch.manual_seed(0)
    model = resnet20()
    errors = [worst_error(model, slices) for slices in ((1,), (1, 4), (1, 2, 4))]
    assert errors == sorted(errors, reverse=True)


def test_alds_counts_flops_too() -> None:
    torch.manual_seed(0)
    found, _ = candidates(resnet20(), (1, 4))
    dense = sum({c.place: c.cost(None, "flops") for c in found}.values())
    chosen = ALDS()(found, Budget(flops=0.4))
    assert 0.3 * dense < total(found, chosen, "flops") <= 0.4 * dense


# The metric of the data ------------------------------------------------------------------------------------


def spd(n: int, seed: int) -> Tensor:
    x = torch.randn(n, 2 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.T / n


SLICES = [
    "o (i0=3 i1) h w -> o i0 (i1 h w)",
    "o (i0=3 i1) h w -> (o w) i0 (i1 h)",
    "o (i0=3 i1) h w -> (o h w) i0 i1",
]


@pytest.mark.parametrize("text", SLICES)
def test_a_moment_that_is_the_same_in_every_slice_is_recovered(text: str) -> None:
    """For P = I ⊗ A ⊗ B ⊗ C over (i0, i1, h, w) the modes' moments multiply to G ⊗ P."""
    layout = Layout.parse(text).bind((4, 6, 2, 2))
    g, a, b, c = spd(4, 0), spd(2, 1), spd(2, 2), spd(2, 3)
    p = torch.kron(torch.kron(torch.kron(torch.eye(3, dtype=torch.float64), a), b), c)
    found = [moment_of_mode(group, layout, Moments(g, p), first) for first, group in firsts(layout)]
    assert found[1] is None
    whole = torch.ones(1, 1, dtype=torch.float64)
    for size, m in zip(layout.mode_shape, found, strict=True):
        whole = torch.kron(whole, torch.eye(size, dtype=torch.float64) if m is None else m)
    w = torch.randn(4, 6, 2, 2, dtype=torch.float64)
    x, flat = layout.to_modes(w).reshape(-1), w.reshape(4, -1)
    torch.testing.assert_close(x @ whole @ x, torch.trace(g @ flat @ p @ flat.T))


@pytest.mark.parametrize("text", [*SLICES, "o i h w -> (o h w) i"])
def test_other_moments_keep_their_trace(text: str) -> None:
    layout = Layout.parse(text).bind((4, 6, 2, 2))
    for p in (spd(24, 4), spd(6, 5)):
        found = [moment_of_mode(group, layout, Moments(None, p), first) for first, group in firsts(layout)]
        trace = torch.ones((), dtype=torch.float64)
        for size, m in zip(layout.mode_shape, found, strict=True):
            trace = trace * (size if m is None else torch.trace(m))
        torch.testing.assert_close(trace, 4 * torch.trace(p) * (1 if len(p) == 24 else 4))
