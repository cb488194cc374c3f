"""Several presets for a site: the rule takes the one that loses least at its cost."""

import pytest
import torch
from torch import nn

from tenfold import Budget, Lagrangian, apply_, collect, compress, find_sites, plan
from tenfold.compress import KroneckerFisher, Plan, choose, presets
from tenfold.compress.presets import AUTO
from tenfold.core.errors import SelectionError, UnknownNameError, UnsupportedError
from tenfold.nn import FactorizedLayer

EXAMPLE = torch.zeros(2, 8, 10, 10)


def convolution(kernel: torch.Tensor) -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(*kernel.shape[1::-1], kernel.shape[2:], padding=1, bias=False), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(kernel)
    return net


def separable(seed: int = 0) -> torch.Tensor:
    """A kernel of spatial rank 2: sums of a column over the inputs times a row over the outputs."""
    g = torch.Generator().manual_seed(seed)
    columns, rows = torch.randn(8, 3, 2, generator=g), torch.randn(2, 12, 3, generator=g)
    return torch.einsum("ihr,row->oihw", columns, rows)


def narrow(seed: int = 0) -> torch.Tensor:
    """A kernel of Tucker-2 ranks 2 and 2."""
    g = torch.Generator().manual_seed(seed)
    o, i, core = (
        torch.randn(12, 2, generator=g),
        torch.randn(8, 2, generator=g),
        torch.randn(2, 2, 3, 3, generator=g),
    )
    return torch.einsum("oa,ib,abhw->oihw", o, i, core)


@pytest.mark.parametrize(
    ("kernel", "keep", "format_", "layout"),
    [(separable(), 0.15, "lowrank", "(i h) (o w)"), (narrow(), 0.12, "tucker", "o i (h w)")],
    ids=["spatial", "tucker2"],
)
def test_auto_finds_the_format_in_which_a_kernel_was_made(
    kernel: torch.Tensor, keep: float, format_: str, layout: str
) -> None:
    net = convolution(kernel)
    found = plan(net, Budget(params=keep), example=EXAMPLE, preset="auto", rule=Lagrangian())
    layer = found.layers["0"]["weight"]
    assert layer.format == format_
    assert layer.layout.partition("-> ")[2] == layout
    (fit,) = apply_(net, found)
    assert fit.error < 1e-5
    assert isinstance(net[0], FactorizedLayer)


def test_auto_loses_no_more_than_any_of_its_presets() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(576, 5))
    batches = [(torch.randn(64, 8, 10, 10), torch.randint(5, (64,)))]
    seen = collect(net, batches, find_sites(net, EXAMPLE), want=KroneckerFisher.needs)

    def loss(preset: str) -> float:
        small = compress(
            net, Budget(params=0.4), example=EXAMPLE, preset=preset, select={"4": None},
            metric=KroneckerFisher(), rule=Lagrangian(), statistics=seen,
        )  # fmt: skip
        return sum(lost(small.plan, net, small.model, seen))

    best = min(loss(name) for name in AUTO)
    assert loss("auto") <= 1.05 * best


def lost(found: Plan, dense: nn.Module, small: nn.Module, seen: object) -> list[float]:
    """½ tr(G ΔW P ΔWᵀ) at every site."""
    losses = []
    for name in found.layers:
        s = seen[f"{name}.weight"]  # type: ignore[index]
        change = dense.get_submodule(name).weight - small.get_submodule(name).weight.dense()
        change = change.detach().flatten(1)
        p = s.patch_centred
        losses.append(0.5 * float(torch.trace(s.gradient_covariance @ change @ p @ change.T)))
    return losses


def test_several_presets_may_be_named_and_a_selection_may_name_auto() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    sites = find_sites(net, EXAMPLE)
    first, second = choose(net, sites, ["channel_svd", "tucker2"], {"2": "auto"})
    assert [s.preset.name for s in first.schemes] == ["channel_svd", "tucker2"]
    assert len(second.schemes) == len(AUTO)
    found = plan(
        net, Budget(params=0.3), example=EXAMPLE, preset=("channel_svd", "tucker2"), rule=Lagrangian()
    )
    assert set(found.layers) == {"0", "2"}
    assert Plan.from_json(found.to_json()).layers == found.layers


def test_a_pointwise_kernel_is_offered_each_layout_once() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 1))
    (choice,) = choose(net, find_sites(net, EXAMPLE), "auto", None)
    assert [s.preset.name for s in choice.schemes] == ["weight_svd"]


def test_linear_layers_keep_to_the_presets_that_serve_them() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    for choice in choose(net, find_sites(net, torch.zeros(1, 8)), "auto", None):
        assert [s.preset.name for s in choice.schemes] == ["weight_svd"]


def test_a_site_that_none_of_the_presets_serves_is_refused_only_when_it_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16 * 64, 4))
    sites = find_sites(net, EXAMPLE)
    assert choose(net, sites, "channel_svd", None)[1].schemes == ()
    with pytest.raises(UnsupportedError, match="cannot serve"):
        choose(net, sites, "channel_svd", {"2": "tucker2"})
    with pytest.raises(UnknownNameError):
        choose(net, sites, "automatic", None)
    with pytest.raises(SelectionError, match="nothing is left"):
        choose(net, sites, [], None)
    assert "auto" not in presets
