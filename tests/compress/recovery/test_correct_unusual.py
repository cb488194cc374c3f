"""Correction of models with shared weights, dead channels, changes in place, low precision, odd batches."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tenfold import Budget, apply_, collect, compress, find_sites, plan
from tenfold.compress import InputCovariance, Plan, correct_
from tenfold.compress.calibration.ramps import common_ramps
from tenfold.compress.recovery.refit import target_weight
from tenfold.core.errors import DataError

METRIC = InputCovariance()
Batches = list[torch.Tensor]


def rows(width: int = 16, batches: int = 4, each: int = 64, seed: int = 0) -> Batches:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=g)
    return [torch.randn(each, width, generator=g) @ mix for _ in range(batches)]


def compressed(dense: nn.Module, data: Batches, keep: float = 0.5) -> tuple[nn.Module, Plan]:
    stats = collect(dense, data, find_sites(dense, data[0]), want=METRIC.needs)
    found = plan(
        dense, Budget(params=keep), example=data[0], preset="weight_svd", metric=METRIC, statistics=stats
    )
    small = copy.deepcopy(dense)
    apply_(small, found, statistics=stats)
    return small, found


@torch.no_grad()
def apart(a: nn.Module, b: nn.Module, data: Batches) -> float:
    x = torch.cat(data)
    return float((a(x) - b(x)).norm() / b(x).norm())


class Made(nn.Module):
    """A model of a function of itself, with the layers that are given."""

    def __init__(self, run: Callable[..., torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


def test_the_mean_of_an_output_that_others_read_too_is_not_free() -> None:
    def stream(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.stem(x)
        return y + 0.1 * m.body(m.norm(y).relu())

    torch.manual_seed(0)
    dense = Made(
        stream, stem=nn.Linear(16, 16, bias=False), norm=nn.BatchNorm1d(16), body=nn.Linear(16, 16)
    ).eval()
    data = [x + 3.0 for x in rows()]
    small, found, _ = compress(
        dense, Budget(params=0.5), example=data[0], preset="weight_svd", select={"body": None}, metric=METRIC,
        data=data, correct=True,
    )  # fmt: skip
    assert not found.layers["stem"]["weight"].metric.centred  # type: ignore[union-attr]
    with torch.no_grad():
        x = torch.cat(data)
        lost = (small.get_submodule("stem")(x) - dense.get_submodule("stem")(x)).mean(0).norm()
        assert lost < 0.1 * dense.get_submodule("stem")(x).mean(0).norm()


def test_a_group_whose_inputs_are_0_keeps_its_weight() -> None:
    pp, yp = torch.zeros(2, 3, 3, dtype=torch.float64), torch.zeros(2, 1, 3, dtype=torch.float64)
    pp[1], weight = torch.eye(3), torch.ones(2, 1, 3, dtype=torch.float64)
    found = target_weight(weight, pp, yp, ridge=0.1)
    torch.testing.assert_close(found, torch.tensor([[[1.0]], [[0.1 / 1.1]]]).double().expand(2, 1, 3))
    assert torch.equal(target_weight(weight, 0 * pp, yp, ridge=0.1), weight)


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_a_channel_that_never_changes_leaves_its_depthwise_kernel_as_it_is(level: float) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 6, 1)
    ).eval()
    with torch.no_grad():
        dense[0].weight[2], dense[0].bias[2] = 0.0, level - 1e-9
    data = [torch.randn(32, 4, 8, 8) for _ in range(3)]
    small, found = compressed(dense, data)
    assert "2" not in found.layers
    correct_(small, dense, found, data, dense_too=True)
    kernels = [m.get_submodule("2").weight.detach() for m in (small, dense)]
    assert kernels[0].isfinite().all()
    assert kernels[0][2].norm() < 1.5 * kernels[1][2].norm()


def test_factors_that_two_layers_share_are_kept() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    dense[2].weight = dense[0].weight
    small, found = compressed(dense, rows())
    before = small.get_submodule("0").weight.dense().clone()
    done = correct_(small, dense, found, rows(), dense_too=True)
    assert [d.name for d in done] == ["4.weight"]
    assert torch.equal(small.get_submodule("0").weight.dense(), before)


def test_moments_of_float16_do_not_overflow() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    data = rows(each=4096)
    small, found = compressed(dense, data)
    wide, narrow = copy.deepcopy(small), copy.deepcopy(small).half()
    expected = correct_(wide, dense, found, data)
    done = correct_(narrow, copy.deepcopy(dense).half(), found, [x.half() for x in data])
    for a, b in zip(done, expected, strict=True):
        assert (a.before, a.after) == pytest.approx((b.before, b.after), abs=3e-3)


def test_modules_that_stayed_closed_run_as_in_the_dense_model() -> None:
    torch.manual_seed(0)
    a, b = (nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True) for _ in range(2))
    dense = nn.Sequential(a, b).eval()
    data = [torch.randn(8, 5, 16) for _ in range(3)]
    small, found, _ = compress(
        dense, Budget(params=0.5), example=data[0], preset="weight_svd", select={r"re:0\..*": None},
        metric=METRIC, data=data,
    )  # fmt: skip
    before = apart(small, dense, data)
    done = correct_(small, dense, found, data)
    assert {d.name.split(".")[0] for d in done} == {"1"}
    assert apart(small, dense, data) < before


@pytest.mark.parametrize("dense_too", [False, True])
def test_what_is_not_finite_is_an_error_that_names_the_layer(dense_too: bool) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    small, found = compressed(dense, rows())
    broken = rows()
    broken[1][3, 5] = torch.nan
    with pytest.raises(DataError, match=r"the inputs of '0\.weight' are not finite"):
        correct_(small, dense, found, broken, dense_too=dense_too)


def test_what_comes_to_a_layer_may_be_changed_in_place_behind_it() -> None:
    def apply(m: nn.Module, x: torch.Tensor, inside: bool) -> torch.Tensor:
        x = m.first(x)
        if inside:
            x += m.body(x)
        else:
            x = x + m.body(x)
        return m.last(m.norm(x))

    torch.manual_seed(0)
    layers = {
        "first": nn.Linear(16, 16),
        "body": nn.Linear(16, 16),
        "norm": nn.LayerNorm(16),
        "last": nn.Linear(16, 4),
    }
    found = []
    for inside in (False, True):
        dense = Made(lambda m, x, inside=inside: apply(m, x, inside), **copy.deepcopy(layers)).eval()
        small, chosen = compressed(dense, rows())
        found.append(correct_(small, dense, chosen, rows()))
    assert found[0] == found[1]


def test_layers_that_get_nothing_are_left_as_they_are() -> None:
    def route(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y, right = torch.zeros(len(x), 16), x[:, 0] > 0
        y[right], y[~right] = m.one(x[right]), m.two(x[~right])
        return m.last(y)

    torch.manual_seed(0)
    dense = Made(route, one=nn.Linear(16, 16), two=nn.Linear(16, 16), last=nn.Linear(16, 8)).eval()
    data = rows()
    small, found = compressed(dense, data)
    for x in data[1:]:
        x[:, 0] = x[:, 0].abs() + 0.1  # two gets rows of the first batch alone
    before = apart(small, dense, data)
    correct_(small, dense, found, data)
    assert apart(small, dense, data) <= before
    none = [x.abs() + 0.1 for x in data]
    done = {d.name: d for d in correct_(small, dense, found, none)}
    assert done["two.weight"].before == done["two.weight"].after == 0.0


def test_a_mask_with_as_many_rows_as_the_batch_is_not_cut() -> None:
    def attend(m: nn.Module, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = m.first(x)
        return m.last((y @ y.mT + mask).softmax(-1) @ y)

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 8)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return attend(self, x, mask)

    torch.manual_seed(0)
    dense = Masked().eval()
    data = [((torch.randn(12, 12, 16), torch.zeros(12, 12)), None)] * 2
    small, found, _ = compress(
        dense, Budget(params=0.5), example=data[0][0], preset="weight_svd", metric=METRIC, data=data
    )
    assert len(correct_(small, dense, found, data)) == len(found.layers) == 2


def test_calls_that_autocast_surrounds_see_the_same() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    data = rows()
    small, found = compressed(dense, data)
    twin = copy.deepcopy(small)
    expected = correct_(small, dense, found, data)
    with torch.autocast("cpu", torch.bfloat16):
        assert correct_(twin, dense, found, data) == expected


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate, self.head = nn.Conv2d(3, 4, 1), nn.Linear(3, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x.mean((2, 3))).sigmoid()
        y: torch.Tensor = self.head(F.relu(self.body(x) * gate[..., None, None]))
        return y


def test_a_gate_is_no_slope() -> None:
    torch.manual_seed(0)
    model, (one, two) = Gated().eval(), torch.randn(2, 1, 3, 5, 5)
    assert common_ramps([model], ["body"], [one])
    assert not common_ramps([model], ["body"], [one, two])


def test_ramps_of_two_models_agree_in_their_slopes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    twin, x = copy.deepcopy(model), torch.randn(4, 3, 5, 5)
    assert common_ramps([model, twin], ["0"], [x]).keys() == {"0"}
    twin[1].running_var.mul_(2)
    assert not common_ramps([model, twin], ["0"], [x])
