"""Finding the ReLU behind a layer, and standing still before it."""

import threading
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tenfold.compress.calibration.lockstep import in_step
from tenfold.compress.calibration.ramps import ramps_behind


class Residual(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), written in several ways."""

    def __init__(self, way: str = "functional", projected: bool = False) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.norm2, self.relu = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(way == "in place")
        self.shortcut = nn.Conv2d(4, 4, 1) if projected else nn.Identity()

    def active(self, x: torch.Tensor) -> torch.Tensor:
        ways = {"functional": F.relu, "method": torch.Tensor.relu, "module": self.relu, "in place": self.relu}
        y: torch.Tensor = ways[self.way](x)
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.second(self.active(self.norm1(self.first(x)))))
        if self.way == "in place":
            y += self.shortcut(x)
        else:
            y = y + self.shortcut(x)
        return self.active(y)


def lively(model: nn.Module) -> nn.Module:
    """With statistics, slopes of both signs and shifts in every batch norm."""
    g = torch.Generator().manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight.data, m.bias.data, m.running_mean):
                t.copy_(torch.randn(t.shape, generator=g))
            m.running_var.copy_(0.5 + torch.rand(m.running_var.shape, generator=g))
    return model.eval().double()


def images() -> torch.Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("way", ["functional", "method", "module", "in place"])
def test_slopes_are_those_of_the_batch_norm_whatever_way_the_relu_is_written(way: str) -> None:
    torch.manual_seed(0)
    model = lively(Residual(way))
    found = ramps_behind(model, ["first", "second"], images())
    assert {name: ramp.number for name, ramp in found.items()} == {"first": 0, "second": 1}
    for name, norm in (("first", model.norm1), ("second", model.norm2)):
        torch.testing.assert_close(found[name].slope, norm.weight / (norm.running_var + norm.eps).sqrt())


def test_of_two_layers_in_a_sum_the_last_one_has_the_ramp() -> None:
    model = lively(Residual(projected=True))
    found = ramps_behind(model, ["first", "second", "shortcut"], images())
    assert sorted(found) == ["first", "shortcut"]
    torch.testing.assert_close(found["shortcut"].slope, torch.ones(4, dtype=torch.float64))


class Seen(nn.Module):
    """A layer whose output, or what is made of it, is seen by more than a ReLU, or by none."""

    def __init__(self, seen: str) -> None:
        super().__init__()
        self.seen, self.layer, self.norm = seen, nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> object:
        y = self.layer(x)
        return {
            "twice": lambda: y.relu() + y,
            "sum": lambda: (y + x).relu() * 2,
            "stream": lambda: (s := y + x) + self.norm(s).relu(),
            "returned": lambda: (y, y.relu()),
            "layer norm": lambda: self.norm(y).relu(),
            "gate": lambda: (y * y.sigmoid()).relu(),
            "gelu": lambda: F.gelu(y),
            "view": lambda: y.flatten().relu(),
        }[self.seen]()


@pytest.mark.parametrize("seen", ["twice", "stream", "returned", "layer norm", "gate", "gelu", "view"])
def test_what_others_see_too_or_a_relu_sees_changed_by_more_than_slopes_has_no_ramp(seen: str) -> None:
    assert ramps_behind(Seen(seen).eval(), ["layer"], torch.randn(5, 4)) == {}


def test_the_sum_of_a_linear_layer_and_its_input_has_one() -> None:
    ((name, ramp),) = ramps_behind(Seen("sum").eval(), ["layer"], torch.randn(5, 4)).items()
    assert (name, ramp.number) == ("layer", 0)
    torch.testing.assert_close(ramp.slope, torch.ones(4))


def test_a_pass_that_stands_before_a_relu_goes_on_with_what_is_put_there() -> None:
    model, x = lively(Residual()), images()
    with in_step(model, [1, model.second], [x]) as (walk,):
        first, second = walk.next(), walk.next()
        assert first is not None and second is not None
        assert first[0] is model.second and second[0] == 1
        torch.testing.assert_close(second[1].relu(), model(x))
        second[1].copy_(-torch.ones_like(second[1]))
        assert walk.next() is None
        assert walk.next() is None  # however often
    with in_step(model, [0], [x, x]) as walks:  # left where it stands
        assert [walk.next()[0] for walk in walks] == [0, 0]  # type: ignore[index]


class Deaf(nn.Module):
    """Goes on whatever its first layer raises."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with suppress(BaseException):
            x = self.first(x)
        y: torch.Tensor = self.second(x)
        return y


def test_a_pass_that_does_not_mind_being_cancelled_ends_at_the_next_stop() -> None:
    model = Deaf()
    with in_step(model, [model.first, model.second], [torch.zeros(1, 4)]) as (walk,):
        assert walk.next() is not None


def test_threads_that_were_started_end_if_another_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, started = threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        begin(self)

    model = nn.Linear(4, 4)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"), in_step(model, [model], [torch.zeros(1, 4)] * 3):
        pass
    assert not any(thread.is_alive() for thread in started)


def test_passes_run_on_the_default_device_of_the_caller() -> None:
    model, seen = nn.Identity(), []
    model.register_forward_hook(lambda *_: seen.append(torch.zeros(1).device.type))
    with torch.device("meta"), in_step(model, [], [torch.zeros(1)]) as (walk,):
        assert walk.next() is None
    assert seen == ["meta"]
