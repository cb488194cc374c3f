"""Checkpoints of models with tied dense weights, and of architectures that the meta device does not take."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tenfold import Budget, compress, load, save
from tenfold.compress import Plan
from tenfold.core.errors import CheckpointError, TargetError


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(30, 8), nn.Linear(8, 8), nn.Linear(8, 30, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(self.table(x)))
        return y


@pytest.mark.parametrize("built", [True, False])
def test_tied_dense_weights_are_tied_again(tmp_path: Path, built: bool) -> None:
    x = torch.arange(6)[None]
    small, plan, _ = compress(
        Tied().eval(), Budget(params=0.5), example=x, preset="weight_svd", select={"table": None}
    )
    save(small, tmp_path / "small", plan)
    loaded = load(Tied() if built else Tied, tmp_path / "small")
    assert loaded.get_submodule("head").weight is loaded.get_submodule("table").weight
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in small.parameters())
    assert torch.equal(loaded(x), small(x))


def test_weights_that_were_untied_before_saving_stay_apart(tmp_path: Path) -> None:
    x = torch.arange(6)[None]
    small, plan, _ = compress(
        Tied().eval(), Budget(params=0.5), example=x, preset="weight_svd", select={"table": None}
    )
    small.head.weight = nn.Parameter(small.head.weight.detach() + 1.0)
    save(small, tmp_path / "small", plan)
    loaded = load(Tied, tmp_path / "small")
    assert not torch.equal(loaded.get_submodule("head").weight, loaded.get_submodule("table").weight)
    assert torch.equal(loaded(x), small(x))


class Looking(nn.Module):
    """Its constructor looks at a number, and it keeps a tensor that is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = [x.item() for x in torch.linspace(0, 1, 3)][1]
        self.scale = torch.tensor(2.0)
        self.layer = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x) * self.scale * self.rate
        return y


class Keeping(Looking):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.rate, self.scale, self.layer = 0.5, torch.tensor(2.0), nn.Linear(16, 16)


@pytest.mark.parametrize("architecture", [Looking, Keeping])
def test_architectures_that_need_numbers_are_built_with_them(
    tmp_path: Path, architecture: type[Looking]
) -> None:
    x = torch.randn(3, 16)
    small, plan, _ = compress(architecture().eval(), Budget(params=0.5), example=x, preset="weight_svd")
    save(small, tmp_path / "small", plan)
    assert torch.equal(load(architecture, tmp_path / "small")(x), small(x))


def test_a_plan_of_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    small, plan, _ = compress(net, Budget(params=0.5), example=torch.zeros(1, 16), preset="weight_svd")
    small[2] = nn.Linear(16, 16)
    with pytest.raises(CheckpointError, match="the plan describes '2', which is no factorized layer"):
        save(small, tmp_path / "small", plan)
    assert not (tmp_path / "small").exists()


def test_plans_are_utf_8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan({}, {"größe.weight": "its name"})
    plan.save(tmp_path / "plan.json")
    assert "größe" in (tmp_path / "plan.json").read_text(encoding="utf-8")
    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    assert Plan.load(tmp_path / "plan.json").dense == plan.dense


def test_a_folder_with_a_plan_and_something_else_is_not_replaced(tmp_path: Path) -> None:
    own = tmp_path / "project"
    own.mkdir()
    for name in ("plan.json", "thesis.tex"):
        (own / name).write_text("dear")
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    small = compress(net, Budget(params=0.5), example=torch.zeros(1, 16), preset="weight_svd").model
    with pytest.raises(TargetError, match=r"holds 'thesis\.tex', which is not tenfold's"):
        save(small, own)
    assert (own / "plan.json").read_text() == (own / "thesis.tex").read_text() == "dear"
